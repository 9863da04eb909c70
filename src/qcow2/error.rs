//! Why an image cannot be composed.

/// Why an image cannot be composed. The caller converts the whole disk instead, and logs this.
///
/// Offsets and lengths are bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// Not a qcow2 image of a known version, and why.
    #[error("{0}")]
    InvalidHeader(String),
    /// The file ends before a structure that its header or tables point at.
    #[error("the image is truncated: {structure} at {offset} is past the end of the file")]
    Truncated {
        /// Of the file.
        structure: &'static str,
        /// In the file.
        offset: u64,
    },
    /// "Header", incompatible feature bit 0.
    #[error("the image was not closed cleanly (dirty bit)")]
    Dirty,
    /// "Header", incompatible feature bit 1.
    #[error("the image is marked corrupt")]
    Corrupt,
    /// "Header", incompatible features: an image with an unknown bit must not be opened.
    #[error("the image uses unknown features (bits {0:#x})")]
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
    /// "Header", refcount_order: only 16 bits are written.
    #[error("the base's refcounts are {0} bits wide, not 16")]
    RefcountWidth(u32),
    /// "Additional fields", compression_type.
    #[error("the image's compression type is unknown")]
    UnknownCompression,
    /// Readers disagree on where such a disk ends.
    #[error("the disk size of {0} bytes is not a multiple of 512")]
    UnalignedSize(u64),
    /// A bit that must be zero is set, or an offset is not aligned.
    #[error("the image is damaged: {table} entry {entry:#018x} is invalid")]
    BadEntry {
        /// "L1" or "L2".
        table: &'static str,
        /// As stored.
        entry: u64,
    },
    /// A cluster is used twice.
    #[error("the image is damaged: {structure} at {offset} is also used for something else")]
    Overlap {
        /// The table.
        structure: &'static str,
        /// In the file.
        offset: u64,
    },
    /// The image composed earlier has another cluster size than the base.
    #[error("the image composed earlier does not belong to the base")]
    OtherBase,
    /// The tables of the image, or of the composed image, exceed a limit of the format or of this program.
    #[error("the image is too large: {0}")]
    TooLarge(&'static str),
    /// The base of a chain must be standalone.
    #[error("the base has a backing file itself: {0}")]
    BaseHasBackingFile(String),
    /// Such an overlay hides everything below it.
    #[error("overlay {0} of the chain has no backing file")]
    OverlayWithoutBackingFile(usize),
    /// 16 bits cannot count the references.
    #[error("the image is damaged: the cluster at {0} is referenced more than 65535 times")]
    RefcountOverflow(u64),
    /// "Compressed Clusters Descriptor": the data does not decode to one cluster.
    #[error("the image is damaged: cannot decode the compressed cluster at disk offset {0}")]
    Undecodable(u64),
    /// The caller passed another number of bytes than was requested.
    #[error("{received_bytes} bytes were passed where {expected_bytes} were requested")]
    WrongLength {
        /// Bytes requested.
        expected_bytes: u64,
        /// Bytes passed.
        received_bytes: u64,
    },
    /// The caller passed the bytes of another read than the next one, or finished too early.
    #[error("read {received_number} was passed where {expected_number} was next")]
    OutOfOrder {
        /// Number of the next read.
        expected_number: u64,
        /// Number of the read that was passed.
        received_number: u64,
    },
}
