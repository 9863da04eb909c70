//! Making an object of a sandbox's disk: composed where it can be, else flattened as a whole; and its manifest.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{
    Consistency, Digest, Error, Kind, Manifest, Method, Object, Parent, Phase, Result,
    SnapshotName, TransferStats,
};

use super::compose::{ComposeOutcome, compose_and_upload, compose_running};
use super::convert::{ConsistencyMode, convert_and_upload};
use super::sandbox_disk::SandboxDisk;
use super::{Context, variables};

/// The object that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Its name.
    pub name: SnapshotName,
    /// An object of that name may be replaced.
    pub overwrite: bool,
    /// Write the image anew, without what was deleted.
    pub compact: bool,
}

impl SnapshotRequest {
    /// An object of that name.
    pub fn new(name: &SnapshotName, overwrite: bool, compact: bool) -> Self {
        Self {
            name: name.clone(),
            overwrite,
            compact,
        }
    }
}

/// What was sent, and how long the guest stood still for it.
pub(super) struct UploadedImage {
    pub object: Object,
    pub transfer: TransferStats,
    /// How long the guest was paused by us, where it was.
    pub pause_duration: Option<Duration>,
    pub consistency: Consistency,
    /// Of the object's blocks.
    pub digests: Option<Vec<Digest>>,
    pub virtual_size: Option<u64>,
    /// Its UEFI variables, of the same moment.
    pub variables: Option<Bytes>,
}

/// Makes the object, and the manifest beside it.
///
/// # Errors
/// Those of composing or flattening. A manifest that cannot be written is a warning: the object is as good.
pub(super) async fn build_object(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    stillness: ConsistencyMode,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<UploadedImage> {
    let sent = match stillness {
        // On the heap, each: their states are large.
        ConsistencyMode::PauseGuest => {
            Box::pin(build_from_running_guest(host, bucket, source, wish, ctx)).await?
        }
        ConsistencyMode::AlreadyQuiet => {
            match Box::pin(compose_and_upload(host, bucket, source, wish, ctx)).await? {
                ComposeOutcome::Uploaded(sent) => *sent,
                ComposeOutcome::Unsupported(why) | ComposeOutcome::MethodUnavailable(why) => {
                    log_conversion(&why, ctx);
                    Box::pin(convert_and_upload(
                        host, bucket, source, stillness, wish, ctx,
                    ))
                    .await?
                }
            }
        }
        ConsistencyMode::Live => {
            log_conversion(
                "the sandbox is running and must not be paused (--live)",
                ctx,
            );
            Box::pin(convert_and_upload(
                host, bucket, source, stillness, wish, ctx,
            ))
            .await?
        }
    };
    upload_variables(bucket, &sent, wish, ctx).await?;
    let TransferStats {
        method,
        uploaded_bytes,
        copied_bytes,
        saved_bytes,
    } = sent.transfer;
    ctx.info(format!(
        "{uploaded_bytes} bytes uploaded, {copied_bytes} copied by the store, {saved_bytes} saved ({})",
        method.as_str()
    ));
    write_manifest(host, bucket, source, &sent, ctx).await;
    Ok(sent)
}

fn log_conversion(why: &str, ctx: &Context) {
    ctx.info(format!("falling back to converting the whole disk: {why}"));
}

/// Makes the object of a running sandbox's disk, in the first of the host's ways that works.
async fn build_from_running_guest(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<UploadedImage> {
    let mut unfit = None;
    for method in host.settings().running_methods.iter().copied() {
        let composed = match method {
            Method::Convert => break,
            _ => Box::pin(compose_running(host, bucket, source, method, wish, ctx)).await?,
        };
        match composed {
            ComposeOutcome::Uploaded(sent) => return Ok(*sent),
            ComposeOutcome::MethodUnavailable(why) => {
                let method = method.as_str();
                ctx.warn(format!(
                    "the disk of {} cannot be read by {method}: {why}",
                    source.id
                ));
                unfit = Some(why);
            }
            ComposeOutcome::Unsupported(why) => {
                unfit = Some(why);
                break;
            }
        }
    }
    if !host.settings().running_methods.contains(&Method::Convert) {
        let what = format!(
            "cannot read the disk of sandbox {} on host {}",
            source.id,
            host.name()
        );
        let error = Error::new(Kind::Failed, what)
            .hint("stop or pause it first, or check `running` of the host in the settings");
        return Err(match unfit {
            Some(why) => error.with_cause(why),
            None => error,
        });
    }
    log_conversion(unfit.as_deref().unwrap_or("the settings say so"), ctx);
    Box::pin(convert_and_upload(
        host,
        bucket,
        source,
        ConsistencyMode::PauseGuest,
        wish,
        ctx,
    ))
    .await
}

/// Uploads the variables that belong to the image. Where they cannot be, the image goes, too, if nobody else's was
/// there: without them it is half a snapshot.
async fn upload_variables(
    bucket: &Bucket,
    sent: &UploadedImage,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<()> {
    let (name, overwrite) = (&wish.name, wish.overwrite);
    let variables = sent.variables.as_ref();
    let Err(error) = variables::upload(bucket, variables, name, overwrite, ctx).await else {
        return Ok(());
    };
    if overwrite {
        return Err(error.hint(format!(
            "{} has the new image but not its UEFI variables: push it again",
            sent.object.key
        )));
    }
    ctx.progress.enter(Phase::CleaningUp, 0);
    if let Err(left) = bucket.delete(name).await {
        ctx.warn(format!("{left}; remove it by hand"));
    }
    Err(error)
}

async fn write_manifest(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    sent: &UploadedImage,
    ctx: &Context,
) {
    let object = &sent.object;
    let Some(digests) = sent.digests.clone() else {
        return;
    };
    let mut manifest = Manifest::new(object.name.clone(), object.size_bytes, digests);
    manifest.virtual_size = sent.virtual_size;
    manifest.created = Some(Timestamp::now());
    manifest.host = Some(host.name().clone());
    manifest.sandbox = Some(source.id.clone());
    manifest.parent = find_parent(host, source).await;
    manifest.consistency = Some(sent.consistency);
    manifest.method = Some(sent.transfer.method.as_str().to_owned());
    manifest.paused_ms = sent.pause_duration.map(milliseconds);
    manifest.etag = object.etag.clone();
    match bucket.write_manifest(&manifest).await {
        Ok(()) => {}
        // Whoever replaced the object has said what it is now.
        Err(error) if error.kind() == Kind::Conflict => ctx.info(error.to_string()),
        Err(error) => ctx.warn(format!("{error}; the object has no manifest")),
    }
}

async fn find_parent(host: &Host, source: &SandboxDisk) -> Option<Parent> {
    let name = source.base()?.clone();
    // Not knowing it is no reason to fail.
    let manifest = host.snapshots().manifest(&name).await.ok().flatten();
    Some(Parent {
        name,
        etag: manifest.and_then(|manifest| manifest.etag),
    })
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
