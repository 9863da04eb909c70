//! Copies of an image: snapshots and objects that have the same bytes, whatever their names are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::state::Engine;
use super::view::{Link, View};
use snapdeck_model::{Digest, FileStamp, HostName, Manifest, Object, Snapshot, SnapshotName};
use snapdeck_ops::content_digest;

const MAX_MANIFEST_READS: usize = 8;

/// A snapshot on a host, or an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageLocation {
    /// The host; `None`: the bucket.
    pub host: Option<HostName>,
    /// Name of the snapshot.
    pub name: SnapshotName,
}

/// A snapshot or object that was listed.
#[derive(Debug, Clone)]
pub(super) struct ListedImage {
    pub location: ImageLocation,
    size_bytes: u64,
    /// Whether no problem is known.
    is_good: bool,
    object: Option<Object>,
    /// The file of a snapshot: hosts that share a directory list the same one.
    file: Option<FileStamp>,
}

impl ListedImage {
    pub(crate) fn from_snapshot(host: &HostName, snapshot: &Snapshot) -> Self {
        Self {
            location: ImageLocation {
                host: Some(host.clone()),
                name: snapshot.name.clone(),
            },
            size_bytes: snapshot.size_bytes,
            is_good: snapshot.problem.is_none(),
            object: None,
            file: snapshot.file,
        }
    }

    pub(crate) fn from_object(object: &Object) -> Self {
        Self {
            location: ImageLocation {
                host: None,
                name: object.name.clone(),
            },
            size_bytes: object.size_bytes,
            is_good: object.problem.is_none(),
            object: Some(object.clone()),
            file: None,
        }
    }
}

/// The bytes of an image, as far as they are known.
struct ImageContent {
    size_bytes: u64,
    /// A strong entity tag of an object with these bytes, without quotes.
    etag: Option<String>,
    /// Those of its manifest. The manifest itself, of a listing of thousands, would take gigabytes.
    digest: Option<Digest>,
    /// Whether that is the word of a host, which proves nothing.
    is_claimed: bool,
}

impl ImageContent {
    /// Returns whether both provably have the same bytes.
    fn is_same(&self, other: &Self) -> bool {
        self.size_bytes == other.size_bytes
            && !self.is_claimed
            && !other.is_claimed
            && match (&self.digest, &other.digest) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => self.etag.is_some() && self.etag == other.etag,
            }
    }
}

impl Engine {
    /// Returns the other copies in the view of each of `targets`, which provably have the same bytes, and no known
    /// problem. Only reachable places count.
    pub async fn equal_copies(
        &self,
        targets: &[ImageLocation],
    ) -> BTreeMap<ImageLocation, Vec<ImageLocation>> {
        let images = images_in_view(&self.view());
        let targets = targets.iter().cloned().collect();
        self.find_equal(&targets, &images).await
    }

    /// Returns the good images among `all` that provably have the bytes of each of `targets`, without itself.
    pub(super) async fn find_equal(
        &self,
        targets: &BTreeSet<ImageLocation>,
        all: &[ListedImage],
    ) -> BTreeMap<ImageLocation, Vec<ImageLocation>> {
        let is_target = |image: &&ListedImage| targets.contains(&image.location);
        let sizes: BTreeSet<u64> = {
            let targets = all.iter().filter(is_target);
            targets.map(|image| image.size_bytes).collect()
        };
        let images = all.iter().filter(|image| sizes.contains(&image.size_bytes));
        let reads: Vec<_> = images
            .map(|image| async move { (image, self.content(image).await) })
            .collect();
        let contents: Vec<(&ListedImage, ImageContent)> = stream::iter(reads)
            .buffer_unordered(MAX_MANIFEST_READS)
            .collect()
            .await;
        let others = |target: &ListedImage, content: &ImageContent| {
            let others = contents.iter().filter(|(other, other_content)| {
                let is_same_file = other.location == target.location
                    || (other.file.is_some() && other.file == target.file);
                other.is_good && !is_same_file && other_content.is_same(content)
            });
            others.map(|(other, _)| other.location.clone()).collect()
        };
        contents
            .iter()
            .filter(|(image, _)| is_target(image))
            .map(|(target, content)| (target.location.clone(), others(target, content)))
            .collect()
    }

    /// Returns the manifest of an image; `None` if it has none or it cannot be read.
    pub(super) async fn listed_manifest(&self, image: &ListedImage) -> Option<Manifest> {
        let ImageLocation { host, name } = &image.location;
        let read = match (&image.object, host) {
            (Some(object), _) => self.inner.bucket.manifest(object).await,
            (None, Some(host)) => match self.host(host) {
                Ok(host) => host.snapshots().manifest(name).await,
                Err(error) => Err(error),
            },
            (None, None) => Ok(None),
        };
        read.inspect_err(|error| tracing::debug!("{error}"))
            .ok()
            .flatten()
    }

    async fn content(&self, image: &ListedImage) -> ImageContent {
        let manifest = self.listed_manifest(image).await;
        let etag = match &image.object {
            Some(object) => object.etag.clone(),
            None => manifest.as_ref().and_then(|manifest| manifest.etag.clone()),
        };
        let etag = etag.filter(|etag| !etag.is_empty() && !etag.starts_with("W/"));
        ImageContent {
            size_bytes: image.size_bytes,
            etag: etag.map(|etag| etag.trim_matches('"').to_owned()),
            is_claimed: (manifest.as_ref()).is_some_and(|manifest| manifest.claimed.is_some()),
            digest: manifest.as_ref().map(content_digest),
        }
    }
}

fn images_in_view(view: &Arc<View>) -> Vec<ListedImage> {
    let hosts = view.hosts.iter().filter(|host| host.link == Link::Up);
    let snapshots = hosts.flat_map(|host| {
        let snapshots = host.snapshots.iter();
        snapshots.map(|snapshot| ListedImage::from_snapshot(&host.name, snapshot))
    });
    let is_listed = view.bucket.link == Link::Up && view.bucket.last_listing.is_some();
    let objects = view.bucket.objects.iter().filter(|_| is_listed);
    snapshots
        .chain(objects.map(ListedImage::from_object))
        .collect()
}
