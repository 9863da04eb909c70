//! Blocks of the overlay's file, hashed on a remote host: what is unchanged since the last push is not read over the link.

use std::ops::Range;

use snapdeck_host::Host;
use snapdeck_model::{BLOCK_BYTES, BlockSet, Digest, Kind, MAX_IMAGE_BYTES, Result, block_count};

use super::disk_chain::DiskChain;
use crate::context::Context;
use crate::hash_blocks::{HashedBlocks, hash_unknown_blocks};
use crate::sandbox_disk::SandboxDisk;

/// A smaller overlay is read as fast as it is hashed.
const MIN_OVERLAY_BYTES: u64 = 32 << 20;

/// Hashes the blocks of the overlay on its host; `None` if that is of no use: for a local host, a small overlay, or one that a
/// guest writes to.
///
/// # Errors
/// `Cancelled`, `Unreachable`.
pub(super) async fn hash_overlay(
    host: &Host,
    source: &SandboxDisk,
    chain: &DiskChain,
    ctx: &Context,
) -> Result<Option<Vec<Digest>>> {
    let size_bytes = chain.overlay_bytes();
    let is_useful = (MIN_OVERLAY_BYTES..=MAX_IMAGE_BYTES).contains(&size_bytes);
    if !host.is_remote() || !is_useful || chain.point_in_time.is_some() {
        return Ok(None);
    }
    let blocks = BlockSet::all(size_bytes);
    match hash_unknown_blocks(host, (&source.disk_path, None), &blocks, ctx).await {
        Ok(HashedBlocks { digests, .. }) => {
            let is_complete = digests.len() as u64 == block_count(size_bytes);
            Ok(is_complete.then(|| digests.into_values().collect()))
        }
        Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::Unreachable) => Err(error),
        Err(error) => {
            ctx.info(format!("{}; reading the whole overlay", error.message()));
            Ok(None)
        }
    }
}

/// Returns the ranges of the overlay's file whose blocks have the digests of before.
pub(super) fn unchanged_ranges(before: &[Digest], now: Option<&[Digest]>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let blocks = before.iter().zip(now.unwrap_or_default());
    for (block, (old, new)) in (0..).zip(blocks) {
        let range = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
        match ranges.last_mut() {
            _ if old != new => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_with_the_same_digest_are_unchanged() {
        let digests = |numbers: &[u8]| numbers.iter().map(|number| Digest([*number; 32])).collect();
        let (before, now): (Vec<Digest>, Vec<Digest>) =
            (digests(&[1, 2, 3, 4, 5]), digests(&[1, 2, 9, 4]));
        let block = BLOCK_BYTES;
        assert_eq!(
            unchanged_ranges(&before, Some(&now)),
            [0..2 * block, 3 * block..4 * block]
        );
        assert!(unchanged_ranges(&before, None).is_empty());
    }
}
