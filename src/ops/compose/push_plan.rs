//! What a push would do, without moving anything.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Method, PushPlan, Result, SandboxId};

use super::disk_chain::DiskChain;
use super::{ComposeAbort, ComposePlan, method_of_layout, prepare};
use crate::create_object::SnapshotRequest;
use crate::push::find_pushable_disk;
use crate::sandbox_disk::SandboxDisk;

/// Reads the tables of the disk's chain and what the bucket says of the base.
///
/// # Errors
/// As a push fails before it begins to upload; that the object exists is no error.
pub async fn plan_push(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    wish: &SnapshotRequest,
    zstd: bool,
) -> Result<PushPlan> {
    let source = find_pushable_disk(host, sandbox).await?;
    let exists = bucket.head(&wish.name).await?.is_some();
    let blank = PushPlan {
        snapshot_name: wish.name.clone(),
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
        object_exists: exists,
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
    let forecast = async {
        let layers = DiskChain::open(host, &source).await?;
        let way = prepare(host, bucket, &source, &layers, wish.compact, zstd).await?;
        Ok(plan_composed(way, blank.clone()))
    };
    match forecast.await {
        Ok(forecast) => Ok(forecast),
        Err(ComposeAbort::Unsupported(why) | ComposeAbort::MethodUnavailable(why)) => {
            let size = measure_converted(host, &source).await?;
            Ok(PushPlan {
                reason: why,
                size_bytes: size,
                upload_bytes: size,
                ..blank
            })
        }
        Err(ComposeAbort::Failed(error)) => Err(error),
    }
}

/// Bytes a converted disk may take.
async fn measure_converted(host: &Host, source: &SandboxDisk) -> Result<u64, Error> {
    host.images()
        .measure(&source.disk_path, source.state.is_active())
        .await
}

fn plan_composed(way: ComposePlan<'_>, blank: PushPlan) -> PushPlan {
    let estimate = way.composer.estimate();
    let part = snapdeck_bucket::part_size(estimate.file_bytes);
    let kept = way.composer.kept_range();
    let body = (kept.end / part).saturating_sub(kept.start.div_ceil(part)) * part;
    let copy_bytes = if way.base.is_ok() { body } else { 0 };
    PushPlan {
        method: method_of_layout(way.layout),
        reason: way.reason,
        is_base_in_bucket: way.base.is_ok(),
        base_reason: match way.base {
            Ok(proof) => proof.reason.to_owned(),
            Err(why) => why,
        },
        size_bytes: estimate.file_bytes,
        upload_bytes: estimate.file_bytes - copy_bytes,
        copy_bytes,
        dead_bytes: estimate.dead_bytes,
        ..blank
    }
}
