//! The mark in a directory or file: a random id, and who created it.

use std::hash::{BuildHasher, RandomState};
use std::io::Read;

use jiff::Timestamp;
use nix::unistd::{User, geteuid};
use serde::{Deserialize, Serialize};

/// Maximum length of a mark that is read, in bytes.
pub const MAX_MARK_BYTES: u64 = 1000;
/// Maximum length of the text that names its creator, in characters.
const MAX_CREATOR_CHARS: usize = 200;
const ID_DIGITS: usize = 32;

/// Identifies what a snapdeck has created, and names its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerMark {
    /// 128 random bits in hexadecimal.
    pub id: String,
    /// User, machine and process: "root on build-1, process 4711".
    pub creator: String,
    /// Time of creation.
    pub created: Timestamp,
}

impl OwnerMark {
    /// Returns the mark of something new of this process.
    pub fn new() -> Self {
        Self {
            id: random_id(),
            creator: describe_self(),
            created: Timestamp::now(),
        }
    }

    /// Parses a mark; `None` for any other text. Control characters in it are removed.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() as u64 > MAX_MARK_BYTES {
            return None;
        }
        let mark: Self = serde_json::from_slice(text).ok()?;
        mark.validated()
    }

    /// Returns the mark if its id is one; its creator is made printable.
    pub fn validated(mut self) -> Option<Self> {
        let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if self.id.len() != ID_DIGITS || !self.id.bytes().all(is_digit) {
            return None;
        }
        let creator = self.creator.chars().filter(|c| !c.is_control());
        self.creator = creator.take(MAX_CREATOR_CHARS).collect();
        Some(self)
    }

    /// Returns its text: JSON in one line.
    pub fn to_text(&self) -> String {
        // Strings and times can always be written as JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Default for OwnerMark {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns 128 random bits in hexadecimal.
pub fn random_id() -> String {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    let number = match read {
        Ok(()) => u128::from_ne_bytes(bytes),
        // The standard library seeds its hashers from the system.
        Err(_) => {
            let half = || u128::from(RandomState::new().hash_one(0));
            half() << 64 | half()
        }
    };
    format!("{number:032x}")
}

/// Returns user, machine and process of this snapdeck.
pub fn describe_self() -> String {
    let user = User::from_uid(geteuid()).ok().flatten();
    let user = user.map_or_else(|| geteuid().to_string(), |user| user.name);
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let process = std::process::id();
    format!("{user} on {}, process {process}", machine.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else_is_a_mark() {
        let mark = OwnerMark::new();
        assert_eq!(
            OwnerMark::parse(mark.to_text().as_bytes()),
            Some(mark.clone())
        );
        assert_ne!(mark.id, OwnerMark::new().id);
        let text = mark.to_text();
        for other in [
            "",
            "{}",
            "[]",
            &text[1..],
            &text.replace(&mark.id, "1"),
            &text.replace(
                &mark.id,
                &mark.id.replace(|c: char| c.is_ascii_digit(), "/"),
            ),
            &format!("{text}{}", " ".repeat(1000)),
        ] {
            assert_eq!(OwnerMark::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_creator_has_no_control_characters() {
        let mark = OwnerMark {
            creator: "root\u{1b}[2J on a\n".into(),
            ..OwnerMark::new()
        };
        let read = OwnerMark::parse(mark.to_text().as_bytes()).unwrap();
        assert_eq!(read.creator, "root[2J on a");
    }

    #[test]
    fn fuzz_mark() {
        snapdeck_fuzz::FuzzTarget::new("owner mark")
            .seed(OwnerMark::new().to_text())
            .run(|text| {
                if let Some(mark) = OwnerMark::parse(text) {
                    assert!(!mark.creator.contains(char::is_control));
                    assert_eq!(mark.clone().validated(), Some(mark));
                }
            });
    }
}
