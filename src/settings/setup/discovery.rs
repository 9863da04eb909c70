//! Finds what a setup can propose: libvirt on this machine, SSH hosts, AWS profiles.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::environment::read_path;
use crate::read_file;

/// Files that are read of the user's SSH settings with all their `Include` lines.
const MAX_SSH_FILES: usize = 32;
const MAX_SSH_HOSTS: usize = 200;
const MAX_PROFILES: usize = 200;
/// Longest name of a host or profile, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Sockets of libvirt for QEMU: of libvirtd, and of the daemon for QEMU alone.
const LIBVIRT_SOCKETS: [&str; 2] = ["run/libvirt/libvirt-sock", "run/libvirt/virtqemud-sock"];
/// Users that run QEMU in distributions, with the group of its files.
const QEMU_OWNERS: [(&str, &str); 2] = [("libvirt-qemu", "kvm"), ("qemu", "qemu")];

/// Hosts, profiles and keys that a setup can propose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Whether libvirt has a socket on this machine.
    pub has_libvirt: bool,
    /// Hosts of the user's SSH settings, in their order.
    pub ssh_hosts: Vec<String>,
    /// Profiles of the AWS files, by name.
    pub profiles: Vec<AwsProfile>,
    /// Whether the environment has a key pair.
    pub has_key_pair: bool,
    /// User and group of QEMU on this machine.
    pub owner: Option<String>,
}

/// A profile of the AWS files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsProfile {
    /// Name.
    pub name: String,
    /// Region.
    pub region: Option<String>,
    /// URL of its store.
    pub endpoint: Option<String>,
}

impl Discovery {
    /// Searches files and environment; opens no connection. What cannot be read is not found.
    pub fn search(home: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        Self::search_in(Path::new("/"), home, env)
    }

    /// Searches the machine whose files are in `root`.
    fn search_in(root: &Path, home: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let aws_file = |variable, name: &str| {
            let default = || home.map(|home| home.join(".aws").join(name));
            read_path(env, variable).or_else(default)
        };
        let has = |variable| read_path(env, variable).is_some();
        Self {
            has_libvirt: LIBVIRT_SOCKETS
                .iter()
                .any(|socket| root.join(socket).exists()),
            ssh_hosts: home.map(read_ssh_hosts).unwrap_or_default(),
            profiles: read_profiles(
                aws_file("AWS_CONFIG_FILE", "config"),
                aws_file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            ),
            has_key_pair: has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY"),
            owner: find_owner(root),
        }
    }

    /// Returns where the keys of the bucket come from, or how to provide them.
    pub fn describe_keys(&self) -> String {
        let names: Vec<&str> = self.profiles.iter().map(|one| one.name.as_str()).collect();
        let secrets = "No secret is written to the file.";
        match (self.has_key_pair, names.as_slice()) {
            (true, _) => format!("Keys: AWS_ACCESS_KEY_ID of the environment. {secrets}"),
            (false, []) => format!(
                "Keys: none found; run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. {secrets}"
            ),
            (false, names) => format!("Keys: AWS profiles {}. {secrets}", names.join(", ")),
        }
    }
}

fn read_text(path: &Path) -> Option<String> {
    // A FIFO would wait for a writer.
    path.is_file().then_some(())?;
    read_file("", path, true).ok().flatten()
}

/// Returns the owner of QEMU's files that is usual where its user exists.
fn find_owner(root: &Path) -> Option<String> {
    let has = |file: &str, name: &str| {
        read_text(&root.join(file)).is_some_and(|text| {
            text.lines()
                .any(|line| line.split(':').next() == Some(name))
        })
    };
    let owner = QEMU_OWNERS
        .iter()
        .find(|(user, group)| has("etc/passwd", user) && has("etc/group", group));
    owner.map(|(user, group)| format!("{user}:{group}"))
}

/// Returns the aliases of the `Host` lines of `~/.ssh/config` (ssh_config(5)), without patterns.
fn read_ssh_hosts(home: &Path) -> Vec<String> {
    let ssh_dir = home.join(".ssh");
    let (mut hosts, mut files) = (Vec::new(), vec![ssh_dir.join("config")]);
    let mut read: Vec<PathBuf> = Vec::new();
    while let Some(file) = files.pop() {
        if read.len() >= MAX_SSH_FILES {
            break;
        }
        if read.contains(&file) {
            continue;
        }
        let mut included = Vec::new();
        for line in read_text(&file).unwrap_or_default().lines() {
            let (keyword, values) = split_ssh_line(line);
            match keyword.to_ascii_lowercase().as_str() {
                "host" => hosts.extend(values.into_iter().filter(|name| is_alias(name))),
                "include" => {
                    let files = values.iter();
                    included.extend(files.flat_map(|path| expand_include(path, home)));
                }
                _ => {}
            }
        }
        files.extend(included.into_iter().rev());
        read.push(file);
    }
    let mut unique: Vec<String> = Vec::new();
    for host in hosts {
        if unique.len() >= MAX_SSH_HOSTS {
            break;
        }
        if !unique.contains(&host) {
            unique.push(host);
        }
    }
    unique
}

/// Returns the keyword of a line, which a space or `=` follows, and its values, which may be quoted.
fn split_ssh_line(line: &str) -> (&str, Vec<String>) {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=');
    let (keyword, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let (mut values, mut value, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in rest.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted && value.is_empty() => break,
            c if c.is_whitespace() && !is_quoted => values.push(std::mem::take(&mut value)),
            c => value.push(c),
        }
    }
    values.push(value);
    values.retain(|value| !value.is_empty());
    (keyword, values)
}

/// Returns whether a name is that of one host, with nothing that a URI or a terminal could take for something else.
fn is_alias(name: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    name.len() <= MAX_NAME_BYTES
        && name.bytes().all(is_plain)
        && name
            .bytes()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric())
}

/// Returns the files of an `Include`, which may have `*` in its last part.
fn expand_include(path: &str, home: &Path) -> Vec<PathBuf> {
    let path = match path.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => home.join(".ssh").join(path),
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let Some((start, end)) = name.and_then(|name| name.split_once('*')) else {
        return vec![path];
    };
    let entries = path.parent().and_then(|dir| std::fs::read_dir(dir).ok());
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            let is_hidden = start.is_empty() && name.is_some_and(|name| name.starts_with('.'));
            let rest = name.and_then(|name| name.strip_prefix(start));
            !is_hidden && rest.is_some_and(|rest| rest.ends_with(end))
        })
        .take(MAX_SSH_FILES)
        .collect();
    files.sort();
    files
}

/// Reads names, regions and endpoints; keys are not kept.
fn read_profiles(config: Option<PathBuf>, credentials: Option<PathBuf>) -> Vec<AwsProfile> {
    let mut profiles: BTreeMap<String, AwsProfile> = BTreeMap::new();
    for (file, is_config) in [(config, true), (credentials, false)] {
        let text = file.and_then(|file| read_text(&file)).unwrap_or_default();
        let mut current: Option<String> = None;
        for line in text.lines() {
            if line.starts_with('[') {
                current = profile_name(line, is_config);
                if let Some(name) = &current
                    && profiles.len() < MAX_PROFILES
                {
                    let profile = profiles.entry(name.clone()).or_default();
                    profile.name.clone_from(name);
                }
                continue;
            }
            let profile = current.as_ref().and_then(|name| profiles.get_mut(name));
            // Indented lines belong to a nested section.
            let (Some(profile), Some((key, value))) = (profile, line.split_once('=')) else {
                continue;
            };
            let value = || Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match key.trim_end() {
                "region" => profile.region = value(),
                "endpoint_url" => profile.endpoint = value(),
                _ => {}
            }
        }
    }
    profiles.into_values().collect()
}

/// Returns the profile of a heading: `[NAME]`, and in the file `config` also `[profile NAME]`.
fn profile_name(heading: &str, is_config: bool) -> Option<String> {
    let heading = heading.trim_start_matches('[').split(']').next()?.trim();
    let name = match heading.split_once(char::is_whitespace) {
        Some(("profile", name)) if is_config => name.trim().trim_matches(['"', '\'']),
        _ if is_config && heading != "default" => return None,
        _ => heading,
    };
    let is_name = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.chars().any(snapdeck_model::is_unprintable);
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A machine with these files, which is also the home directory.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn search(files: &[(&str, &str)], env: &[(&str, &str)]) -> Discovery {
        let dir = machine(files);
        let env = |name: &str| {
            let found = env.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| value.into())
        };
        Discovery::search_in(dir.path(), Some(dir.path()), &env)
    }

    #[test]
    fn an_empty_machine_has_nothing() {
        assert_eq!(search(&[], &[]), Discovery::default());
    }

    #[test]
    fn libvirt_is_found_by_its_socket_and_qemu_by_its_user() {
        let found = search(
            &[
                ("run/libvirt/virtqemud-sock", ""),
                ("etc/passwd", "root:x:0:0::/:\nqemu:x:107:107::/:\n"),
                ("etc/group", "qemu:x:107:\nkvm:x:36:\n"),
            ],
            &[],
        );
        assert!(found.has_libvirt);
        assert_eq!(found.owner.as_deref(), Some("qemu:qemu"));
    }

    #[test]
    fn aliases_of_ssh_hosts_are_found_and_patterns_are_not() {
        let config = "Host rack1 rack2 # both\n  HostName 10.0.0.1\nHost *\n  User op\nhost=\"rack3\"\n\
                      Host !rack4 web-? *.example.com rack1\nMatch host rack5\nInclude conf.d/*.conf ~/more\n";
        let found = search(
            &[
                (".ssh/config", config),
                (".ssh/conf.d/a.conf", "Host a1"),
                (".ssh/conf.d/b.conf", "HOST b1\nInclude config"),
                (".ssh/conf.d/other", "Host other"),
                ("more", "Host more"),
            ],
            &[],
        );
        assert_eq!(
            found.ssh_hosts,
            ["rack1", "rack2", "rack3", "a1", "b1", "more"]
        );
    }

    #[test]
    fn hostile_names_are_not_proposed() {
        let config =
            "Host -oProxyCommand=x \"a b\" a/b a@b a\u{1b}[2J \u{202e}x $(id) a;b\nHost fine\n";
        let aws =
            "[profile a\u{1b}[2J]\n[profile fine \"q\"]\n[sso-session s]\n[plain]\n[profile ]\n[";
        let found = search(&[(".ssh/config", config), (".aws/config", aws)], &[]);
        assert_eq!(found.ssh_hosts, ["fine"]);
        let names: Vec<&str> = found.profiles.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["fine \"q"]);
    }

    #[test]
    fn profiles_of_both_files_are_found_without_their_keys() {
        let config = "[default]\nregion = eu-west-1\n[profile work]\nregion=us-east-2\n\
                      endpoint_url = http://127.0.0.1:9000\ns3 =\n  region = nested\n";
        let credentials =
            "[work]\naws_access_key_id = A\naws_secret_access_key = SECRET\n[other]\n";
        let found = search(
            &[(".aws/config", config), (".aws/credentials", credentials)],
            &[],
        );
        let profiles: Vec<_> = found
            .profiles
            .iter()
            .map(|one| {
                (
                    one.name.as_str(),
                    one.region.as_deref(),
                    one.endpoint.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            profiles,
            [
                ("default", Some("eu-west-1"), None),
                ("other", None, None),
                ("work", Some("us-east-2"), Some("http://127.0.0.1:9000")),
            ]
        );
        assert!(!format!("{found:?}").contains("SECRET"));
        assert!(found.describe_keys().contains("default, other, work"));
    }

    #[test]
    fn variables_name_other_files_and_keys() {
        let dir = machine(&[("c", "[profile elsewhere]\n")]);
        let file = dir.path().join("c").display().to_string();
        let found = search(
            &[(".aws/config", "[default]\n")],
            &[
                ("AWS_CONFIG_FILE", &file),
                ("AWS_ACCESS_KEY_ID", "A"),
                ("AWS_SECRET_ACCESS_KEY", "B"),
            ],
        );
        assert_eq!(found.profiles.len(), 1);
        assert_eq!(found.profiles[0].name, "elsewhere");
        assert!(found.has_key_pair && found.describe_keys().contains("AWS_ACCESS_KEY_ID"));
    }
}
