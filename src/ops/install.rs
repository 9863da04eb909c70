//! Installs an object as a snapshot of a host: in a private directory until it is verified, then under its own name.

use std::collections::BTreeMap;

use humansize::{BINARY, format_size};

use snapdeck_host::{Content, FileWriter, ImageFile};
use snapdeck_model::{BlockSet, Digest, Error, ExpectedVariables, Kind, Phase, Result};

use crate::fetch::FetchHandle;
use crate::hash_blocks::hash_written_blocks;
use crate::job::PullJob;
use crate::publish_snapshot::publish_snapshot;
use crate::replace::ExistingCopy;
use crate::standalone_image::refuse_unusable;
use crate::transfer::{TransferError, TransferProgress, run_transfer};
use crate::transfer_plan::TransferPlan;
use crate::variables_change::VariablesChange;

/// Installs `source` on `host`.
///
/// Blocks that an earlier pull of the same object has written are reused, blocks of other snapshots of the host are
/// copied, and the rest is downloaded. `variables` are what becomes of those on the host, and what the manifest says of
/// them.
///
/// # Errors
/// Those of a pull. The file under the final name is unchanged then, and a partial file that the next pull can resume
/// is kept.
pub(crate) async fn install_snapshot(
    job: PullJob<'_>,
    existing: ExistingCopy,
    variables: (&VariablesChange, Option<ExpectedVariables>),
    fetch_handle: FetchHandle,
) -> Result<TransferProgress> {
    let (host, ctx, object) = (job.host, job.ctx, &job.source.object);
    let dir = host.pull_dir(&object.name);
    ctx.check_cancelled()?;
    host.fs().remove_finished(&dir).await?;
    host.ensure_organization_dir(&object.name).await?;
    // Fails if another process writes this partial file, which must not be removed then.
    let writer = host
        .fs()
        .open_writer(&dir, &content_id(job))
        .await
        .map_err(|error| match (error.kind(), error.hint_text()) {
            (Kind::Failed, None) => error.hint("check snapshots_dir of the host in the settings"),
            _ => error,
        })?;
    let mut progress = TransferProgress::empty(object.size_bytes);
    let result = async {
        let plan = plan_transfer(job, existing, &writer).await?;
        Box::pin(run_transfer(
            job,
            fetch_handle,
            &writer,
            plan,
            &mut progress,
        ))
        .await?;
        let image = validate_image(job, &writer, &progress).await?;
        ctx.enter_phase(Phase::Publishing)?;
        let publishing = publish_snapshot(job, &writer, &image, existing, variables, &progress);
        Box::pin(publishing).await?;
        Ok(())
    }
    .await;
    if let Err(failure) = result {
        ctx.progress.enter(Phase::CleaningUp, 0);
        keep_or_discard_partial(job, &writer, &progress, &failure).await;
        return Err(failure.error);
    }
    Ok(progress)
}

/// Identifies the object whose blocks a partial file has.
fn content_id(job: PullJob<'_>) -> Content {
    Content {
        version: job.from.version(job.source),
        size_bytes: job.source.object.size_bytes,
    }
}

/// Plans the transfer; fails if its result does not fit.
async fn plan_transfer(
    job: PullJob<'_>,
    existing: ExistingCopy,
    writer: &FileWriter,
) -> Result<TransferPlan> {
    let host = job.host;
    let recorded = revalidate_partial(job, writer).await?;
    let reuse_damaged = existing.is_damaged();
    let plan = TransferPlan::new(job, recorded, reuse_damaged).await;
    let needed_bytes = plan.needed_bytes();
    let dir = &host.settings().snapshots_dir;
    let free_bytes = host.fs().free_bytes(dir).await?;
    if needed_bytes > free_bytes {
        let name = &job.source.object.name;
        return Err(Error::new(
            Kind::NoSpace,
            format!("cannot {} {name} to host {}", job.source.verb, host.name()),
        )
        .with_cause(format!(
            "it needs {} more, {dir} has {} free",
            format_size(needed_bytes, BINARY),
            format_size(free_bytes, BINARY)
        ))
        .hint("remove unneeded snapshots"));
    }
    Ok(plan)
}

/// Returns the blocks that an earlier pull has written, hashed again if the host has rebooted since.
async fn revalidate_partial(
    job: PullJob<'_>,
    writer: &FileWriter,
) -> Result<BTreeMap<u64, Digest>> {
    let (host, object, ctx) = (job.host, &job.source.object, job.ctx);
    let recorded = writer.resume_state();
    if recorded.is_same_boot || recorded.blocks.is_empty() {
        return Ok(recorded.blocks.clone());
    }
    ctx.info(format!(
        "host {} rebooted since an earlier pull: checking the partial file",
        host.name()
    ));
    let blocks = BlockSet::from_predicate(object.size_bytes, |block| {
        recorded.blocks.contains_key(&block)
    });
    let mut valid = hash_written_blocks(writer, &blocks, ctx).await?;
    valid.retain(|block, digest| recorded.blocks.get(block) == Some(digest));
    writer.reset_records(&valid).await?;
    Ok(valid)
}

/// Verifies the image in its private directory, and returns its metadata.
async fn validate_image(
    job: PullJob<'_>,
    writer: &FileWriter,
    progress: &TransferProgress,
) -> Result<ImageFile, TransferError> {
    let (host, object, ctx) = (job.host, &job.source.object, job.ctx);
    ctx.enter_phase(Phase::Verifying)?;
    // A host may never answer.
    let synced = ctx.until_cancelled(writer.finish()).await;
    synced.map_err(|error| match error.kind() {
        Kind::Cancelled => error.into(),
        _ => TransferError::unsynced(error),
    })?;
    let file = writer.image_file().await?;
    let Some(dir) = writer.pull_dir() else {
        let path = host.snapshot_path(&object.name);
        return Err(Error::new(Kind::Failed, format!("{path} is not the file of a pull")).into());
    };
    // The header first: no program may open an image that names other files (CVE-2024-32498).
    let checked = match refuse_unusable(&file, &object.key) {
        Ok(()) => {
            host.images()
                .check_pull(dir, file.allocated_bytes, &ctx.cancel)
                .await
        }
        Err(error) => Err(error),
    };
    let warning = checked.map_err(|error| match error.kind() {
        Kind::Damaged if progress.resumed_bytes > 0 => {
            error.hint("pull it again: the partial file is removed, so everything is downloaded")
        }
        _ => error,
    })?;
    if let Some(warning) = warning {
        ctx.warn(warning);
    }
    Ok(file)
}

/// Keeps the partial file if the next pull can resume it, and removes it otherwise.
async fn keep_or_discard_partial(
    job: PullJob<'_>,
    writer: &FileWriter,
    progress: &TransferProgress,
    failure: &TransferError,
) {
    let (host, source, ctx) = (job.host, job.source, job.ctx);
    let object = &source.object;
    let dir = host.pull_dir(&object.name);
    // Blocks of an earlier pull count even if this one failed before it reused them.
    let earlier_blocks = writer.resume_state().blocks.keys();
    let earlier_bytes: u64 = earlier_blocks.map(|block| source.block_bytes(*block)).sum();
    let bytes = progress.done_bytes().max(earlier_bytes);
    // The host may continue by itself, from its first block on.
    let is_left = failure.error.kind() == Kind::Cancelled && (ctx.is_suspended)();
    let is_resumable = (bytes > 0 || is_left)
        && !failure.is_unsynced
        && content_id(job).version.is_some()
        && match failure.error.kind() {
            Kind::Damaged | Kind::NotFound => false,
            // The object may have been replaced.
            Kind::Failed => job.from.is_unchanged(object).await.unwrap_or(true),
            _ => true,
        };
    if !is_resumable && !failure.is_host_unreachable {
        match writer.discard().await {
            Ok(()) => return,
            Err(error) if error.kind() != Kind::Unreachable => {
                return ctx.warn(format!("{error}; remove {dir} by hand"));
            }
            Err(_) => {}
        }
    }
    ctx.warn(format!(
        "keeping {} of {} in {dir} on host {} for the next {}",
        format_size(bytes, BINARY),
        format_size(object.size_bytes, BINARY),
        host.name(),
        source.verb
    ));
}
