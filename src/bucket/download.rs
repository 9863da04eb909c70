//! Download of blocks of one and the same object, several at once.

use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::client::{Store, no_sdk_retry};
use super::errors::{sdk_error, status_and_code};
use super::meter::ByteCounter;
use super::object;
use super::transfer::{MIN_PART_BYTES, Part, Transfer};
use snapdeck_model::{BlockSet, BufferPool, Error, Kind, Object, Phase, ProgressCell, Result};

/// Blocks in memory at once; those that are not on their way are hashed, or wait to be written.
pub const MAX_BLOCKS_IN_MEMORY: usize = 8;
/// Blocks on their way at once.
const MAX_CONCURRENT_RANGES: usize = 5;
/// Until a range's first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

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
    let transfer = Transfer::new(
        format!("the download of {address}"),
        object.size_bytes,
        MIN_PART_BYTES,
        progress,
        cancel,
    );
    // Also finds the tag where the caller's list had none.
    let source = transfer
        .run_until_cancelled(object::head(store, &object.name, &object.key))
        .await?
        .ok_or_else(|| missing_error(&address))?;
    if source.size_bytes != object.size_bytes || !etag_matches(&source, object.etag.as_deref()) {
        return Err(changed_error(&address));
    }
    let (buffers, places) = (
        &BufferPool::default(),
        &Semaphore::new(MAX_CONCURRENT_RANGES),
    );
    let (store, source, write) = (store, &source, &write);
    transfer
        .drive(blocks.iter(), MAX_BLOCKS_IN_MEMORY, |part| {
            let transfer = &transfer;
            async move {
                let place = places.acquire().await;
                let bytes = transfer
                    .retry(part, |count| {
                        download_range(store, source, part, buffers, count)
                    })
                    .await?;
                drop(place);
                write(part.index, bytes).await
            }
        })
        .await?;
    Ok(())
}

/// One try of one range.
async fn download_range(
    store: &Store,
    source: &Object,
    part: Part,
    buffers: &BufferPool,
    count: ByteCounter,
) -> Result<Bytes> {
    let address = store.address(&source.key);
    let last = part.offset + part.length - 1;
    // A weak tag never matches (RFC 9110, section 13.1.1); the answer's tag is compared in any case.
    let strong = source.etag.clone().filter(|tag| !tag.starts_with("W/"));
    let answered = store
        .client
        .get_object()
        .bucket(&store.bucket)
        .key(&source.key)
        .range(format!("bytes={}-{last}", part.offset))
        .set_if_match(strong)
        .customize()
        .config_override(no_sdk_retry(FIRST_BYTE_TIMEOUT))
        .send()
        .await;
    let output = match answered {
        Ok(output) => output,
        Err(error) => {
            return Err(match status_and_code(&error) {
                Some((412 | 416, _)) => changed_error(&address),
                Some((404, "NoSuchKey")) => missing_error(&address),
                _ => sdk_error(store, format!("cannot download {address}"), &error),
            });
        }
    };
    check_range(&output, source, part, &address)?;
    let mut body = output.body;
    let mut bytes = buffers.acquire(part.length as usize);
    bytes.clear();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| interrupted_error(&address).with_cause(error))?;
        if bytes.len() + chunk.len() > part.length as usize {
            return Err(
                interrupted_error(&address).with_cause("the store sent more than requested")
            );
        }
        count.fetch_add(chunk.len() as u64, Relaxed);
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() as u64 != part.length {
        return Err(interrupted_error(&address).with_cause("the store sent less than it announced"));
    }
    Ok(buffers.share(bytes))
}

/// Is this the range that was asked for, of the object that was asked for? Not every store heeds `If-Match`.
fn check_range(output: &GetObjectOutput, source: &Object, part: Part, address: &str) -> Result<()> {
    if !etag_matches(source, output.e_tag()) {
        return Err(changed_error(address));
    }
    let total = source.size_bytes;
    let last = part.offset + part.length - 1;
    match output.content_range() {
        Some(given) if given == format!("bytes {}-{last}/{total}", part.offset) => Ok(()),
        Some(given) if given == format!("bytes {}-{last}/*", part.offset) => Ok(()),
        Some(given) if !given.ends_with(&format!("/{total}")) => Err(changed_error(address)),
        None if part.length == total => Ok(()),
        _ => Err(
            Error::new(Kind::Failed, format!("cannot download {address}"))
                .with_cause("the store does not support range requests")
                .hint("use a store that supports them"),
        ),
    }
}

/// Is `tag` the object's? Unknown ones are taken for it.
fn etag_matches(object: &Object, tag: Option<&str>) -> bool {
    let bare = |tag: &str| tag.trim_start_matches("W/").trim_matches('"').to_owned();
    match (object.etag.as_deref(), tag) {
        (Some(known), Some(tag)) => bare(known) == bare(tag),
        _ => true,
    }
}

fn changed_error(address: &str) -> Error {
    Error::new(
        Kind::Failed,
        format!("{address} changed while it was being downloaded"),
    )
    .hint("start the download again to get the new object")
}

fn missing_error(address: &str) -> Error {
    Error::new(Kind::NotFound, format!("cannot download {address}"))
        .with_cause("no such object")
        .hint("list the bucket's objects to see their names")
}

fn interrupted_error(address: &str) -> Error {
    Error::new(
        Kind::Unreachable,
        format!("the download of {address} was interrupted"),
    )
    .hint("check the network to the store")
    .retryable()
}
