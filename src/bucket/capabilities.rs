//! The differences between S3-compatible stores, by the name in their `Server` header (RFC 9110, section 10.2.4).

/// The features of a store that change how it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Whether the store reads a copied part once more for the checksum of the whole object. It then verifies the
    /// checksums of parts even if that of the object is not requested.
    pub(crate) rereads_copied_parts: bool,
    /// Part copies to request at the same time.
    pub(crate) max_concurrent_copies: usize,
}

impl Capabilities {
    /// Returns the capabilities of the server of that name; `None` before its first response.
    pub(crate) fn from_server_name(name: Option<&str>) -> Self {
        match name {
            // 4.48: the checksum of the whole object doubles the time of a copy. It reads and writes what it copies,
            // and is slower the more it copies at once.
            Some(name) if name.starts_with("SeaweedFS") => Self {
                rereads_copied_parts: true,
                max_concurrent_copies: 6,
            },
            _ => Self {
                rereads_copied_parts: false,
                max_concurrent_copies: 16,
            },
        }
    }
}
