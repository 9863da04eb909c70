//! What a host has to give: firmware, a TPM, memory, and a KVM that runs a guest.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roxmltree::Document;
use virt::connect::Connect;
use virt::error::ErrorNumber;

use super::blueprint::HYPERV;
use super::{CALL, Host};
use snapdeck_model::settings::Accel;
use snapdeck_model::{Result, SandboxId};

/// For what libvirt tells after it has probed QEMU's capabilities, and for the start of the smallest guest.
const PROBED: Duration = Duration::from_secs(120);
/// How long a guest under KVM has to show that it runs; one by emulation takes 3 s for the same.
const PROVE: Duration = Duration::from_secs(15);
/// How often that is looked for.
const PROVE_LOOK: Duration = Duration::from_millis(100);

/// What the host's libvirt and QEMU can give a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// UEFI.
    pub uefi: bool,
    /// UEFI that can secure its boot.
    pub secure_uefi: bool,
    /// A TPM by emulation (swtpm).
    pub tpm: bool,
}

/// A host's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What guests could have now, the page cache given up for them.
    pub available: u64,
}

impl Host {
    /// What the host can give a sandbox.
    ///
    /// # Errors
    /// `Unreachable`; `Failed` where its QEMU has no machine of the kind we need.
    pub async fn offer(&self) -> Result<Offer> {
        let ask = |connect: &Connect| {
            connect.domain_capabilities(None, Some("x86_64"), Some("q35"), Some("qemu"), 0)
        };
        let told = self.libvirt.call("ask what it offers", PROBED, ask).await?;
        Ok(read_offer(&told))
    }

    /// The host's memory.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn memory(&self) -> Result<Memory> {
        let ask = |connect: &Connect| {
            Ok((
                connect.node_info()?.memory,
                snapdeck_libvirt::memory_stats(connect)?,
            ))
        };
        let (total_kib, stats) = self.libvirt.call("look at the memory", CALL, ask).await?;
        let of = |field: &str| {
            let stat = stats.iter().find(|(name, _)| name == field);
            stat.map_or(0, |(_, kib)| *kib)
        };
        Ok(Memory {
            total: total_kib << 10,
            available: (of("free") + of("buffers") + of("cached")) << 10,
        })
    }

    /// Is a sandbox to run under KVM? `Auto` is found out by running a guest: `/dev/kvm` alone tells nothing.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn runs_under_kvm(&self, accel: Accel) -> Result<bool> {
        match accel {
            Accel::Kvm => Ok(true),
            Accel::Qemu => Ok(false),
            Accel::Auto => self.kvm.get_or_try_init(|| self.prove_kvm()).await.copied(),
        }
    }

    /// Runs a guest that finds nothing to boot and ends itself by a reset: proof that its CPU really ran, with what a
    /// sandbox asks of its hypervisor.
    async fn prove_kvm(&self) -> Result<bool> {
        // Another snapdeck may be at it, too.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let id: SandboxId = format!("snapdeck-probe-{:x}", now.as_nanos()).parse()?;
        let xml = PROBE
            .replace("{id}", id.as_str())
            .replace("{hyperv}", HYPERV);
        // libvirt ends the guest with the connection that started it: all is asked on one.
        let prove = move |connect: &Connect| prove(connect, id.as_str(), &xml);
        let limit = PROBED + PROVE;
        let proven = self
            .libvirt
            .call_long("run a guest under KVM", limit, prove)
            .await?;
        let host = self.name();
        match &proven {
            Proof::Refused(why) => {
                tracing::info!("host {host} has no KVM that runs a guest: {why}");
            }
            Proof::Stuck => {
                tracing::info!("host {host} has a KVM under which a guest does not come further");
            }
            Proof::Ran => {}
        }
        Ok(proven == Proof::Ran)
    }
}

/// What became of the guest that is to prove KVM.
#[derive(PartialEq)]
enum Proof {
    /// It ran and ended itself.
    Ran,
    /// It was started, and is ended.
    Stuck,
    /// It could not be started, and why.
    Refused(String),
}

/// Blocks until it is known.
fn prove(
    connect: &Connect,
    name: &str,
    xml: &str,
) -> std::result::Result<Proof, virt::error::Error> {
    let flags = virt_sys::VIR_DOMAIN_START_AUTODESTROY;
    if let Err(error) = connect.create_domain_xml(xml, flags) {
        return match connect.is_alive() {
            Ok(true) => Ok(Proof::Refused(error.message().to_owned())),
            _ => Err(error),
        };
    }
    let is_gone = |error: &virt::error::Error| error.code().is(ErrorNumber::NoDomain);
    let since = Instant::now();
    while since.elapsed() < PROVE {
        match connect.lookup_domain_by_name(name) {
            Err(error) if is_gone(&error) => return Ok(Proof::Ran),
            Err(error) if !connect.is_alive().unwrap_or(false) => return Err(error),
            _ => std::thread::sleep(PROVE_LOOK),
        }
    }
    match connect
        .lookup_domain_by_name(name)
        .and_then(|guest| guest.destroy())
    {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(Proof::Stuck),
    }
}

/// A guest with nothing to boot, whose firmware resets it at once, which ends it.
const PROBE: &str = "<domain type='kvm'><name>{id}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/><bios rebootTimeout='0'/></os>\
    <features><acpi/><apic/>{hyperv}</features><cpu mode='host-passthrough'/><on_reboot>destroy</on_reboot>\
    <devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>";

/// Reads libvirt's domain capabilities (libvirt, "Domain capabilities XML format").
fn read_offer(xml: &str) -> Offer {
    let document = Document::parse(xml).ok();
    let has = |element: &str, list: &str, value: &str| {
        document.as_ref().is_some_and(|document| {
            document.descendants().any(|node| {
                node.has_tag_name("value")
                    && node.text() == Some(value)
                    && node.ancestors().any(|above| {
                        above.has_tag_name("enum") && above.attribute("name") == Some(list)
                    })
                    && node.ancestors().any(|above| above.has_tag_name(element))
            })
        })
    };
    let uefi = has("os", "firmware", "efi");
    Offer {
        uefi,
        secure_uefi: uefi && has("loader", "secure", "yes"),
        tpm: has("tpm", "backendModel", "emulator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_host_offers() {
        let capabilities = |firmware: &str, secure: &str, tpm: &str| {
            format!(
                "<domainCapabilities><os supported='yes'><enum name='firmware'>{firmware}</enum>\
                 <loader supported='yes'><enum name='secure'>{secure}<value>no</value></enum></loader></os>\
                 <devices><tpm supported='yes'><enum name='backendModel'><value>passthrough</value>{tpm}</enum>\
                 </tpm></devices></domainCapabilities>"
            )
        };
        let offer = |uefi, secure_uefi, tpm| Offer {
            uefi,
            secure_uefi,
            tpm,
        };
        let (efi, yes) = ("<value>efi</value>", "<value>yes</value>");
        let swtpm = "<value>emulator</value>";
        for (told, offered) in [
            (capabilities(efi, yes, swtpm), offer(true, true, true)),
            (capabilities(efi, "", ""), offer(true, false, false)),
            (capabilities("", yes, ""), offer(false, false, false)),
            ("no xml".to_owned(), offer(false, false, false)),
        ] {
            assert_eq!(read_offer(&told), offered, "{told}");
        }
    }
}
