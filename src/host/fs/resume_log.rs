//! The resume log: records the written blocks of a partial file, so that an interrupted pull is continued there.
//!
//! It is a text file beside the partial one that is only appended to: a header, then one record for each written block.
//! A later header discards all records before it, and a record truncated by a crash is ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use snapdeck_model::{Digest, block_count};
use snapdeck_ownership::OwnerMark;

/// Ends a header or record, as a newline does.
pub(super) const SEPARATOR: char = '\t';
/// Maximum length of a log that is read: that of an image of 5 TiB.
pub(super) const MAX_LOG_BYTES: u64 = 64 << 20;

/// Identifies the bytes to be written to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// URL and entity tag, which name one version of the bytes; without it, writes are not resumed.
    pub version: Option<String>,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// The blocks of a partial file that earlier writers of the same content wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResumeState {
    /// The digest of each written block.
    pub blocks: BTreeMap<u64, Digest>,
    /// Were they written since the host booted? Otherwise some may not have reached its disk, and all have to be
    /// verified.
    pub is_same_boot: bool,
}

/// The header of a resume log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResumeLog {
    pub content: Content,
    /// `random/boot_id` of the host (proc(5)).
    pub boot_id: String,
    /// The snapdeck that created the file; older logs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerMark>,
}

impl ResumeLog {
    /// Returns the path of the log of the file `path`.
    pub(super) fn path(path: &str) -> String {
        format!("{path}.mark")
    }

    /// Returns the header's text and a record for each of `blocks`.
    pub(super) fn header(&self, blocks: &BTreeMap<u64, Digest>) -> String {
        // Strings and numbers can always be written as JSON.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push(SEPARATOR);
        let records = blocks
            .iter()
            .map(|(block, digest)| Self::record(*block, digest));
        text.extend(records);
        text
    }

    /// Returns the text of a record for each of `blocks`.
    pub(super) fn records(blocks: &[(u64, Digest)]) -> String {
        let records = blocks
            .iter()
            .map(|(block, digest)| Self::record(*block, digest));
        records.collect()
    }

    fn record(block: u64, digest: &Digest) -> String {
        format!("{block} {digest}{SEPARATOR}")
    }

    /// Returns the last header in the text of a log; `None` if it is not a resume log.
    pub(crate) fn last_header(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let mut entries = text.split([SEPARATOR, '\n']).rev();
        let header = entries.find_map(|entry| serde_json::from_str::<Self>(entry).ok())?;
        Some(Self {
            owner: header.owner.and_then(OwnerMark::validated),
            ..header
        })
    }

    /// Parses the text of the log of a file of `length` bytes; nothing is resumed if content or length differ.
    pub(super) fn parse(&self, text: &[u8], length: u64) -> ResumeState {
        let mut state = ResumeState::default();
        let size = self.content.size_bytes;
        if self.content.version.is_none() || length != size {
            return state;
        }
        let mut is_same_content = false;
        let text = String::from_utf8_lossy(text);
        // Text after the last separator is truncated.
        let complete = text
            .rfind([SEPARATOR, '\n'])
            .and_then(|end| text.get(..end));
        for entry in complete.unwrap_or_default().split([SEPARATOR, '\n']) {
            if entry.starts_with('{') {
                let header: Option<Self> = serde_json::from_str(entry).ok();
                is_same_content = header
                    .as_ref()
                    .is_some_and(|header| header.content == self.content);
                state = ResumeState {
                    is_same_boot: header.is_some_and(|header| header.boot_id == self.boot_id)
                        && !self.boot_id.is_empty(),
                    blocks: BTreeMap::new(),
                };
            } else if is_same_content
                && let Some((block, digest)) = entry.split_once(' ')
                && let (Ok(block), Some(digest)) = (block.parse(), Digest::from_hex(digest))
                && block < block_count(size)
            {
                state.blocks.insert(block, digest);
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapdeck_model::BLOCK_BYTES;

    const SIZE: u64 = 3 * BLOCK_BYTES;

    fn resume_log(version: &str, boot_id: &str) -> ResumeLog {
        ResumeLog {
            content: Content {
                version: Some(version.into()),
                size_bytes: SIZE,
            },
            boot_id: boot_id.into(),
            owner: None,
        }
    }

    fn parse(text: &str, log: &ResumeLog, length: u64) -> (Vec<u64>, bool) {
        let state = log.parse(text.as_bytes(), length);
        (state.blocks.into_keys().collect(), state.is_same_boot)
    }

    #[test]
    fn records_count_for_the_same_content_only_and_are_unverified_after_a_boot() {
        let log = resume_log("s3://b/k \"1\"", "a");
        let digest = Digest([1; 32]);
        let text = log.header(&BTreeMap::new()) + &ResumeLog::record(2, &digest);
        let text = text + &ResumeLog::record(0, &digest);
        assert_eq!(parse(&text, &log, SIZE), (vec![0, 2], true));
        let nothing = (vec![], false);
        assert_eq!(
            parse(&text, &resume_log("s3://b/k \"1\"", "b"), SIZE),
            (vec![0, 2], false)
        );
        assert_eq!(
            parse(&text, &resume_log("s3://b/k \"1\"", ""), SIZE),
            (vec![0, 2], false)
        );
        assert_eq!(
            parse(&text, &resume_log("s3://b/k \"2\"", "a"), SIZE).0,
            nothing.0
        );
        assert_eq!(parse(&text, &log, SIZE - 1), nothing);
        assert_eq!(parse("", &log, SIZE), nothing);
        let mut unnamed = log.clone();
        unnamed.content.version = None;
        assert_eq!(
            parse(&unnamed.header(&BTreeMap::new()), &unnamed, SIZE),
            nothing
        );
    }

    #[test]
    fn truncated_and_misplaced_records_are_ignored() {
        let log = resume_log("v", "a");
        let record = ResumeLog::record(1, &Digest([1; 32]));
        let header = log.header(&BTreeMap::new());
        for cut in 0..record.len() {
            let (blocks, _) = parse(&format!("{header}{}", &record[..cut]), &log, SIZE);
            assert!(blocks.is_empty());
        }
        let mixed = format!(
            "{record}{header}3 {}\n-1 x\tx\n\n1\n{}",
            &record[2..],
            record.replace('\t', "\n")
        );
        assert_eq!(parse(&mixed, &log, SIZE).0, [1]);
    }

    #[test]
    fn a_later_header_discards_earlier_records() {
        let (old, new) = (resume_log("v", "a"), resume_log("v", "b"));
        let record = ResumeLog::record(1, &Digest([1; 32]));
        let verified = BTreeMap::from([(2, Digest([2; 32]))]);
        let text = old.header(&BTreeMap::new()) + &record + "\n" + &new.header(&verified);
        assert_eq!(parse(&text, &new, SIZE), (vec![2], true));
    }

    #[test]
    fn fuzz_resume_log() {
        let log = ResumeLog {
            content: Content {
                version: Some("s3://b/a \"1\"".into()),
                size_bytes: 3 * snapdeck_model::BLOCK_BYTES,
            },
            boot_id: "boot".into(),
            owner: Some(OwnerMark::new()),
        };
        let blocks = BTreeMap::from([(0, Digest([1; 32])), (2, Digest([2; 32]))]);
        snapdeck_fuzz::FuzzTarget::new("resume log")
            .seed(log.header(&blocks))
            .seed(log.header(&BTreeMap::new()))
            .max_bytes(1 << 20)
            .memory(1 << 20, 64)
            .run(|text| {
                let state = log.parse(text, log.content.size_bytes);
                assert!(state.blocks.keys().all(|block| *block < 3));
                let owner = ResumeLog::last_header(text).and_then(|header| header.owner);
                assert!(owner.is_none_or(|owner| owner.validated().is_some()));
            });
    }
}
