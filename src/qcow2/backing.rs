//! How an overlay says its backing file is to be read ("Header extensions", backing file format name).

use super::header::{field_u32, read_header};

const BACKING_FORMAT: u32 = 0xe279_2aca;
const END: u32 = 0;

/// The format named in the bytes a file begins with, where one is. Extensions stand between the header and the
/// backing file's name, within the first cluster; what is cut off is not found.
pub fn read_backing_format(start: &[u8]) -> Option<String> {
    let facts = read_header(start).ok()?;
    let mut at = match facts.version {
        2 => 72,
        _ => usize::try_from(field_u32(start, 100)).ok()?,
    };
    let end = usize::try_from(facts.cluster_size).ok()?.min(start.len());
    // Each takes 8 bytes at least.
    while at + 8 <= end {
        let (kind, length) = (field_u32(start, at), field_u32(start, at + 4));
        let data = at + 8..(at + 8).checked_add(usize::try_from(length).ok()?)?;
        match kind {
            END => return None,
            BACKING_FORMAT => {
                let name = start.get(..end)?.get(data)?;
                return Some(String::from_utf8_lossy(name).into_owned());
            }
            _ => at = data.end.checked_next_multiple_of(8)?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start(version: u32, extensions: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[20..24].copy_from_slice(&16u32.to_be_bytes());
        bytes[96..104].copy_from_slice(&[0, 0, 0, 4, 0, 0, 0, 112]);
        let at = if version == 2 { 72 } else { 112 };
        bytes[at..at + extensions.len()].copy_from_slice(extensions);
        bytes
    }

    #[test]
    fn is_found_behind_other_extensions_and_not_past_the_last() {
        let other = b"\x68\x03\xf8\x57\0\0\0\x03abc\0\0\0\0\0";
        let raw = b"\xe2\x79\x2a\xca\0\0\0\x03raw\0\0\0\0\0";
        for version in [2, 3] {
            let both = start(version, &[&other[..], raw].concat());
            assert_eq!(read_backing_format(&both).as_deref(), Some("raw"));
            assert_eq!(read_backing_format(&start(version, other)), None);
            let ended = start(version, &[&[0; 8][..], raw].concat());
            assert_eq!(read_backing_format(&ended), None);
        }
    }

    proptest! {
        #[test]
        fn takes_any_extensions(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_backing_format(&start(3, &bytes));
            read_backing_format(&bytes);
        }
    }
}
