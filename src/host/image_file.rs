//! Metadata of an image file: its length, stamp and header.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::fs::await_lease;
use crate::inventory::directory_id;
use snapdeck_model::{FileStamp, ImageFacts};
use snapdeck_qcow2::{
    HEADER_BYTES, HeaderError, OtherReferences, read_header, read_other_references,
};

/// The metadata of an image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Bytes allocated on the disk.
    pub allocated_bytes: u64,
    /// Unchanged as long as the file is not written.
    pub stamp: FileStamp,
    /// Device of its file system, as this host numbers it.
    pub device: u64,
    /// The facts in its header, or why that is not valid.
    pub facts: Result<ImageFacts, String>,
    /// Files that the image needs in addition to its backing file.
    pub(crate) other_references: OtherReferences,
    /// The id, if the file is that of a directory.
    pub(crate) directory_id: Option<String>,
}

/// Contents of the first bytes of a file.
pub(crate) struct ImageHeader {
    facts: Result<ImageFacts, String>,
    other_references: OtherReferences,
    directory_id: Option<String>,
}

impl ImageFile {
    /// Returns device and inode: equal for all paths of the file on this host.
    pub(crate) fn id(&self) -> FileId {
        (self.device, self.stamp.inode)
    }

    /// Sets the contents of its first bytes.
    pub(crate) fn set_header(&mut self, header: ImageHeader) {
        self.facts = header.facts;
        self.other_references = header.other_references;
        self.directory_id = header.directory_id;
    }

    /// As [`Self::set_header`], with the header of the same file.
    pub(crate) fn copy_header(&mut self, same: &Self) {
        self.facts.clone_from(&same.facts);
        self.other_references.clone_from(&same.other_references);
        self.directory_id.clone_from(&same.directory_id);
    }

    fn new(metadata: &Metadata, header: ImageHeader) -> Self {
        Self {
            size_bytes: metadata.len(),
            allocated_bytes: metadata.blocks() * 512,
            stamp: file_stamp(metadata),
            device: metadata.dev(),
            facts: header.facts,
            other_references: header.other_references,
            directory_id: header.directory_id,
        }
    }
}

/// Device and inode.
pub(crate) type FileId = (u64, u64);

impl ImageHeader {
    /// Returns a header that cannot be read.
    pub(crate) fn unknown(reason: &str) -> Self {
        Self {
            facts: Err(reason.to_owned()),
            other_references: OtherReferences::default(),
            directory_id: None,
        }
    }

    /// Parses the first bytes of a file.
    ///
    /// # Errors
    /// The length of the header in bytes, if `start` is shorter.
    pub(crate) fn parse(start: &[u8]) -> Result<Self, usize> {
        let facts = match read_header(start) {
            Ok(facts) => Ok(facts),
            Err(HeaderError::Invalid(reason)) => Err(reason),
            Err(HeaderError::Incomplete { needed_bytes }) => return Err(needed_bytes),
        };
        Ok(Self {
            facts,
            other_references: read_other_references(start),
            directory_id: directory_id::parse(start),
        })
    }
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
    // The name is resolved once, and the file is opened only if it is an image: opening a device may have side effects,
    // and opening a FIFO blocks.
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_PATH)
        .open(path)?;
    let metadata = handle.metadata()?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, NOT_A_FILE));
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let mut file = await_lease(|| options.open(&path)).map_err(|error| match error.kind() {
        // Without /proc nothing can be opened by its descriptor.
        io::ErrorKind::NotFound => io::Error::other("/proc is not mounted"),
        _ => error,
    })?;
    let metadata = file.metadata()?;
    let header = match ImageHeader::parse(&read_prefix(&mut file, HEADER_BYTES)?) {
        Err(needed_bytes) => ImageHeader::parse(&read_prefix(&mut file, needed_bytes)?),
        header => header,
    };
    let header = header.unwrap_or_else(|_| ImageHeader::unknown(TRUNCATED_HEADER));
    Ok(ImageFile::new(&metadata, header))
}

/// Reads the first `length` bytes, or all of a shorter file.
fn read_prefix(file: &mut File, length: usize) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
