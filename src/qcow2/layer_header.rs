//! The start of an image's file, for composing: facts, unsupported features, and the offset of the L1 table.

use std::ops::Range;

use super::entry::Geometry;
use super::error::ComposeError;
use super::header::{FEATURE_NAMES, Header, HeaderError, V3_HEADER_BYTES, unknown_features};
use snapdeck_model::{Compression, ImageFacts};

/// QEMU's own limit of an L1 table.
pub(super) const MAX_L1_BYTES: u64 = 32 << 20;
/// "Feature name table": one entry.
const FEATURE_NAME_BYTES: usize = 48;

pub(super) enum ParseStatus {
    Complete(Box<LayerHeader>),
    /// Bytes of the file's start that are needed.
    Incomplete(u64),
}

/// The header of an image that may be composed.
pub(super) struct LayerHeader {
    pub(super) facts: ImageFacts,
    /// `header_length` bytes.
    pub(super) header: Vec<u8>,
    /// Data of the feature name table extension.
    pub(super) feature_names: Option<Vec<u8>>,
    /// Bytes of the file that hold the L1 table, up to the end of the disk.
    pub(super) l1: Range<u64>,
}

impl LayerHeader {
    /// Parses the bytes that a file of `file_bytes` begins with.
    pub(super) fn parse(start: &[u8], file_bytes: u64) -> Result<ParseStatus, ComposeError> {
        let unknown = unknown_features(start);
        if unknown != 0 {
            return Err(ComposeError::UnknownFeatures(unknown));
        }
        let cut_off = || ComposeError::InvalidHeader("its header is truncated".into());
        let header = match Header::parse(start) {
            Ok(header) => header,
            // At most one cluster of 2 MiB; the same bytes are never requested twice.
            Err(HeaderError::Incomplete { needed_bytes }) => {
                let end = needed_bytes as u64;
                let has_more = end <= file_bytes && end > start.len() as u64;
                return has_more
                    .then_some(ParseStatus::Incomplete(end))
                    .ok_or_else(cut_off);
            }
            Err(HeaderError::Invalid(reason)) => return Err(ComposeError::InvalidHeader(reason)),
        };
        refuse_features(&header.facts)?;
        if file_bytes < header.facts.cluster_size {
            return Err(cut_off());
        }
        let l1 = locate_l1(&header, file_bytes)?;
        let feature_names = header.extensions(start).filter(|(kind, data)| {
            *kind == FEATURE_NAMES && data.len().is_multiple_of(FEATURE_NAME_BYTES)
        });
        Ok(ParseStatus::Complete(Box::new(Self {
            feature_names: feature_names.last().map(|(_, data)| data.to_vec()),
            header: header_fields(start, &header)?,
            facts: header.facts,
            l1,
        })))
    }
}

/// "Header", l1_size and l1_table_offset.
fn locate_l1(header: &Header, file_bytes: u64) -> Result<Range<u64>, ComposeError> {
    let geometry = Geometry::new(header.facts.cluster_size);
    let entries = header.facts.virtual_size.div_ceil(geometry.l2_span());
    if entries > MAX_L1_BYTES / 8 {
        return Err(ComposeError::TooLarge("its L1 table has more than 32 MiB"));
    }
    if u64::from(header.l1_entries) < entries {
        let reason = "its L1 table is too short for its disk";
        return Err(ComposeError::InvalidHeader(reason.into()));
    }
    if entries == 0 {
        return Ok(0..0);
    }
    let offset = header.l1_offset;
    if !offset.is_multiple_of(geometry.cluster_size()) || offset < geometry.cluster_size() {
        return Err(ComposeError::BadEntry {
            table: "the header's L1",
            entry: offset,
        });
    }
    match offset.checked_add(entries * 8) {
        Some(end) if end <= file_bytes => Ok(offset..end),
        _ => Err(ComposeError::Truncated {
            structure: "the L1 table",
            offset,
        }),
    }
}

/// Refuses features that layers of a chain cannot have.
fn refuse_features(facts: &ImageFacts) -> Result<(), ComposeError> {
    let refusal = if facts.dirty {
        ComposeError::Dirty
    } else if facts.corrupt {
        ComposeError::Corrupt
    } else if facts.has_external_data_file {
        ComposeError::ExternalData
    } else if facts.encrypted {
        ComposeError::Encrypted
    } else if facts.internal_snapshots > 0 {
        ComposeError::InternalSnapshots(facts.internal_snapshots)
    } else if facts.extended_l2 {
        ComposeError::ExtendedL2
    } else if facts.compression == Compression::Unknown {
        ComposeError::UnknownCompression
    } else if !facts.virtual_size.is_multiple_of(512) {
        ComposeError::UnalignedSize(facts.virtual_size)
    } else {
        return Ok(());
    };
    Err(refusal)
}

/// "Header", header_length.
fn header_fields(start: &[u8], header: &Header) -> Result<Vec<u8>, ComposeError> {
    let length = header.header_bytes;
    let is_valid = header.facts.version == 2
        || length >= V3_HEADER_BYTES
            && length.is_multiple_of(8)
            && length as u64 <= header.facts.cluster_size;
    match start.get(..length).filter(|_| is_valid) {
        Some(fields) => Ok(fields.to_vec()),
        None => Err(ComposeError::InvalidHeader(format!(
            "its header length of {length} bytes is invalid"
        ))),
    }
}
