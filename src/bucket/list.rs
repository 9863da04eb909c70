//! Lists the snapshots in the bucket, a page at a time: those directly under the prefix, then those of each organization.

use std::collections::{HashMap, VecDeque};

use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;

use super::Bucket;
use super::keys::{IMAGE_SUFFIX, MANIFEST_SUFFIX, snapshot_name};
use super::parts::find_problem;
use super::s3::{Reason, Store};
use snapdeck_model::{Error, Kind, Object, Result, SnapshotName};

/// Pages of up to 1,000 keys: two million keys. A store with more repeats itself.
const MAX_PAGES: u32 = 2000;
/// Snapshots of one listing, which are in memory.
const MAX_SNAPSHOTS: usize = 100_000;
/// Objects of one listing whose metadata is read, to find incomplete snapshots.
const MAX_INSPECTED: usize = 200;
/// Concurrent reads of metadata.
const MAX_CONCURRENT_READS: usize = 16;

/// A page of a listing.
#[derive(Debug, Default)]
pub struct ObjectPage {
    /// Snapshots in the order of their keys.
    pub objects: Vec<Object>,
    /// Why the rest of an organization's folder is left out.
    pub denied: Option<Error>,
}

struct Paginator {
    bucket: Bucket,
    /// Prefix of the organization whose objects are listed; `None`: that of the settings.
    folder: Option<String>,
    /// Those that follow.
    folders: VecDeque<String>,
    token: Option<String>,
    pages: u32,
    is_done: bool,
    /// Times of the manifests whose images are still to come: in the order of keys they precede them.
    manifests: HashMap<SnapshotName, Option<Timestamp>>,
    inspected: usize,
    snapshots: usize,
}

/// Returns the pages in the order of the store; ends after the first error.
pub(super) fn list_pages(bucket: Bucket) -> impl Stream<Item = Result<ObjectPage>> + Send + use<> {
    let settings = bucket.lazy_client.settings();
    let folder = |name: &String| format!("{}{name}/", settings.prefix);
    let folders = settings.organizations.iter().map(folder).collect();
    let paginator = Paginator {
        bucket,
        folder: None,
        folders,
        token: None,
        pages: 0,
        is_done: false,
        manifests: HashMap::new(),
        inspected: 0,
        snapshots: 0,
    };
    stream::unfold(paginator, |mut paginator| async move {
        if paginator.is_done {
            return None;
        }
        let page = paginator.next_page().await;
        paginator.is_done |= page.is_err();
        Some((page, paginator))
    })
}

impl Paginator {
    async fn next_page(&mut self) -> Result<ObjectPage> {
        let bucket = self.bucket.clone();
        let store = bucket.lazy_client.get_store().await?;
        let prefix = &bucket.lazy_client.settings().prefix;
        let listed = self.folder.as_deref().unwrap_or(prefix);
        let page = match store.list(listed, self.token.clone()).await {
            Ok(page) => page,
            // The others may be readable.
            Err(failure) if self.folder.is_some() && failure.reason == Reason::AccessDenied => {
                self.next_folder();
                return Ok(ObjectPage {
                    denied: Some(failure.error),
                    ..ObjectPage::default()
                });
            }
            Err(failure) => return Err(failure.into()),
        };
        self.pages += 1;
        let next = page.next_token;
        if !page.is_last && (next.is_none() || next == self.token || self.pages >= MAX_PAGES) {
            let summary = format!("cannot list {}", bucket.location());
            return Err(Error::new(Kind::Failed, summary)
                .with_cause(format!("the listing of {} does not end", store.endpoint()))
                .hint("check the bucket with another S3 client"));
        }
        self.token = next;
        if page.is_last {
            self.next_folder();
        }
        let mut objects = Vec::new();
        let mut unclear = Vec::new();
        for object in page.objects {
            if let Some(name) = snapshot_name(prefix, &object.key, &[MANIFEST_SUFFIX]) {
                // Those of images that do not exist must not fill the memory; the images are looked up then.
                if self.manifests.len() >= MAX_SNAPSHOTS {
                    self.manifests.clear();
                }
                self.manifests.insert(name, object.modified);
            } else if let Some(name) = snapshot_name(prefix, &object.key, &[IMAGE_SUFFIX]) {
                // A manifest is written after its image, and again with each change of the annotations. Times are in
                // seconds: one of the same second may belong to the image that was replaced.
                let manifest = self.manifests.remove(&name);
                let is_complete =
                    manifest.is_some_and(|written| written.is_some() && written > object.modified);
                // Some stores list no entity tags: such an object is known by a HEAD request.
                if !is_complete || object.etag.is_none() {
                    unclear.push(objects.len());
                }
                objects.push(object.into_object(name));
            }
        }
        self.snapshots += objects.len();
        if self.snapshots > MAX_SNAPSHOTS {
            let summary = format!("cannot list {}", bucket.location());
            return Err(Error::new(Kind::Failed, summary)
                .with_cause(format!("it has more than {MAX_SNAPSHOTS} snapshots"))
                .hint("set [bucket] prefix to a part of it"));
        }
        self.inspect(store, &mut objects, unclear).await;
        Ok(ObjectPage {
            objects,
            denied: None,
        })
    }

    fn next_folder(&mut self) {
        self.token = None;
        self.folder = self.folders.pop_front();
        self.is_done = self.folder.is_none();
    }

    /// Sets the problem and a missing entity tag of the objects with the indexes `unclear`, as far as their metadata can be
    /// read.
    async fn inspect(&mut self, store: &Store, objects: &mut [Object], unclear: Vec<usize>) {
        let bucket = &self.bucket;
        let is_known = |index: &usize| {
            objects
                .get(*index)
                .is_none_or(|object| bucket.lazy_client.is_known_complete(object))
        };
        let unknown = unclear.into_iter().filter(|index| !is_known(index));
        let remaining = MAX_INSPECTED.saturating_sub(self.inspected);
        let unknown: Vec<(usize, Object)> = unknown
            .take(remaining)
            .filter_map(|index| Some((index, objects.get(index)?.clone())))
            .collect();
        self.inspected += unknown.len();
        let inspected: Vec<(usize, Object)> = stream::iter(unknown)
            .map(|(index, mut object)| async move {
                if let Err(error) = inspect(bucket, store, &mut object).await {
                    tracing::debug!("{error}");
                }
                (index, object)
            })
            .buffer_unordered(MAX_CONCURRENT_READS)
            .collect()
            .await;
        for (index, inspected) in inspected {
            if let Some(object) = objects.get_mut(index) {
                *object = inspected;
            }
        }
    }
}

/// Sets what is missing of the snapshot and its entity tag if it was not listed; records a complete one.
async fn inspect(bucket: &Bucket, store: &Store, object: &mut Object) -> Result<()> {
    let Some(image) = store.head(&object.key).await? else {
        return Ok(());
    };
    if object.etag.is_none() && image.size_bytes == object.size_bytes {
        object.etag.clone_from(&image.etag);
        if bucket.lazy_client.is_known_complete(object) {
            return Ok(());
        }
    }
    object.problem = find_problem(bucket, store, &object.name, &image).await?;
    if object.problem.is_none() {
        bucket.lazy_client.record_complete(object);
    }
    Ok(())
}
