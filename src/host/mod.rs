//! One libvirt host: its domains, its files, and commands on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::settings::HostSettings;
use crate::model::{
    HostName, ImageFacts, ProgressCell, Result, Sandbox, SandboxId, SandboxState, Snapshot,
};

/// A host. Cheap to clone; opening nothing until it is used.
#[derive(Clone)]
pub struct Host {}

/// What a host has, from one look at libvirt and its two directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Sandboxes by id.
    pub sandboxes: Vec<Sandbox>,
    /// Snapshots by name.
    pub snapshots: Vec<Snapshot>,
}

/// What an image file is, as `stat` and its header say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Inode and modification time (nanoseconds): equal while nobody has written it.
    pub stamp: FileStamp,
    /// The header's facts, or why there are none.
    pub facts: Result<ImageFacts, String>,
}

/// Tells whether a file is still the one seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Inode.
    pub inode: u64,
    /// Modification time, nanoseconds since the epoch.
    pub modified_ns: i128,
    /// Length in bytes.
    pub size_bytes: u64,
}

impl Host {
    /// A handle for `settings`. No I/O.
    ///
    /// # Errors
    /// `BadInput` where the URI is none this version can serve.
    pub fn new(settings: HostSettings) -> Result<Self> {
        todo!()
    }
    pub fn name(&self) -> &HostName {
        todo!()
    }
    pub fn settings(&self) -> &HostSettings {
        todo!()
    }
    /// Opens libvirt and looks at everything: a handful of calls and commands, whatever the number of files.
    pub async fn survey(&self) -> Result<Survey> {
        todo!()
    }
    /// A counter that moves whenever libvirt told of a change or the connection came or went.
    pub fn changes(&self) -> watch::Receiver<u64> {
        todo!()
    }
    /// State of one sandbox, asked now. NotFound where there is no such sandbox of ours.
    pub async fn sandbox_state(&self, id: &SandboxId) -> Result<SandboxState> {
        todo!()
    }
    /// Stops the guest's CPUs.
    pub async fn suspend(&self, id: &SandboxId) -> Result<()> {
        todo!()
    }
    /// Lets a paused guest go on.
    pub async fn resume(&self, id: &SandboxId) -> Result<()> {
        todo!()
    }

    // --- files: paths are absolute, on the host ---
    /// Path of a snapshot.
    pub fn snapshot_path(&self, name: &crate::model::SnapshotName) -> String {
        todo!()
    }
    /// `None` where there is no such file.
    pub async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        todo!()
    }
    /// Reads `length` bytes at `offset`.
    pub async fn open_reader(&self, path: &str) -> Result<FileReader> {
        todo!()
    }
    /// Creates (or truncates) a file for positioned writes, mode 0600.
    pub async fn open_writer(&self, path: &str) -> Result<FileWriter> {
        todo!()
    }
    /// A fresh private directory (0700) under temp_dir.
    pub async fn make_temp_dir(&self) -> Result<String> {
        todo!()
    }
    /// Removes a directory made by make_temp_dir, with what is in it.
    pub async fn remove_temp_dir(&self, path: &str) -> Result<()> {
        todo!()
    }
    /// Removes a file; a missing one is fine (returns whether it was there).
    pub async fn remove_file(&self, path: &str) -> Result<bool> {
        todo!()
    }
    /// Bytes free for us at the directory.
    pub async fn free_bytes(&self, dir: &str) -> Result<u64> {
        todo!()
    }
    /// Owner, mode 0644, fsync, rename to `path`, fsync of the directory. With `replace` false never over an existing file (Refused).
    pub async fn land(&self, partial: &str, path: &str, replace: bool) -> Result<()> {
        todo!()
    }

    // --- qemu-img ---
    /// Bytes a flattened copy may take (`qemu-img measure`).
    pub async fn measure(&self, disk: &str, shared: bool) -> Result<u64> {
        todo!()
    }
    /// Flattens `disk` into `target`; `shared`: while QEMU holds the disk. Killed when cancelled.
    pub async fn convert(
        &self,
        disk: &str,
        target: &str,
        shared: bool,
        guard: Option<&mut Guard>,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()> {
        todo!()
    }
    /// `qemu-img check`: Ok(None) sound, Ok(Some(warning)) leaks only (exit 3), `Damaged` else.
    pub async fn check(&self, path: &str, cancel: &CancellationToken) -> Result<Option<String>> {
        todo!()
    }

    /// Starts a guard on the host.
    pub async fn guard(&self, resume: Option<&SandboxId>, temp_dir: &str) -> Result<Guard> {
        todo!()
    }
}

/// Reads a file of the host at offsets.
pub struct FileReader {}
impl FileReader {
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<bytes::Bytes> {
        todo!()
    }
}
/// Writes a file of the host at offsets, in any order.
pub struct FileWriter {}
impl FileWriter {
    pub async fn write_at(&self, offset: u64, data: bytes::Bytes) -> Result<()> {
        todo!()
    }
    /// Everything is on the disk (fsync).
    pub async fn finish(self) -> Result<()> {
        todo!()
    }
}

/// A small process on the host that outlives us: if we die before `release`, it ends our child, resumes
/// the sandbox and removes the temporary directory.
pub struct Guard {}
impl Guard {
    pub async fn release(self) -> Result<()> {
        todo!()
    }
}
