//! What the start of an image's file says to somebody who composes: facts, refusals, where the L1 table is.

use std::ops::Range;

use super::ComposeError;
use super::entry::Geometry;
use super::header::{HeaderError, field_u32, field_u64, read_header};
use snapdeck_model::{Compression, ImageFacts};

/// QEMU's own limit of an L1 table.
pub(super) const MAX_L1_BYTES: u64 = 32 << 20;
/// "Header extensions": types.
const END: u32 = 0;
pub(super) const FEATURE_NAMES: u32 = 0x6803_f857;
/// "Feature name table": one entry.
const FEATURE_NAME_BYTES: usize = 48;

/// What was told.
pub(super) enum ParseStatus {
    Complete(Box<LayerHeader>),
    /// So many bytes of the file's start are needed.
    Incomplete(u64),
}

/// An image that may be composed.
pub(super) struct LayerHeader {
    pub(super) facts: ImageFacts,
    /// The header, `header_length` bytes.
    pub(super) header: Vec<u8>,
    /// Data of the feature name table extension.
    pub(super) feature_names: Option<Vec<u8>>,
    /// Bytes of the file that hold the L1 table, as far as the disk goes.
    pub(super) l1: Range<u64>,
}

impl LayerHeader {
    /// `start`: the bytes a file of that length begins with.
    pub(super) fn parse(start: &[u8], file_bytes: u64) -> Result<ParseStatus, ComposeError> {
        refuse_unknown_features(start)?;
        let cut_off = || ComposeError::InvalidHeader("its header is truncated".into());
        let facts = match read_header(start) {
            Ok(facts) => facts,
            // At most one cluster of 2 MiB; the same bytes are never asked for twice.
            Err(HeaderError::Incomplete { needed_bytes }) => {
                let end = needed_bytes as u64;
                let asks_more = end <= file_bytes && end > start.len() as u64;
                return asks_more
                    .then_some(ParseStatus::Incomplete(end))
                    .ok_or_else(cut_off);
            }
            Err(HeaderError::Invalid(why)) => return Err(ComposeError::InvalidHeader(why)),
        };
        refuse_features(&facts)?;
        if file_bytes < facts.cluster_size {
            return Err(cut_off());
        }
        let l1 = locate_l1(start, &facts, file_bytes)?;
        let (header, feature_names) = split_header(start, &facts)?;
        Ok(ParseStatus::Complete(Box::new(Self {
            facts,
            header,
            feature_names,
            l1,
        })))
    }
}

/// "Header", l1_size and l1_table_offset.
fn locate_l1(
    start: &[u8],
    facts: &ImageFacts,
    file_bytes: u64,
) -> Result<Range<u64>, ComposeError> {
    let geometry = Geometry::new(facts.cluster_size);
    let needed = facts.virtual_size.div_ceil(geometry.l2_span());
    if needed > MAX_L1_BYTES / 8 {
        return Err(ComposeError::TooLarge("its L1 table has more than 32 MiB"));
    }
    if u64::from(field_u32(start, 36)) < needed {
        let why = "its L1 table is too short for its disk";
        return Err(ComposeError::InvalidHeader(why.into()));
    }
    if needed == 0 {
        return Ok(0..0);
    }
    let at = field_u64(start, 40);
    if !at.is_multiple_of(geometry.cluster_size()) || at < geometry.cluster_size() {
        let table = "the header's L1";
        return Err(ComposeError::BadEntry { table, entry: at });
    }
    match at.checked_add(needed * 8) {
        Some(end) if end <= file_bytes => Ok(at..end),
        _ => {
            let what = "the L1 table";
            Err(ComposeError::Truncated {
                structure: what,
                offset: at,
            })
        }
    }
}

/// Told before anything else is looked at: with such a bit nothing else is known to mean what it says.
fn refuse_unknown_features(start: &[u8]) -> Result<(), ComposeError> {
    let known = 0b11111;
    let unknown = field_u64(start, 72) & !known;
    if start.starts_with(b"QFI\xfb") && field_u32(start, 4) == 3 && unknown != 0 {
        return Err(ComposeError::UnknownFeatures(unknown));
    }
    Ok(())
}

/// What no layer of a chain may have.
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

/// The header itself, and the feature name table where it is sound ("Header extensions").
fn split_header(
    start: &[u8],
    facts: &ImageFacts,
) -> Result<(Vec<u8>, Option<Vec<u8>>), ComposeError> {
    let length = match facts.version {
        2 => 72,
        _ => field_u32(start, 100) as usize,
    };
    let bad =
        || ComposeError::InvalidHeader(format!("its header of {length} bytes is not possible"));
    if facts.version > 2 && (length < 104 || !length.is_multiple_of(8)) {
        return Err(bad());
    }
    let in_cluster = usize::try_from(facts.cluster_size).is_ok_and(|cluster| length <= cluster);
    let header = start.get(..length).filter(|_| in_cluster).ok_or_else(bad)?;
    let mut at = length;
    let mut feature_names = None;
    // Each step takes 8 bytes at least, of 64 KiB or one cluster.
    while let Some(head) = start.get(at..at + 8) {
        let (kind, data) = (field_u32(head, 0), field_u32(head, 4) as usize);
        let Some(bytes) = start.get(at + 8..).and_then(|rest| rest.get(..data)) else {
            break;
        };
        match kind {
            END => break,
            FEATURE_NAMES if data.is_multiple_of(FEATURE_NAME_BYTES) => {
                feature_names = Some(bytes.to_vec());
            }
            _ => {}
        }
        at += 8 + data.next_multiple_of(8);
    }
    Ok((header.to_vec(), feature_names))
}
