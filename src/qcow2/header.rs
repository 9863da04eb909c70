//! The header of a qcow2 image (QEMU, docs/interop/qcow2, "Header").

use snapdeck_model::{Compression, ImageFacts};

/// Bytes of a file's start that hold the header of nearly every image, backing file name included.
pub const HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The longest backing file name the format allows.
const MAX_BACKING_NAME: u64 = 1023;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN_INCOMPATIBLE: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;

/// Why there are no facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// The backing file's name lies further on: so many bytes of the file's start are needed, at most one
    /// cluster (2 MiB).
    Incomplete {
        /// Bytes of the file's start.
        needed_bytes: usize,
    },
    /// It is no qcow2 image that anybody could open; in words.
    Invalid(String),
}

/// Reads the facts from the bytes a file begins with: [`HEADER_BYTES`] of them, or the whole of a shorter file.
///
/// # Errors
/// [`HeaderError::Incomplete`] where more bytes are needed, [`HeaderError::MethodUnavailable`] where it is no qcow2 image
/// that this version of the format describes.
pub fn read_header(start: &[u8]) -> Result<ImageFacts, HeaderError> {
    let unfit = |why: String| Err(HeaderError::Invalid(why));
    if start.is_empty() {
        return unfit("the file is empty".into());
    }
    if !start.starts_with(&MAGIC) {
        return unfit("it is not a qcow2 image".into());
    }
    let (Some(version), Some(_)) = (u32_at(start, 4), u64_at(start, 64)) else {
        return unfit("its header is cut off".into());
    };
    let field32 = |at| field_u32(start, at);
    let field64 = |at| field_u64(start, at);
    if !matches!(version, 2 | 3) {
        return unfit(format!("unknown qcow2 version {version}"));
    }
    if version == 3 && start.len() < 104 {
        return unfit("its header is cut off".into());
    }
    let cluster_bits = field32(20);
    if !(9..=21).contains(&cluster_bits) {
        return unfit(format!("invalid cluster_bits {cluster_bits}"));
    }
    let cluster_size = 1u64 << cluster_bits;
    let incompatible = if version == 3 { field64(72) } else { 0 };
    if incompatible & !KNOWN_INCOMPATIBLE != 0 {
        return unfit(format!(
            "it uses unknown incompatible features (bits {:#x})",
            incompatible & !KNOWN_INCOMPATIBLE
        ));
    }
    let refcount_order = if version == 3 { field32(96) } else { 4 };
    if refcount_order > 6 {
        return unfit(format!("invalid refcount_order {refcount_order}"));
    }
    let header_bytes = if version == 3 { field32(100) } else { 72 };
    let compression = match start.get(104) {
        Some(&kind) if incompatible & COMPRESSION_TYPE != 0 && header_bytes > 104 => match kind {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            _ => Compression::Unknown,
        },
        _ => Compression::Zlib,
    };
    Ok(ImageFacts {
        version,
        virtual_size: field64(24),
        cluster_size,
        backing_file: read_backing_name(start, field64(8), u64::from(field32(16)), cluster_size)?,
        has_external_data_file: incompatible & EXTERNAL_DATA != 0,
        dirty: incompatible & DIRTY != 0,
        corrupt: incompatible & CORRUPT != 0,
        encrypted: field32(32) != 0,
        extended_l2: incompatible & EXTENDED_L2 != 0,
        internal_snapshots: field32(60),
        refcount_bits: 1 << refcount_order,
        compression,
    })
}

/// The name lies anywhere in the first cluster.
fn read_backing_name(
    start: &[u8],
    offset: u64,
    length: u64,
    cluster_size: u64,
) -> Result<Option<String>, HeaderError> {
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    let end = offset
        .checked_add(length)
        .filter(|end| length <= MAX_BACKING_NAME && *end <= cluster_size)
        .ok_or_else(|| HeaderError::Invalid("its backing file's name is out of bounds".into()))?;
    // Within a cluster, so it fits a usize.
    let (offset, end) = (offset as usize, end as usize);
    match start.get(offset..end) {
        Some(name) => Ok(Some(String::from_utf8_lossy(name).into_owned())),
        None if start.len() < HEADER_BYTES => Err(HeaderError::Invalid(
            "its backing file's name is truncated".into(),
        )),
        None => Err(HeaderError::Incomplete { needed_bytes: end }),
    }
}

/// The field at that place, or 0 past the end.
pub(super) fn field_u32(bytes: &[u8], at: usize) -> u32 {
    u32_at(bytes, at).unwrap_or_default()
}

/// The field at that place, or 0 past the end.
pub(super) fn field_u64(bytes: &[u8], at: usize) -> u64 {
    u64_at(bytes, at).unwrap_or_default()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_be_bytes(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A version 3 header as `qemu-img create` writes it, without extensions.
    fn plain() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&16u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&(40u64 << 30).to_be_bytes());
        bytes[96..100].copy_from_slice(&4u32.to_be_bytes());
        bytes[100..104].copy_from_slice(&112u32.to_be_bytes());
        bytes
    }

    fn backed(offset: u64, length: u32) -> Vec<u8> {
        let mut bytes = plain();
        bytes[8..16].copy_from_slice(&offset.to_be_bytes());
        bytes[16..20].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn why(bytes: &[u8]) -> String {
        match read_header(bytes) {
            Err(HeaderError::Invalid(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tells_what_a_plain_image_is() {
        let facts = read_header(&plain()).unwrap();
        assert_eq!(facts.virtual_size, 40 << 30);
        assert_eq!(facts.cluster_size, 65536);
        assert_eq!(facts.refcount_bits, 16);
        assert!(facts.is_standalone() && !facts.dirty && !facts.corrupt && !facts.encrypted);
    }

    #[test]
    fn tells_its_features() {
        let mut bytes = plain();
        bytes[72..80].copy_from_slice(&0b11111u64.to_be_bytes());
        bytes[104] = 1;
        let facts = read_header(&bytes).unwrap();
        assert!(facts.dirty && facts.corrupt && facts.has_external_data_file && facts.extended_l2);
        assert_eq!(facts.compression, Compression::Zstd);
        assert!(!facts.is_standalone());
    }

    #[test]
    fn finds_the_backing_file_wherever_it_may_stand() {
        let mut bytes = backed(200, 9);
        bytes[200..209].copy_from_slice(b"/a/b.qcow");
        let facts = read_header(&bytes).unwrap();
        assert_eq!(facts.backing_file.as_deref(), Some("/a/b.qcow"));
        assert_eq!(
            read_header(&backed(5000, 9)),
            Err(HeaderError::Incomplete { needed_bytes: 5009 })
        );
        assert!(why(&backed(65530, 9)).contains("out of bounds"));
        assert!(why(&backed(u64::MAX, 9)).contains("out of bounds"));
        assert!(why(&backed(200, 1024)).contains("out of bounds"));
    }

    #[test]
    fn says_why_something_is_no_image() {
        assert!(why(b"").contains("empty"));
        assert!(why(b"MZ and so on").contains("not a qcow2"));
        assert!(why(&plain()[..80]).contains("cut off"));
        let mut newer = plain();
        newer[7] = 4;
        assert!(why(&newer).contains("version 4"));
        let mut unknown = plain();
        unknown[77] = 1;
        assert!(why(&unknown).contains("0x10000"));
    }

    proptest! {
        #[test]
        fn takes_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_header(&bytes);
            for (at, byte) in MAGIC.into_iter().chain([0, 0, 0, 3]).enumerate() {
                if let Some(slot) = bytes.get_mut(at) {
                    *slot = byte;
                }
            }
            let _ = read_header(&bytes);
        }
    }
}
