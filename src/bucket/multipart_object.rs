//! An object put together from parts: some sent from here, some copied by the store from another object. Parts come
//! in any order and may be replaced until the end.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedPart};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_util::sync::CancellationToken;

use super::client::{Store, no_sdk_retry};
use super::errors::{sdk_error, status_and_code};
use super::meter::{ByteCounter, CountingInterceptor};
use super::multipart_upload::{Checksums, MultipartUpload, already_exists_error};
use super::object;
use super::transfer::{Part, Transfer, max_parts_in_memory, part_size};
use snapdeck_model::{Error, Kind, Object, Phase, ProgressCell, Result, SnapshotName};

/// The longest try of a part that moves at all; one that stands still is given up much earlier.
const PART_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long the store's answer is waited for when an upload is cancelled while it is being begun
/// or completed: with it there is something to abort, or nothing.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// What a key in `x-amz-copy-source` keeps as it is (RFC 3986, section 2.3, and the slashes between its parts).
const COPY_SOURCE_SET: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An object on its way. It ends completed or aborted, also when it is dropped.
pub struct MultipartObject<'a> {
    store: &'a Store,
    name: &'a SnapshotName,
    overwrite: bool,
    transfer: Transfer<'a>,
    upload: MultipartUpload,
    /// By index: how long, and what the store gave for it.
    parts: Mutex<BTreeMap<u64, (u64, CompletedPart)>>,
    /// Why the store copies nothing.
    copy_error: OnceLock<Error>,
}

impl<'a> MultipartObject<'a> {
    /// Begins an object of at most `most_bytes`; see [`super::Bucket::assemble`]. Are there going to be `copies`?
    pub(super) async fn begin(
        store: &'a Store,
        (name, key): (&'a SnapshotName, &str),
        most_bytes: u64,
        (overwrite, copies): (bool, bool),
        progress: &'a ProgressCell,
        cancel: &'a CancellationToken,
    ) -> Result<Self> {
        progress.enter(Phase::Uploading, most_bytes);
        let transfer = Transfer::new(
            format!("the upload of {}", store.address(key)),
            most_bytes,
            part_size(most_bytes),
            progress,
            cancel,
        );
        transfer
            .run_until_cancelled(refuse_overwrite(store, key, overwrite))
            .await?;
        let checksums = match copies {
            true if store.rereads_copied_parts() => Checksums::Parts,
            _ => Checksums::Object,
        };
        let begin = MultipartUpload::begin(store, key, checksums);
        let pending = transfer
            .run_until_cancelled_with_grace(CANCEL_GRACE, begin)
            .await?;
        Ok(Self {
            store,
            name,
            overwrite,
            transfer,
            upload: pending,
            parts: Mutex::default(),
            copy_error: OnceLock::new(),
        })
    }

    /// Bytes of each part but the last: a multiple of 8 MiB.
    pub fn part_bytes(&self) -> u64 {
        self.transfer.part_bytes
    }

    /// How many parts may be in memory at once.
    pub fn max_parts_in_memory(&self) -> usize {
        max_parts_in_memory(self.transfer.part_bytes)
    }

    /// How many parts the store is best asked to copy at once: they take no memory here.
    pub fn max_concurrent_copies(&self) -> usize {
        self.store.max_concurrent_copies()
    }

    /// The object is going to have so many bytes, less than it was begun with: for the progress.
    pub fn set_total_bytes(&self, bytes: u64) {
        self.transfer.progress.set_total(bytes);
    }

    /// Does `work`, telling progress meanwhile.
    ///
    /// # Errors
    /// Its own; `Cancelled` as soon as the operator cancels: then it is dropped.
    pub async fn run_with_progress<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.transfer.run_with_progress(work).await
    }

    /// All parts of an object of so many bytes, each sent with what `read` gives for its offset and length.
    pub(super) async fn send_all<R, F>(&self, read: R) -> Result<()>
    where
        R: Fn(u64, usize) -> F + Send + Sync,
        F: Future<Output = Result<Bytes>> + Send,
    {
        let transfer = &self.transfer;
        // An upload has at least one part; that of an empty object is empty.
        let count = transfer.total_bytes.div_ceil(transfer.part_bytes).max(1);
        let read = &read;
        transfer
            .drive(0..count, self.max_parts_in_memory(), |part| async move {
                let bytes = read(part.offset, part.length as usize).await?;
                if bytes.len() as u64 != part.length {
                    return Err(self
                        .upload_error()
                        .with_cause("its source changed its length while it was being read")
                        .hint("make sure nothing writes to it and retry"));
                }
                self.upload_part(part.index, bytes).await
            })
            .await?;
        Ok(())
    }

    /// Sends a part; one with that index that is there already is replaced. Each part is tried again on its own.
    ///
    /// # Errors
    /// The store's, after the last try.
    pub async fn upload_part(&self, index: u64, bytes: Bytes) -> Result<()> {
        let part = self.part(index, bytes.len() as u64)?;
        let bytes = &bytes;
        let done = self
            .transfer
            .retry(part, |count| {
                send_part(&self.upload, part, bytes.clone(), count)
            })
            .await?;
        self.lock().insert(index, (part.length, done));
        Ok(())
    }

    /// Has the store copy a part from `source`: `length` bytes at `offset`. `false` where it does not: then the bytes
    /// have to be sent. From the first refusal on none is asked for any more ([`MultipartObject::copy_error`]).
    ///
    /// Whether `source` is still the same is for the caller to ask before and after: not every store heeds the
    /// condition.
    ///
    /// # Errors
    /// `Failed` for a part that cannot be one.
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
        let copied = self
            .transfer
            .retry(part, |_| {
                copy_part(&self.upload, part, source, offset..offset + length)
            })
            .await;
        match copied {
            Ok(done) => {
                self.lock().insert(index, (length, done));
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(part = index, "{error}");
                self.transfer.meter.remove_part(index);
                let _ = self.copy_error.set(error);
                Ok(false)
            }
        }
    }

    /// Why the store refused to copy, if it did.
    pub fn copy_error(&self) -> Option<&Error> {
        self.copy_error.get()
    }

    /// Asks for no copies any more.
    pub fn disable_copies(&self, why: Error) {
        let _ = self.copy_error.set(why);
    }

    /// Puts the parts together; they must be all from the first on, equally long but for the last.
    ///
    /// # Errors
    /// `Unsupported` where the object has come up meanwhile and is not to be overwritten; `Damaged` where the store has
    /// something else in the end. On an error nothing is left but in the last case. A cancel may come too late: then
    /// the object is returned.
    pub async fn complete(self) -> Result<Object> {
        let (size, parts) = match self.collect_parts().await {
            Ok(ready) => ready,
            Err(error) => {
                self.abort().await;
                return Err(error);
            }
        };
        let Self {
            store,
            name,
            overwrite,
            transfer,
            upload: pending,
            ..
        } = self;
        let key = pending.key.clone();
        let failed = || upload_error(store, &key);
        // In a task of its own: when we are dropped or cancelled here, the store may already be at it, and only its
        // answer tells whether there is something to abort.
        let completing = tokio::spawn(pending.complete(parts, size, overwrite));
        let completed = async {
            completing
                .await
                .map_err(|error| failed().with_cause(error))?
        };
        let outcome = transfer
            .run_until_cancelled_with_grace(CANCEL_GRACE, completed)
            .await;
        outcome.map_err(|error| match error.kind() {
            Kind::Cancelled => {
                error.hint("the store was already completing it: check whether the object exists")
            }
            _ => error,
        })?;
        verify_size(store, name, &key, size).await
    }

    /// Throws away what was sent.
    pub async fn abort(mut self) {
        self.transfer.progress.enter(Phase::CleaningUp, 0);
        self.upload.abort().await;
    }

    /// The object's size, and what its completion needs. Asks once more for the object, for stores that take no
    /// conditions.
    async fn collect_parts(&self) -> Result<(u64, Vec<CompletedPart>)> {
        let (size, parts) = {
            let parts = self.lock();
            let last = parts.len().saturating_sub(1) as u64;
            let fits = parts.iter().zip(0..).all(|((index, (length, _)), wanted)| {
                *index == wanted && (*length == self.transfer.part_bytes || wanted == last)
            });
            if parts.is_empty() || !fits {
                return Err(self
                    .upload_error()
                    .with_cause("not all of its parts were uploaded"));
            }
            let size = parts.values().map(|(length, _)| length).sum();
            let parts = parts.values().map(|(_, part)| part.clone()).collect();
            (size, parts)
        };
        let look = refuse_overwrite(self.store, &self.upload.key, self.overwrite);
        if !self.overwrite {
            self.transfer.run_until_cancelled(look).await?;
        }
        Ok((size, parts))
    }

    fn part(&self, index: u64, length: u64) -> Result<Part> {
        let size = self.transfer.part_bytes;
        if length > size {
            return Err(self
                .upload_error()
                .with_cause(format!("a part of {length} bytes is longer than {size}")));
        }
        Ok(Part {
            index,
            offset: index * size,
            length,
        })
    }

    fn upload_error(&self) -> Error {
        upload_error(self.store, &self.upload.key)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (u64, CompletedPart)>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn upload_error(store: &Store, key: &str) -> Error {
    Error::new(
        Kind::Failed,
        format!("cannot upload {}", store.address(key)),
    )
}

/// `Unsupported` where the object exists and is not to be overwritten. Asked for every upload, for stores that take
/// parts for a bucket that is not there.
async fn refuse_overwrite(store: &Store, key: &str, overwrite: bool) -> Result<()> {
    let found = object::head_object(store, key).await?;
    if found.is_some() && !overwrite {
        return Err(already_exists_error(&store.address(key)));
    }
    Ok(())
}

/// The object as the store has it now; `Damaged` where its size is not what was sent.
async fn verify_size(store: &Store, name: &SnapshotName, key: &str, size: u64) -> Result<Object> {
    let found = object::head(store, name, key).await?;
    let error = |cause: String| {
        Error::new(
            Kind::Damaged,
            format!("cannot trust {}", store.address(key)),
        )
        .with_cause(cause)
        .hint("remove it and upload again")
    };
    match found {
        Some(object) if object.size_bytes == size => Ok(object),
        Some(object) => Err(error(format!(
            "{size} bytes were sent, the store has {}",
            object.size_bytes
        ))),
        None => Err(error("it does not exist after its upload".to_owned())),
    }
}

/// S3 counts parts from 1.
fn part_number(part: Part) -> i32 {
    i32::try_from(part.index + 1).unwrap_or(i32::MAX)
}

/// One try of one part.
pub(super) async fn send_part(
    pending: &MultipartUpload,
    part: Part,
    bytes: Bytes,
    count: ByteCounter,
) -> Result<CompletedPart> {
    let store = &pending.store;
    let call = store
        .client
        .upload_part()
        .bucket(&store.bucket)
        .key(&pending.key)
        .upload_id(&pending.id)
        .part_number(part_number(part))
        .body(ByteStream::from(bytes));
    let limits = no_sdk_retry(PART_TIMEOUT);
    // The checksum proves the bytes: hashing them with SHA-256 for the signature too is for nothing.
    let call = if pending.checksums != Checksums::None {
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
        .interceptor(CountingInterceptor(count))
        .send()
        .await
        .map_err(|error| {
            let what = format!("cannot upload {}", store.address(&pending.key));
            sdk_error(store, what, &error)
        })?;
    Ok(CompletedPart::builder()
        .part_number(part_number(part))
        .set_e_tag(sent.e_tag)
        .set_checksum_crc64_nvme(sent.checksum_crc64_nvme)
        .build())
}

/// One try of one part that the store copies.
async fn copy_part(
    pending: &MultipartUpload,
    part: Part,
    source: &Object,
    range: std::ops::Range<u64>,
) -> Result<CompletedPart> {
    let store = &pending.store;
    let what = || format!("cannot have {} copied in the store", source.key);
    let from = utf8_percent_encode(&source.key, COPY_SOURCE_SET);
    let call = store
        .client
        .upload_part_copy()
        .bucket(&store.bucket)
        .key(&pending.key)
        .upload_id(&pending.id)
        .part_number(part_number(part))
        .copy_source(format!("{}/{from}", store.bucket))
        // Both ends are in it.
        .copy_source_range(format!("bytes={}-{}", range.start, range.end - 1))
        .set_copy_source_if_match(source.etag.clone());
    let copied = call
        .customize()
        .config_override(no_sdk_retry(PART_TIMEOUT))
        .send()
        .await
        .map_err(|error| match status_and_code(&error) {
            Some((412, _)) => {
                Error::new(Kind::Failed, what()).with_cause("it was replaced meanwhile")
            }
            _ => sdk_error(store, what(), &error),
        })?;
    // A store that does not know the call takes it for a part without bytes, and says nothing of a copy.
    let result = copied
        .copy_part_result
        .filter(|result| result.e_tag.is_some())
        .ok_or_else(|| {
            Error::new(Kind::Failed, what()).with_cause("the store did not confirm it")
        })?;
    Ok(CompletedPart::builder()
        .part_number(part_number(part))
        .set_e_tag(result.e_tag)
        .set_checksum_crc64_nvme(result.checksum_crc64_nvme)
        .build())
}
