//! Blocks of the bucket's objects, by their digests: the store copies a part that some object has already.
//!
//! A cache, built from a bounded number of manifests. What it lacks is uploaded; each object is looked at again after the
//! copies.

use std::collections::{BTreeMap, HashSet};

use futures_util::{FutureExt, StreamExt, stream};

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{BLOCK_BYTES, Digest, Object, Result, SnapshotName, block_bytes, family_name};

use crate::compose::is_trusted;
use crate::context::Context;

/// Pages of the listing that are read, of 1000 keys.
const MAX_PAGES: usize = 10;
/// Manifests that are read.
const MAX_MANIFESTS: usize = 32;
const MAX_CONCURRENT_READS: usize = 8;
/// Blocks in memory, of 72 bytes: those of 4 TiB.
const MAX_BLOCKS: usize = 1 << 19;
/// Places of one digest that are tried: an image may have thousands of blocks of zeros.
const MAX_PLACES: usize = 16;
/// S3 copies no part of a shorter object.
const MIN_OBJECT_BYTES: u64 = 5 << 20;

/// The blocks of some objects.
#[derive(Default)]
pub(crate) struct BlockIndex {
    images: Vec<IndexedImage>,
    /// Index of an image and of the block in it, ordered by digest, then as the images were added.
    places: Vec<(Digest, u32, u32)>,
}

struct IndexedImage {
    object: Object,
    blocks: Vec<Digest>,
    /// Whether digests are only the word of the host.
    is_claimed: bool,
}

/// The place of a part in one of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartPlace {
    /// Number of the object.
    pub object: usize,
    /// Offset in it, in bytes.
    pub offset: u64,
}

impl BlockIndex {
    /// Reads the manifests of the objects that most likely have the blocks of a new image: those of `names` first, then
    /// those of their families, then the newest; until they have all blocks of `wanted`, if these are known. The image is one of
    /// `host`.
    ///
    /// Skips objects that cannot be read.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) async fn read(
        host: &Host,
        bucket: &Bucket,
        (names, wanted): (&[SnapshotName], Option<&[Digest]>),
        ctx: &Context,
    ) -> Result<Self> {
        let mut index = Self::default();
        let mut missing = wanted.map(|wanted| wanted.iter().copied().collect());
        let read = async {
            let inspect = |name: SnapshotName| {
                async move { bucket.inspect(&name).await.ok().flatten() }.boxed()
            };
            let named = stream::iter(names.to_vec())
                .take(MAX_MANIFESTS)
                .map(inspect)
                .buffered(MAX_CONCURRENT_READS);
            let named: Vec<Option<Object>> = named.collect().await;
            let named: Vec<Object> = named.into_iter().flatten().collect();
            let count = named.len();
            if index.add_objects(host, bucket, named, &mut missing).await {
                let others = find_others(bucket, names).await;
                let others = others.into_iter().take(MAX_MANIFESTS - count).collect();
                index.add_objects(host, bucket, others, &mut missing).await;
            }
            Ok(())
        };
        ctx.until_cancelled(Box::pin(read)).await?;
        index.places.sort_unstable();
        Ok(index)
    }

    /// Adds the objects that have missing blocks, in this order; returns whether some may still be missing.
    async fn add_objects(
        &mut self,
        host: &Host,
        bucket: &Bucket,
        objects: Vec<Object>,
        missing: &mut Option<HashSet<Digest>>,
    ) -> bool {
        let is_usable =
            |object: &Object| object.problem.is_none() && object.size_bytes >= MIN_OBJECT_BYTES;
        let read = |object: Object| {
            let read = async move {
                let manifest = bucket.manifest(&object).await.ok().flatten()?;
                // Digests whose origin the settings do not trust prove nothing, nor does the word of another host.
                let is_usable = is_trusted(bucket, &manifest)
                    && (manifest.claimed.as_ref()).is_none_or(|claim| *claim == host.claim());
                is_usable.then_some(IndexedImage {
                    object,
                    is_claimed: manifest.claimed.is_some(),
                    blocks: manifest.blocks,
                })
            };
            read.boxed()
        };
        let mut manifests = stream::iter(objects.into_iter().filter(is_usable))
            .map(read)
            .buffered(MAX_CONCURRENT_READS);
        while missing.as_ref().is_none_or(|missing| !missing.is_empty()) {
            match manifests.next().await {
                Some(Some(image)) => self.add(image, missing),
                Some(None) => {}
                None => return true,
            }
        }
        false
    }

    /// Adds an object, unless it has no missing block, or all of them would have too many.
    fn add(&mut self, image: IndexedImage, missing: &mut Option<HashSet<Digest>>) {
        let blocks = &image.blocks;
        if self.places.len() + blocks.len() > MAX_BLOCKS {
            return;
        }
        if let Some(missing) = missing {
            let before = missing.len();
            for digest in blocks {
                missing.remove(digest);
            }
            if missing.len() == before {
                return;
            }
        }
        let number = self.images.len() as u32;
        let place = |(block, digest): (u32, &Digest)| (*digest, number, block);
        self.places.extend((0..).zip(blocks).map(place));
        self.images.push(image);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    pub(crate) fn object(&self, number: usize) -> Option<&Object> {
        self.images.get(number).map(|image| &image.object)
    }

    /// Returns whether digests of an object are only the word of the host.
    pub(crate) fn is_claimed(&self, number: usize) -> bool {
        self.images
            .get(number)
            .is_some_and(|image| image.is_claimed)
    }

    /// Returns a place of consecutive blocks with these digests, the last one of `last_block_bytes`: at `offset` if an
    /// object has them there, since most stores copy that without reading.
    pub(crate) fn find(
        &self,
        digests: &[Digest],
        last_block_bytes: u64,
        offset: u64,
    ) -> Option<PartPlace> {
        let first_digest = digests.first()?;
        let has_blocks = |image: usize, first: usize| {
            let last = first + digests.len() - 1;
            self.images
                .get(image)
                .is_some_and(|IndexedImage { object, blocks, .. }| {
                    // A manifest may lie about the digest of its last block, which is shorter.
                    blocks.get(first..=last) == Some(digests)
                        && block_bytes(last as u64, object.size_bytes) == last_block_bytes
                })
        };
        let same_offset =
            (0..self.images.len()).map(|image| (image, (offset / BLOCK_BYTES) as usize));
        let start = self
            .places
            .partition_point(|(digest, ..)| digest < first_digest);
        let others = self.places.get(start..)?.iter().take(MAX_PLACES);
        let others = others
            .take_while(|(digest, ..)| digest == first_digest)
            .map(|(_, image, block)| (*image as usize, *block as usize));
        let (object, block) = same_offset
            .chain(others)
            .find(|(image, first)| has_blocks(*image, *first))?;
        Some(PartPlace {
            object,
            offset: block as u64 * BLOCK_BYTES,
        })
    }

    /// Returns the places of the parts of an image with these digests, by the index of the part.
    pub(crate) fn find_parts(
        &self,
        digests: &[Digest],
        size_bytes: u64,
        part_bytes: u64,
    ) -> BTreeMap<u64, PartPlace> {
        let blocks_per_part = (part_bytes / BLOCK_BYTES).max(1);
        let parts = (0..).zip(digests.chunks(blocks_per_part as usize));
        let place = |(index, part): (u64, &[Digest])| {
            let first = index * blocks_per_part;
            let last_block_bytes = block_bytes(first + part.len() as u64 - 1, size_bytes);
            let place = self.find(part, last_block_bytes, first * BLOCK_BYTES)?;
            Some((index, place))
        };
        parts.filter_map(place).collect()
    }
}

/// Returns the objects other than `names`: those of their families first, then the newest.
async fn find_others(bucket: &Bucket, names: &[SnapshotName]) -> Vec<Object> {
    let families: HashSet<&str> = names.iter().map(family_name).collect();
    let pages = bucket.list().take(MAX_PAGES);
    let mut objects: Vec<Object> = pages
        .filter_map(async |page| page.ok())
        .flat_map(|page| stream::iter(page.objects))
        .filter(|object| std::future::ready(!names.contains(&object.name)))
        .collect()
        .await;
    objects.sort_by_cached_key(|object| {
        let is_related = families.contains(family_name(&object.name));
        (!is_related, std::cmp::Reverse(object.modified))
    });
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(seeds: &[u8]) -> Vec<Digest> {
        seeds.iter().map(|seed| Digest([*seed; 32])).collect()
    }

    fn object(size_bytes: u64) -> Object {
        Object {
            name: "app".parse().unwrap(),
            key: "app.qcow2".to_owned(),
            size_bytes,
            modified: None,
            etag: Some("\"1\"".to_owned()),
            problem: None,
        }
    }

    fn image(object: Object, blocks: Vec<Digest>) -> IndexedImage {
        IndexedImage {
            object,
            blocks,
            is_claimed: false,
        }
    }

    fn index(images: &[(&[u8], u64)]) -> BlockIndex {
        let mut index = BlockIndex::default();
        for (seeds, size_bytes) in images {
            index.add(image(object(*size_bytes), digests(seeds)), &mut None);
        }
        index.places.sort_unstable();
        index
    }

    fn places(index: &BlockIndex, seeds: &[u8], part_blocks: u64) -> Vec<(u64, usize, u64)> {
        // The last block has one byte.
        let size_bytes = (seeds.len() as u64 - 1) * BLOCK_BYTES + 1;
        let parts = index.find_parts(&digests(seeds), size_bytes, part_blocks * BLOCK_BYTES);
        let place = |(index, part): (u64, PartPlace)| {
            assert_eq!(part.offset % BLOCK_BYTES, 0);
            (index, part.object, part.offset / BLOCK_BYTES)
        };
        parts.into_iter().map(place).collect()
    }

    #[test]
    fn a_part_is_found_at_its_offset_or_at_another() {
        let index = index(&[
            (&[1, 1, 3, 9], 3 * BLOCK_BYTES + 1),
            (&[4, 5, 1], 2 * BLOCK_BYTES + 1),
        ]);
        assert_eq!(
            places(&index, &[1, 1, 4, 3, 7, 9], 1),
            [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 0, 2), (5, 0, 3)]
        );
    }

    #[test]
    fn all_blocks_of_a_part_are_consecutive() {
        let index = index(&[(&[9, 1, 2, 3, 4, 1], 5 * BLOCK_BYTES + 1)]);
        assert_eq!(
            places(&index, &[1, 2, 2, 3, 3, 2, 4, 1, 1], 2),
            [(0, 0, 1), (1, 0, 2), (4, 0, 5)]
        );
    }

    #[test]
    fn a_part_does_not_reach_beyond_an_object() {
        // A manifest that says that the object's last byte has the digest of a whole block.
        let index = index(&[(&[1, 2], BLOCK_BYTES + 1)]);
        assert_eq!(places(&index, &[2, 1, 7], 1), [(1, 0, 0)]);
    }

    #[test]
    fn without_objects_nothing_is_found() {
        assert!(places(&BlockIndex::default(), &[1, 2], 1).is_empty());
        assert_eq!(index(&[(&[1], 1)]).find(&[], BLOCK_BYTES, 0), None);
    }

    #[test]
    fn images_that_have_no_missing_block_are_left_out() {
        let mut index = index(&[]);
        let mut missing = Some(digests(&[1, 2]).into_iter().collect());
        index.add(image(object(1), digests(&[1, 3])), &mut missing);
        index.add(image(object(2), digests(&[1, 4])), &mut missing);
        assert_eq!(index.images.len(), 1);
        assert_eq!(missing.map(|missing| missing.len()), Some(1));
    }

    #[test]
    fn objects_of_too_many_blocks_are_left_out() {
        let mut index = index(&[]);
        index.add(
            image(object(1), vec![Digest([0; 32]); MAX_BLOCKS]),
            &mut None,
        );
        let mut missing = Some(digests(&[1]).into_iter().collect());
        index.add(image(object(2), digests(&[1])), &mut missing);
        assert_eq!(index.images.len(), 1);
        assert_eq!(missing.map(|missing| missing.len()), Some(1));
    }
}
