//! Capabilities of a host: firmware, TPM, and whether guests run under KVM.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};

use super::backup;
use super::domain_xml::HYPERV;
use super::libvirt::Libvirt;
use crate::xml::parse_xml;
use snapdeck_model::settings::Accel;
use snapdeck_model::{Result, SandboxId};

/// libvirt probes QEMU the first time, for the domain capabilities or the start of a guest.
pub(super) const CAPABILITIES_TIMEOUT: Duration = Duration::from_secs(120);
pub(super) const READ_CAPABILITIES: &str = "read the domain capabilities";
/// For the probe guest to end itself; in emulation it takes 3 s.
const KVM_PROBE_TIMEOUT: Duration = Duration::from_secs(15);
const KVM_PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Devices and firmware that the host's libvirt and QEMU support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostCapabilities {
    /// UEFI firmware.
    pub has_uefi: bool,
    /// UEFI firmware with Secure Boot.
    pub has_secure_boot: bool,
    /// An emulated TPM (swtpm).
    pub has_tpm: bool,
}

impl Libvirt {
    /// Returns what the host offers to sandboxes.
    ///
    /// # Errors
    /// `Unreachable`; `Failed` if its QEMU has no q35 machine for x86_64.
    pub async fn capabilities(&self) -> Result<HostCapabilities> {
        let query = |connect: &Connect| {
            connect.domain_capabilities(None, Some("x86_64"), Some("q35"), Some("qemu"), 0)
        };
        let xml = self.call(READ_CAPABILITIES, CAPABILITIES_TIMEOUT, query);
        Ok(parse_capabilities(&xml.await?))
    }

    /// Can sandboxes run under KVM? `Auto` starts a probe guest, because `/dev/kvm` alone proves nothing.
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

    /// Whether libvirt supports backup jobs of running sandboxes.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn supports_backup(&self) -> Result<bool> {
        let query = |connect: &Connect| connect.domain_capabilities(None, None, None, None, 0);
        let xml = self.call(READ_CAPABILITIES, CAPABILITIES_TIMEOUT, query);
        Ok(backup::offers_backup(&xml.await?))
    }

    /// Runs a guest that finds nothing to boot and ends itself by a reset, with the hypervisor features of a sandbox. This
    /// proves that its CPU ran.
    async fn probe_kvm(&self) -> Result<bool> {
        // Another snapdeck may run a probe, too.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let id: SandboxId = format!("snapdeck-probe-{:x}", now.as_nanos()).parse()?;
        let xml = PROBE_XML
            .replace("{id}", id.as_str())
            .replace("{hyperv}", HYPERV);
        // In one call, because libvirt ends the guest with the connection that started it.
        let probe = move |connect: &Connect| run_probe_guest(connect, id.as_str(), &xml);
        let deadline = CAPABILITIES_TIMEOUT + KVM_PROBE_TIMEOUT;
        let result = self
            .call_long("run a guest under KVM", deadline, probe)
            .await?;
        let host = self.host();
        match &result {
            KvmProbeResult::StartFailed(reason) => {
                tracing::info!(
                    "KVM does not work on host {host} ({reason}): the guest runs in emulation, 10 to 20 times slower"
                );
            }
            KvmProbeResult::TimedOut => {
                tracing::info!(
                    "KVM probe guest on host {host} did not finish: the guest runs in emulation, 10 to 20 times slower"
                );
            }
            KvmProbeResult::Working => {}
        }
        Ok(result == KvmProbeResult::Working)
    }
}

#[derive(PartialEq)]
enum KvmProbeResult {
    Working,
    /// It started but did not end itself; it is ended.
    TimedOut,
    /// libvirt's message.
    StartFailed(String),
}

/// Blocks until the guest has ended.
fn run_probe_guest(connect: &Connect, name: &str, xml: &str) -> Result<KvmProbeResult, VirtError> {
    let flags = virt_sys::VIR_DOMAIN_START_AUTODESTROY;
    if let Err(error) = connect.create_domain_xml(xml, flags) {
        return match connect.is_alive() {
            Ok(true) => Ok(KvmProbeResult::StartFailed(error.message().to_owned())),
            _ => Err(error),
        };
    }
    let has_ended = |error: &VirtError| error.code().is(ErrorNumber::NoDomain);
    let started_at = Instant::now();
    while started_at.elapsed() < KVM_PROBE_TIMEOUT {
        match connect.lookup_domain_by_name(name) {
            Err(error) if has_ended(&error) => return Ok(KvmProbeResult::Working),
            Err(error) if !connect.is_alive().unwrap_or(false) => return Err(error),
            _ => std::thread::sleep(KVM_PROBE_INTERVAL),
        }
    }
    match connect
        .lookup_domain_by_name(name)
        .and_then(|guest| guest.destroy())
    {
        Err(error) if !has_ended(&error) => Err(error),
        _ => Ok(KvmProbeResult::TimedOut),
    }
}

/// A guest whose firmware finds nothing to boot and resets it at once, which ends it.
const PROBE_XML: &str = "<domain type='kvm'><name>{id}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/><bios rebootTimeout='0'/></os>\
    <features><acpi/><apic/>{hyperv}</features><cpu mode='host-passthrough'/><on_reboot>destroy</on_reboot>\
    <devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>";

/// Reads libvirt's domain capabilities (libvirt, "Domain capabilities XML format").
fn parse_capabilities(xml: &str) -> HostCapabilities {
    let document = parse_xml(xml).ok();
    let has = |element: &str, list: &str, value: &str| {
        document.as_ref().is_some_and(|document| {
            document.descendants().any(|node| {
                node.has_tag_name("value")
                    && node.text() == Some(value)
                    && node.ancestors().any(|parent| {
                        parent.has_tag_name("enum") && parent.attribute("name") == Some(list)
                    })
                    && node.ancestors().any(|parent| parent.has_tag_name(element))
            })
        })
    };
    let has_uefi = has("os", "firmware", "efi");
    HostCapabilities {
        has_uefi,
        has_secure_boot: has_uefi && has("loader", "secure", "yes"),
        has_tpm: has("tpm", "backendModel", "emulator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_firmware_and_tpm_from_the_domain_capabilities() {
        let capabilities = |firmware: &str, secure: &str, tpm: &str| {
            format!(
                "<domainCapabilities><os supported='yes'><enum name='firmware'>{firmware}</enum>\
                 <loader supported='yes'><enum name='secure'>{secure}<value>no</value></enum></loader></os>\
                 <devices><tpm supported='yes'><enum name='backendModel'><value>passthrough</value>{tpm}</enum>\
                 </tpm></devices></domainCapabilities>"
            )
        };
        let expected = |has_uefi, has_secure_boot, has_tpm| HostCapabilities {
            has_uefi,
            has_secure_boot,
            has_tpm,
        };
        let (efi, yes) = ("<value>efi</value>", "<value>yes</value>");
        let swtpm = "<value>emulator</value>";
        for (xml, expected) in [
            (capabilities(efi, yes, swtpm), expected(true, true, true)),
            (capabilities(efi, "", ""), expected(true, false, false)),
            (capabilities("", yes, ""), expected(false, false, false)),
            ("no xml".to_owned(), expected(false, false, false)),
        ] {
            assert_eq!(parse_capabilities(&xml), expected, "{xml}");
        }
    }

    #[test]
    fn fuzz_capabilities() {
        crate::fuzz_samples::target("domain capabilities")
            .seed(crate::fuzz_samples::CAPABILITIES)
            .run(|xml| {
                let xml = snapdeck_fuzz::text(xml);
                parse_capabilities(&xml);
                backup::offers_backup(&xml);
            });
    }
}
