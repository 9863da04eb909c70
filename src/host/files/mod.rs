//! Files of a host: on this machine, or there.

mod blocks;
mod here;
mod mark;
mod stream;
mod there;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::blocks::Told;
use self::mark::Mark;
use self::stream::{Mode, Stream};
use super::command::{Place, Running};
use super::image_file::ImageFile;
use super::patience::Patience;
use super::sftp::{Access, SftpFile};
use snapdeck_model::{Buffers, Digest, Error, Kind, Result};

pub use blocks::{Origin, Piece, Seen};
pub(crate) use here::Here;
pub use mark::Content;
pub(crate) use mark::Recorded;
pub(crate) use there::There;

/// For opening a file ahead, and for a word about it.
const AHEAD: Duration = Duration::from_secs(10);

/// The files of one host.
#[derive(Clone)]
pub(crate) enum Files {
    Here(Here),
    There(There),
}

impl Files {
    /// The same files, for somebody who waits for the host while it is away.
    pub(crate) fn patient(&self, patience: Patience) -> Self {
        match self {
            Self::Here(files) => Self::Here(files.clone()),
            Self::There(files) => Self::There(files.patient(patience)),
        }
    }

    /// `None` where there is no such file.
    pub(crate) async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        match self {
            Self::Here(files) => files.image_file(path).await,
            Self::There(files) => files.image_file(path).await,
        }
    }

    pub(crate) async fn open_reader(&self, path: &str) -> Result<FileReader> {
        Ok(FileReader(match self {
            Self::Here(files) => Reader::Here(files.open_reader(path).await?),
            Self::There(files) => {
                let (place, patience) = (files.place.clone(), files.patience.clone());
                let stream = Stream::open(place, patience, path, Mode::Read).await?;
                Reader::There(Box::new(stream))
            }
        }))
    }

    pub(crate) async fn open_ahead(&self, path: &str) -> Ahead {
        Ahead {
            sftp: match self {
                Self::Here(_) => None,
                Self::There(files) => Sftp::open(&files.place, path).await,
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
            Self::Here(files) => Writer::Here(files.open_writer(path, owner, content).await?),
            Self::There(files) => {
                let (place, patience) = (files.place.clone(), files.patience.clone());
                let mode = Mode::Write {
                    owner: owner.to_owned(),
                    content: content.clone(),
                };
                Writer::There(Box::new(WriterThere {
                    stream: Stream::open(place, patience, path, mode).await?,
                    files: files.clone(),
                    path: path.to_owned(),
                }))
            }
        }))
    }

    pub(crate) async fn open_mender(&self, path: &str) -> Result<FileWriter> {
        Ok(FileWriter(match self {
            Self::Here(files) => Writer::Here(files.open_mender(path).await?),
            Self::There(files) => {
                let (place, patience) = (files.place.clone(), files.patience.clone());
                Writer::There(Box::new(WriterThere {
                    stream: Stream::open(place, patience, path, Mode::Mend).await?,
                    files: files.clone(),
                    path: path.to_owned(),
                }))
            }
        }))
    }

    pub(crate) async fn hash(
        &self,
        path: &str,
        pieces: &[Piece],
        told: &Told,
        cancel: &CancellationToken,
    ) -> Result<()> {
        match self {
            Self::Here(files) => files.hash(path, pieces, told, cancel).await,
            Self::There(files) => files.hash(path, pieces, told, cancel).await,
        }
    }

    pub(crate) async fn make_temp_dir(&self, under: &str) -> Result<String> {
        let made = match self {
            Self::Here(files) => files.make_temp_dir(under).await,
            Self::There(files) => files.make_temp_dir(under).await,
        };
        made.map_err(|error| error.hint("see temp_dir of the host in the settings"))
    }

    /// Makes a directory for a backup of a sandbox's disk, which QEMU may write to.
    pub(crate) async fn make_backup_dir(
        &self,
        under: &str,
        id: &str,
        owner: &str,
    ) -> Result<String> {
        match self {
            Self::Here(files) => files.make_backup_dir(under, id, owner).await,
            Self::There(files) => files.make_backup_dir(under, id, owner).await,
        }
    }

    /// Names of the directories that are or were for backups.
    pub(crate) async fn backup_dirs(&self, under: &str) -> Result<Vec<String>> {
        match self {
            Self::Here(files) => files.backup_dirs(under).await,
            Self::There(files) => files.backup_dirs(under).await,
        }
    }

    pub(crate) async fn remove_temp_dir(&self, path: &str) -> Result<()> {
        match self {
            Self::Here(files) => files.remove_temp_dir(path).await,
            Self::There(files) => files.remove_temp_dir(path).await,
        }
    }

    pub(crate) async fn remove_file(&self, path: &str) -> Result<bool> {
        match self {
            Self::Here(files) => files.remove_file(path).await,
            Self::There(files) => files.remove_file(path).await,
        }
    }

    /// Where files really are, links resolved, as far as they are there. In their order.
    pub(crate) async fn real(&self, paths: &[&str]) -> Result<Vec<PathBuf>> {
        match self {
            Self::Here(files) => files.real(paths).await,
            Self::There(files) => files.real(paths).await,
        }
    }

    pub(crate) async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Here(files) => files.read_file(path, limit).await,
            Self::There(files) => files.read_file(path, limit).await,
        }
    }

    pub(crate) async fn write_file(&self, path: &str, owner: &str, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::Here(files) => files.write_file(path, owner, bytes).await,
            Self::There(files) => files.write_file(path, owner, &bytes).await,
        }
    }

    /// Creates an empty file, mode 0644, that was not there before.
    pub(crate) async fn claim(&self, path: &str, owner: &str) -> Result<()> {
        match self {
            Self::Here(files) => files.claim(path, owner).await,
            Self::There(files) => files.claim(path, owner).await,
        }
        .map_err(|error| match error.kind() {
            Kind::Refused => error.hint("choose another id"),
            _ => error,
        })
    }

    /// Copies the bytes of a file into another that is there.
    pub(crate) async fn copy(&self, from: &str, to: &str) -> Result<()> {
        match self {
            Self::Here(files) => files.copy(from, to).await,
            Self::There(files) => files.copy(from, to).await,
        }
    }

    pub(crate) async fn free_bytes(&self, dir: &str) -> Result<u64> {
        match self {
            Self::Here(files) => files.free_bytes(dir).await,
            Self::There(files) => files.free_bytes(dir).await,
        }
    }
}

/// Reads a file of the host at offsets.
pub struct FileReader(Reader);

enum Reader {
    Here(here::Reader),
    There(Box<Stream>),
    Ahead(Box<Sftp>),
}

/// A file of a remote host, by a connection of its own. It is not made anew.
struct Sftp {
    file: SftpFile,
    path: String,
    place: Place,
    _ssh: Running,
}

/// A file that somebody else writes, opened ahead of the moment in which it is to be read: opening takes long over SSH.
pub struct Ahead {
    files: Files,
    path: String,
    sftp: Option<Box<Sftp>>,
}

impl Ahead {
    /// The file as it is now.
    ///
    /// # Errors
    /// As [`Host::open_reader`](crate::Host::open_reader).
    pub async fn now(self) -> Result<FileReader> {
        let Some(mut sftp) = self.sftp else {
            return self.files.open_reader(&self.path).await;
        };
        let looked = timeout(AHEAD, sftp.file.look_again()).await;
        looked
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| sftp.explain(&error))?;
        Ok(FileReader(Reader::Ahead(sftp)))
    }
}

impl Sftp {
    /// `None` where the host has none: there are other ways.
    async fn open(place: &Place, path: &str) -> Option<Box<Self>> {
        let mut ssh = place.sftp().await.ok()?;
        let (stdin, stdout) = (ssh.stdin()?, ssh.stdout()?);
        let file = SftpFile::open(stdin, stdout, path, Access::Read, AHEAD).await;
        let file = file.inspect_err(|error| tracing::debug!("{path} by SFTP: {error}"));
        Some(Box::new(Self {
            file: file.ok()?,
            path: path.to_owned(),
            place: place.clone(),
            _ssh: ssh,
        }))
    }

    fn explain(&self, error: &io::Error) -> Error {
        let what = format!("cannot read {} on host {}", self.path, self.place.host());
        Error::new(Kind::Unreachable, what)
            .because(error)
            .worth_retrying()
    }
}

impl FileReader {
    /// Length when it was opened, in bytes.
    pub fn size_bytes(&self) -> u64 {
        match &self.0 {
            Reader::Here(reader) => reader.size_bytes(),
            Reader::There(stream) => stream.opened().size_bytes,
            Reader::Ahead(sftp) => sftp.file.size_bytes(),
        }
    }

    /// Reads exactly `length` bytes at `offset`, to one of `buffers`.
    ///
    /// # Errors
    /// `Failed` where the file ends before; the system's; `Unreachable` where the host stays away.
    pub async fn read_at(&self, buffers: &Buffers, offset: u64, length: usize) -> Result<Bytes> {
        match &self.0 {
            Reader::Here(reader) => reader.read_at(buffers, offset, length).await,
            Reader::There(stream) => stream.read(buffers, offset, length).await,
            Reader::Ahead(sftp) => {
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
    Here(here::Writer),
    There(Box<WriterThere>),
}

struct WriterThere {
    stream: Stream,
    files: There,
    path: String,
}

impl FileWriter {
    /// Blocks that an earlier writer of the same content left: these need not be written again.
    pub fn recorded(&self) -> &Recorded {
        match &self.0 {
            Writer::Here(writer) => writer.recorded(),
            Writer::There(writer) => &writer.stream.opened().recorded,
        }
    }

    /// Notes, beside the file, that a block is written: what is not noted is written again after a break.
    ///
    /// # Errors
    /// The system's. The file is no worse for it.
    pub async fn record(&self, block: u64, digest: &Digest) -> Result<()> {
        match &self.0 {
            Writer::Here(writer) => writer.record(block, digest).await,
            Writer::There(writer) => {
                writer.stream.record(block, digest).await;
                Ok(())
            }
        }
    }

    /// Notes, beside the file, that these blocks are written, and no others.
    ///
    /// # Errors
    /// As [`FileWriter::record`].
    pub async fn record_anew(&self, blocks: &BTreeMap<u64, Digest>) -> Result<()> {
        match &self.0 {
            Writer::Here(writer) => writer.record_anew(blocks).await,
            Writer::There(writer) => {
                writer.stream.record_anew(blocks).await;
                Ok(())
            }
        }
    }

    /// Makes a file that nobody has written to share all extents of `origin`, where that is the cheapest way to its
    /// blocks; [`Seen::Known`] is then true of all of them. Is it so?
    ///
    /// # Errors
    /// The host's.
    pub async fn share(&self, origin: &Origin) -> Result<bool> {
        match &self.0 {
            // Block by block.
            Writer::Here(_) => Ok(false),
            Writer::There(writer) => {
                let size = writer.stream.opened().size_bytes;
                writer.files.clone_whole(origin, &writer.path, size).await
            }
        }
    }

    /// Copies blocks of another file of the host into this one, on the host; each is told as it is done.
    ///
    /// # Errors
    /// The host's; `Cancelled`. What was told is done.
    pub async fn copy(
        &self,
        origin: &Origin,
        pieces: &[Piece],
        told: &Told,
        cancel: &CancellationToken,
    ) -> Result<()> {
        match &self.0 {
            Writer::Here(writer) => writer.copy(origin, pieces, told, cancel).await,
            Writer::There(writer) => {
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
            Writer::Here(writer) => writer.discard().await,
            Writer::There(writer) => {
                writer.stream.close().await;
                writer.files.remove_file(&Mark::path(&writer.path)).await?;
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
            Writer::Here(writer) => writer.write_at(offset, data).await,
            Writer::There(writer) => writer.stream.write(offset, data).await,
        }
    }

    /// Everything written is on the disk when this returns, and other programs may read it.
    ///
    /// # Errors
    /// The system's; what was written is then not to be relied on.
    pub async fn finish(&self) -> Result<()> {
        match &self.0 {
            Writer::Here(writer) => writer.finish().await,
            Writer::There(writer) => writer.stream.finish().await,
        }
    }

    /// Gives the file its final name and mode 0644; with `replace` false never over an existing file.
    ///
    /// # Errors
    /// `Refused` where `path` exists and `replace` is false; the system's. The file keeps its name then.
    pub async fn land(&self, path: &str, replace: bool) -> Result<()> {
        match &self.0 {
            Writer::Here(writer) => writer.land(path, replace).await,
            Writer::There(writer) => {
                let WriterThere {
                    stream,
                    files,
                    path: from,
                    ..
                } = &**writer;
                stream.finish().await?;
                files.remove_file(&Mark::path(from)).await?;
                files
                    .land(from, path, replace, &stream.opened().inode)
                    .await
            }
        }
    }
}

/// The error behind `said`, the words of a program that ran with `LC_ALL=C`.
pub(crate) fn system_error(what: String, said: &str) -> Error {
    explain(what, &there::system(said))
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
            Kind::Refused,
            Some("choose another name, or pass --overwrite to replace it"),
        ),
        WouldBlock => (
            Kind::Refused,
            Some("wait until the other pull is over, and try again"),
        ),
        _ => (Kind::Failed, None),
    };
    let error = Error::new(kind, what).because(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
