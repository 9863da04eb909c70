//! Downloads blocks of one object, several at a time.

use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::meter::ByteCounter;
use super::missing_object_error;
use super::s3::{ObjectBody, Reason, Store, StoreError};
use super::transfer::{MIN_PART_BYTES, Part, Transfer};
use snapdeck_model::{BlockSet, BufferPool, Error, Kind, Object, Phase, ProgressCell, Result};

/// Blocks in memory at a time; some are being downloaded, the others hashed or written.
pub const MAX_BLOCKS_IN_MEMORY: usize = 6;
const MAX_CONCURRENT_RANGES: usize = 5;

/// See [`super::Bucket::download`].
pub(super) async fn download_blocks<W, F>(
    store: &Store,
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
    let address = store.address(&object.key);
    progress.enter(Phase::Downloading, blocks.bytes());
    let transfer = &Transfer {
        description: format!("the download of {address}"),
        total_bytes: object.size_bytes,
        part_bytes: MIN_PART_BYTES,
        progress,
        cancel,
        retry: store.retry.clone(),
        meter: Default::default(),
    };
    // Also finds the ETag if the caller's listing had none.
    let head = async { Ok(store.head(&object.key).await?) };
    let source = transfer
        .run_until_cancelled(Duration::ZERO, head)
        .await?
        .ok_or_else(|| missing_object_error(format!("cannot download {address}")))?
        .into_object(object.name.clone());
    if source.size_bytes != object.size_bytes || !etag_matches(&source, object.etag.as_deref()) {
        return Err(changed_error(&address));
    }
    let buffers = &BufferPool::default();
    let permits = &Semaphore::new(MAX_CONCURRENT_RANGES);
    let (source, write) = (&source, &write);
    transfer
        .for_each_part(blocks.iter(), MAX_BLOCKS_IN_MEMORY, |part| async move {
            let permit = permits.acquire().await;
            let bytes = transfer
                .retry(part, |count| {
                    download_range(store, source, part, buffers, count)
                })
                .await?;
            drop(permit);
            write(part.index, bytes).await
        })
        .await
}

/// Downloads one range, once.
async fn download_range(
    store: &Store,
    source: &Object,
    part: Part,
    buffers: &BufferPool,
    count: ByteCounter,
) -> Result<Bytes, StoreError> {
    let address = store.address(&source.key);
    let range = part.offset..part.offset + part.length;
    // A weak tag never matches (RFC 9110, section 13.1.1); the tag of the response is compared in any case.
    let strong = source.etag.clone().filter(|etag| !etag.starts_with("W/"));
    let response = store.get(&source.key, Some(range), strong).await;
    let mut body = response.map_err(|StoreError { reason, error }| match reason {
        Reason::PreconditionFailed | Reason::InvalidRange => changed_error(&address).into(),
        Reason::NotFound => missing_object_error(format!("cannot download {address}")).into(),
        _ => StoreError { reason, error },
    })?;
    check_range(&body, source, part, &address)?;
    let mut bytes = buffers.acquire(part.length as usize);
    bytes.clear();
    while let Some(chunk) = body
        .next_chunk()
        .await
        .map_err(|error| interrupted_error(&address, error))?
    {
        if bytes.len() + chunk.len() > part.length as usize {
            return Err(interrupted_error(
                &address,
                "the store sent more than was requested",
            ));
        }
        count.fetch_add(chunk.len() as u64, Relaxed);
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() as u64 != part.length {
        return Err(interrupted_error(
            &address,
            "the store sent less than it announced",
        ));
    }
    Ok(buffers.share(bytes))
}

/// Fails unless the response is the requested range of `source`: not every store honours `If-Match`.
fn check_range(body: &ObjectBody, source: &Object, part: Part, address: &str) -> Result<()> {
    if !etag_matches(source, body.etag.as_deref()) {
        return Err(changed_error(address));
    }
    let total = source.size_bytes;
    let last = part.offset + part.length - 1;
    match body.content_range.as_deref() {
        Some(range) if range == format!("bytes {}-{last}/{total}", part.offset) => Ok(()),
        Some(range) if range == format!("bytes {}-{last}/*", part.offset) => Ok(()),
        Some(range) if !range.ends_with(&format!("/{total}")) => Err(changed_error(address)),
        None if part.length == total => Ok(()),
        _ => Err(
            Error::new(Kind::Failed, format!("cannot download {address}"))
                .with_cause("the store does not support range requests")
                .hint("use a store that supports them"),
        ),
    }
}

/// Returns whether `etag` is the object's; unknown ones match.
fn etag_matches(object: &Object, etag: Option<&str>) -> bool {
    fn opaque(etag: &str) -> &str {
        etag.trim_start_matches("W/").trim_matches('"')
    }
    match (object.etag.as_deref(), etag) {
        (Some(expected), Some(etag)) => opaque(expected) == opaque(etag),
        _ => true,
    }
}

fn changed_error(address: &str) -> Error {
    Error::new(Kind::Failed, format!("cannot download {address}"))
        .with_cause("it changed while it was being downloaded")
        .hint("start the download again to get the new object")
}

fn interrupted_error(address: &str, cause: impl std::fmt::Display) -> StoreError {
    let error = Error::new(Kind::Unreachable, format!("cannot download {address}"))
        .with_cause(cause)
        .hint("check the network to the store")
        .retryable();
    StoreError {
        reason: Reason::NoResponse,
        error,
    }
}
