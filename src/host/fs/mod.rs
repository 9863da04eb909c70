//! Files of a host: on this machine, or there.

mod blocks;
mod local;
mod remote;
mod remote_file;
mod resume_log;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::blocks::BlockSender;
use self::remote_file::{Mode, RemoteFile};
use self::resume_log::ResumeLog;
use super::command::{CommandRunner, RunningCommand};
use super::image_file::ImageFile;
use super::reconnect::RetryPolicy;
use super::sftp::{Access, SftpFile};
use snapdeck_model::{BufferPool, Digest, Error, Kind, Result};

pub use blocks::{BlockCopy, BlockState, CopySource};
pub(crate) use local::LocalFs;
pub(crate) use remote::RemoteFs;
pub use resume_log::Content;
pub(crate) use resume_log::ResumeState;

/// For opening a file ahead, and for a word about it.
const PREOPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The files of one host.
#[derive(Clone)]
pub(crate) enum HostFs {
    Local(LocalFs),
    Remote(RemoteFs),
}

impl HostFs {
    /// The same files, for somebody who waits for the host while it is away.
    pub(crate) fn with_retry_policy(&self, patience: RetryPolicy) -> Self {
        match self {
            Self::Local(files) => Self::Local(files.clone()),
            Self::Remote(files) => Self::Remote(files.with_retry_policy(patience)),
        }
    }

    /// `None` where there is no such file.
    pub(crate) async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        match self {
            Self::Local(files) => files.image_file(path).await,
            Self::Remote(files) => files.image_file(path).await,
        }
    }

    pub(crate) async fn open_reader(&self, path: &str) -> Result<FileReader> {
        Ok(FileReader(match self {
            Self::Local(files) => Reader::Local(files.open_reader(path).await?),
            Self::Remote(files) => {
                let (place, patience) = (files.runner.clone(), files.retry_policy.clone());
                let stream = RemoteFile::open(place, patience, path, Mode::Read).await?;
                Reader::Remote(Box::new(stream))
            }
        }))
    }

    pub(crate) async fn preopen(&self, path: &str) -> PreopenedFile {
        PreopenedFile {
            sftp: match self {
                Self::Local(_) => None,
                Self::Remote(files) => Sftp::open(&files.runner, path).await,
            },
            files: self.clone(),
            path: path.to_owned(),
        }
    }

    pub(crate) async fn open_writer(
        &self,
        path: &str,
        owner: &str,
        content: &Content,
    ) -> Result<FileWriter> {
        Ok(FileWriter(match self {
            Self::Local(files) => Writer::Local(files.open_writer(path, owner, content).await?),
            Self::Remote(files) => {
                let (place, patience) = (files.runner.clone(), files.retry_policy.clone());
                let mode = Mode::Write {
                    owner: owner.to_owned(),
                    content: content.clone(),
                };
                Writer::Remote(Box::new(RemoteWriter {
                    file: RemoteFile::open(place, patience, path, mode).await?,
                    files: files.clone(),
                    path: path.to_owned(),
                }))
            }
        }))
    }

    pub(crate) async fn open_for_repair(&self, path: &str) -> Result<FileWriter> {
        Ok(FileWriter(match self {
            Self::Local(files) => Writer::Local(files.open_for_repair(path).await?),
            Self::Remote(files) => {
                let (place, patience) = (files.runner.clone(), files.retry_policy.clone());
                Writer::Remote(Box::new(RemoteWriter {
                    file: RemoteFile::open(place, patience, path, Mode::Repair).await?,
                    files: files.clone(),
                    path: path.to_owned(),
                }))
            }
        }))
    }

    pub(crate) async fn hash(
        &self,
        path: &str,
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        match self {
            Self::Local(files) => files.hash(path, pieces, told, cancel).await,
            Self::Remote(files) => files.hash(path, pieces, told, cancel).await,
        }
    }

    pub(crate) async fn make_temp_dir(&self, under: &str) -> Result<String> {
        let made = match self {
            Self::Local(files) => files.make_temp_dir(under).await,
            Self::Remote(files) => files.make_temp_dir(under).await,
        };
        made.map_err(|error| error.hint("check temp_dir of the host in the settings"))
    }

    /// Makes a directory for a backup of a sandbox's disk, which QEMU may write to.
    pub(crate) async fn make_backup_dir(
        &self,
        under: &str,
        id: &str,
        owner: &str,
    ) -> Result<String> {
        match self {
            Self::Local(files) => files.make_backup_dir(under, id, owner).await,
            Self::Remote(files) => files.make_backup_dir(under, id, owner).await,
        }
    }

    /// Names of the directories that are or were for backups.
    pub(crate) async fn backup_dirs(&self, under: &str) -> Result<Vec<String>> {
        match self {
            Self::Local(files) => files.backup_dirs(under).await,
            Self::Remote(files) => files.backup_dirs(under).await,
        }
    }

    pub(crate) async fn remove_temp_dir(&self, path: &str) -> Result<()> {
        match self {
            Self::Local(files) => files.remove_temp_dir(path).await,
            Self::Remote(files) => files.remove_temp_dir(path).await,
        }
    }

    pub(crate) async fn remove_file(&self, path: &str) -> Result<bool> {
        match self {
            Self::Local(files) => files.remove_file(path).await,
            Self::Remote(files) => files.remove_file(path).await,
        }
    }

    /// Where files really are, links resolved, as far as they are there. In their order.
    pub(crate) async fn canonicalize(&self, paths: &[&str]) -> Result<Vec<PathBuf>> {
        match self {
            Self::Local(files) => files.canonicalize(paths).await,
            Self::Remote(files) => files.canonicalize(paths).await,
        }
    }

    pub(crate) async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Local(files) => files.read_file(path, limit).await,
            Self::Remote(files) => files.read_file(path, limit).await,
        }
    }

    pub(crate) async fn write_file(&self, path: &str, owner: &str, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::Local(files) => files.write_file(path, owner, bytes).await,
            Self::Remote(files) => files.write_file(path, owner, &bytes).await,
        }
    }

    /// Creates an empty file, mode 0644, that was not there before.
    pub(crate) async fn create_exclusive(&self, path: &str, owner: &str) -> Result<()> {
        match self {
            Self::Local(files) => files.create_exclusive(path, owner).await,
            Self::Remote(files) => files.create_exclusive(path, owner).await,
        }
        .map_err(|error| match error.kind() {
            Kind::Conflict => error.hint("choose another id"),
            _ => error,
        })
    }

    /// Copies the bytes of a file into another that is there.
    pub(crate) async fn copy(&self, from: &str, to: &str) -> Result<()> {
        match self {
            Self::Local(files) => files.copy(from, to).await,
            Self::Remote(files) => files.copy(from, to).await,
        }
    }

    pub(crate) async fn free_bytes(&self, dir: &str) -> Result<u64> {
        match self {
            Self::Local(files) => files.free_bytes(dir).await,
            Self::Remote(files) => files.free_bytes(dir).await,
        }
    }
}

/// Reads a file of the host at offsets.
pub struct FileReader(Reader);

enum Reader {
    Local(local::LocalReader),
    Remote(Box<RemoteFile>),
    Preopened(Box<Sftp>),
}

/// A file of a remote host, by a connection of its own. It is not made anew.
struct Sftp {
    file: SftpFile,
    path: String,
    runner: CommandRunner,
    _ssh: RunningCommand,
}

/// A file that somebody else writes, opened ahead of the moment in which it is to be read: opening takes long over SSH.
pub struct PreopenedFile {
    files: HostFs,
    path: String,
    sftp: Option<Box<Sftp>>,
}

impl PreopenedFile {
    /// The file as it is now.
    ///
    /// # Errors
    /// As [`Host::open_reader`](crate::Host::open_reader).
    pub async fn into_reader(self) -> Result<FileReader> {
        let Some(mut sftp) = self.sftp else {
            return self.files.open_reader(&self.path).await;
        };
        let looked = timeout(PREOPEN_TIMEOUT, sftp.file.refresh_size()).await;
        looked
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| sftp.explain(&error))?;
        Ok(FileReader(Reader::Preopened(sftp)))
    }
}

impl Sftp {
    /// `None` where the host has none: there are other ways.
    async fn open(place: &CommandRunner, path: &str) -> Option<Box<Self>> {
        let mut ssh = place.start_sftp().await.ok()?;
        let (stdin, stdout) = (ssh.stdin()?, ssh.stdout()?);
        let file = SftpFile::open(stdin, stdout, path, Access::Read, PREOPEN_TIMEOUT).await;
        let file = file.inspect_err(|error| tracing::debug!("{path} by SFTP: {error}"));
        Some(Box::new(Self {
            file: file.ok()?,
            path: path.to_owned(),
            runner: place.clone(),
            _ssh: ssh,
        }))
    }

    fn explain(&self, error: &io::Error) -> Error {
        let what = format!("cannot read {} on host {}", self.path, self.runner.host());
        Error::new(Kind::Unreachable, what)
            .with_cause(error)
            .retryable()
    }
}

impl FileReader {
    /// Length when it was opened, in bytes.
    pub fn size_bytes(&self) -> u64 {
        match &self.0 {
            Reader::Local(reader) => reader.size_bytes(),
            Reader::Remote(stream) => stream.open_info().size_bytes,
            Reader::Preopened(sftp) => sftp.file.size_bytes(),
        }
    }

    /// Reads exactly `length` bytes at `offset`, to one of `buffers`.
    ///
    /// # Errors
    /// `Failed` where the file ends before; the system's; `Unreachable` where the host stays away.
    pub async fn read_at(&self, buffers: &BufferPool, offset: u64, length: usize) -> Result<Bytes> {
        match &self.0 {
            Reader::Local(reader) => reader.read_at(buffers, offset, length).await,
            Reader::Remote(stream) => stream.read(buffers, offset, length).await,
            Reader::Preopened(sftp) => {
                let read = sftp.file.read(buffers, offset, length).await;
                read.map_err(|error| sftp.explain(&error))
            }
        }
    }
}

/// Writes a file of the host at offsets, in any order. Nobody else's [`FileWriter`] opens the same file until
/// this one is dropped.
pub struct FileWriter(Writer);

enum Writer {
    Local(local::LocalWriter),
    Remote(Box<RemoteWriter>),
}

struct RemoteWriter {
    file: RemoteFile,
    files: RemoteFs,
    path: String,
}

impl FileWriter {
    /// Blocks that an earlier writer of the same content left: these need not be written again.
    pub fn resume_state(&self) -> &ResumeState {
        match &self.0 {
            Writer::Local(writer) => writer.resume_state(),
            Writer::Remote(writer) => &writer.file.open_info().resume_state,
        }
    }

    /// Notes, beside the file, that a block is written: what is not noted is written again after a break.
    ///
    /// # Errors
    /// The system's. The file is no worse for it.
    pub async fn record(&self, block: u64, digest: &Digest) -> Result<()> {
        match &self.0 {
            Writer::Local(writer) => writer.record(block, digest).await,
            Writer::Remote(writer) => {
                writer.file.record(block, digest).await;
                Ok(())
            }
        }
    }

    /// Notes, beside the file, that these blocks are written, and no others.
    ///
    /// # Errors
    /// As [`FileWriter::record`].
    pub async fn reset_records(&self, blocks: &BTreeMap<u64, Digest>) -> Result<()> {
        match &self.0 {
            Writer::Local(writer) => writer.reset_records(blocks).await,
            Writer::Remote(writer) => {
                writer.file.reset_records(blocks).await;
                Ok(())
            }
        }
    }

    /// Makes a file that nobody has written to share all extents of `origin`, where that is the cheapest way to its
    /// blocks; [`Seen::Known`] is then true of all of them. Is it so?
    ///
    /// # Errors
    /// The host's.
    pub async fn share(&self, origin: &CopySource) -> Result<bool> {
        match &self.0 {
            // Block by block.
            Writer::Local(_) => Ok(false),
            Writer::Remote(writer) => {
                let size = writer.file.open_info().size_bytes;
                writer.files.clone_file(origin, &writer.path, size).await
            }
        }
    }

    /// Copies blocks of another file of the host into this one, on the host; each is told as it is done.
    ///
    /// # Errors
    /// The host's; `Cancelled`. What was told is done.
    pub async fn copy(
        &self,
        origin: &CopySource,
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        match &self.0 {
            Writer::Local(writer) => writer.copy(origin, pieces, told, cancel).await,
            Writer::Remote(writer) => {
                let (files, path) = (&writer.files, &writer.path);
                files.copy_blocks(origin, path, pieces, told, cancel).await
            }
        }
    }

    /// Removes the file and its mark.
    ///
    /// # Errors
    /// The system's; `Unreachable`: then both stay, for the next writer.
    pub async fn discard(&self) -> Result<()> {
        match &self.0 {
            Writer::Local(writer) => writer.discard().await,
            Writer::Remote(writer) => {
                writer.file.close().await;
                writer
                    .files
                    .remove_file(&ResumeLog::path(&writer.path))
                    .await?;
                writer.files.remove_file(&writer.path).await.map(|_| ())
            }
        }
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `NoSpace` where the disk is full; the system's; `Unreachable` where the host stays away.
    pub async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        match &self.0 {
            Writer::Local(writer) => writer.write_at(offset, data).await,
            Writer::Remote(writer) => writer.file.write(offset, data).await,
        }
    }

    /// Everything written is on the disk when this returns, and other programs may read it.
    ///
    /// # Errors
    /// The system's; what was written is then not to be relied on.
    pub async fn finish(&self) -> Result<()> {
        match &self.0 {
            Writer::Local(writer) => writer.finish().await,
            Writer::Remote(writer) => writer.file.finish().await,
        }
    }

    /// Gives the file its final name and mode 0644; with `replace` false never over an existing file.
    ///
    /// # Errors
    /// `Unsupported` where `path` exists and `replace` is false; the system's. The file keeps its name then.
    pub async fn rename_into_place(&self, path: &str, replace: bool) -> Result<()> {
        match &self.0 {
            Writer::Local(writer) => writer.rename_into_place(path, replace).await,
            Writer::Remote(writer) => {
                let RemoteWriter {
                    file: stream,
                    files,
                    path: from,
                    ..
                } = &**writer;
                stream.finish().await?;
                files.remove_file(&ResumeLog::path(from)).await?;
                files
                    .rename_into_place(from, path, replace, &stream.open_info().inode)
                    .await
            }
        }
    }
}

/// The error behind `said`, the words of a program that ran with `LC_ALL=C`.
pub(crate) fn system_error(what: String, said: &str) -> Error {
    explain(what, &remote::parse_system_error(said))
}

fn explain(what: String, error: &io::Error) -> Error {
    use io::ErrorKind::*;
    let (kind, hint) = match error.kind() {
        StorageFull | QuotaExceeded => (Kind::NoSpace, Some("free space there")),
        PermissionDenied => (
            Kind::Unreachable,
            Some("run snapdeck as root or as a user with access to it"),
        ),
        AlreadyExists => (
            Kind::Conflict,
            Some("choose another name, or pass --overwrite to replace it"),
        ),
        WouldBlock => (
            Kind::Conflict,
            Some("wait until the other pull has finished, then retry"),
        ),
        _ => (Kind::Failed, None),
    };
    let error = Error::new(kind, what).with_cause(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
