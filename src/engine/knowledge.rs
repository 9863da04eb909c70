//! What manifests tell of one snapshot: asked for when somebody looks at it, never for all there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{Engine, Inner, Link};
use crate::host::Host;
use crate::model::{
    Family, HostName, Lineage, MAX_PARENTS, Manifest, Object, Remarks, RemarksChange, Result,
    Snapshot, SnapshotName,
};

/// Snapshots of a host whose manifests are read to compare with one; more are not compared.
const MOST: usize = 200;
/// Manifests read from a host at once.
const AT_ONCE: usize = 4;
/// Manifests that are kept: of images of 40 GiB, 40 MiB.
const KEPT: usize = 256;

/// Manifests that were read, each while its image is the same.
#[derive(Default)]
pub(super) struct Cache {
    kept: HashMap<(Option<HostName>, SnapshotName), (String, Arc<Manifest>)>,
}

impl Cache {
    fn get(
        &self,
        place: Option<&HostName>,
        name: &SnapshotName,
        mark: &str,
    ) -> Option<Arc<Manifest>> {
        let (kept, manifest) = self.kept.get(&(place.cloned(), name.clone()))?;
        (kept == mark).then(|| manifest.clone())
    }

    fn keep(
        &mut self,
        place: Option<&HostName>,
        name: &SnapshotName,
        mark: String,
        manifest: Arc<Manifest>,
    ) {
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        self.kept
            .insert((place.cloned(), name.clone()), (mark, manifest));
    }
}

impl Engine {
    /// What is known of a snapshot's relatives, what is said of it, and what a pull of it to `host` would bring. A
    /// bucket that does not answer tells nothing.
    ///
    /// # Errors
    /// `BadInput` for an unknown host; `Unreachable` where it does not answer.
    pub async fn lineage(&self, host: Option<&HostName>, name: &SnapshotName) -> Result<Lineage> {
        let inner = &*self.inner;
        let host = host.map(|host| self.host(host)).transpose()?;
        let snapshots = match host {
            Some(host) => self.known_snapshots(host).await?,
            None => Arc::new([]),
        };
        let mut family = Family {
            on_host: snapshots.iter().map(|one| one.name.clone()).collect(),
            ..Family::default()
        };
        if let Some(host) = host {
            let read = snapshots
                .iter()
                .take(MOST)
                .map(|snapshot| of_snapshot(inner, host, snapshot));
            let mut read = stream::iter(read).buffer_unordered(AT_ONCE);
            while let Some(found) = read.next().await {
                family.host.extend(found?);
            }
        }
        let object = match inner.bucket.is_configured() {
            true => of_bucket(inner, name, &mut family).await,
            false => None,
        };
        let is_there = |object: &Object| {
            let mut here = snapshots.iter().filter(|one| one.name == *name);
            here.any(|one| one.problem.is_none() && one.size_bytes == object.size_bytes)
                && match (family.host.get(name), family.bucket.get(name)) {
                    (Some(ours), Some(theirs)) => ours.has_bytes_of(theirs),
                    _ => true,
                }
        };
        let is_there = object.as_ref().is_some_and(is_there);
        let bytes = object.as_ref().map(|object| object.size_bytes);
        let mut lineage = family.lineage(name, bytes, is_there);
        if let Some(host) = host.filter(|_| family.on_host.contains(name)) {
            lineage.local = host.remarks(name).await?;
        }
        if object.is_some() {
            lineage.bucket = inner.bucket.remarks(name).await.unwrap_or_default();
        }
        Ok(lineage)
    }

    /// What is said of a snapshot: on the host where one is given, and in the bucket where that is asked for.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn remarks(
        &self,
        host: Option<&HostName>,
        bucket: bool,
        name: &SnapshotName,
    ) -> Result<(Option<Remarks>, Option<Remarks>)> {
        let here = match host {
            Some(host) => self.host(host)?.remarks(name).await?,
            None => None,
        };
        let there = match bucket {
            true => self.inner.bucket.remarks(name).await?,
            false => None,
        };
        Ok((here, there))
    }

    /// Changes what is said of a snapshot on a host.
    ///
    /// # Errors
    /// `NotFound`; `Refused` while somebody works on it, or where what lies beside it is no manifest; `Unreachable`.
    pub async fn remark_on(
        &self,
        host: &HostName,
        name: &SnapshotName,
        change: &RemarksChange,
    ) -> Result<Remarks> {
        self.host(host)?.remark(name, change).await
    }

    /// Changes what is said of an object.
    ///
    /// # Errors
    /// As the store fails to answer; `Refused` where what lies beside the object is no manifest.
    pub async fn remark_in_bucket(
        &self,
        object: &Object,
        change: &RemarksChange,
    ) -> Result<Remarks> {
        self.inner.bucket.remark(object, change).await
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
async fn of_snapshot(
    inner: &Inner,
    host: &Host,
    snapshot: &Snapshot,
) -> Result<Option<(SnapshotName, Arc<Manifest>)>> {
    let (place, name) = (Some(host.name()), &snapshot.name);
    let mark = format!("{} {:?}", snapshot.size_bytes, snapshot.modified);
    let known = inner.manifests().get(place, name, &mark);
    if let Some(known) = known {
        return Ok(Some((name.clone(), known)));
    }
    // One that has none yet may get one: only those that are there are kept.
    let read = host.manifest(name).await?.map(Arc::new);
    if let Some(read) = &read {
        inner.manifests().keep(place, name, mark, read.clone());
    }
    Ok(read.map(|read| (name.clone(), read)))
}

/// Reads the manifests of an object and its ancestors in the bucket; returns the object.
async fn of_bucket(
    inner: &Inner,
    subject_name: &SnapshotName,
    family: &mut Family,
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
            family.in_bucket.insert(name.clone());
            let manifest = of_object(inner, &object).await;
            let manifest = manifest.map(|manifest| (name.clone(), manifest));
            family.bucket.extend(manifest);
            if object.name == *subject_name {
                subject = Some(object);
            }
        }
        seen.insert(name.clone());
        let manifest = family.host.get(&name).or_else(|| family.bucket.get(&name));
        next = manifest
            .and_then(|manifest| manifest.parent.as_ref())
            .map(|parent| parent.name.clone());
    }
    subject
}

/// The manifest of an object, where it can be read.
async fn of_object(inner: &Inner, object: &Object) -> Option<Arc<Manifest>> {
    let mark = object.etag.clone().unwrap_or_default();
    let known = inner.manifests().get(None, &object.name, &mark);
    if known.is_some() {
        return known;
    }
    let read = inner.bucket.manifest(object).await;
    let read = read
        .inspect_err(|error| tracing::debug!("{error}"))
        .ok()??;
    let read = Arc::new(read);
    inner
        .manifests()
        .keep(None, &object.name, mark, read.clone());
    Some(read)
}
