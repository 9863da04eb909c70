//! Metadata of an image file: its length, stamp and header.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use snapdeck_model::{FileStamp, ImageFacts};
use snapdeck_qcow2::{HEADER_BYTES, HeaderError, read_header};

/// The metadata of an image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Bytes allocated on the disk.
    pub allocated_bytes: u64,
    /// Unchanged as long as the file is not written.
    pub stamp: FileStamp,
    /// The facts in its header, or why that is not valid.
    pub facts: Result<ImageFacts, String>,
}

pub(crate) fn file_stamp(metadata: &Metadata) -> FileStamp {
    FileStamp {
        inode: metadata.ino(),
        modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
            + i128::from(metadata.mtime_nsec()),
        size_bytes: metadata.len(),
        changed_ns: Some(
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        ),
    }
}

/// Cause of the error for a path that is neither a regular file nor a block device.
pub(crate) const NOT_A_FILE: &str = "it is not a regular file";
/// Cause of missing facts of an image that is shorter than its header.
pub(crate) const TRUNCATED_HEADER: &str = "its header is truncated";

/// Reads the metadata of the file `path`. Blocks.
///
/// # Errors
/// An I/O error; `InvalidInput` if it is neither a regular file nor a block device.
pub(crate) fn inspect(path: &Path) -> io::Result<ImageFile> {
    // Opening a FIFO would block without this flag.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !(metadata.is_file() || metadata.file_type().is_block_device()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, NOT_A_FILE));
    }
    let facts = match parse_header(&read_prefix(&mut file, HEADER_BYTES)?) {
        Err(needed_bytes) => parse_header(&read_prefix(&mut file, needed_bytes)?),
        facts => facts,
    };
    Ok(ImageFile {
        size_bytes: metadata.len(),
        allocated_bytes: metadata.blocks() * 512,
        stamp: file_stamp(&metadata),
        facts: facts.unwrap_or_else(|_| Err(TRUNCATED_HEADER.into())),
    })
}

/// Parses the first bytes of an image; returns its facts, or why they are not a valid header.
///
/// # Errors
/// The length of the header in bytes, if `start` is shorter.
pub(crate) fn parse_header(start: &[u8]) -> Result<Result<ImageFacts, String>, usize> {
    match read_header(start) {
        Ok(facts) => Ok(Ok(facts)),
        Err(HeaderError::Invalid(reason)) => Ok(Err(reason)),
        Err(HeaderError::Incomplete { needed_bytes }) => Err(needed_bytes),
    }
}

/// Reads the first `length` bytes, or all of a shorter file.
fn read_prefix(file: &mut File, length: usize) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
