//! Where a snapshot comes from, what comes from it, and which bytes it has in common with others: by manifests alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::{BLOCK_BYTES, Digest, Manifest, Remarks, SnapshotName};

/// Generations that are followed; a circle of parents ends there, too.
pub const MAX_PARENTS: usize = 32;

/// Manifests by name.
pub type Manifests = BTreeMap<SnapshotName, Arc<Manifest>>;

/// What is known of one host and the bucket.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// Names of the host's snapshots, and whether each is a sound image of the object's length.
    pub on_host: BTreeSet<SnapshotName>,
    /// Names of the objects that were seen.
    pub in_bucket: BTreeSet<SnapshotName>,
    /// Manifests of the host's snapshots.
    pub host: Manifests,
    /// Manifests of objects.
    pub bucket: Manifests,
}

/// A parent or a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Relative {
    /// Its name.
    pub name: SnapshotName,
    /// Is there a snapshot of that name on the host?
    pub on_host: bool,
    /// Is there an object of that name, as far as was looked?
    pub in_bucket: bool,
}

/// What a pull would have to bring, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullCost {
    /// From the bucket, at most.
    pub fetch_bytes: u64,
    /// From other snapshots of the host.
    pub copy_bytes: u64,
}

/// What is known of one snapshot's relatives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// Its name.
    pub name: SnapshotName,
    /// What is said of the one on the host; `None` where nothing is.
    pub local: Option<Remarks>,
    /// What is said of the one in the bucket; `None` where nothing is.
    pub bucket: Option<Remarks>,
    /// What it was made from, the nearest first.
    pub parents: Vec<Relative>,
    /// What was made from it, as far as was looked.
    pub children: Vec<SnapshotName>,
    /// Bytes it has in common with its parent; `None` where a manifest is missing.
    pub shared_with_parent_bytes: Option<u64>,
    /// Bytes it has in common with the host's other snapshots; `None` where it has no manifest.
    pub shared_with_host_bytes: Option<u64>,
    /// What a pull to the host would bring; `None` where there is no object.
    #[serde(skip)]
    pub pull: Option<PullCost>,
}

impl Lineage {
    /// Is it pinned, wherever?
    pub fn is_pinned(&self) -> bool {
        self.said().any(|remarks| remarks.pinned)
    }

    /// The remarks there are, the host's first.
    pub fn said(&self) -> impl Iterator<Item = &Remarks> {
        self.local.iter().chain(&self.bucket)
    }

    /// The note: the host's, else the bucket's.
    pub fn note(&self) -> Option<&str> {
        self.said().find_map(|remarks| remarks.notes.as_deref())
    }
}

impl Family {
    fn manifest(&self, name: &SnapshotName) -> Option<&Arc<Manifest>> {
        self.host.get(name).or_else(|| self.bucket.get(name))
    }

    /// Puts together what is known of `name`, without what is said of it. `object_bytes` is the object's length, where
    /// there is one; with `is_there` the host has its bytes already.
    pub fn lineage(
        &self,
        name: &SnapshotName,
        object_bytes: Option<u64>,
        is_there: bool,
    ) -> Lineage {
        let mut parents: Vec<Relative> = Vec::new();
        let mut at = self.manifest(name);
        while let Some(parent) = at.and_then(|manifest| manifest.parent.as_ref()) {
            let seen = |known: &Relative| known.name == parent.name;
            if parents.len() == MAX_PARENTS || parent.name == *name || parents.iter().any(seen) {
                break;
            }
            parents.push(Relative {
                name: parent.name.clone(),
                on_host: self.on_host.contains(&parent.name),
                in_bucket: self.in_bucket.contains(&parent.name),
            });
            at = self.manifest(&parent.name);
        }
        let children: BTreeSet<SnapshotName> = [&self.host, &self.bucket]
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
        let others = || {
            let others = self.host.iter().filter(|(other, _)| *other != name);
            others.map(|(_, manifest)| &**manifest)
        };
        let pull = object_bytes.map(|bytes| match (is_there, self.bucket.get(name)) {
            (true, _) => PullCost {
                fetch_bytes: 0,
                copy_bytes: 0,
            },
            (false, None) => PullCost {
                fetch_bytes: bytes,
                copy_bytes: 0,
            },
            (false, Some(wanted)) => {
                let origins = self.host.values().map(|manifest| &**manifest);
                let copy_bytes = shared(wanted, origins);
                PullCost {
                    fetch_bytes: wanted.size_bytes - copy_bytes,
                    copy_bytes,
                }
            }
        });
        Lineage {
            name: name.clone(),
            local: None,
            bucket: None,
            parents,
            children: children.into_iter().collect(),
            shared_with_parent_bytes: own
                .zip(parent)
                .map(|(own, parent)| shared(own, [&**parent].into_iter())),
            shared_with_host_bytes: own.map(|own| shared(own, others())),
            pull,
        }
    }
}

/// Bytes of the blocks of `image` that any of the others has, in whatever place. A block of another length is another
/// one, whatever its digest says.
pub fn shared<'a>(image: &Manifest, others: impl Iterator<Item = &'a Manifest>) -> u64 {
    let mut there: HashMap<Digest, BTreeSet<u64>> = HashMap::new();
    for other in others {
        for (at, digest) in (0..).zip(&other.blocks) {
            let bytes = block_bytes(at, other.size_bytes);
            there.entry(*digest).or_default().insert(bytes);
        }
    }
    (0..)
        .zip(&image.blocks)
        .map(|(at, digest)| (block_bytes(at, image.size_bytes), digest))
        .filter(|(bytes, digest)| there.get(digest).is_some_and(|all| all.contains(bytes)))
        .map(|(bytes, _)| bytes)
        .sum()
}

/// Length of a block of an image of so many bytes.
fn block_bytes(at: u64, size_bytes: u64) -> u64 {
    size_bytes
        .saturating_sub(at.saturating_mul(BLOCK_BYTES))
        .min(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Parent;

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

    fn family() -> Family {
        Family {
            on_host: names(&["base", "other"]),
            in_bucket: names(&["app", "app-2", "base"]),
            host: [
                manifest("base", None, &[1, 2, 3]),
                manifest("other", None, &[9, 8, 3]),
            ]
            .into(),
            bucket: [
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
            .map(|parent| (parent.name.as_str(), parent.on_host, parent.in_bucket))
            .collect();
        assert_eq!(told, [("app", false, true), ("base", true, true)]);
        assert_eq!(lineage.shared_with_parent_bytes, Some(bytes(3) + 1));
        assert_eq!(lineage.shared_with_host_bytes, Some(bytes(2)));
        let pull = lineage.pull.unwrap();
        assert_eq!(
            (pull.fetch_bytes, pull.copy_bytes),
            (bytes(2) + 1, bytes(2))
        );

        let base = family().lineage(&"base".parse().unwrap(), None, false);
        assert_eq!(base.children, ["app".parse().unwrap()]);
        assert_eq!((base.parents, base.pull), (vec![], None));
        assert_eq!(
            base.shared_with_host_bytes,
            Some(1),
            "the last byte of other"
        );
    }

    #[test]
    fn a_block_of_another_length_is_another_block() {
        let (_, whole) = manifest("a", None, &[5, 6]);
        let (_, end) = manifest("b", None, &[1, 5]);
        assert_eq!(shared(&whole, [&*end].into_iter()), 0);
    }

    #[test]
    fn what_is_there_costs_nothing_and_what_is_not_known_all() {
        let cost = |name: &str, there| {
            let lineage = family().lineage(&name.parse().unwrap(), Some(77), there);
            lineage.pull.map(|cost| cost.fetch_bytes)
        };
        assert_eq!(cost("app", true), Some(0));
        assert_eq!(cost("unknown", false), Some(77));
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let family = Family {
            bucket: [
                manifest("a", Some("b"), &[1]),
                manifest("b", Some("c"), &[1]),
                manifest("c", Some("b"), &[1]),
            ]
            .into(),
            ..Family::default()
        };
        let lineage = family.lineage(&"a".parse().unwrap(), None, false);
        assert_eq!(lineage.parents.len(), 2);
    }
}
