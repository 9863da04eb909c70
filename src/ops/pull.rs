//! Pull: an object becomes a snapshot on a host.

use std::sync::Arc;

use snapdeck_bucket::Bucket;
use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{Error, FileStamp, Kind, Outcome, Phase, Result, SnapshotName};

use crate::context::Context;
use crate::dependents::has_dependent_images;
use crate::fetch::FetchHandle;
use crate::install::install_snapshot;
use crate::job::PullJob;
use crate::origin::Origin;
use crate::pin::refuse_pinned_snapshot;
use crate::remote_object::RemoteObject;
use crate::repair::repair_in_place;
use crate::replace::{
    ExistingCopy, compare_image, different_image_error, is_same_image, refuse_other_base,
};
use crate::standalone_image::refuse_unusable;
use crate::variables::find_local_problem;
use crate::variables_change::VariablesChange;

/// The file that has the snapshot's name before the pull.
enum LocalCopy {
    Absent,
    Valid(FileStamp),
    Damaged { problem: String, file: FileStamp },
}

/// The result for a snapshot that a host was to receive.
pub(crate) struct Received {
    /// Length of the image in bytes.
    pub size_bytes: u64,
    /// Whether the host has a valid copy, which was kept.
    pub is_skipped: bool,
    /// Whether that is known to be another image.
    pub differs: bool,
    /// Whether a damaged copy was replaced.
    pub is_repaired: bool,
    pub fetched_bytes: u64,
    pub copied_bytes: u64,
    pub resumed_bytes: u64,
}

/// Pulls `name` to `host`.
///
/// A valid local copy is kept unless `overwrite` is set, and compared with the object by what is known of both. A
/// damaged one is replaced once the new one is verified, unless it was, or may have been, another image; if other
/// images are based on it, its bad blocks are repaired in place with those of the very image that it was. An
/// interrupted pull of the same object is resumed.
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
    let origin = Origin::Bucket(bucket);
    let received = receive_snapshot(host, origin, name, overwrite, fetch_handle, ctx).await?;
    Ok(Outcome::Pulled {
        snapshot_name: name.clone(),
        snapshot_path: host.snapshot_path(name),
        size_bytes: received.size_bytes,
        host: host.name().clone(),
        skipped: received.is_skipped,
        differs: received.differs,
        repaired: received.is_repaired,
        fetched_bytes: received.fetched_bytes,
        copied_bytes: received.copied_bytes,
        resumed_bytes: received.resumed_bytes,
    })
}

/// Installs the snapshot `name` of `origin` on `host`.
///
/// # Errors
/// As [`pull`].
pub(crate) async fn receive_snapshot(
    host: &Host,
    origin: Origin<'_>,
    name: &SnapshotName,
    overwrite: bool,
    fetch_handle: FetchHandle,
    ctx: &Context,
) -> Result<Received> {
    ctx.enter_phase(Phase::Checking)?;
    for dir in [host.pull_dir(name), host.variables_pull_dir(name)] {
        host.fs().remove_finished(&dir).await?;
    }
    let local = inspect(host, name, overwrite, ctx).await?;
    if let LocalCopy::Valid(stamp) = &local
        && !overwrite
    {
        ctx.info(format!(
            "a valid copy of {name} is already on host {}",
            host.name()
        ));
        let differs = differs_from_source(host, origin, name, *stamp, ctx).await?;
        return Ok(Received {
            size_bytes: stamp.size_bytes,
            is_skipped: true,
            differs,
            is_repaired: false,
            fetched_bytes: 0,
            copied_bytes: 0,
            resumed_bytes: 0,
        });
    }
    let inventory = match &local {
        LocalCopy::Absent => ctx.until_cancelled(host.inventory().scan()).await?,
        LocalCopy::Valid(_) | LocalCopy::Damaged { .. } => {
            ctx.until_cancelled(ctx.sharing.scan(host)).await?
        }
    };
    match &local {
        LocalCopy::Absent => {}
        LocalCopy::Valid(stamp) => {
            ExistingCopy::Valid(*stamp).refuse_if_in_use(host, &inventory, name)?;
        }
        LocalCopy::Damaged { problem, file } => {
            ctx.warn(format!(
                "the copy of {name} on host {} is damaged, {} it again: {problem}",
                host.name(),
                origin.gerund()
            ));
            ExistingCopy::DamagedSameImage(*file).refuse_if_in_use(host, &inventory, name)?;
        }
    }
    host.snapshots().refuse_foreign_manifest(name).await?;
    let mut found = Box::pin(origin.find(name, ctx)).await?;
    found.image.refuse_incomplete()?;
    let recorded = host.snapshots().recorded_manifest(name).await?;
    found.image = Arc::new(Arc::unwrap_or_clone(found.image).with_digests_of(recorded.as_ref()));
    let source = found.image.clone();
    let existing = match local {
        LocalCopy::Absent => {
            refuse_other_base(host, &source, overwrite, ctx).await?;
            ExistingCopy::Absent
        }
        LocalCopy::Valid(stamp) => ExistingCopy::Valid(stamp),
        LocalCopy::Damaged { file, .. } => {
            decide_repair(host, &inventory, &source, file, overwrite).await?
        }
    };
    existing.refuse_if_pinned(host, name).await?;
    // Only a file of the full length can be repaired block by block.
    let repairable = match existing {
        ExistingCopy::DamagedSameImage(file) => Some(file).filter(|file| {
            source.manifest.is_some()
                && file.size_bytes == source.object.size_bytes
                && has_dependent_images(&inventory, name)
        }),
        _ => None,
    };
    let job = PullJob {
        host,
        from: &found.source,
        source: &source,
        overwrite,
        ctx,
    };
    let variables = origin.variables(&found, ctx).await?;
    let expected = variables.expected();
    let change =
        VariablesChange::decide(host, &source, variables, existing, overwrite, ctx).await?;
    let progress = if let Some(file) = repairable {
        let progress = repair_in_place(job, file, None, expected, fetch_handle).await?;
        change.apply(host, name, ctx).await?;
        progress
    } else {
        install_snapshot(job, existing, (&change, expected), fetch_handle).await?
    };
    Ok(Received {
        size_bytes: source.object.size_bytes,
        is_skipped: false,
        differs: false,
        is_repaired: existing.is_damaged(),
        fetched_bytes: progress.fetched_bytes,
        copied_bytes: progress.copied_bytes,
        resumed_bytes: progress.resumed_bytes,
    })
}

/// Returns whether the valid copy with `stamp` is known to be another image than that of `origin`, and warns then.
///
/// No block is read: lengths and recorded digests are compared. The copy is valid without the other, so a bucket that
/// does not answer is no error.
///
/// # Errors
/// `Cancelled`; those of the host.
async fn differs_from_source(
    host: &Host,
    origin: Origin<'_>,
    name: &SnapshotName,
    stamp: FileStamp,
    ctx: &Context,
) -> Result<bool> {
    let source = match origin.look_up(name, ctx).await {
        Ok(source) => source,
        Err(error) if error.kind() == Kind::Cancelled => return Err(error),
        Err(error) => {
            ctx.info(format!("the copy is not compared: {error}"));
            return Ok(false);
        }
    };
    let manifest = host.snapshots().stored_manifest(name).await?;
    let manifest = manifest.filter(|stored| stored.is_verified);
    let manifest = manifest.map(|stored| stored.manifest);
    let source = source.with_digests_of(manifest.as_ref());
    let (key, object_bytes) = (&source.object.key, source.object.size_bytes);
    let reason = match (&manifest, &source.manifest) {
        // Exact lengths, since a few bytes may make the difference.
        _ if stamp.size_bytes != object_bytes => format!(
            "it has {} bytes, the object has {object_bytes}",
            stamp.size_bytes
        ),
        (Some(local), _) if is_same_image(local, &source) => return Ok(false),
        (Some(_), Some(_)) => "their manifests differ".to_owned(),
        (None, _) | (_, None) => {
            ctx.info(format!(
                "nothing proves that {name} on host {} is {key}: `snapdeck verify {name}` reads it",
                host.name()
            ));
            return Ok(false);
        }
    };
    ctx.warn(format!(
        "{name} on host {} is kept, but is another image than {key}: {reason}; pass --overwrite to replace it",
        host.name()
    ));
    Ok(true)
}

/// Decides whether a damaged file may be replaced by `source`: under other images, and unasked, only by the very image
/// that it was.
///
/// # Errors
/// `Conflict`, which names the users.
async fn decide_repair(
    host: &Host,
    inventory: &HostInventory,
    source: &RemoteObject,
    file: FileStamp,
    overwrite: bool,
) -> Result<ExistingCopy> {
    let (name, key) = (&source.object.name, &source.object.key);
    let has_users = has_dependent_images(inventory, name);
    let local = host.snapshots().recorded_manifest(name).await?;
    if local.is_none() {
        // The better reason.
        refuse_pinned_snapshot(host, name, "overwrite").await?;
    }
    let reason = match local.and_then(|local| compare_image(&local, source)) {
        Some(true) => return Ok(ExistingCopy::DamagedSameImage(file)),
        Some(false) if overwrite && !has_users => return Ok(ExistingCopy::Damaged(file)),
        None if overwrite && !has_users => return Ok(ExistingCopy::Damaged(file)),
        Some(false) => format!("{key} is a different image now"),
        None => format!("nothing proves that {key} is the same image"),
    };
    let existing = ExistingCopy::Damaged(file);
    // Names the users.
    let in_use = existing.refuse_if_in_use(host, inventory, name).err();
    let (reason, hint) = match in_use {
        Some(in_use) => (
            format!("{reason}; {}", in_use.message()),
            "restore the file from a backup, or destroy what is based on it first",
        ),
        None => (reason, "pass --overwrite to replace the file"),
    };
    Err(different_image_error(host, source, &reason).hint(hint))
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
    let stamp = file.stamp;
    let damaged = |problem| LocalCopy::Damaged {
        problem,
        file: stamp,
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
            return Ok(LocalCopy::Valid(stamp));
        }
        return Err(Error::new(
            Kind::Conflict,
            format!("{path} on host {} is not a snapshot", host.name()),
        )
        .with_cause(error.message())
        .hint("move it elsewhere, or pass --overwrite to replace it"));
    }
    match host
        .images()
        .check(path, file.allocated_bytes, &ctx.cancel)
        .await
    {
        Ok(warning) => {
            if let Some(warning) = warning {
                ctx.warn(warning);
            }
            let damage = host.snapshots().damage(name).await?;
            if let Some(damage) = damage.filter(|damage| damage.is_of(stamp)) {
                return Ok(damaged(damage.problem));
            }
            let expected = host.snapshots().expected_variables(name, stamp).await?;
            Ok(match find_local_problem(host, name, expected).await? {
                Some(problem) => damaged(problem),
                None => LocalCopy::Valid(stamp),
            })
        }
        Err(error) if error.kind() == Kind::Damaged => Ok(damaged(error.message())),
        Err(error) => Err(error),
    }
}
