//! Multipart upload of one object.

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedPart};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::client::{Store, long_call};
use super::errors::told;
use super::meter::{Count, Counting};
use super::object;
use super::parts::{Part, Transfer, part_size};
use super::pending::{Pending, exists};
use crate::model::{Error, Kind, Object, Phase, ProgressCell, Result, SnapshotName};

/// The longest try of a part that moves at all; one that stands still is given up much earlier.
const PART_LIMIT: Duration = Duration::from_secs(3600);
/// How long the store's answer is waited for when an upload is cancelled while it is being begun
/// or completed: with it there is something to abort, or nothing.
const LAST_CALL: Duration = Duration::from_secs(5);

/// One upload.
pub(super) struct Upload<'a> {
    pub(super) store: &'a Store,
    pub(super) name: &'a SnapshotName,
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) overwrite: bool,
}

impl Upload<'_> {
    /// See [`super::Bucket::upload`].
    pub(super) async fn run<R, F>(
        &self,
        read: R,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<Object>
    where
        R: Fn(u64, usize) -> F + Send + Sync,
        F: Future<Output = Result<Bytes>> + Send,
    {
        progress.enter(Phase::Uploading, self.size);
        let transfer = Transfer::new(
            format!("the upload of {}", self.address()),
            self.size,
            part_size(self.size),
            progress,
            cancel,
        );
        transfer.unless_cancelled(self.look_first()).await?;
        let begin = Pending::begin(self.store, &self.key);
        let mut pending = transfer.unless_cancelled_for(LAST_CALL, begin).await?;
        match self.send(&transfer, &pending, read).await {
            Ok(parts) => self.complete(&transfer, pending, parts).await?,
            Err(error) => {
                progress.enter(Phase::CleaningUp, 0);
                pending.abort().await;
                return Err(error);
            }
        }
        self.verified().await
    }

    fn address(&self) -> String {
        self.store.address(&self.key)
    }

    /// `Refused` where the object exists and is not to be overwritten. Asked for every upload, for stores that
    /// take parts for a bucket that is not there.
    async fn look_first(&self) -> Result<()> {
        let found = object::look(self.store, &self.key).await?;
        if found.is_some() && !self.overwrite {
            return Err(exists(&self.address()));
        }
        Ok(())
    }

    /// Sends all parts. Then asks once more for the object, for stores that take no conditions.
    async fn send<R, F>(
        &self,
        transfer: &Transfer<'_>,
        pending: &Pending,
        read: R,
    ) -> Result<Vec<CompletedPart>>
    where
        R: Fn(u64, usize) -> F + Send + Sync,
        F: Future<Output = Result<Bytes>> + Send,
    {
        // An upload has at least one part; that of an empty object is empty.
        let count = self.size.div_ceil(transfer.size).max(1);
        let read = &read;
        let mut parts = transfer
            .drive(count, |part| async move {
                let bytes = read(part.offset, part.length as usize).await?;
                if bytes.len() as u64 != part.length {
                    return Err(Error::new(
                        Kind::Failed,
                        format!("cannot upload {}", self.address()),
                    )
                    .because("its source changed its length while it was being read")
                    .hint("see that nothing writes to it and start again"));
                }
                let bytes = &bytes;
                transfer
                    .persist(part, |count| send_part(pending, part, bytes.clone(), count))
                    .await
            })
            .await?;
        parts.sort_unstable_by_key(|part| part.part_number);
        if !self.overwrite {
            transfer.unless_cancelled(self.look_first()).await?;
        }
        Ok(parts)
    }

    /// Completes in a task of its own: when we are dropped or cancelled here, the store may already
    /// be at it, and only its answer tells whether there is something to abort.
    async fn complete(
        &self,
        transfer: &Transfer<'_>,
        pending: Pending,
        parts: Vec<CompletedPart>,
    ) -> Result<()> {
        let completing = tokio::spawn(pending.complete(parts, self.size, self.overwrite));
        let completed = async {
            completing.await.map_err(|error| {
                Error::new(Kind::Failed, format!("cannot upload {}", self.address())).because(error)
            })?
        };
        let outcome = transfer.unless_cancelled_for(LAST_CALL, completed).await;
        outcome.map_err(|error| match error.kind() {
            Kind::Cancelled => {
                error.hint("the store was already completing it: look whether the object is there")
            }
            _ => error,
        })
    }

    /// The object as the store has it now; `Damaged` where its size is not what was sent.
    async fn verified(&self) -> Result<Object> {
        let found = object::head(self.store, self.name, &self.key).await?;
        let error = |cause: String| {
            Error::new(Kind::Damaged, format!("cannot trust {}", self.address()))
                .because(cause)
                .hint("remove it and upload again")
        };
        match found {
            Some(object) if object.size_bytes == self.size => Ok(object),
            Some(object) => Err(error(format!(
                "{} bytes were sent, the store has {}",
                self.size, object.size_bytes
            ))),
            None => Err(error("it is not there after its upload".to_owned())),
        }
    }
}

/// One try of one part.
pub(super) async fn send_part(
    pending: &Pending,
    part: Part,
    bytes: Bytes,
    count: Count,
) -> Result<CompletedPart> {
    let store = &pending.store;
    let number = i32::try_from(part.index + 1).unwrap_or(i32::MAX);
    let call = store
        .client
        .upload_part()
        .bucket(&store.bucket)
        .key(&pending.key)
        .upload_id(&pending.id)
        .part_number(number)
        .body(ByteStream::from(bytes));
    let limits = long_call(PART_LIMIT);
    // The checksum proves the bytes: hashing them with SHA-256 for the signature too is for nothing.
    let call = if pending.checksums {
        call.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .customize()
            .disable_payload_signing()
            .config_override(limits)
    } else {
        let plain = RequestChecksumCalculation::WhenRequired;
        call.customize()
            .config_override(limits.request_checksum_calculation(plain))
    };
    let sent = call
        .interceptor(Counting(count))
        .send()
        .await
        .map_err(|error| {
            let what = format!("cannot upload {}", store.address(&pending.key));
            told(store, what, &error)
        })?;
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(sent.e_tag)
        .set_checksum_crc64_nvme(sent.checksum_crc64_nvme)
        .build())
}
