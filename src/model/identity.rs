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
