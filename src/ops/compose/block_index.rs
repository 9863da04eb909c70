//! Blocks of other objects of the bucket, by their digests: the store copies a part that some object has already.
//!
//! A cache, built from a bounded number of manifests. What it lacks is uploaded; each object is looked at again after the
//! copies.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use super::base_proof::is_trusted;
use snapdeck_bucket::Bucket;
use snapdeck_model::{BLOCK_BYTES, Digest, Object, SnapshotName, block_bytes, family_name};

/// Pages of the listing that are read, of 1000 keys.
const MAX_PAGES: usize = 10;
/// Manifests that are read.
const MAX_MANIFESTS: usize = 32;
const MAX_CONCURRENT_READS: usize = 8;
/// Blocks in memory, of 48 bytes: those of 4 TiB.
const MAX_BLOCKS: usize = 1 << 19;

#[derive(Default)]
pub(super) struct BlockIndex {
    objects: Vec<(Object, Vec<Digest>)>,
    /// Index of an object and number of the block in it.
    places: HashMap<Digest, (usize, usize)>,
}

impl BlockIndex {
    /// Reads the manifests of the objects that most likely have the blocks of a new image: those of the families of `names`
    /// first, then the newest.
    ///
    /// Skips manifests that cannot be read.
    pub(super) async fn read(bucket: &Bucket, names: &[&SnapshotName]) -> Self {
        let pages = bucket.list().take(MAX_PAGES);
        let mut objects: Vec<Object> = pages
            .filter_map(async |page| page.ok())
            .flat_map(stream::iter)
            .filter(|object| std::future::ready(object.problem.is_none()))
            .collect()
            .await;
        let is_related = |object: &Object| {
            let mut families = names.iter().map(|name| family_name(name));
            families.any(|family| family == family_name(&object.name))
        };
        objects
            .sort_by_cached_key(|object| (!is_related(object), std::cmp::Reverse(object.modified)));
        objects.truncate(MAX_MANIFESTS);
        let read = |object: Object| async move {
            let manifest = bucket.manifest(&object).await.ok().flatten()?;
            is_trusted(bucket, &manifest).then_some((object, manifest.blocks))
        };
        let mut manifests = stream::iter(objects)
            .map(read)
            .buffered(MAX_CONCURRENT_READS);
        let mut index = Self::default();
        while let Some(found) = manifests.next().await {
            if let Some((object, blocks)) = found {
                index.add(object, blocks);
            }
        }
        index
    }

    fn add(&mut self, object: Object, blocks: Vec<Digest>) {
        if self.places.len() + blocks.len() > MAX_BLOCKS {
            return;
        }
        let number = self.objects.len();
        for (block, digest) in blocks.iter().enumerate() {
            // Only whole blocks: a part begins and ends with one.
            if block_bytes(block as u64, object.size_bytes) == BLOCK_BYTES {
                self.places.entry(*digest).or_insert((number, block));
            }
        }
        self.objects.push((object, blocks));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the number of an object that has these consecutive blocks, and their offset in it.
    pub(super) fn find(&self, digests: &[Digest]) -> Option<(usize, u64)> {
        let (number, block) = *self.places.get(digests.first()?)?;
        let (object, blocks) = self.objects.get(number)?;
        let end = block + digests.len();
        let has_all = blocks.get(block..end) == Some(digests)
            && end as u64 * BLOCK_BYTES <= object.size_bytes;
        has_all.then_some((number, block as u64 * BLOCK_BYTES))
    }

    pub(super) fn object(&self, number: usize) -> Option<&Object> {
        self.objects.get(number).map(|(object, _)| object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_runs_of_whole_blocks_at_any_offset() {
        let digest = |number: u8| Digest([number; 32]);
        let object = Object {
            name: "app".parse().unwrap(),
            key: "app.qcow2".to_owned(),
            size_bytes: 3 * BLOCK_BYTES + 5,
            modified: None,
            etag: None,
            problem: None,
        };
        let mut index = BlockIndex::default();
        index.add(object, [1, 2, 3, 4].map(digest).to_vec());
        assert_eq!(index.find(&[digest(2)]), Some((0, BLOCK_BYTES)));
        assert_eq!(index.find(&[digest(2), digest(3)]), Some((0, BLOCK_BYTES)));
        assert_eq!(index.find(&[digest(3), digest(2)]), None);
        assert_eq!(index.find(&[digest(4)]), None, "it is shorter");
        assert_eq!(index.find(&[digest(3), digest(4)]), None);
        assert_eq!(index.find(&[]), None);
    }
}
