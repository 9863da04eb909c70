//! Identity of an image: which bytes a name referred to when it was read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Identity of a file: equal as long as the file was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStamp {
    /// Inode.
    pub inode: u64,
    /// Modification time, nanoseconds since the epoch.
    pub modified_ns: i128,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Time of the last change of content or metadata, nanoseconds since the epoch; no program can set it. `None` in
    /// stamps of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_ns: Option<i128>,
}

impl FileStamp {
    /// Returns whether both are of the same file with the same modification time: also after a change of its owner, but
    /// also after a write whose modification time was put back.
    pub fn is_same_file(&self, other: &Self) -> bool {
        let bare = |stamp: &Self| (stamp.inode, stamp.modified_ns, stamp.size_bytes);
        bare(self) == bare(other)
    }
}

/// Identity of a snapshot's image on a host or in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ImageIdentity {
    /// A snapshot of a host.
    File(FileStamp),
    /// An object.
    Object {
        /// Length in bytes.
        size_bytes: u64,
        /// Entity tag without quotes.
        etag: Option<String>,
        /// Time of the last write, in whole seconds.
        modified: Option<Timestamp>,
    },
}
