//! Hashes blocks: of a file, on its host, and of downloaded data.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::mpsc::unbounded_channel;

use snapdeck_host::{BlockCopy, BlockState, FileWriter, Host, hash_block};
use snapdeck_model::{
    BLOCK_BYTES, BlockSet, Digest, Error, FileStamp, Kind, Phase, Result, block_bytes, block_count,
};

use crate::context::Context;
use crate::transfer_plan::ZERO_BLOCK;

/// Digests of blocks.
pub(crate) struct HashedBlocks {
    pub digests: BTreeMap<u64, Digest>,
    /// Bytes of the blocks that are not holes.
    pub read_bytes: u64,
}

/// Hashes `blocks` of the file `path`, without reading its holes. The file that is read has `stamp`, whatever has its name
/// meanwhile; without one, any is read.
///
/// A block that cannot be read, because the file ends before it or its disk is bad, has no digest.
///
/// # Errors
/// `Conflict` if the file has another stamp; those of the host; `Cancelled`.
pub(crate) async fn hash_local_blocks(
    host: &Host,
    (path, stamp): (&str, Option<FileStamp>),
    blocks: &BlockSet,
    ctx: &Context,
) -> Result<BTreeMap<u64, Digest>> {
    let source = Source::File(host, path, stamp);
    let hashing = hash_all(source, blocks, Phase::Verifying, ctx);
    Ok(hashing.await?.digests)
}

/// Hashes `blocks` of the file `path`, whose digests are unknown, as [`hash_local_blocks`].
///
/// # Errors
/// As [`hash_local_blocks`].
pub(crate) async fn hash_unknown_blocks(
    host: &Host,
    (path, stamp): (&str, Option<FileStamp>),
    blocks: &BlockSet,
    ctx: &Context,
) -> Result<HashedBlocks> {
    let source = Source::File(host, path, stamp);
    hash_all(source, blocks, Phase::Hashing, ctx).await
}

/// Hashes `blocks` of the file of `writer`, as [`hash_local_blocks`].
///
/// # Errors
/// As [`hash_local_blocks`].
pub(crate) async fn hash_written_blocks(
    writer: &FileWriter,
    blocks: &BlockSet,
    ctx: &Context,
) -> Result<BTreeMap<u64, Digest>> {
    let hashing = hash_all(Source::Writer(writer), blocks, Phase::Verifying, ctx);
    Ok(hashing.await?.digests)
}

#[derive(Clone, Copy)]
enum Source<'a> {
    File(&'a Host, &'a str, Option<FileStamp>),
    Writer(&'a FileWriter),
}

impl Source<'_> {
    /// Returns the holes of the file; none if they are unknown, or it has another length than `size_bytes`.
    async fn find_holes(self, size_bytes: u64, ctx: &Context) -> Result<BlockSet> {
        let find = async {
            match self {
                Self::File(host, path, stamp) => host.fs().hole_blocks(path, stamp).await,
                Self::Writer(writer) => writer.hole_blocks().await,
            }
        };
        match ctx.until_cancelled(find).await {
            Ok(holes) if holes.size_bytes() == size_bytes => Ok(holes),
            Err(error) if error.kind() == Kind::Cancelled => Err(error),
            // They are read, too.
            result => {
                tracing::debug!("the holes of a file are unknown: {result:?}");
                Ok(BlockSet::none(size_bytes))
            }
        }
    }
}

async fn hash_all(
    source: Source<'_>,
    blocks: &BlockSet,
    phase: Phase,
    ctx: &Context,
) -> Result<HashedBlocks> {
    let size_bytes = blocks.size_bytes();
    let holes = source.find_holes(size_bytes, ctx).await?;
    let data = BlockSet::from_predicate(size_bytes, |block| {
        blocks.contains(block) && !holes.contains(block)
    });
    let in_place = |block| BlockCopy {
        source: block,
        target: block,
        size_bytes: block_bytes(block, size_bytes),
    };
    let in_place: Vec<BlockCopy> = data.iter().map(in_place).collect();
    ctx.progress.enter(phase, data.bytes());
    let (block_tx, mut block_rx) = unbounded_channel();
    let hashing = async move {
        // Moved, so that the channel is closed at the end.
        let block_tx = block_tx;
        let cancel = &ctx.cancel;
        match source {
            Source::File(host, path, stamp) => {
                let fs = host.fs();
                fs.hash_blocks(path, stamp, &in_place, &block_tx, cancel)
                    .await
            }
            Source::Writer(writer) => writer.hash_blocks(&in_place, &block_tx, cancel).await,
        }
    };
    let collecting = async {
        let mut digests = BTreeMap::new();
        while let Some((block, state)) = block_rx.recv().await {
            ctx.progress.add(block.size_bytes);
            if let BlockState::Hashed(digest) = state {
                digests.insert(block.target, digest);
            }
        }
        digests
    };
    let (result, mut digests) = tokio::join!(hashing, collecting);
    result?;
    for block in holes.iter().filter(|block| blocks.contains(*block)) {
        let digest = match block_bytes(block, size_bytes) {
            BLOCK_BYTES => ZERO_BLOCK,
            length => hash_block_data(vec![0; length as usize].into()).await?,
        };
        digests.insert(block, digest);
    }
    Ok(HashedBlocks {
        digests,
        read_bytes: data.bytes(),
    })
}

/// Hashes the data of one block on another thread.
///
/// # Errors
/// `Failed` if the program is exiting.
pub(crate) async fn hash_block_data(data: Bytes) -> Result<Digest> {
    let digest = tokio::task::spawn_blocking(move || hash_block(&data)).await;
    digest.map_err(|error| Error::new(Kind::Failed, "cannot hash a block").with_cause(error))
}

/// Describes blocks that are not what a manifest says.
pub(crate) fn bad_blocks_text(bad: &BlockSet) -> String {
    format!(
        "{} of its {} blocks of 8 MiB do not match its manifest: {bad}",
        bad.len(),
        block_count(bad.size_bytes())
    )
}
