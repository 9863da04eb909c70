//! Readers and writers of a remote host's files.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::RwLock;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::blocks::{BlockCopy, BlockSender, CopySource};
use super::errors::explain;
use super::file_session::Mode;
use super::pull_dir::PullDir;
use super::remote::{RemoteFs, shown_path};
use super::remote_file::RemoteFile;
use super::resume_log::ResumeState;
use super::{FileReader, HostFiles, ReadFile, SentRange, Standby, WriteFile};
use crate::command::{CommandRunner, RunningCommand};
use crate::image_file::ImageFile;
use crate::reconnect::RetryPolicy;
use crate::sftp::{Access, SftpFile};
use snapdeck_model::{
    BlockSet, BufferPool, Digest, Error, FileStamp, Kind, PresignedRequest, Result,
};

/// For one read of a few MiB, while a guest may be paused.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// For opening a file.
const PREOPEN_TIMEOUT: Duration = Duration::from_secs(10);

#[async_trait]
impl ReadFile for RemoteFile {
    fn size_bytes(&self) -> u64 {
        self.open_info().size_bytes
    }

    fn is_of(&self, file: &ImageFile) -> bool {
        let (device, inode) = file.id();
        self.open_info().inode == format!("{device}:{inode}")
    }

    async fn read_at(&self, buffers: &BufferPool, offset: u64, length: usize) -> Result<Bytes> {
        self.runner().limit_rate(length as u64).await;
        self.read(buffers, offset, length).await
    }

    fn can_send(&self) -> bool {
        true
    }

    async fn send(
        &self,
        request: &PresignedRequest,
        ranges: &[Range<u64>],
        cancel: &CancellationToken,
    ) -> Result<SentRange> {
        self.send_ranges(request, ranges, cancel).await
    }

    async fn hash_ranges(
        &self,
        ranges: &[Range<u64>],
        piece_bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<Vec<Digest>> {
        self.hash_file_ranges(ranges, piece_bytes, cancel).await
    }
}

/// A file that another program still writes, opened ahead of the time it is read.
pub struct PreopenedFile {
    files: HostFiles,
    path: String,
    sftp: Option<Box<SftpReader>>,
}

impl PreopenedFile {
    pub(super) fn new(files: HostFiles, path: &str, sftp: Option<Box<SftpReader>>) -> Self {
        Self {
            files,
            path: path.to_owned(),
            sftp,
        }
    }

    /// Returns a reader of the file as it is now.
    ///
    /// # Errors
    /// As [`HostFs::open_reader`].
    pub async fn into_reader(self) -> Result<FileReader> {
        let Some(mut sftp) = self.sftp else {
            return self.files.as_fs().open_reader(&self.path).await;
        };
        let refreshed = timeout(PREOPEN_TIMEOUT, sftp.file.refresh_size()).await;
        refreshed
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| sftp.read_error(&error))?;
        Ok(sftp)
    }
}

/// A file open on its own SFTP connection, without retries after a lost connection.
pub(super) struct SftpReader {
    file: SftpFile,
    path: String,
    runner: CommandRunner,
    _ssh: RunningCommand,
    /// The session whose process on the host has the file open: one that is not the target of a link.
    session: RemoteFile,
}

impl SftpReader {
    /// Returns `None` if that fails, for example if the host has no SFTP server: the file is opened later then.
    pub(super) async fn open(runner: &CommandRunner, owner: &str, path: &str) -> Option<Box<Self>> {
        let policy = RetryPolicy::no_retry();
        let session = RemoteFile::open(runner.clone(), policy, owner, path, Mode::Read);
        let (session, ssh) = tokio::join!(session, runner.start_sftp());
        let (session, mut ssh) = (session.ok()?, ssh.ok()?);
        let (stdin, stdout) = (ssh.stdin()?, ssh.stdout()?);
        let descriptor = &session.open_info().descriptor;
        let file = SftpFile::open(stdin, stdout, descriptor, Access::Read, PREOPEN_TIMEOUT).await;
        let file = file.inspect_err(|error| tracing::debug!("{path} by SFTP: {error}"));
        Some(Box::new(Self {
            file: file.ok()?,
            path: shown_path(path),
            runner: runner.clone(),
            _ssh: ssh,
            session,
        }))
    }

    fn read_error(&self, error: &io::Error) -> Error {
        let summary = format!("cannot read {} on host {}", self.path, self.runner.host());
        Error::new(Kind::Unreachable, summary)
            .with_cause(error)
            .retryable()
    }
}

#[async_trait]
impl ReadFile for SftpReader {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    fn is_of(&self, file: &ImageFile) -> bool {
        self.session.is_of(file)
    }

    async fn read_at(&self, buffers: &BufferPool, offset: u64, length: usize) -> Result<Bytes> {
        let read = timeout(READ_TIMEOUT, self.file.read(buffers, offset, length)).await;
        read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.read_error(&error))
    }
}

/// A file open for writes, locked until it is dropped.
pub(super) struct RemoteWriter {
    pub(super) fs: RemoteFs,
    pub(super) file: RemoteFile,
    /// Held by each command that writes to the file beside the session.
    pub(super) beside: RwLock<()>,
}

impl RemoteWriter {
    /// `fs` runs commands in the directory of the pull, if the file has one.
    pub(super) fn new(fs: RemoteFs, file: RemoteFile) -> Self {
        Self {
            fs,
            file,
            beside: RwLock::default(),
        }
    }
}

#[async_trait]
impl WriteFile for RemoteWriter {
    fn resume_state(&self) -> &ResumeState {
        &self.file.open_info().resume_state
    }

    async fn record(&self, blocks: &[(u64, Digest)]) -> Result<()> {
        self.file.record(blocks).await;
        Ok(())
    }

    async fn reset_records(&self, blocks: &BTreeMap<u64, Digest>) -> Result<()> {
        self.file.reset_records(blocks).await;
        Ok(())
    }

    async fn share(&self, source: &CopySource) -> Result<bool> {
        self.share_extents(source).await
    }

    async fn copy(
        &self,
        source: &CopySource,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.copy_blocks(source, blocks, results, cancel).await
    }

    fn can_download(&self) -> bool {
        self.fs.dir.is_some()
    }

    async fn download(
        &self,
        request: &PresignedRequest,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.download_blocks(request, blocks, results, cancel).await
    }

    async fn start_standby(
        &self,
        request: &PresignedRequest,
        unattended: Duration,
        job: &str,
    ) -> Result<Standby> {
        self.start_standby_process(request, unattended, job).await
    }

    async fn recorded_blocks(&self) -> Result<BTreeMap<u64, Digest>> {
        let session = self.file.session().await?;
        let state = &session.open_info.resume_state;
        // Otherwise some may not have reached the disk.
        Ok(match state.is_same_boot {
            true => state.blocks.clone(),
            false => BTreeMap::new(),
        })
    }

    async fn image_file(&self) -> Result<ImageFile> {
        let action = format!("read {}", self.file.path());
        let summary = || format!("cannot {action} on host {}", self.fs.runner.host());
        let path = PathBuf::from(self.file.script_path());
        let mut files = self.fs.stat_files(&[path]).await?;
        match files.pop().map(|status| status.file) {
            Some(Ok(file)) => Ok(file),
            Some(Err(error)) => Err(explain(summary(), &error)),
            None => Err(Error::new(Kind::Failed, summary())),
        }
    }

    async fn hash_blocks(
        &self,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let path = self.file.script_path();
        self.fs.hash(path, None, blocks, results, cancel).await
    }

    async fn hole_blocks(&self) -> Result<BlockSet> {
        self.fs.find_holes(self.file.script_path(), None).await
    }

    fn pull_dir(&self) -> Option<&PullDir> {
        self.fs.dir.as_deref()
    }

    async fn discard(&self) -> Result<()> {
        self.file.close().await;
        self.fs.remove_pull().await
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        self.fs.runner.limit_rate(data.len() as u64).await;
        self.file.write(offset, data).await
    }

    async fn finish(&self) -> Result<()> {
        let synced = self.file.finish().await;
        if synced
            .as_ref()
            .is_err_and(|error| error.kind() != Kind::Unreachable)
        {
            // What the kernel could not write it may have dropped, and reads as written until then (fsync(2)).
            self.file.reset_records(&BTreeMap::new()).await;
        }
        synced
    }

    async fn rename_into_place(
        &self,
        path: &str,
        replaced: Option<FileStamp>,
    ) -> Result<Option<FileStamp>> {
        self.file.finish().await?;
        // The command holds the lock from now on.
        self.file.end().await;
        let inode = &self.file.open_info().inode;
        let renamed = self.fs.rename_into_place(path, replaced, inode).await;
        if renamed.is_err() {
            // The file is still that of this pull, and locked again.
            let _ = self.file.session().await;
        }
        let stamp = renamed?;
        // It is published: the next pull removes the directory.
        if let Err(error) = self.fs.remove_pull().await {
            tracing::warn!("{error}");
        }
        Ok(stamp)
    }
}
