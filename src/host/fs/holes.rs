//! Holes of a file: blocks that read as zeros, and are known without being read.
//!
//! A wrong hole would be a wrong digest. So only file systems count whose SEEK_HOLE (lseek(2)) is exact, and the file is
//! written to the disk first: data without an extent yet is not a hole. That is done on every file system: a page that is
//! mapped and already dirty is changed without a new time of the file, and the digests follow.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use nix::unistd::{Whence, lseek};

use super::blocks::format_stamp;
use super::checked_open::check_stamp;
use super::local::LocalFs;
use super::pinned::open_pinned;
use super::remote::RemoteFs;
use snapdeck_model::{
    BLOCK_BYTES, BlockSet, Error, FileStamp, Kind, MAX_IMAGE_BYTES, Result, block_count,
};

/// For writing the file to the disk and for finding its extents.
const TIMEOUT: Duration = Duration::from_secs(60);

impl LocalFs {
    /// Returns the blocks of a file that are holes; it has `stamp` all the time.
    pub(super) async fn find_holes(
        &self,
        path: &str,
        stamp: Option<FileStamp>,
    ) -> Result<BlockSet> {
        let (name, settings) = (path.to_owned(), self.settings.clone());
        let open = move || open_pinned(&settings, &name).map(Arc::new);
        self.find_holes_of(path, stamp, open).await
    }

    /// Returns the blocks that are holes of the file that `open` returns; `path` is its name.
    pub(super) async fn find_holes_of(
        &self,
        path: &str,
        stamp: Option<FileStamp>,
        open: impl FnOnce() -> io::Result<Arc<File>> + Send + 'static,
    ) -> Result<BlockSet> {
        let find = move || {
            let file = open()?;
            check_stamp(&file, stamp)?;
            let size_bytes = file.metadata()?.len();
            // The set of its blocks has a bit for each.
            if size_bytes > MAX_IMAGE_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let holes = hole_blocks(size_bytes, &list_holes(&file, size_bytes)?);
            check_stamp(&file, stamp)?;
            Ok(holes)
        };
        let action = format!("find the holes of {path}");
        self.run(action, TIMEOUT, find).await
    }
}

impl RemoteFs {
    /// Returns the blocks of a file that are holes; it has `stamp` all the time.
    pub(super) async fn find_holes(
        &self,
        path: &str,
        stamp: Option<FileStamp>,
    ) -> Result<BlockSet> {
        let action = format!("find the holes of {path}");
        let stamp = stamp.map(format_stamp).unwrap_or_default();
        let args = [&*self.script_path(path), &*stamp, &*BLOCK_BYTES.to_string()];
        let output = self.call(&action, "list_holes", &args, TIMEOUT).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse_holes(&text).ok_or_else(|| {
            let summary = format!("cannot {action} on host {}", self.runner.host());
            Error::new(Kind::Failed, summary).with_cause("the list of holes is not complete")
        })
    }
}

/// Returns the holes of a file that may have a whole block; none where they are not certain.
fn list_holes(file: &File, size_bytes: u64) -> io::Result<Vec<Range<u64>>> {
    file.sync_data()?;
    let kind = fstatfs(file)?.filesystem_type();
    if ![EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC].contains(&kind) {
        return Ok(Vec::new());
    }
    let (mut holes, mut offset) = (Vec::new(), 0);
    let seek = |from: u64, whence| -> io::Result<u64> {
        let from = i64::try_from(from).map_err(io::Error::other)?;
        match lseek(file, from, whence) {
            Ok(found) => u64::try_from(found).map_err(io::Error::other),
            // No data behind it.
            Err(Errno::ENXIO) => Ok(size_bytes),
            Err(error) => Err(error.into()),
        }
    };
    while offset < size_bytes {
        let data = seek(offset, Whence::SeekData)?.min(size_bytes);
        // A file may have many that are shorter. The last block may be shorter, too.
        let length = data.saturating_sub(offset);
        if length >= BLOCK_BYTES || (data == size_bytes && length > 0) {
            holes.push(offset..data);
        }
        let next = match data < size_bytes {
            true => seek(data, Whence::SeekHole)?,
            false => size_bytes,
        };
        if next <= offset {
            return Err(io::Error::other("SEEK_HOLE does not advance"));
        }
        offset = next;
    }
    Ok(holes)
}

/// Returns the blocks of a file that are in one of the holes as a whole.
fn hole_blocks(size_bytes: u64, holes: &[Range<u64>]) -> BlockSet {
    let mut blocks = BlockSet::none(size_bytes);
    for hole in holes {
        let end = match hole.end >= size_bytes {
            true => block_count(size_bytes),
            false => hole.end / BLOCK_BYTES,
        };
        (hole.start.div_ceil(BLOCK_BYTES)..end).for_each(|block| blocks.insert(block));
    }
    blocks
}

/// Parses the output of the verb `list_holes`; `None` if it is truncated.
fn parse_holes(text: &str) -> Option<BlockSet> {
    let (list, end) = text.trim_end().rsplit_once('\n').unwrap_or(("", text));
    let size_bytes = end.trim_end().strip_prefix("end ")?.parse().ok()?;
    if size_bytes > MAX_IMAGE_BYTES {
        return None;
    }
    let hole = |line: &str| {
        let (start, length) = line.split_once(' ')?;
        let (start, length): (u64, u64) = (start.parse().ok()?, length.parse().ok()?);
        // QEMU fills up the last sector of a file.
        Some(start..start.checked_add(length)?.min(size_bytes))
    };
    let holes: Vec<Range<u64>> = list.lines().map(hole).collect::<Option<_>>()?;
    let is_ascending = holes.iter().all(|hole| hole.start < hole.end)
        && holes.is_sorted_by(|one, next| one.end <= next.start);
    is_ascending.then(|| hole_blocks(size_bytes, &holes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::FileExt;

    fn blocks(set: &BlockSet) -> Vec<u64> {
        set.iter().collect()
    }

    #[test]
    fn only_blocks_without_any_data_are_holes() {
        let file = tempfile::tempfile().unwrap();
        let size = 5 * BLOCK_BYTES + 7;
        file.set_len(size).unwrap();
        // The last byte of block 1, the first of block 3.
        file.write_all_at(b"x", 2 * BLOCK_BYTES - 1).unwrap();
        file.write_all_at(b"x", 3 * BLOCK_BYTES).unwrap();
        let holes = list_holes(&file, size).unwrap();
        let found = blocks(&hole_blocks(size, &holes));
        // None of them on a file system whose holes are not certain.
        assert!(found.is_empty() || found == [0, 2, 4, 5], "{found:?}");
        let full = tempfile::tempfile().unwrap();
        full.write_all_at(&vec![0; 3 << 20], 0).unwrap();
        let holes = list_holes(&full, 3 << 20).unwrap();
        assert!(hole_blocks(3 << 20, &holes).is_empty());
    }

    #[test]
    fn a_list_of_holes_is_complete_and_ascending() {
        let size = 3 * BLOCK_BYTES + 1;
        let list = |lines: &str| parse_holes(lines).map(|set| blocks(&set));
        let end = format!("end {size}\n");
        assert_eq!(list(&end), Some(vec![]));
        let one = format!("{} {}\n{end}", BLOCK_BYTES, 2 * BLOCK_BYTES + 1);
        assert_eq!(list(&one), Some(vec![1, 2, 3]));
        let inner = format!("1 {}\n{end}", 2 * BLOCK_BYTES);
        assert_eq!(list(&inner), Some(vec![1]));
        assert_eq!(list("0 512\nend 9\n"), Some(vec![0]));
        for bad in [
            "",
            "0 5\n",
            "x 5\nend 9\n",
            "9 1\nend 9\n",
            "4 1\n0 5\nend 9\n",
            "end 9\n0 9\n",
        ] {
            assert_eq!(list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fuzz_holes() {
        snapdeck_fuzz::FuzzTarget::new("list of holes")
            .seed("0 8388608\n16777216 16777216\nend 33554433\n")
            .seed("end 0\n")
            .max_bytes(1 << 16)
            .memory(1 << 20, 64)
            .run(|output| {
                // A set takes a bit for each block of the announced size.
                let _ = parse_holes(&String::from_utf8_lossy(output));
            });
    }
}
