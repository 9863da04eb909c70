//! A multipart upload that has begun: it ends completed or aborted, also when its owner is dropped,
//! for stores keep (and bill) the parts of one that is left lying.

use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadError;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use tokio::time::sleep;

use super::client::{Store, no_sdk_retry};
use super::errors::{sdk_error, status_and_code};
use super::object::head_object;
use super::transfer::{backoff, random};
use snapdeck_model::{Error, Kind, Result};

/// Tries to complete or abort.
const MAX_ATTEMPTS: u32 = 3;
/// One try to complete: a store may put the parts together only now.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);
/// Metadata by which an object is known to be of this upload, when the store's answer was lost.
const UPLOAD_TAG_KEY: &str = "snapdeck-upload";

/// Where CRC64NVME proves the bytes to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksums {
    /// Nowhere: some stores do not know it.
    None,
    /// In each part that is sent; its payload is not signed then.
    Parts,
    /// In each part that is sent, and the store keeps that of the whole object.
    Object,
}

pub(super) struct MultipartUpload {
    pub(super) store: Store,
    pub(super) key: String,
    pub(super) id: String,
    pub(super) checksums: Checksums,
    upload_tag: String,
    open: bool,
}

impl MultipartUpload {
    /// Begins an upload, with `checksums` where the store knows them. It goes on when the caller is dropped, so that
    /// its id is never lost.
    pub(super) async fn begin(store: &Store, key: &str, checksums: Checksums) -> Result<Self> {
        let (store, key) = (store.clone(), key.to_owned());
        let what = format!("cannot upload {}", store.address(&key));
        tokio::spawn(Self::create(store, key, checksums))
            .await
            .map_err(|error| Error::new(Kind::Failed, what).with_cause(error))?
    }

    async fn create(store: Store, key: String, wanted: Checksums) -> Result<Self> {
        let what = format!("cannot upload {}", store.address(&key));
        let mark = format!("{:016x}{:016x}", random(), random());
        let call = store
            .client
            .create_multipart_upload()
            .bucket(&store.bucket)
            .key(&key)
            .content_type("application/octet-stream")
            .metadata(UPLOAD_TAG_KEY, &mark);
        let whole = wanted == Checksums::Object;
        let checked = call
            .clone()
            .set_checksum_algorithm(whole.then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_type(whole.then_some(ChecksumType::FullObject));
        let (answered, checksums) = match checked.send().await {
            Err(error) if whole && matches!(status_and_code(&error), Some((400 | 501, _))) => {
                (call.send().await, Checksums::None)
            }
            answered => (answered, wanted),
        };
        let begun = answered.map_err(|error| sdk_error(&store, what.clone(), &error))?;
        let id = begun.upload_id.ok_or_else(|| {
            Error::new(Kind::Failed, what).with_cause("the store returned no upload id")
        })?;
        Ok(Self {
            store,
            key,
            id,
            checksums,
            upload_tag: mark,
            open: true,
        })
    }

    /// Puts the parts together, `size` bytes. Unless `overwrite`, only where there is no object yet:
    /// `Unsupported` otherwise.
    pub(super) async fn complete(
        mut self,
        parts: Vec<CompletedPart>,
        size: u64,
        overwrite: bool,
    ) -> Result<()> {
        let what = format!("cannot upload {}", self.store.address(&self.key));
        let mut only_new = !overwrite;
        let mut tried = 0;
        let failed = loop {
            let Err(error) = self.try_to_complete(&parts, size, only_new).await else {
                self.open = false;
                return Ok(());
            };
            tried += 1;
            // The answer may have been lost, or be that of a second try after a first that worked.
            if self.is_completed().await {
                self.open = false;
                return Ok(());
            }
            let (status, code) = status_and_code(&error).unwrap_or_default();
            let told = sdk_error(&self.store, what.clone(), &error);
            if only_new && status == 412 {
                break already_exists_error(&self.store.address(&self.key));
            }
            let unknown = status == 501 || matches!(code, "InvalidArgument" | "InvalidRequest");
            if only_new && unknown {
                only_new = false;
            } else if told.is_retryable() && tried < MAX_ATTEMPTS {
                sleep(backoff(tried)).await;
            } else {
                break told;
            }
        };
        self.abort().await;
        Err(failed)
    }

    async fn try_to_complete(
        &self,
        parts: &[CompletedPart],
        size: u64,
        only_new: bool,
    ) -> Result<(), SdkError<CompleteMultipartUploadError>> {
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec()));
        let whole = self.checksums == Checksums::Object;
        self.store
            .client
            .complete_multipart_upload()
            .bucket(&self.store.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(list.build())
            .set_checksum_type(whole.then_some(ChecksumType::FullObject))
            .set_mpu_object_size(i64::try_from(size).ok())
            .set_if_none_match(only_new.then(|| "*".to_owned()))
            .customize()
            .config_override(no_sdk_retry(COMPLETE_TIMEOUT))
            .send()
            .await
            .map(drop)
    }

    /// Is the object there and this upload's?
    async fn is_completed(&self) -> bool {
        let found = head_object(&self.store, &self.key).await.ok().flatten();
        let marked = found
            .as_ref()
            .and_then(|o| o.metadata()?.get(UPLOAD_TAG_KEY));
        marked == Some(&self.upload_tag)
    }

    /// Throws away what has been sent. A failure is logged: the caller has one of its own to tell.
    pub(super) async fn abort(&mut self) {
        let (store, key, id) = (&self.store, &self.key, &self.id);
        for tried in 1..=MAX_ATTEMPTS {
            let aborted = store
                .client
                .abort_multipart_upload()
                .bucket(&store.bucket)
                .key(key)
                .upload_id(id)
                .send()
                .await;
            if let Err(error) = aborted
                && !matches!(status_and_code(&error), Some((404, _)))
            {
                let what = format!("cannot abort the upload {id} of {}", store.address(key));
                tracing::warn!("{}", sdk_error(store, what, &error));
                break;
            }
            // A part that was just arriving may have survived (API reference, AbortMultipartUpload).
            let left = store.client.list_parts().bucket(&store.bucket).key(key);
            let left = left.upload_id(id).max_parts(1).send().await;
            if left.map_or(true, |left| left.parts().is_empty()) {
                break;
            }
            sleep(backoff(tried)).await;
        }
        self.open = false;
    }
}

impl Drop for MultipartUpload {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        // Without a runtime the program is ending, and nothing can be sent any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut left = Self {
                store: self.store.clone(),
                key: std::mem::take(&mut self.key),
                id: std::mem::take(&mut self.id),
                checksums: self.checksums,
                upload_tag: std::mem::take(&mut self.upload_tag),
                // A runtime that is ending drops the task at once: this must not start another.
                open: false,
            };
            runtime.spawn(async move { left.abort().await });
        }
    }
}

/// The object is there and was not to be overwritten.
pub(super) fn already_exists_error(address: &str) -> Error {
    Error::new(Kind::Conflict, format!("cannot upload {address}"))
        .with_cause("the object exists already")
        .hint("choose another name, or pass --overwrite")
}
