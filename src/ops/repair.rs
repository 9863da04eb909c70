//! Mends a damaged snapshot that images stand on: its bad blocks are written over in their places, each once it is
//! fetched and proven. A break leaves it less damaged than it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapdeck_bucket::Bucket;
use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{BlockSet, Digest, Phase, Result, SnapshotName};

use crate::context::Context;
use crate::fetch::{FetchHandle, RemoteObject};
use crate::hash_blocks::hash_local_blocks;
use crate::install::{ExistingCopy, plan_transfer, write_local_manifest};
use crate::transfer::{TransferProgress, run_transfer};

/// Does anything stand on it?
pub(crate) fn has_dependent_images(survey: &HostInventory, name: &SnapshotName) -> bool {
    let mut snapshots = survey.snapshots.iter();
    let ours = snapshots.find(|snapshot| snapshot.name == *name);
    ours.is_some_and(|snapshot| !snapshot.dependents.is_empty())
}

/// Makes the snapshot what the manifest of `source` says; `good` are its good blocks, where that is known. Whoever calls
/// has made sure that all sandboxes on it are stopped; a QEMU that comes meanwhile is kept off. Returns the blocks
/// that were bad, too.
///
/// # Errors
/// `Unsupported` where a QEMU has it open; `Damaged` where the object is; the host's and the bucket's.
pub(crate) async fn repair_in_place(
    host: &Host,
    bucket: &Bucket,
    source: &Arc<RemoteObject>,
    good: Option<BTreeMap<u64, Digest>>,
    share: FetchHandle,
    ctx: &Context,
) -> Result<(TransferProgress, BlockSet)> {
    let object = &source.object;
    let path = host.snapshot_path(&object.name);
    let mut good = match good {
        Some(good) => good,
        None => hash_local_blocks(host, &path, &BlockSet::all(object.size_bytes), ctx).await?,
    };
    good.retain(|block, digest| source.digest(*block) == Some(*digest));
    let bad = BlockSet::from_predicate(object.size_bytes, |block| !good.contains_key(&block));
    ctx.info(format!("repairing bad blocks {bad} of {path}"));
    ctx.check_cancelled()?;
    let mut received = TransferProgress::empty(object.size_bytes);
    let writer = host.fs().open_for_repair(&path).await?;
    let mended = async {
        let work = plan_transfer(host, source, &good, ExistingCopy::Valid, ctx).await;
        run_transfer(share, bucket, source, &writer, work, &mut received, ctx)
            .await
            .map_err(|broke| broke.error)?;
        ctx.enter_phase(Phase::Verifying)?;
        writer.finish().await
    }
    .await;
    // It keeps every QEMU off, the one that checks among them.
    drop(writer);
    mended?;
    if let Some(warning) = host.images().check(&path, &ctx.cancel).await? {
        ctx.warn(warning);
    }
    write_local_manifest(host, source, &received, ctx).await;
    Ok((received, bad))
}
