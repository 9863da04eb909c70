//! What can only be found out by doing it: writing, reading, copying, deleting two objects of our own.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{CALL_TIMEOUT, failed_check, with_unchecked};
use crate::client::{Store, no_sdk_retry};
use crate::errors::{sdk_error, status_and_code};
use crate::meter::ByteCounter;
use crate::multipart_object::send_part;
use crate::multipart_upload::{Checksums, MultipartUpload};
use crate::transfer::{Part, random};
use snapdeck_model::{Check, Kind, Result};

/// For writing the probe over a slow line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// For all that is tried with it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(50);
/// For removing it.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a part that is copied; a store copies a range only of a larger object (API reference, UploadPartCopy).
const COPY_SOURCE_BYTES: usize = 5 << 20;
/// Bytes of an upload that is only there to be completed.
const SMALL_OBJECT_BYTES: usize = 1024;
/// What stands in a `CopySource` as it is.
const COPY_SOURCE_PATH_SET: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_');

/// Tries everything, and leaves nothing.
pub(super) async fn run_probe(
    store: &Store,
    prefix: &str,
    checks: &mut Vec<Check>,
    cancel: &CancellationToken,
) {
    let mut probe = Probe::new(store, prefix);
    let tried = tokio::select! {
        tried = timeout(PROBE_TIMEOUT, probe.run(checks)) => tried.is_ok(),
        () = cancel.cancelled() => true,
    };
    if !tried {
        let seen = format!(
            "{} takes longer than {} s",
            store.endpoint,
            PROBE_TIMEOUT.as_secs()
        );
        let check = Check::failed("store", seen, "check the load of the store and the network");
        checks.push(with_unchecked(check, "what is missing below it"));
    }
    checks.extend(probe.clear().await);
}

/// Two objects that are written and removed. Their names begin with a dot, which no snapshot's does.
struct Probe {
    store: Store,
    key: String,
    /// Written in parts.
    multipart_key: String,
    /// May there be anything to remove?
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
        match self.write().await {
            Ok(check) => checks.push(check),
            Err(error) => {
                // What was refused is not there; what broke off may be.
                self.has_objects = error.is_retryable();
                let unseen =
                    "read, delete, part copying, pending uploads, checksums, conditional writes";
                checks.push(with_unchecked(failed_check("write", &error), unseen));
                return;
            }
        }
        checks.push(
            self.read()
                .await
                .unwrap_or_else(|error| failed_check("read", &error)),
        );
        match self.copy().await {
            Ok(copied) => checks.extend(copied),
            Err(error) => {
                let unseen = "part copying, pending uploads, checksums, conditional writes";
                checks.push(with_unchecked(
                    failed_check("uploads in parts", &error),
                    unseen,
                ));
                return;
            }
        }
        match self.complete().await {
            Ok(completed) => checks.extend(completed),
            Err(error) => checks.push(failed_check("uploads in parts", &error)),
        }
    }

    fn error_message(&self, verb: &str, key: &str) -> String {
        format!("cannot {verb} {}", self.store.address(key))
    }

    async fn write(&self) -> Result<Check> {
        let store = &self.store;
        let body = Bytes::from(vec![0; COPY_SOURCE_BYTES + 1]);
        let put = store
            .client
            .put_object()
            .bucket(&store.bucket)
            .key(&self.key);
        put.body(ByteStream::from(body))
            .customize()
            .config_override(no_sdk_retry(WRITE_TIMEOUT))
            .send()
            .await
            .map_err(|error| sdk_error(store, self.error_message("write", &self.key), &error))?;
        Ok(Check::passed("write", "an object can be written"))
    }

    async fn read(&self) -> Result<Check> {
        let store = &self.store;
        let get = store
            .client
            .get_object()
            .bucket(&store.bucket)
            .key(&self.key);
        let got = get
            .range("bytes=5-20")
            .customize()
            .config_override(no_sdk_retry(CALL_TIMEOUT))
            .send()
            .await
            .map_err(|error| sdk_error(store, self.error_message("read", &self.key), &error))?;
        // A pull wants ranges; a store without them would send all of it.
        Ok(match got.content_length() {
            Some(16) => Check::passed("read", "a range of an object can be read"),
            _ => Check::failed(
                "read",
                format!("{} does not support range requests", store.endpoint),
                "use a store that supports them",
            ),
        })
    }

    /// Copies a part into an upload that is never completed, and looks for that upload.
    async fn copy(&self) -> Result<[Check; 2]> {
        let store = &self.store;
        let mut pending =
            MultipartUpload::begin(store, &self.multipart_key, Checksums::Object).await?;
        let source = format!("{}/{}", store.bucket, self.key);
        let copy = store
            .client
            .upload_part_copy()
            .bucket(&store.bucket)
            .key(&self.multipart_key)
            .upload_id(&pending.id)
            .part_number(1)
            .copy_source(utf8_percent_encode(&source, COPY_SOURCE_PATH_SET).to_string())
            .copy_source_range(format!("bytes=0-{}", COPY_SOURCE_BYTES - 1))
            .customize()
            .config_override(no_sdk_retry(WRITE_TIMEOUT));
        let copied = copy
            .send()
            .await
            .map_err(|error| {
                sdk_error(
                    store,
                    self.error_message("copy a part of", &self.key),
                    &error,
                )
            })
            .map(|copied| copied.copy_part_result.and_then(|result| result.e_tag));
        let listed = store
            .client
            .list_multipart_uploads()
            .bucket(&store.bucket)
            .prefix(&self.multipart_key)
            .customize()
            .config_override(no_sdk_retry(CALL_TIMEOUT))
            .send()
            .await;
        let what = format!(
            "cannot list the uploads to {}",
            store.address(&self.multipart_key)
        );
        let listed = listed
            .map_err(|error| sdk_error(store, what, &error))
            .map(|page| {
                page.uploads()
                    .iter()
                    .any(|upload| upload.upload_id() == Some(&pending.id))
            });
        pending.abort().await;
        let copying = match copied {
            Ok(Some(_)) => Check::passed("part copying", "the store copies parts (UploadPartCopy)"),
            Ok(None) => Check::warning(
                "part copying",
                "UploadPartCopy returns no ETag; every push uploads all bytes",
                "use a store with UploadPartCopy",
            ),
            Err(error) => Check::warning(
                "part copying",
                format!("{}; every push uploads all bytes", error.message()),
                "use a store with UploadPartCopy",
            ),
        };
        let pending = match listed {
            Ok(true) => Check::passed("pending uploads", "unfinished uploads are listed"),
            Ok(false) => Check::warning(
                "pending uploads",
                "unfinished uploads are not listed: leftovers of a killed push cannot be found",
                "add a lifecycle rule AbortIncompleteMultipartUpload to the bucket",
            ),
            Err(error) => Check::warning(
                "pending uploads",
                error.message(),
                "allow s3:ListBucketMultipartUploads, or add a lifecycle rule \
                 AbortIncompleteMultipartUpload to the bucket",
            ),
        };
        Ok([copying, pending])
    }

    /// Completes an upload as a push does, and then another one over it, which has to be refused.
    async fn complete(&self) -> Result<[Check; 2]> {
        let checked = self.upload().await?;
        let full = checked && self.has_full_checksum().await;
        let checksums = match (checked, full) {
            (true, true) => Check::passed("checksums", "CRC64NVME of whole objects"),
            (true, false) => Check::warning(
                "checksums",
                "CRC64NVME is accepted for parts but not kept for whole objects",
                "use a store that keeps full-object checksums, or trust qemu-img check after a pull",
            ),
            (false, _) => Check::warning(
                "checksums",
                "the store does not support CRC64NVME: only signatures protect the bytes",
                "use a store that supports CRC64NVME",
            ),
        };
        let conditional = match self.upload().await {
            Err(error) if error.kind() == Kind::Conflict => Check::passed(
                "conditional writes",
                "an existing object is not overwritten (If-None-Match)",
            ),
            Err(error) => Check::warning(
                "conditional writes",
                format!("cannot determine: {}", error.message()),
                error.hint_text().unwrap_or("run snapdeck doctor again"),
            ),
            Ok(_) => Check::warning(
                "conditional writes",
                "If-None-Match is ignored: of two pushes of one name at the same moment the last one wins",
                "use a store that honours it, or make sure that no one else pushes the same names",
            ),
        };
        Ok([checksums, conditional])
    }

    /// Uploads a small object in one part, where there is none; tells whether the store took its checksum.
    async fn upload(&self) -> Result<bool> {
        let mut pending =
            MultipartUpload::begin(&self.store, &self.multipart_key, Checksums::Object).await?;
        let part = Part {
            index: 0,
            offset: 0,
            length: SMALL_OBJECT_BYTES as u64,
        };
        let bytes = Bytes::from(vec![1; SMALL_OBJECT_BYTES]);
        let sent = match send_part(&pending, part, bytes, ByteCounter::default()).await {
            Ok(sent) => sent,
            Err(error) => {
                pending.abort().await;
                return Err(error);
            }
        };
        let checked = pending.checksums != Checksums::None && sent.checksum_crc64_nvme().is_some();
        pending
            .complete(vec![sent], SMALL_OBJECT_BYTES as u64, false)
            .await?;
        Ok(checked)
    }

    async fn has_full_checksum(&self) -> bool {
        let store = &self.store;
        let head = store.client.head_object().bucket(&store.bucket);
        let seen = head
            .key(&self.multipart_key)
            .checksum_mode(ChecksumMode::Enabled)
            .customize()
            .config_override(no_sdk_retry(CALL_TIMEOUT))
            .send()
            .await;
        seen.is_ok_and(|object| {
            object.checksum_crc64_nvme().is_some()
                && object.checksum_type() == Some(&ChecksumType::FullObject)
        })
    }

    /// Removes what was written; `None` where nothing was.
    async fn clear(mut self) -> Option<Check> {
        if !std::mem::take(&mut self.has_objects) {
            return None;
        }
        let keys = [&*self.key, &*self.multipart_key];
        let cleared = timeout(CLEANUP_TIMEOUT, remove(&self.store, keys)).await;
        let left = self.store.address(&self.key);
        let mend = format!("allow s3:DeleteObject; then aws s3 rm {left}; aws s3 rm {left}-parts");
        match cleared {
            Ok(Ok(true)) => Some(Check::passed("delete", "an object can be deleted")),
            Ok(Ok(false)) => None,
            Ok(Err(error)) => {
                let seen = format!("{}; the probe object {left} remains", error.message());
                Some(Check::failed("delete", seen, mend))
            }
            Err(_) => {
                let seen = format!("no answer; the probe object {left} may remain");
                Some(Check::failed("delete", seen, mend))
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Without a runtime the program is ending, and nothing can be sent any more.
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

/// Removes the objects, and uploads to the second that were broken off; tells whether any object was there.
async fn remove(store: &Store, keys: [&str; 2]) -> Result<bool> {
    let mut was_there = false;
    for key in keys {
        let what = format!("cannot delete {}", store.address(key));
        let head = store.client.head_object().bucket(&store.bucket).key(key);
        // Who may not look may still delete.
        let absent = match head.send().await {
            Ok(_) => false,
            Err(error) => matches!(status_and_code(&error), Some((404, _))),
        };
        if !absent {
            let delete = store.client.delete_object().bucket(&store.bucket).key(key);
            let deleted = delete.send().await;
            deleted.map_err(|error| sdk_error(store, what, &error))?;
            was_there = true;
        }
    }
    let [_, key] = keys;
    let uploads = store.client.list_multipart_uploads().bucket(&store.bucket);
    // Where they cannot be listed, each upload has aborted itself if it could.
    if let Ok(page) = uploads.prefix(key).send().await {
        for id in page
            .uploads()
            .iter()
            .filter_map(|upload| upload.upload_id())
        {
            let abort = store.client.abort_multipart_upload();
            let _ = abort
                .bucket(&store.bucket)
                .key(key)
                .upload_id(id)
                .send()
                .await;
        }
    }
    Ok(was_there)
}
