//! Which blocks of a file that is being written are there, kept beside it: a write that broke off is taken up where
//! it ended.
//!
//! A mark is text that is only added to: a header, and then a record for each block that was written, so that a note
//! costs a few bytes. Each header begins anew. What a crash cut off in the middle of a record does not count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use snapdeck_model::{Digest, block_count};

/// Parts headers and records, as a line's end does.
pub(super) const PART: char = '\t';
/// Longest mark that is read, in bytes: of an image of 5 TiB.
pub(super) const LONGEST: u64 = 64 << 20;

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
pub struct Recorded {
    /// Blocks, and the digests they were written with.
    pub blocks: BTreeMap<u64, Digest>,
    /// Were they written since the host was last started? Else some may have never reached its disk: they are to be
    /// hashed before they count.
    pub is_settled: bool,
}

/// The head of the records that follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    /// What is being written.
    pub content: Content,
    /// The kernel's id of the host's last start (`random/boot_id`, proc(5)).
    pub boot_id: String,
}

impl Mark {
    /// The name of the mark of `path`.
    pub(super) fn path(path: &str) -> String {
        format!("{path}.mark")
    }

    /// The header, and with it all that is there already.
    pub(super) fn header(&self, blocks: &BTreeMap<u64, Digest>) -> String {
        // A struct of texts and numbers always has a JSON.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push(PART);
        text.extend(
            blocks
                .iter()
                .map(|(block, digest)| Self::record(*block, digest)),
        );
        text
    }

    /// One record.
    pub(super) fn record(block: u64, digest: &Digest) -> String {
        format!("{block} {digest}{PART}")
    }

    /// What is there, by a mark's text, of this content in a file of `length` bytes.
    pub(super) fn read(&self, text: &[u8], length: u64) -> Recorded {
        let mut found = Recorded::default();
        let size = self.content.size_bytes;
        if self.content.version.is_none() || length != size {
            return found;
        }
        let mut ours = false;
        let text = String::from_utf8_lossy(text);
        // What stands behind the last part was cut off.
        let whole = text.rfind([PART, '\n']).and_then(|end| text.get(..end));
        for entry in whole.unwrap_or_default().split([PART, '\n']) {
            if entry.starts_with('{') {
                let head: Option<Self> = serde_json::from_str(entry).ok();
                ours = head
                    .as_ref()
                    .is_some_and(|head| head.content == self.content);
                found = Recorded {
                    is_settled: head.is_some_and(|head| head.boot_id == self.boot_id)
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

    fn mark(version: &str, boot_id: &str) -> Mark {
        Mark {
            content: Content {
                version: Some(version.into()),
                size_bytes: SIZE,
            },
            boot_id: boot_id.into(),
        }
    }

    fn read(text: &str, by: &Mark, length: u64) -> (Vec<u64>, bool) {
        let found = by.read(text.as_bytes(), length);
        (found.blocks.into_keys().collect(), found.is_settled)
    }

    #[test]
    fn counts_for_its_content_alone_and_is_not_settled_after_a_start_of_the_host() {
        let ours = mark("s3://b/k \"1\"", "a");
        let digest = Digest::of(b"x");
        let text = ours.header(&BTreeMap::new()) + &Mark::record(2, &digest);
        let text = text + &Mark::record(0, &digest);
        assert_eq!(read(&text, &ours, SIZE), (vec![0, 2], true));
        let nothing = (vec![], false);
        assert_eq!(
            read(&text, &mark("s3://b/k \"1\"", "b"), SIZE),
            (vec![0, 2], false)
        );
        assert_eq!(
            read(&text, &mark("s3://b/k \"1\"", ""), SIZE),
            (vec![0, 2], false)
        );
        assert_eq!(read(&text, &mark("s3://b/k \"2\"", "a"), SIZE).0, nothing.0);
        assert_eq!(read(&text, &ours, SIZE - 1), nothing);
        assert_eq!(read("", &ours, SIZE), nothing);
        let mut unnamed = ours.clone();
        unnamed.content.version = None;
        assert_eq!(
            read(&unnamed.header(&BTreeMap::new()), &unnamed, SIZE),
            nothing
        );
    }

    #[test]
    fn what_is_cut_off_or_out_of_place_does_not_count() {
        let ours = mark("v", "a");
        let one = Mark::record(1, &Digest::of(b"x"));
        let head = ours.header(&BTreeMap::new());
        for cut in 0..one.len() {
            let found = read(&format!("{head}{}", &one[..cut]), &ours, SIZE);
            assert!(found.0.is_empty());
        }
        let odd = format!(
            "{one}{head}3 {}\n-1 x\tx\n\n1\n{}",
            &one[2..],
            one.replace('\t', "\n")
        );
        assert_eq!(read(&odd, &ours, SIZE).0, [1]);
    }

    #[test]
    fn a_header_begins_anew() {
        let (old, new) = (mark("v", "a"), mark("v", "b"));
        let one = Mark::record(1, &Digest::of(b"x"));
        let proven = BTreeMap::from([(2, Digest::of(b"y"))]);
        let text = old.header(&BTreeMap::new()) + &one + "\n" + &new.header(&proven);
        assert_eq!(read(&text, &new, SIZE), (vec![2], true));
    }
}
