//! Looking at one image file: its length, its stamp and its header.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use snapdeck_model::{FileStamp, ImageFacts};
use snapdeck_qcow2::{HEADER_BYTES, HeaderError, read_header};

/// What an image file is, as `stat` and its header say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Bytes it takes on the disk.
    pub allocated_bytes: u64,
    /// Equal while nobody has written the file.
    pub stamp: FileStamp,
    /// The header's facts, or why there are none.
    pub facts: Result<ImageFacts, String>,
}

/// The stamp of a file that looks so.
pub(crate) fn file_stamp(metadata: &Metadata) -> FileStamp {
    FileStamp {
        inode: metadata.ino(),
        modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
            + i128::from(metadata.mtime_nsec()),
        size_bytes: metadata.len(),
    }
}

/// Looks at the file `path`. Blocks.
///
/// # Errors
/// The system's; `InvalidInput` for what is neither a regular file nor a block device.
pub(crate) fn inspect(path: &Path) -> io::Result<ImageFile> {
    // Not blocking: a FIFO with an image's name would hang the opening for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !(metadata.is_file() || metadata.file_type().is_block_device()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ));
    }
    let facts = match parse_header(&read_prefix(&file, HEADER_BYTES)?) {
        Err(needed_bytes) => parse_header(&read_prefix(&file, needed_bytes)?),
        facts => facts,
    };
    Ok(ImageFile {
        size_bytes: metadata.len(),
        allocated_bytes: metadata.blocks() * 512,
        stamp: file_stamp(&metadata),
        facts: facts.unwrap_or_else(|_| Err(TRUNCATED_HEADER.into())),
    })
}

/// What is said of an image that is shorter than its header.
pub(crate) const TRUNCATED_HEADER: &str = "its header is cut off";

/// The facts in the bytes an image begins with, or why there are none.
///
/// # Errors
/// How many bytes it takes to tell.
pub(crate) fn parse_header(start: &[u8]) -> Result<Result<ImageFacts, String>, usize> {
    match read_header(start) {
        Ok(facts) => Ok(Ok(facts)),
        Err(HeaderError::Invalid(why)) => Ok(Err(why)),
        Err(HeaderError::Incomplete { needed_bytes }) => Err(needed_bytes),
    }
}

/// The first `length` bytes, or the whole of a shorter file.
fn read_prefix(file: &File, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
