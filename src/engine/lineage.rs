//! The lineage of a snapshot by its manifests, which are read when they are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};

use super::state::{Engine, Inner};
use super::view::{Link, Parents};
use snapdeck_host::Host;
use snapdeck_model::{
    Error, HostName, Kind, Lineage, LineageIndex, MAX_PARENTS, Manifest, Object, PullCost, Result,
    Snapshot, SnapshotName,
};

/// Limits of manifests read for one query.
const MAX_HOST_MANIFESTS: usize = 200;
const MAX_TREE_OBJECTS: usize = 200;
const MAX_MANIFEST_READS: usize = 4;
/// Blocks of all manifests that are compared, of 32 bytes: those of 8 TiB.
const MAX_COMPARED_BLOCKS: usize = 1 << 20;

impl Engine {
    /// Returns the parents of the snapshots in the bucket and on reachable hosts. Prefers the manifest in the bucket: it
    /// is the same one, and faster to read.
    pub async fn parents(&self) -> Parents {
        let (inner, view) = (&*self.inner, self.view());
        // Not the manifests: all of them may take gigabytes.
        let mut parents: BTreeMap<SnapshotName, Option<SnapshotName>> = BTreeMap::new();
        let parent = |manifest: &Manifest| Some(manifest.parent.as_ref()?.name.clone());
        let mut unread = view.bucket.objects.len().saturating_sub(MAX_TREE_OBJECTS);
        let objects = view.bucket.objects.iter().take(MAX_TREE_OBJECTS);
        let reads: Vec<_> = objects
            .map(|object| object_manifest(inner, object))
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(MAX_MANIFEST_READS);
        while let Some(manifest) = reads.next().await {
            match manifest {
                Ok(manifest) => {
                    parents.extend(manifest.map(|one| (one.name.clone(), parent(&one))));
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    unread += 1;
                }
            }
        }
        let reachable = view.hosts.iter().filter(|host| host.link == Link::Up);
        for host_view in reachable {
            let Ok(host) = self.host(&host_view.name) else {
                continue;
            };
            let snapshots: Vec<&Snapshot> = {
                let all = host_view.snapshots.iter();
                all.filter(|snapshot| !parents.contains_key(&snapshot.name))
                    .collect()
            };
            unread += snapshots.len().saturating_sub(MAX_HOST_MANIFESTS);
            let mut reads = read_snapshot_manifests(inner, host, snapshots);
            while let Some(manifest) = reads.next().await {
                match manifest {
                    Ok(manifest) => {
                        parents.extend(manifest.map(|(name, one)| (name, parent(&one))));
                    }
                    Err(error) => {
                        tracing::debug!("{error}");
                        unread += 1;
                    }
                }
            }
        }
        let parents = parents
            .into_iter()
            .filter_map(|(name, parent)| Some((name, parent?)));
        Parents {
            parents: parents.collect(),
            unread_count: unread,
        }
    }

    /// Returns the relatives and annotations of a snapshot and the cost of a pull to `host`. Without an answer of the
    /// bucket, its part is missing.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host; `Unreachable` if it does not answer.
    pub async fn lineage(&self, host: Option<&HostName>, name: &SnapshotName) -> Result<Lineage> {
        let (index, object) = self.lineage_index(host, name).await?;
        let is_on_host = object
            .as_ref()
            .is_some_and(|object| index.has_copy_of(name, object.size_bytes));
        let size_bytes = object.as_ref().map(|object| object.size_bytes);
        let mut lineage = index.lineage(name, size_bytes, is_on_host);
        if let Some(host) = host.filter(|_| index.host_snapshots.contains_key(name)) {
            lineage.local = self.host(host)?.snapshots().annotations(name).await?;
        }
        if object.is_some() {
            lineage.bucket = self
                .inner
                .bucket
                .annotations(name)
                .await
                .unwrap_or_default();
        }
        Ok(lineage)
    }

    /// Returns the cost of a pull of a snapshot to `host`; an existing copy is ignored.
    ///
    /// # Errors
    /// `NotFound` for an unknown object or if the bucket does not answer; as [`Engine::lineage`].
    pub async fn pull_cost(&self, host: &HostName, name: &SnapshotName) -> Result<PullCost> {
        let (index, object) = self.lineage_index(Some(host), name).await?;
        let not_found = || Error::new(Kind::NotFound, format!("object {name} not found"));
        Ok(index.pull_cost(name, object.ok_or_else(not_found)?.size_bytes))
    }

    /// Reads the manifests of a host's snapshots, and those of an object and its ancestors; also returns the object.
    async fn lineage_index(
        &self,
        host: Option<&HostName>,
        name: &SnapshotName,
    ) -> Result<(LineageIndex, Option<Object>)> {
        let inner = &*self.inner;
        let host = host.map(|host| self.host(host)).transpose()?;
        let mut index = LineageIndex::default();
        if let Some(host) = host {
            let snapshots = self.cached_snapshots(host).await?;
            let valid_size = |snapshot: &Snapshot| {
                let is_valid = snapshot.problem.is_none();
                is_valid.then_some(snapshot.size_bytes)
            };
            index.host_snapshots = snapshots
                .iter()
                .map(|snapshot| (snapshot.name.clone(), valid_size(snapshot)))
                .collect();
            let unread_count = snapshots.len().saturating_sub(MAX_HOST_MANIFESTS);
            if unread_count > 0 {
                index.unread.push(format!(
                    "{unread_count} of the snapshots on host {}: there are more than {MAX_HOST_MANIFESTS}",
                    host.name()
                ));
            }
            let mut reads = read_snapshot_manifests(inner, host, snapshots.iter());
            while let Some(manifest) = reads.next().await {
                let kept = manifest?.filter(|(other, manifest)| {
                    other == name
                        || has_room(
                            &mut index,
                            manifest,
                            &format!("{other} on host {}", host.name()),
                        )
                });
                index.host_manifests.extend(kept);
            }
        }
        let object = match inner.bucket.is_configured() {
            true => read_bucket_manifests(inner, name, &mut index).await,
            false => None,
        };
        Ok((index, object))
    }

    /// Returns a host's snapshots from the view, or from a new scan if the view has none.
    async fn cached_snapshots(&self, host: &Host) -> Result<Arc<[Snapshot]>> {
        let view = self.view();
        match view.host(host.name()) {
            Some(view) if view.link == Link::Up => Ok(view.snapshots.clone()),
            _ => Ok(self.snapshots(host.name()).await?.into()),
        }
    }
}

/// Reads at most [`MAX_HOST_MANIFESTS`] manifests.
fn read_snapshot_manifests<'a>(
    inner: &'a Inner,
    host: &'a Host,
    snapshots: impl IntoIterator<Item = &'a Snapshot>,
) -> impl Stream<Item = Result<Option<(SnapshotName, Arc<Manifest>)>>> {
    let snapshots = snapshots.into_iter().take(MAX_HOST_MANIFESTS);
    let reads: Vec<_> = snapshots
        .map(|snapshot| snapshot_manifest(inner, host, snapshot))
        .collect();
    stream::iter(reads).buffer_unordered(MAX_MANIFEST_READS)
}

async fn snapshot_manifest(
    inner: &Inner,
    host: &Host,
    snapshot: &Snapshot,
) -> Result<Option<(SnapshotName, Arc<Manifest>)>> {
    let (host_name, name) = (Some(host.name()), &snapshot.name);
    let fingerprint = format!("{} {:?}", snapshot.size_bytes, snapshot.modified);
    let cached = inner.manifests().get(host_name, name, &fingerprint);
    let manifest = match cached {
        Some(cached) => cached,
        None => {
            let read = host.snapshots().manifest(name).await?.map(Arc::new);
            inner
                .manifests()
                .insert(host_name, name, fingerprint, read.clone());
            read
        }
    };
    Ok(manifest.map(|manifest| (name.clone(), manifest)))
}

/// Reads the manifests of an object and its ancestors in the bucket; returns the object.
async fn read_bucket_manifests(
    inner: &Inner,
    subject_name: &SnapshotName,
    index: &mut LineageIndex,
) -> Option<Object> {
    let (mut subject, mut visited) = (None, BTreeSet::new());
    let mut next = Some(subject_name.clone());
    for _ in 0..=MAX_PARENTS {
        let Some(name) = next.take().filter(|name| !visited.contains(name)) else {
            break;
        };
        let object = match inner.bucket.head(&name).await {
            Ok(object) => object,
            Err(error) => {
                index.unread.push(error.to_string());
                break;
            }
        };
        let mut in_bucket = None;
        if let Some(object) = object {
            index.bucket_objects.insert(name.clone());
            match object_manifest(inner, &object).await {
                Ok(manifest) => {
                    in_bucket = manifest;
                    let kept = in_bucket.clone().filter(|manifest| {
                        name == *subject_name
                            || has_room(index, manifest, &format!("{name} in the bucket"))
                    });
                    index
                        .bucket_manifests
                        .extend(kept.map(|manifest| (name.clone(), manifest)));
                }
                Err(error) => index.unread.push(error.to_string()),
            }
            if object.name == *subject_name {
                subject = Some(object);
            }
        }
        visited.insert(name.clone());
        let manifest = index.host_manifests.get(&name).or(in_bucket.as_ref());
        next = manifest
            .and_then(|manifest| manifest.parent.as_ref())
            .map(|parent| parent.name.clone());
    }
    subject
}

/// Returns whether the blocks of one more manifest can be compared; else adds it to those that were not read.
fn has_room(index: &mut LineageIndex, manifest: &Manifest, place: &str) -> bool {
    let kept = index.host_manifests.values();
    let kept = kept.chain(index.bucket_manifests.values());
    let blocks: usize = kept.map(|manifest| manifest.blocks.len()).sum();
    let has_room = blocks + manifest.blocks.len() <= MAX_COMPARED_BLOCKS;
    if !has_room {
        index.unread.push(format!(
            "the blocks of {place}: all the manifests together list more than {MAX_COMPARED_BLOCKS}"
        ));
    }
    has_room
}

async fn object_manifest(inner: &Inner, object: &Object) -> Result<Option<Arc<Manifest>>> {
    let fingerprint = object.etag.clone().unwrap_or_default();
    let cached = inner.manifests().get(None, &object.name, &fingerprint);
    if let Some(cached) = cached {
        return Ok(cached);
    }
    let read = inner.bucket.manifest(object).await?.map(Arc::new);
    let mut manifests = inner.manifests();
    manifests.insert(None, &object.name, fingerprint, read.clone());
    Ok(read)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::Digest;

    #[test]
    fn manifests_are_kept_up_to_a_limit_and_the_others_are_named() {
        let mut index = LineageIndex::default();
        for number in 0..5 {
            let name: SnapshotName = format!("v{number}").parse().unwrap();
            let blocks = vec![Digest([number; 32]); MAX_COMPARED_BLOCKS / 4 + 1];
            let size_bytes = blocks.len() as u64 * snapdeck_model::BLOCK_BYTES;
            let manifest = Manifest::new(name.clone(), size_bytes, blocks);
            if has_room(&mut index, &manifest, &format!("{name} in the bucket")) {
                index.bucket_manifests.insert(name, Arc::new(manifest));
            }
        }
        assert_eq!(index.bucket_manifests.len(), 3);
        assert_eq!(index.unread.len(), 2);
        assert!(index.unread[0].starts_with("the blocks of v3 in the bucket: "));
    }
}
