//! Composes an object from the base's bytes and the overlay's clusters, without a temporary file.
//!
//! ```text
//!  object   ├ head ┼──────────── body ────────────┼──────── tail ────────┤
//!            written  base, at the same offsets:   the overlay's clusters,
//!            last     copied by the store or sent  then the tables
//! ```
//!
//! The disk is read at its files' offsets, without QEMU's locks. A torn image is never published: the sandbox's state
//! and the stamps of all its files are compared before and after ([`SandboxDisk::check_unchanged`]). The overlay of a
//! running sandbox is read as of one [point in time](capture).

mod abort;
mod base_proof;
mod capture;
mod disk_chain;
mod layer;
mod plan;
mod point_in_time;
mod push_plan;
mod upload;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Method, Phase, Result, TransferStats};

use crate::context::Context;
use crate::request::SnapshotRequest;
use crate::retry::ReadRetries;
use crate::sandbox_disk::SandboxDisk;
use crate::uploaded_image::UploadedImage;
use crate::variables;

use abort::ComposeAbort;
use capture::capture;
use disk_chain::DiskChain;
use plan::ComposePlan;
use upload::ComposedUpload;

pub use push_plan::plan_push;

/// Result of composing that did not fail; only `Uploaded` has left anything behind.
pub(crate) enum ComposeOutcome {
    Uploaded(Box<UploadedImage>),
    /// The disk cannot be composed, and why.
    Unsupported(String),
    /// The disk of a running sandbox cannot be read by this method, and why.
    MethodUnavailable(String),
}

/// Composes the disk of `source`, whose guest is not running, and uploads it.
///
/// # Errors
/// `Conflict` if the sandbox changes meanwhile or the object exists; `Cancelled`; those of host and store. Nothing is
/// left behind then.
pub(crate) async fn compose_and_upload(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    request: &SnapshotRequest,
    ctx: &Context,
) -> Result<ComposeOutcome> {
    ctx.enter_phase(Phase::Checking)?;
    let result = async {
        let chain = DiskChain::open(host, source).await?;
        compose(host, bucket, source, &chain, request, ctx).await
    };
    into_outcome(result.await)
}

/// Composes the disk of the running sandbox `source` as of one point in time, and uploads it.
///
/// `method` pauses the guest for that point in time; the guest runs when this returns.
///
/// # Errors
/// As [`compose_and_upload`]; `Conflict` if the sandbox shuts down meanwhile; `NoSpace` if what the guest writes
/// meanwhile does not fit.
pub(crate) async fn compose_running(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    method: Method,
    request: &SnapshotRequest,
    ctx: &Context,
) -> Result<ComposeOutcome> {
    let mut retries = ReadRetries::new();
    loop {
        ctx.enter_phase(Phase::Checking)?;
        let attempt = async {
            let mut chain = DiskChain::open(host, source).await?;
            chain.attach(Box::pin(capture(host, source, method, ctx)).await?);
            let result = Box::pin(compose(host, bucket, source, &chain, request, ctx)).await;
            if let Some(point_in_time) = chain.close() {
                point_in_time.end(ctx).await;
            }
            result.map(|image| UploadedImage {
                transfer: TransferStats {
                    method,
                    ..image.transfer
                },
                ..image
            })
        };
        match attempt.await {
            // The point in time is lost with the connection.
            Err(ComposeAbort::Failed(error)) if retries.should_retry(&error, ctx) => {}
            result => return into_outcome(result),
        }
    }
}

fn into_outcome(result: Result<UploadedImage, ComposeAbort>) -> Result<ComposeOutcome> {
    match result {
        Ok(image) => Ok(ComposeOutcome::Uploaded(Box::new(image))),
        Err(ComposeAbort::Unsupported(reason)) => Ok(ComposeOutcome::Unsupported(reason)),
        Err(ComposeAbort::MethodUnavailable(reason)) => {
            Ok(ComposeOutcome::MethodUnavailable(reason))
        }
        Err(ComposeAbort::Failed(error)) => Err(error),
    }
}

async fn compose(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    chain: &DiskChain,
    request: &SnapshotRequest,
    ctx: &Context,
) -> Result<UploadedImage, ComposeAbort> {
    let (compact, zstd_enabled) = (request.compact, ctx.zstd_enabled);
    let plan = ComposePlan::new(host, bucket, source, chain, compact, zstd_enabled).await?;
    plan.log(ctx);
    Box::pin(upload(host, bucket, source, request, plan, ctx)).await
}

async fn upload(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    request: &SnapshotRequest,
    plan: ComposePlan<'_>,
    ctx: &Context,
) -> Result<UploadedImage, ComposeAbort> {
    ctx.check_cancelled()?;
    let method = plan.method();
    let ComposePlan {
        chain,
        composer,
        base,
        ..
    } = plan;
    let estimate = composer.estimate();
    let multipart = bucket
        .begin_multipart(
            &request.name,
            estimate.file_bytes,
            request.overwrite,
            &ctx.progress,
            &ctx.cancel,
        )
        .await?;
    let uploader = ComposedUpload::new(bucket, &multipart, chain, base.as_ref().ok(), &composer);
    let result = async {
        let sending = multipart.run_with_progress(uploader.send(composer));
        let Some(point_in_time) = chain.point_in_time() else {
            let object = sending.await?;
            let variables = match &source.variables {
                Some(path) => Some(variables::read_variables(host, path).await?),
                None => None,
            };
            source
                .check_unchanged(host, source.state, chain.stamps())
                .await?;
            return Ok((object, variables));
        };
        let object = tokio::select! {
            object = sending => object?,
            error = point_in_time.backup_error() => return Err(error.into()),
        };
        source.check_base_unchanged(host, chain.stamps()).await?;
        Ok::<_, ComposeAbort>((object, point_in_time.variables.clone()))
    };
    let (composed, variables) = match result.await {
        Ok(composed) => composed,
        Err(abort) => {
            multipart.abort().await;
            return Err(match (chain.point_in_time(), abort) {
                (Some(point_in_time), ComposeAbort::Failed(error)) => {
                    point_in_time.explain(error).await.into()
                }
                (_, abort) => abort,
            });
        }
    };
    if let Some(reason) = multipart.copy_error()
        && base.is_ok()
    {
        ctx.info(format!("uploaded what the store did not copy: {reason}"));
    }
    let object = multipart.complete().await?;
    let uploaded_bytes = composed.uploaded_bytes;
    Ok(UploadedImage {
        transfer: TransferStats {
            method,
            uploaded_bytes,
            copied_bytes: composed.copied_bytes,
            saved_bytes: estimate.file_bytes.saturating_sub(uploaded_bytes),
        },
        digests: composed.digests.all(object.size_bytes),
        object,
        variables,
        pause_duration: chain.point_in_time().map(|point| point.pause_duration),
        consistency: match chain.point_in_time() {
            Some(point_in_time) => point_in_time.consistency,
            None => source.consistency(),
        },
        virtual_size: Some(chain.virtual_size()),
    })
}
