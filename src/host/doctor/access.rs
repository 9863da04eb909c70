//! The directories of a host: are they there, may we use them, and who owns what is in them?

use super::probe::Probe;
use crate::quote;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Check, SnapshotName};

/// Files named one by one; more are counted.
pub(super) const MAX_NAMED: usize = 5;

/// What the script calls a directory, what it is in words, and its path.
fn list_dirs(settings: &HostSettings) -> [(&'static str, &'static str, &str); 4] {
    [
        ("snapshots", "snapshots directory", &settings.snapshots_dir),
        ("sandboxes", "sandboxes directory", &settings.sandboxes_dir),
        ("nvram", "NVRAM directory", &settings.nvram_dir),
        ("temp", "temporary directory", &settings.temp_dir),
    ]
}

/// Are the directories there, and may we list them and write to them?
pub(super) fn check_dirs(probe: &Probe, settings: &HostSettings) -> Vec<Check> {
    let checks = list_dirs(settings).map(|(kind, what, dir)| {
        let said = |key: &str| {
            probe
                .get(&format!("{kind}.{key}"))
                .filter(|said| !said.is_empty())
        };
        let problem = said("missing")
            .or_else(|| said("list"))
            .or_else(|| said("write"));
        if let Some(words) = problem {
            let mend = suggest_fix(words, dir, probe, settings);
            return Some(Check::failed(what, describe_problem(dir, words), mend));
        }
        if probe.get(&format!("{kind}.write")).is_some() {
            return Some(Check::passed(what, format!("{dir}: readable and writable")));
        }
        let begun = probe.get_all("begin").any(|begun| begun == kind);
        begun.then(|| {
            Check::failed(
                what,
                format!("{dir} does not answer; not checked: the directories after it"),
                format!(
                    "find out what hangs: timeout 5 {}",
                    quote::quote_for_display(["ls", "-la", dir])
                ),
            )
        })
    });
    checks.into_iter().flatten().collect()
}

/// The system's words without the program's name, behind the directory where they do not name it.
fn describe_problem(dir: &str, words: &str) -> String {
    let line = words.lines().next().unwrap_or_default();
    let why = line.rsplit_once(": ").map_or(line, |(_, why)| why);
    format!("{dir}: {why}")
}

/// What to do about the system's words.
fn suggest_fix(words: &str, dir: &str, probe: &Probe, settings: &HostSettings) -> String {
    let has = |text: &str| words.contains(text);
    if has("No such file") {
        let (user, group) = settings.owner.split_once(':').unwrap_or_default();
        return match dir == settings.temp_dir {
            true => quote::quote_for_display(["mkdir", "-p", dir]),
            false => quote::quote_for_display([
                "install", "-d", "-m", "755", "-o", user, "-g", group, dir,
            ]),
        };
    }
    if has("ermission denied") || has("not permitted") {
        let user = probe.get("user").unwrap_or("USER");
        let entry = format!("u:{user}:rwx");
        let command = quote::quote_for_display(["setfacl", "-m", &entry, dir]);
        return format!("{command} (or run snapdeck as root there)");
    }
    if has("No space left") || has("quota") {
        return format!(
            "free space there: {}",
            quote::quote_for_display(["df", "-h", dir])
        );
    }
    if has("Read-only") {
        return format!(
            "mount it writable: {}",
            quote::quote_for_display(["findmnt", "-T", dir])
        );
    }
    format!(
        "inspect it there: {}",
        quote::quote_for_display(["ls", "-la", dir])
    )
}

/// Is the owner of snapshots known there, and may we give files to it?
pub(super) fn check_owner(probe: &Probe, settings: &HostSettings) -> Option<Check> {
    let (what, name) = ("owner", &settings.owner);
    let setting = match probe.get("usual_owner") {
        Some(usual) => format!(
            "set owner = \"{usual}\" for host {} in the settings",
            settings.name
        ),
        None => format!(
            "set owner for host {} in the settings: QEMU's user:group there",
            settings.name
        ),
    };
    let (user, group) = probe.get("owner")?.split_once(':')?;
    if user.is_empty() || group.is_empty() {
        let unknown = if user.is_empty() { "user" } else { "group" };
        return Some(Check::failed(
            what,
            format!("{name}: no such {unknown} on the host"),
            setting,
        ));
    }
    match probe.get("snapshots.chown") {
        Some("") => Some(Check::passed(what, format!("{name}; chown works"))),
        Some(words) => Some(Check::failed(
            what,
            describe_problem(&format!("{name}: chown fails"), words),
            format!("run snapdeck as root there, or {setting}"),
        )),
        // Snapshots cannot be written there, which is told in its place.
        None => None,
    }
}

/// A file of the snapshots directory.
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

/// Do the snapshots belong to the owner, with mode 0644 (spec, "File Permissions")? One that nobody may write, 0444,
/// is as good.
pub(super) fn check_modes(probe: &Probe, settings: &HostSettings) -> Option<Check> {
    let what = "owner and mode";
    if probe.get("snapshots.list") != Some("") {
        return None;
    }
    let wanted = probe.get("owner")?;
    let files: Vec<FileOwnership> = probe
        .get_all("file")
        .filter_map(FileOwnership::parse)
        .collect();
    let is_fine = |file: &&FileOwnership| file.ids == wanted && matches!(file.mode, "644" | "444");
    let wrong: Vec<&FileOwnership> = files.iter().filter(|file| !is_fine(file)).collect();
    if wrong.is_empty() {
        return Some(Check::passed(
            what,
            match files.len() {
                0 => "there are none".to_owned(),
                all => format!("{} and 0644, all {all}", settings.owner),
            },
        ));
    }
    let named: Vec<String> = wrong
        .iter()
        .take(MAX_NAMED)
        .map(|file| format!("{} ({} {})", file.name, file.names, file.mode))
        .collect();
    let more = match wrong.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let dir = &settings.snapshots_dir;
    let paths = match wrong.len() > MAX_NAMED {
        true => format!("{}/*.qcow2", quote::quote_for_display([&**dir])),
        false => {
            let paths: Vec<String> = wrong
                .iter()
                .map(|file| format!("{dir}/{}", file.name.file_name()))
                .collect();
            quote::quote_for_display(paths.iter().map(String::as_str))
        }
    };
    Some(Check::warning(
        what,
        format!("of {}: {}{more}", files.len(), named.join(", ")),
        format!("chown {} {paths}; chmod 644 {paths}", settings.owner),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::settings;
    use super::*;
    use snapdeck_model::Verdict;

    #[test]
    fn each_complaint_has_its_command() {
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
        let told: Vec<String> = check_dirs(&probe, &settings())
            .into_iter()
            .map(|check| format!("{} -> {}", check.finding, check.fix.unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                "/s does not answer; not checked: the directories after it -> find out what hangs: timeout 5 ls -la /s",
                "/b: No space left on device -> free space there: df -h /b",
                "/n: Permission denied -> setfacl -m u:op:rwx /n (or run snapdeck as root there)",
                "/t: No such file or directory -> mkdir -p /t",
            ]
        );
        // One that was not come to is left out.
        assert!(check_dirs(&Probe::from_pairs(&[]), &settings()).is_empty());
    }

    #[test]
    fn wrong_owners_and_modes_are_named_with_what_mends_them() {
        let mut pairs = vec![
            ("snapshots.list", ""),
            ("owner", "64055:108"),
            ("file", "64055:108 libvirt-qemu:kvm 644 a.qcow2"),
            ("file", "64055:108 libvirt-qemu:kvm 444 b.qcow2"),
            ("file", "0:0 root:root 600 c.qcow2"),
            ("file", "0:0 root:root 600 not a snapshot.qcow2"),
        ];
        let check = check_modes(&Probe::from_pairs(&pairs), &settings()).unwrap();
        assert_eq!(check.finding, "of 3: c (root:root 600)");
        assert_eq!(
            check.fix.unwrap(),
            "chown qemu:kvm /s/c.qcow2; chmod 644 /s/c.qcow2"
        );
        let many = ["d", "e", "f", "g", "h"].map(|name| format!("1:1 x:x 644 {name}.qcow2"));
        pairs.extend(many.iter().map(|file| ("file", &**file)));
        let check = check_modes(&Probe::from_pairs(&pairs), &settings()).unwrap();
        assert!(check.finding.ends_with("and 1 more"), "{}", check.finding);
        assert!(check.fix.unwrap().ends_with("chmod 644 /s/*.qcow2"));
    }

    #[test]
    fn an_owner_that_is_not_known_is_told_with_one_that_is() {
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
