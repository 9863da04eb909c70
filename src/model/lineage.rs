//! Lineage of snapshots: parents, children and bytes shared with other snapshots, from their manifests alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::{Annotations, ContentProof, Digest, Manifest, SnapshotName, block_bytes};

/// Maximum number of parents that are followed.
pub const MAX_PARENTS: usize = 32;

/// Manifests by name.
pub type Manifests = BTreeMap<SnapshotName, Arc<Manifest>>;

/// Snapshots and manifests of one host and the bucket.
#[derive(Debug, Clone, Default)]
pub struct LineageIndex {
    /// Snapshots of the host; length in bytes of each that is valid.
    pub host_snapshots: BTreeMap<SnapshotName, Option<u64>>,
    /// Names of the objects that were listed.
    pub bucket_objects: BTreeSet<SnapshotName>,
    /// Manifests of the host's snapshots.
    pub host_manifests: Manifests,
    /// Manifests of objects.
    pub bucket_manifests: Manifests,
    /// Manifests and objects that could not be read, with the reason.
    pub unread: Vec<String>,
}

/// A parent of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RelatedSnapshot {
    /// Name of the parent.
    pub name: SnapshotName,
    /// Whether the host has a snapshot of that name.
    #[serde(rename = "onHost")]
    pub is_on_host: bool,
    /// Whether an object of that name was listed.
    #[serde(rename = "inBucket")]
    pub is_in_bucket: bool,
}

/// Bytes that another snapshot has too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedBytes {
    /// Name of the other snapshot.
    pub name: SnapshotName,
    /// Number of bytes.
    pub bytes: u64,
}

/// Cost of a pull.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullCost {
    /// Bytes to download, at most.
    pub fetch_bytes: u64,
    /// Bytes to copy from each snapshot of the host, in order.
    pub copies: Vec<SharedBytes>,
}

impl PullCost {
    /// Returns the bytes to copy from other snapshots of the host.
    pub fn copy_bytes(&self) -> u64 {
        self.copies.iter().map(|part| part.bytes).sum()
    }

    /// Estimates the cost of a pull of `image` to a host with the manifests `host`.
    fn estimate(image: &Manifest, host: &Manifests) -> Self {
        let mut missing = BlockIndex::from_manifest(image);
        // A snapshot of the same name is included: the pull replaces it and reuses its valid blocks.
        let sources = host.iter().map(|(name, source)| (name.clone(), &**source));
        let copies: Vec<SharedBytes> = order_by_ancestry(image, sources.collect(), |source| source)
            .into_iter()
            .map(|(name, source)| SharedBytes {
                bytes: missing.remove_shared(source),
                name,
            })
            .filter(|shared| shared.bytes > 0)
            .collect();
        let copied: u64 = copies.iter().map(|shared| shared.bytes).sum();
        Self {
            fetch_bytes: image.size_bytes - copied,
            copies,
        }
    }
}

/// Digests of an image's blocks, by its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum KnownDigests {
    /// None: it has no manifest, or one of another file.
    None,
    /// Those that a push or a pull has recorded.
    Recorded,
    /// Those of an adopted image.
    Adopted(ContentProof),
}

impl KnownDigests {
    fn from_manifest(manifest: Option<&Arc<Manifest>>) -> Self {
        match manifest {
            None => Self::None,
            Some(manifest) => manifest.proof.map_or(Self::Recorded, Self::Adopted),
        }
    }
}

/// Lineage of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// Name of the snapshot.
    pub name: SnapshotName,
    /// Annotations on the host, if any.
    pub local: Option<Annotations>,
    /// Annotations in the bucket, if any.
    pub bucket: Option<Annotations>,
    /// Digests on the host; `None` if it is not there.
    pub local_digests: Option<KnownDigests>,
    /// Digests in the bucket; `None` if it is not there.
    pub bucket_digests: Option<KnownDigests>,
    /// Snapshots it is based on, nearest first.
    pub parents: Vec<RelatedSnapshot>,
    /// Known snapshots that are based on it.
    pub children: Vec<SnapshotName>,
    /// Bytes shared with the parent; `None` if a manifest is missing.
    pub shared_with_parent_bytes: Option<u64>,
    /// Bytes shared with known snapshots, most first.
    pub shares: Vec<SharedBytes>,
    /// Manifests and objects that could not be read, with the reason: relatives may be missing.
    pub unread: Vec<String>,
    /// Cost of a pull to the host; `None` without an object.
    #[serde(skip)]
    pub pull_cost: Option<PullCost>,
}

impl Lineage {
    /// Returns whether it is pinned on the host or in the bucket.
    pub fn is_pinned(&self) -> bool {
        self.annotations().any(|annotations| annotations.pinned)
    }

    /// Iterates over the annotations, those of the host first.
    pub fn annotations(&self) -> impl Iterator<Item = &Annotations> {
        self.local.iter().chain(&self.bucket)
    }

    /// Returns the note of the host, else that of the bucket.
    pub fn note(&self) -> Option<&str> {
        self.annotations()
            .find_map(|annotations| annotations.notes.as_deref())
    }
}

impl LineageIndex {
    fn manifest(&self, name: &SnapshotName) -> Option<&Arc<Manifest>> {
        self.host_manifests
            .get(name)
            .or_else(|| self.bucket_manifests.get(name))
    }

    /// Returns whether the host has a valid snapshot of that name with the object's length and, as far as manifests
    /// show, the same bytes.
    pub fn has_copy_of(&self, name: &SnapshotName, object_bytes: u64) -> bool {
        let manifests = (self.host_manifests.get(name)).zip(self.bucket_manifests.get(name));
        self.host_snapshots.get(name) == Some(&Some(object_bytes))
            && manifests.is_none_or(|(local, remote)| local.has_same_content(remote))
    }

    /// Returns the cost of a pull of an object of `object_bytes`.
    pub fn pull_cost(&self, name: &SnapshotName, object_bytes: u64) -> PullCost {
        match self.bucket_manifests.get(name) {
            Some(image) => PullCost::estimate(image, &self.host_manifests),
            None => PullCost {
                fetch_bytes: object_bytes,
                copies: Vec::new(),
            },
        }
    }

    /// Returns the lineage of `name` without annotations. `object_bytes` is the length of its object, if any;
    /// `is_on_host`: the host already has those bytes.
    pub fn lineage(
        &self,
        name: &SnapshotName,
        object_bytes: Option<u64>,
        is_on_host: bool,
    ) -> Lineage {
        let own = self.manifest(name);
        let parents = self.parents(name);
        let parent = parents
            .first()
            .and_then(|parent| self.manifest(&parent.name));
        // The host's manifest of a name replaces the bucket's.
        let mut known: BTreeMap<&SnapshotName, &Manifest> = BTreeMap::new();
        let mut children = BTreeSet::new();
        for (other, manifest) in self.bucket_manifests.iter().chain(&self.host_manifests) {
            if other == name {
                continue;
            }
            known.insert(other, manifest);
            let parent = manifest.parent.as_ref();
            if parent.is_some_and(|parent| parent.name == *name) {
                children.insert(other.clone());
            }
        }
        let mut shares = Vec::new();
        if let Some(own) = own {
            let shared = known.into_iter().map(|(other, manifest)| SharedBytes {
                name: other.clone(),
                bytes: shared_bytes(own, manifest),
            });
            shares.extend(shared.filter(|shared| shared.bytes > 0));
        }
        shares.sort_by_key(|shared| std::cmp::Reverse(shared.bytes));
        Lineage {
            name: name.clone(),
            local: None,
            bucket: None,
            local_digests: (self.host_snapshots.contains_key(name))
                .then(|| KnownDigests::from_manifest(self.host_manifests.get(name))),
            bucket_digests: (self.bucket_objects.contains(name))
                .then(|| KnownDigests::from_manifest(self.bucket_manifests.get(name))),
            children: children.into_iter().collect(),
            shared_with_parent_bytes: own
                .zip(parent)
                .map(|(own, parent)| shared_bytes(own, parent)),
            parents,
            shares,
            unread: self.unread.clone(),
            pull_cost: object_bytes.map(|bytes| match is_on_host {
                true => PullCost::default(),
                false => self.pull_cost(name, bytes),
            }),
        }
    }

    /// Returns the parents of `name`, nearest first, up to the first one that repeats.
    fn parents(&self, name: &SnapshotName) -> Vec<RelatedSnapshot> {
        let mut parents: Vec<RelatedSnapshot> = Vec::new();
        let mut current = self.manifest(name);
        while let Some(parent) = current.and_then(|manifest| manifest.parent.as_ref()) {
            let repeats = parent.name == *name || parents.iter().any(|p| p.name == parent.name);
            if repeats || parents.len() == MAX_PARENTS {
                break;
            }
            parents.push(RelatedSnapshot {
                name: parent.name.clone(),
                is_on_host: self.host_snapshots.contains_key(&parent.name),
                is_in_bucket: self.bucket_objects.contains(&parent.name),
            });
            current = self.manifest(&parent.name);
        }
        parents
    }
}

/// Returns the bytes of the blocks of `image` that `other` has at any offset. Blocks of different lengths are different.
fn shared_bytes(image: &Manifest, other: &Manifest) -> u64 {
    BlockIndex::from_manifest(image).remove_shared(other)
}

/// Distinct blocks of an image by digest and length, with the bytes that they have in the image.
struct BlockIndex(HashMap<(Digest, u64), u64>);

impl BlockIndex {
    fn from_manifest(image: &Manifest) -> Self {
        let mut blocks = HashMap::new();
        for (block, digest) in (0..).zip(&image.blocks) {
            let bytes = block_bytes(block, image.size_bytes);
            *blocks.entry((*digest, bytes)).or_default() += bytes;
        }
        Self(blocks)
    }

    /// Removes the blocks that `other` has and returns their bytes.
    fn remove_shared(&mut self, other: &Manifest) -> u64 {
        let blocks = (0..).zip(&other.blocks);
        blocks
            .filter_map(|(block, digest)| {
                let bytes = block_bytes(block, other.size_bytes);
                self.0.remove(&(*digest, bytes))
            })
            .sum()
    }
}

/// Orders the snapshots of a host as sources of blocks of the image with `manifest`: its ancestors, nearest first, then
/// the others.
pub fn order_by_ancestry<T>(
    manifest: &Manifest,
    snapshots: Vec<(SnapshotName, T)>,
    manifest_of: impl Fn(&T) -> &Manifest,
) -> Vec<(SnapshotName, T)> {
    let mut rest = snapshots;
    let mut ordered = Vec::new();
    let mut parent = manifest.parent.clone();
    while let Some(name) = parent.map(|parent| parent.name)
        && let Some(index) = rest.iter().position(|(other, _)| *other == name)
    {
        let next = rest.remove(index);
        parent = manifest_of(&next.1).parent.clone();
        ordered.push(next);
    }
    ordered.extend(rest);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BLOCK_BYTES, Parent};

    /// An image whose last block has one byte.
    fn manifest(name: &str, parent: Option<&str>, blocks: &[u8]) -> (SnapshotName, Arc<Manifest>) {
        let size = (blocks.len() as u64 - 1) * BLOCK_BYTES + 1;
        let blocks = blocks.iter().map(|byte| Digest([*byte; 32])).collect();
        let name: SnapshotName = name.parse().unwrap();
        let mut manifest = Manifest::new(name.clone(), size, blocks);
        manifest.parent = parent.map(|parent| Parent {
            name: parent.parse().unwrap(),
            etag: None,
        });
        (name, Arc::new(manifest))
    }

    fn names(names: &[&str]) -> BTreeSet<SnapshotName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn index() -> LineageIndex {
        LineageIndex {
            host_snapshots: names(&["base", "other"])
                .into_iter()
                .map(|name| (name, Some(bytes(2) + 1)))
                .collect(),
            bucket_objects: names(&["app", "app-2", "base"]),
            host_manifests: [
                manifest("base", None, &[1, 2, 3]),
                manifest("other", None, &[9, 8, 3]),
            ]
            .into(),
            bucket_manifests: [
                manifest("app", Some("base"), &[1, 7, 2, 9, 5]),
                manifest("app-2", Some("app"), &[1, 7, 2, 6, 5]),
            ]
            .into(),
            unread: Vec::new(),
        }
    }

    fn bytes(blocks: u64) -> u64 {
        blocks * BLOCK_BYTES
    }

    #[test]
    fn lineage_has_parents_children_and_shared_bytes() {
        let app: SnapshotName = "app-2".parse().unwrap();
        let lineage = index().lineage(&app, Some(bytes(4) + 1), false);
        let parents: Vec<(&str, bool, bool)> = lineage
            .parents
            .iter()
            .map(|parent| (parent.name.as_str(), parent.is_on_host, parent.is_in_bucket))
            .collect();
        assert_eq!(parents, [("app", false, true), ("base", true, true)]);
        assert_eq!(lineage.shared_with_parent_bytes, Some(bytes(3) + 1));
        let shared = |name: &str, bytes| SharedBytes {
            name: name.parse().unwrap(),
            bytes,
        };
        assert_eq!(
            lineage.shares,
            [shared("app", bytes(3) + 1), shared("base", bytes(2))]
        );
        let pull = lineage.pull_cost.unwrap();
        assert_eq!(
            (pull.fetch_bytes, pull.copies),
            (bytes(2) + 1, vec![shared("base", bytes(2))])
        );

        let base = index().lineage(&"base".parse().unwrap(), None, false);
        assert_eq!(base.children, ["app".parse().unwrap()]);
        assert_eq!((base.parents, base.pull_cost), (vec![], None));
        let last = SharedBytes {
            name: "other".parse().unwrap(),
            bytes: 1,
        };
        assert!(base.shares.contains(&last), "{:?}", base.shares);
    }

    #[test]
    fn blocks_of_different_lengths_are_different() {
        let (_, whole) = manifest("a", None, &[5, 6]);
        let (_, end) = manifest("b", None, &[1, 5]);
        assert_eq!(shared_bytes(&whole, &end), 0);
    }

    #[test]
    fn a_copy_is_valid_and_has_the_same_length_and_bytes() {
        let mut index = index();
        let base: SnapshotName = "base".parse().unwrap();
        assert!(index.has_copy_of(&base, bytes(2) + 1));
        assert!(!index.has_copy_of(&base, bytes(2)));
        assert!(!index.has_copy_of(&"app".parse().unwrap(), bytes(2) + 1));
        index
            .bucket_manifests
            .extend([manifest("base", None, &[1, 2, 4])]);
        assert!(!index.has_copy_of(&base, bytes(2) + 1));
    }

    #[test]
    fn a_copy_costs_nothing_and_an_object_without_manifest_all_bytes() {
        let cost = |name: &str, is_on_host| {
            let lineage = index().lineage(&name.parse().unwrap(), Some(77), is_on_host);
            lineage.pull_cost.map(|cost| cost.fetch_bytes)
        };
        assert_eq!(cost("app", true), Some(0));
        assert_eq!(cost("unknown", false), Some(77));
    }

    #[test]
    fn a_cycle_of_parents_ends() {
        let index = LineageIndex {
            bucket_manifests: [
                manifest("a", Some("b"), &[1]),
                manifest("b", Some("c"), &[1]),
                manifest("c", Some("b"), &[1]),
            ]
            .into(),
            ..LineageIndex::default()
        };
        let lineage = index.lineage(&"a".parse().unwrap(), None, false);
        assert_eq!(lineage.parents.len(), 2);
    }

    #[test]
    fn ancestors_are_first_and_a_cycle_of_them_ends() {
        let image = |name, parent| manifest(name, parent, &[1]);
        let all = vec![
            image("a", None),
            image("b", Some("c")),
            image("c", Some("b")),
        ];
        let ordered = order_by_ancestry(&image("app", Some("c")).1, all, |manifest| manifest);
        let names: Vec<&str> = ordered.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["c", "b", "a"]);
    }
}
