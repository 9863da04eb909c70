//! Space of a file system.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Free bytes for users other than root.
    pub free_bytes: u64,
}

impl DiskSpace {
    /// Returns the space of the file system of a directory of this machine; `None` if it cannot be read. Blocks.
    pub(crate) fn read_local(dir: &Path) -> Option<Self> {
        let stat = statvfs(dir).ok()?;
        Some(Self {
            total_bytes: stat.blocks().saturating_mul(stat.fragment_size()),
            free_bytes: stat.blocks_available().saturating_mul(stat.fragment_size()),
        })
    }

    /// Parses `BLOCKS FREE_BLOCKS BLOCK_SIZE` of `stat -f`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (total, free, size) = (next()?, next()?, next()?);
        Some(Self {
            total_bytes: total.saturating_mul(size),
            free_bytes: free.saturating_mul(size),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parses_the_output_of_stat() {
        let space = DiskSpace::parse("10 3 4096").unwrap();
        assert_eq!((space.total_bytes, space.free_bytes), (40960, 12288));
        for text in ["", "1 2", "a b c", "1 2 -3"] {
            assert_eq!(DiskSpace::parse(text), None, "{text}");
        }
    }
}
