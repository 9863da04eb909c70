//! What manifests tell of one snapshot: asked for when somebody looks at it, never for all there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use super::{Engine, Inner, Link};
use snapdeck_host::Host;
use snapdeck_model::{
    Annotations, AnnotationsPatch, Error, HostName, Kind, Lineage, LineageIndex, MAX_PARENTS,
    Manifest, Object, PullCost, Result, Snapshot, SnapshotName,
};

/// Snapshots of a host whose manifests are read to compare with one; more are not compared.
const MAX_HOST_MANIFESTS: usize = 200;
/// Objects whose manifests are read for a tree.
const MAX_TREE_OBJECTS: usize = 200;
/// Manifests read from a host at once.
const MAX_MANIFEST_READS: usize = 4;
/// Manifests that are kept: of images of 40 GiB, 40 MiB.
const MAX_CACHED_MANIFESTS: usize = 256;

/// How long it is believed that there is no manifest beside an image: it may get one while it stays the same.
const MISSING_MANIFEST_TTL: Duration = Duration::from_secs(60);

/// Manifests that were read, each while its image is the same.
#[derive(Default)]
pub(super) struct ManifestCache {
    entries: HashMap<(Option<HostName>, SnapshotName), CachedManifest>,
}

struct CachedManifest {
    /// Tells the image from others of its name.
    fingerprint: String,
    cached_at: Instant,
    manifest: Option<Arc<Manifest>>,
}

impl ManifestCache {
    /// What is known of an image's manifest.
    fn get(
        &self,
        place: Option<&HostName>,
        name: &SnapshotName,
        mark: &str,
    ) -> Option<Option<Arc<Manifest>>> {
        let kept = self.entries.get(&(place.cloned(), name.clone()))?;
        let holds = kept.manifest.is_some() || kept.cached_at.elapsed() < MISSING_MANIFEST_TTL;
        (kept.fingerprint == mark && holds).then(|| kept.manifest.clone())
    }

    fn insert(
        &mut self,
        place: Option<&HostName>,
        name: &SnapshotName,
        mark: String,
        manifest: Option<Arc<Manifest>>,
    ) {
        if self.entries.len() >= MAX_CACHED_MANIFESTS {
            self.entries.clear();
        }
        let kept = CachedManifest {
            fingerprint: mark,
            cached_at: Instant::now(),
            manifest,
        };
        self.entries.insert((place.cloned(), name.clone()), kept);
    }
}

/// What was made from what, by the manifests of all that the view shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parents {
    /// The snapshot that each was made from, where that is known.
    pub parents: BTreeMap<SnapshotName, SnapshotName>,
    /// Snapshots whose manifests were not read, because they are too many or did not come.
    pub unread_count: usize,
}

impl Engine {
    /// What was made from what, of all that is seen in the bucket and on the hosts that answer. A manifest in the
    /// bucket is asked before one on a host: it is nearer, and says the same.
    pub async fn parents(&self) -> Parents {
        let (inner, view) = (&*self.inner, self.view());
        let mut manifests: BTreeMap<SnapshotName, Arc<Manifest>> = BTreeMap::new();
        let mut unread = view.bucket.objects.len().saturating_sub(MAX_TREE_OBJECTS);
        let some = view.bucket.objects.iter().take(MAX_TREE_OBJECTS);
        let read: Vec<_> = some.map(|object| object_manifest(inner, object)).collect();
        let mut read = stream::iter(read).buffer_unordered(MAX_MANIFEST_READS);
        while let Some(manifest) = read.next().await {
            manifests.extend(manifest.map(|manifest| (manifest.name.clone(), manifest)));
        }
        let up = view.hosts.iter().filter(|host| host.link == Link::Up);
        for seen in up {
            let Ok(host) = self.host(&seen.name) else {
                continue;
            };
            let asked: Vec<&Snapshot> = {
                let all = seen.snapshots.iter();
                all.filter(|one| !manifests.contains_key(&one.name))
                    .collect()
            };
            unread += asked.len().saturating_sub(MAX_HOST_MANIFESTS);
            let some = asked.into_iter().take(MAX_HOST_MANIFESTS);
            let read: Vec<_> = some
                .map(|one| snapshot_manifest(inner, host, one))
                .collect();
            let mut read = stream::iter(read).buffer_unordered(MAX_MANIFEST_READS);
            while let Some(found) = read.next().await {
                match found {
                    Ok(found) => manifests.extend(found),
                    Err(error) => {
                        tracing::debug!("{error}");
                        unread += 1;
                    }
                }
            }
        }
        let parent =
            |manifest: &Arc<Manifest>| manifest.parent.as_ref().map(|one| one.name.clone());
        let of = manifests
            .iter()
            .filter_map(|(name, manifest)| Some((name.clone(), parent(manifest)?)));
        Parents {
            parents: of.collect(),
            unread_count: unread,
        }
    }

    /// What is known of a snapshot's relatives, what is said of it, and what a pull of it to `host` would bring. A
    /// bucket that does not answer tells nothing.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host; `Unreachable` where it does not answer.
    pub async fn lineage(&self, host: Option<&HostName>, name: &SnapshotName) -> Result<Lineage> {
        let (family, object) = self.lineage_index(host, name).await?;
        let is_there = object
            .as_ref()
            .is_some_and(|object| family.has_copy_of(name, object.size_bytes));
        let bytes = object.as_ref().map(|object| object.size_bytes);
        let mut lineage = family.lineage(name, bytes, is_there);
        if let Some(host) = host.filter(|_| family.host_snapshots.contains_key(name)) {
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

    /// What a pull of a snapshot to `host` would bring, were there none of its name to be left alone.
    ///
    /// # Errors
    /// `NotFound` where there is no such object, or the bucket does not answer; as [`Engine::lineage`].
    pub async fn pull_cost(&self, host: &HostName, name: &SnapshotName) -> Result<PullCost> {
        let (family, object) = self.lineage_index(Some(host), name).await?;
        let gone = || Error::new(Kind::NotFound, format!("object {name} not found"));
        Ok(family.pull_cost(name, object.ok_or_else(gone)?.size_bytes))
    }

    /// Reads the manifests there are on a host, and those of an object and its ancestors; returns the object, too.
    async fn lineage_index(
        &self,
        host: Option<&HostName>,
        name: &SnapshotName,
    ) -> Result<(LineageIndex, Option<Object>)> {
        let inner = &*self.inner;
        let host = host.map(|host| self.host(host)).transpose()?;
        let mut family = LineageIndex::default();
        if let Some(host) = host {
            let snapshots = self.known_snapshots(host).await?;
            let sound = |one: &Snapshot| one.problem.is_none().then_some(one.size_bytes);
            let names = snapshots.iter().map(|one| (one.name.clone(), sound(one)));
            family.host_snapshots = names.collect();
            let some = snapshots.iter().take(MAX_HOST_MANIFESTS);
            let read: Vec<_> = some
                .map(|one| snapshot_manifest(inner, host, one))
                .collect();
            let mut read = stream::iter(read).buffer_unordered(MAX_MANIFEST_READS);
            while let Some(found) = read.next().await {
                family.host_manifests.extend(found?);
            }
        }
        let object = match inner.bucket.is_configured() {
            true => bucket_manifests(inner, name, &mut family).await,
            false => None,
        };
        Ok((family, object))
    }

    /// What is said of a snapshot: on the host where one is given, and in the bucket where that is asked for.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn annotations(
        &self,
        host: Option<&HostName>,
        bucket: bool,
        name: &SnapshotName,
    ) -> Result<(Option<Annotations>, Option<Annotations>)> {
        let here = match host {
            Some(host) => self.host(host)?.snapshots().annotations(name).await?,
            None => None,
        };
        let there = match bucket {
            true => self.inner.bucket.annotations(name).await?,
            false => None,
        };
        Ok((here, there))
    }

    /// Changes what is said of a snapshot on a host.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` while somebody works on it, or where what lies beside it is no manifest; `Unreachable`.
    pub async fn annotate_snapshot(
        &self,
        host: &HostName,
        name: &SnapshotName,
        change: &AnnotationsPatch,
    ) -> Result<Annotations> {
        self.host(host)?.snapshots().annotate(name, change).await
    }

    /// Changes what is said of an object.
    ///
    /// # Errors
    /// As the store fails to answer; `Unsupported` where what lies beside the object is no manifest.
    pub async fn annotate_object(
        &self,
        object: &Object,
        change: &AnnotationsPatch,
    ) -> Result<Annotations> {
        self.inner.bucket.annotate(object, change).await
    }

    /// Changes what is said of a snapshot on a host, and in the bucket.
    ///
    /// # Errors
    /// As [`Engine::annotate_snapshot`] and [`Engine::annotate_object`]; `NotFound` where the bucket has no such object.
    pub async fn annotate(
        &self,
        host: Option<&HostName>,
        bucket: bool,
        name: &SnapshotName,
        change: &AnnotationsPatch,
    ) -> Result<()> {
        if let Some(host) = host {
            self.annotate_snapshot(host, name, change).await?;
        }
        if bucket {
            let gone = || Error::new(Kind::NotFound, format!("object {name} not found"));
            let object = self.object(name).await?.ok_or_else(gone)?;
            self.annotate_object(&object, change).await?;
        }
        Ok(())
    }

    /// A host's snapshots, as they were last seen while it is followed, else asked now.
    async fn known_snapshots(&self, host: &Host) -> Result<Arc<[Snapshot]>> {
        let view = self.view();
        match view.host(host.name()) {
            Some(seen) if seen.link == Link::Up => Ok(seen.snapshots.clone()),
            _ => Ok(self.snapshots(host.name()).await?.into()),
        }
    }
}

/// The manifest of a host's snapshot, by name.
async fn snapshot_manifest(
    inner: &Inner,
    host: &Host,
    snapshot: &Snapshot,
) -> Result<Option<(SnapshotName, Arc<Manifest>)>> {
    let (place, name) = (Some(host.name()), &snapshot.name);
    let mark = format!("{} {:?}", snapshot.size_bytes, snapshot.modified);
    let known = inner.manifests().get(place, name, &mark);
    let manifest = match known {
        Some(known) => known,
        None => {
            let read = host.snapshots().manifest(name).await?.map(Arc::new);
            inner.manifests().insert(place, name, mark, read.clone());
            read
        }
    };
    Ok(manifest.map(|manifest| (name.clone(), manifest)))
}

/// Reads the manifests of an object and its ancestors in the bucket; returns the object.
async fn bucket_manifests(
    inner: &Inner,
    subject_name: &SnapshotName,
    family: &mut LineageIndex,
) -> Option<Object> {
    let (mut subject, mut seen) = (None, BTreeSet::new());
    let mut next = Some(subject_name.clone());
    for _ in 0..=MAX_PARENTS {
        let Some(name) = next.take().filter(|name| !seen.contains(name)) else {
            break;
        };
        let object = match inner.bucket.head(&name).await {
            Ok(object) => object,
            Err(error) => {
                tracing::debug!("{error}");
                break;
            }
        };
        if let Some(object) = object {
            family.bucket_objects.insert(name.clone());
            let manifest = object_manifest(inner, &object).await;
            let manifest = manifest.map(|manifest| (name.clone(), manifest));
            family.bucket_manifests.extend(manifest);
            if object.name == *subject_name {
                subject = Some(object);
            }
        }
        seen.insert(name.clone());
        let manifest = family
            .host_manifests
            .get(&name)
            .or_else(|| family.bucket_manifests.get(&name));
        next = manifest
            .and_then(|manifest| manifest.parent.as_ref())
            .map(|parent| parent.name.clone());
    }
    subject
}

/// The manifest of an object, where it can be read.
async fn object_manifest(inner: &Inner, object: &Object) -> Option<Arc<Manifest>> {
    let mark = object.etag.clone().unwrap_or_default();
    let known = inner.manifests().get(None, &object.name, &mark);
    if let Some(known) = known {
        return known;
    }
    let read = inner.bucket.manifest(object).await;
    let read = read.inspect_err(|error| tracing::debug!("{error}")).ok()?;
    let read = read.map(Arc::new);
    let mut manifests = inner.manifests();
    manifests.insert(None, &object.name, mark, read.clone());
    read
}
