//! Installs an object as a snapshot of a host: under a hidden name until it is verified, then under its own.

use std::collections::BTreeMap;

use humansize::{BINARY, format_size};

use snapdeck_host::{Content, FileWriter};
use snapdeck_model::{BlockSet, Digest, Error, Kind, Manifest, Phase, Result};

use crate::fetch::FetchHandle;
use crate::hash_blocks::hash_local_blocks;
use crate::job::PullJob;
use crate::remote_object::is_unchanged;
use crate::replace::ExistingCopy;
use crate::standalone_image::refuse_unusable;
use crate::transfer::{TransferError, TransferProgress, run_transfer};
use crate::transfer_plan::TransferPlan;
use crate::variables::FetchedVariables;

/// Installs `source` on `host`.
///
/// Blocks that an earlier pull of the same object has written are reused, blocks of other snapshots of the host are
/// copied, and the rest is downloaded. `variables` are installed with it; the flag allows replacing existing ones.
///
/// # Errors
/// Those of a pull. The file under the final name is unchanged then, and a partial file that the next pull can resume
/// is kept.
pub(crate) async fn install_snapshot(
    job: PullJob<'_>,
    existing: ExistingCopy,
    variables: Option<(&FetchedVariables, bool)>,
    fetch_handle: FetchHandle,
) -> Result<TransferProgress> {
    let (host, ctx, object) = (job.host, job.ctx, &job.source.object);
    let partial = host.partial_path(&object.name);
    ctx.check_cancelled()?;
    // Fails if another process writes this partial file, which must not be removed then.
    let writer = host
        .fs()
        .open_writer(&partial, &content_id(job))
        .await
        .map_err(|error| match (error.kind(), error.hint_text()) {
            (Kind::Failed, None) => error.hint("check snapshots_dir of the host in the settings"),
            _ => error,
        })?;
    let mut progress = TransferProgress::empty(object.size_bytes);
    let result = async {
        let plan = plan_transfer(job, existing, &writer).await?;
        run_transfer(job, fetch_handle, &writer, plan, &mut progress).await?;
        validate_image(job, &writer, &progress).await?;
        ctx.enter_phase(Phase::Publishing)?;
        existing.check_again(host, &object.name).await?;
        let path = host.snapshot_path(&object.name);
        host.images().refuse_if_open(&path, "replace", None).await?;
        let new_variables = match variables {
            Some((variables, replace)) => variables.publish(host, &object.name, replace).await?,
            None => None,
        };
        let published = writer.rename_into_place(&path, existing.stamp()).await;
        if let (Err(_), Some(new_variables)) = (&published, new_variables) {
            // The first error is reported; this one has the same cause.
            let _ = host.fs().remove_file(&new_variables).await;
        }
        Ok(published?)
    }
    .await;
    if let Err(failure) = result {
        ctx.progress.enter(Phase::CleaningUp, 0);
        keep_or_discard_partial(job, &writer, &progress, &failure).await;
        return Err(failure.error);
    }
    write_local_manifest(job, &progress).await;
    Ok(progress)
}

/// Identifies the object whose blocks a partial file has.
fn content_id(job: PullJob<'_>) -> Content {
    let (bucket, object) = (job.bucket, &job.source.object);
    // Only a strong entity tag says that two parts are of the same object (RFC 9110, section 8.8.1).
    let tag = object.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
    Content {
        version: tag.map(|tag| format!("{}/{} {tag}", bucket.location(), object.key)),
        size_bytes: object.size_bytes,
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
    let needed_bytes = plan.to_fetch.bytes();
    let dir = &host.settings().snapshots_dir;
    let free_bytes = host.fs().free_bytes(dir).await?;
    if needed_bytes > free_bytes {
        let name = &job.source.object.name;
        return Err(Error::new(
            Kind::NoSpace,
            format!("cannot pull {name} to host {}", host.name()),
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
    let partial = host.partial_path(&object.name);
    let mut valid = hash_local_blocks(host, &partial, &blocks, ctx).await?;
    valid.retain(|block, digest| recorded.blocks.get(block) == Some(digest));
    writer.reset_records(&valid).await?;
    Ok(valid)
}

/// Verifies the image under its hidden name.
async fn validate_image(
    job: PullJob<'_>,
    writer: &FileWriter,
    progress: &TransferProgress,
) -> Result<()> {
    let (host, object, ctx) = (job.host, &job.source.object, job.ctx);
    ctx.enter_phase(Phase::Verifying)?;
    writer.finish().await?;
    let partial = host.partial_path(&object.name);
    let file = host.fs().image_file(&partial).await?.ok_or_else(|| {
        Error::new(
            Kind::Failed,
            format!("{partial} disappeared on host {}", host.name()),
        )
    })?;
    // The header first: no program may open an image that names other files (CVE-2024-32498).
    let checked = match refuse_unusable(&file, &object.key) {
        Ok(()) => host.images().check(&partial, &ctx.cancel).await,
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
    Ok(())
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
    let partial = host.partial_path(&object.name);
    // Blocks of an earlier pull count even if this one failed before it reused them.
    let earlier_blocks = writer.resume_state().blocks.keys();
    let earlier_bytes: u64 = earlier_blocks.map(|block| source.block_bytes(*block)).sum();
    let bytes = progress.done_bytes().max(earlier_bytes);
    let is_resumable = bytes > 0
        && content_id(job).version.is_some()
        && match failure.error.kind() {
            Kind::Damaged | Kind::NotFound => false,
            // The object may have been replaced.
            Kind::Failed => is_unchanged(job.bucket, object).await.unwrap_or(true),
            _ => true,
        };
    if !is_resumable && !failure.is_host_unreachable {
        match writer.discard().await {
            Ok(()) => return,
            Err(error) if error.kind() != Kind::Unreachable => {
                return ctx.warn(format!("{error}; remove {partial} by hand"));
            }
            Err(_) => {}
        }
    }
    ctx.warn(format!(
        "keeping {} of {} in {partial} on host {} for the next pull",
        format_size(bytes, BINARY),
        format_size(object.size_bytes, BINARY),
        host.name()
    ));
}

/// Writes the manifest beside the installed snapshot.
///
/// A failure is only a warning: without a manifest the snapshot works, but its blocks cannot be copied.
pub(crate) async fn write_local_manifest(job: PullJob<'_>, progress: &TransferProgress) {
    let (host, source) = (job.host, job.source);
    let object = &source.object;
    let write = async {
        host.snapshots().record_damage(&object.name, None).await?;
        let Some(blocks) = progress.digests() else {
            return Ok(());
        };
        if let Some(file) = host
            .fs()
            .image_file(&host.snapshot_path(&object.name))
            .await?
        {
            let new = || Manifest::new(object.name.clone(), object.size_bytes, blocks);
            let mut manifest = source.manifest.clone().unwrap_or_else(new);
            manifest.etag = object.etag.clone();
            manifest.virtual_size = file.facts.ok().map(|facts| facts.virtual_size);
            manifest.file = Some(file.stamp);
            if let Some(annotations) = &source.annotations {
                manifest = manifest.with_existing_annotations(annotations.clone());
            }
            host.snapshots().write_manifest(manifest).await?;
        }
        Ok::<(), Error>(())
    };
    if let Err(error) = write.await {
        job.ctx
            .warn(format!("{error}; {} has no manifest", object.name));
    }
}
