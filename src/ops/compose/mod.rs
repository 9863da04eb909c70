//! Composing: an object is put together from the base's bytes and the overlay's clusters, without a temporary file.
//!
//! ```text
//!  object   ├ head ┼──────────── body ────────────┼──────── tail ────────┤
//!             made   the base's, at their offsets:  the overlay's clusters,
//!             last   copied by the store, or sent   then the tables
//! ```
//!
//! The disk is read at its files' offsets, without QEMU's locks: what keeps a torn image from being published is that
//! the sandbox's state and the stamps of all its files are looked at before and after ([`SandboxDisk::check_unchanged`]). Of a
//! running sandbox the overlay is read as it was at one [moment].

mod base_proof;
mod disk_chain;
mod point_in_time;
mod push_plan;
mod upload;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Method, Phase, Result, TransferStats};
use snapdeck_qcow2::{Composer, Layout, Options};

use super::convert::{MAX_READ_ATTEMPTS, is_host_unreachable};
use super::create_object::{SnapshotRequest, UploadedImage};
use super::sandbox_disk::SandboxDisk;
use super::{Context, variables};

use base_proof::BaseProof;
use disk_chain::DiskChain;
use point_in_time::PointInTime;
use upload::ComposedUpload;

pub use push_plan::plan_push;

/// Past so much of the base that nobody can read any more, it is written anew.
const MAX_DEAD_FRACTION: f64 = 0.25;

/// What came of it.
pub(super) enum ComposeOutcome {
    Uploaded(Box<UploadedImage>),
    /// It cannot be composed, and why. Nothing was left.
    Unsupported(String),
    /// The disk of a running sandbox cannot be had in that way, and why. Nothing was left.
    MethodUnavailable(String),
}

/// Why composing ended.
enum ComposeAbort {
    Unsupported(String),
    MethodUnavailable(String),
    Failed(Error),
}

impl From<Error> for ComposeAbort {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<snapdeck_qcow2::ComposeError> for ComposeAbort {
    fn from(refusal: snapdeck_qcow2::ComposeError) -> Self {
        Self::Unsupported(refusal.to_string())
    }
}

/// How a disk is going to be composed.
struct ComposePlan<'a> {
    chain: &'a DiskChain,
    composer: Composer,
    layout: Layout,
    /// Why this layout.
    reason: String,
    /// The base as an object, where the store can copy it, or why not.
    base: Result<BaseProof, String>,
}

/// Composes the disk of `source`, which stands still, and uploads it.
///
/// # Errors
/// `Unsupported` where the sandbox changed meanwhile or the object exists; `Cancelled`; the host's and the store's. Nothing
/// is left then.
pub(super) async fn compose_and_upload(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<ComposeOutcome> {
    ctx.enter_phase(Phase::Checking)?;
    let composed = async {
        let layers = DiskChain::open(host, source).await?;
        compose(host, bucket, source, &layers, wish, ctx).await
    };
    into_outcome(composed.await)
}

/// Composes the disk of `source`, which runs, as it is at one moment, and uploads it. The guest is paused for that
/// moment by `method`, and runs when this returns.
///
/// # Errors
/// As [`compose_and_upload`]; `Unsupported` where the sandbox is shut down meanwhile; `NoSpace` where there is no room for
/// what the guest writes meanwhile.
pub(super) async fn compose_running(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    method: Method,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<ComposeOutcome> {
    let mut tries = 1;
    loop {
        ctx.enter_phase(Phase::Checking)?;
        let once = async {
            let mut layers = DiskChain::open(host, source).await?;
            layers.attach(Box::pin(PointInTime::capture(host, source, method, ctx)).await?);
            let composed = Box::pin(compose(host, bucket, source, &layers, wish, ctx)).await;
            if let Some(moment) = layers.close() {
                moment.end(ctx).await;
            }
            composed.map(|sent| UploadedImage {
                transfer: TransferStats {
                    method,
                    ..sent.transfer
                },
                ..sent
            })
        };
        match once.await {
            // The line was lost, and with it the moment.
            Err(ComposeAbort::Failed(error))
                if is_host_unreachable(&error)
                    && tries < MAX_READ_ATTEMPTS
                    && !ctx.cancel.is_cancelled() =>
            {
                ctx.warn(format!("{error}; reading the disk again from the start"));
                tries += 1;
            }
            composed => return into_outcome(composed),
        }
    }
}

fn into_outcome(composed: Result<UploadedImage, ComposeAbort>) -> Result<ComposeOutcome> {
    match composed {
        Ok(sent) => Ok(ComposeOutcome::Uploaded(Box::new(sent))),
        Err(ComposeAbort::Unsupported(why)) => Ok(ComposeOutcome::Unsupported(why)),
        Err(ComposeAbort::MethodUnavailable(why)) => Ok(ComposeOutcome::MethodUnavailable(why)),
        Err(ComposeAbort::Failed(error)) => Err(error),
    }
}

async fn compose(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    layers: &DiskChain,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<UploadedImage, ComposeAbort> {
    let way = prepare(host, bucket, source, layers, wish.compact, ctx.zstd_enabled).await?;
    log_plan(&way, ctx);
    Box::pin(upload(host, bucket, source, wish, way, ctx)).await
}

/// Reads the tables and decides.
async fn prepare<'a>(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    layers: &'a DiskChain,
    compact: bool,
    zstd: bool,
) -> Result<ComposePlan<'a>, ComposeAbort> {
    let (base, overlays) = layers.read_tables().await?;
    let plan = |layout| {
        let (base, overlays) = (base.clone(), overlays.clone());
        Composer::new(base, overlays, layout, Options { zstd_enabled: zstd })
    };
    let appended = plan(Layout::Append)?;
    let dead = appended.estimate().dead_fraction();
    let (layout, reason) = match compact {
        true => (Layout::Compact, "requested with --compact".to_owned()),
        false if dead > MAX_DEAD_FRACTION => (
            Layout::Compact,
            format!("{:.0} % of the base is deleted data", dead * 100.0),
        ),
        false => (
            Layout::Append,
            "the base's bytes are kept and changes are appended".to_owned(),
        ),
    };
    let composer = match layout {
        Layout::Append => appended,
        Layout::Compact => plan(Layout::Compact)?,
    };
    let base = match layout {
        Layout::Append => base_proof::prove_base(host, bucket, source, layers).await?,
        Layout::Compact => Err("the whole image is rewritten".to_owned()),
    };
    Ok(ComposePlan {
        chain: layers,
        composer,
        layout,
        reason,
        base,
    })
}

fn log_plan(way: &ComposePlan<'_>, ctx: &Context) {
    let method = method_of_layout(way.layout).as_str();
    ctx.info(format!("composing the image ({method}): {}", way.reason));
    if way.layout == Layout::Append {
        match &way.base {
            Ok(proof) => ctx.info(format!(
                "copying the base from {} in the bucket: {}",
                proof.object.key, proof.reason
            )),
            Err(why) => ctx.info(format!(
                "full upload, the base cannot be copied in the bucket: {why}"
            )),
        }
    }
    let dead = way.composer.estimate().dead_bytes;
    if dead > 0 {
        ctx.info(format!(
            "{dead} bytes of the base are deleted or replaced, and stay readable in the object; --compact leaves them \
             out"
        ));
    }
}

fn method_of_layout(layout: Layout) -> Method {
    match layout {
        Layout::Append => Method::Append,
        Layout::Compact => Method::Compact,
    }
}

async fn upload(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    wish: &SnapshotRequest,
    way: ComposePlan<'_>,
    ctx: &Context,
) -> Result<UploadedImage, ComposeAbort> {
    ctx.check_cancelled()?;
    let ComposePlan {
        chain: layers,
        composer,
        layout,
        base,
        ..
    } = way;
    let estimate = composer.estimate();
    let assembly = bucket
        .begin_multipart(
            &wish.name,
            estimate.file_bytes,
            wish.overwrite,
            &ctx.progress,
            &ctx.cancel,
        )
        .await?;
    let sender = ComposedUpload::new(bucket, &assembly, layers, base.as_ref().ok(), &composer);
    let sent = async {
        let sending = assembly.run_with_progress(sender.send(composer));
        let Some(moment) = layers.point_in_time() else {
            let sent = sending.await?;
            let variables = match &source.variables {
                Some(path) => Some(variables::read_variables(host, path).await?),
                None => None,
            };
            source
                .check_unchanged(host, source.state, layers.stamps())
                .await?;
            return Ok((sent, variables));
        };
        let sent = tokio::select! {
            sent = sending => sent?,
            error = moment.backup_error() => return Err(error.into()),
        };
        source.check_base_unchanged(host, layers.stamps()).await?;
        Ok::<_, ComposeAbort>((sent, moment.variables.clone()))
    };
    let (made, variables) = match sent.await {
        Ok(sent) => sent,
        Err(broken) => {
            assembly.abort().await;
            return Err(match (layers.point_in_time(), broken) {
                (Some(moment), ComposeAbort::Failed(error)) => moment.explain(error).await.into(),
                (_, broken) => broken,
            });
        }
    };
    if let Some(why) = assembly.copy_error()
        && base.is_ok()
    {
        ctx.info(format!("uploaded what the store did not copy: {why}"));
    }
    let object = assembly.complete().await?;
    let (uploaded_bytes, copied_bytes) = (made.uploaded_bytes, made.copied_bytes);
    Ok(UploadedImage {
        transfer: TransferStats {
            method: method_of_layout(layout),
            uploaded_bytes,
            copied_bytes,
            saved_bytes: estimate.file_bytes.saturating_sub(uploaded_bytes),
        },
        digests: made.digests.all(object.size_bytes),
        object,
        variables,
        pause_duration: layers.point_in_time().map(|moment| moment.pause_duration),
        consistency: match layers.point_in_time() {
            Some(moment) => moment.consistency,
            None => source.consistency(),
        },
        virtual_size: Some(layers.virtual_size()),
    })
}

fn broken_plan_error(what: &str) -> Error {
    Error::new(Kind::Failed, format!("cannot compose an image: {what}"))
}
