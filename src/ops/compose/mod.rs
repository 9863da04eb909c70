//! Composes an object from the base's bytes and the overlay's clusters, without a temporary file.
//!
//! ```text
//!  object   ├ head ┼──────────── body ────────────┼──────── tail ────────┤
//!            written  base, at the same offsets:   the overlay's clusters,
//!            last     copied by the store or sent  then the tables
//! ```
//!
//! The sandbox's last push, if the bucket still has it, takes the base's place ([`previous`]): then the tail is only what
//! changed since.
//!
//! The disk is read at its files' offsets, without QEMU's locks. A torn image is never published: the sandbox's state
//! and the stamps of all its files are compared before and after
//! ([`check_unchanged`](crate::sandbox_disk::SandboxDisk::check_unchanged)). The overlay of a running sandbox is read
//! as it was at one [point in time](capture).

mod abort;
mod base_proof;
mod capture;
mod disk_chain;
mod kept_image;
mod layer;
mod overlay_blocks;
mod part_writer;
mod pieces;
mod plan;
mod point_in_time;
mod previous;
mod push_plan;
mod tail_reads;
mod upload;

use std::sync::Arc;

use snapdeck_bucket::PartSources;
use snapdeck_model::{Error, Kind, Method, Phase, Result, SnapshotName, TransferStats};

use crate::block_index::BlockIndex;
use crate::context::Context;
use crate::direct_upload::DirectUpload;
use crate::job::SnapshotJob;
use crate::publish_object::publish_object;
use crate::push_cache::content_digest;
use crate::retry::ReadRetries;
use crate::uploaded_image::{ImageState, UploadedImage};
use crate::variables::{self, snapshot_parts};

use base_proof::{known_base, prove_base};
use capture::capture;
use disk_chain::DiskChain;
use kept_image::KeptImage;
use overlay_blocks::hash_overlay;
use plan::{ComposePlan, PlanOptions};
use upload::ComposedUpload;

pub(crate) use abort::ComposeAbort;
pub(crate) use base_proof::is_trusted;
pub use push_plan::plan_push;

/// Composes the disk of a sandbox that is not running, and uploads it.
///
/// # Errors
/// [`ComposeAbort::Unsupported`] if the disk has to be converted; `Conflict` if the sandbox changes meanwhile or the
/// object exists; `Cancelled`; those of host and store. Nothing is left behind then.
pub(crate) async fn compose_and_upload(
    job: SnapshotJob<'_>,
) -> Result<UploadedImage, ComposeAbort> {
    job.ctx.enter_phase(Phase::Checking)?;
    let chain = DiskChain::open(job.host, job.source).await?;
    compose(job, &chain).await
}

/// Composes the disk of a running sandbox as of one point in time, and uploads it.
///
/// `method` pauses the guest for that point in time; the guest runs when this returns.
///
/// # Errors
/// As [`compose_and_upload`]; [`ComposeAbort::MethodUnavailable`] if the host cannot read the disk by `method`;
/// `Conflict` if the sandbox shuts down meanwhile; `NoSpace` if what the guest writes meanwhile does not fit.
pub(crate) async fn compose_running(
    job: SnapshotJob<'_>,
    method: Method,
) -> Result<UploadedImage, ComposeAbort> {
    let ctx = job.ctx;
    let mut retries = ReadRetries::new();
    loop {
        ctx.enter_phase(Phase::Checking)?;
        let attempt = async {
            let mut chain = DiskChain::open(job.host, job.source).await?;
            // Hashing a base takes long: not while a backup runs, which keeps what the guest overwrites.
            if let Ok(base) = Box::pin(known_base(job.host, job.source, &chain, Some(ctx))).await? {
                // Found again when the image is planned.
                let _ = Box::pin(prove_base(job.host, job.bucket, &base, Some(ctx))).await?;
            }
            chain.point_in_time = Some(Box::pin(capture(job, method)).await?);
            // No external snapshot is possible from here on: libvirt runs the backup job.
            let result = match chain.check_same_overlay(job.host, job.source).await {
                Ok(()) => Box::pin(compose(job, &chain)).await,
                Err(error) => Err(error.into()),
            };
            let point_in_time = chain.point_in_time.take();
            drop(chain);
            if let Some(point_in_time) = point_in_time {
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
            result => return result,
        }
    }
}

async fn compose(job: SnapshotJob<'_>, chain: &DiskChain) -> Result<UploadedImage, ComposeAbort> {
    let (host, bucket, source, ctx) = (job.host, job.bucket, job.source, job.ctx);
    let mut options = PlanOptions {
        compact: job.request.compact,
        zstd_enabled: ctx.zstd_enabled,
        push_cache: Some(&ctx.push_cache),
    };
    loop {
        let plan = ComposePlan::new(host, bucket, source, chain, options, Some(ctx));
        let plan = Box::pin(plan).await?;
        plan.log(ctx);
        let index = match plan.is_on_previous || options.push_cache.is_none() {
            true => BlockIndex::default(),
            false => {
                let names = source.base().into_iter().chain([&job.request.name]);
                let names: Vec<SnapshotName> = names.cloned().collect();
                BlockIndex::read(host, bucket, (&names, None), ctx).await?
            }
        };
        match Box::pin(upload(job, plan, &index)).await {
            Err(ComposeAbort::CopiesUnusable(reason)) if options.push_cache.is_some() => {
                ctx.info(format!(
                    "beginning again without copies of other objects: {reason}"
                ));
                options.push_cache = None;
            }
            result => return result,
        }
    }
}

async fn upload(
    job: SnapshotJob<'_>,
    plan: ComposePlan<'_>,
    index: &BlockIndex,
) -> Result<UploadedImage, ComposeAbort> {
    let (host, bucket, source, ctx) = (job.host, job.bucket, job.source, job.ctx);
    ctx.check_cancelled()?;
    let method = plan.method();
    let ComposePlan {
        chain,
        composer,
        kept_object,
        is_on_previous,
        base_manifest,
        overlay_digests,
        ..
    } = plan;
    let kept = match &kept_object {
        Ok(proof) if is_on_previous => KeptImage::Previous(bucket, proof, &ctx.cancel),
        proof => {
            let blocks = base_manifest.as_ref().map(|manifest| &*manifest.blocks);
            KeptImage::Base(chain, proof.as_ref().ok(), blocks)
        }
    };
    let estimate = composer.estimate();
    let captured = chain.point_in_time.as_ref().map(|point| &point.disk);
    let variables = match (captured, &source.variables) {
        (Some(disk), _) => disk.variables.clone(),
        (None, Some(path)) => Some(variables::read_variables(host, path).await?),
        (None, None) => None,
    };
    let stored_variables = variables.clone();
    let variables = match variables {
        Some(bytes) => Some(variables::decode(bytes, source)?),
        None => None,
    };
    let new_bucket = bucket.with_parts(snapshot_parts(variables.as_ref()));
    let is_direct = !source.state.is_active()
        && chain.can_send(host)
        && !DirectUpload::is_known_to_fail(host, ctx);
    let sources = match is_direct {
        true => PartSources::Host,
        false => PartSources::Copied,
    };
    let multipart = new_bucket
        .begin_multipart(
            &job.request.name,
            estimate.file_bytes,
            (job.request.overwrite, sources),
            &ctx.progress,
            &ctx.cancel,
        )
        .await?;
    let direct = is_direct.then(|| DirectUpload::new(host, &multipart, ctx));
    let uploader = ComposedUpload::new(bucket, &multipart, (chain, direct), kept, index, &composer);
    let result = async {
        let sending = multipart.run_with_progress(uploader.send(composer));
        let Some(point_in_time) = &chain.point_in_time else {
            let hashing = async {
                // Beside the upload, with a progress of its own.
                let ctx = Context {
                    progress: Arc::default(),
                    ..ctx.clone()
                };
                match overlay_digests {
                    None => Ok(hash_overlay(host, source, chain, &ctx).await?),
                    known => Ok(known),
                }
            };
            let (object, overlay) = tokio::try_join!(sending, hashing)?;
            source
                .check_unchanged(host, source.state, &chain.stamps)
                .await?;
            if let Some(path) = &source.variables
                && Some(variables::read_variables(host, path).await?) != stored_variables
            {
                return Err(changed_variables_error(job, path).into());
            }
            return Ok((object, overlay));
        };
        let object = tokio::select! {
            object = sending => object?,
            error = point_in_time.backup_error() => return Err(error.into()),
        };
        source.check_base_unchanged(host, &chain.stamps).await?;
        Ok::<_, ComposeAbort>((object, None))
    };
    let (composed, overlay) = match result.await {
        Ok(composed) => composed,
        Err(abort) => {
            let unusable = match &abort {
                ComposeAbort::Failed(error) => kept.unusable_reason(&multipart, error).await,
                _ => None,
            };
            multipart.abort().await;
            if let Some(reason) = unusable {
                return Err(ComposeAbort::CopiesUnusable(reason));
            }
            return Err(match (&chain.point_in_time, abort) {
                (Some(point_in_time), ComposeAbort::Failed(error)) => {
                    point_in_time.explain(error).await.into()
                }
                (_, abort) => abort,
            });
        }
    };
    if let Some(reason) = multipart.copy_error()
        && (kept.object().is_some() || !index.is_empty())
    {
        ctx.info(format!("uploaded what the store did not copy: {reason}"));
    }
    let object = Box::pin(publish_object(job, multipart, variables.as_ref())).await?;
    let uploaded_bytes = composed.uploaded_bytes;
    Ok(UploadedImage {
        transfer: TransferStats {
            method,
            uploaded_bytes,
            copied_bytes: composed.copied_bytes,
            saved_bytes: estimate.file_bytes.saturating_sub(uploaded_bytes),
        },
        digests: composed.digests.all(object.size_bytes),
        has_claimed_digests: composed.is_claimed,
        object,
        variables,
        pause_duration: captured.map(|disk| disk.pause_duration),
        consistency: captured.map_or_else(|| source.consistency(), |disk| disk.consistency),
        virtual_size: Some(chain.virtual_size),
        state: (base_manifest.as_ref().zip(composed.image)).map(|(base, image)| ImageState {
            base: content_digest(base),
            image,
            overlay,
        }),
    })
}

fn changed_variables_error(job: SnapshotJob<'_>, path: &str) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "sandbox {} on host {} changed while its disk was read",
            job.source.id,
            job.host.name()
        ),
    )
    .with_cause(format!(
        "its UEFI variables in {path} were written; nothing was uploaded"
    ))
    .hint("retry while it is neither started nor resumed")
    .retryable()
}
