//! Plans the source of each block of a pulled image: the partial file, another snapshot of the host, or the bucket.
//! Decided from manifests alone.

use std::collections::{BTreeMap, HashMap};

use futures_util::{FutureExt, StreamExt, stream};
use humansize::{BINARY, format_size};

use snapdeck_host::{BlockCopy, CopySource, Host, StoredManifest};
use snapdeck_model::{
    BlockSet, Digest, Manifest, Result, SnapshotName, block_bytes, block_count, order_by_ancestry,
};

use crate::job::PullJob;

/// Digest of a whole block of zeros.
pub(crate) const ZERO_BLOCK: Digest = Digest([
    0x2d, 0xae, 0xb1, 0xf3, 0x60, 0x95, 0xb4, 0x4b, 0x31, 0x84, 0x10, 0xb3, 0xf4, 0xe8, 0xb5, 0xd9,
    0x89, 0xdc, 0xc7, 0xbb, 0x02, 0x3d, 0x14, 0x26, 0xc4, 0x92, 0xda, 0xb0, 0xa3, 0x05, 0x3e, 0x74,
]);
/// Concurrent reads of manifests of a host.
const MAX_MANIFEST_READS: usize = 4;
/// Blocks of all manifests of a host that are kept, of 32 bytes: those of 8 TiB.
const MAX_BLOCKS: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TransferPlan {
    /// Blocks that the file already has, by its records.
    pub present: BTreeMap<u64, Digest>,
    /// Blocks to copy from each snapshot of the host, in the order of the image.
    pub copies: Vec<(CopySource, Vec<BlockCopy>)>,
    /// Blocks of zeros, which are neither downloaded nor, in a new file, written.
    pub zeros: BlockSet,
    pub to_fetch: BlockSet,
}

impl TransferPlan {
    /// Plans the image by the manifests of the host's snapshots.
    ///
    /// `recorded` are the blocks that an earlier pull has written; `reuse_damaged` allows copying good blocks of the
    /// snapshot that is replaced.
    pub(crate) async fn new(
        job: PullJob<'_>,
        recorded: BTreeMap<u64, Digest>,
        reuse_damaged: bool,
    ) -> Self {
        let (host, source, ctx) = (job.host, job.source, job.ctx);
        let object = &source.object;
        let mut copy_sources = Vec::new();
        if let Some(manifest) = &source.manifest {
            copy_sources = find_copy_sources(host, manifest)
                .await
                .unwrap_or_else(|error| {
                    ctx.info(format!("{error}; not copying blocks from other snapshots"));
                    Vec::new()
                });
            if reuse_damaged {
                // Without a stamp each block is hashed: only those that match the manifest are used.
                let path = host.snapshot_path(&object.name);
                copy_sources.push((CopySource { path, stamp: None }, manifest.clone()));
            }
        }
        let expected = source.manifest.as_ref().map(|manifest| &*manifest.blocks);
        let plan = Self::from_manifests(object.size_bytes, expected, recorded, copy_sources);
        if !plan.present.is_empty() {
            let present_bytes: u64 = plan
                .present
                .keys()
                .map(|block| source.block_bytes(*block))
                .sum();
            ctx.info(format!(
                "resuming: {} of {} are on host {} from an earlier pull",
                format_size(present_bytes, BINARY),
                format_size(object.size_bytes, BINARY),
                host.name()
            ));
        }
        for (copy_source, copies) in &plan.copies {
            let bytes: u64 = copies.iter().map(|copy| copy.size_bytes).sum();
            let size = format_size(bytes, BINARY);
            ctx.info(format!("copying {size} from {}", copy_source.path));
        }
        plan
    }

    /// Returns the bytes that the file will take in addition, at least. Blocks at the same offset of another snapshot may
    /// share its extents. Others are counted: a manifest can demand any number of copies of one block.
    pub(crate) fn needed_bytes(&self) -> u64 {
        let copies = self.copies.iter().flat_map(|(_, blocks)| blocks);
        let moved = copies.filter(|block| block.source != block.target);
        let moved_bytes: u64 = moved.map(|block| block.size_bytes).sum();
        self.to_fetch.bytes() + moved_bytes
    }

    /// Plans an image of `size_bytes` with the digests `expected`; if they are unknown, nothing can be copied.
    ///
    /// A block is copied from the first of the `copy_sources` that has it, at any offset.
    fn from_manifests(
        size_bytes: u64,
        expected: Option<&[Digest]>,
        recorded: BTreeMap<u64, Digest>,
        copy_sources: Vec<(CopySource, Manifest)>,
    ) -> Self {
        let expected_digest = |block: u64| expected.and_then(|blocks| blocks.get(block as usize));
        let mut present = recorded;
        present.retain(|block, digest| {
            *block < block_count(size_bytes)
                && expected_digest(*block).is_none_or(|expected| expected == digest)
        });
        let zeros = BlockSet::from_predicate(size_bytes, |block| {
            !present.contains_key(&block) && expected_digest(block) == Some(&ZERO_BLOCK)
        });
        let mut to_fetch = BlockSet::from_predicate(size_bytes, |block| {
            !present.contains_key(&block) && !zeros.contains(block)
        });
        let mut copies = Vec::new();
        for (copy_source, manifest) in copy_sources {
            let mut first_blocks = HashMap::new();
            for (block, digest) in (0..).zip(&manifest.blocks) {
                first_blocks.entry(digest).or_insert(block);
            }
            let plan_copy = |target| {
                let (digest, bytes) = (expected_digest(target)?, block_bytes(target, size_bytes));
                // At the same offset if possible: then a file system may share longer extents.
                let is_in_place = manifest.blocks.get(target as usize) == Some(digest);
                let source = match is_in_place {
                    true => target,
                    false => *first_blocks.get(digest)?,
                };
                let is_same_length = block_bytes(source, manifest.size_bytes) == bytes;
                is_same_length.then_some(BlockCopy {
                    source,
                    target,
                    size_bytes: bytes,
                })
            };
            let blocks: Vec<BlockCopy> = to_fetch.iter().filter_map(plan_copy).collect();
            for block in &blocks {
                to_fetch.remove(block.target);
            }
            if !blocks.is_empty() {
                copies.push((copy_source, blocks));
            }
        }
        Self {
            present,
            copies,
            zeros,
            to_fetch,
        }
    }
}

/// Returns whether more than half of the image is copied without a change of offset: then the new file may begin as a
/// clone of the source.
pub(crate) fn is_mostly_in_place(copies: &[BlockCopy], size_bytes: u64) -> bool {
    let in_place = copies.iter().filter(|copy| copy.source == copy.target);
    in_place.count() as u64 * 2 > block_count(size_bytes)
}

/// Returns the host's snapshots that have manifests, closest relatives of the image first.
pub(crate) async fn find_copy_sources(
    host: &Host,
    image: &Manifest,
) -> Result<Vec<(CopySource, Manifest)>> {
    let names = host.snapshots().names().await?;
    let stored: Vec<Option<(SnapshotName, StoredManifest)>> = stream::iter(names)
        .map(|name| {
            let read = async move {
                match host.snapshots().stored_manifest(&name).await {
                    Ok(stored) => stored.map(|stored| (name, stored)),
                    Err(error) => {
                        tracing::debug!("{error}");
                        None
                    }
                }
            };
            read.boxed()
        })
        .buffered(MAX_MANIFEST_READS)
        // QEMU's user may add any number of them.
        .scan(
            0,
            |count, stored: Option<(SnapshotName, StoredManifest)>| {
                let blocks = stored
                    .as_ref()
                    .map_or(0, |(_, stored)| stored.manifest.blocks.len());
                *count += blocks;
                std::future::ready(Some(stored.filter(|_| *count <= MAX_BLOCKS)))
            },
        )
        .collect()
        .await;
    let stored = stored.into_iter().flatten().collect();
    let ordered = order_by_ancestry(image, stored, |stored: &StoredManifest| &stored.manifest);
    let copy_sources = ordered.into_iter().map(|(name, stored)| {
        let copy_source = CopySource {
            path: host.snapshot_path(&name),
            stamp: stored.manifest.file.filter(|_| stored.is_verified),
        };
        (copy_source, stored.manifest)
    });
    Ok(copy_sources.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapdeck_model::BLOCK_BYTES;

    fn digest(seed: u8) -> Digest {
        Digest([seed; 32])
    }

    /// An image whose last block has one byte.
    fn manifest(name: &str, blocks: &[u8]) -> Manifest {
        let size = (blocks.len() as u64 - 1) * BLOCK_BYTES + 1;
        let blocks = blocks.iter().copied().map(digest).collect();
        Manifest::new(name.parse().unwrap(), size, blocks)
    }

    fn block_copy(source: u64, target: u64) -> BlockCopy {
        BlockCopy {
            source,
            target,
            size_bytes: BLOCK_BYTES,
        }
    }

    fn copy_sources(manifests: &[&Manifest]) -> Vec<(CopySource, Manifest)> {
        let source = |manifest: &Manifest| CopySource {
            path: manifest.name.to_string(),
            stamp: None,
        };
        let manifests = manifests.iter();
        manifests
            .map(|manifest| (source(manifest), (*manifest).clone()))
            .collect()
    }

    fn plan(image: &Manifest, recorded: &[(u64, u8)], sources: &[&Manifest]) -> TransferPlan {
        let recorded = recorded.iter().map(|(block, seed)| (*block, digest(*seed)));
        TransferPlan::from_manifests(
            image.size_bytes,
            Some(&image.blocks),
            recorded.collect(),
            copy_sources(sources),
        )
    }

    fn blocks(set: &BlockSet) -> Vec<u64> {
        set.iter().collect()
    }

    #[test]
    fn each_block_has_the_cheapest_source() {
        let image = manifest("app", &[1, 2, 3, 4, 5, 9]);
        let near = manifest("near", &[1, 7, 2, 8]);
        let far = manifest("far", &[2, 1, 4, 3, 6]);
        let plan = plan(&image, &[(0, 1), (4, 6)], &[&near, &far]);
        assert_eq!(
            plan.present,
            BTreeMap::from([(0, digest(1))]),
            "a block with another recorded digest is not present"
        );
        let copies = plan
            .copies
            .iter()
            .map(|(source, blocks)| (&*source.path, &**blocks));
        assert_eq!(
            copies.collect::<Vec<_>>(),
            [
                ("near", &[block_copy(2, 1)][..]),
                ("far", &[block_copy(3, 2), block_copy(2, 3)])
            ]
        );
        assert_eq!(blocks(&plan.to_fetch), [4, 5]);
    }

    #[test]
    fn a_block_is_copied_in_place_if_possible() {
        let image = manifest("app", &[1, 1, 1, 9]);
        let plan = plan(&image, &[], &[&manifest("base", &[2, 1, 1, 3])]);
        assert_eq!(
            plan.copies[0].1,
            [block_copy(1, 0), block_copy(1, 1), block_copy(2, 2)]
        );
        let is_clone = |copies: &[BlockCopy]| is_mostly_in_place(copies, 3 * BLOCK_BYTES);
        assert!(is_clone(&[block_copy(0, 0), block_copy(1, 1)]));
        assert!(!is_clone(&[block_copy(0, 0), block_copy(1, 2)]));
    }

    #[test]
    fn a_block_of_another_length_is_not_copied() {
        // The last block of this manifest has one byte and the digest of a whole block.
        let image = manifest("app", &[5, 6, 7]);
        let plan = plan(&image, &[], &[&manifest("base", &[1, 5])]);
        assert_eq!(blocks(&plan.to_fetch), [0, 1, 2]);
    }

    #[test]
    fn without_a_manifest_only_recorded_blocks_are_reused() {
        let base = manifest("base", &[1, 2, 3]);
        let recorded = BTreeMap::from([(1, digest(1))]);
        let sources = copy_sources(&[&base]);
        let plan = TransferPlan::from_manifests(base.size_bytes, None, recorded.clone(), sources);
        assert_eq!(plan.present, recorded);
        assert!(plan.copies.is_empty());
        assert_eq!(blocks(&plan.to_fetch), [0, 2]);
    }

    #[test]
    fn blocks_of_zeros_are_not_downloaded() {
        let zeros = vec![0; BLOCK_BYTES as usize];
        assert_eq!(ZERO_BLOCK, snapdeck_host::hash_block(&zeros));
        let mut image = manifest("app", &[1, 2, 3]);
        image.blocks[0] = ZERO_BLOCK;
        let plan = plan(&image, &[], &[]);
        assert_eq!(
            (blocks(&plan.zeros), blocks(&plan.to_fetch)),
            (vec![0], vec![1, 2])
        );
    }

    #[test]
    fn copies_of_one_block_take_space() {
        let source = manifest("source", &[1, 2, 9]);
        let image = manifest("image", &[1, 1, 1, 1, 7]);
        let plan = plan(&image, &[], &[&source]);
        // One block at its place, three copies of it, and the last byte, which is downloaded.
        assert_eq!(plan.needed_bytes(), 3 * BLOCK_BYTES + 1);
    }
}
