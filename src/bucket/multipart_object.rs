//! An object assembled from parts: some are uploaded, some are copied by the store from another object. Parts are
//! uploaded in any order and may be replaced until the object is completed.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::manifest;
use super::multipart_upload::{MultipartUpload, already_exists_error, upload_summary};
use super::s3::{Checksums, ObjectInfo, PartInfo, Reason, Store, StoreError, UploadedPart};
use super::transfer::{Part, Transfer, max_parts_in_memory, part_size};
use super::upload_record::{
    KeptPart, RecordRequest, RecordedPart, UploadDescription, UploadSource,
};
use snapdeck_model::{
    Digest, Error, ImageIdentity, Kind, Object, Phase, PresignedRequest, ProgressCell, Result,
    SnapshotName, SnapshotParts,
};

/// Time that a cancelled upload waits for the response while it begins or completes. After it, the request continues
/// without the job, and its response shows whether there is anything to abort.
const CANCEL_GRACE: Duration = Duration::from_millis(500);

/// Where the parts of an object come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartSources {
    /// This machine sends all.
    Sent,
    /// The store copies some.
    Copied,
    /// A host sends some, without checksums beside their MD5.
    Host,
}

#[derive(Clone)]
pub(super) struct UploadOptions {
    /// Key of the manifest with the pin.
    pub(super) manifest_key: String,
    pub(super) overwrite: bool,
    /// Whether the object that is overwritten must still be the one that was there at the beginning.
    pub(super) keeps_other: bool,
    /// Where its parts come from.
    pub(super) sources: PartSources,
    /// The other parts of the snapshot, for the metadata.
    pub(super) parts: Option<SnapshotParts>,
    /// The file that it has the bytes of, if the upload can be continued.
    pub(super) source: Option<UploadSource>,
}

/// The start of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadStart {
    /// Without parts.
    New,
    /// With parts that the store has from an interrupted upload.
    Continued(Vec<KeptPart>),
    /// Without parts, for this reason: the interrupted upload was removed.
    Restarted(&'static str),
}

/// An object being assembled. It ends completed or aborted, also when it is dropped.
pub struct MultipartObject<'a> {
    store: Store,
    name: &'a SnapshotName,
    manifest_key: String,
    overwrite: bool,
    /// With [`UploadOptions::keeps_other`]: the object at the beginning.
    replaced: Option<Option<ImageIdentity>>,
    transfer: Transfer<'a>,
    upload: MultipartUpload,
    /// Length of each part and the response to it, by index.
    parts: Mutex<BTreeMap<u64, (u64, UploadedPart)>>,
    copy_error: OnceLock<Error>,
    start: UploadStart,
}

impl<'a> MultipartObject<'a> {
    /// Begins an object of at most `max_bytes`; see [`super::Bucket::begin_multipart`].
    pub(super) async fn begin(
        store: Store,
        name: &'a SnapshotName,
        key: &str,
        max_bytes: u64,
        options: UploadOptions,
        progress: &'a ProgressCell,
        cancel: &'a CancellationToken,
    ) -> Result<Self> {
        progress.enter(Phase::Uploading, max_bytes);
        let transfer = Transfer {
            description: format!("the upload of {}", store.address(key)),
            total_bytes: max_bytes,
            part_bytes: part_size(max_bytes),
            progress,
            cancel,
            retry: store.retry.clone(),
            meter: Default::default(),
        };
        let overwrite = options.overwrite;
        let existing = transfer
            .run_until_cancelled(Duration::ZERO, refuse_overwrite(&store, key, overwrite))
            .await?;
        let replaced = existing.map(|existing| existing.into_object(name.clone()).identity());
        // The store has responded, so its capabilities are known.
        let checksums = match options.sources {
            // Some stores read a copied part once more for the checksum of a whole object.
            PartSources::Copied if store.capabilities().rereads_copied_parts => Checksums::Parts,
            PartSources::Sent | PartSources::Copied => Checksums::Object,
            // Some stores refuse a part without the checksum that the upload has.
            PartSources::Host => Checksums::None,
        };
        let part_bytes = transfer.part_bytes;
        let request = options.source.and_then(|source| {
            let record = store.upload_records.open(&store.location(), key)?;
            Some(RecordRequest {
                record,
                source,
                size_bytes: max_bytes,
                part_bytes,
                options: format!("{:?} {:?}", store.storage(), options.parts),
            })
        });
        let mut earlier = Earlier::None;
        if let Some(request) = &request {
            let find = find_earlier(&store, key, request, checksums);
            earlier = transfer.run_until_cancelled(Duration::ZERO, find).await?;
        }
        let mut parts = BTreeMap::new();
        let (start, upload) = match (earlier, request) {
            (Earlier::Usable(description, recorded), Some(request)) => {
                let kept_bytes = recorded.values().map(|part| part.length).sum();
                progress.resume(Phase::Uploading, max_bytes, kept_bytes);
                let mut kept = Vec::new();
                for (index, part) in recorded {
                    transfer.meter.finish(index, part.length);
                    parts.insert(index, (part.length, part.uploaded));
                    kept.push(part.kept);
                }
                let upload = MultipartUpload::earlier(&store, &description, Some(request.record));
                (UploadStart::Continued(kept), upload)
            }
            (earlier, request) => {
                let begin = MultipartUpload::begin(&store, key, options.parts, checksums, request);
                let upload = transfer.run_until_cancelled(CANCEL_GRACE, begin).await?;
                let start = match earlier {
                    Earlier::Unusable(reason) => UploadStart::Restarted(reason),
                    _ => UploadStart::New,
                };
                (start, upload)
            }
        };
        Ok(Self {
            store,
            name,
            manifest_key: options.manifest_key,
            overwrite,
            replaced: options.keeps_other.then_some(replaced),
            transfer,
            upload,
            parts: Mutex::new(parts),
            copy_error: OnceLock::new(),
            start,
        })
    }

    /// Returns its key.
    pub fn key(&self) -> &str {
        &self.upload.handle.key
    }

    /// Returns how it started.
    pub fn start(&self) -> &UploadStart {
        &self.start
    }

    /// Returns whether a host may have got requests for parts of this upload from an earlier process, which it can send until it is
    /// completed. An upload with checksums has none.
    pub fn may_have_requests_of_hosts(&self) -> bool {
        matches!(self.start, UploadStart::Continued(_))
            && self.upload.handle.checksums == Checksums::None
    }

    /// Records that the store has a part whose blocks have these digests, so that a later upload can continue after it.
    /// `is_claimed`: the digests are only the word of a host.
    pub fn record_part(&self, index: u64, digests: &[Digest], is_claimed: bool) {
        let sent = self.lock().get(&index).cloned();
        if let Some(record) = &self.upload.record
            && let Some((length, uploaded)) = sent
        {
            let digests = digests.to_vec();
            record.add(&RecordedPart {
                length,
                uploaded,
                kept: KeptPart {
                    index,
                    digests,
                    is_claimed,
                },
            });
        }
    }

    /// Returns the length of each part but the last: a multiple of 8 MiB.
    pub fn part_bytes(&self) -> u64 {
        self.transfer.part_bytes
    }

    /// Returns how many parts may be in memory at a time.
    pub fn max_parts_in_memory(&self) -> usize {
        max_parts_in_memory(self.transfer.part_bytes)
    }

    /// Returns how many part copies to request at a time; they take no memory on this machine.
    pub fn max_concurrent_copies(&self) -> usize {
        self.store.capabilities().max_concurrent_copies
    }

    /// Sets the object's final size for the progress: at most what it was begun with.
    pub fn set_total_bytes(&self, bytes: u64) {
        self.transfer.progress.set_total(bytes);
    }

    /// Runs `work` and reports progress meanwhile.
    ///
    /// # Errors
    /// Those of `work`; `Cancelled` as soon as the operator cancels: then `work` is dropped.
    pub async fn run_with_progress<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.transfer.run_with_progress(work).await
    }

    /// Uploads all parts, each with the bytes that `read` returns for its offset and length.
    ///
    /// # Errors
    /// Those of `read`; the store's; `Cancelled`.
    pub async fn upload_all<R, F>(&self, read: R) -> Result<()>
    where
        R: Fn(u64, usize) -> F + Send + Sync,
        F: Future<Output = Result<Bytes>> + Send,
    {
        let transfer = &self.transfer;
        // An upload has at least one part; that of an empty object is empty.
        let count = transfer.total_bytes.div_ceil(transfer.part_bytes).max(1);
        let read = &read;
        transfer
            .for_each_part(0..count, self.max_parts_in_memory(), |part| async move {
                let bytes = read(part.offset, part.length as usize).await?;
                if bytes.len() as u64 != part.length {
                    return Err(self
                        .upload_error()
                        .with_cause("its source changed its length while it was being read")
                        .hint("make sure that nothing writes to it and start again"));
                }
                self.upload_part(part.index, bytes).await
            })
            .await
    }

    /// Uploads a part; replaces one of the same index. Each part has its own retries.
    ///
    /// # Errors
    /// The store's, after the last attempt.
    pub async fn upload_part(&self, index: u64, bytes: Bytes) -> Result<()> {
        let part = self.part(index, bytes.len() as u64)?;
        let (bytes, upload) = (&bytes, &self.upload.handle);
        let uploaded = self
            .transfer
            .retry(part, |count| {
                self.store.upload_part(upload, index, bytes.clone(), count)
            })
            .await?;
        self.lock().insert(index, (part.length, uploaded));
        Ok(())
    }

    /// Signs the upload of a part for a host, as [`super::Bucket::presign_download`].
    ///
    /// # Errors
    /// As [`super::Bucket::presign_download`].
    pub async fn presign_part(
        &self,
        index: u64,
        endpoint: Option<&str>,
        valid_for: Duration,
    ) -> Result<PresignedRequest> {
        let upload = &self.upload.handle;
        let signed = self.store.presign_part(upload, index, endpoint, valid_for);
        Ok(signed.await?)
    }

    /// Adds a part that a host has sent; `etag` is the entity tag of the answer.
    ///
    /// # Errors
    /// `Failed` for a part that is too long.
    pub fn add_sent_part(&self, index: u64, length: u64, etag: &str) -> Result<()> {
        let part = self.part(index, length)?;
        self.transfer.meter.finish(index, part.length);
        let sent = UploadedPart::sent(index, etag);
        self.lock().insert(index, (part.length, sent));
        Ok(())
    }

    /// Has the store copy a part from `source`: `length` bytes at `offset`. Returns `false` if it refuses: then the
    /// caller uploads the bytes. After the first refusal no more copies are requested
    /// ([`MultipartObject::copy_error`]).
    ///
    /// The caller has to check before and after that `source` is unchanged: not every store honours
    /// `x-amz-copy-source-if-match`.
    ///
    /// # Errors
    /// `Failed` for a part that is too long.
    pub async fn copy_part(
        &self,
        index: u64,
        source: &Object,
        offset: u64,
        length: u64,
    ) -> Result<bool> {
        let part = self.part(index, length)?;
        if self.copy_error.get().is_some() {
            return Ok(false);
        }
        let (range, upload) = (offset..offset + length, &self.upload.handle);
        let copied = self
            .transfer
            .retry(part, |_| async {
                let (range, etag) = (range.clone(), source.etag.clone());
                let copy = self
                    .store
                    .copy_part(upload, index, &source.key, range, etag);
                copy.await
                    .map_err(|StoreError { reason, error }| match reason {
                        Reason::PreconditionFailed => {
                            Error::new(Kind::Failed, format!("cannot copy {}", source.key))
                                .with_cause("it was replaced meanwhile")
                                .into()
                        }
                        _ => StoreError { reason, error },
                    })
            })
            .await;
        match copied {
            Ok(copied) => {
                self.lock().insert(index, (length, copied));
                Ok(true)
            }
            Err(error) => {
                self.transfer.meter.remove(index);
                self.disable_copies(error);
                Ok(false)
            }
        }
    }

    /// Returns why the store refused to copy, if it did.
    pub fn copy_error(&self) -> Option<&Error> {
        self.copy_error.get()
    }

    /// Requests no more copies; `reason` becomes [`MultipartObject::copy_error`].
    pub fn disable_copies(&self, reason: Error) {
        let _ = self.copy_error.set(reason);
    }

    /// Completes the object. It must have all parts from index 0 on, equally long but for the last.
    ///
    /// # Errors
    /// `Conflict` if the object was created meanwhile and must not be overwritten, or another client has replaced it;
    /// `Damaged` if the completed
    /// object has another size; only then it remains in the store. A cancel may be too late: then the object is
    /// returned.
    pub async fn complete(self) -> Result<Object> {
        let (size_bytes, parts) = match self.collect_parts().await {
            Ok(parts) => parts,
            Err(error) => {
                self.keep_or_abort(&error).await;
                return Err(error);
            }
        };
        let Self {
            store,
            name,
            overwrite,
            transfer,
            upload,
            ..
        } = self;
        let (key, upload_tag) = (upload.handle.key.clone(), upload.upload_tag.clone());
        let summary = upload_summary(&store, &key);
        // In a separate task: when this is dropped or cancelled the store may already be completing the upload, and only
        // its response shows whether there is anything to abort.
        let cancel = transfer.cancel.clone();
        let task = tokio::spawn(upload.complete(parts, size_bytes, overwrite, cancel));
        let completed = async {
            task.await
                .map_err(|error| Error::new(Kind::Failed, summary).with_cause(error))?
        };
        let outcome = transfer.run_until_cancelled(CANCEL_GRACE, completed).await;
        outcome.map_err(|error| match error.kind() {
            Kind::Cancelled => error.hint(
                "check whether the object exists: the store was already completing the upload",
            ),
            _ => error,
        })?;
        verify_upload(&store, name, &key, &upload_tag, size_bytes).await
    }

    /// Keeps the parts in the store if the next upload can continue after `error`, else removes them. Returns whether they
    /// are kept.
    pub async fn keep_or_abort(mut self, error: &Error) -> bool {
        self.transfer.progress.enter(Phase::CleaningUp, 0);
        self.upload.keep_or_abort(error, self.transfer.cancel).await
    }

    /// Removes the parts from the store.
    pub async fn abort(mut self) {
        self.transfer.progress.enter(Phase::CleaningUp, 0);
        self.upload.abort().await;
    }

    /// Returns the object's size and its parts in order. Looks for the object again: stores may not support conditional
    /// writes, and an object that is overwritten may have been pinned.
    async fn collect_parts(&self) -> Result<(u64, Vec<UploadedPart>)> {
        let parts = self.lock().clone();
        let last = parts.len().saturating_sub(1) as u64;
        let is_complete = parts
            .iter()
            .zip(0..)
            .all(|((index, (length, _)), expected)| {
                *index == expected && (*length == self.transfer.part_bytes || expected == last)
            });
        if parts.is_empty() || !is_complete {
            return Err(self
                .upload_error()
                .with_cause("not all of its parts were uploaded"));
        }
        let (store, key) = (&self.store, &self.upload.handle.key);
        let check = async {
            match self.overwrite {
                true => Box::pin(self.refuse_replaced_or_pinned()).await,
                false => refuse_overwrite(store, key, false).await.map(|_| ()),
            }
        };
        self.transfer
            .run_until_cancelled(Duration::ZERO, check)
            .await?;
        let size_bytes = parts.values().map(|(length, _)| length).sum();
        Ok((
            size_bytes,
            parts.into_values().map(|(_, part)| part).collect(),
        ))
    }

    /// Fails if the object that is overwritten is not the one that was there at the beginning, or is pinned.
    async fn refuse_replaced_or_pinned(&self) -> Result<()> {
        let (store, key) = (&self.store, &self.upload.handle.key);
        let current = store.head(key).await?;
        let current = current.map(|current| current.into_object(self.name.clone()));
        if let Some(replaced) = &self.replaced
            && current.is_some()
            && *replaced != current.as_ref().map(Object::identity)
        {
            return Err(Error::new(Kind::Conflict, upload_summary(store, key))
                .with_cause("another client has uploaded an object of that name meanwhile")
                .hint("look at that object, then push again or choose another name"));
        }
        match current {
            Some(_) => refuse_pinned(store, key, &self.manifest_key).await,
            None => Ok(()),
        }
    }

    fn part(&self, index: u64, length: u64) -> Result<Part> {
        let max_bytes = self.transfer.part_bytes;
        if length > max_bytes {
            return Err(self.upload_error().with_cause(format!(
                "a part of {length} bytes is longer than {max_bytes}"
            )));
        }
        Ok(Part {
            index,
            offset: index * max_bytes,
            length,
        })
    }

    fn upload_error(&self) -> Error {
        Error::new(
            Kind::Failed,
            upload_summary(&self.store, &self.upload.handle.key),
        )
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (u64, UploadedPart)>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The upload of the same object that an earlier process has recorded.
enum Earlier {
    None,
    /// It was aborted, for this reason.
    Unusable(&'static str),
    /// It can be continued, with these parts.
    Usable(Box<UploadDescription>, BTreeMap<u64, RecordedPart>),
}

/// Looks for an upload that can be continued; aborts any other.
async fn find_earlier(
    store: &Store,
    key: &str,
    request: &RecordRequest,
    checksums: Checksums,
) -> Result<Earlier> {
    let Some((description, parts)) = request.record.read(&store.location(), key) else {
        return Ok(Earlier::None);
    };
    // A host sends none.
    let needs_checksums = checksums == Checksums::None && description.checksums != Checksums::None;
    let usable = match description.mismatch(request) {
        Some(reason) => Err(reason),
        None if needs_checksums => Err("its parts need checksums, which a host does not send"),
        None => {
            let parts = parts.into_iter();
            let fitting = parts.filter(|(index, part)| request.has_part(*index, part.length));
            find_kept_parts(store, &description, fitting.collect()).await?
        }
    };
    match usable {
        Ok(parts) => Ok(Earlier::Usable(Box::new(description), parts)),
        Err(reason) => {
            MultipartUpload::earlier(store, &description, None)
                .abort()
                .await;
            Ok(Earlier::Unusable(reason))
        }
    }
}

/// Returns the parts that the store has as they were recorded, or why there is none.
async fn find_kept_parts(
    store: &Store,
    description: &UploadDescription,
    mut parts: BTreeMap<u64, RecordedPart>,
) -> Result<Result<BTreeMap<u64, RecordedPart>, &'static str>> {
    let handle = description.handle();
    let listed = match store.list_parts(&handle.key, &handle.id).await {
        Ok(listed) => listed,
        // Later, the store may list them.
        Err(StoreError { error, .. })
            if error.is_retryable() || error.kind() == Kind::Cancelled =>
        {
            return Err(error);
        }
        Err(failed) if failed.reason == Reason::NotFound => {
            return Ok(Err("the store does not have it any more"));
        }
        Err(StoreError { error, .. }) => {
            tracing::debug!("{error}");
            return Ok(Err("the store does not list its parts"));
        }
    };
    // Some stores list each part that was sent with a number (SeaweedFS).
    let mut by_number: BTreeMap<i32, Vec<PartInfo>> = BTreeMap::new();
    for part in listed {
        by_number.entry(part.number).or_default().push(part);
    }
    parts.retain(|_, part| {
        let is_same = |listed: &PartInfo| part.uploaded.is_listed_as(part.length, listed);
        let listed = by_number.get(&part.uploaded.number);
        listed.is_some_and(|listed| listed.iter().all(is_same))
    });
    match parts.is_empty() {
        true => Ok(Err("the store has none of its parts")),
        false => Ok(Ok(parts)),
    }
}

/// Fails with `Conflict` if the object exists, unless `overwrite`. Checked before every upload: some stores accept
/// parts for a bucket that does not exist.
async fn refuse_overwrite(store: &Store, key: &str, overwrite: bool) -> Result<Option<ObjectInfo>> {
    match store.head(key).await? {
        Some(_) if !overwrite => Err(already_exists_error(store, key)),
        existing => Ok(existing),
    }
}

/// Fails if the object is pinned.
async fn refuse_pinned(store: &Store, key: &str, manifest_key: &str) -> Result<()> {
    match manifest::read_annotations(store, manifest_key).await? {
        Some(annotations) if annotations.pinned => Err(Error::new(
            Kind::Conflict,
            format!("cannot overwrite {}", store.address(key)),
        )
        .with_cause("it was pinned meanwhile")
        .hint("unpin it first, with `snapdeck unpin NAME`")),
        _ => Ok(()),
    }
}

/// Returns the object as the store has it now; `Conflict` if another upload has replaced it, `Damaged` if it has another
/// size than the uploaded parts.
async fn verify_upload(
    store: &Store,
    name: &SnapshotName,
    key: &str,
    upload_tag: &str,
    size_bytes: u64,
) -> Result<Object> {
    let is_other = |tag: &String| tag != upload_tag;
    let cause = match store.head(key).await? {
        Some(object) if object.upload_tag.as_ref().is_some_and(is_other) => {
            return Err(Error::new(Kind::Conflict, upload_summary(store, key))
                .with_cause("another client has uploaded an object of that name at the same time")
                .hint("the other object is kept; choose another name"));
        }
        Some(object) if object.size_bytes == size_bytes => {
            return Ok(object.into_object(name.clone()));
        }
        Some(object) => format!(
            "{size_bytes} bytes were sent, the store has {}",
            object.size_bytes
        ),
        None => "it does not exist after its upload".to_owned(),
    };
    let summary = format!("cannot verify {}", store.address(key));
    Err(Error::new(Kind::Damaged, summary)
        .with_cause(cause)
        .hint("remove it and upload it again"))
}
