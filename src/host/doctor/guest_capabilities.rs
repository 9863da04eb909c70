//! Checks of libvirt, QEMU, acceleration and UEFI firmware.

use roxmltree::Node;
use virt::connect::Connect;

use super::probe::Probe;
use super::programs::Installer;
use crate::domain::child;
use crate::xml::parse_xml;
use snapdeck_model::settings::Accel;
use snapdeck_model::{Check, Error};

/// Capabilities of guests on a host (libvirt, "Domain capabilities").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestCapabilities {
    /// Major * 1,000,000 + minor * 1,000 + release; `None` if libvirt finds no QEMU.
    qemu_version: Option<u32>,
    has_kvm: bool,
    /// Whether libvirt can select UEFI firmware by itself.
    has_efi: bool,
    /// UEFI firmware files on the host.
    loaders: Vec<String>,
}

impl GuestCapabilities {
    /// Queries those of the machine type of Windows guests. Blocks, for seconds the first time.
    ///
    /// # Errors
    /// libvirt's, if it can run no guest at all.
    pub(super) fn query(connect: &Connect) -> Result<Self, virt::error::Error> {
        let qemu = connect.hyp_version().ok().filter(|version| *version > 0);
        let query =
            |virt_type| connect.domain_capabilities(None, None, Some("q35"), Some(virt_type), 0);
        let (has_kvm, xml) = match query("kvm") {
            Ok(xml) => (true, xml),
            Err(_) if qemu.is_none() => (false, String::new()),
            Err(_) => (false, query("qemu")?),
        };
        Ok(Self {
            qemu_version: qemu,
            ..Self::parse(has_kvm, &xml)
        })
    }

    fn parse(has_kvm: bool, xml: &str) -> Self {
        let document = parse_xml(xml).ok();
        let os = document
            .as_ref()
            .and_then(|document| child(document.root_element(), "os"));
        let values = |node: Node| -> Vec<String> {
            let values = node.children().filter(|node| node.has_tag_name("value"));
            values
                .filter_map(|value| value.text().map(str::to_owned))
                .collect()
        };
        let firmware = os.and_then(|os| {
            let is_firmware = |node: &Node| node.attribute("name") == Some("firmware");
            os.children().find(is_firmware).map(values)
        });
        Self {
            qemu_version: None,
            has_kvm,
            has_efi: firmware.is_some_and(|kinds| kinds.iter().any(|kind| kind == "efi")),
            loaders: os
                .and_then(|os| child(os, "loader"))
                .map(values)
                .unwrap_or_default(),
        }
    }
}

fn format_version(version: u32) -> String {
    let (major, minor, release) = (
        version / 1_000_000,
        version / 1_000 % 1_000,
        version % 1_000,
    );
    format!("{major}.{minor}.{release}")
}

pub(super) fn report_libvirt(version: u32, seconds: f64) -> Check {
    let (version, seconds) = (format_version(version), seconds.max(0.01));
    Check::passed(
        "libvirt",
        format!("version {version}, responded within {seconds:.2} s"),
    )
}

pub(super) fn check_qemu(guests: &GuestCapabilities, installer: Installer) -> Check {
    match guests.qemu_version {
        Some(version) => Check::passed("QEMU", format!("version {}", format_version(version))),
        None => Check::failed(
            "QEMU",
            "libvirt finds no QEMU",
            installer.command("qemu-system-x86"),
        ),
    }
}

/// Packages of a host, by their Debian names.
const HOST_PACKAGES: &str = "libvirt-daemon-system qemu-system-x86 qemu-utils ovmf";

pub(super) fn report_unreachable(error: &Error, probe: Option<&Probe>) -> Check {
    let mut message = error.message();
    let is_missing = probe.is_some_and(|probe| probe.get("libvirtd").is_none());
    // The one that runs commands on the host.
    let user = probe.and_then(|probe| probe.get("user"));
    let fix = match user {
        Some(user) if message.contains("ermission denied") || message.contains("uthentication") => {
            format!("run `usermod -aG libvirt {user}`, then log in again")
        }
        _ if is_missing => {
            message.push_str("; libvirt is not installed");
            Installer::detect(probe).command(HOST_PACKAGES)
        }
        _ => "run `systemctl start libvirtd`, or `systemctl start virtqemud.socket` with modular daemons".to_owned(),
    };
    let unchecked = "QEMU, acceleration, UEFI firmware, sandboxes";
    Check::failed(
        "libvirt",
        format!("{message}; not checked: {unchecked}"),
        fix,
    )
}

/// Checks acceleration as far as possible without a guest.
pub(super) fn check_acceleration(
    guests: &GuestCapabilities,
    probe: Option<&Probe>,
    accel: Accel,
) -> Check {
    let what = "acceleration";
    let device = probe.map(|probe| probe.get("kvm"));
    let (finding, fix) = match device {
        Some(None) => (
            "no /dev/kvm: guests run in emulation, 10 to 20 times slower",
            "enable virtualization in the firmware (nested virtualization for a virtual machine), then run \
             `modprobe kvm_intel` or `modprobe kvm_amd`",
        ),
        _ if !guests.has_kvm => (
            "libvirt offers no KVM: guests run in emulation, 10 to 20 times slower",
            "run `virt-host-validate qemu`, then `systemctl restart libvirtd`",
        ),
        Some(Some("forbidden")) => {
            return Check::passed(
                what,
                "KVM is available to libvirt, not to this user, which is enough; not tested with a guest",
            );
        }
        _ => {
            return Check::passed(what, "KVM is available; not tested with a guest");
        }
    };
    match accel {
        Accel::Kvm => Check::failed(
            what,
            finding,
            format!("{fix}; or set [sandbox] accel = \"qemu\""),
        ),
        Accel::Auto => Check::warning(what, finding, fix),
        Accel::Qemu => Check::passed(what, "guests run in emulation, as set by [sandbox] accel"),
    }
}

pub(super) fn check_firmware(guests: &GuestCapabilities, installer: Installer) -> Check {
    let what = "UEFI firmware";
    match guests.loaders.as_slice() {
        [] if !guests.has_efi => Check::warning(
            what,
            "none found: UEFI guests cannot run",
            installer.command("ovmf"),
        ),
        [] => Check::passed(what, "found by libvirt"),
        [first, ..] => Check::passed(what, first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapdeck_model::{Kind, Verdict};

    const CAPABILITIES: &str = "<domainCapabilities><domain>kvm</domain><os supported='yes'>
        <enum name='firmware'><value>bios</value><value>efi</value></enum>
        <loader supported='yes'><value>/usr/share/OVMF/OVMF_CODE_4M.fd</value>
        <enum name='type'><value>rom</value></enum></loader></os></domainCapabilities>";

    #[test]
    fn reads_firmware_from_the_domain_capabilities() {
        let guests = GuestCapabilities::parse(true, CAPABILITIES);
        assert!(guests.has_efi);
        assert_eq!(guests.loaders, ["/usr/share/OVMF/OVMF_CODE_4M.fd"]);
        let none = GuestCapabilities::parse(
            false,
            "<domainCapabilities><os supported='yes'/></domainCapabilities>",
        );
        assert_eq!(
            check_firmware(&none, Installer::Apt).verdict,
            Verdict::Warning
        );
        assert_eq!(
            check_firmware(&GuestCapabilities::parse(false, "no xml"), Installer::Apt).verdict,
            Verdict::Warning
        );
    }

    #[test]
    fn a_host_without_kvm_fails_only_if_kvm_is_required() {
        let (with, without) = (
            GuestCapabilities::parse(true, ""),
            GuestCapabilities::parse(false, ""),
        );
        let usable = Probe::from_pairs(&[("kvm", "usable")]);
        let absent = Probe::from_pairs(&[]);
        let verdict = |guests, probe, accel| check_acceleration(guests, Some(probe), accel).verdict;
        assert_eq!(verdict(&with, &usable, Accel::Auto), Verdict::Passed);
        assert_eq!(verdict(&with, &absent, Accel::Auto), Verdict::Warning);
        assert_eq!(verdict(&without, &usable, Accel::Auto), Verdict::Warning);
        assert_eq!(verdict(&without, &usable, Accel::Kvm), Verdict::Failed);
        assert_eq!(verdict(&without, &absent, Accel::Qemu), Verdict::Passed);
    }

    #[test]
    fn a_host_without_libvirt_is_told_what_to_install() {
        let error = Error::new(Kind::Unreachable, "cannot connect to host alpha")
            .with_cause("Failed to connect socket: No such file or directory");
        let report = |pairs: &[(&str, &str)]| {
            let check = report_unreachable(&error, Some(&Probe::from_pairs(pairs)));
            (check.finding, check.fix.unwrap_or_default())
        };
        let (finding, fix) = report(&[("user", "root")]);
        assert!(finding.contains("; libvirt is not installed;"), "{finding}");
        assert_eq!(
            fix,
            "apt-get install libvirt-daemon-system qemu-system-x86 qemu-utils ovmf"
        );
        let (_, fix) = report(&[("installer", "dnf")]);
        assert_eq!(fix, "dnf install libvirt qemu-kvm qemu-img edk2-ovmf");
        let (_, fix) = report(&[("libvirtd", "installed")]);
        assert!(fix.contains("systemctl start libvirtd"), "{fix}");
    }

    #[test]
    fn formats_version_numbers() {
        assert_eq!(format_version(9_000_000), "9.0.0");
        assert_eq!(format_version(7_002_022), "7.2.22");
    }

    #[test]
    fn fuzz_guest_capabilities() {
        crate::fuzz_samples::target("domain capabilities: firmware")
            .seed(crate::fuzz_samples::CAPABILITIES)
            .run(|xml| {
                GuestCapabilities::parse(true, &snapdeck_fuzz::text(xml));
            });
    }
}
