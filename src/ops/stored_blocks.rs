//! Blocks that the bucket has: objects whose manifests name the digests of an image's blocks, at any place.
//!
//! Only a search: a wrong or missing manifest makes an upload slower, and what the store copies is proven by the digests
//! and by the object being the same before and after.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;

use futures_util::StreamExt;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{
    BLOCK_BYTES, Digest, Error, Kind, MAX_PARENTS, Manifest, Object, Result, SnapshotName,
    block_bytes, family_name,
};

use crate::compose::is_trusted;
use crate::context::Context;
use crate::transfer_plan::find_copy_sources;

/// Objects of which the manifest is read.
const MAX_OBJECTS: usize = 32;
/// Versions of the same snapshot among them, the newest ones.
const MAX_VERSIONS: usize = 8;
/// Pages of the listing that are searched for versions; a page has a thousand keys.
const MAX_PAGES: usize = 10;
/// S3 copies no part of a shorter object.
const MIN_OBJECT_BYTES: u64 = 5 << 20;
/// Places of one digest in an object that are tried; an image may have a thousand blocks of zeros.
const MAX_PLACES: usize = 4;

/// Objects that have blocks of an image, or may have some.
#[derive(Default)]
pub(crate) struct StoredBlocks(Vec<StoredImage>);

pub(crate) struct StoredImage {
    pub object: Object,
    blocks: Vec<Digest>,
}

/// The place of a part in one of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredPart {
    /// Index of the object.
    pub object: usize,
    /// Offset in it, in bytes.
    pub offset: u64,
}

impl StoredBlocks {
    /// Searches the bucket for blocks of the snapshot `name` of `host`: the object of that name, the parents, other versions
    /// of the snapshot, and the other snapshots of the host that have its blocks.
    ///
    /// # Errors
    /// `Cancelled`; else what cannot be read is left out.
    pub(crate) async fn find(
        host: &Host,
        bucket: &Bucket,
        name: &SnapshotName,
        manifest: Option<&Manifest>,
        ctx: &Context,
    ) -> Result<Self> {
        let missing = manifest.map(|manifest| manifest.blocks.iter().copied().collect());
        let mut search = Search {
            bucket,
            ctx,
            missing,
            seen: BTreeSet::new(),
            found: Vec::new(),
        };
        search.add(name).await?;
        let mut parent = manifest.and_then(parent_name);
        for _ in 0..MAX_PARENTS {
            let Some(next) = parent.filter(|_| !search.is_complete()) else {
                break;
            };
            let manifest = match search.add(&next).await? {
                Some(manifest) => Some(manifest),
                None => host.snapshots().recorded_manifest(&next).await?,
            };
            parent = manifest.as_ref().and_then(parent_name);
        }
        if !search.is_complete() {
            for version in search.versions(name).await? {
                search.add(&version).await?;
            }
        }
        if let Some(manifest) = manifest
            && !search.is_complete()
        {
            for (_, other) in find_copy_sources(host, manifest).await? {
                if search.lacks_any(&other.blocks) {
                    search.add(&other.name).await?;
                }
            }
        }
        Ok(Self(search.found))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.0.iter().map(|image| &image.object)
    }

    pub(crate) fn object(&self, index: usize) -> Option<&Object> {
        self.0.get(index).map(|image| &image.object)
    }

    /// Returns the places of the parts of an image with these digests, by index: at the same offset if possible.
    pub(crate) fn parts(
        &self,
        blocks: &[Digest],
        size_bytes: u64,
        part_bytes: u64,
    ) -> BTreeMap<u64, StoredPart> {
        let blocks_per_part = (part_bytes / BLOCK_BYTES).max(1) as usize;
        let mut places: Vec<HashMap<&Digest, Vec<usize>>> = Vec::new();
        for image in &self.0 {
            let mut by_digest: HashMap<&Digest, Vec<usize>> = HashMap::new();
            for (block, digest) in image.blocks.iter().enumerate() {
                let places = by_digest.entry(digest).or_default();
                if places.len() < MAX_PLACES {
                    places.push(block);
                }
            }
            places.push(by_digest);
        }
        let mut parts = BTreeMap::new();
        for (index, part) in blocks.chunks(blocks_per_part).enumerate() {
            let first = index * blocks_per_part;
            let length_at = |start: usize, size_bytes| {
                let last = (start + part.len()) as u64 - 1;
                block_bytes(last, size_bytes)
            };
            let found = (0..)
                .zip(&self.0)
                .zip(&places)
                .find_map(|((object, image), places)| {
                    let others = part.first().and_then(|digest| places.get(digest));
                    let others = others.into_iter().flatten().copied();
                    // A manifest may lie about the digest of its last block, which is shorter.
                    let has_part = |start: &usize| {
                        image.blocks.get(*start..*start + part.len()) == Some(part)
                            && length_at(*start, image.object.size_bytes)
                                == length_at(first, size_bytes)
                    };
                    let start = std::iter::once(first).chain(others).find(has_part)?;
                    Some(StoredPart {
                        object,
                        offset: start as u64 * BLOCK_BYTES,
                    })
                });
            parts.extend(found.map(|found| (index as u64, found)));
        }
        parts
    }
}

fn parent_name(manifest: &Manifest) -> Option<SnapshotName> {
    Some(manifest.parent.as_ref()?.name.clone())
}

struct Search<'a> {
    bucket: &'a Bucket,
    ctx: &'a Context,
    /// Digests of the image that no object was found to have; `None` if its digests are unknown.
    missing: Option<HashSet<Digest>>,
    seen: BTreeSet<SnapshotName>,
    found: Vec<StoredImage>,
}

impl Search<'_> {
    fn is_complete(&self) -> bool {
        self.seen.len() >= MAX_OBJECTS || self.missing.as_ref().is_some_and(HashSet::is_empty)
    }

    fn lacks_any(&self, blocks: &[Digest]) -> bool {
        let missing = self.missing.as_ref();
        missing.is_none_or(|missing| blocks.iter().any(|digest| missing.contains(digest)))
    }

    /// Adds the object of that name if it has blocks that are missing; returns its manifest.
    async fn add(&mut self, name: &SnapshotName) -> Result<Option<Manifest>> {
        if self.is_complete() || !self.seen.insert(name.clone()) {
            return Ok(None);
        }
        let find = async {
            let object = self.bucket.inspect(name).await?;
            let is_usable =
                |object: &Object| object.problem.is_none() && object.size_bytes >= MIN_OBJECT_BYTES;
            let Some(object) = object.filter(is_usable) else {
                return Ok(None);
            };
            let manifest = self.bucket.manifest(&object).await?;
            // Digests whose origin the settings do not trust prove nothing.
            let manifest = manifest.filter(|manifest| is_trusted(self.bucket, manifest));
            Ok::<_, Error>(manifest.map(|manifest| (object, manifest)))
        };
        let (object, manifest) = match find.await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => {
                self.ctx
                    .info(format!("{error}; nothing is copied from {name}"));
                return Ok(None);
            }
        };
        if self.lacks_any(&manifest.blocks) {
            if let Some(missing) = &mut self.missing {
                for digest in &manifest.blocks {
                    missing.remove(digest);
                }
            }
            self.found.push(StoredImage {
                object,
                blocks: manifest.blocks.clone(),
            });
        }
        Ok(Some(manifest))
    }

    /// Returns the newest other versions of `name` in the bucket.
    async fn versions(&self, name: &SnapshotName) -> Result<Vec<SnapshotName>> {
        let family = family_name(name);
        let mut versions: Vec<Object> = Vec::new();
        let mut pages = pin!(self.bucket.list().take(MAX_PAGES));
        while let Some(page) = pages.next().await {
            match page {
                Ok(objects) => {
                    versions.extend(objects.into_iter().filter(|object| {
                        family_name(&object.name) == family && object.name != *name
                    }))
                }
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                Err(error) => {
                    self.ctx
                        .info(format!("{error}; other versions are not searched"));
                    break;
                }
            }
        }
        versions.sort_by_key(|object| std::cmp::Reverse(object.modified));
        let names = versions.into_iter().map(|object| object.name);
        Ok(names.take(MAX_VERSIONS).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(seeds: &[u8]) -> Vec<Digest> {
        seeds.iter().map(|seed| Digest([*seed; 32])).collect()
    }

    fn image(name: &str, seeds: &[u8], size_bytes: u64) -> StoredImage {
        StoredImage {
            object: Object {
                name: name.parse().unwrap(),
                key: name.to_owned(),
                size_bytes,
                modified: None,
                etag: Some("\"1\"".to_owned()),
                problem: None,
            },
            blocks: digests(seeds),
        }
    }

    fn places(stored: &StoredBlocks, seeds: &[u8], part_blocks: u64) -> Vec<(u64, usize, u64)> {
        // The last block has one byte.
        let size_bytes = (seeds.len() as u64 - 1) * BLOCK_BYTES + 1;
        let parts = stored.parts(&digests(seeds), size_bytes, part_blocks * BLOCK_BYTES);
        let place = |(index, part): (u64, StoredPart)| {
            assert_eq!(part.offset % BLOCK_BYTES, 0);
            (index, part.object, part.offset / BLOCK_BYTES)
        };
        parts.into_iter().map(place).collect()
    }

    #[test]
    fn a_part_is_found_at_its_offset_or_at_another() {
        let near = image("near", &[1, 1, 3, 9], 3 * BLOCK_BYTES + 1);
        let far = image("far", &[4, 5, 1], 2 * BLOCK_BYTES + 1);
        let stored = StoredBlocks(vec![near, far]);
        assert_eq!(
            places(&stored, &[1, 1, 4, 3, 7, 9], 1),
            [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 0, 2), (5, 0, 3)]
        );
    }

    #[test]
    fn all_blocks_of_a_part_are_consecutive() {
        let stored = StoredBlocks(vec![image("app", &[9, 1, 2, 3, 4, 1], 5 * BLOCK_BYTES + 1)]);
        assert_eq!(
            places(&stored, &[1, 2, 2, 3, 3, 2, 4, 1, 1], 2),
            [(0, 0, 1), (1, 0, 2), (4, 0, 5)]
        );
    }

    #[test]
    fn a_part_does_not_reach_beyond_an_object() {
        // A manifest that says that the object's last byte has the digest of a whole block.
        let stored = StoredBlocks(vec![image("app", &[1, 2], BLOCK_BYTES + 1)]);
        assert_eq!(places(&stored, &[2, 1, 7], 1), [(1, 0, 0)]);
    }

    #[test]
    fn without_objects_nothing_is_found() {
        assert!(places(&StoredBlocks::default(), &[1, 2], 1).is_empty());
    }
}
