//! Where a snapshot comes from, what comes from it, and which bytes it has in common with others: by manifests alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::{Annotations, Digest, Manifest, SnapshotName, block_bytes};

/// Generations that are followed; a circle of parents ends there, too.
pub const MAX_PARENTS: usize = 32;

/// Manifests by name.
pub type Manifests = BTreeMap<SnapshotName, Arc<Manifest>>;

/// What is known of one host and the bucket.
#[derive(Debug, Clone, Default)]
pub struct LineageIndex {
    /// The host's snapshots, and the length in bytes of each that is sound.
    pub host_snapshots: BTreeMap<SnapshotName, Option<u64>>,
    /// Names of the objects that were seen.
    pub bucket_objects: BTreeSet<SnapshotName>,
    /// Manifests of the host's snapshots.
    pub host_manifests: Manifests,
    /// Manifests of objects.
    pub bucket_manifests: Manifests,
}

/// A parent or a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RelatedSnapshot {
    /// Its name.
    pub name: SnapshotName,
    /// Is there a snapshot of that name on the host?
    #[serde(rename = "onHost")]
    pub is_on_host: bool,
    /// Is there an object of that name, as far as was looked?
    #[serde(rename = "inBucket")]
    pub is_in_bucket: bool,
}

/// Bytes that are a snapshot's, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedBytes {
    /// The snapshot's name.
    pub name: SnapshotName,
    /// How many.
    pub bytes: u64,
}

/// What a pull would have to bring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullCost {
    /// Bytes from the bucket, at most.
    pub fetch_bytes: u64,
    /// Which snapshots of the host give how much, in the order in which they are asked.
    pub copies: Vec<SharedBytes>,
}

impl PullCost {
    /// Bytes from other snapshots of the host.
    pub fn copy_bytes(&self) -> u64 {
        self.copies.iter().map(|part| part.bytes).sum()
    }

    /// Of an image with that manifest, to a host with these.
    fn estimate(wanted: &Manifest, host: &Manifests) -> Self {
        let mut rest = BlockIndex::from_manifest(wanted);
        // What is there under its own name is replaced: it gives what is good of it.
        let origins = host.iter().map(|(name, origin)| (name.clone(), &**origin));
        let ordered = order_by_ancestry(wanted, origins.collect(), |origin| origin);
        let copies = ordered.into_iter().map(|(name, origin)| SharedBytes {
            bytes: rest.remove_shared(origin),
            name,
        });
        let copies: Vec<SharedBytes> = copies.filter(|part| part.bytes > 0).collect();
        let copied: u64 = copies.iter().map(|part| part.bytes).sum();
        Self {
            fetch_bytes: wanted.size_bytes - copied,
            copies,
        }
    }
}

/// What is known of one snapshot's relatives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// Its name.
    pub name: SnapshotName,
    /// What is said of the one on the host; `None` where nothing is.
    pub local: Option<Annotations>,
    /// What is said of the one in the bucket; `None` where nothing is.
    pub bucket: Option<Annotations>,
    /// What it was made from, the nearest first.
    pub parents: Vec<RelatedSnapshot>,
    /// What was made from it, as far as was looked.
    pub children: Vec<SnapshotName>,
    /// Bytes it has in common with its parent; `None` where a manifest is missing.
    pub shared_with_parent_bytes: Option<u64>,
    /// What it has in common with others, as far as was looked; most of it first.
    pub shares: Vec<SharedBytes>,
    /// What a pull to the host would bring; `None` where there is no object.
    #[serde(skip)]
    pub pull_cost: Option<PullCost>,
}

impl Lineage {
    /// Is it pinned, wherever?
    pub fn is_pinned(&self) -> bool {
        self.annotations().any(|remarks| remarks.pinned)
    }

    /// The remarks there are, the host's first.
    pub fn annotations(&self) -> impl Iterator<Item = &Annotations> {
        self.local.iter().chain(&self.bucket)
    }

    /// The note: the host's, else the bucket's.
    pub fn note(&self) -> Option<&str> {
        self.annotations()
            .find_map(|remarks| remarks.notes.as_deref())
    }
}

impl LineageIndex {
    fn manifest(&self, name: &SnapshotName) -> Option<&Arc<Manifest>> {
        self.host_manifests
            .get(name)
            .or_else(|| self.bucket_manifests.get(name))
    }

    /// Has the host a sound snapshot of that name, as long as the object, and with the same bytes as far as is known?
    pub fn has_copy_of(&self, name: &SnapshotName, object_bytes: u64) -> bool {
        self.host_snapshots.get(name) == Some(&Some(object_bytes))
            && match (
                self.host_manifests.get(name),
                self.bucket_manifests.get(name),
            ) {
                (Some(ours), Some(theirs)) => ours.has_same_content(theirs),
                _ => true,
            }
    }

    /// What a pull of an object of so many bytes would bring.
    pub fn pull_cost(&self, name: &SnapshotName, object_bytes: u64) -> PullCost {
        match self.bucket_manifests.get(name) {
            Some(wanted) => PullCost::estimate(wanted, &self.host_manifests),
            None => PullCost {
                fetch_bytes: object_bytes,
                copies: Vec::new(),
            },
        }
    }

    /// Puts together what is known of `name`, without what is said of it. `object_bytes` is the object's length, where
    /// there is one; with `is_there` the host has its bytes already.
    pub fn lineage(
        &self,
        name: &SnapshotName,
        object_bytes: Option<u64>,
        is_there: bool,
    ) -> Lineage {
        let mut parents: Vec<RelatedSnapshot> = Vec::new();
        let mut at = self.manifest(name);
        while let Some(parent) = at.and_then(|manifest| manifest.parent.as_ref()) {
            let seen = |known: &RelatedSnapshot| known.name == parent.name;
            if parents.len() == MAX_PARENTS || parent.name == *name || parents.iter().any(seen) {
                break;
            }
            parents.push(RelatedSnapshot {
                name: parent.name.clone(),
                is_on_host: self.host_snapshots.contains_key(&parent.name),
                is_in_bucket: self.bucket_objects.contains(&parent.name),
            });
            at = self.manifest(&parent.name);
        }
        let children: BTreeSet<SnapshotName> = [&self.host_manifests, &self.bucket_manifests]
            .into_iter()
            .flatten()
            .filter(|(child, manifest)| {
                let parent = manifest.parent.as_ref();
                *child != name && parent.is_some_and(|parent| parent.name == *name)
            })
            .map(|(child, _)| child.clone())
            .collect();
        let own = self.manifest(name);
        let parent = parents
            .first()
            .and_then(|parent| self.manifest(&parent.name));
        let pull = object_bytes.map(|bytes| match is_there {
            true => PullCost::default(),
            false => self.pull_cost(name, bytes),
        });
        let mut shares: Vec<SharedBytes> = own
            .into_iter()
            .flat_map(|own| {
                let others: Manifests = self
                    .bucket_manifests
                    .iter()
                    .chain(&self.host_manifests)
                    .map(clone_pair)
                    .collect();
                let shared = |(other, manifest): (SnapshotName, Arc<Manifest>)| SharedBytes {
                    bytes: shared_bytes(own, &manifest),
                    name: other,
                };
                others.into_iter().map(shared).collect::<Vec<SharedBytes>>()
            })
            .filter(|part| part.bytes > 0 && part.name != *name)
            .collect();
        shares.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        Lineage {
            name: name.clone(),
            local: None,
            bucket: None,
            parents,
            children: children.into_iter().collect(),
            shared_with_parent_bytes: own
                .zip(parent)
                .map(|(own, parent)| shared_bytes(own, parent)),
            shares,
            pull_cost: pull,
        }
    }
}

/// Bytes of the blocks of `image` that another one has, in whatever place. A block of another length is another one,
/// whatever its digest says.
pub fn shared_bytes(image: &Manifest, other: &Manifest) -> u64 {
    BlockIndex::from_manifest(image).remove_shared(other)
}

/// Blocks of an image that are looked for in others.
struct BlockIndex(HashMap<(Digest, u64), u64>);

impl BlockIndex {
    /// All of an image.
    fn from_manifest(image: &Manifest) -> Self {
        let mut all = HashMap::new();
        for (at, digest) in (0..).zip(&image.blocks) {
            let bytes = block_bytes(at, image.size_bytes);
            *all.entry((*digest, bytes)).or_default() += bytes;
        }
        Self(all)
    }

    /// Takes out those that `other` has; returns their bytes.
    fn remove_shared(&mut self, other: &Manifest) -> u64 {
        let blocks = (0..).zip(&other.blocks);
        blocks
            .filter_map(|(at, digest)| {
                let bytes = block_bytes(at, other.size_bytes);
                self.0.remove(&(*digest, bytes))
            })
            .sum()
    }
}

/// Puts the snapshots of a host in the order in which they are to give blocks of the one with `manifest`: its ancestors,
/// the nearest first, then all others.
pub fn order_by_ancestry<T>(
    manifest: &Manifest,
    snapshots: Vec<(SnapshotName, T)>,
    of: impl Fn(&T) -> &Manifest,
) -> Vec<(SnapshotName, T)> {
    let mut rest = snapshots;
    let mut ordered = Vec::new();
    let mut parent = manifest.parent.clone();
    while let Some(name) = parent.map(|parent| parent.name)
        && let Some(at) = rest.iter().position(|(other, _)| *other == name)
    {
        let next = rest.remove(at);
        parent = of(&next.1).parent.clone();
        ordered.push(next);
    }
    ordered.extend(rest);
    ordered
}

fn clone_pair<'a, N: Clone, M: Clone>((name, manifest): (&'a N, &'a M)) -> (N, M) {
    (name.clone(), manifest.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BLOCK_BYTES, Parent};

    /// An image whose last block has one byte.
    fn manifest(name: &str, parent: Option<&str>, blocks: &[u8]) -> (SnapshotName, Arc<Manifest>) {
        let size = (blocks.len() as u64 - 1) * BLOCK_BYTES + 1;
        let blocks = blocks.iter().map(|of| Digest([*of; 32])).collect();
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

    fn family() -> LineageIndex {
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
        }
    }

    fn bytes(blocks: u64) -> u64 {
        blocks * BLOCK_BYTES
    }

    #[test]
    fn tells_relatives_and_what_they_have_in_common() {
        let app: SnapshotName = "app-2".parse().unwrap();
        let lineage = family().lineage(&app, Some(bytes(4) + 1), false);
        let told: Vec<(&str, bool, bool)> = lineage
            .parents
            .iter()
            .map(|parent| (parent.name.as_str(), parent.is_on_host, parent.is_in_bucket))
            .collect();
        assert_eq!(told, [("app", false, true), ("base", true, true)]);
        assert_eq!(lineage.shared_with_parent_bytes, Some(bytes(3) + 1));
        let part = |name: &str, bytes| SharedBytes {
            name: name.parse().unwrap(),
            bytes,
        };
        assert_eq!(
            lineage.shares,
            [part("app", bytes(3) + 1), part("base", bytes(2))]
        );
        let pull = lineage.pull_cost.unwrap();
        assert_eq!(
            (pull.fetch_bytes, pull.copies),
            (bytes(2) + 1, vec![part("base", bytes(2))])
        );

        let base = family().lineage(&"base".parse().unwrap(), None, false);
        assert_eq!(base.children, ["app".parse().unwrap()]);
        assert_eq!((base.parents, base.pull_cost), (vec![], None));
        let last = SharedBytes {
            name: "other".parse().unwrap(),
            bytes: 1,
        };
        assert!(base.shares.contains(&last), "{:?}", base.shares);
    }

    #[test]
    fn a_block_of_another_length_is_another_block() {
        let (_, whole) = manifest("a", None, &[5, 6]);
        let (_, end) = manifest("b", None, &[1, 5]);
        assert_eq!(shared_bytes(&whole, &end), 0);
    }

    #[test]
    fn what_is_there_is_sound_as_long_and_the_same() {
        let mut family = family();
        let base: SnapshotName = "base".parse().unwrap();
        assert!(family.has_copy_of(&base, bytes(2) + 1));
        assert!(!family.has_copy_of(&base, bytes(2)));
        assert!(!family.has_copy_of(&"app".parse().unwrap(), bytes(2) + 1));
        family
            .bucket_manifests
            .extend([manifest("base", None, &[1, 2, 4])]);
        assert!(!family.has_copy_of(&base, bytes(2) + 1));
    }

    #[test]
    fn what_is_there_costs_nothing_and_what_is_not_known_all() {
        let cost = |name: &str, there| {
            let lineage = family().lineage(&name.parse().unwrap(), Some(77), there);
            lineage.pull_cost.map(|cost| cost.fetch_bytes)
        };
        assert_eq!(cost("app", true), Some(0));
        assert_eq!(cost("unknown", false), Some(77));
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let family = LineageIndex {
            bucket_manifests: [
                manifest("a", Some("b"), &[1]),
                manifest("b", Some("c"), &[1]),
                manifest("c", Some("b"), &[1]),
            ]
            .into(),
            ..LineageIndex::default()
        };
        let lineage = family.lineage(&"a".parse().unwrap(), None, false);
        assert_eq!(lineage.parents.len(), 2);
    }

    #[test]
    fn ancestors_give_first_and_a_circle_of_them_ends() {
        let of = |name, parent| manifest(name, parent, &[1]);
        let all = vec![of("a", None), of("b", Some("c")), of("c", Some("b"))];
        let ordered = order_by_ancestry(&of("app", Some("c")).1, all, |manifest| manifest);
        let names: Vec<&str> = ordered.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["c", "b", "a"]);
    }
}
