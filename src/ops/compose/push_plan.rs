//! Predicts what a push would do, without transferring anything.

use tokio_util::sync::CancellationToken;

use snapdeck_bucket::{Bucket, part_size};
use snapdeck_host::Host;
use snapdeck_model::{Method, PushPlan, Result, SandboxId};

use super::abort::ComposeAbort;
use super::disk_chain::DiskChain;
use super::plan::{ComposePlan, PlanOptions};
use crate::push_cache::PushCache;
use crate::request::SnapshotRequest;
use crate::sandbox_disk::SandboxDisk;

/// Reads the tables of the disk's chain and looks up the base in the bucket.
///
/// # Errors
/// `Cancelled` while it measures the disk; those of a push before it begins to upload; that the object exists is not an error.
pub async fn plan_push(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    request: &SnapshotRequest,
    zstd_enabled: bool,
    push_cache: &PushCache,
    cancel: &CancellationToken,
) -> Result<PushPlan> {
    let source = SandboxDisk::find_pushable(host, sandbox).await?;
    let object_exists = bucket.head(&request.name).await?.is_some();
    let conversion = PushPlan {
        snapshot_name: request.name.clone(),
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
        object_exists,
        method: Method::Convert,
        reason: String::new(),
        base: source.base().cloned(),
        is_base_in_bucket: false,
        base_reason: "the whole disk is converted".to_owned(),
        size_bytes: 0,
        upload_bytes: 0,
        copy_bytes: 0,
        dead_bytes: 0,
    };
    let result = async {
        let chain = DiskChain::open(host, &source).await?;
        let options = PlanOptions {
            compact: request.compact,
            zstd_enabled,
            push_cache: Some(push_cache),
        };
        let plan = ComposePlan::new(host, bucket, &source, &chain, options, None).await?;
        Ok(plan_composed(plan, conversion.clone()))
    };
    match result.await {
        Ok(plan) => Ok(plan),
        Err(
            ComposeAbort::Unsupported(reason)
            | ComposeAbort::MethodUnavailable(reason)
            | ComposeAbort::CopiesUnusable(reason),
        ) => {
            let is_shared = source.state.is_active();
            let size_bytes = host
                .images()
                .measure(&source.images, is_shared, cancel)
                .await?;
            Ok(PushPlan {
                reason,
                size_bytes,
                upload_bytes: size_bytes,
                ..conversion
            })
        }
        Err(ComposeAbort::Failed(error)) => Err(error),
    }
}

fn plan_composed(plan: ComposePlan<'_>, conversion: PushPlan) -> PushPlan {
    let estimate = plan.composer.estimate();
    let part_bytes = part_size(estimate.file_bytes);
    let base_range = plan.composer.kept_range();
    let whole_parts =
        (base_range.end / part_bytes).saturating_sub(base_range.start.div_ceil(part_bytes));
    let copy_bytes = match plan.kept_object {
        Ok(_) => whole_parts * part_bytes,
        Err(_) => 0,
    };
    PushPlan {
        method: plan.method(),
        reason: plan.layout_reason,
        is_base_in_bucket: plan.kept_object.is_ok(),
        base_reason: match plan.kept_object {
            Ok(proof) => proof.reason.to_owned(),
            Err(reason) => reason,
        },
        size_bytes: estimate.file_bytes,
        upload_bytes: estimate.file_bytes - copy_bytes,
        copy_bytes,
        dead_bytes: estimate.dead_data_bytes,
        ..conversion
    }
}
