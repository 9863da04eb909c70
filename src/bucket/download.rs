//! Download of blocks of one and the same object, several at once.

use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::client::{Store, long_call};
use super::errors::{answer, told};
use super::meter::Count;
use super::object;
use super::parts::{PART, Part, Transfer};
use snapdeck_model::{BlockSet, Buffers, Error, Kind, Object, Phase, ProgressCell, Result};

/// Blocks in memory at once; those that are not on their way are hashed, or wait to be written.
pub const BLOCKS_AT_ONCE: usize = 8;
/// Blocks on their way at once.
const ON_THEIR_WAY: usize = 5;
/// Until a range's first byte.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// See [`super::Bucket::download`].
pub(super) async fn run<W, F>(
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
        PART,
        progress,
        cancel,
    );
    // Also finds the tag where the caller's list had none.
    let source = transfer
        .unless_cancelled(object::head(store, &object.name, &object.key))
        .await?
        .ok_or_else(|| gone(&address))?;
    if source.size_bytes != object.size_bytes || !same(&source, object.etag.as_deref()) {
        return Err(changed(&address));
    }
    let (buffers, places) = (&Buffers::default(), &Semaphore::new(ON_THEIR_WAY));
    let (store, source, write) = (store, &source, &write);
    transfer
        .drive(blocks.iter(), BLOCKS_AT_ONCE, |part| {
            let transfer = &transfer;
            async move {
                let place = places.acquire().await;
                let bytes = transfer
                    .persist(part, |count| range(store, source, part, buffers, count))
                    .await?;
                drop(place);
                write(part.index, bytes).await
            }
        })
        .await?;
    Ok(())
}

/// One try of one range.
async fn range(
    store: &Store,
    source: &Object,
    part: Part,
    buffers: &Buffers,
    count: Count,
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
        .config_override(long_call(FIRST_BYTE))
        .send()
        .await;
    let output = match answered {
        Ok(output) => output,
        Err(error) => {
            return Err(match answer(&error) {
                Some((412 | 416, _)) => changed(&address),
                Some((404, "NoSuchKey")) => gone(&address),
                _ => told(store, format!("cannot download {address}"), &error),
            });
        }
    };
    check(&output, source, part, &address)?;
    let mut body = output.body;
    let mut bytes = buffers.take(part.length as usize);
    bytes.clear();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| broken(&address).because(error))?;
        if bytes.len() + chunk.len() > part.length as usize {
            return Err(broken(&address).because("the store sent more than it was asked for"));
        }
        count.fetch_add(chunk.len() as u64, Relaxed);
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() as u64 != part.length {
        return Err(broken(&address).because("the store sent less than it announced"));
    }
    Ok(buffers.share(bytes))
}

/// Is this the range that was asked for, of the object that was asked for? Not every store heeds `If-Match`.
fn check(output: &GetObjectOutput, source: &Object, part: Part, address: &str) -> Result<()> {
    if !same(source, output.e_tag()) {
        return Err(changed(address));
    }
    let total = source.size_bytes;
    let last = part.offset + part.length - 1;
    match output.content_range() {
        Some(given) if given == format!("bytes {}-{last}/{total}", part.offset) => Ok(()),
        Some(given) if given == format!("bytes {}-{last}/*", part.offset) => Ok(()),
        Some(given) if !given.ends_with(&format!("/{total}")) => Err(changed(address)),
        None if part.length == total => Ok(()),
        _ => Err(
            Error::new(Kind::Failed, format!("cannot download {address}"))
                .because("the store does not give ranges of objects")
                .hint("use a store that does"),
        ),
    }
}

/// Is `tag` the object's? Unknown ones are taken for it.
fn same(object: &Object, tag: Option<&str>) -> bool {
    let bare = |tag: &str| tag.trim_start_matches("W/").trim_matches('"').to_owned();
    match (object.etag.as_deref(), tag) {
        (Some(known), Some(tag)) => bare(known) == bare(tag),
        _ => true,
    }
}

fn changed(address: &str) -> Error {
    Error::new(
        Kind::Failed,
        format!("{address} changed while it was being downloaded"),
    )
    .hint("start the download again to get the new object")
}

fn gone(address: &str) -> Error {
    Error::new(Kind::NotFound, format!("cannot download {address}"))
        .because("there is no such object")
        .hint("list the bucket's objects to see their names")
}

fn broken(address: &str) -> Error {
    Error::new(
        Kind::Unreachable,
        format!("the download of {address} broke off"),
    )
    .hint("check the network to the store")
    .worth_retrying()
}
