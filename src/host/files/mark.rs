//! How far a file that is being written has come, kept beside it: a write that broke off is taken up where it
//! ended.

use serde::{Deserialize, Serialize};

/// What a file is to hold. Two writes of equal contents write equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// Names one version of the content for ever: where it comes from and its entity tag.
    pub version: String,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// A note of progress. It is believed while the host has not been started anew: what was written may have
/// never reached the disk of one that lost its power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// What is being written.
    pub content: Content,
    /// The kernel's id of the host's last start (`random/boot_id`, proc(5)).
    pub boot_id: String,
    /// All bytes before this one are written.
    pub done_bytes: u64,
}

impl Mark {
    /// The name of the mark of `path`.
    pub fn path(path: &str) -> String {
        format!("{path}.mark")
    }

    /// How many leading bytes are there, by a mark's text, for a file of `length` bytes; 0 where that is not
    /// known for this content and this start of the host.
    pub fn done_bytes(text: &[u8], content: &Content, boot_id: &str, length: u64) -> u64 {
        match serde_json::from_slice::<Self>(text) {
            Ok(mark)
                if mark.content == *content
                    && mark.boot_id == boot_id
                    && !boot_id.is_empty()
                    && length == content.size_bytes =>
            {
                mark.done_bytes.min(length)
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_counts_for_its_content_and_start_alone() {
        let content = Content {
            version: "s3://b/k \"1\"".into(),
            size_bytes: 10,
        };
        let mark = Mark {
            content: content.clone(),
            boot_id: "a".into(),
            done_bytes: 4,
        };
        let text = serde_json::to_vec(&mark).unwrap();
        let other = Content {
            version: "s3://b/k \"2\"".into(),
            ..content.clone()
        };
        assert_eq!(Mark::done_bytes(&text, &content, "a", 10), 4);
        assert_eq!(Mark::done_bytes(&text, &content, "b", 10), 0);
        assert_eq!(Mark::done_bytes(&text, &content, "", 10), 0);
        assert_eq!(Mark::done_bytes(&text, &content, "a", 9), 0);
        assert_eq!(Mark::done_bytes(&text, &other, "a", 10), 0);
        assert_eq!(Mark::done_bytes(b"", &content, "a", 10), 0);
    }
}
