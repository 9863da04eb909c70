//! Checks of the programs that a host needs.

use super::probe::Probe;
use snapdeck_model::Check;

/// The package manager of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Installer {
    Apt,
    Dnf,
    Zypper,
}

impl Installer {
    pub(super) fn detect(probe: Option<&Probe>) -> Self {
        match probe.and_then(|probe| probe.get("installer")) {
            Some("dnf") => Self::Dnf,
            Some("zypper") => Self::Zypper,
            _ => Self::Apt,
        }
    }

    /// Returns the command that installs packages, given their Debian names, separated by spaces.
    pub(super) fn command(self, packages: &str) -> String {
        let mut names: Vec<&str> = packages.split(' ').map(|name| self.package(name)).collect();
        names.dedup();
        let program = match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Zypper => "zypper",
        };
        format!("{program} install {}", names.join(" "))
    }

    /// Returns the names of a package, given its Debian name.
    fn package(self, name: &str) -> &str {
        match (self, name) {
            (Self::Apt, name) => name,
            (Self::Zypper, "qemu-utils") => "qemu-img qemu-tools",
            (Self::Zypper, "ovmf") => "qemu-ovmf-x86_64",
            (Self::Zypper, "swtpm-tools") => "swtpm",
            (_, "qemu-utils") => "qemu-img",
            (_, "libvirt-clients") => "libvirt-client",
            (_, "libvirt-daemon-system") => "libvirt",
            (_, "qemu-system-x86") => "qemu-kvm",
            (_, "ovmf") => "edk2-ovmf",
            (_, other) => other,
        }
    }
}

/// `is_remote` adds the programs that transfers over SSH need.
pub(super) fn check_programs(probe: &Probe, is_remote: bool) -> Vec<Check> {
    let installer = Installer::detect(Some(probe));
    let mut checks = vec![check_qemu_img(probe, installer)];
    checks.push(match probe.get("qemu-io") {
        Some(version) => Check::passed("qemu-io", short_version(version)),
        None => Check::failed(
            "qemu-io",
            "not installed; the disk of a stopped sandbox cannot be locked while it is read, so push is refused",
            installer.command("qemu-utils"),
        ),
    });
    if is_remote {
        checks.push(match probe.get("qemu-nbd") {
            Some(version) => Check::passed("qemu-nbd", short_version(version)),
            None => Check::warning(
                "qemu-nbd",
                "not installed; transfers use SFTP, which is slower",
                installer.command("qemu-utils"),
            ),
        });
        let missing: Vec<&str> = probe.get_all("missing").collect();
        checks.push(match missing.is_empty() {
            true => Check::passed("system tools", "all installed"),
            false => Check::failed(
                "system tools",
                format!("missing: {}", missing.join(", ")),
                installer.command("util-linux coreutils findutils diffutils gawk grep"),
            ),
        });
    }
    checks.push(match probe.get("virsh") {
        Some(version) => Check::passed("virsh", short_version(version)),
        None => Check::failed(
            "virsh",
            "not installed; running guests cannot be paused safely, so create is refused",
            installer.command("libvirt-clients"),
        ),
    });
    checks.push(match (probe.get("swtpm"), probe.get("swtpm_setup")) {
        (Some(version), Some(_)) => Check::passed("swtpm", short_version(version)),
        (Some(version), None) => Check::warning(
            "swtpm",
            format!(
                "{}, but swtpm_setup is not installed: guests with a TPM do not start",
                short_version(version)
            ),
            installer.command("swtpm-tools"),
        ),
        (None, _) => Check::warning(
            "swtpm",
            "not installed; guests cannot have a TPM, which Windows 11 requires",
            installer.command("swtpm swtpm-tools"),
        ),
    });
    checks
}

fn check_qemu_img(probe: &Probe, installer: Installer) -> Check {
    let name = "qemu-img";
    let Some(version) = probe.get(name) else {
        return Check::failed(
            name,
            "not installed; create, push and pull will fail",
            installer.command("qemu-utils"),
        );
    };
    match parse_version(version) {
        // The first with `measure` and `-U`.
        Some(number) if number < (2, 10) => Check::failed(
            name,
            format!("{}: 2.10 or newer is needed", short_version(version)),
            installer.command("qemu-utils"),
        ),
        Some(_) => Check::passed(name, short_version(version)),
        None => Check::failed(
            name,
            format!("cannot be run: {version}"),
            installer.command("qemu-utils"),
        ),
    }
}

/// Parses major and minor version of `qemu-img version 7.2.22 (Debian ...)`.
fn parse_version(version: &str) -> Option<(u32, u32)> {
    let (_, rest) = version.split_once("version ")?;
    let mut numbers = rest.split(['.', ' ', '(']).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Returns the version without the names of program and package.
fn short_version(version: &str) -> &str {
    let number = version
        .split_once("version ")
        .map_or(version, |(_, number)| number);
    let end = number.find([' ', ',', '(']);
    &number[..end.unwrap_or(number.len())]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::Verdict;

    #[test]
    fn missing_programs_are_reported_with_their_package() {
        let probe = Probe::from_pairs(&[("installer", "dnf"), ("missing", "flock")]);
        let fixes: Vec<String> = check_programs(&probe, true)
            .into_iter()
            .map(|check| format!("{}: {}", check.name, check.fix.unwrap()))
            .collect();
        assert_eq!(
            fixes,
            [
                "qemu-img: dnf install qemu-img",
                "qemu-io: dnf install qemu-img",
                "qemu-nbd: dnf install qemu-img",
                "system tools: dnf install util-linux coreutils findutils diffutils gawk grep",
                "virsh: dnf install libvirt-client",
                "swtpm: dnf install swtpm swtpm-tools",
            ]
        );
    }

    #[test]
    fn a_tpm_also_needs_the_tools() {
        let swtpm = ("swtpm", "TPM emulator version 0.7.1, Copyright (c) 2014");
        let check = |pairs: &[(&str, &str)]| {
            check_programs(&Probe::from_pairs(pairs), false)
                .pop()
                .unwrap()
        };
        assert_eq!(
            check(&[swtpm, ("swtpm_setup", "installed")]).verdict,
            Verdict::Passed
        );
        let missing = check(&[swtpm]);
        assert!(
            missing.finding.contains("swtpm_setup"),
            "{}",
            missing.finding
        );
        assert_eq!(missing.fix.as_deref(), Some("apt-get install swtpm-tools"));
        let missing = check(&[swtpm, ("installer", "zypper")]);
        assert_eq!(missing.fix.as_deref(), Some("zypper install swtpm"));
    }

    #[test]
    fn an_old_qemu_img_and_one_that_does_not_run_fail() {
        for (version, verdict) in [
            ("qemu-img version 7.2.22 (Debian 1:7.2)", Verdict::Passed),
            ("qemu-img version 2.9.1", Verdict::Failed),
            ("qemu-img version 2.10.0(x)", Verdict::Passed),
            ("error while loading shared libraries", Verdict::Failed),
        ] {
            let probe = Probe::from_pairs(&[("qemu-img", version)]);
            assert_eq!(
                check_qemu_img(&probe, Installer::Apt).verdict,
                verdict,
                "{version}"
            );
        }
        assert_eq!(
            short_version("qemu-img version 7.2.22 (Debian 1:7.2)"),
            "7.2.22"
        );
        assert_eq!(
            short_version("TPM emulator version 0.7.1, Copyright (c) 2014"),
            "0.7.1"
        );
    }
}
