//! Which blocks of a file that is being written are there, kept beside it: a write that broke off is taken up where
//! it ended.
//!
//! A mark is text that is only added to: a header, and then a record for each block that was written, so that a note
//! costs a few bytes. Each header begins anew. What a crash cut off in the middle of a record does not count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use snapdeck_model::{Digest, block_count};

/// Parts headers and records, as a line's end does.
pub(super) const SEPARATOR: char = '\t';
/// Longest mark that is read, in bytes: of an image of 5 TiB.
pub(super) const MAX_LOG_BYTES: u64 = 64 << 20;

/// What a file is to hold. Two writes of equal contents write equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// Names one version of the content for ever: where it comes from and its entity tag. `None` where nothing
    /// names it: then nothing is taken up.
    pub version: Option<String>,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// What earlier writers of the same content left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResumeState {
    /// Blocks, and the digests they were written with.
    pub blocks: BTreeMap<u64, Digest>,
    /// Were they written since the host was last started? Else some may have never reached its disk: they are to be
    /// hashed before they count.
    pub is_same_boot: bool,
}

/// The head of the records that follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResumeLog {
    /// What is being written.
    pub content: Content,
    /// The kernel's id of the host's last start (`random/boot_id`, proc(5)).
    pub boot_id: String,
}

impl ResumeLog {
    /// The name of the mark of `path`.
    pub(super) fn path(path: &str) -> String {
        format!("{path}.mark")
    }

    /// The header, and with it all that is there already.
    pub(super) fn header(&self, blocks: &BTreeMap<u64, Digest>) -> String {
        // A struct of texts and numbers always has a JSON.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push(SEPARATOR);
        text.extend(
            blocks
                .iter()
                .map(|(block, digest)| Self::record(*block, digest)),
        );
        text
    }

    /// One record.
    pub(super) fn record(block: u64, digest: &Digest) -> String {
        format!("{block} {digest}{SEPARATOR}")
    }

    /// What is there, by a mark's text, of this content in a file of `length` bytes.
    pub(super) fn parse(&self, text: &[u8], length: u64) -> ResumeState {
        let mut found = ResumeState::default();
        let size = self.content.size_bytes;
        if self.content.version.is_none() || length != size {
            return found;
        }
        let mut ours = false;
        let text = String::from_utf8_lossy(text);
        // What stands behind the last part was cut off.
        let whole = text
            .rfind([SEPARATOR, '\n'])
            .and_then(|end| text.get(..end));
        for entry in whole.unwrap_or_default().split([SEPARATOR, '\n']) {
            if entry.starts_with('{') {
                let head: Option<Self> = serde_json::from_str(entry).ok();
                ours = head
                    .as_ref()
                    .is_some_and(|head| head.content == self.content);
                found = ResumeState {
                    is_same_boot: head.is_some_and(|head| head.boot_id == self.boot_id)
                        && !self.boot_id.is_empty(),
                    blocks: BTreeMap::new(),
                };
            } else if ours
                && let Some((block, digest)) = entry.split_once(' ')
                && let (Ok(block), Some(digest)) = (block.parse(), Digest::from_hex(digest))
                && block < block_count(size)
            {
                found.blocks.insert(block, digest);
            }
        }
        found
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
        }
    }

    fn parse(text: &str, by: &ResumeLog, length: u64) -> (Vec<u64>, bool) {
        let found = by.parse(text.as_bytes(), length);
        (found.blocks.into_keys().collect(), found.is_same_boot)
    }

    #[test]
    fn counts_for_its_content_alone_and_is_not_settled_after_a_start_of_the_host() {
        let ours = resume_log("s3://b/k \"1\"", "a");
        let digest = Digest([1; 32]);
        let text = ours.header(&BTreeMap::new()) + &ResumeLog::record(2, &digest);
        let text = text + &ResumeLog::record(0, &digest);
        assert_eq!(parse(&text, &ours, SIZE), (vec![0, 2], true));
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
        assert_eq!(parse(&text, &ours, SIZE - 1), nothing);
        assert_eq!(parse("", &ours, SIZE), nothing);
        let mut unnamed = ours.clone();
        unnamed.content.version = None;
        assert_eq!(
            parse(&unnamed.header(&BTreeMap::new()), &unnamed, SIZE),
            nothing
        );
    }

    #[test]
    fn what_is_cut_off_or_out_of_place_does_not_count() {
        let ours = resume_log("v", "a");
        let one = ResumeLog::record(1, &Digest([1; 32]));
        let head = ours.header(&BTreeMap::new());
        for cut in 0..one.len() {
            let found = parse(&format!("{head}{}", &one[..cut]), &ours, SIZE);
            assert!(found.0.is_empty());
        }
        let odd = format!(
            "{one}{head}3 {}\n-1 x\tx\n\n1\n{}",
            &one[2..],
            one.replace('\t', "\n")
        );
        assert_eq!(parse(&odd, &ours, SIZE).0, [1]);
    }

    #[test]
    fn a_header_begins_anew() {
        let (old, new) = (resume_log("v", "a"), resume_log("v", "b"));
        let one = ResumeLog::record(1, &Digest([1; 32]));
        let proven = BTreeMap::from([(2, Digest([2; 32]))]);
        let text = old.header(&BTreeMap::new()) + &one + "\n" + &new.header(&proven);
        assert_eq!(parse(&text, &new, SIZE), (vec![2], true));
    }
}
