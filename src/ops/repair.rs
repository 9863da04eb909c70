//! Repairs a damaged snapshot that other images are based on: its bad blocks are overwritten in place, each after it
//! was downloaded and verified. An interrupted repair leaves it less damaged than before.

use std::collections::BTreeMap;

use snapdeck_host::ImageFile;
use snapdeck_model::{
    BlockSet, Damage, Digest, Error, ExpectedVariables, FileStamp, Kind, Phase, Result,
};

use crate::adopt::wait_for_clock;
use crate::fetch::FetchHandle;
use crate::hash_blocks::{bad_blocks_text, hash_local_blocks};
use crate::job::PullJob;
use crate::publish_snapshot::write_local_manifest;
use crate::replace::ExistingCopy;
use crate::transfer::{TransferProgress, run_transfer};
use crate::transfer_plan::TransferPlan;

/// Overwrites the blocks of the snapshot that do not match the manifest of `source`.
///
/// `file` is the one found at the beginning, and `good` are the digests of its blocks, if known. That it has no user but sandboxes
/// that are shut off is checked again once it is locked against QEMU.
///
/// # Errors
/// `Conflict` if a QEMU has the snapshot open, or it is another file now; `Damaged` if the object is; those of host and bucket.
pub(crate) async fn repair_in_place(
    job: PullJob<'_>,
    file: FileStamp,
    good: Option<BTreeMap<u64, Digest>>,
    variables: Option<ExpectedVariables>,
    fetch_handle: FetchHandle,
) -> Result<TransferProgress> {
    let (host, source, ctx) = (job.host, job.source, job.ctx);
    let object = &source.object;
    let path = host.snapshot_path(&object.name);
    let mut good = match good {
        Some(good) => good,
        None => {
            let all = BlockSet::all(object.size_bytes);
            hash_local_blocks(host, (&path, Some(file)), &all, ctx).await?
        }
    };
    good.retain(|block, digest| source.digest(*block) == Some(*digest));
    let bad = BlockSet::from_predicate(object.size_bytes, |block| !good.contains_key(&block));
    ctx.info(format!("repairing bad blocks {bad} of {path}"));
    ctx.check_cancelled()?;
    let mut progress = TransferProgress::empty(object.size_bytes);
    host.images().refuse_if_open(&path, "repair", None).await?;
    // An interrupted repair leaves a file that is still damaged, with another stamp.
    let recorded = host.snapshots().damage(&object.name).await?;
    let recorded = recorded.filter(|damage| damage.is_of(file));
    let damage = Damage {
        file,
        replacement: None,
        is_repairing: true,
        problem: recorded.map_or_else(|| bad_blocks_text(&bad), |damage| damage.problem),
    };
    let record = host.snapshots().record_damage(&object.name, Some(&damage));
    record.await?;
    let writer = host.fs().open_for_repair(&path, file).await?;
    let result = async {
        ExistingCopy::DamagedSameImage(file)
            .check_again(host, &object.name, &ctx.sharing)
            .await?;
        let plan = TransferPlan::new(job, good, false).await;
        Box::pin(run_transfer(
            job,
            fetch_handle,
            &writer,
            plan,
            &mut progress,
        ))
        .await
        .map_err(|failure| failure.error)?;
        ctx.enter_phase(Phase::Verifying)?;
        ctx.until_cancelled(writer.finish()).await
    }
    .await;
    // Its lock keeps out every QEMU, qemu-img check included.
    drop(writer);
    result?;
    if let Some(warning) = host
        .images()
        .check(&path, object.size_bytes, &ctx.cancel)
        .await?
    {
        ctx.warn(warning);
    }
    let image = Box::pin(read_again(job, &path, &progress)).await?;
    write_local_manifest(job, &image, variables, &progress).await;
    Ok(progress)
}

/// Returns the metadata of the repaired file, whose blocks are all read again: who owns it, which may be QEMU's user, could have
/// changed it before it was repaired, and after.
///
/// # Errors
/// `Conflict` if it is not as it was repaired; those of the host; `Cancelled`.
async fn read_again(
    job: PullJob<'_>,
    path: &str,
    progress: &TransferProgress,
) -> Result<ImageFile> {
    let (host, ctx) = (job.host, job.ctx);
    let changed = || {
        Error::new(
            Kind::Conflict,
            format!("cannot repair {path} on host {}", host.name()),
        )
        .with_cause("it was changed meanwhile")
        .hint("check which program writes to it, then repair it again")
    };
    let image = host.fs().image_file(path).await?.ok_or_else(changed)?;
    wait_for_clock(image.stamp, ctx).await?;
    let all = BlockSet::all(job.source.object.size_bytes);
    let blocks = hash_local_blocks(host, (path, Some(image.stamp)), &all, ctx).await?;
    let current = host.fs().image_file(path).await?;
    let is_same = current.is_some_and(|current| current.stamp == image.stamp);
    let expected = progress.digests();
    match is_same && expected.is_none_or(|expected| blocks.into_values().eq(expected)) {
        true => Ok(image),
        false => Err(changed()),
    }
}
