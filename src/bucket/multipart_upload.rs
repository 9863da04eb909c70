//! A multipart upload. It is completed or aborted, also when it is dropped: stores keep (and bill) the parts of an
//! unfinished one.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::retry::{Retries, StoreRetry};
use super::s3::{Checksums, NewMetadata, Reason, Store, StoreError, UploadHandle, UploadedPart};
use super::upload_record::{RecordRequest, UploadDescription, UploadRecord};
use snapdeck_model::{Error, Kind, Result, SnapshotParts};

/// Requests to abort an upload that still has parts.
const MAX_ABORTS: usize = 3;

/// For aborting an upload: a store that does not answer must not hold up a job. What remains is recorded as a leftover.
const ABORT_TIMEOUT: Duration = Duration::from_secs(15);
/// Time of it that the operator waits who has cancelled the job.
const CANCEL_GRACE: Duration = Duration::from_millis(800);

pub(super) struct MultipartUpload {
    pub(super) store: Store,
    pub(super) handle: UploadHandle,
    /// Identifies the object as this upload's if the response was lost.
    pub(super) upload_tag: String,
    /// For a later process, which can continue it.
    pub(super) record: Option<Arc<UploadRecord>>,
    is_open: bool,
}

impl MultipartUpload {
    /// Begins an upload, with `checksums` if the store supports them. It continues when the caller is dropped, so that its
    /// ID is never lost.
    pub(super) async fn begin(
        store: &Store,
        key: &str,
        parts: Option<SnapshotParts>,
        checksums: Checksums,
        record: Option<RecordRequest>,
    ) -> Result<Self> {
        let (store, key) = (store.clone(), key.to_owned());
        let summary = upload_summary(&store, &key);
        let begin = async move {
            let upload_tag = format!("{:016x}{:016x}", random(), random());
            let metadata = NewMetadata {
                upload_tag: upload_tag.clone(),
                parts,
            };
            let created = store.create_multipart(&key, &metadata, checksums).await;
            if created.is_err()
                && let Some(request) = &record
            {
                // One of an earlier upload may be of use with other keys.
                request.record.remove_if_empty();
            }
            let handle = created?;
            let record = record
                .and_then(|request| request.begin(store.location(), &handle, &upload_tag))
                .map(Arc::new);
            Ok(Self {
                store,
                handle,
                upload_tag,
                record,
                is_open: true,
            })
        };
        tokio::spawn(begin)
            .await
            .map_err(|error| Error::new(Kind::Failed, summary).with_cause(error))?
    }

    /// Returns the upload of an earlier process.
    pub(super) fn earlier(
        store: &Store,
        description: &UploadDescription,
        record: Option<UploadRecord>,
    ) -> Self {
        if let Some(record) = &record {
            record.set_has_parts();
        }
        Self {
            store: store.clone(),
            handle: description.handle(),
            upload_tag: description.upload_tag.clone(),
            record: record.map(Arc::new),
            is_open: true,
        }
    }

    /// Makes the object of `size_bytes` out of the parts. `Conflict` if it exists, unless `overwrite`.
    pub(super) async fn complete(
        mut self,
        parts: Vec<UploadedPart>,
        size_bytes: u64,
        overwrite: bool,
        cancel: CancellationToken,
    ) -> Result<()> {
        let completed = self.try_complete(parts, size_bytes, overwrite).await;
        if let Err(error) = &completed {
            self.keep_or_abort(error, &cancel).await;
        }
        completed
    }

    async fn try_complete(
        &mut self,
        parts: Vec<UploadedPart>,
        size_bytes: u64,
        overwrite: bool,
    ) -> Result<()> {
        // A cancelled job still looks whether the store has completed the object: that shows what there is to abort.
        let lookups = self.store.with_retry(StoreRetry::short());
        let mut only_new = !overwrite;
        let mut retries = Retries::default();
        loop {
            let (store, handle) = (&self.store, &self.handle);
            let completed = store.complete_multipart(handle, &parts, size_bytes, only_new);
            let Err(StoreError { reason, error }) = completed.await else {
                self.is_open = false;
                store.retry.mark_success();
                self.forget();
                return Ok(());
            };
            // The response may have been lost, or be that of a second attempt after one that succeeded.
            if self.is_completed(&lookups).await {
                self.is_open = false;
                self.forget();
                return Ok(());
            }
            if only_new && reason == Reason::PreconditionFailed {
                return Err(already_exists_error(&self.store, &self.handle.key));
            }
            if only_new && reason == Reason::Unsupported {
                // Without the condition, a look right before is the best that there is.
                if lookups.head(&handle.key).await?.is_some() {
                    return Err(already_exists_error(store, &handle.key));
                }
                only_new = false;
                continue;
            }
            let failure = StoreError { reason, error };
            if let Err(failure) = store.retry.wait_after(failure, &mut retries).await {
                return Err(failure.error);
            }
            // Not every store honours the condition: another client may have created the object during the wait.
            match lookups.head(&handle.key).await? {
                Some(object) if object.upload_tag.as_ref() == Some(&self.upload_tag) => {
                    self.is_open = false;
                    self.forget();
                    return Ok(());
                }
                Some(_) if !overwrite => return Err(already_exists_error(store, &handle.key)),
                _ => {}
            }
        }
    }

    /// Keeps the parts in the store if the next upload can continue after `error`, else removes them. Returns whether they
    /// are kept.
    ///
    /// It can after a lost connection, and if the job was cancelled since this process ends; not after a refusal, nor after the
    /// operator's `cancel`, whatever the error is.
    pub(super) async fn keep_or_abort(
        &mut self,
        error: &Error,
        cancel: &CancellationToken,
    ) -> bool {
        let may_continue = self.record.as_ref().is_some_and(|record| {
            let is_wanted = !cancel.is_cancelled() || record.is_exiting();
            let is_temporary = match error.kind() {
                Kind::Unreachable => true,
                Kind::Cancelled => record.is_exiting(),
                Kind::Failed => error.is_retryable(),
                _ => false,
            };
            is_wanted && is_temporary && record.has_parts()
        });
        if may_continue {
            self.is_open = false;
            return true;
        }
        self.abort().await;
        false
    }

    /// Returns whether the object exists and is this upload's.
    async fn is_completed(&self, store: &Store) -> bool {
        let object = store.head(&self.handle.key).await.ok().flatten();
        object.is_some_and(|object| object.upload_tag.as_ref() == Some(&self.upload_tag))
    }

    /// Removes its record: nothing of it is left in the store.
    fn forget(&self) {
        let UploadHandle { key, id, .. } = &self.handle;
        self.store.forget_upload(key, id);
        self.remove_record();
    }

    fn remove_record(&self) {
        if let Some(record) = &self.record {
            record.remove();
        }
    }

    /// Removes the parts from the store; in the background if the job is cancelled and the store is slow. A failure is only
    /// logged: the caller already has an error to return.
    pub(super) async fn abort(&mut self) {
        let retry = self.store.retry.clone();
        let address = self.store.address(&self.handle.key);
        self.remove_record();
        let upload = Self {
            store: self.store.clone(),
            handle: self.handle.clone(),
            upload_tag: String::new(),
            // Of another upload by then.
            record: None,
            // Nothing is left to a second task if the runtime ends.
            is_open: false,
        };
        self.is_open = false;
        let warn = |id: &str, problem: &str| {
            tracing::warn!(
                "cannot abort the upload to {address} (upload {id}): {problem}; `snapdeck prune --leftovers` removes it"
            );
        };
        let removal =
            tokio::spawn(
                async move { timeout(ABORT_TIMEOUT, upload.remove_parts()).await.is_ok() },
            );
        tokio::select! {
            removed = removal => {
                if !removed.unwrap_or(false) {
                    warn(&self.handle.id, "the store does not answer");
                }
            }
            () = retry.cancelled(CANCEL_GRACE) => warn(&self.handle.id, "the store has not answered yet"),
        }
    }

    async fn remove_parts(&self) {
        // The clean-up of a cancelled job is not cancelled with it.
        let store = self.store.with_retry(StoreRetry::short());
        let UploadHandle { key, id, .. } = &self.handle;
        let mut retries = Retries::default();
        for _ in 0..MAX_ABORTS {
            if let Err(StoreError { error, .. }) = store.abort_multipart(key, id).await {
                tracing::warn!("{error} (upload {id})");
                return;
            }
            // A part that was just arriving may have survived (API reference, AbortMultipartUpload).
            let parts = store.list_parts(key, id).await;
            if parts.map_or(true, |parts| parts.is_empty()) {
                self.forget();
                return;
            }
            sleep(retries.next_delay()).await;
        }
    }
}

impl Drop for MultipartUpload {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        // Without a runtime the program is ending and cannot send requests.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut upload = Self {
                store: self.store.clone(),
                handle: self.handle.clone(),
                upload_tag: std::mem::take(&mut self.upload_tag),
                record: self.record.take(),
                // A runtime that is ending drops the task at once, which must not start another.
                is_open: false,
            };
            runtime.spawn(async move { upload.abort().await });
        }
    }
}

pub(super) fn upload_summary(store: &Store, key: &str) -> String {
    format!("cannot upload {}", store.address(key))
}

pub(super) fn already_exists_error(store: &Store, key: &str) -> Error {
    Error::new(Kind::Conflict, upload_summary(store, key))
        .with_cause("the object already exists")
        .hint("choose another name, or pass --overwrite to replace it")
}

/// Returns an unpredictable number: the standard library seeds its hashers from the system.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
