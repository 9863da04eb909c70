//! Validated names, safe in a path, a key or a domain name without quoting.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Error, Kind};

/// Maximum length in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Ending of an image's file and object.
const IMAGE_SUFFIX: &str = ".qcow2";

/// Endings of the files of a snapshot. A directory `NAME.qcow2` would be in the place of the image of `NAME`.
const FILE_SUFFIXES: [&str; 3] = [IMAGE_SUFFIX, ".json", "_VARS.fd"];

/// Between the two parts of `ORG/NAME` in the name of a hidden file, which has no slash. No name has it.
const FLAT_SEPARATOR: &str = "@";

/// Returns whether it is `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`: no separator, no leading dot or dash, nothing special to a shell.
fn is_plain(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    name.len() <= MAX_NAME_BYTES
        && name
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(allowed)
}

/// Returns whether it may be the `ORG` of a snapshot `ORG/NAME`.
pub fn is_organization(name: &str) -> bool {
    is_plain(name) && !FILE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn plain_hint(_: &str) -> &'static str {
    "use 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or digit"
}

fn snapshot_hint(name: &str) -> &'static str {
    match name.split_once('/') {
        Some((organization, _)) if is_plain(organization) && !is_organization(organization) => {
            "choose an ORG that does not end with .qcow2, .json or _VARS.fd"
        }
        _ => {
            "use 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or digit; or ORG/NAME"
        }
    }
}

/// Returns whether it is a plain name, or two of them with one slash in between.
fn is_snapshot_name(name: &str) -> bool {
    match name.split_once('/') {
        None => is_plain(name),
        Some((organization, rest)) => {
            name.len() <= MAX_NAME_BYTES && is_organization(organization) && is_plain(rest)
        }
    }
}

macro_rules! name {
    (
        $(#[$doc:meta])* $type:ident, $kind:literal, $clean:expr, $is_valid:expr, $hint:expr, $pattern:literal
    ) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(
            feature = "openapi",
            derive(utoipa::ToSchema),
            schema(value_type = String, pattern = $pattern, max_length = 128)
        )]
        #[serde(transparent)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let clean: fn(&str) -> &str = $clean;
                let name = clean(text);
                if !$is_valid(name) {
                    let summary = format!("{name:?} is not a valid {}", $kind);
                    return Err(Error::new(Kind::InvalidInput, summary).hint($hint(name)));
                }
                // Otherwise a name from a listing, given back, would name another file.
                if clean(name) != name {
                    let summary = format!("{text:?} is not a valid {}", $kind);
                    return Err(Error::new(Kind::InvalidInput, summary)
                        .hint("rename the file: its name ends in .qcow2 twice"));
                }
                Ok(Self(name.into()))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// Name of a snapshot or an object, `NAME` or `ORG/NAME`, without the ending `.qcow2`.
    SnapshotName, "snapshot name", |text| text.strip_suffix(IMAGE_SUFFIX).unwrap_or(text),
    is_snapshot_name, snapshot_hint, "^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$"
);
name!(
    /// Id of a sandbox: the name of its libvirt domain.
    SandboxId, "sandbox id", |text| text,
    is_plain, plain_hint, "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
);
name!(
    /// Name of a host in the settings.
    HostName, "host name", |text| text,
    is_plain, plain_hint, "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
);

impl SnapshotName {
    /// Returns `ORG` of `ORG/NAME`.
    pub fn organization(&self) -> Option<&str> {
        self.0.split_once('/').map(|(organization, _)| organization)
    }

    /// Returns `NAME` of `ORG/NAME`, or the whole name.
    pub fn last_part(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// Parses the name in that of a hidden file, which has no slash.
    pub fn from_flat(text: &str) -> Option<Self> {
        let name: Self = text.replacen(FLAT_SEPARATOR, "/", 1).parse().ok()?;
        // Of `NAME.qcow2` the ending was removed.
        (name.flat() == text).then_some(name)
    }

    /// Returns the name for a hidden file in the snapshots directory, whether the directory `ORG` exists or not.
    fn flat(&self) -> String {
        self.0.replacen('/', FLAT_SEPARATOR, 1)
    }

    /// Returns `NAME.qcow2`, the path of the file in a snapshots directory and of the object under the bucket's prefix.
    pub fn file_name(&self) -> String {
        format!("{self}.qcow2")
    }

    /// Returns `NAME.json`, the manifest beside the file or the object.
    pub fn manifest_file_name(&self) -> String {
        format!("{self}.json")
    }

    /// Returns `NAME_VARS.fd`, the UEFI variables beside the file.
    pub fn variables_file_name(&self) -> String {
        format!("{self}_VARS.fd")
    }

    /// Returns `.NAME.qcow2.pull`, the directory in which a pull writes the image until it is verified.
    pub fn pull_dir_name(&self) -> String {
        format!(".{}.qcow2.pull", self.flat())
    }

    /// Returns `.NAME_VARS.fd.pull`, the directory in which a pull writes the UEFI variables.
    pub fn variables_pull_dir_name(&self) -> String {
        format!(".{}_VARS.fd.pull", self.flat())
    }

    /// Returns `.NAME.qcow2.damaged`, the record of the damage that a check found.
    pub fn damage_file_name(&self) -> String {
        format!(".{}.qcow2.damaged", self.flat())
    }

    /// Returns `.NAME.qcow2.lock`, the lock file.
    pub fn lock_file_name(&self) -> String {
        format!(".{}.qcow2.lock", self.flat())
    }
}

impl SandboxId {
    /// Returns `ID.qcow2`, the overlay in a sandboxes directory.
    pub fn disk_file_name(&self) -> String {
        format!("{self}.qcow2")
    }

    /// Returns `ID_VARS.fd`, the UEFI variables.
    pub fn variables_file_name(&self) -> String {
        format!("{self}_VARS.fd")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_ending_is_removed() {
        assert_eq!("a.qcow2".parse::<SnapshotName>().unwrap().as_str(), "a");
        assert!("a.qcow2.qcow2".parse::<SnapshotName>().is_err());
        assert!("a.qcow2.qcow2".parse::<SandboxId>().is_ok());
        assert!(".qcow2".parse::<SnapshotName>().is_err());
    }

    #[test]
    fn unsafe_names_are_rejected() {
        for bad in [
            "", "../x", "a;b", ".hidden", "-rf", "a b", "a\n", "ä", "a\0", "a@b",
        ] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad:?}");
            assert!(bad.parse::<SandboxId>().is_err(), "{bad:?}");
        }
        assert!("a/b".parse::<SandboxId>().is_err());
        assert!("a/b".parse::<HostName>().is_err());
        assert!("a".repeat(128).parse::<SandboxId>().is_ok());
        assert!("a".repeat(129).parse::<SandboxId>().is_err());
    }

    #[test]
    fn a_snapshot_may_have_an_organization() {
        let name: SnapshotName = "acme/app-v1.qcow2".parse().unwrap();
        assert_eq!(name.as_str(), "acme/app-v1");
        assert_eq!(
            (name.organization(), name.last_part()),
            (Some("acme"), "app-v1")
        );
        assert_eq!(name.file_name(), "acme/app-v1.qcow2");
        assert_eq!(name.manifest_file_name(), "acme/app-v1.json");
        assert_eq!(name.variables_file_name(), "acme/app-v1_VARS.fd");
        let plain: SnapshotName = "app-v1".parse().unwrap();
        assert_eq!((plain.organization(), plain.last_part()), (None, "app-v1"));
        for bad in [
            "/",
            "/a",
            "a/",
            "a//b",
            "a/b/c",
            "./a",
            "../a",
            "a/.",
            "a/..",
            "a/.b",
            ".a/b",
            "-a/b",
            "a/-b",
            "a b/c",
            "a/b\n",
            "a@b/c",
            // In the place of the files of the snapshot `a`.
            "a.qcow2/b",
            "a.json/b",
            "a_VARS.fd/b",
            "a/b.qcow2.qcow2",
        ] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad:?}");
        }
        let longest = format!("{}/{}", "o".repeat(63), "n".repeat(64));
        assert!(longest.parse::<SnapshotName>().is_ok());
        assert!(format!("{longest}n").parse::<SnapshotName>().is_err());
    }

    #[test]
    fn hidden_files_have_no_slash_and_tell_the_name() {
        let names = ["a", "b", "a/b", "a.b", "a_b", "a-b/c"];
        let names = names.map(|name| name.parse::<SnapshotName>().unwrap());
        let hidden = |name: &SnapshotName| {
            [
                name.pull_dir_name(),
                name.variables_pull_dir_name(),
                name.damage_file_name(),
                name.lock_file_name(),
            ]
        };
        let all: std::collections::BTreeSet<String> = names.iter().flat_map(hidden).collect();
        assert_eq!(all.len(), 4 * names.len());
        assert!(
            all.iter()
                .all(|name| name.starts_with('.') && !name.contains('/'))
        );
        for name in names {
            assert_eq!(SnapshotName::from_flat(&name.flat()), Some(name));
        }
        for bad in ["a@b@c", "@a", "a@", "a/b", "a.qcow2", "a@.b"] {
            assert_eq!(SnapshotName::from_flat(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn exactly_the_documented_form_is_accepted(name in "[ -~]{0,140}") {
            let mut chars = name.chars();
            let documented = name.len() <= 128
                && chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
                && chars.all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
            prop_assert_eq!(name.parse::<SandboxId>().is_ok(), documented);
        }
    }
}
