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

/// Accepts `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`: no separator, no leading dot or dash, nothing special to a shell.
fn validate_name(kind: &str, name: &str) -> Result<(), Error> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let valid = name.len() <= MAX_NAME_BYTES
        && name
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(allowed);
    if valid {
        return Ok(());
    }
    Err(Error::new(
        Kind::InvalidInput,
        format!("{name:?} is not a valid {kind}"),
    )
    .hint("use 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or digit"))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $clean:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(
            feature = "openapi",
            derive(utoipa::ToSchema),
            schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", max_length = 128)
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
                validate_name($kind, name)?;
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
    /// Name of a snapshot or an object, without the ending `.qcow2`.
    SnapshotName, "snapshot name", |text| text.strip_suffix(IMAGE_SUFFIX).unwrap_or(text)
);
name!(
    /// Id of a sandbox: the name of its libvirt domain.
    SandboxId, "sandbox id", |text| text
);
name!(
    /// Name of a host in the settings.
    HostName, "host name", |text| text
);

impl SnapshotName {
    /// Returns `NAME.qcow2`, the file in a snapshots directory and the object under the bucket's prefix.
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
        format!(".{}.pull", self.file_name())
    }

    /// Returns `.NAME_VARS.fd.pull`, the directory in which a pull writes the UEFI variables.
    pub fn variables_pull_dir_name(&self) -> String {
        format!(".{}.pull", self.variables_file_name())
    }

    /// Returns `.NAME.qcow2.damaged`, the record of the damage that a check found.
    pub fn damage_file_name(&self) -> String {
        format!(".{self}.qcow2.damaged")
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
            "", "../x", "a/b", "a;b", ".hidden", "-rf", "a b", "a\n", "ä", "a\0",
        ] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad:?}");
            assert!(bad.parse::<SandboxId>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(128).parse::<SandboxId>().is_ok());
        assert!("a".repeat(129).parse::<SandboxId>().is_err());
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
