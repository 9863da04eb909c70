//! Remove: a snapshot goes from a host, from the bucket, or both (spec, "API Reference").

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{
    Annotations, Error, ImageIdentity, Kind, Object, Outcome, Phase, Result, SnapshotName,
};

use crate::context::Context;
use crate::dependents;

/// Removes `name` from the places given. Everything is checked before anything goes; a place that does not
/// have it is a warning as long as another has. With `only`, nothing goes but that very image.
///
/// # Errors
/// `Unsupported` where a sandbox's chain needs the file, naming the sandboxes, where it is pinned, and where it is another
/// image than was meant; `NotFound` where no place has it.
pub async fn remove(
    host: Option<&Host>,
    bucket: Option<&Bucket>,
    name: &SnapshotName,
    only: Option<&ImageIdentity>,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let mut missing = Vec::new();
    let on_host = match host {
        Some(host) if refuse_dependents(host, name).await? => Some(host),
        Some(host) => {
            missing.push(format!("{name} is not on host {}", host.name()));
            None
        }
        None => None,
    };
    let in_bucket = match bucket {
        Some(bucket) if object_exists(bucket, name).await? => Some(bucket),
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
    if let Some(host) = on_host {
        refuse_pinned(name, host.snapshots().annotations(name).await?, host.name())?;
    }
    if let Some(bucket) = in_bucket {
        refuse_pinned(name, bucket.annotations(name).await?, &bucket.location())?;
    }

    ctx.enter_phase(Phase::Removing)?;
    if let Some(host) = on_host {
        let file = host.fs().image_file(&host.snapshot_path(name)).await?;
        refuse_other_image(name, file.map(|file| ImageIdentity::File(file.stamp)), only)?;
        host.snapshots().remove(name).await?;
        host.fs()
            .remove_file(&host.snapshot_variables_path(name))
            .await?;
        ctx.info(format!("removed {name} from host {}", host.name()));
    }
    if let Some(bucket) = in_bucket {
        let object = bucket.head(name).await?;
        refuse_other_image(name, object.as_ref().map(Object::identity), only)?;
        for part in [bucket, &bucket.variables()] {
            if part.head(name).await?.is_some() {
                part.delete(name).await?;
            }
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

/// Refuses where what is there is another image than is meant.
fn refuse_other_image(
    name: &SnapshotName,
    there: Option<ImageIdentity>,
    only: Option<&ImageIdentity>,
) -> Result<()> {
    match (only, there) {
        (Some(only), Some(there)) if *only != there => {
            Err(Error::new(Kind::Conflict, format!("cannot remove {name}"))
                .with_cause("it is a different image now")
                .hint("look at it again"))
        }
        _ => Ok(()),
    }
}

/// Refuses where it is pinned at that place.
fn refuse_pinned(
    name: &SnapshotName,
    remarks: Option<Annotations>,
    place: &dyn std::fmt::Display,
) -> Result<()> {
    match remarks {
        Some(remarks) if remarks.pinned => Err(Error::new(
            Kind::Conflict,
            format!("cannot remove {name} from {place}"),
        )
        .with_cause("it is pinned")
        .hint(format!("unpin it first: snapdeck unpin {name}"))),
        _ => Ok(()),
    }
}

/// Has the bucket the image, or what is left of a snapshot without one?
async fn object_exists(bucket: &Bucket, name: &SnapshotName) -> Result<bool> {
    Ok(bucket.head(name).await?.is_some() || bucket.variables().head(name).await?.is_some())
}

/// Is the snapshot there, or what is left of one without an image? Refuses where a chain needs it.
async fn refuse_dependents(host: &Host, name: &SnapshotName) -> Result<bool> {
    let survey = host.inventory().scan().await?;
    let there = survey
        .snapshots
        .iter()
        .any(|snapshot| snapshot.name == *name);
    if there {
        dependents::refuse_if_in_use(host, &survey, name, "remove", |_| true)?;
    }
    Ok(there
        || host
            .fs()
            .has_file(&host.snapshot_variables_path(name))
            .await?)
}
