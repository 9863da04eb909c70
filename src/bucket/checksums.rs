//! Checksums by which the store shows the content of an object, without the object being read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::s3::StoredChecksums;
use snapdeck_model::Digest;

const MIB: u64 = 1 << 20;
/// Parts of an object at most (S3 user guide, "Amazon S3 multipart upload limits"); each takes memory.
const MAX_PARTS: u64 = 10_000;
/// Lengths of parts that are tried at most: for each, the whole file is hashed.
const MAX_PART_LENGTHS: usize = 3;
/// Lengths of parts in MiB that S3 clients use by default, the most common ones first: aws (8, and its doubles for long
/// files), rclone (5), mc (16), the AWS console (17), s3cmd (15), s5cmd (50), and others.
const COMMON_PART_MIB: [u64; 16] = [
    8, 16, 5, 64, 50, 15, 17, 10, 32, 100, 128, 20, 25, 256, 512, 1024,
];

/// The checksums of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectChecksums {
    /// SHA-256 of its parts, with their lengths in bytes, which add up to that of the object. Empty: unknown.
    pub sha256_parts: Vec<(u64, Digest)>,
    /// CRC64NVME of the whole object.
    pub crc64nvme: Option<[u8; 8]>,
    /// The MD5 in its entity tag.
    pub md5: Option<Md5Tag>,
}

/// An entity tag that is an MD5, as that of most objects: S3 promises it only for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Md5Tag {
    /// Of the object's bytes.
    Whole([u8; 16]),
    /// Of the MD5s of its parts.
    Parts {
        /// The MD5.
        digest: [u8; 16],
        /// Possible lengths in bytes of all parts but the last, the most likely one first.
        part_lengths: Vec<u64>,
    },
}

impl ObjectChecksums {
    /// Decodes what the store says of an object of `size_bytes`; anything invalid is left out.
    pub(super) fn decode(stored: &StoredChecksums, size_bytes: u64, etag: &str) -> Self {
        let digest = |text: &String| decode_array(text).map(Digest);
        let whole = stored.sha256.as_ref().and_then(digest);
        let parts = stored.sha256_parts.iter();
        let parts: Option<Vec<(u64, Digest)>> = parts
            .map(|(length, text)| Some((*length, digest(text)?)))
            .collect();
        let is_whole = |parts: &Vec<(u64, Digest)>| {
            let lengths = parts.iter().map(|(length, _)| *length);
            let total = lengths.clone().try_fold(0, u64::checked_add);
            total == Some(size_bytes)
                && lengths.min().is_some_and(|length| length > 0)
                && parts.len() as u64 <= MAX_PARTS
        };
        let parts = parts.filter(is_whole);
        let sha256_parts = match whole {
            // Without a suffix it is that of the whole object.
            Some(digest) if stored.sha256_parts.len() <= 1 => vec![(size_bytes, digest)],
            _ => parts.unwrap_or_default(),
        };
        Self {
            sha256_parts,
            crc64nvme: stored.crc64nvme.as_ref().and_then(|crc| decode_array(crc)),
            md5: Md5Tag::parse(etag, size_bytes, stored.first_part_bytes),
        }
    }
}

impl Md5Tag {
    /// Parses an entity tag of an object of `size_bytes`, whose first part has `first_part_bytes` if that is known.
    fn parse(etag: &str, size_bytes: u64, first_part_bytes: Option<u64>) -> Option<Self> {
        let etag = etag.trim_matches('"');
        let (hex, count) = match etag.split_once('-') {
            Some((hex, count)) => (hex, Some(count.parse::<u64>().ok()?)),
            None => (etag, None),
        };
        let digest = decode_hex(hex)?;
        let Some(count) = count else {
            return Some(Self::Whole(digest));
        };
        let part_lengths = part_lengths(size_bytes, count, first_part_bytes);
        (!part_lengths.is_empty()).then_some(Self::Parts {
            digest,
            part_lengths,
        })
    }
}

/// Returns the likely lengths of the parts of an object of `size_bytes` in `count` parts.
fn part_lengths(size_bytes: u64, count: u64, first_part_bytes: Option<u64>) -> Vec<u64> {
    let is_possible =
        |length: &u64| *length > 0 && count <= MAX_PARTS && size_bytes.div_ceil(*length) == count;
    if let Some(length) = first_part_bytes.filter(is_possible) {
        return vec![length];
    }
    let Some(least) = (count > 0).then(|| size_bytes.div_ceil(count)) else {
        return Vec::new();
    };
    let common = COMMON_PART_MIB.iter().map(|length| length * MIB);
    // A client that divides by the number of parts.
    let divided = [least.next_multiple_of(MIB)];
    let mut lengths = Vec::new();
    for length in common.chain(divided).filter(is_possible) {
        if !lengths.contains(&length) && lengths.len() < MAX_PART_LENGTHS {
            lengths.push(length);
        }
    }
    lengths
}

fn decode_array<const N: usize>(base64: &str) -> Option<[u8; N]> {
    BASE64.decode(base64).ok()?.try_into().ok()
}

fn decode_hex(hex: &str) -> Option<[u8; 16]> {
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn part_lengths_follow_from_size_and_count() {
        let lengths = |mib: u64, count| {
            let lengths = part_lengths(mib * MIB, count, None);
            lengths
                .iter()
                .map(|length| length / MIB)
                .collect::<Vec<_>>()
        };
        assert_eq!(lengths(768, 96), [8]);
        assert_eq!(lengths(768, 154), [5]);
        assert_eq!(lengths(768, 48), [16]);
        assert_eq!(lengths(768, 12), [64]);
        assert_eq!(lengths(40, 5), [8]);
        // 33 MiB in 3 parts: 15 or 16 MiB by a client's default, 11 MiB by division.
        assert_eq!(lengths(33, 3), [16, 15, 11]);
        assert_eq!(lengths(40, 0), [] as [u64; 0]);
        assert_eq!(lengths(40, 41 * MIB), [] as [u64; 0]);
        // The store's answer excludes all others, unless it does not fit.
        assert_eq!(part_lengths(33 * MIB, 3, Some(12 * MIB)), [12 * MIB]);
        assert_eq!(part_lengths(33 * MIB, 3, Some(33 * MIB)).len(), 3);
        // No store has so many parts.
        assert_eq!(part_lengths(7 * MAX_PARTS, MAX_PARTS, Some(7)), [7]);
        assert_eq!(part_lengths(MIB, MIB, Some(1)), [] as [u64; 0]);
    }

    #[test]
    fn only_entity_tags_that_are_md5s_are_used() {
        let hex = "0123456789abcdef0123456789abcdef";
        let digest = 0x0123456789abcdef0123456789abcdef_u128.to_be_bytes();
        let parse = |tag: &str| Md5Tag::parse(tag, 40 * MIB, None);
        assert_eq!(parse(&format!("\"{hex}\"")), Some(Md5Tag::Whole(digest)));
        let parts = Md5Tag::Parts {
            digest,
            part_lengths: vec![8 * MIB],
        };
        assert_eq!(parse(&format!("\"{hex}-5\"")), Some(parts));
        for tag in [
            "",
            "\"\"",
            "abc",
            &hex[1..],
            &format!("{hex}-"),
            &format!("{hex}-x"),
            &format!("W/\"{hex}\""),
            &format!("+{}", &hex[1..]),
        ] {
            assert_eq!(parse(tag), None, "{tag}");
        }
    }

    #[test]
    fn checksums_of_parts_must_add_up() {
        let text = BASE64.encode([7; 32]);
        let decode = |parts: &[u64], whole: Option<&str>| {
            let stored = StoredChecksums {
                sha256: whole.map(str::to_owned),
                sha256_parts: parts.iter().map(|length| (*length, text.clone())).collect(),
                ..Default::default()
            };
            ObjectChecksums::decode(&stored, 20, "").sha256_parts
        };
        let digest = Digest([7; 32]);
        assert_eq!(decode(&[8, 12], None), [(8, digest), (12, digest)]);
        for wrong in [&[8][..], &[8, 13], &[0, 20], &[u64::MAX, 21], &[]] {
            assert_eq!(decode(wrong, None), [], "{wrong:?}");
        }
        let many = [MAX_PARTS as usize, MAX_PARTS as usize + 1].map(|count| {
            let stored = StoredChecksums {
                sha256_parts: vec![(1, text.clone()); count],
                ..Default::default()
            };
            let decoded = ObjectChecksums::decode(&stored, count as u64, "");
            decoded.sha256_parts.len() as u64
        });
        assert_eq!(many, [MAX_PARTS, 0]);
        assert_eq!(decode(&[], Some(&text)), [(20, digest)]);
        assert_eq!(decode(&[], Some(&format!("{text}-2"))), []);
        assert_eq!(decode(&[8, 12], Some("x")), [(8, digest), (12, digest)]);
    }
}
