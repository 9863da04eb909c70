//! Validated names. A value of these types may go into a path, a key or a domain name as it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{Error, Kind};

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`: no separator, no leading dot or dash, nothing a shell sees.
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
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", max_length = 128)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(given: &str) -> Result<Self, Error> {
                let clean: fn(&str) -> &str = $clean;
                let name = clean(given);
                validate_name($kind, name)?;
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
    /// A snapshot's (and an object's) name, without the `.qcow2` ending.
    SnapshotName, "snapshot name", |given| given.strip_suffix(".qcow2").unwrap_or(given)
);
name!(
    /// A sandbox's id, which is its libvirt domain's name.
    SandboxId, "sandbox id", |given| given
);
name!(
    /// A host's name in the settings.
    HostName, "host name", |given| given
);

impl SnapshotName {
    /// `NAME.qcow2`, the file's name in a snapshots directory and under the bucket's prefix.
    pub fn file_name(&self) -> String {
        format!("{self}.qcow2")
    }

    /// `NAME.json`, the manifest's name beside the file or the object.
    pub fn manifest_file_name(&self) -> String {
        format!("{self}.json")
    }

    /// `NAME_VARS.fd`, the name of the UEFI variables that belong to it, beside it.
    pub fn variables_file_name(&self) -> String {
        format!("{self}_VARS.fd")
    }

    /// `.NAME.qcow2.partial`, the name a pull writes under until the image is proven.
    pub fn partial_file_name(&self) -> String {
        format!(".{self}.qcow2.partial")
    }

    /// `.NAME.qcow2.damaged`, the name of the note of what is wrong with the file.
    pub fn damage_file_name(&self) -> String {
        format!(".{self}.qcow2.damaged")
    }
}

impl SandboxId {
    /// `ID.qcow2`, the name of its overlay in a sandboxes directory.
    pub fn disk_file_name(&self) -> String {
        format!("{self}.qcow2")
    }

    /// `ID_VARS.fd`, the name of its UEFI variables.
    pub fn variables_file_name(&self) -> String {
        format!("{self}_VARS.fd")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn drops_a_given_ending_once() {
        assert_eq!("a.qcow2".parse::<SnapshotName>().unwrap().as_str(), "a");
        assert_eq!(
            "a.qcow2.qcow2".parse::<SnapshotName>().unwrap().as_str(),
            "a.qcow2"
        );
        assert!(".qcow2".parse::<SnapshotName>().is_err());
    }

    #[test]
    fn refuses_what_could_leave_its_place() {
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
        fn accepts_exactly_the_documented_form(name in "[ -~]{0,140}") {
            let mut chars = name.chars();
            let documented = name.len() <= 128
                && chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
                && chars.all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
            prop_assert_eq!(name.parse::<SandboxId>().is_ok(), documented);
        }
    }
}
