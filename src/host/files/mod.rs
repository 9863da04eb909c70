//! Files of a host: on this machine, or there.

mod here;
mod mark;
mod stream;
mod there;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use self::mark::Mark;
use self::stream::{Mode, Stream};
use super::image_file::ImageFile;
use super::patience::Patience;
use crate::model::{Error, Kind, Result};

pub use here::Here;
pub use mark::Content;
pub use there::There;

/// The files of one host.
#[derive(Clone)]
pub enum Files {
    Here(Here),
    There(There),
}

impl Files {
    /// The same files, for somebody who waits for the host while it is away.
    pub fn patient(&self, patience: Patience) -> Self {
        match self {
            Self::Here(files) => Self::Here(files.clone()),
            Self::There(files) => Self::There(files.patient(patience)),
        }
    }

    /// `None` where there is no such file.
    pub async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        match self {
            Self::Here(files) => files.image_file(path).await,
            Self::There(files) => files.image_file(path).await,
        }
    }

    pub async fn open_reader(&self, path: &str) -> Result<FileReader> {
        Ok(FileReader(match self {
            Self::Here(files) => Reader::Here(files.open_reader(path).await?),
            Self::There(files) => {
                let (place, patience) = (files.place.clone(), files.patience.clone());
                let stream = Stream::open(place, patience, path, Mode::Read).await?;
                Reader::There(Box::new(stream))
            }
        }))
    }

    pub async fn open_writer(
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
                    content: content.clone(),
                }))
            }
        }))
    }

    pub async fn make_temp_dir(&self, under: &str) -> Result<String> {
        let made = match self {
            Self::Here(files) => files.make_temp_dir(under).await,
            Self::There(files) => files.make_temp_dir(under).await,
        };
        made.map_err(|error| error.hint("see temp_dir of the host in the settings"))
    }

    pub async fn remove_temp_dir(&self, path: &str) -> Result<()> {
        match self {
            Self::Here(files) => files.remove_temp_dir(path).await,
            Self::There(files) => files.remove_temp_dir(path).await,
        }
    }

    pub async fn remove_file(&self, path: &str) -> Result<bool> {
        match self {
            Self::Here(files) => files.remove_file(path).await,
            Self::There(files) => files.remove_file(path).await,
        }
    }

    /// Where files really are, links resolved, as far as they are there. In their order.
    pub async fn real(&self, paths: &[&str]) -> Result<Vec<PathBuf>> {
        match self {
            Self::Here(files) => files.real(paths).await,
            Self::There(files) => files.real(paths).await,
        }
    }

    pub async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Here(files) => files.read_file(path, limit).await,
            Self::There(files) => files.read_file(path, limit).await,
        }
    }

    pub async fn write_file(&self, path: &str, owner: &str, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::Here(files) => files.write_file(path, owner, bytes).await,
            Self::There(files) => files.write_file(path, owner, &bytes).await,
        }
    }

    /// Creates an empty file, mode 0644, that was not there before.
    pub async fn claim(&self, path: &str, owner: &str) -> Result<()> {
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
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        match self {
            Self::Here(files) => files.copy(from, to).await,
            Self::There(files) => files.copy(from, to).await,
        }
    }

    pub async fn free_bytes(&self, dir: &str) -> Result<u64> {
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
}

impl FileReader {
    /// Length when it was opened, in bytes.
    pub fn size_bytes(&self) -> u64 {
        match &self.0 {
            Reader::Here(reader) => reader.size_bytes(),
            Reader::There(stream) => stream.opened().size_bytes,
        }
    }

    /// Reads exactly `length` bytes at `offset`.
    ///
    /// # Errors
    /// `Failed` where the file ends before; the system's; `Unreachable` where the host stays away.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        match &self.0 {
            Reader::Here(reader) => reader.read_at(offset, length).await,
            Reader::There(stream) => stream.read(offset, length).await,
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
    content: Content,
}

impl FileWriter {
    /// How many leading bytes an earlier writer of the same content left: these need not be written again.
    pub fn done_bytes(&self) -> u64 {
        match &self.0 {
            Writer::Here(writer) => writer.done_bytes(),
            Writer::There(writer) => writer.stream.opened().done_bytes,
        }
    }

    /// Notes, beside the file, that all bytes before `done_bytes` are written.
    ///
    /// # Errors
    /// The system's.
    pub async fn mark(&self, done_bytes: u64) -> Result<()> {
        match &self.0 {
            Writer::Here(writer) => writer.mark(done_bytes).await,
            Writer::There(writer) => {
                let mark = Mark {
                    content: writer.content.clone(),
                    boot_id: writer.stream.opened().boot_id.clone(),
                    done_bytes,
                };
                let path = Mark::path(&writer.path);
                let text = serde_json::to_string(&mark).map_err(|error| {
                    Error::new(Kind::Failed, format!("cannot write {path}")).because(error)
                })?;
                writer.files.mark(&path, &text).await
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
