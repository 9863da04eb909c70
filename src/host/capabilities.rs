//! What a host has to give: firmware, a TPM, memory, and a KVM that runs a guest.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roxmltree::Document;
use virt::connect::Connect;
use virt::error::ErrorNumber;

use super::domain_xml::HYPERV;
use super::libvirt::Libvirt;
use super::{CALL_TIMEOUT, backup};
use snapdeck_model::settings::Accel;
use snapdeck_model::{Result, SandboxId};

/// For what libvirt tells after it has probed QEMU's capabilities, and for the start of the smallest guest.
const CAPABILITIES_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a guest under KVM has to show that it runs; one by emulation takes 3 s for the same.
const KVM_PROBE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often that is looked for.
const KVM_PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// What the host's libvirt and QEMU can give a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostCapabilities {
    /// UEFI.
    pub has_uefi: bool,
    /// UEFI that can secure its boot.
    pub has_secure_boot: bool,
    /// A TPM by emulation (swtpm).
    pub has_tpm: bool,
}

/// A host's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// All of it.
    pub total_bytes: u64,
    /// What guests could have now, the page cache given up for them.
    pub available_bytes: u64,
}

impl Libvirt {
    /// What the host can give a sandbox.
    ///
    /// # Errors
    /// `Unreachable`; `Failed` where its QEMU has no machine of the kind we need.
    pub async fn capabilities(&self) -> Result<HostCapabilities> {
        let ask = |connect: &Connect| {
            connect.domain_capabilities(None, Some("x86_64"), Some("q35"), Some("qemu"), 0)
        };
        let told = self
            .call("ask what it offers", CAPABILITIES_TIMEOUT, ask)
            .await?;
        Ok(parse_capabilities(&told))
    }

    /// The host's memory.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn memory(&self) -> Result<HostMemory> {
        let ask = |connect: &Connect| {
            Ok((
                connect.node_info()?.memory,
                snapdeck_libvirt::memory_stats(connect)?,
            ))
        };
        let (total_kib, stats) = self.call("look at the memory", CALL_TIMEOUT, ask).await?;
        let of = |field: &str| {
            let stat = stats.iter().find(|(name, _)| name == field);
            stat.map_or(0, |(_, kib)| *kib)
        };
        Ok(HostMemory {
            total_bytes: total_kib << 10,
            available_bytes: (of("free") + of("buffers") + of("cached")) << 10,
        })
    }

    /// Is a sandbox to run under KVM? `Auto` is found out by running a guest: `/dev/kvm` alone tells nothing.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn has_usable_kvm(&self, accel: Accel) -> Result<bool> {
        match accel {
            Accel::Kvm => Ok(true),
            Accel::Qemu => Ok(false),
            Accel::Auto => self
                .kvm_usable
                .get_or_try_init(|| self.probe_kvm())
                .await
                .copied(),
        }
    }

    /// Can its QEMU back up running sandboxes, as far as libvirt knows?
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn supports_backup(&self) -> Result<bool> {
        let query = |connect: &Connect| connect.domain_capabilities(None, None, None, None, 0);
        let capabilities = self.call("read the domain capabilities", CAPABILITIES_TIMEOUT, query);
        Ok(backup::offers_backup(&capabilities.await?))
    }

    /// Runs a guest that finds nothing to boot and ends itself by a reset: proof that its CPU really ran, with what a
    /// sandbox asks of its hypervisor.
    async fn probe_kvm(&self) -> Result<bool> {
        // Another snapdeck may be at it, too.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let id: SandboxId = format!("snapdeck-probe-{:x}", now.as_nanos()).parse()?;
        let xml = PROBE_XML
            .replace("{id}", id.as_str())
            .replace("{hyperv}", HYPERV);
        // libvirt ends the guest with the connection that started it: all is asked on one.
        let prove = move |connect: &Connect| run_probe_guest(connect, id.as_str(), &xml);
        let limit = CAPABILITIES_TIMEOUT + KVM_PROBE_TIMEOUT;
        let proven = self
            .call_long("run a guest under KVM", limit, prove)
            .await?;
        let host = self.host();
        match &proven {
            KvmProbeResult::StartFailed(why) => {
                tracing::info!(
                    "KVM does not work on host {host} ({why}): the guest runs in emulation, 10 to 20 times slower"
                );
            }
            KvmProbeResult::TimedOut => {
                tracing::info!(
                    "KVM probe guest on {host} did not finish: the guest runs in emulation, 10 to 20 times slower"
                );
            }
            KvmProbeResult::Working => {}
        }
        Ok(proven == KvmProbeResult::Working)
    }
}

/// What became of the guest that is to prove KVM.
#[derive(PartialEq)]
enum KvmProbeResult {
    /// It ran and ended itself.
    Working,
    /// It was started, and is ended.
    TimedOut,
    /// It could not be started, and why.
    StartFailed(String),
}

/// Blocks until it is known.
fn run_probe_guest(
    connect: &Connect,
    name: &str,
    xml: &str,
) -> std::result::Result<KvmProbeResult, virt::error::Error> {
    let flags = virt_sys::VIR_DOMAIN_START_AUTODESTROY;
    if let Err(error) = connect.create_domain_xml(xml, flags) {
        return match connect.is_alive() {
            Ok(true) => Ok(KvmProbeResult::StartFailed(error.message().to_owned())),
            _ => Err(error),
        };
    }
    let is_gone = |error: &virt::error::Error| error.code().is(ErrorNumber::NoDomain);
    let since = Instant::now();
    while since.elapsed() < KVM_PROBE_TIMEOUT {
        match connect.lookup_domain_by_name(name) {
            Err(error) if is_gone(&error) => return Ok(KvmProbeResult::Working),
            Err(error) if !connect.is_alive().unwrap_or(false) => return Err(error),
            _ => std::thread::sleep(KVM_PROBE_INTERVAL),
        }
    }
    match connect
        .lookup_domain_by_name(name)
        .and_then(|guest| guest.destroy())
    {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(KvmProbeResult::TimedOut),
    }
}

/// A guest with nothing to boot, whose firmware resets it at once, which ends it.
const PROBE_XML: &str = "<domain type='kvm'><name>{id}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/><bios rebootTimeout='0'/></os>\
    <features><acpi/><apic/>{hyperv}</features><cpu mode='host-passthrough'/><on_reboot>destroy</on_reboot>\
    <devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>";

/// Reads libvirt's domain capabilities (libvirt, "Domain capabilities XML format").
fn parse_capabilities(xml: &str) -> HostCapabilities {
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
    HostCapabilities {
        has_uefi: uefi,
        has_secure_boot: uefi && has("loader", "secure", "yes"),
        has_tpm: has("tpm", "backendModel", "emulator"),
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
        let offer = |uefi, secure_uefi, tpm| HostCapabilities {
            has_uefi: uefi,
            has_secure_boot: secure_uefi,
            has_tpm: tpm,
        };
        let (efi, yes) = ("<value>efi</value>", "<value>yes</value>");
        let swtpm = "<value>emulator</value>";
        for (told, offered) in [
            (capabilities(efi, yes, swtpm), offer(true, true, true)),
            (capabilities(efi, "", ""), offer(true, false, false)),
            (capabilities("", yes, ""), offer(false, false, false)),
            ("no xml".to_owned(), offer(false, false, false)),
        ] {
            assert_eq!(parse_capabilities(&told), offered, "{told}");
        }
    }
}
