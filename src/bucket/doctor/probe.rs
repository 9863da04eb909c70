//! Checks that need the right to write: writes, reads, copies and deletes two test objects.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{CALL_TIMEOUT, failed_check, with_unchecked};
use crate::meter::ByteCounter;
use crate::multipart_upload::{MultipartUpload, random};
use crate::s3::{Checksums, PutCondition, Store, StoreError, UploadHandle, UploadedPart};
use snapdeck_model::{Check, Kind, Result};

/// Timeout of writing or copying a part over a slow connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of all checks of the probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(50);
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a part that is copied; a store copies a range only of a larger object (API reference, UploadPartCopy).
const COPY_SOURCE_BYTES: usize = 5 << 20;
const SMALL_OBJECT_BYTES: usize = 1024;

/// Runs the checks and removes the objects.
pub(super) async fn run_probe(
    store: &Store,
    prefix: &str,
    checks: &mut Vec<Check>,
    cancel: &CancellationToken,
) {
    let mut probe = Probe::new(store, prefix);
    let in_time = tokio::select! {
        ran = timeout(PROBE_TIMEOUT, probe.run(checks)) => ran.is_ok(),
        () = cancel.cancelled() => true,
    };
    if !in_time {
        let finding = format!(
            "{} takes longer than {} s",
            store.endpoint(),
            PROBE_TIMEOUT.as_secs()
        );
        let check = Check::failed(
            "store",
            finding,
            "check the load of the store and the network",
        );
        checks.push(with_unchecked(
            check,
            "the checks that are missing below it",
        ));
    }
    checks.extend(probe.clear().await);
}

const CRC: &str = "CRC64NVME";
const MD5: &str = "Content-MD5";

/// Verification of uploaded bytes by a store.
struct Integrity {
    is_wrong_refused: bool,
    /// [`CRC`] or [`MD5`].
    checksum: &'static str,
}

/// Two objects that are written and removed. Their names begin with a dot, which no snapshot's does.
struct Probe {
    store: Store,
    key: String,
    multipart_key: String,
    /// Whether there may be objects to remove.
    has_objects: bool,
}

impl Probe {
    fn new(store: &Store, prefix: &str) -> Self {
        let key = format!("{prefix}.snapdeck-probe-{:016x}", random());
        Self {
            store: store.clone(),
            multipart_key: format!("{key}-parts"),
            key,
            has_objects: false,
        }
    }

    async fn run(&mut self, checks: &mut Vec<Check>) {
        self.has_objects = true;
        let multipart_checks = "part copying, pending uploads, checksums, conditional writes";
        match self.write().await {
            Ok(check) => checks.push(check),
            Err(StoreError { error, .. }) => {
                // A refused object was not written; an interrupted one may have been.
                self.has_objects = error.is_retryable();
                let unchecked = format!("read, delete, {multipart_checks}");
                checks.push(with_unchecked(failed_check("write", &error), &unchecked));
                return;
            }
        }
        checks.push(
            self.read()
                .await
                .unwrap_or_else(|failed| failed_check("read", &failed.error)),
        );
        match self.copy().await {
            Ok(copied) => checks.extend(copied),
            Err(error) => {
                let check = failed_check("uploads in parts", &error);
                checks.push(with_unchecked(check, multipart_checks));
                return;
            }
        }
        match self.complete().await {
            Ok(completed) => checks.extend(completed),
            Err(error) => checks.push(failed_check("uploads in parts", &error)),
        }
    }

    async fn write(&self) -> Result<Check, StoreError> {
        let bytes = Bytes::from(vec![0; COPY_SOURCE_BYTES + 1]);
        let store = self.store.with_timeout(WRITE_TIMEOUT);
        let content_type = "application/octet-stream";
        store
            .put(&self.key, bytes, content_type, PutCondition::Always)
            .await?;
        Ok(Check::passed("write", "an object can be written"))
    }

    async fn read(&self) -> Result<Check, StoreError> {
        let store = self.store.with_timeout(CALL_TIMEOUT);
        let body = store.get(&self.key, Some(5..21), None).await?;
        // A store without range requests sends all of it.
        Ok(match body.content_length {
            Some(16) => Check::passed("read", "a range of an object can be read"),
            _ => Check::failed(
                "read",
                format!("{} does not support range requests", self.store.endpoint()),
                "use a store that supports them",
            ),
        })
    }

    /// Copies a part into an upload that is never completed, and looks for that upload in the listing.
    async fn copy(&self) -> Result<[Check; 2]> {
        let key = &self.multipart_key;
        let mut upload =
            MultipartUpload::begin(&self.store, key, None, Checksums::Object, None).await?;
        let copied = self
            .store
            .with_timeout(WRITE_TIMEOUT)
            .copy_part(
                &upload.handle,
                0,
                &self.key,
                0..COPY_SOURCE_BYTES as u64,
                None,
            )
            .await;
        let listed = self
            .store
            .with_timeout(CALL_TIMEOUT)
            .list_uploads(key)
            .await
            .map(|uploads| uploads.iter().any(|listed| listed.id == upload.handle.id));
        upload.abort().await;
        let copying = match copied {
            Ok(_) => Check::passed("part copying", "the store copies parts (UploadPartCopy)"),
            Err(StoreError { error, .. }) => Check::warning(
                "part copying",
                format!("{}; every push uploads all bytes", error.message()),
                "use a store with UploadPartCopy",
            ),
        };
        let pending = match listed {
            Ok(true) => Check::passed("pending uploads", "unfinished uploads are listed"),
            Ok(false) => Check::warning(
                "pending uploads",
                "the store does not list an unfinished upload; leftovers of interrupted pushes are not found",
                "add a lifecycle rule AbortIncompleteMultipartUpload to the bucket",
            ),
            Err(StoreError { error, .. }) => Check::warning(
                "pending uploads",
                error.message(),
                "allow s3:ListBucketMultipartUploads, or add a lifecycle rule \
                 AbortIncompleteMultipartUpload to the bucket",
            ),
        };
        Ok([copying, pending])
    }

    /// Completes an upload as a push does, and then another one of the same key, which must be refused.
    async fn complete(&self) -> Result<[Check; 2]> {
        let integrity = self.upload().await?;
        let store = self.store.with_timeout(CALL_TIMEOUT);
        let is_kept = async || store.has_full_checksum(&self.multipart_key).await;
        let checksums = match integrity {
            Integrity {
                is_wrong_refused: false,
                checksum,
            } => Check::warning(
                "checksums",
                format!(
                    "the store accepts a part with a wrong {checksum}: it does not notice damage in transit"
                ),
                "use a store that verifies checksums, or rely on verify after a pull",
            ),
            Integrity { checksum: MD5, .. } => Check::warning(
                "checksums",
                "the store does not support CRC64NVME; uploads are protected by Content-MD5 and the request signature",
                "use a store that supports CRC64NVME",
            ),
            _ if is_kept().await => Check::passed(
                "checksums",
                "CRC64NVME of whole objects; a wrong one is refused",
            ),
            _ => Check::warning(
                "checksums",
                "the store supports CRC64NVME for parts, but does not keep it for whole objects",
                "use a store that keeps full-object checksums, or rely on qemu-img check after a pull",
            ),
        };
        let conditional = match self.upload().await {
            Err(error) if error.kind() == Kind::Conflict => Check::passed(
                "conditional writes",
                "an existing object is not overwritten (If-None-Match)",
            ),
            Err(error) => Check::warning(
                "conditional writes",
                format!("unknown: {}", error.message()),
                error.hint_text().unwrap_or("run snapdeck doctor again"),
            ),
            Ok(_) => Check::warning(
                "conditional writes",
                "the store ignores If-None-Match; of two pushes of one name at the same time the last one wins",
                "use a store that supports it, or make sure that only one client pushes each name",
            ),
        };
        Ok([checksums, conditional])
    }

    /// Uploads a small object in one part, unless it exists; returns how the store checks its bytes.
    async fn upload(&self) -> Result<Integrity> {
        let key = &self.multipart_key;
        let mut upload =
            MultipartUpload::begin(&self.store, key, None, Checksums::Object, None).await?;
        match self.upload_parts(&upload.handle).await {
            Ok((part, integrity)) => {
                let never = CancellationToken::new();
                upload
                    .complete(vec![part], SMALL_OBJECT_BYTES as u64, false, never)
                    .await?;
                Ok(integrity)
            }
            Err(failed) => {
                upload.abort().await;
                Err(failed.error)
            }
        }
    }

    /// Sends the first part with a wrong checksum, and then as it is.
    async fn upload_parts(
        &self,
        handle: &UploadHandle,
    ) -> Result<(UploadedPart, Integrity), StoreError> {
        let bytes = Bytes::from(vec![1; SMALL_OBJECT_BYTES]);
        let store = self.store.with_timeout(CALL_TIMEOUT);
        let is_wrong_refused = store
            .refuses_wrong_checksum(handle, 0, bytes.clone())
            .await?;
        let count = ByteCounter::default();
        let part = self.store.upload_part(handle, 0, bytes, count).await?;
        let has_crc = handle.checksums != Checksums::None && part.crc64nvme.is_some();
        let checksum = if has_crc { CRC } else { MD5 };
        let integrity = Integrity {
            is_wrong_refused,
            checksum,
        };
        Ok((part, integrity))
    }

    /// Removes the objects; `None` if none was written.
    async fn clear(mut self) -> Option<Check> {
        if !std::mem::take(&mut self.has_objects) {
            return None;
        }
        let keys = [&*self.key, &*self.multipart_key];
        let removed = timeout(CLEANUP_TIMEOUT, remove(&self.store, keys)).await;
        let probe = self.store.address(&self.key);
        let hint =
            format!("allow s3:DeleteObject, then run aws s3 rm {probe}; aws s3 rm {probe}-parts");
        match removed {
            Ok(Ok(true)) => Some(Check::passed("delete", "an object can be deleted")),
            Ok(Ok(false)) => None,
            Ok(Err(StoreError { error, .. })) => {
                let finding = format!("{}; the probe {probe} remains", error.message());
                Some(Check::failed("delete", finding, hint))
            }
            Err(_) => {
                let finding = format!("no answer; the test object {probe} may remain");
                Some(Check::failed("delete", finding, hint))
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Without a runtime the program is ending and cannot send requests.
        if let (true, Ok(runtime)) = (self.has_objects, tokio::runtime::Handle::try_current()) {
            let (store, keys) = (
                self.store.clone(),
                [self.key.clone(), self.multipart_key.clone()],
            );
            runtime.spawn(async move {
                let _ = timeout(CLEANUP_TIMEOUT, remove(&store, [&keys[0], &keys[1]])).await;
            });
        }
    }
}

/// Removes the objects, and unfinished uploads to the second; returns whether there was an object.
async fn remove(store: &Store, keys: [&str; 2]) -> Result<bool, StoreError> {
    let mut has_deleted = false;
    for key in keys {
        // Keys without the right to look it up may have the right to delete it.
        if !matches!(store.head(key).await, Ok(None)) {
            store.delete(key).await?;
            has_deleted = true;
        }
    }
    let [_, key] = keys;
    // If they cannot be listed, dropping each upload has tried to abort it.
    for upload in store.list_uploads(key).await.unwrap_or_default() {
        let _ = store.abort_multipart(&upload.key, &upload.id).await;
    }
    Ok(has_deleted)
}
