//! Why an image cannot be composed.

/// Why there is no composed image: the caller rewrites the whole disk instead, and says this in the job's log.
///
/// Offsets and lengths are bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// It is no qcow2 image of a version that is known; in words.
    #[error("{0}")]
    InvalidHeader(String),
    /// The file ends before what its header or tables point at.
    #[error("the image is truncated: {structure} at {offset} is past the end of the file")]
    Truncated {
        /// What lies there.
        structure: &'static str,
        /// Where.
        offset: u64,
    },
    /// "Header", incompatible feature bit 0.
    #[error("the image was not closed cleanly (dirty bit)")]
    Dirty,
    /// "Header", incompatible feature bit 1.
    #[error("the image is marked corrupt")]
    Corrupt,
    /// "Header": an implementation must not open an image with an unknown bit.
    #[error("the image uses unknown incompatible features (bits {0:#x})")]
    UnknownFeatures(u64),
    /// "Header", incompatible feature bit 2.
    #[error("the image has an external data file")]
    ExternalData,
    /// "Header", crypt_method.
    #[error("the image is encrypted")]
    Encrypted,
    /// "Snapshots": they share clusters with the disk.
    #[error("the image has {0} internal snapshots")]
    InternalSnapshots(u32),
    /// "Extended L2 Entries".
    #[error("the image has extended L2 entries (subclusters)")]
    ExtendedL2,
    /// "Header", refcount_order: only the usual width is written.
    #[error("the base's refcounts are {0} bits wide, not 16")]
    RefcountWidth(u32),
    /// "Additional fields", compression_type.
    #[error("the image has an unknown compression type")]
    UnknownCompression,
    /// The disk is no whole number of sectors of 512 bytes: readers disagree on where it ends.
    #[error("the disk size of {0} bytes is not a multiple of 512")]
    UnalignedSize(u64),
    /// A bit that must be zero is set, or an offset is not aligned.
    #[error("the image is damaged: {table} entry {entry:#018x} is not valid")]
    BadEntry {
        /// "L1" or "L2".
        table: &'static str,
        /// As stored.
        entry: u64,
    },
    /// A table stands where it must not.
    #[error("the image is damaged: {structure} at {offset} overlaps another structure")]
    Overlap {
        /// What stands there.
        structure: &'static str,
        /// Where.
        offset: u64,
    },
    /// The tables of the image, or of what it would become, are larger than the format or this program allows.
    #[error("the image is too large: {0}")]
    TooLarge(&'static str),
    /// The base of a chain needs no other file.
    #[error("the base itself needs a backing file, {0}")]
    BaseHasBackingFile(String),
    /// An overlay without a backing file hides everything below it.
    #[error("overlay {0} of the chain has no backing file")]
    OverlayWithoutBackingFile(usize),
    /// One cluster is referenced more often than 16 bits can count.
    #[error("the image is damaged: the cluster at {0} is referenced more than 65535 times")]
    RefcountOverflow(u64),
    /// "Compressed Clusters Descriptor": the bytes there are no whole cluster.
    #[error(
        "the image is damaged: the compressed cluster for the disk's offset {0} does not decode"
    )]
    Undecodable(u64),
    /// The caller handed over other bytes than it was asked for.
    #[error("read {received_bytes} bytes, expected {expected_bytes}")]
    WrongLength {
        /// Bytes asked for.
        expected_bytes: u64,
        /// Bytes handed over.
        received_bytes: u64,
    },
    /// The caller handed over the bytes of another read than the next one, or ended too early.
    #[error("got read {received_number}, expected {expected_number}")]
    OutOfOrder {
        /// Number of the read that was due.
        expected_number: u64,
        /// Number of the read handed over.
        received_number: u64,
    },
}
