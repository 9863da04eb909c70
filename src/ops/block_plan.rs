//! From where each block of a pulled image comes: it is there already, another snapshot of the host has it, or it is
//! fetched. Decided from manifests alone.

use std::collections::{BTreeMap, HashMap};

use snapdeck_host::BlockCopy;
use snapdeck_model::{BlockSet, Digest, Manifest, block_bytes, block_count};

/// A plan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BlockPlan {
    /// Blocks that are there, by their records.
    pub(crate) present: BlockSet,
    /// Blocks to be copied from each origin, in the order of the origins; in the order of the image.
    pub(crate) copies: Vec<Vec<BlockCopy>>,
    /// Blocks to be fetched.
    pub(crate) to_fetch: BlockSet,
}

/// Plans an image of `size_bytes` whose blocks are to be `wanted`; where that is not known, nothing can be copied.
/// `recorded` is what an earlier pull left. The first of the `origins` that has a block gives it, wherever it has it.
pub(crate) fn plan_blocks(
    size_bytes: u64,
    wanted: Option<&[Digest]>,
    recorded: &BTreeMap<u64, Digest>,
    origins: &[&Manifest],
) -> BlockPlan {
    let digest = |block: u64| wanted.and_then(|wanted| wanted.get(block as usize));
    let is_here = |block| match (recorded.get(&block), digest(block)) {
        (Some(recorded), Some(wanted)) => recorded == wanted,
        (recorded, _) => recorded.is_some(),
    };
    let here = BlockSet::from_predicate(size_bytes, is_here);
    let mut fetch = BlockSet::from_predicate(size_bytes, |block| !here.contains(block));
    let copies = origins
        .iter()
        .map(|origin| {
            let mut places = HashMap::new();
            for (at, digest) in (0..).zip(&origin.blocks) {
                places.entry(digest).or_insert(at);
            }
            let pieces: Vec<BlockCopy> = fetch
                .iter()
                .filter_map(|to| {
                    let (wanted, bytes) = (digest(to)?, block_bytes(to, size_bytes));
                    // In its own place if it is there: then a file system may share longer runs.
                    let stays = origin.blocks.get(to as usize) == Some(wanted);
                    let from = if stays { to } else { *places.get(wanted)? };
                    let fits = block_bytes(from, origin.size_bytes) == bytes;
                    fits.then_some(BlockCopy {
                        source: from,
                        target: to,
                        size_bytes: bytes,
                    })
                })
                .collect();
            pieces.iter().for_each(|piece| fetch.remove(piece.target));
            pieces
        })
        .collect();
    BlockPlan {
        present: here,
        copies,
        to_fetch: fetch,
    }
}

/// Is the greater part of the image what an origin has, in the same places? Then its file is the one to begin with.
pub(crate) fn is_same_image(pieces: &[BlockCopy], size_bytes: u64) -> bool {
    let stay = pieces
        .iter()
        .filter(|piece| piece.source == piece.target)
        .count();
    stay as u64 * 2 > block_count(size_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::BLOCK_BYTES;

    fn digest(of: u8) -> Digest {
        Digest([of; 32])
    }

    /// An image whose last block has one byte.
    fn manifest(name: &str, blocks: &[u8]) -> Manifest {
        let size = (blocks.len() as u64 - 1) * BLOCK_BYTES + 1;
        let blocks = blocks.iter().copied().map(digest).collect();
        Manifest::new(name.parse().unwrap(), size, blocks)
    }

    fn piece(from: u64, to: u64) -> BlockCopy {
        BlockCopy {
            source: from,
            target: to,
            size_bytes: BLOCK_BYTES,
        }
    }

    fn planned(wanted: &Manifest, recorded: &[(u64, u8)], origins: &[&Manifest]) -> BlockPlan {
        let recorded = recorded.iter().map(|(at, of)| (*at, digest(*of))).collect();
        plan_blocks(wanted.size_bytes, Some(&wanted.blocks), &recorded, origins)
    }

    fn blocks(set: &BlockSet) -> Vec<u64> {
        set.iter().collect()
    }

    #[test]
    fn each_block_comes_from_where_it_is_cheapest() {
        let wanted = manifest("app", &[1, 2, 3, 4, 5, 9]);
        let near = manifest("near", &[1, 7, 2, 8]);
        let far = manifest("far", &[2, 1, 4, 3, 6]);
        let plan = planned(&wanted, &[(0, 1), (4, 6)], &[&near, &far]);
        assert_eq!(
            blocks(&plan.present),
            [0],
            "what is recorded otherwise is not"
        );
        assert_eq!(
            plan.copies,
            [vec![piece(2, 1)], vec![piece(3, 2), piece(2, 3)]]
        );
        assert_eq!(blocks(&plan.to_fetch), [4, 5]);
    }

    #[test]
    fn a_block_stays_in_its_place_where_it_can() {
        let wanted = manifest("app", &[1, 1, 1, 9]);
        let plan = planned(&wanted, &[], &[&manifest("base", &[2, 1, 1, 3])]);
        assert_eq!(plan.copies, [vec![piece(1, 0), piece(1, 1), piece(2, 2)]]);
        assert!(is_same_image(&[piece(0, 0), piece(1, 1)], 3 * BLOCK_BYTES));
        assert!(!is_same_image(&[piece(0, 0), piece(1, 2)], 3 * BLOCK_BYTES));
    }

    #[test]
    fn a_block_of_another_length_is_another_block() {
        // A manifest that lies: its last block, of one byte, has the digest of a whole one.
        let wanted = manifest("app", &[5, 6, 7]);
        let plan = planned(&wanted, &[], &[&manifest("base", &[1, 5])]);
        assert_eq!(blocks(&plan.to_fetch), [0, 1, 2]);
    }

    #[test]
    fn without_a_manifest_only_what_was_left_is_there() {
        let recorded = BTreeMap::from([(1, digest(1))]);
        let base = manifest("base", &[1, 2, 3]);
        let plan = plan_blocks(base.size_bytes, None, &recorded, &[&base]);
        assert_eq!(
            (blocks(&plan.present), plan.copies),
            (vec![1], vec![vec![]])
        );
        assert_eq!(blocks(&plan.to_fetch), [0, 2]);
    }
}
