//! What the start of an image's file says to somebody who composes: facts, refusals, where the L1 table is.

use std::ops::Range;

use super::Refusal;
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
pub(super) enum Told {
    Start(Box<Start>),
    /// So many bytes of the file's start are needed.
    More(u64),
}

/// An image that may be composed.
pub(super) struct Start {
    pub(super) facts: ImageFacts,
    /// The header, `header_length` bytes.
    pub(super) header: Vec<u8>,
    /// Data of the feature name table extension.
    pub(super) feature_names: Option<Vec<u8>>,
    /// Bytes of the file that hold the L1 table, as far as the disk goes.
    pub(super) l1: Range<u64>,
}

impl Start {
    /// `start`: the bytes a file of that length begins with.
    pub(super) fn read(start: &[u8], file_bytes: u64) -> Result<Told, Refusal> {
        refuse_unknown_features(start)?;
        let cut_off = || Refusal::Unfit("its header is cut off".into());
        let facts = match read_header(start) {
            Ok(facts) => facts,
            // At most one cluster of 2 MiB; the same bytes are never asked for twice.
            Err(HeaderError::Short { needed_bytes }) => {
                let end = needed_bytes as u64;
                let asks_more = end <= file_bytes && end > start.len() as u64;
                return asks_more.then_some(Told::More(end)).ok_or_else(cut_off);
            }
            Err(HeaderError::Unfit(why)) => return Err(Refusal::Unfit(why)),
        };
        refuse_features(&facts)?;
        if file_bytes < facts.cluster_size {
            return Err(cut_off());
        }
        let l1 = l1_range(start, &facts, file_bytes)?;
        let (header, feature_names) = header_parts(start, &facts)?;
        Ok(Told::Start(Box::new(Self {
            facts,
            header,
            feature_names,
            l1,
        })))
    }
}

/// "Header", l1_size and l1_table_offset.
fn l1_range(start: &[u8], facts: &ImageFacts, file_bytes: u64) -> Result<Range<u64>, Refusal> {
    let geometry = Geometry::new(facts.cluster_size);
    let needed = facts.virtual_size.div_ceil(geometry.l2_span());
    if needed > MAX_L1_BYTES / 8 {
        return Err(Refusal::TooLarge("its L1 table has more than 32 MiB"));
    }
    if u64::from(field_u32(start, 36)) < needed {
        let why = "its L1 table is too short for its disk";
        return Err(Refusal::Unfit(why.into()));
    }
    if needed == 0 {
        return Ok(0..0);
    }
    let at = field_u64(start, 40);
    if !at.is_multiple_of(geometry.cluster()) || at < geometry.cluster() {
        let table = "the header's L1";
        return Err(Refusal::BadEntry { table, entry: at });
    }
    match at.checked_add(needed * 8) {
        Some(end) if end <= file_bytes => Ok(at..end),
        _ => {
            let what = "the L1 table";
            Err(Refusal::CutOff { what, at })
        }
    }
}

/// Told before anything else is looked at: with such a bit nothing else is known to mean what it says.
fn refuse_unknown_features(start: &[u8]) -> Result<(), Refusal> {
    let known = 0b11111;
    let unknown = field_u64(start, 72) & !known;
    if start.starts_with(b"QFI\xfb") && field_u32(start, 4) == 3 && unknown != 0 {
        return Err(Refusal::UnknownFeatures(unknown));
    }
    Ok(())
}

/// What no layer of a chain may have.
fn refuse_features(facts: &ImageFacts) -> Result<(), Refusal> {
    let refusal = if facts.dirty {
        Refusal::Dirty
    } else if facts.corrupt {
        Refusal::Corrupt
    } else if facts.external_data_file {
        Refusal::ExternalData
    } else if facts.encrypted {
        Refusal::Encrypted
    } else if facts.internal_snapshots > 0 {
        Refusal::InternalSnapshots(facts.internal_snapshots)
    } else if facts.extended_l2 {
        Refusal::ExtendedL2
    } else if facts.compression == Compression::Unknown {
        Refusal::UnknownCompression
    } else if !facts.virtual_size.is_multiple_of(512) {
        Refusal::OddSize(facts.virtual_size)
    } else {
        return Ok(());
    };
    Err(refusal)
}

/// The header itself, and the feature name table where it is sound ("Header extensions").
fn header_parts(start: &[u8], facts: &ImageFacts) -> Result<(Vec<u8>, Option<Vec<u8>>), Refusal> {
    let length = match facts.version {
        2 => 72,
        _ => field_u32(start, 100) as usize,
    };
    let bad = || Refusal::Unfit(format!("its header of {length} bytes is not possible"));
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
