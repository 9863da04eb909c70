//! The parts of a snapshot besides its image: UEFI variables and manifest.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Digest;

/// The UEFI variables that belong to an image. As text `none`, or the SHA-256 in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ExpectedVariables {
    /// It has none.
    Absent,
    /// Those with this SHA-256.
    Digest(Digest),
}

/// The other parts of a snapshot, as the metadata of its image names them. An object without it is complete by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotParts {
    /// The UEFI variables.
    pub variables: ExpectedVariables,
    /// Whether it has a manifest.
    pub has_manifest: bool,
}

impl ExpectedVariables {
    /// Parses the output of `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::Absent),
            digest => Digest::from_hex(digest).map(Self::Digest),
        }
    }
}

impl fmt::Display for ExpectedVariables {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => out.write_str("none"),
            Self::Digest(digest) => digest.fmt(out),
        }
    }
}

impl From<ExpectedVariables> for String {
    fn from(variables: ExpectedVariables) -> Self {
        variables.to_string()
    }
}

impl TryFrom<String> for ExpectedVariables {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("neither a SHA-256 nor \"none\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_parsed() {
        for variables in [
            ExpectedVariables::Absent,
            ExpectedVariables::Digest(Digest([7; 32])),
        ] {
            assert_eq!(
                ExpectedVariables::parse(&variables.to_string()),
                Some(variables)
            );
        }
        assert_eq!(ExpectedVariables::parse("sha512:00"), None);
    }
}
