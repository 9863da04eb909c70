//! A multipart upload that has begun: it ends completed or aborted, also when its owner is dropped,
//! for stores keep (and bill) the parts of one that is left lying.

use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadError;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use tokio::time::sleep;

use super::client::{Store, long_call};
use super::errors::{answer, told};
use super::object::look;
use super::parts::{backoff, random};
use snapdeck_model::{Error, Kind, Result};

/// Tries to complete or abort.
const TRIES: u32 = 3;
/// One try to complete: a store may put the parts together only now.
const COMPLETE: Duration = Duration::from_secs(300);
/// Metadata by which an object is known to be of this upload, when the store's answer was lost.
const MARK: &str = "snapdeck-upload";

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

pub(super) struct Pending {
    pub(super) store: Store,
    pub(super) key: String,
    pub(super) id: String,
    pub(super) checksums: Checksums,
    mark: String,
    open: bool,
}

impl Pending {
    /// Begins an upload, with `checksums` where the store knows them. It goes on when the caller is dropped, so that
    /// its id is never lost.
    pub(super) async fn begin(store: &Store, key: &str, checksums: Checksums) -> Result<Self> {
        let (store, key) = (store.clone(), key.to_owned());
        let what = format!("cannot upload {}", store.address(&key));
        tokio::spawn(Self::create(store, key, checksums))
            .await
            .map_err(|error| Error::new(Kind::Failed, what).because(error))?
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
            .metadata(MARK, &mark);
        let whole = wanted == Checksums::Object;
        let checked = call
            .clone()
            .set_checksum_algorithm(whole.then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_type(whole.then_some(ChecksumType::FullObject));
        let (answered, checksums) = match checked.send().await {
            Err(error) if whole && matches!(answer(&error), Some((400 | 501, _))) => {
                (call.send().await, Checksums::None)
            }
            answered => (answered, wanted),
        };
        let begun = answered.map_err(|error| told(&store, what.clone(), &error))?;
        let id = begun.upload_id.ok_or_else(|| {
            Error::new(Kind::Failed, what).because("the store gave the upload no id")
        })?;
        Ok(Self {
            store,
            key,
            id,
            checksums,
            mark,
            open: true,
        })
    }

    /// Puts the parts together, `size` bytes. Unless `overwrite`, only where there is no object yet:
    /// `Refused` otherwise.
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
            if self.has_landed().await {
                self.open = false;
                return Ok(());
            }
            let (status, code) = answer(&error).unwrap_or_default();
            let told = told(&self.store, what.clone(), &error);
            if only_new && status == 412 {
                break exists(&self.store.address(&self.key));
            }
            let unknown = status == 501 || matches!(code, "InvalidArgument" | "InvalidRequest");
            if only_new && unknown {
                only_new = false;
            } else if told.is_worth_retrying() && tried < TRIES {
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
            .config_override(long_call(COMPLETE))
            .send()
            .await
            .map(drop)
    }

    /// Is the object there and this upload's?
    async fn has_landed(&self) -> bool {
        let found = look(&self.store, &self.key).await.ok().flatten();
        let marked = found.as_ref().and_then(|o| o.metadata()?.get(MARK));
        marked == Some(&self.mark)
    }

    /// Throws away what has been sent. A failure is logged: the caller has one of its own to tell.
    pub(super) async fn abort(&mut self) {
        let (store, key, id) = (&self.store, &self.key, &self.id);
        for tried in 1..=TRIES {
            let aborted = store
                .client
                .abort_multipart_upload()
                .bucket(&store.bucket)
                .key(key)
                .upload_id(id)
                .send()
                .await;
            if let Err(error) = aborted
                && !matches!(answer(&error), Some((404, _)))
            {
                let what = format!("cannot abort the upload {id} of {}", store.address(key));
                tracing::warn!("{}", told(store, what, &error));
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

impl Drop for Pending {
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
                mark: std::mem::take(&mut self.mark),
                // A runtime that is ending drops the task at once: this must not start another.
                open: false,
            };
            runtime.spawn(async move { left.abort().await });
        }
    }
}

/// The object is there and was not to be overwritten.
pub(super) fn exists(address: &str) -> Error {
    Error::new(Kind::Refused, format!("cannot upload {address}"))
        .because("the object exists already")
        .hint("choose another name, or ask for it to be overwritten (--overwrite)")
}
