//! The header of a qcow2 image ("Header") and its extensions ("Header extensions").

use snapdeck_model::{BackingFormat, Compression, ImageFacts};

/// Bytes of a file's start that hold the header of nearly every image, with the backing file name.
pub const HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const QED_MAGIC: [u8; 4] = *b"QED\0";
/// "Header", backing_file_size: the longest name.
const MAX_BACKING_NAME: u64 = 1023;
/// "Header": bytes of a version 2 header, and of the shortest version 3 header.
const V2_HEADER_BYTES: usize = 72;
pub(super) const V3_HEADER_BYTES: usize = 104;

/// "Header", incompatible_features.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN_INCOMPATIBLE: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;

/// "Header extensions": types.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;
pub(super) const FEATURE_NAMES: u32 = 0x6803_f857;

/// Why a header cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// The backing file name ends further on in the first cluster (2 MiB at most).
    Incomplete {
        /// Bytes of the file's start that are needed.
        needed_bytes: usize,
    },
    /// Not a qcow2 image that can be opened, and why.
    Invalid(String),
}

/// A header with the fields that every reader needs.
pub(super) struct Header {
    pub(super) facts: ImageFacts,
    pub(super) header_bytes: usize,
    pub(super) l1_entries: u32,
    pub(super) l1_offset: u64,
}

/// Reads the facts from the bytes a file begins with: [`HEADER_BYTES`] of them, or the whole of a shorter file.
///
/// # Errors
/// [`HeaderError::Incomplete`] if more bytes are needed, [`HeaderError::Invalid`] if it is not a qcow2 image of
/// a known version.
pub fn read_header(start: &[u8]) -> Result<ImageFacts, HeaderError> {
    Header::parse(start).map(|header| header.facts)
}

/// Returns the backing file format named in the bytes a file begins with ("Header extensions", backing file format
/// name); `None` also if that is truncated.
pub fn read_backing_format(start: &[u8]) -> Option<String> {
    let name = Header::parse(start).ok()?.backing_format(start)?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Files that an image needs in addition to the backing file in its [`ImageFacts`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OtherReferences {
    /// External data file, as written in the header.
    pub data_file: Option<String>,
    /// Why the image may need files that are not known.
    pub unknown: Option<&'static str>,
}

/// Reads the references to other files from the bytes a file begins with, also if [`read_header`] does not accept them.
pub fn read_other_references(start: &[u8]) -> OtherReferences {
    let unknown = |reason| OtherReferences {
        data_file: None,
        unknown: Some(reason),
    };
    if start.starts_with(&QED_MAGIC) {
        // QEMU, docs/interop/qed_spec: little-endian features, bit 0: it has a backing file.
        return match start.get(16) {
            Some(features) if features & 1 != 0 => unknown("it is a QED image with a backing file"),
            _ => OtherReferences::default(),
        };
    }
    if !start.starts_with(&MAGIC) || start.len() < 16 {
        return OtherReferences::default();
    }
    match field_u32(start, 4) {
        // The offset of the name has the same place as in later versions.
        1 if field_u64(start, 8) != 0 => unknown("it is a qcow image with a backing file"),
        0 | 1 => OtherReferences::default(),
        2 | 3 if unknown_features(start) != 0 => unknown("it uses unknown features"),
        2 | 3 => {
            let Ok(header) = Header::parse(start) else {
                return OtherReferences::default();
            };
            if !header.facts.has_external_data_file {
                return OtherReferences::default();
            }
            let name = header
                .extensions(start)
                .find(|(kind, _)| *kind == DATA_FILE);
            let name = name.and_then(|(_, name)| String::from_utf8(name.to_vec()).ok());
            match name.filter(|name| name.len() as u64 <= MAX_BACKING_NAME) {
                Some(name) => OtherReferences {
                    data_file: Some(name),
                    unknown: None,
                },
                None => unknown("the name of its data file cannot be read"),
            }
        }
        _ => unknown("its qcow2 version is not supported"),
    }
}

/// Returns the incompatible feature bits that are not known: other fields may have another meaning then.
pub(super) fn unknown_features(start: &[u8]) -> u64 {
    match start.starts_with(&MAGIC) && field_u32(start, 4) == 3 {
        true => field_u64(start, 72) & !KNOWN_INCOMPATIBLE,
        false => 0,
    }
}

impl Header {
    /// Parses the bytes a file begins with.
    pub(super) fn parse(start: &[u8]) -> Result<Self, HeaderError> {
        let invalid = |reason: String| Err(HeaderError::Invalid(reason));
        if start.is_empty() {
            return invalid("the file is empty".into());
        }
        if !start.starts_with(&MAGIC) {
            return invalid("it is not a qcow2 image".into());
        }
        let field32 = |offset| field_u32(start, offset);
        let field64 = |offset| field_u64(start, offset);
        let version = field32(4);
        if start.len() < V2_HEADER_BYTES || version == 3 && start.len() < V3_HEADER_BYTES {
            return invalid("its header is truncated".into());
        }
        if !matches!(version, 2 | 3) {
            return invalid(format!("qcow2 version {version} is not supported"));
        }
        let cluster_bits = field32(20);
        if !(9..=21).contains(&cluster_bits) {
            return invalid(format!("its cluster size of 2^{cluster_bits} is invalid"));
        }
        let cluster_size = 1u64 << cluster_bits;
        let unknown = unknown_features(start);
        if unknown != 0 {
            return invalid(format!("it uses unknown features (bits {unknown:#x})"));
        }
        let (incompatible, refcount_order, header_bytes) = match version {
            3 => (field64(72), field32(96), field32(100) as usize),
            _ => (0, 4, V2_HEADER_BYTES),
        };
        if refcount_order > 6 {
            return invalid(format!(
                "its refcount width of 2^{refcount_order} is invalid"
            ));
        }
        let compression = match start.get(104) {
            Some(&kind) if incompatible & COMPRESSION_TYPE != 0 && header_bytes > 104 => match kind
            {
                0 => Compression::Zlib,
                1 => Compression::Zstd,
                _ => Compression::Unknown,
            },
            _ => Compression::Zlib,
        };
        let backing_file =
            read_backing_name(start, field64(8), u64::from(field32(16)), cluster_size)?;
        let mut header = Self {
            facts: ImageFacts {
                version,
                virtual_size: field64(24),
                cluster_size,
                backing_file,
                backing_format: BackingFormat::Undeclared,
                has_external_data_file: incompatible & EXTERNAL_DATA != 0,
                dirty: incompatible & DIRTY != 0,
                corrupt: incompatible & CORRUPT != 0,
                encrypted: field32(32) != 0,
                extended_l2: incompatible & EXTENDED_L2 != 0,
                internal_snapshots: field32(60),
                refcount_bits: 1 << refcount_order,
                compression,
            },
            header_bytes,
            l1_entries: field32(36),
            l1_offset: field64(40),
        };
        header.facts.backing_format = match header.backing_format(start) {
            None => BackingFormat::Undeclared,
            Some(b"qcow2") => BackingFormat::Qcow2,
            Some(b"raw") => BackingFormat::Raw,
            Some(_) => BackingFormat::Other,
        };
        Ok(header)
    }

    /// Returns the name of the backing file's format.
    fn backing_format<'a>(&self, start: &'a [u8]) -> Option<&'a [u8]> {
        let format = self
            .extensions(start)
            .find(|(kind, _)| *kind == BACKING_FORMAT);
        format.map(|(_, name)| name)
    }

    /// Iterates over type and data of the extensions, which lie within the first cluster; stops at a truncated one.
    pub(super) fn extensions<'a>(
        &self,
        start: &'a [u8],
    ) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let cluster = usize::try_from(self.facts.cluster_size).unwrap_or(usize::MAX);
        let end = cluster.min(start.len());
        let mut rest = start.get(self.header_bytes..end).unwrap_or_default();
        std::iter::from_fn(move || {
            let (kind, length) = (u32_at(rest, 0)?, u32_at(rest, 4)? as usize);
            let data = rest.get(8..)?.get(..length)?;
            rest = rest
                .get(8 + length.next_multiple_of(8)..)
                .unwrap_or_default();
            (kind != END).then_some((kind, data))
        })
    }
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
        .ok_or_else(|| HeaderError::Invalid("its backing file name is out of bounds".into()))?;
    // Within a cluster, so it fits a usize.
    let (offset, end) = (offset as usize, end as usize);
    match start.get(offset..end) {
        Some(name) => Ok(Some(String::from_utf8_lossy(name).into_owned())),
        None if start.len() < HEADER_BYTES => Err(HeaderError::Invalid(
            "its backing file name is truncated".into(),
        )),
        None => Err(HeaderError::Incomplete { needed_bytes: end }),
    }
}

/// Returns the field, or 0 past the end.
fn field_u32(bytes: &[u8], offset: usize) -> u32 {
    u32_at(bytes, offset).unwrap_or_default()
}

/// Returns the field, or 0 past the end.
pub(super) fn field_u64(bytes: &[u8], offset: usize) -> u64 {
    let field = bytes
        .get(offset..offset + 8)
        .and_then(|field| field.try_into().ok());
    field.map_or(0, u64::from_be_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(field))
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

    fn reason(bytes: &[u8]) -> String {
        match read_header(bytes) {
            Err(HeaderError::Invalid(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_a_plain_image() {
        let facts = read_header(&plain()).unwrap();
        assert_eq!(facts.virtual_size, 40 << 30);
        assert_eq!(facts.cluster_size, 65536);
        assert_eq!(facts.refcount_bits, 16);
        assert!(facts.is_standalone() && !facts.dirty && !facts.corrupt && !facts.encrypted);
    }

    #[test]
    fn reads_the_features() {
        let mut bytes = plain();
        bytes[72..80].copy_from_slice(&0b11111u64.to_be_bytes());
        bytes[104] = 1;
        let facts = read_header(&bytes).unwrap();
        assert!(facts.dirty && facts.corrupt && facts.has_external_data_file && facts.extended_l2);
        assert_eq!(facts.compression, Compression::Zstd);
        assert!(!facts.is_standalone());
    }

    #[test]
    fn finds_the_backing_file_anywhere_in_the_first_cluster() {
        let mut bytes = backed(200, 9);
        bytes[200..209].copy_from_slice(b"/a/b.qcow");
        let facts = read_header(&bytes).unwrap();
        assert_eq!(facts.backing_file.as_deref(), Some("/a/b.qcow"));
        assert_eq!(
            read_header(&backed(5000, 9)),
            Err(HeaderError::Incomplete { needed_bytes: 5009 })
        );
        assert!(reason(&backed(65530, 9)).contains("out of bounds"));
        assert!(reason(&backed(u64::MAX, 9)).contains("out of bounds"));
        assert!(reason(&backed(200, 1024)).contains("out of bounds"));
    }

    #[test]
    fn explains_why_a_file_is_not_an_image() {
        assert!(reason(b"").contains("empty"));
        assert!(reason(b"MZ and so on").contains("not a qcow2"));
        assert!(reason(&plain()[..80]).contains("truncated"));
        let mut newer = plain();
        newer[7] = 4;
        assert!(reason(&newer).contains("version 4"));
        newer[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
        assert!(reason(&newer[..71]).contains("truncated"));
        let mut unknown = plain();
        unknown[77] = 1;
        assert!(reason(&unknown).contains("0x10000"));
    }

    fn with_extensions(version: u32, extensions: &[u8]) -> Vec<u8> {
        let mut bytes = plain();
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        let offset = if version == 2 { 72 } else { 112 };
        // The fields of a longer header than version 2 has are extensions there.
        bytes[offset..offset + 40].fill(0);
        bytes[offset..offset + extensions.len()].copy_from_slice(extensions);
        bytes
    }

    #[test]
    fn finds_the_backing_format_behind_other_extensions_but_not_past_the_last() {
        let other = b"\x68\x03\xf8\x57\0\0\0\x03abc\0\0\0\0\0";
        let raw = b"\xe2\x79\x2a\xca\0\0\0\x03raw\0\0\0\0\0";
        for version in [2, 3] {
            let both = with_extensions(version, &[&other[..], raw].concat());
            assert_eq!(read_backing_format(&both).as_deref(), Some("raw"));
            assert_eq!(read_backing_format(&with_extensions(version, other)), None);
            let ended = with_extensions(version, &[&[0; 8][..], raw].concat());
            assert_eq!(read_backing_format(&ended), None);
        }
    }

    #[test]
    fn finds_the_data_file_and_images_that_may_need_any_file() {
        let mut bytes = with_extensions(3, b"\x44\x41\x54\x41\0\0\0\x05/data\0\0\0");
        assert_eq!(read_other_references(&bytes), OtherReferences::default());
        bytes[79] = 1 << 2;
        let data_file = read_other_references(&bytes).data_file;
        assert_eq!(data_file.as_deref(), Some("/data"));
        bytes[112] = 0;
        assert!(read_other_references(&bytes).unknown.is_some());
        let mut newer = plain();
        newer[7] = 4;
        assert!(read_other_references(&newer).unknown.is_some());
        let mut unknown = plain();
        unknown[77] = 1;
        assert!(read_other_references(&unknown).unknown.is_some());
        let mut qed = vec![0; 64];
        qed[..4].copy_from_slice(b"QED\0");
        assert_eq!(read_other_references(&qed), OtherReferences::default());
        qed[16] = 1;
        assert!(read_other_references(&qed).unknown.is_some());
        for other in [&b""[..], b"MZ and so on, no image", &plain()] {
            assert_eq!(read_other_references(other), OtherReferences::default());
        }
    }

    proptest! {
        #[test]
        fn accepts_any_extensions(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_backing_format(&with_extensions(3, &bytes));
            read_backing_format(&bytes);
        }

        #[test]
        fn accepts_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_header(&bytes);
            for (offset, byte) in MAGIC.into_iter().chain([0, 0, 0, 3]).enumerate() {
                if let Some(slot) = bytes.get_mut(offset) {
                    *slot = byte;
                }
            }
            let _ = read_header(&bytes);
            read_other_references(&bytes);
        }
    }

    #[test]
    fn fuzz_header() {
        let mut with_name = backed(512, 9);
        with_name[512..521].copy_from_slice(b"/a/b.raw\xff");
        snapdeck_fuzz::FuzzTarget::new("qcow2 header")
            .seed(plain())
            .seed(with_name)
            .seed(with_extensions(
                3,
                b"\xe2\x79\x2a\xca\0\0\0\x05qcow2\0\0\0DATA\0\0\0\x02/x",
            ))
            .seed([&b"QED\0"[..], &[1; 60]].concat())
            .run(|start| {
                read_backing_format(start);
                read_other_references(start);
                match read_header(start) {
                    Ok(facts) => {
                        assert!(facts.cluster_size.is_power_of_two());
                        assert!((512..=2 << 20).contains(&facts.cluster_size));
                        assert!(facts.backing_file.is_none_or(|name| name.len() <= 3 * 1023));
                    }
                    Err(HeaderError::Incomplete { needed_bytes }) => {
                        assert!((start.len()..=2 << 20).contains(&needed_bytes));
                    }
                    Err(HeaderError::Invalid(_)) => {}
                }
            });
    }
}
