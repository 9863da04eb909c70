//! The programs that a host needs.

use super::probe::Probe;
use snapdeck_model::Check;

/// What installs packages on the host.
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

    /// Installs what Debian calls `package`.
    pub(super) fn command(self, package: &str) -> String {
        let elsewhere = match package {
            "qemu-utils" => "qemu-img",
            "libvirt-clients" => "libvirt-client",
            "qemu-system-x86" => "qemu-kvm",
            "ovmf" => "edk2-ovmf",
            other => other,
        };
        match self {
            Self::Apt => format!("apt-get install {package}"),
            Self::Dnf => format!("dnf install {elsewhere}"),
            Self::Zypper => match package {
                "qemu-utils" => "zypper install qemu-img qemu-tools".to_owned(),
                "ovmf" => "zypper install qemu-ovmf-x86_64".to_owned(),
                _ => format!("zypper install {elsewhere}"),
            },
        }
    }
}

/// All of them. `remote`: bytes go over SSH.
pub(super) fn check_programs(probe: &Probe, remote: bool) -> Vec<Check> {
    let installer = Installer::detect(Some(probe));
    let mut checks = vec![check_qemu_img(probe, installer)];
    if remote {
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
            true => Check::passed("system tools", "all there"),
            false => Check::failed(
                "system tools",
                format!("missing: {}", missing.join(", ")),
                installer.command("util-linux coreutils findutils"),
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
    checks.push(match probe.get("swtpm") {
        Some(version) => Check::passed("swtpm", short_version(version)),
        None => Check::warning(
            "swtpm",
            "not installed; guests cannot have a TPM, which Windows 11 requires",
            installer.command("swtpm"),
        ),
    });
    checks
}

fn check_qemu_img(probe: &Probe, installer: Installer) -> Check {
    let what = "qemu-img";
    let Some(version) = probe.get(what) else {
        return Check::failed(
            what,
            "not installed; create, push and pull will fail",
            installer.command("qemu-utils"),
        );
    };
    match parse_version(version) {
        // `measure` and `-U` came with it.
        Some(number) if number < (2, 10) => Check::failed(
            what,
            format!("{}: 2.10 or newer is needed", short_version(version)),
            installer.command("qemu-utils"),
        ),
        Some(_) => Check::passed(what, short_version(version)),
        None => Check::failed(
            what,
            format!("cannot be run: {version}"),
            installer.command("qemu-utils"),
        ),
    }
}

/// Major and minor version in `qemu-img version 7.2.22 (Debian ...)`.
fn parse_version(version: &str) -> Option<(u32, u32)> {
    let (_, rest) = version.split_once("version ")?;
    let mut numbers = rest.split(['.', ' ', '(']).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// A version without the program's name and whose package it is.
fn short_version(version: &str) -> &str {
    let version = version.split_once(" (").map_or(version, |(front, _)| front);
    let bare = version
        .split_once("version ")
        .map_or(version, |(_, bare)| bare);
    bare.split_once(',').map_or(bare, |(front, _)| front)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::Verdict;

    #[test]
    fn what_is_missing_is_told_with_the_package() {
        let probe = Probe::from_pairs(&[("installer", "dnf"), ("missing", "flock")]);
        let mends: Vec<String> = check_programs(&probe, true)
            .into_iter()
            .map(|check| format!("{}: {}", check.name, check.fix.unwrap()))
            .collect();
        assert_eq!(
            mends,
            [
                "qemu-img: dnf install qemu-img",
                "qemu-nbd: dnf install qemu-img",
                "system tools: dnf install util-linux coreutils findutils",
                "virsh: dnf install libvirt-client",
                "swtpm: dnf install swtpm",
            ]
        );
    }

    #[test]
    fn an_old_qemu_img_and_one_that_does_not_run_fail() {
        for (said, verdict) in [
            ("qemu-img version 7.2.22 (Debian 1:7.2)", Verdict::Passed),
            ("qemu-img version 2.9.1", Verdict::Failed),
            ("qemu-img version 2.10.0(x)", Verdict::Passed),
            ("error while loading shared libraries", Verdict::Failed),
        ] {
            let probe = Probe::from_pairs(&[("qemu-img", said)]);
            assert_eq!(
                check_qemu_img(&probe, Installer::Apt).verdict,
                verdict,
                "{said}"
            );
        }
        assert_eq!(
            short_version("qemu-img version 7.2.22 (Debian 1:7.2)"),
            "7.2.22"
        );
        assert_eq!(
            short_version("TPM emulator version 0.7.1, Copyright"),
            "0.7.1"
        );
    }
}
