//! What blocks of a host's file are, hashed on the host.

use std::collections::BTreeMap;

use tokio::sync::mpsc::unbounded_channel;

use snapdeck_host::{BlockCopy, BlockState, Host};
use snapdeck_model::{BlockSet, Digest, Phase, Result, block_bytes};

use crate::context::Context;

/// Hashes `blocks` of the file `path`; one that cannot be read, because the file ends before or its disk is bad, has no
/// digest.
///
/// # Errors
/// The host's; `Cancelled`.
pub(crate) async fn hash_local_blocks(
    host: &Host,
    path: &str,
    blocks: &BlockSet,
    ctx: &Context,
) -> Result<BTreeMap<u64, Digest>> {
    let piece = |block| BlockCopy {
        source: block,
        target: block,
        size_bytes: block_bytes(block, blocks.size_bytes()),
    };
    let pieces: Vec<BlockCopy> = blocks.iter().map(piece).collect();
    ctx.progress.enter(Phase::Verifying, blocks.bytes());
    let (told, mut tellings) = unbounded_channel();
    let hashing = async move {
        // Its end is the end of what is told.
        let told = told;
        host.fs()
            .hash_blocks(path, &pieces, &told, &ctx.cancel)
            .await
    };
    let taking = async {
        let mut digests = BTreeMap::new();
        while let Some((piece, seen)) = tellings.recv().await {
            ctx.progress.add(piece.size_bytes);
            if let BlockState::Hashed(digest) = seen {
                digests.insert(piece.target, digest);
            }
        }
        digests
    };
    let (hashed, digests) = tokio::join!(hashing, taking);
    hashed.map(|()| digests)
}
