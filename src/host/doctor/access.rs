//! Checks of directories: existence, permissions, owner and mode of snapshots.

use super::probe::Probe;
use crate::quote::quote_words;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Check, SnapshotName};

/// Files named in a finding; others are only counted.
pub(super) const MAX_NAMED: usize = 5;

/// Returns key in the probe, name of the check, and path of each directory.
fn list_dirs(settings: &HostSettings) -> [(&'static str, &'static str, &str); 4] {
    [
        ("snapshots", "snapshots directory", &settings.snapshots_dir),
        ("sandboxes", "sandboxes directory", &settings.sandboxes_dir),
        ("nvram", "NVRAM directory", &settings.nvram_dir),
        ("temp", "temporary directory", &settings.temp_dir),
    ]
}

/// Checks that the directories exist and can be listed and written.
pub(super) fn check_dirs(probe: &Probe, settings: &HostSettings) -> Vec<Check> {
    let checks = list_dirs(settings).map(|(kind, what, dir)| {
        let problem = ["missing", "list", "write"]
            .into_iter()
            .filter_map(|key| probe.get(&format!("{kind}.{key}")))
            .find(|message| !message.is_empty());
        if let Some(message) = problem {
            let fix = suggest_fix(message, dir, probe, settings);
            return Some(Check::failed(what, describe_problem(dir, message), fix));
        }
        if probe.get(&format!("{kind}.write")).is_some() {
            return Some(Check::passed(what, format!("{dir}: readable and writable")));
        }
        let was_started = probe.get_all("begin").any(|begun| begun == kind);
        was_started.then(|| {
            Check::failed(
                what,
                format!("{dir} does not respond; not checked: the directories after it"),
                format!(
                    "find out what hangs: `timeout 5 {}`",
                    quote_words(["ls", "-la", dir])
                ),
            )
        })
    });
    checks.into_iter().flatten().collect()
}

/// Warns of directories in which QEMU's user can create, rename and replace files: a guest that has broken out of QEMU could
/// have libvirt and other programs, which run as root, follow links there.
pub(super) fn check_dir_owners(probe: &Probe, settings: &HostSettings) -> Vec<Check> {
    let owner_uid = probe
        .get("owner")
        .and_then(|ids| ids.split(':').next())
        .filter(|uid| !uid.is_empty() && probe.get("uid") != Some(*uid));
    let checks = list_dirs(settings)
        .into_iter()
        .filter_map(|(kind, what, dir)| {
            // The other two: libvirt makes the NVRAM directory its own, and every user may write to the temporary one.
            if !matches!(kind, "snapshots" | "sandboxes") {
                return None;
            }
            let (uid, mode) = probe.get(&format!("{kind}.owner"))?.split_once(' ')?;
            let mode = u32::from_str_radix(mode, 8).ok()?;
            let problem = if Some(uid) == owner_uid {
                "belongs to QEMU's user"
            } else if mode & 0o1002 == 0o2 {
                "can be written by every user"
            } else {
                return None;
            };
            let fix = format!(
                "{}; {}",
                quote_words(["chown", "root:root", dir]),
                quote_words(["chmod", "755", dir])
            );
            let finding = format!("{dir} {problem}, who can replace the files in it by links");
            Some(Check::warning(what, finding, fix))
        });
    checks.collect()
}

/// Returns a command that gives files to the owner, with mode 0644; no links, and no files with other names.
pub(super) fn ownership_fix(settings: &HostSettings, files: &[&str]) -> String {
    let test = ["-type", "f", "-links", "1"];
    let change = [
        "-exec",
        "chown",
        "-h",
        &settings.owner,
        "{}",
        "+",
        "-exec",
        "chmod",
        "644",
        "{}",
        "+",
    ];
    quote_words([&["find"], files, &test, &change].concat())
}

/// Returns the cause at the end of a program's message, after `subject`.
fn describe_problem(subject: &str, message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let cause = line.rsplit_once(": ").map_or(line, |(_, cause)| cause);
    format!("{subject}: {cause}")
}

fn suggest_fix(message: &str, dir: &str, probe: &Probe, settings: &HostSettings) -> String {
    let has = |text: &str| message.contains(text);
    if has("No such file") {
        return match dir == settings.temp_dir {
            true => quote_words(["mkdir", "-p", dir]),
            // Not QEMU's user: it needs to write files in it only, and could replace them by links.
            false => quote_words(["install", "-d", "-m", "755", dir]),
        };
    }
    if has("ermission denied") || has("not permitted") {
        let user = probe.get("user").unwrap_or("USER");
        let entry = format!("u:{user}:rwx");
        let command = quote_words(["setfacl", "-m", &entry, dir]);
        return format!("`{command}`, or run snapdeck as root on the host");
    }
    let (what, command) = if has("No space left") || has("quota") {
        ("free space on its file system", ["df", "-h", dir])
    } else if has("Read-only") {
        ("mount its file system writable", ["findmnt", "-T", dir])
    } else {
        ("inspect it on the host", ["ls", "-la", dir])
    };
    format!("{what}: `{}`", quote_words(command))
}

/// Checks that the host has the owner of snapshots, and that files can be given to it.
pub(super) fn check_owner(probe: &Probe, settings: &HostSettings) -> Option<Check> {
    let (what, name) = ("owner", &settings.owner);
    let host = &settings.name;
    let fix = match probe.get("usual_owner") {
        Some(usual) => format!("set owner = \"{usual}\" for host {host} in the settings"),
        None => format!("set owner of host {host} in the settings to QEMU's user:group on it"),
    };
    let (user, group) = probe.get("owner")?.split_once(':')?;
    if user.is_empty() || group.is_empty() {
        let unknown = if user.is_empty() { "user" } else { "group" };
        return Some(Check::failed(
            what,
            format!("{name}: no such {unknown} on the host"),
            fix,
        ));
    }
    match probe.get("snapshots.chown") {
        Some("") => Some(Check::passed(what, format!("{name}; chown works"))),
        Some(message) => Some(Check::failed(
            what,
            describe_problem(&format!("{name}: chown fails"), message),
            format!("run snapdeck as root on the host, or {fix}"),
        )),
        // The snapshots directory cannot be written, which its own check reports.
        None => None,
    }
}

/// A file of the snapshots directory: `UID:GID USER:GROUP MODE NAME`.
struct FileOwnership<'a> {
    ids: &'a str,
    names: &'a str,
    mode: &'a str,
    name: SnapshotName,
}

impl<'a> FileOwnership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        Some(Self {
            ids: parts.next()?,
            names: parts.next()?,
            mode: parts.next()?,
            name: parts.next()?.parse().ok()?,
        })
    }
}

/// Checks that the snapshots belong to the owner, with mode 0644 or 0444.
pub(super) fn check_modes(probe: &Probe, settings: &HostSettings) -> Option<Check> {
    let what = "owner and mode";
    if probe.get("snapshots.list") != Some("") {
        return None;
    }
    let owner_ids = probe.get("owner")?;
    let files: Vec<FileOwnership> = probe
        .get_all("file")
        .filter_map(FileOwnership::parse)
        .collect();
    let is_wrong =
        |file: &&FileOwnership| file.ids != owner_ids || !matches!(file.mode, "644" | "444");
    let wrong: Vec<&FileOwnership> = files.iter().filter(is_wrong).collect();
    if wrong.is_empty() {
        return Some(Check::passed(
            what,
            match files.len() {
                0 => "no snapshots".to_owned(),
                count => format!("{} and 0644 for all {count}", settings.owner),
            },
        ));
    }
    let names: Vec<String> = wrong
        .iter()
        .take(MAX_NAMED)
        .map(|file| format!("{} ({} {})", file.name, file.names, file.mode))
        .collect();
    let more = match wrong.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let dir = &settings.snapshots_dir;
    let fix = match wrong.len() > MAX_NAMED {
        true => ownership_fix(settings, &[dir, "-maxdepth", "1", "-name", "*.qcow2"]),
        false => {
            let paths: Vec<String> = wrong
                .iter()
                .map(|file| format!("{dir}/{}", file.name.file_name()))
                .collect();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            ownership_fix(settings, &[&paths[..], &["-maxdepth", "0"]].concat())
        }
    };
    Some(Check::warning(
        what,
        format!(
            "{} of {} differ: {}{more}",
            wrong.len(),
            files.len(),
            names.join(", ")
        ),
        fix,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::settings;
    use super::*;
    use snapdeck_model::Verdict;

    #[test]
    fn each_problem_has_a_command_that_fixes_it() {
        let probe = Probe::from_pairs(&[
            ("user", "op"),
            ("begin", "temp"),
            (
                "temp.missing",
                "stat: cannot statx '/t/.': No such file or directory",
            ),
            ("begin", "nvram"),
            (
                "nvram.list",
                "ls: cannot open directory '/n': Permission denied",
            ),
            ("nvram.write", "mktemp: failed: Permission denied"),
            ("begin", "sandboxes"),
            ("sandboxes.list", ""),
            (
                "sandboxes.write",
                "head: error writing: No space left on device",
            ),
            ("begin", "snapshots"),
        ]);
        let checks: Vec<String> = check_dirs(&probe, &settings())
            .into_iter()
            .map(|check| format!("{} -> {}", check.finding, check.fix.unwrap()))
            .collect();
        assert_eq!(
            checks,
            [
                "/s does not respond; not checked: the directories after it -> find out what hangs: `timeout 5 ls -la /s`",
                "/b: No space left on device -> free space on its file system: `df -h /b`",
                "/n: Permission denied -> `setfacl -m u:op:rwx /n`, or run snapdeck as root on the host",
                "/t: No such file or directory -> mkdir -p /t",
            ]
        );
        // A directory that the probe did not reach has no check.
        assert!(check_dirs(&Probe::from_pairs(&[]), &settings()).is_empty());
    }

    #[test]
    fn wrong_owners_and_modes_are_reported_with_a_fix() {
        let mut pairs = vec![
            ("snapshots.list", ""),
            ("owner", "64055:108"),
            ("file", "64055:108 libvirt-qemu:kvm 644 a.qcow2"),
            ("file", "64055:108 libvirt-qemu:kvm 444 b.qcow2"),
            ("file", "0:0 root:root 600 c.qcow2"),
            ("file", "0:0 root:root 600 not a snapshot.qcow2"),
        ];
        let check = check_modes(&Probe::from_pairs(&pairs), &settings()).unwrap();
        assert_eq!(check.finding, "1 of 3 differ: c (root:root 600)");
        assert_eq!(
            check.fix.unwrap(),
            "find /s/c.qcow2 -maxdepth 0 -type f -links 1 -exec chown -h qemu:kvm '{}' + -exec chmod 644 '{}' +"
        );
        let many = ["d", "e", "f", "g", "h"].map(|name| format!("1:1 x:x 644 {name}.qcow2"));
        pairs.extend(many.iter().map(|file| ("file", &**file)));
        let check = check_modes(&Probe::from_pairs(&pairs), &settings()).unwrap();
        assert!(check.finding.ends_with("and 1 more"), "{}", check.finding);
        let fix = check.fix.unwrap();
        assert!(
            fix.starts_with("find /s -maxdepth 1 -name '*.qcow2' -type f"),
            "{fix}"
        );
    }

    #[test]
    fn a_directory_of_qemus_user_is_reported() {
        let probe = |snapshots, sandboxes| {
            let pairs = [
                ("uid", "0"),
                ("owner", "64055:108"),
                ("snapshots.owner", snapshots),
                ("sandboxes.owner", sandboxes),
                ("temp.owner", "0 1777"),
            ];
            check_dir_owners(&Probe::from_pairs(&pairs), &settings())
        };
        assert_eq!(probe("0 755", "1000 775"), []);
        let checks = probe("64055 755", "0 777");
        let fixes: Vec<&str> = checks
            .iter()
            .filter_map(|check| check.fix.as_deref())
            .collect();
        assert_eq!(
            fixes,
            [
                "chown root:root /s; chmod 755 /s",
                "chown root:root /b; chmod 755 /b"
            ]
        );
        assert!(checks[0].finding.contains("QEMU's user"), "{checks:?}");
    }

    #[test]
    fn an_unknown_owner_is_reported_with_a_known_one() {
        let probe = Probe::from_pairs(&[("owner", ":36"), ("usual_owner", "qemu:qemu")]);
        let check = check_owner(&probe, &settings()).unwrap();
        assert!(check.finding.contains("no such user"), "{}", check.finding);
        assert!(check.fix.unwrap().contains("owner = \"qemu:qemu\""));
        let probe = Probe::from_pairs(&[
            ("owner", "1:2"),
            (
                "snapshots.chown",
                "chown: changing ownership of '/s/x': Operation not permitted",
            ),
        ]);
        let check = check_owner(&probe, &settings()).unwrap();
        assert_eq!(
            (check.verdict, &*check.finding),
            (
                Verdict::Failed,
                "qemu:kvm: chown fails: Operation not permitted"
            )
        );
    }
}
