//! Where the blocks of an image that a host receives come from: an object of the bucket, or a snapshot of another host.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use snapdeck_bucket::Bucket;
use snapdeck_host::{Host, RetryPolicy, hash_block};
use snapdeck_model::{
    BLOCK_BYTES, BlockSet, BufferPool, Error, FileStamp, Kind, Object, Phase, ProgressCell, Result,
};

use crate::hash_blocks::bad_blocks_text;
use crate::remote_object::{RemoteObject, is_unchanged};

/// Blocks of a host's file that are read at a time.
const MAX_CONCURRENT_READS: usize = 4;

/// A source of blocks. Cheap to clone.
#[derive(Clone)]
pub(crate) enum ImageSource {
    Bucket(Bucket),
    Snapshot(Arc<SourceFile>),
}

/// The file of a snapshot on its host.
#[derive(Clone)]
pub(crate) struct SourceFile {
    pub host: Host,
    pub path: String,
    /// That of the file whose digests are known.
    pub stamp: FileStamp,
}

impl ImageSource {
    /// Returns the same source for a task that is not cancelled with the job.
    pub(crate) fn detached(&self) -> Self {
        let never_cancelled = CancellationToken::new();
        match self {
            Self::Bucket(bucket) => {
                let retry = bucket.retry().with_cancel(never_cancelled);
                Self::Bucket(bucket.with_retry(retry))
            }
            Self::Snapshot(file) => {
                let limit = file.host.settings().reconnect_timeout;
                let policy = RetryPolicy::new(limit, never_cancelled, Arc::new(|_| {}));
                Self::Snapshot(Arc::new(SourceFile {
                    host: file.host.with_retry_policy(policy),
                    ..(**file).clone()
                }))
            }
        }
    }

    /// Identifies the bytes of `image` for a partial file; `None` if nothing does.
    pub(crate) fn version(&self, image: &RemoteObject) -> Option<String> {
        match self {
            Self::Bucket(bucket) => {
                let object = &image.object;
                // Only a strong entity tag says that two parts are of the same object (RFC 9110, section 8.8.1).
                let tag = object
                    .etag
                    .as_deref()
                    .filter(|tag| !tag.starts_with("W/"))?;
                Some(format!("{}/{} {tag}", bucket.location(), object.key))
            }
            Self::Snapshot(_) => {
                let blocks = &image.manifest.as_ref()?.blocks;
                let bytes: Vec<u8> = blocks.iter().flat_map(|digest| digest.0).collect();
                Some(format!("blocks {}", hash_block(&bytes)))
            }
        }
    }

    /// Returns whether the source still has these very bytes, as far as that is known without reading them.
    ///
    /// # Errors
    /// Those of bucket or host.
    pub(crate) async fn is_unchanged(&self, object: &Object) -> Result<bool> {
        match self {
            Self::Bucket(bucket) => is_unchanged(bucket, object).await,
            Self::Snapshot(file) => {
                let current = file.host.fs().image_file(&file.path).await?;
                Ok(current.is_some_and(|current| current.stamp.is_same_file(&file.stamp)))
            }
        }
    }

    /// Reads `blocks` of `image`, several at a time; each is given to `write(block, bytes)` once.
    ///
    /// # Errors
    /// Those of `write`; those of bucket or host.
    pub(crate) async fn download<W, F>(
        &self,
        image: &RemoteObject,
        blocks: &BlockSet,
        write: W,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()>
    where
        W: Fn(u64, Bytes) -> F + Send + Sync,
        F: Future<Output = Result<()>> + Send,
    {
        match self {
            Self::Bucket(bucket) => {
                let download = bucket.download(&image.object, blocks, write, progress, cancel);
                download.await
            }
            Self::Snapshot(file) => file.read(image, blocks, write, progress, cancel).await,
        }
    }

    /// Returns the error for blocks that are not those of the manifest, although they were read twice.
    pub(crate) async fn bad_blocks_error(&self, image: &RemoteObject, bad: &BlockSet) -> Error {
        let damaged = || Error::new(Kind::Damaged, format!("{} is damaged", image.object.key));
        match self {
            Self::Bucket(_) => damaged()
                .with_cause(bad_blocks_text(bad))
                .hint("push it again, or remove its manifest to accept it as it is"),
            Self::Snapshot(_) => match self.is_unchanged(&image.object).await {
                Ok(false) => Error::new(
                    Kind::Conflict,
                    format!("{} was changed while it was read", image.object.key),
                )
                .with_cause(bad_blocks_text(bad))
                .hint("retry while nothing writes to it"),
                _ => damaged()
                    .with_cause(bad_blocks_text(bad))
                    .hint("run `snapdeck verify --repair` on its host"),
            },
        }
    }
}

impl SourceFile {
    async fn read<W, F>(
        &self,
        image: &RemoteObject,
        blocks: &BlockSet,
        write: W,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()>
    where
        W: Fn(u64, Bytes) -> F + Send + Sync,
        F: Future<Output = Result<()>> + Send,
    {
        progress.enter(Phase::Downloading, blocks.bytes());
        let (reader, buffers) = (
            &self.host.fs().open_reader(&self.path).await?,
            &BufferPool::default(),
        );
        let write = &write;
        let reading = stream::iter(blocks.iter().map(Ok)).try_for_each_concurrent(
            MAX_CONCURRENT_READS,
            |block| async move {
                let length = image.block_bytes(block) as usize;
                // Blocks of zeros are not in the plan of a transfer.
                let read = reader.read_at(buffers, block * BLOCK_BYTES, length);
                let bytes = read.await?;
                progress.add(length as u64);
                write(block, bytes).await
            },
        );
        tokio::select! {
            result = reading => result,
            () = cancel.cancelled() => Err(Error::cancelled("the copy")),
        }
    }
}
