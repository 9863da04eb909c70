//! Pull: an object becomes a snapshot on a host (spec, "Pull Snapshot").

use std::sync::Arc;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxState, SnapshotName};

use crate::context::Context;
use crate::dependents;
use crate::fetch::FetchHandle;
use crate::install::{ExistingCopy, find_object, install_snapshot, refuse_unusable};
use crate::repair::{has_dependent_images, repair_in_place};
use crate::variables::FetchedVariables;

/// What stands under the snapshot's name before the pull.
enum LocalCopy {
    Absent,
    Valid { size_bytes: u64 },
    Broken { problem: String, size_bytes: u64 },
}

/// Pulls `name` to `host`. A valid local copy is left alone unless `overwrite`; a broken one is replaced once the new one
/// is proven, or its bad blocks are, where images stand on it and the object has a manifest. What an earlier pull of the
/// same object left is taken up.
///
/// # Errors
/// `NotFound` where the bucket has no such object; `Damaged` where the object is no sound standalone qcow2
/// image, or not what its manifest says; `Unsupported` where the file is in use by sandboxes; `NoSpace` where it does not
/// fit. No error leaves anything new under the final name. A temporary file stays where the next pull can take it up,
/// and where the host is out of reach.
pub async fn pull(
    host: &Host,
    bucket: &Bucket,
    name: &SnapshotName,
    overwrite: bool,
    share: FetchHandle,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let path = host.snapshot_path(name);
    let local = inspect(host, name, overwrite, ctx).await?;
    let mut mends = false;
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
        LocalCopy::Valid { .. } => dependents::refuse_if_in_use(
            host,
            &host.inventory().scan().await?,
            name,
            "replace",
            |_| true,
        )?,
        LocalCopy::Broken { problem: why, .. } => {
            ctx.warn(format!(
                "the copy of {name} on host {} is damaged, downloading it again: {why}",
                host.name()
            ));
            let survey = host.inventory().scan().await?;
            // Under a stopped sandbox a broken base may be mended; one that runs has it open.
            dependents::refuse_if_in_use(host, &survey, name, "repair", |state| {
                state != SandboxState::ShutOff
            })?;
            mends = has_dependent_images(&survey, name);
        }
        LocalCopy::Absent => {}
    }
    let source = Arc::new(find_object(bucket, name, ctx).await?);
    let (before, repaired) = match &local {
        LocalCopy::Absent => (ExistingCopy::Absent, false),
        LocalCopy::Valid { .. } => (ExistingCopy::Valid, false),
        LocalCopy::Broken { size_bytes, .. } => {
            // Only what has all of its length can be mended block by block.
            mends &= source.manifest.is_some() && *size_bytes == source.object.size_bytes;
            (ExistingCopy::Damaged, true)
        }
    };
    let replace = overwrite || before != ExistingCopy::Absent;
    let variables = FetchedVariables::fetch(bucket, name, ctx).await?;
    match &variables {
        Some(variables) => variables.refuse_existing(host, name, replace).await?,
        None if before != ExistingCopy::Absent
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
    let received = if mends {
        let received = repair_in_place(host, bucket, &source, None, share, ctx)
            .await?
            .0;
        if let Some(variables) = &variables {
            variables.publish(host, name, replace).await?;
        }
        received
    } else {
        let beside = variables.as_ref().map(|variables| (variables, replace));
        install_snapshot(host, bucket, &source, before, beside, share, ctx).await?
    };
    Ok(Outcome::Pulled {
        snapshot_name: name.clone(),
        snapshot_path: path,
        size_bytes: source.object.size_bytes,
        host: host.name().clone(),
        skipped: false,
        repaired,
        fetched_bytes: received.fetched_bytes,
        copied_bytes: received.copied_bytes,
        resumed_bytes: received.resumed_bytes,
    })
}

/// What stands under the name now, proven by its header, `qemu-img check`, and what an earlier check of its blocks found.
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
    let broken = |why| LocalCopy::Broken {
        problem: why,
        size_bytes,
    };
    if let Err(why) = &file.facts {
        return Ok(broken(why.clone()));
    }
    // An image that stands on another file is no broken copy of ours, it is something of the operator's.
    if let Err(error) = refuse_unusable(&file, path) {
        if overwrite {
            return Ok(LocalCopy::Valid { size_bytes });
        }
        return Err(Error::new(
            Kind::Conflict,
            format!("{path} on host {} is not a snapshot", host.name()),
        )
        .with_cause(error.message())
        .hint("move it away, or pass --overwrite to replace it"));
    }
    match host.images().check(path, &ctx.cancel).await {
        Ok(warning) => {
            if let Some(warning) = warning {
                ctx.warn(warning);
            }
            let known = host.snapshots().damage(name).await?;
            Ok(match known.filter(|known| known.file == file.stamp) {
                Some(known) => broken(known.problem),
                None => LocalCopy::Valid { size_bytes },
            })
        }
        Err(error) if error.kind() == Kind::Damaged => Ok(broken(error.message())),
        Err(error) => Err(error),
    }
}
