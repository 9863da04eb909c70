//! Builds an object from a sandbox's disk, composed if possible, else converted as a whole; and its manifest.

use humansize::{BINARY, format_size};
use jiff::Timestamp;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Manifest, Method, Object, Parent, Result, TransferStats};

use crate::compose::{ComposeAbort, compose_and_upload, compose_running};
use crate::consistency_mode::ConsistencyMode;
use crate::context::Context;
use crate::convert::convert_and_upload;
use crate::job::SnapshotJob;
use crate::push_cache::PushedImage;
use crate::sandbox_disk::SandboxDisk;
use crate::uploaded_image::UploadedImage;
use crate::variables::snapshot_parts;

/// Uploads the object, its UEFI variables and its manifest.
///
/// # Errors
/// Those of composing or converting; the bucket's if the manifest cannot be written: the snapshot is incomplete then.
pub(crate) async fn build_object(
    job: SnapshotJob<'_>,
    mode: ConsistencyMode,
) -> Result<UploadedImage> {
    let ctx = job.ctx;
    // Boxed: the futures are large.
    let composed = match mode {
        ConsistencyMode::PauseGuest => Box::pin(compose_by_first_method(job)).await,
        ConsistencyMode::AlreadyQuiet => Box::pin(compose_and_upload(job)).await,
        ConsistencyMode::Live => Err(ComposeAbort::Unsupported(
            "the sandbox is running and must not be paused (--live)".to_owned(),
        )),
    };
    let mut image = match composed {
        Ok(image) => image,
        Err(ComposeAbort::Failed(error)) => return Err(error),
        Err(
            ComposeAbort::Unsupported(reason)
            | ComposeAbort::MethodUnavailable(reason)
            | ComposeAbort::CopiesUnusable(reason),
        ) => {
            let message = format!("converting the whole disk: {reason}");
            let is_requested = match mode {
                ConsistencyMode::Live => true,
                ConsistencyMode::PauseGuest => is_conversion_first(job.host),
                ConsistencyMode::AlreadyQuiet => false,
            };
            match is_requested {
                true => ctx.info(message),
                false => ctx.warn(message),
            }
            Box::pin(convert_and_upload(job, mode)).await?
        }
    };
    log_transfer(&image.transfer, ctx);
    let manifest = Box::pin(write_manifest(job, &image)).await?;
    record_push(job, manifest, &mut image).await;
    Ok(image)
}

/// Composes the disk of a running sandbox by the first of the host's methods that works.
///
/// # Errors
/// Those of composing; [`ComposeAbort::Failed`] if no method works and the settings do not allow converting.
async fn compose_by_first_method(job: SnapshotJob<'_>) -> Result<UploadedImage, ComposeAbort> {
    let (host, source) = (job.host, job.source);
    let methods = &host.settings().running_methods;
    let mut reason = None;
    for method in methods.iter().copied() {
        if method == Method::Convert {
            break;
        }
        match Box::pin(compose_running(job, method)).await {
            Err(ComposeAbort::MethodUnavailable(cause)) => {
                let (id, name) = (&source.id, method.as_str());
                job.ctx
                    .warn(format!("cannot read the disk of {id} by {name}: {cause}"));
                reason = Some(cause);
            }
            Err(ComposeAbort::Unsupported(cause)) => {
                reason = Some(cause);
                break;
            }
            result => return result,
        }
    }
    if methods.contains(&Method::Convert) {
        let reason = reason.unwrap_or_else(|| {
            "`running` of the host in the settings has only \"convert\"".to_owned()
        });
        return Err(ComposeAbort::Unsupported(reason));
    }
    let error = Error::new(
        Kind::Failed,
        format!(
            "cannot read the disk of sandbox {} on host {}",
            source.id,
            host.name()
        ),
    )
    .hint("stop or pause it first, or check `running` of the host in the settings");
    Err(match reason {
        Some(reason) => error.with_cause(reason).into(),
        None => error.into(),
    })
}

fn log_transfer(transfer: &TransferStats, ctx: &Context) {
    let size = |bytes: u64| format_size(bytes, BINARY);
    let copied = match transfer.copied_bytes {
        0 => "nothing copied in the store".to_owned(),
        bytes => format!("{} copied in the store", size(bytes)),
    };
    ctx.info(format!(
        "{} uploaded, {copied} ({})",
        size(transfer.uploaded_bytes),
        transfer.method.as_str()
    ));
}

/// Records what the next push of the sandbox can be composed on.
async fn record_push(job: SnapshotJob<'_>, manifest: Manifest, image: &mut UploadedImage) {
    let Some(state) = image.state.take() else {
        return;
    };
    let pushed = PushedImage {
        location: job.bucket.location().to_owned(),
        manifest,
        base: state.base,
        image: state.image,
        overlay: state.overlay,
    };
    let uuid = &job.source.facts.uuid;
    if let Err(error) = job
        .ctx
        .push_cache
        .write(job.host.name(), uuid, pushed)
        .await
    {
        job.ctx.info(format!(
            "cannot record the push, the next one sends more: {error}"
        ));
    }
}

async fn write_manifest(job: SnapshotJob<'_>, image: &UploadedImage) -> Result<Manifest> {
    let (host, source) = (job.host, job.source);
    let object = &image.object;
    let Some(digests) = image.digests.clone() else {
        let error = Error::new(
            Kind::Failed,
            format!("cannot hash all blocks of {}", object.key),
        );
        return Err(incomplete_error(error, object, "push"));
    };
    let mut manifest = Manifest::new(object.name.clone(), object.size_bytes, digests);
    manifest.virtual_size = image.virtual_size;
    manifest.created = Some(Timestamp::now());
    manifest.host = Some(host.name().clone());
    manifest.sandbox = Some(source.id.clone());
    manifest.parent = find_parent(host, source).await;
    manifest.consistency = Some(image.consistency);
    manifest.method = Some(image.transfer.method.as_str().to_owned());
    manifest.paused_ms = image.paused_ms();
    manifest.etag = object.etag.clone();
    manifest.claimed = image.has_claimed_digests.then(|| host.claim());
    manifest.variables = Some(snapshot_parts(image.variables.as_ref()).variables);
    write_object_manifest(job.bucket, object, &manifest, "push").await?;
    Ok(manifest)
}

/// Writes the manifest of `object`, which is incomplete without it. `verb` is what uploads the snapshot again.
///
/// # Errors
/// `Conflict` if another client has replaced the object; those of the bucket.
pub(crate) async fn write_object_manifest(
    bucket: &Bucket,
    object: &Object,
    manifest: &Manifest,
    verb: &str,
) -> Result<()> {
    let incomplete = |error| incomplete_error(error, object, verb);
    let Err(error) = bucket.write_manifest(manifest).await else {
        return Ok(());
    };
    if error.kind() == Kind::Conflict {
        let current = bucket.head(&object.name).await.map_err(incomplete)?;
        if current.is_none_or(|current| current.etag != object.etag) {
            return Err(error.hint(format!(
                "another client has replaced or removed it meanwhile; {verb} under another name",
            )));
        }
    }
    Err(incomplete(error))
}

fn incomplete_error(error: Error, object: &Object, verb: &str) -> Error {
    error.hint(format!(
        "{} is incomplete without its manifest: {verb} it again with --overwrite",
        object.key
    ))
}

fn is_conversion_first(host: &Host) -> bool {
    host.settings().running_methods.first() == Some(&Method::Convert)
}

async fn find_parent(host: &Host, source: &SandboxDisk) -> Option<Parent> {
    let name = source.base()?.clone();
    // An unreadable manifest only leaves the entity tag unknown.
    let manifest = host.snapshots().manifest(&name).await.ok().flatten();
    Some(Parent {
        name,
        etag: manifest.and_then(|manifest| manifest.etag),
    })
}
