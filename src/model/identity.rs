//! Identity of an image: which bytes a name referred to when it was read.

use std::time::Duration;

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

    /// Returns whether the file whose stamp is `now` has not changed since; without a change time as [`Self::is_same_file`].
    pub fn is_unchanged(&self, now: &Self) -> bool {
        let is_same_change = self.changed_ns.is_none() || self.changed_ns == now.changed_ns;
        self.is_same_file(now) && is_same_change
    }

    /// Returns the time after which every write of the file gives it another stamp.
    pub fn clock_step(&self) -> Duration {
        const SECOND_NS: i128 = 1_000_000_000;
        let times = [Some(self.modified_ns), self.changed_ns];
        match times.iter().flatten().all(|time| time % SECOND_NS == 0) {
            // The file system keeps whole seconds.
            true => Duration::from_millis(2100),
            // Longer than the kernel's steps of file times.
            false => Duration::from_millis(50),
        }
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

/// Identity of a sandbox: which domain and which disks its id referred to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxIdentity {
    /// UUID of the domain; `None`: only the files of an incomplete sandbox exist.
    pub uuid: Option<String>,
    /// Whether a process had the disks open: their stamps change then.
    pub is_active: bool,
    /// Disks in the order of the domain XML.
    pub disks: Vec<DiskIdentity>,
}

/// A disk of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskIdentity {
    /// Path on the host.
    pub path: String,
    /// The file; `None`: it does not exist.
    pub file: Option<FileStamp>,
}

impl SandboxIdentity {
    /// Returns whether both are the same domain with the same files, and unchanged ones if it was shut off both times: an
    /// inode may be used again for another file.
    pub fn is_same_sandbox(&self, other: &Self) -> bool {
        let may_change = self.is_active || other.is_active;
        let is_same_disk = |(ours, theirs): (&DiskIdentity, &DiskIdentity)| {
            let inode = |disk: &DiskIdentity| disk.file.map(|file| file.inode);
            ours.path == theirs.path
                && match may_change {
                    true => inode(ours) == inode(theirs),
                    false => ours.file == theirs.file,
                }
        };
        self.uuid == other.uuid
            && self.disks.len() == other.disks.len()
            && self.disks.iter().zip(&other.disks).all(is_same_disk)
    }
}
