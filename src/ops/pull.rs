//! Pull: an object becomes a snapshot on a host.

use std::sync::Arc;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxState, SnapshotName};

use crate::context::Context;
use crate::dependents::{has_dependent_images, refuse_if_in_use};
use crate::fetch::FetchHandle;
use crate::install::{ExistingCopy, install_snapshot};
use crate::job::PullJob;
use crate::remote_object::RemoteObject;
use crate::repair::repair_in_place;
use crate::standalone_image::refuse_unusable;
use crate::variables::FetchedVariables;

/// The file that has the snapshot's name before the pull.
enum LocalCopy {
    Absent,
    Valid { size_bytes: u64 },
    Damaged { problem: String, size_bytes: u64 },
}

/// Pulls `name` to `host`.
///
/// A valid local copy is kept unless `overwrite` is set. A damaged one is replaced once the new one is verified; if
/// other images are based on it and the object has a manifest, its bad blocks are repaired in place. An interrupted
/// pull of the same object is resumed.
///
/// # Errors
/// `NotFound` if the bucket does not have the object; `Damaged` if the object is not a standalone qcow2 image or does
/// not match its manifest; `Conflict` if the file is in use by sandboxes; `NoSpace` if it does not fit. After an error
/// there is nothing new under the final name. A partial file is kept if the next pull can resume it, or if the host is
/// unreachable.
pub async fn pull(
    host: &Host,
    bucket: &Bucket,
    name: &SnapshotName,
    overwrite: bool,
    fetch_handle: FetchHandle,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let path = host.snapshot_path(name);
    let local = inspect(host, name, overwrite, ctx).await?;
    let mut can_repair_in_place = false;
    match &local {
        LocalCopy::Valid { size_bytes } if !overwrite => {
            ctx.info(format!(
                "a valid copy of {name} is already on host {}",
                host.name()
            ));
            return Ok(Outcome::Pulled {
                snapshot_name: name.clone(),
                snapshot_path: path,
                size_bytes: *size_bytes,
                host: host.name().clone(),
                skipped: true,
                repaired: false,
                fetched_bytes: 0,
                copied_bytes: 0,
                resumed_bytes: 0,
            });
        }
        LocalCopy::Valid { .. } => {
            refuse_if_in_use(
                host,
                &ctx.sharing.scan(host).await?,
                name,
                "replace",
                |_| true,
            )?;
        }
        LocalCopy::Damaged { problem, .. } => {
            ctx.warn(format!(
                "the copy of {name} on host {} is damaged, downloading it again: {problem}",
                host.name()
            ));
            let inventory = ctx.sharing.scan(host).await?;
            // The base of a stopped sandbox can be repaired; a running one has it open.
            refuse_if_in_use(host, &inventory, name, "repair", |state| {
                state != SandboxState::ShutOff
            })?;
            can_repair_in_place = has_dependent_images(&inventory, name);
        }
        LocalCopy::Absent => {}
    }
    let source = Arc::new(RemoteObject::find(bucket, name, ctx).await?);
    let existing = match &local {
        LocalCopy::Absent => ExistingCopy::Absent,
        LocalCopy::Valid { .. } => ExistingCopy::Valid,
        LocalCopy::Damaged { size_bytes, .. } => {
            // Only a file of the full length can be repaired block by block.
            can_repair_in_place &=
                source.manifest.is_some() && *size_bytes == source.object.size_bytes;
            ExistingCopy::Damaged
        }
    };
    let job = PullJob {
        host,
        bucket,
        source: &source,
        ctx,
    };
    let replace = overwrite || existing != ExistingCopy::Absent;
    let variables = FetchedVariables::fetch(bucket, name, ctx).await?;
    match &variables {
        Some(variables) => variables.refuse_existing(host, name, replace).await?,
        None if existing != ExistingCopy::Absent
            && host
                .fs()
                .has_file(&host.snapshot_variables_path(name))
                .await? =>
        {
            ctx.warn(format!(
                "no UEFI variables for {name} in the bucket: keeping those on the host"
            ));
        }
        None => {}
    }
    let progress = if can_repair_in_place {
        let progress = repair_in_place(job, None, fetch_handle).await?;
        if let Some(variables) = &variables {
            variables.publish(host, name, replace).await?;
        }
        progress
    } else {
        let variables = variables.as_ref().map(|variables| (variables, replace));
        install_snapshot(job, existing, variables, fetch_handle).await?
    };
    Ok(Outcome::Pulled {
        snapshot_name: name.clone(),
        snapshot_path: path,
        size_bytes: source.object.size_bytes,
        host: host.name().clone(),
        skipped: false,
        repaired: existing == ExistingCopy::Damaged,
        fetched_bytes: progress.fetched_bytes,
        copied_bytes: progress.copied_bytes,
        resumed_bytes: progress.resumed_bytes,
    })
}

/// Checks the file under the snapshot's name: its header, `qemu-img check`, and damage found by an earlier verify.
async fn inspect(
    host: &Host,
    name: &SnapshotName,
    overwrite: bool,
    ctx: &Context,
) -> Result<LocalCopy> {
    let path = &*host.snapshot_path(name);
    let Some(file) = host.fs().image_file(path).await? else {
        return Ok(LocalCopy::Absent);
    };
    let size_bytes = file.size_bytes;
    let damaged = |problem| LocalCopy::Damaged {
        problem,
        size_bytes,
    };
    match &file.facts {
        Err(problem) => return Ok(damaged(problem.clone())),
        Ok(facts) if facts.is_standalone() && facts.corrupt => {
            return Ok(damaged("it is marked corrupt".to_owned()));
        }
        Ok(_) => {}
    }
    // An image that needs another file is not a damaged snapshot: it is the operator's.
    if let Err(error) = refuse_unusable(&file, path) {
        if overwrite {
            return Ok(LocalCopy::Valid { size_bytes });
        }
        return Err(Error::new(
            Kind::Conflict,
            format!("{path} on host {} is not a snapshot", host.name()),
        )
        .with_cause(error.message())
        .hint("move it elsewhere, or pass --overwrite to replace it"));
    }
    match host.images().check(path, &ctx.cancel).await {
        Ok(warning) => {
            if let Some(warning) = warning {
                ctx.warn(warning);
            }
            let damage = host.snapshots().damage(name).await?;
            Ok(match damage.filter(|damage| damage.file == file.stamp) {
                Some(damage) => damaged(damage.problem),
                None => LocalCopy::Valid { size_bytes },
            })
        }
        Err(error) if error.kind() == Kind::Damaged => Ok(damaged(error.message())),
        Err(error) => Err(error),
    }
}
