//! The S3-compatible bucket: where snapshots lie as objects `PREFIX/NAME_WIDTH.qcow2`, with the UEFI variables of those that
//! have any beside them.
//!
//! [`Bucket`] is the handle. Small calls are tried again by the SDK; parts of an upload and ranges
//! of a download each on their own (`parts`), so that one lost connection costs 8 MiB and no more.

mod client;
mod doctor;
mod download;
mod errors;
mod leftovers;
mod list;
mod manifest;
mod meter;
mod multipart_object;
mod multipart_upload;
mod object;
mod transfer;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use snapdeck_model::settings::BucketSettings;
use snapdeck_model::{
    Annotations, AnnotationsPatch, BlockSet, Leftover, Manifest, Object, ProgressCell, Result,
    SnapshotName,
};

use client::LazyClient;

pub use download::MAX_BLOCKS_IN_MEMORY;
pub use multipart_object::MultipartObject;
pub use transfer::{MAX_PARTS_IN_MEMORY, part_size};

/// What stands behind a snapshot's name in its image's key.
const IMAGE_SUFFIX: &str = ".qcow2";

/// The bucket. Cheap to clone; no call is made until it is used.
#[derive(Clone)]
pub struct Bucket {
    lazy_client: Arc<LazyClient>,
    /// What stands behind a snapshot's name in a key.
    suffix: &'static str,
}

impl Bucket {
    /// A handle for `settings`. Makes no call: the client, its region and its credentials are found
    /// at the first use, so that this never waits for a metadata service or a sign-on.
    pub async fn new(settings: &BucketSettings) -> Self {
        Self {
            lazy_client: Arc::new(LazyClient::new(settings.clone())),
            suffix: IMAGE_SUFFIX,
        }
    }

    /// The same bucket, speaking of the UEFI variables of snapshots (`PREFIX/NAME_VARS.fd`) in place of their images.
    pub fn variables(&self) -> Self {
        Self {
            lazy_client: self.lazy_client.clone(),
            suffix: "_VARS.fd",
        }
    }

    /// Is a bucket named in the settings? Without one every call is `InvalidInput`.
    pub fn is_configured(&self) -> bool {
        self.lazy_client.settings().name.is_some()
    }

    /// `s3://NAME_WIDTH/PREFIX`, for messages and the header; `no bucket` where none is configured.
    pub fn location(&self) -> &str {
        self.lazy_client.location()
    }

    /// Key of a snapshot's object.
    pub fn key(&self, name: &SnapshotName) -> String {
        format!(
            "{}{name}{}",
            self.lazy_client.settings().prefix,
            self.suffix
        )
    }

    /// The images, a page at a time, in the order of their keys. Keys that are no `NAME_WIDTH.qcow2`
    /// directly under the prefix are passed over. Ends after the first error.
    pub fn list(&self) -> impl Stream<Item = Result<Vec<Object>>> + Send + use<> {
        list::list_pages(self.lazy_client.clone())
    }

    /// The object, or `None`. `NotFound` where the bucket itself does not exist.
    pub async fn head(&self, name: &SnapshotName) -> Result<Option<Object>> {
        let store = self.lazy_client.get_store().await?;
        object::head(store, name, &self.key(name)).await
    }

    /// Uploads `size_bytes` read by `read(offset, length)`, which must give exactly `length` bytes;
    /// multipart, parts in parallel, each tried again. At most 64 MiB (or one part, for images over
    /// 600 GiB) are in memory.
    ///
    /// `Unsupported` where the object exists and `overwrite` is false. On an error, a cancel or a drop
    /// the upload is aborted in the store. A cancel that comes when every part has been sent and
    /// the upload is being completed may come too late: then the object is returned.
    pub async fn upload<R, F>(
        &self,
        name: &SnapshotName,
        size_bytes: u64,
        read: R,
        overwrite: bool,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<Object>
    where
        R: Fn(u64, usize) -> F + Send + Sync,
        F: Future<Output = Result<Bytes>> + Send,
    {
        let store = self.lazy_client.get_store().await?;
        let (key, how) = (self.key(name), (overwrite, false));
        let assembly =
            MultipartObject::begin(store, (name, &key), size_bytes, how, progress, cancel).await?;
        match assembly.send_all(read).await {
            Ok(()) => assembly.complete().await,
            Err(error) => {
                assembly.abort().await;
                Err(error)
            }
        }
    }

    /// Begins an object of at most `most_bytes` that is put together part by part. SeaweedFS is not asked to keep a
    /// checksum of the whole: for it, it would read every copied part once more.
    ///
    /// # Errors
    /// `Unsupported` where the object exists and `overwrite` is false; `Cancelled`; the store's.
    pub async fn begin_multipart<'a>(
        &'a self,
        name: &'a SnapshotName,
        most_bytes: u64,
        overwrite: bool,
        progress: &'a ProgressCell,
        cancel: &'a CancellationToken,
    ) -> Result<MultipartObject<'a>> {
        let store = self.lazy_client.get_store().await?;
        let (key, how) = (self.key(name), (overwrite, true));
        MultipartObject::begin(store, (name, &key), most_bytes, how, progress, cancel).await
    }

    /// Downloads `blocks` of the object, several at once, each given to `write(block, bytes)` once and whole, nearly
    /// in order. `Failed` where the object changes meanwhile, `NotFound` where it is gone. At most 64 MiB are in
    /// memory.
    pub async fn download<W, F>(
        &self,
        object: &Object,
        blocks: &BlockSet,
        write: W,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()>
    where
        W: Fn(u64, Bytes) -> F + Send + Sync,
        F: Future<Output = Result<()>> + Send,
    {
        let store = self.lazy_client.get_store().await?;
        download::download_blocks(store, object, blocks, write, progress, cancel).await
    }

    /// Deletes the object and, after an image, its manifest. `NotFound` where there is no object.
    pub async fn delete(&self, name: &SnapshotName) -> Result<()> {
        let store = self.lazy_client.get_store().await?;
        object::delete(store, name, &self.key(name)).await?;
        // Left behind it would be ignored.
        if self.suffix == IMAGE_SUFFIX
            && let Err(error) = manifest::delete(store, &self.manifest_key(name)).await
        {
            tracing::warn!("{error}");
        }
        Ok(())
    }

    fn manifest_key(&self, name: &SnapshotName) -> String {
        let prefix = &self.lazy_client.settings().prefix;
        format!("{prefix}{}", name.manifest_file_name())
    }

    /// The manifest of `object`, where there is one; one that is of another image is ignored.
    pub async fn manifest(&self, object: &Object) -> Result<Option<Manifest>> {
        let store = self.lazy_client.get_store().await?;
        manifest::read(store, &self.manifest_key(&object.name), object).await
    }

    /// Writes a manifest beside the object it is of, in the place of any other. `Unsupported` where that is not the
    /// object that is there.
    pub async fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let store = self.lazy_client.get_store().await?;
        let (key, image) = (self.manifest_key(&manifest.name), self.key(&manifest.name));
        manifest::write(store, &key, &image, manifest).await
    }

    /// What is said of the snapshot in the manifest beside its object, whatever image that is of; `None` where there is
    /// no manifest.
    pub async fn annotations(&self, name: &SnapshotName) -> Result<Option<Annotations>> {
        let store = self.lazy_client.get_store().await?;
        manifest::read_annotations(store, &self.manifest_key(name)).await
    }

    /// Changes what is said of `object`; where it has no manifest, one of remarks alone is made. `Unsupported` where what
    /// lies there is no manifest.
    pub async fn annotate(
        &self,
        object: &Object,
        change: &AnnotationsPatch,
    ) -> Result<Annotations> {
        let store = self.lazy_client.get_store().await?;
        manifest::annotate(store, &self.manifest_key(&object.name), object, change).await
    }

    /// Multipart uploads of images under the prefix that nothing was sent to for a day. `None` where the store does
    /// not list uploads.
    pub async fn leftovers(&self) -> Result<Option<Vec<Leftover>>> {
        let store = self.lazy_client.get_store().await?;
        leftovers::list_stale_uploads(store, &self.lazy_client.settings().prefix).await
    }

    /// Aborts such an upload; tells whether it went: one that somebody sent to meanwhile stays.
    pub async fn remove_leftover(&self, leftover: &Leftover) -> Result<bool> {
        let store = self.lazy_client.get_store().await?;
        leftovers::abort(store, leftover).await
    }
}
