//! Remove: a snapshot is removed from a host, from the bucket, or from both.

use humansize::{BINARY, format_size};
use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, ImageIdentity, Kind, Object, Outcome, Phase, Result, SnapshotName};

use crate::context::Context;
use crate::dependents::{file_users, refuse_if_in_use};
use crate::pin::{refuse_pinned_object, refuse_pinned_snapshot};

/// Removes `name` from the given locations.
///
/// All checks come before the first removal. A location without the snapshot is a warning as long as another has it.
/// With `expected_identity` only that very image is removed.
///
/// # Errors
/// `Conflict` if a sandbox's chain needs the file, which names the sandboxes, if it is pinned, and if it is another
/// image than expected; `NotFound` if no location has it.
pub async fn remove(
    host: Option<&Host>,
    bucket: Option<&Bucket>,
    name: &SnapshotName,
    expected_identity: Option<&ImageIdentity>,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let mut missing = Vec::new();
    let on_host = match host {
        Some(host) if is_on_host(host, name, ctx).await? => Some(host),
        Some(host) => {
            missing.push(format!("{name} is not on host {}", host.name()));
            None
        }
        None => None,
    };
    let in_bucket = match bucket {
        Some(bucket) if exists_in_bucket(bucket, name).await? => Some(bucket),
        Some(bucket) => {
            missing.push(format!("{name} is not in {}", bucket.location()));
            None
        }
        None => None,
    };
    if on_host.is_none() && in_bucket.is_none() {
        return Err(if missing.is_empty() {
            Error::new(
                Kind::InvalidInput,
                format!("cannot remove {name}: no location is given"),
            )
            .hint("pass --local, --bucket or both")
        } else {
            Error::new(Kind::NotFound, missing.join(", and "))
        });
    }
    missing.into_iter().for_each(|line| ctx.warn(line));
    if let Some(bucket) = in_bucket {
        refuse_pinned_object(bucket, name, "remove").await?;
    }
    if let Some(host) = on_host {
        refuse_pinned_snapshot(host, name, "remove").await?;
    }

    ctx.enter_phase(Phase::Removing)?;
    if let Some(host) = on_host {
        let file = host.fs().image_file(&host.snapshot_path(name)).await?;
        let identity = file.map(|file| ImageIdentity::File(file.stamp));
        refuse_other_image(name, identity, expected_identity)?;
        if let Some(path) = host.snapshots().foreign_manifest(name).await? {
            ctx.warn(format!(
                "keeping {path}, which is not a manifest of snapdeck"
            ));
        }
        host.images()
            .refuse_if_open(&host.snapshot_path(name), "remove", None)
            .await?;
        // Last: the store may have been waited for since, and another program may have based an overlay on it.
        is_on_host(host, name, ctx).await?;
        host.snapshots().remove(name).await?;
        remove_variables(host, name, ctx).await?;
        ctx.info(format!("removed {name} from host {}", host.name()));
    }
    if let Some(bucket) = in_bucket {
        let found = bucket.find(name).await?;
        let has_own_variables = found.as_ref().is_some_and(|found| found.parts.is_some());
        let object = found.map(|found| found.object);
        let identity = object.as_ref().map(Object::identity);
        refuse_other_image(name, identity, expected_identity)?;
        if let Some(key) = bucket.foreign_manifest(name).await? {
            ctx.warn(format!(
                "keeping {key}, which is not a manifest of snapdeck"
            ));
        }
        let is_kept = match &object {
            Some(image) => bucket.delete_object(image).await?,
            // Left by a removal that was interrupted.
            None => {
                bucket.delete_orphaned_manifest(name).await?;
                false
            }
        };
        let variables = bucket.variables();
        if !has_own_variables && let Some(found) = variables.head(name).await? {
            variables.delete_object(&found).await?;
        }
        if is_kept {
            free_versions(bucket, name, ctx).await;
        }
        ctx.info(format!(
            "removed {} from {}",
            bucket.key(name),
            bucket.location()
        ));
    }
    Ok(Outcome::Removed {
        snapshot_name: name.clone(),
        host: on_host.map(|host| host.name().clone()),
        from_bucket: in_bucket.is_some(),
    })
}

/// Deletes the old versions that the bucket keeps of the image of a snapshot that was removed, if the settings say so; a failure is a
/// warning.
async fn free_versions(bucket: &Bucket, name: &SnapshotName, ctx: &Context) {
    let location = bucket.location();
    if !bucket.deletes_versions() {
        ctx.warn(format!(
            "{location} keeps {name} as an old version: no space is freed, unless a lifecycle rule or [bucket] \
             delete_versions does it"
        ));
        return;
    }
    match bucket.delete_versions(name, &ctx.cancel).await {
        Ok(freed) => {
            ctx.info(format!(
                "deleted {} old versions of {name} in {location}, {}",
                freed.count,
                format_size(freed.bytes, BINARY)
            ));
            if let Some(kept) = freed.kept {
                ctx.warn(kept);
            }
        }
        Err(error) => ctx.warn(error.to_string()),
    }
}

/// Returns whether the host has the image, or a manifest or variables that a removal left without it; fails if a chain
/// needs the image.
async fn is_on_host(host: &Host, name: &SnapshotName, ctx: &Context) -> Result<bool> {
    let inventory = ctx.sharing.scan(host).await?;
    let mut snapshots = inventory.snapshots.iter();
    if snapshots.any(|snapshot| snapshot.name == *name) {
        refuse_if_in_use(host, &inventory, name, "remove", |_| true)?;
        return Ok(true);
    }
    if host.snapshots().recorded_manifest(name).await?.is_some() {
        let path = host.snapshot_path(name);
        let users = file_users(host, &path, None, ctx).await?;
        if users.is_empty() {
            return Ok(true);
        }
        // The manifest proves which image the missing one was.
        return Err(Error::new(
            Kind::Conflict,
            format!("cannot remove {name} from host {}", host.name()),
        )
        .with_cause(format!(
            "{path} is missing, and {} is based on it",
            users.join(", ")
        ))
        .hint(format!("run `snapdeck pull {name}` to restore it")));
    }
    let variables = host.snapshot_variables_path(name);
    host.fs().has_file(&variables).await
}

/// Removes the UEFI variables of a snapshot, unless a domain refers to them.
async fn remove_variables(host: &Host, name: &SnapshotName, ctx: &Context) -> Result<()> {
    let path = host.snapshot_variables_path(name);
    if !host.fs().has_file(&path).await? {
        return Ok(());
    }
    let users = file_users(host, &path, None, ctx).await?;
    if !users.is_empty() {
        ctx.warn(format!("keeping {path}, in use by {}", users.join(", ")));
        return Ok(());
    }
    host.images().refuse_if_open(&path, "remove", None).await?;
    host.fs().remove_file(&path).await?;
    Ok(())
}

/// Returns whether the bucket has the image, or variables or a manifest without an image.
async fn exists_in_bucket(bucket: &Bucket, name: &SnapshotName) -> Result<bool> {
    Ok(bucket.head(name).await?.is_some()
        || bucket.variables().head(name).await?.is_some()
        || bucket.has_orphaned_manifest(name).await?)
}

/// Fails if the image is not the one that the operator saw.
fn refuse_other_image(
    name: &SnapshotName,
    identity: Option<ImageIdentity>,
    expected: Option<&ImageIdentity>,
) -> Result<()> {
    match (expected, identity) {
        (Some(expected), Some(identity)) if *expected != identity => {
            Err(Error::new(Kind::Conflict, format!("cannot remove {name}"))
                .with_cause("it is a different image now")
                .hint("list it again before you remove it"))
        }
        _ => Ok(()),
    }
}
