//! The file system of a host: one trait, with a local and a remote implementation.

mod blocks;
mod checked_open;
mod checksums;
mod download;
mod errors;
mod file_session;
mod holes;
mod local;
mod local_handles;
mod local_pull;
mod pinned;
mod pull_dir;
mod remote;
mod remote_file;
mod remote_handles;
mod remote_stat;
mod resume_log;
mod session_commands;
mod standby;
mod upload;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::command::CommandRunner;
use super::image_file::ImageFile;
use super::reconnect::RetryPolicy;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{
    BlockSet, BufferPool, Digest, Error, FileStamp, Kind, PresignedRequest, ProgressCell, Result,
};
use snapdeck_ownership::OwnershipRecords;

pub use blocks::{BlockCopy, BlockSender, BlockState, CopySource};
pub(crate) use checked_open::{await_lease, is_only_name, open_no_follow};
pub use checksums::Checksum;
pub use download::{HostAnswer, is_without_answer};
pub(crate) use errors::{TEMP_DIR_HINT, suggest_other_id, system_error};
pub(crate) use local::LocalFs;
pub(crate) use local_pull::end_unattended;
pub use pull_dir::PullDir;
pub(crate) use remote::RemoteFs;
pub use remote_handles::PreopenedFile;
pub(crate) use resume_log::ResumeLog;
pub use resume_log::{Content, ResumeState};
pub use standby::Standby;
pub use upload::SentRange;

/// The file system of a host.
///
/// Files that it creates belong to the host's `owner`. The directories may belong to QEMU's user: links, also those that
/// appear meanwhile, are never followed to read or write the content of a file, and only regular files are opened; for
/// anything else the error is `Conflict`. Errors are I/O errors of the host, and `Unreachable` if the host
/// is lost or does not answer in time; methods document others.
#[async_trait]
pub trait HostFs: Send + Sync {
    /// Returns size, stamp and header of an image; `None` if it does not exist.
    ///
    /// # Errors
    /// `Unreachable` if it may not be read; `Failed` if it is neither a regular file nor a block device.
    async fn image_file(&self, path: &str) -> Result<Option<ImageFile>>;

    /// Returns whether the file exists.
    ///
    /// # Errors
    /// As [`HostFs::image_file`].
    async fn has_file(&self, path: &str) -> Result<bool> {
        Ok(self.image_file(path).await?.is_some())
    }

    /// Opens a file for reads at offsets.
    ///
    /// # Errors
    /// `NotFound` as an I/O error; `Unreachable`.
    async fn open_reader(&self, path: &str) -> Result<FileReader>;

    /// Opens a file that another program still writes, ahead of the time it is read: over SSH, opening takes long.
    async fn preopen(&self, path: &str) -> PreopenedFile;

    /// Creates a file for writes at offsets in the private directory `dir`, which is created, too; or resumes one that an
    /// earlier writer of the same content left.
    ///
    /// It belongs to this user and has the content's length, and is locked until the writer is dropped.
    ///
    /// # Errors
    /// `Conflict`, with nothing changed, if another process writes the file, and for a directory that snapdeck did not create
    /// or that another installation of it has created for another content.
    async fn open_writer(&self, dir: &str, content: &Content) -> Result<FileWriter>;

    /// Opens a snapshot to overwrite its bad blocks; it is locked against QEMU until the writer is dropped.
    ///
    /// # Errors
    /// `Conflict` if QEMU or another process has it open, or if the open file has another stamp, as in [`HostFs::hash_blocks`].
    async fn open_for_repair(&self, path: &str, stamp: FileStamp) -> Result<FileWriter>;

    /// Reads and hashes blocks of a file on the host, and sends the state of each.
    ///
    /// `stamp` was taken by name. Who may change the directory can give the name to another file in between, so the file that
    /// is open is compared with it, before and after it is read. Without one, any file is read.
    ///
    /// # Errors
    /// `Conflict` if the file has another stamp, whatever was sent; `Cancelled`; an I/O error; `Unreachable`.
    async fn hash_blocks(
        &self,
        path: &str,
        stamp: Option<FileStamp>,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()>;

    /// Returns the blocks of a file that are holes and so read as zeros, without reading it. Where holes are not certain,
    /// on a file system other than ext4, XFS and tmpfs, the set is empty. The file has `stamp`, as in [`HostFs::hash_blocks`].
    ///
    /// # Errors
    /// `Conflict` if the file has another stamp; an I/O error; `Unreachable`.
    async fn hole_blocks(&self, path: &str, stamp: Option<FileStamp>) -> Result<BlockSet>;

    /// Reads consecutive parts of a file, which have these lengths in bytes, on the host; returns the checksum of each. `file` is
    /// its path and its stamp, as in [`HostFs::hash_blocks`].
    ///
    /// # Errors
    /// `InvalidInput` for CRC64NVME on a remote host; `Conflict` if the file has another stamp; `Cancelled`; an I/O error,
    /// also if the file ends before; `Unreachable`.
    async fn part_checksums(
        &self,
        file: (&str, Option<FileStamp>),
        checksum: Checksum,
        lengths: &[u64],
        progress: &Arc<ProgressCell>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Vec<u8>>>;

    /// Removes a file; returns whether it existed.
    ///
    /// # Errors
    /// An I/O error.
    async fn remove_file(&self, path: &str) -> Result<bool> {
        self.remove_files(&[path]).await
    }

    /// Removes files in this order, so that a kill in between is unlikely; returns whether the first one
    /// existed.
    ///
    /// # Errors
    /// An I/O error.
    async fn remove_files(&self, paths: &[&str]) -> Result<bool>;

    /// Removes the directory of a writer that has nothing to resume: its publication was killed. A file in it that has its
    /// final name, too, must not be written. Does nothing to other directories.
    ///
    /// # Errors
    /// An I/O error.
    async fn remove_finished(&self, dir: &str) -> Result<()>;

    /// Returns the first `limit` bytes of a file; `None` if it does not exist.
    ///
    /// # Errors
    /// An I/O error.
    async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// As [`HostFs::read_file`]; `None` also for a file that others than root and the user of snapdeck can write.
    ///
    /// # Errors
    /// An I/O error.
    async fn read_own_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// As [`HostFs::read_file`], of a file that only root or the user of snapdeck can write: QEMU's user may own its directory.
    ///
    /// # Errors
    /// `Conflict` for any other file; an I/O error.
    async fn read_trusted(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// Writes a whole file of the user of snapdeck, mode 0644, atomically.
    ///
    /// # Errors
    /// An I/O error; the old file is unchanged then.
    async fn write_file(&self, path: &str, bytes: Vec<u8>) -> Result<()>;

    /// Creates a whole file, mode 0644, unless a file or link has that name or the directory does not exist.
    ///
    /// # Errors
    /// An I/O error.
    async fn create_file(&self, path: &str, bytes: Vec<u8>) -> Result<()>;

    /// Creates a whole file, mode 0644.
    ///
    /// # Errors
    /// `Conflict` if a file or link has that name; an I/O error.
    async fn create_new(&self, path: &str, bytes: Vec<u8>) -> Result<()>;

    /// Writes the cached data of a file to the disk (fdatasync(2)).
    ///
    /// # Errors
    /// `Cancelled`; `Unreachable` after half a minute.
    async fn flush_file(&self, path: &str, cancel: &CancellationToken) -> Result<()>;

    /// Returns the free bytes of a directory's file system.
    ///
    /// # Errors
    /// An I/O error.
    async fn free_bytes(&self, dir: &str) -> Result<u64>;

    /// Resolves the symbolic links of `paths`, as far as they exist; in their order.
    ///
    /// # Errors
    /// `Unreachable`.
    async fn canonicalize(&self, paths: &[&str]) -> Result<Vec<PathBuf>>;

    /// Has the host send a request with `curl`; `None` for this machine, which sends its own.
    ///
    /// # Errors
    /// `Unreachable`.
    async fn try_request(&self, request: &PresignedRequest) -> Result<Option<HostAnswer>>;
}

/// A file open for reads at offsets.
pub type FileReader = Box<dyn ReadFile>;

/// A file open for reads at offsets.
#[async_trait]
pub trait ReadFile: Send + Sync {
    /// Returns the length when the file was opened, in bytes.
    fn size_bytes(&self) -> u64;

    /// Returns whether it reads this very file, whatever has its name now.
    fn is_of(&self, file: &ImageFile) -> bool;

    /// Reads exactly `length` bytes at `offset` into one of `buffers`.
    ///
    /// # Errors
    /// `Failed` if the file ends before; an I/O error; `Unreachable`.
    async fn read_at(&self, buffers: &BufferPool, offset: u64, length: usize) -> Result<Bytes>;

    /// Returns whether the host itself can send ranges to a store.
    fn can_send(&self) -> bool {
        false
    }

    /// Has the host read, hash and send ranges as one part, one behind the other, by a presigned UploadPart. Its `cancel` ends it at
    /// once.
    ///
    /// # Errors
    /// `Cancelled`; `Failed` with the message of curl, or the status of the store, retryable if another attempt may succeed;
    /// `Unreachable`.
    async fn send(
        &self,
        _request: &PresignedRequest,
        _ranges: &[Range<u64>],
        _cancel: &CancellationToken,
    ) -> Result<SentRange> {
        Err(local_requests_error())
    }

    /// Has the host read ranges, one behind the other, and returns the digest of each `piece_bytes` of them.
    ///
    /// # Errors
    /// `Cancelled`; an I/O error, retryable if another attempt may succeed; `Unreachable`.
    async fn hash_ranges(
        &self,
        _ranges: &[Range<u64>],
        _piece_bytes: u64,
        _cancel: &CancellationToken,
    ) -> Result<Vec<Digest>> {
        Err(local_requests_error())
    }
}

fn local_requests_error() -> Error {
    Error::new(Kind::Failed, "this machine sends its own requests")
}

/// A file open for writes at offsets.
pub type FileWriter = Box<dyn WriteFile>;

/// A file open for writes at offsets, in any order. No other writer opens it until this one is dropped.
#[async_trait]
pub trait WriteFile: Send + Sync {
    /// Returns the blocks that earlier writers of the same content wrote.
    fn resume_state(&self) -> &ResumeState;

    /// Records in the resume log that blocks are written; those without a record are written again by a resumed pull.
    ///
    /// # Errors
    /// An I/O error; the file itself stays valid.
    async fn record(&self, blocks: &[(u64, Digest)]) -> Result<()>;

    /// Records in the resume log that exactly these blocks are written.
    ///
    /// # Errors
    /// As [`WriteFile::record`].
    async fn reset_records(&self, blocks: &BTreeMap<u64, Digest>) -> Result<()>;

    /// Makes the file, which is empty, share all extents of `source` if the file system can and `source` is unchanged;
    /// returns whether it does.
    ///
    /// All its blocks are [`BlockState::Trusted`] then. A local writer shares extents in [`WriteFile::copy`] instead.
    ///
    /// # Errors
    /// An I/O error.
    async fn share(&self, source: &CopySource) -> Result<bool>;

    /// Copies blocks of another file of the host into this one, on the host, and sends the state of each.
    ///
    /// # Errors
    /// `Cancelled`; an I/O error. Blocks whose state was sent are copied.
    async fn copy(
        &self,
        source: &CopySource,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()>;

    /// Returns whether the host itself can download blocks to the file.
    fn can_download(&self) -> bool;

    /// Has the host download blocks of an object to the same place in the file, and sends the digest of each as it is in the
    /// file then. Only those with the expected digest were downloaded.
    ///
    /// # Errors
    /// `Cancelled`; `Failed` with the message of curl, or the status of the store, retryable if another attempt may succeed;
    /// `NoSpace`; `Unreachable`. An error cancels `cancel`. Not to be dropped: the host may go on writing to the file for a moment.
    async fn download(
        &self,
        request: &PresignedRequest,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()>;

    /// Starts a process on the host that downloads the blocks without a record itself when this machine is gone, for `unattended`
    /// at most. It has the shared lock of the snapshot then, with `job` in its text.
    ///
    /// # Errors
    /// `Failed` if the host cannot download; `Unreachable`.
    async fn start_standby(
        &self,
        request: &PresignedRequest,
        unattended: Duration,
        job: &str,
    ) -> Result<Standby>;

    /// Returns the blocks that the resume log had when the file was last opened: also those that a [`Standby`] has added while the
    /// host was unreachable.
    ///
    /// # Errors
    /// As [`HostFs::open_writer`].
    async fn recorded_blocks(&self) -> Result<BTreeMap<u64, Digest>>;

    /// Returns size, stamp and header of the file as an image.
    ///
    /// # Errors
    /// As [`HostFs::image_file`].
    async fn image_file(&self) -> Result<ImageFile>;

    /// Reads and hashes blocks of the file on the host, and sends the state of each.
    ///
    /// # Errors
    /// As [`HostFs::hash_blocks`].
    async fn hash_blocks(
        &self,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()>;

    /// Returns the blocks of the file that are holes, as [`HostFs::hole_blocks`].
    ///
    /// # Errors
    /// As [`HostFs::hole_blocks`].
    async fn hole_blocks(&self) -> Result<BlockSet>;

    /// Returns the private directory of the file; `None` for a file that has its final name.
    fn pull_dir(&self) -> Option<&PullDir>;

    /// Removes the file with its directory.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`. The file stays for the next writer then.
    async fn discard(&self) -> Result<()>;

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `NoSpace` if the disk is full; an I/O error; `Unreachable`.
    async fn write_at(&self, offset: u64, data: Bytes) -> Result<()>;

    /// Flushes all written bytes to the disk; other programs may read the file after it.
    ///
    /// # Errors
    /// An I/O error: written data may be lost, and no record of the resume log is valid.
    async fn finish(&self) -> Result<()>;

    /// Gives the file mode 0644 and its final name, beside its private directory or in the directory of an organization there, in place of the file with the stamp
    /// `replaced`; without one, never over an existing file. The directory is removed.
    ///
    /// From then on the host's `owner` can change the file. Returns its stamp, if it is certain that nothing has changed it
    /// before it had this stamp.
    ///
    /// # Errors
    /// `Conflict` if `path` exists and has another stamp; an I/O error. The file keeps its name then.
    async fn rename_into_place(
        &self,
        path: &str,
        replaced: Option<FileStamp>,
    ) -> Result<Option<FileStamp>>;
}

/// The file system of a local or remote host.
#[derive(Clone)]
pub(crate) enum HostFiles {
    Local(LocalFs),
    Remote(RemoteFs),
}

impl HostFiles {
    pub(crate) fn new(
        settings: Arc<HostSettings>,
        runner: &CommandRunner,
        records: OwnershipRecords,
    ) -> Self {
        match runner.ssh() {
            None => Self::Local(LocalFs::new(settings, records)),
            Some(_) => Self::Remote(RemoteFs::new(settings, runner.clone(), records)),
        }
    }

    pub(crate) fn with_retry_policy(&self, policy: RetryPolicy) -> Self {
        match self {
            Self::Local(fs) => Self::Local(fs.clone()),
            Self::Remote(fs) => Self::Remote(fs.with_retry_policy(policy)),
        }
    }

    pub(crate) fn as_fs(&self) -> &dyn HostFs {
        match self {
            Self::Local(fs) => fs,
            Self::Remote(fs) => fs,
        }
    }
}
