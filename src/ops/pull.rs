//! Pull: an object becomes a snapshot on a host (spec, "Pull Snapshot").

use crate::bucket::Bucket;
use crate::host::{Content, FileWriter, Host, ImageFile};
use crate::model::{
    Digest, Error, Kind, Manifest, Object, Outcome, Phase, Result, SandboxState, SnapshotName,
};

use super::receive::{Break, receive, taken_up};
use super::variables::Fetched;
use super::{Context, Share, users};

/// What stands under the snapshot's name before the pull.
enum Local {
    Absent,
    Valid { size_bytes: u64 },
    Broken(String),
}

/// Pulls `name` to `host`. A valid local copy is left alone unless `overwrite`; a broken one is replaced
/// once the new one is proven. What an earlier pull of the same object left, because it was killed or left
/// or the host went out of reach, is taken up.
///
/// # Errors
/// `NotFound` where the bucket has no such object; `Damaged` where the object is no sound standalone qcow2
/// image; `Refused` where the file is in use by sandboxes; `NoSpace` where it does not fit. No error leaves
/// anything under the final name, nor a temporary file on a host that is still in reach.
pub async fn pull(
    host: &Host,
    bucket: &Bucket,
    name: &SnapshotName,
    overwrite: bool,
    share: Share,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter(Phase::Checking)?;
    let path = host.snapshot_path(name);
    let local = inspect(host, &path, overwrite, ctx).await?;
    let pulled = |size_bytes, skipped, repaired| Outcome::Pulled {
        snapshot_name: name.clone(),
        snapshot_path: path.clone(),
        size_bytes,
        host: host.name().clone(),
        skipped,
        repaired,
    };
    match &local {
        Local::Valid { size_bytes } if !overwrite => {
            ctx.info(format!(
                "a valid copy of {name} is on host {} already",
                host.name()
            ));
            return Ok(pulled(*size_bytes, true, false));
        }
        Local::Valid { .. } => {
            users::refuse(host, &host.survey().await?, name, "replace", |_| true)?
        }
        Local::Broken(why) => {
            ctx.warn(format!(
                "the copy of {name} on host {} is broken and is fetched again: {why}",
                host.name()
            ));
            // Under a stopped sandbox a broken base may be mended; one that runs has it open.
            users::refuse(host, &host.survey().await?, name, "repair", |state| {
                state != SandboxState::ShutOff
            })?;
        }
        Local::Absent => {}
    }
    let object = bucket.head(name).await?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!(
                "snapshot not found in store: {name} is not in {}",
                bucket.location()
            ),
        )
        .hint("`snapdeck objects` lists what is there")
    })?;
    let partial = host.partial_path(name);
    let replace = !matches!(local, Local::Absent);
    let variables = Fetched::of(bucket, name, ctx).await?;
    match &variables {
        Some(variables) => {
            variables
                .refuse_existing(host, name, replace || overwrite)
                .await?
        }
        None if replace && host.has_file(&host.snapshot_variables_path(name)).await? => ctx.warn(
            format!("the bucket has no UEFI variables for {name}: those on the host stay"),
        ),
        None => {}
    }
    ctx.go_on()?;
    // Fails where another process writes this very file, which is then not ours to remove.
    let writer = host
        .open_writer(&partial, &content(bucket, &object))
        .await
        .map_err(|error| match (error.kind(), error.hint_text()) {
            (Kind::Failed, None) => error.hint("see snapshots_dir of the host in the settings"),
            _ => error,
        })?;
    let landed = async {
        let manifest = manifest_of(bucket, &object, ctx).await;
        let known = (&object, manifest.as_ref());
        let blocks = fetch(host, bucket, known, &writer, share, ctx).await?;
        prove(host, &object, &writer, &partial, ctx).await?;
        ctx.enter(Phase::Landing)?;
        let beside = match &variables {
            Some(variables) => variables.land(host, name, replace || overwrite).await?,
            None => None,
        };
        let landed = writer.land(&path, replace).await;
        if let (Err(_), Some(new)) = (&landed, beside) {
            // What failed is told; with the image out of reach, this is too.
            let _ = host.remove_file(&new).await;
        }
        landed?;
        if let Some(blocks) = blocks {
            let blank = || Manifest::new(name.clone(), object.size_bytes, blocks);
            note(host, &object, manifest.unwrap_or_else(blank), ctx).await;
        }
        Ok(())
    }
    .await;
    if let Err(Break { error, host_away }) = landed {
        ctx.progress.enter(Phase::CleaningUp, 0);
        let is_left = error.kind() == Kind::Cancelled && ctx.leaving.is_cancelled();
        let discarded = match host_away || is_left {
            true => Err(None),
            false => writer.discard().await.map_err(Some),
        };
        match discarded {
            Ok(()) => {}
            Err(Some(left)) if left.kind() != Kind::Unreachable => {
                ctx.warn(format!("{left}; remove {partial} by hand"));
            }
            Err(_) => ctx.warn(format!(
                "what was fetched stays in {partial} on host {}, for the next pull",
                host.name()
            )),
        }
        return Err(error);
    }
    Ok(pulled(
        object.size_bytes,
        false,
        matches!(local, Local::Broken(_)),
    ))
}

/// What stands under `path` now, proven by its header and `qemu-img check`.
async fn inspect(host: &Host, path: &str, overwrite: bool, ctx: &Context) -> Result<Local> {
    let Some(file) = host.image_file(path).await? else {
        return Ok(Local::Absent);
    };
    if let Err(why) = &file.facts {
        return Ok(Local::Broken(why.clone()));
    }
    // An image that stands on another file is no broken copy of ours, it is something of the operator's.
    if let Err(error) = refuse_unfit(&file, path) {
        if overwrite {
            return Ok(Local::Valid {
                size_bytes: file.size_bytes,
            });
        }
        return Err(Error::new(
            Kind::Refused,
            format!("{path} on host {} is no snapshot", host.name()),
        )
        .because(error.message())
        .hint("move it away, or pass --overwrite to replace it"));
    }
    match host.check(path, &ctx.cancel).await {
        Ok(warning) => {
            if let Some(warning) = warning {
                ctx.warn(warning);
            }
            Ok(Local::Valid {
                size_bytes: file.size_bytes,
            })
        }
        Err(error) if error.kind() == Kind::Damaged => Ok(Local::Broken(error.message())),
        Err(error) => Err(error),
    }
}

fn content(bucket: &Bucket, object: &Object) -> Content {
    let tag = object.etag.as_deref().unwrap_or_default();
    Content {
        version: format!("{}/{} {tag}", bucket.location(), object.key),
        size_bytes: object.size_bytes,
    }
}

/// The object's manifest, as far as it can be had: a pull works without.
async fn manifest_of(bucket: &Bucket, object: &Object, ctx: &Context) -> Option<Manifest> {
    match bucket.manifest(object).await {
        Ok(manifest) => manifest,
        Err(error) => {
            ctx.info(format!("{error}; it is pulled without its manifest"));
            None
        }
    }
}

/// Puts the manifest beside the snapshot that has just landed. Without one the snapshot is as good, and only what is
/// made from it takes longer.
async fn note(host: &Host, object: &Object, mut manifest: Manifest, ctx: &Context) {
    let path = host.snapshot_path(&object.name);
    let written = async {
        if let Some(file) = host.image_file(&path).await? {
            manifest.etag = object.etag.clone();
            manifest.virtual_size = file.facts.ok().map(|facts| facts.virtual_size);
            manifest.file = Some(file.stamp);
            host.write_manifest(&manifest).await?;
        }
        Ok::<(), Error>(())
    };
    if let Err(error) = written.await {
        ctx.warn(format!(
            "{error}; {} stands without a manifest",
            object.name
        ));
    }
}

/// Fetches what is missing of the object; returns its digests, as far as they are known.
async fn fetch(
    host: &Host,
    bucket: &Bucket,
    (object, manifest): (&Object, Option<&Manifest>),
    writer: &FileWriter,
    share: Share,
    ctx: &Context,
) -> Result<Option<Vec<Digest>>, Break> {
    let done = taken_up(object, writer);
    if done > 0 {
        ctx.info(format!(
            "{done} of {} bytes are on host {} from an earlier pull: only the rest is fetched",
            object.size_bytes,
            host.name()
        ));
    }
    let missing = object.size_bytes - done;
    let dir = &host.settings().snapshots_dir;
    let free = host.free_bytes(dir).await?;
    if missing > free {
        return Err(Error::new(
            Kind::NoSpace,
            format!(
                "{} has {missing} bytes to fetch, and {dir} on host {} has {free} left",
                object.name,
                host.name()
            ),
        )
        .hint("remove snapshots that are no longer needed")
        .into());
    }
    receive(share, bucket, object, manifest, writer, ctx).await
}

/// Proves what was fetched into `partial`.
async fn prove(
    host: &Host,
    object: &Object,
    writer: &FileWriter,
    partial: &str,
    ctx: &Context,
) -> Result<()> {
    ctx.enter(Phase::Verifying)?;
    writer.finish().await?;
    let file = host.image_file(partial).await?.ok_or_else(|| {
        Error::new(
            Kind::Failed,
            format!("{partial} went away on host {}", host.name()),
        )
    })?;
    // The header comes first: nothing may open an image that names other files (CVE-2024-32498).
    let proven = match refuse_unfit(&file, &object.key) {
        Ok(()) => host.check(partial, &ctx.cancel).await,
        Err(error) => Err(error),
    };
    match proven {
        Ok(warning) => {
            if let Some(warning) = warning {
                ctx.warn(warning);
            }
            Ok(())
        }
        Err(error) if error.kind() == Kind::Damaged && taken_up(object, writer) > 0 => Err(error
            .hint("pull it again: what an earlier pull had left is gone now, and all is fetched")),
        Err(error) => Err(error),
    }
}

/// Refuses what may not be a snapshot: no qcow2, or an image that needs another file.
fn refuse_unfit(file: &ImageFile, what: &str) -> Result<()> {
    let unfit = |why: String| {
        Err(
            Error::new(Kind::Damaged, format!("{what} is not fit to be a snapshot"))
                .because(why)
                .hint("only standalone qcow2 images are; look at it with `qemu-img info`"),
        )
    };
    match &file.facts {
        Err(why) => unfit(why.clone()),
        Ok(facts) => match &facts.backing_file {
            Some(backing) => unfit(format!("it has the backing file {backing:?}")),
            None if facts.external_data_file => unfit("it has an external data file".into()),
            None => Ok(()),
        },
    }
}
