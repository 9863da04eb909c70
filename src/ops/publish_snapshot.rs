//! Gives a verified image its name on a host, together with its UEFI variables and its manifest.
//!
//! A new image comes last: files without an image are not a snapshot. While an image is replaced, a record beside it says so
//! of the old and of the new file; if the replacement is interrupted, whichever of them has the name is known to be
//! incomplete.

use snapdeck_host::{FileWriter, ImageFile};
use snapdeck_model::{Damage, Error, ExpectedVariables, FileStamp, Kind, Manifest, Result};

use crate::job::PullJob;
use crate::replace::{ExistingCopy, refuse_other_base};
use crate::transfer::TransferProgress;
use crate::variables_change::VariablesChange;

/// Publishes the image in `writer`, whose metadata is `image`, in place of `existing`.
///
/// # Errors
/// `Conflict` if the file has users now or was changed; those of the host. Unless the error says otherwise, nothing under
/// the final names is changed then.
pub(crate) async fn publish_snapshot(
    job: PullJob<'_>,
    writer: &FileWriter,
    image: &ImageFile,
    existing: ExistingCopy,
    variables: (&VariablesChange, Option<ExpectedVariables>),
    progress: &TransferProgress,
) -> Result<()> {
    let (host, ctx, name) = (job.host, job.ctx, &job.source.object.name);
    let (change, expected) = variables;
    existing.check_again(host, name, &ctx.sharing).await?;
    // Its digests vouch for a file with this stamp only after they were compared once more.
    let mut uncertain = image.clone();
    uncertain.stamp.changed_ns = None;
    let path = host.snapshot_path(name);
    host.images().refuse_if_open(&path, "replace", None).await?;
    let published = match existing.stamp() {
        None => {
            refuse_other_base(host, job.source, job.overwrite, ctx).await?;
            if host.fs().has_file(&path).await? {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("cannot create {path} on host {}", host.name()),
                )
                .with_cause("another program has created it meanwhile")
                .hint("check what wrote it, then pull again"));
            }
            // First the manifest: with it, variables without an image are known to be left by a pull.
            if let Some(manifest) = local_manifest(job, &uncertain, expected, progress) {
                host.snapshots().write_manifest(manifest).await?;
            }
            let is_changed = change.apply(host, name, ctx).await?;
            let result = writer.rename_into_place(&path, None).await;
            // It may have been renamed although its response was lost.
            let is_absent = matches!(host.fs().image_file(&path).await, Ok(None));
            if result.is_err() && is_changed && is_absent {
                // The first error is reported; this one has the same cause.
                let _ = host
                    .fs()
                    .remove_file(&host.snapshot_variables_path(name))
                    .await;
            }
            result?
        }
        Some(old) => replace(job, writer, image.stamp, old, change).await?,
    };
    let mut image = uncertain;
    image.stamp = published.unwrap_or(image.stamp);
    write_local_manifest(job, &image, expected, progress).await;
    Ok(())
}

async fn replace(
    job: PullJob<'_>,
    writer: &FileWriter,
    new: FileStamp,
    old: FileStamp,
    change: &VariablesChange,
) -> Result<Option<FileStamp>> {
    let (host, ctx, name) = (job.host, job.ctx, &job.source.object.name);
    let snapshots = host.snapshots();
    let earlier = snapshots.damage(name).await?;
    let (path, variables_path) = (host.snapshot_path(name), host.snapshot_variables_path(name));
    let stamp_of = async |path: &str| -> Result<Option<FileStamp>> {
        Ok(host.fs().image_file(path).await?.map(|file| file.stamp))
    };
    let old_variables = stamp_of(&variables_path).await?;
    let interrupted = Damage {
        file: old,
        replacement: Some(new),
        is_repairing: false,
        problem: "it is incomplete: the pull that replaces it was interrupted".to_owned(),
    };
    snapshots.record_damage(name, Some(&interrupted)).await?;
    let result = async {
        change.apply(host, name, ctx).await?;
        writer.rename_into_place(&path, Some(old)).await
    }
    .await;
    let error = match result {
        Ok(stamp) => return Ok(stamp),
        Err(error) => error,
    };
    let is_unchanged = matches!(stamp_of(&path).await, Ok(Some(current)) if current == old)
        && matches!(stamp_of(&variables_path).await, Ok(current) if current == old_variables);
    match is_unchanged {
        false => Err(error.hint(format!(
            "{name} may have its old image and its new UEFI variables: pull it again with --overwrite"
        ))),
        true => {
            snapshots.record_damage(name, earlier.as_ref()).await?;
            Err(error)
        }
    }
}

/// Returns the manifest of the image with this metadata; `None` if its digests are unknown.
fn local_manifest(
    job: PullJob<'_>,
    image: &ImageFile,
    variables: Option<ExpectedVariables>,
    progress: &TransferProgress,
) -> Option<Manifest> {
    let (source, object) = (job.source, &job.source.object);
    let blocks = progress.digests()?;
    let new = || Manifest::new(object.name.clone(), object.size_bytes, blocks);
    let mut manifest = source.manifest.clone().unwrap_or_else(new);
    manifest.etag = object.etag.clone();
    manifest.virtual_size = image.facts.as_ref().ok().map(|facts| facts.virtual_size);
    manifest.variables = variables.or(manifest.variables);
    manifest.file = Some(image.stamp);
    // Its blocks were read.
    manifest.proof = None;
    manifest.claimed = None;
    manifest.different_object = None;
    if let Some(annotations) = &source.annotations {
        manifest = manifest.with_existing_annotations(annotations.clone());
    }
    Some(manifest)
}

/// Writes the manifest beside the installed snapshot `image`, which is complete with it.
///
/// A failure is only a warning: without a manifest the snapshot works, but its blocks cannot be copied.
pub(crate) async fn write_local_manifest(
    job: PullJob<'_>,
    image: &ImageFile,
    variables: Option<ExpectedVariables>,
    progress: &TransferProgress,
) {
    let (host, name) = (job.host, &job.source.object.name);
    let write = async {
        if let Some(manifest) = local_manifest(job, image, variables, progress) {
            host.snapshots().write_manifest(manifest).await?;
        }
        host.snapshots().record_damage(name, None).await?;
        Ok::<(), Error>(())
    };
    if let Err(error) = write.await {
        job.ctx.warn(format!("{error}; {name} has no manifest"));
    }
}
