//! What libvirt says of itself and of the guests that it could run.

use roxmltree::{Document, Node};
use virt::connect::Connect;

use super::probe::Probe;
use super::programs::Installer;
use snapdeck_model::settings::Accel;
use snapdeck_model::{Check, Error};

/// What libvirt offers for the guests of a host (libvirt, "Domain capabilities").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestCapabilities {
    /// QEMU's version; `None` where there is none to run. Numbers are major * 1,000,000 + minor * 1,000 + release.
    qemu_version: Option<u32>,
    /// Under KVM?
    has_kvm: bool,
    /// Does libvirt find UEFI firmware by itself?
    has_efi: bool,
    /// Files of UEFI firmware that are there.
    loaders: Vec<String>,
}

impl GuestCapabilities {
    /// Asks for them, of the machine that Windows guests have. Blocks: the first time QEMU is asked, for seconds.
    ///
    /// # Errors
    /// libvirt's, where it can run no guest at all.
    pub(super) fn query(connect: &Connect) -> Result<Self, virt::error::Error> {
        let qemu = connect.hyp_version().ok().filter(|version| *version > 0);
        let of = |kind| connect.domain_capabilities(None, None, Some("q35"), Some(kind), 0);
        let (kvm, xml) = match of("kvm") {
            Ok(xml) => (true, xml),
            Err(_) if qemu.is_none() => (false, String::new()),
            Err(_) => (false, of("qemu")?),
        };
        Ok(Self {
            qemu_version: qemu,
            ..Self::parse(kvm, &xml)
        })
    }

    fn parse(kvm: bool, xml: &str) -> Self {
        let document = Document::parse(xml).ok();
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
            let is_it = |node: &Node| node.attribute("name") == Some("firmware");
            os.children().find(is_it).map(values)
        });
        Self {
            qemu_version: None,
            has_kvm: kvm,
            has_efi: firmware.is_some_and(|kinds| kinds.iter().any(|kind| kind == "efi")),
            loaders: os
                .and_then(|os| child(os, "loader"))
                .map(values)
                .unwrap_or_default(),
        }
    }
}

fn child<'a, 'xml>(node: Node<'a, 'xml>, tag: &str) -> Option<Node<'a, 'xml>> {
    node.children().find(|child| child.has_tag_name(tag))
}

/// `9.0.0`.
fn format_version(version: u32) -> String {
    let (major, minor, release) = (
        version / 1_000_000,
        version / 1_000 % 1_000,
        version % 1_000,
    );
    format!("{major}.{minor}.{release}")
}

/// libvirt answered, with its version's number.
pub(super) fn report_libvirt(version: u32, seconds: f64) -> Check {
    let version = format_version(version);
    Check::passed(
        "libvirt",
        format!("version {version}, answered within {seconds:.2} s"),
    )
}

/// QEMU, as libvirt finds it.
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

/// libvirt did not answer; `unseen` is what could not be looked at therefore.
pub(super) fn report_unreachable(error: &Error, unseen: &str, user: Option<&str>) -> Check {
    let seen = format!("{}; not checked: {unseen}", error.message());
    let mend = match (&*seen, user) {
        (seen, Some(user))
            if seen.contains("ermission denied") || seen.contains("uthentication") =>
        {
            format!("usermod -aG libvirt {user}, then log in again")
        }
        _ => "systemctl start libvirtd (or virtqemud.socket with modular daemons)".to_owned(),
    };
    Check::failed("libvirt", seen, mend)
}

/// Acceleration, as far as that shows without a guest.
pub(super) fn check_acceleration(
    guests: &GuestCapabilities,
    probe: Option<&Probe>,
    accel: Accel,
) -> Check {
    let what = "acceleration";
    let device = probe.map(|probe| probe.get("kvm"));
    let (seen, mend) = match device {
        Some(None) => (
            "no /dev/kvm: guests run in emulation, 10 to 20 times slower",
            "enable virtualization in the firmware (or nested, in a virtual machine), then modprobe kvm_intel \
             or kvm_amd",
        ),
        _ if !guests.has_kvm => (
            "libvirt offers no KVM: guests run in emulation, 10 to 20 times slower",
            "run virt-host-validate qemu, then systemctl restart libvirtd",
        ),
        Some(Some("forbidden")) => {
            return Check::passed(
                what,
                "libvirt offers KVM, and /dev/kvm is not for this user (QEMU's own counts); only the start of a \
                 guest proves that it works",
            );
        }
        _ => {
            return Check::passed(
                what,
                "libvirt offers KVM; only the start of a guest proves that it works",
            );
        }
    };
    match accel {
        Accel::Kvm => Check::failed(
            what,
            seen,
            format!("{mend}; or set [sandbox] accel = \"qemu\""),
        ),
        Accel::Auto => Check::warning(what, seen, mend),
        Accel::Qemu => Check::passed(what, "guests run in emulation, as set by [sandbox] accel"),
    }
}

/// UEFI firmware.
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
    use snapdeck_model::Verdict;

    const CAPABILITIES: &str = "<domainCapabilities><domain>kvm</domain><os supported='yes'>
        <enum name='firmware'><value>bios</value><value>efi</value></enum>
        <loader supported='yes'><value>/usr/share/OVMF/OVMF_CODE_4M.fd</value>
        <enum name='type'><value>rom</value></enum></loader></os></domainCapabilities>";

    #[test]
    fn finds_firmware_in_what_libvirt_offers() {
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
    fn a_host_without_kvm_fails_only_where_kvm_is_a_must() {
        let (with, without) = (
            GuestCapabilities::parse(true, ""),
            GuestCapabilities::parse(false, ""),
        );
        let there = Probe::from_pairs(&[("kvm", "usable")]);
        let absent = Probe::from_pairs(&[]);
        let verdict = |guests, probe, accel| check_acceleration(guests, Some(probe), accel).verdict;
        assert_eq!(verdict(&with, &there, Accel::Auto), Verdict::Passed);
        assert_eq!(verdict(&with, &absent, Accel::Auto), Verdict::Warning);
        assert_eq!(verdict(&without, &there, Accel::Auto), Verdict::Warning);
        assert_eq!(verdict(&without, &there, Accel::Kvm), Verdict::Failed);
        assert_eq!(verdict(&without, &absent, Accel::Qemu), Verdict::Passed);
    }

    #[test]
    fn versions_are_told_as_people_write_them() {
        assert_eq!(format_version(9_000_000), "9.0.0");
        assert_eq!(format_version(7_002_022), "7.2.22");
    }
}
