//! The S3-compatible bucket: snapshots as objects `PREFIX/NAME.qcow2`, with UEFI variables and manifests beside them.
//!
//! [`Bucket`] is the handle. The SDK retries small calls; parts of an upload and ranges of a download are retried one by
//! one (`transfer`), so that a lost connection costs 8 MiB at most.

mod capabilities;
mod checksums;
mod doctor;
mod download;
mod keys;
mod leftovers;
mod list;
mod manifest;
mod meter;
mod multipart_object;
mod multipart_upload;
mod parts;
mod retry;
mod s3;
mod transfer;
mod upload_record;
mod versions;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use snapdeck_model::settings::{BucketSettings, TrustedChecksums};
use snapdeck_model::{
    Annotations, AnnotationsPatch, BlockSet, Digest, Error, ExpectedVariables, Kind, Leftover,
    Manifest, Object, PresignedRequest, ProgressCell, Result, SnapshotName, SnapshotParts,
};
use snapdeck_ownership::OwnershipRecords;

use keys::{IMAGE_SUFFIX, VARIABLES_SUFFIX, variables_suffix};
use multipart_object::UploadOptions;
use s3::{LazyClient, Reason, Store};

pub use checksums::{Md5Tag, ObjectChecksums};
pub use download::MAX_BLOCKS_IN_MEMORY;
pub use list::ObjectPage;
pub use multipart_object::{MultipartObject, PartSources, UploadStart};
pub use retry::StoreRetry;
pub use transfer::{MAX_PARTS_IN_MEMORY, part_size};
pub use upload_record::{KeptPart, UploadRecords, UploadSource};
pub use versions::FreedVersions;

/// A handle of the bucket. Cheap to clone; makes no call until it is used.
#[derive(Clone)]
pub struct Bucket {
    lazy_client: Arc<LazyClient>,
    suffix: Cow<'static, str>,
    /// For the metadata of new objects.
    parts: Option<SnapshotParts>,
    retry: StoreRetry,
    records: OwnershipRecords,
    upload_records: UploadRecords,
}

/// An object, and what its metadata says.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredObject {
    /// The object.
    pub object: Object,
    /// The other parts of its snapshot; `None` for an object of another program or of an earlier version.
    pub parts: Option<SnapshotParts>,
}

impl Bucket {
    /// Returns a handle for `settings`.
    ///
    /// Region and credentials are loaded at the first call, so that this never waits for a metadata service or a sign-on.
    pub fn new(settings: &BucketSettings) -> Self {
        Self {
            lazy_client: Arc::new(LazyClient::new(settings.clone())),
            suffix: IMAGE_SUFFIX.into(),
            parts: None,
            retry: StoreRetry::short(),
            records: OwnershipRecords::in_memory(),
            upload_records: UploadRecords::default(),
        }
    }

    /// Returns the handle of the UEFI variables (`PREFIX/NAME_VARS.fd`) of images whose metadata does not name them.
    pub fn variables(&self) -> Self {
        self.with_suffix(VARIABLES_SUFFIX.into())
    }

    /// Returns the handle of the UEFI variables with that SHA-256 (`PREFIX/NAME_VARS.DIGEST.fd`).
    pub fn variables_of(&self, digest: Digest) -> Self {
        self.with_suffix(variables_suffix(digest).into())
    }

    fn with_suffix(&self, suffix: Cow<'static, str>) -> Self {
        Self {
            suffix,
            parts: None,
            ..self.clone()
        }
    }

    /// Returns the same bucket, whose new images are stored with `parts` in their metadata.
    pub fn with_parts(&self, parts: SnapshotParts) -> Self {
        Self {
            parts: Some(parts),
            ..self.clone()
        }
    }

    /// Returns the same bucket, with `records` of the uploads that are begun in it.
    pub fn with_records(self, records: OwnershipRecords) -> Self {
        Self { records, ..self }
    }

    /// Returns the same bucket, with `records` of the uploads that can be continued.
    pub fn with_upload_records(self, upload_records: UploadRecords) -> Self {
        Self {
            upload_records,
            ..self
        }
    }

    /// Returns the same bucket with the retry policy of a job.
    pub fn with_retry(&self, policy: StoreRetry) -> Self {
        Self {
            retry: policy,
            ..self.clone()
        }
    }

    /// Returns the retry policy of its calls.
    pub fn retry(&self) -> &StoreRetry {
        &self.retry
    }

    async fn store(&self) -> Result<Store> {
        let store = self.lazy_client.get_store().await?;
        Ok(store
            .with_retry(self.retry.clone())
            .with_records(self.records.clone(), self.upload_records.clone()))
    }

    /// Returns whether the settings name a bucket. Without one every call is `InvalidInput`.
    pub fn is_configured(&self) -> bool {
        self.lazy_client.settings().name.is_some()
    }

    /// Returns `s3://NAME/PREFIX` for messages; `no bucket` if none is configured.
    pub fn location(&self) -> &str {
        self.lazy_client.location()
    }

    /// Returns the checksums of the store that prove the content of an object, by the settings.
    pub fn trusted_checksums(&self) -> TrustedChecksums {
        self.lazy_client.settings().trusted_checksums
    }

    /// Returns the key of a snapshot's object.
    pub fn key(&self, name: &SnapshotName) -> String {
        format!(
            "{}{name}{}",
            self.lazy_client.settings().prefix,
            self.suffix
        )
    }

    /// Lists the images, a page at a time: those directly under the prefix in the order of their keys, then those of each
    /// organization.
    ///
    /// Keys other than `NAME.qcow2` and `ORG/NAME.qcow2` under the prefix are skipped. Ends after the first error, but for a folder of
    /// an organization that may not be listed.
    pub fn list(&self) -> impl Stream<Item = Result<ObjectPage>> + Send + use<> {
        list::list_pages(self.clone())
    }

    /// Looks up the object; `NotFound` if the bucket itself does not exist.
    pub async fn head(&self, name: &SnapshotName) -> Result<Option<Object>> {
        let store = self.store().await?;
        let object = store.head(&self.key(name)).await?;
        Ok(object.map(|object| object.into_object(name.clone())))
    }

    /// Looks up the object with its metadata, as [`Bucket::head`].
    pub async fn find(&self, name: &SnapshotName) -> Result<Option<StoredObject>> {
        let store = self.store().await?;
        let object = store.head(&self.key(name)).await?;
        Ok(object.map(|object| StoredObject {
            parts: object.parts,
            object: object.into_object(name.clone()),
        }))
    }

    /// Looks up the image, as [`Bucket::head`]; its problem is what is missing of an incomplete snapshot.
    pub async fn inspect(&self, name: &SnapshotName) -> Result<Option<Object>> {
        let store = self.store().await?;
        let Some(image) = store.head(&self.key(name)).await? else {
            return Ok(None);
        };
        let problem = parts::find_problem(self, &store, name, &image).await?;
        let object = image.into_object(name.clone());
        Ok(Some(Object { problem, ..object }))
    }

    /// Uploads `size_bytes` read by `read(offset, length)`, which must return exactly `length` bytes.
    ///
    /// Parts are uploaded in parallel, each with its own retries. At most 64 MiB are in memory, or one part for images
    /// over 600 GiB.
    ///
    /// # Errors
    /// `Conflict` if the object exists and `overwrite` is false. On an error, a cancel or a drop the upload is
    /// aborted in the store. A cancel while the upload is being completed may come too late: then the object is returned.
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
        let object = self
            .begin_upload(name, size_bytes, overwrite, progress, cancel)
            .await?;
        match object.upload_all(read).await {
            Ok(()) => object.complete().await,
            Err(error) => {
                object.abort().await;
                Err(error)
            }
        }
    }

    /// Begins an object of `size_bytes` all of whose parts are uploaded.
    ///
    /// # Errors
    /// As [`Bucket::begin_multipart`].
    pub async fn begin_upload<'a>(
        &'a self,
        name: &'a SnapshotName,
        size_bytes: u64,
        overwrite: bool,
        progress: &'a ProgressCell,
        cancel: &'a CancellationToken,
    ) -> Result<MultipartObject<'a>> {
        let options = (overwrite, PartSources::Sent);
        self.begin_multipart(name, size_bytes, options, progress, cancel)
            .await
    }

    /// Begins an object of at most `max_bytes` that is assembled part by part, from `sources`.
    ///
    /// # Errors
    /// `Conflict` if the object exists and `overwrite` is false; `Cancelled`; the store's.
    pub async fn begin_multipart<'a>(
        &'a self,
        name: &'a SnapshotName,
        max_bytes: u64,
        options: (bool, PartSources),
        progress: &'a ProgressCell,
        cancel: &'a CancellationToken,
    ) -> Result<MultipartObject<'a>> {
        self.begin(name, max_bytes, options, None, progress, cancel)
            .await
    }

    /// As [`Bucket::begin_multipart`], for an object of `size_bytes` that has the bytes of a file: continues an interrupted
    /// upload of that ([`MultipartObject::start`]), and records this one so that it can be continued
    /// ([`MultipartObject::record_part`]).
    ///
    /// # Errors
    /// As [`Bucket::begin_multipart`].
    pub async fn continue_multipart<'a>(
        &'a self,
        name: &'a SnapshotName,
        size_bytes: u64,
        options: (bool, PartSources),
        source: UploadSource,
        progress: &'a ProgressCell,
        cancel: &'a CancellationToken,
    ) -> Result<MultipartObject<'a>> {
        self.begin(name, size_bytes, options, Some(source), progress, cancel)
            .await
    }

    async fn begin<'a>(
        &'a self,
        name: &'a SnapshotName,
        max_bytes: u64,
        (overwrite, sources): (bool, PartSources),
        source: Option<UploadSource>,
        progress: &'a ProgressCell,
        cancel: &'a CancellationToken,
    ) -> Result<MultipartObject<'a>> {
        let options = UploadOptions {
            manifest_key: self.manifest_key(name),
            overwrite,
            keeps_other: self.suffix == IMAGE_SUFFIX,
            sources,
            parts: self.parts,
            source,
        };
        let store = self.store().await?;
        let key = self.key(name);
        MultipartObject::begin(store, name, &key, max_bytes, options, progress, cancel).await
    }

    /// Downloads `blocks` of the object, several at a time; each is given to `write(block, bytes)` once, nearly in order.
    ///
    /// At most 48 MiB are in memory.
    ///
    /// # Errors
    /// `Failed` if the object changes meanwhile, `NotFound` if it does not exist.
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
        let store = self.store().await?;
        download::download_blocks(&store, object, blocks, write, progress, cancel).await
    }

    /// Returns whether the settings have an organization of that name.
    pub fn has_organization(&self, name: &str) -> bool {
        let organizations = &self.lazy_client.settings().organizations;
        organizations.iter().any(|known| known == name)
    }

    /// Signs a download of this very object for a host, to which the store has the URL `endpoint` if that is not the one of
    /// the settings. Valid for `valid_for`, or until the session of the credentials ends.
    ///
    /// # Errors
    /// `InvalidInput` for an endpoint that is not a URL; `Failed` without credentials.
    pub async fn presign_download(
        &self,
        object: &Object,
        endpoint: Option<&str>,
        valid_for: Duration,
    ) -> Result<PresignedRequest> {
        let store = self.store().await?;
        // A weak tag never matches (RFC 9110, section 13.1.1).
        let strong = object
            .etag
            .as_deref()
            .filter(|etag| !etag.starts_with("W/"));
        let signed = store.presign_get(&object.key, strong, endpoint, valid_for);
        Ok(signed.await?)
    }

    /// Signs a download of an object that does not exist, as [`Bucket::presign_download`]: a host tries it.
    ///
    /// # Errors
    /// As [`Bucket::presign_download`].
    pub async fn presign_probe(
        &self,
        endpoint: Option<&str>,
        valid_for: Duration,
    ) -> Result<PresignedRequest> {
        let key = format!(
            "{}.snapdeck-doctor-absent",
            self.lazy_client.settings().prefix
        );
        let store = self.store().await?;
        // Any answer shows the store's time.
        let _ = store.head(&key).await;
        Ok(store.presign_get(&key, None, endpoint, valid_for).await?)
    }

    /// Deletes this very object and, with an image, its manifest and the UEFI variables that its metadata names, but not
    /// another program's object in their place. `NotFound` if it does not exist.
    ///
    /// # Errors
    /// `Conflict`, with nothing deleted, if another object has the key by now: it is another client's.
    /// Returns whether the bucket keeps it as an old version.
    pub async fn delete_object(&self, object: &Object) -> Result<bool> {
        let store = self.store().await?;
        let (name, key) = (&object.name, self.key(&object.name));
        // DeleteObject also succeeds for a missing object.
        let Some(current) = store.head(&key).await? else {
            let summary = format!("cannot delete {}", store.address(&key));
            return Err(missing_object_error(summary));
        };
        let replaced = || {
            Error::new(
                Kind::Conflict,
                format!("cannot delete {}", store.address(&key)),
            )
            .with_cause("another client has replaced it meanwhile")
            .hint("list it again before you remove it")
        };
        let parts = current.parts;
        let current = current.into_object(name.clone());
        if current.identity() != object.identity() {
            return Err(replaced());
        }
        let deleted = match &object.etag {
            Some(etag) => store.delete_version(&key, etag).await,
            None => store.delete(&key).await,
        };
        let is_kept = deleted.map_err(|error| match error.reason {
            Reason::PreconditionFailed | Reason::Conflict => replaced(),
            _ => error.error,
        })?;
        if self.suffix == IMAGE_SUFFIX {
            // Without their image they are ignored.
            if let Err(error) = Box::pin(self.delete_parts(&store, name, parts)).await {
                tracing::warn!("{error}");
            }
        }
        Ok(is_kept)
    }

    /// Deletes the UEFI variables and then the manifest of an image that was deleted, unless another client has put one
    /// there by now.
    async fn delete_parts(
        &self,
        store: &Store,
        name: &SnapshotName,
        parts: Option<SnapshotParts>,
    ) -> Result<()> {
        if let Some(SnapshotParts {
            variables: ExpectedVariables::Digest(digest),
            ..
        }) = parts
            && self.head(name).await?.is_none()
        {
            store.delete(&self.variables_of(digest).key(name)).await?;
        }
        Box::pin(self.delete_orphaned_manifest(name)).await
    }

    /// Returns whether there is a manifest without its image, as a removal that was interrupted leaves it.
    pub async fn has_orphaned_manifest(&self, name: &SnapshotName) -> Result<bool> {
        Ok(self.find_orphaned_manifest(name).await?.is_some())
    }

    /// Deletes a manifest without its image, and the UEFI variables that it names.
    pub async fn delete_orphaned_manifest(&self, name: &SnapshotName) -> Result<()> {
        let found = Box::pin(self.find_orphaned_manifest(name)).await?;
        let Some((orphan, variables)) = found else {
            return Ok(());
        };
        let store = self.store().await?;
        if let Some(digest) = variables
            && self.head(name).await?.is_none()
        {
            store.delete(&self.variables_of(digest).key(name)).await?;
        }
        // A push may have completed meanwhile, and not every store honours the condition.
        if self.head(name).await?.is_some() {
            return Ok(());
        }
        match store.head(&orphan.key).await? {
            Some(current) if current.etag == orphan.etag && orphan.etag.is_some() => {}
            _ => return Ok(()),
        }
        let etag = orphan.etag.as_deref().unwrap_or_default();
        match store.delete_version(&orphan.key, etag).await {
            Err(error) if matches!(error.reason, Reason::PreconditionFailed | Reason::Conflict) => {
                Ok(())
            }
            result => Ok(result.map(|_| ())?),
        }
    }

    /// Returns the manifest whose image does not exist, and the digest of the variables that it names.
    async fn find_orphaned_manifest(
        &self,
        name: &SnapshotName,
    ) -> Result<Option<(Object, Option<Digest>)>> {
        let store = self.store().await?;
        let key = self.manifest_key(name);
        let Some(found) = store.head(&key).await? else {
            return Ok(None);
        };
        if self.head(name).await?.is_some() {
            return Ok(None);
        }
        let Some(variables) = manifest::read_variables(&store, &key).await? else {
            return Ok(None);
        };
        let object = Object {
            key,
            ..found.into_object(name.clone())
        };
        Ok(Some((object, variables)))
    }

    /// Returns the key of the object in the place of a snapshot's manifest if it is another program's.
    pub async fn foreign_manifest(&self, name: &SnapshotName) -> Result<Option<String>> {
        let store = self.store().await?;
        let key = self.manifest_key(name);
        let is_foreign = manifest::is_foreign(&store, &key).await?;
        Ok(is_foreign.then_some(key))
    }

    /// Fails if the object in the place of a snapshot's manifest is another program's.
    ///
    /// # Errors
    /// `Conflict`; those of the store.
    pub async fn refuse_foreign_manifest(&self, name: &SnapshotName) -> Result<()> {
        match self.foreign_manifest(name).await? {
            Some(key) => Err(manifest::foreign_error(&self.store().await?, &key)),
            None => Ok(()),
        }
    }

    fn manifest_key(&self, name: &SnapshotName) -> String {
        let prefix = &self.lazy_client.settings().prefix;
        format!("{prefix}{}", name.manifest_file_name())
    }

    /// Reads the manifest of `object`; one of another image is ignored.
    pub async fn manifest(&self, object: &Object) -> Result<Option<Manifest>> {
        let store = self.store().await?;
        let (key, image) = (self.manifest_key(&object.name), self.key(&object.name));
        manifest::read(&store, &key, &image, object).await
    }

    /// Returns the checksums that the store keeps of `object`, as far as it tells them.
    ///
    /// # Errors
    /// `Cancelled`; `InvalidInput` without a bucket; `Unreachable`.
    pub async fn checksums(&self, object: &Object) -> Result<ObjectChecksums> {
        let Some(etag) = object.etag.as_deref() else {
            return Ok(ObjectChecksums::default());
        };
        let store = self.store().await?;
        let stored = store.checksums(&self.key(&object.name), etag).await?;
        Ok(ObjectChecksums::decode(&stored, object.size_bytes, etag))
    }

    /// Writes a manifest beside its object and replaces any other. `Conflict` if the bucket has another object, or another
    /// program's in the place of the manifest.
    pub async fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let store = self.store().await?;
        let (key, image) = (self.manifest_key(&manifest.name), self.key(&manifest.name));
        manifest::write(&store, &key, &image, manifest).await
    }

    /// Reads the annotations of a snapshot, also from a manifest of another image; `None` without a manifest.
    pub async fn annotations(&self, name: &SnapshotName) -> Result<Option<Annotations>> {
        let store = self.store().await?;
        manifest::read_annotations(&store, &self.manifest_key(name)).await
    }

    /// Changes the annotations of `object`; if it has no manifest, one of annotations alone is written.
    ///
    /// # Errors
    /// `Conflict` if the file in the manifest's place is not a manifest.
    pub async fn annotate(
        &self,
        object: &Object,
        change: &AnnotationsPatch,
    ) -> Result<Annotations> {
        let store = self.store().await?;
        manifest::annotate(&store, &self.manifest_key(&object.name), object, change).await
    }

    /// Lists multipart uploads under the prefix to which no part was uploaded for a day. `None` if the store lists no
    /// uploads.
    pub async fn leftovers(&self) -> Result<Option<Vec<Leftover>>> {
        let store = self.store().await?;
        leftovers::list_stale_uploads(&store, &self.lazy_client.settings().prefix).await
    }

    /// Aborts such an upload; `false` if a part was uploaded to it since it was listed.
    pub async fn remove_leftover(&self, leftover: &Leftover) -> Result<bool> {
        let store = self.store().await?;
        leftovers::abort(&store, leftover).await
    }
}

fn missing_object_error(summary: String) -> Error {
    Error::new(Kind::NotFound, summary)
        .with_cause("no such object")
        .hint("list the bucket's objects to see their names")
}
