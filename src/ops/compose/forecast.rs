//! What a push would do, without moving anything.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Method, PushPlan, Result, SandboxId};

use super::layers::Layers;
use super::{Break, Way, method, ready};
use crate::make::Wish;
use crate::push::pushable;
use crate::source::Source;

/// Reads the tables of the disk's chain and what the bucket says of the base.
///
/// # Errors
/// As a push fails before it begins to upload; that the object exists is no error.
pub async fn forecast(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    wish: &Wish,
    zstd: bool,
) -> Result<PushPlan> {
    let source = pushable(host, sandbox).await?;
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
        let layers = Layers::open(host, &source).await?;
        let way = ready(host, bucket, &source, &layers, wish.compact, zstd).await?;
        Ok(composed(way, blank.clone()))
    };
    match forecast.await {
        Ok(forecast) => Ok(forecast),
        Err(Break::Refused(why) | Break::Unfit(why)) => {
            let size = measured(host, &source).await?;
            Ok(PushPlan {
                reason: why,
                size_bytes: size,
                upload_bytes: size,
                ..blank
            })
        }
        Err(Break::Failed(error)) => Err(error),
    }
}

/// Bytes a converted disk may take.
async fn measured(host: &Host, source: &Source) -> Result<u64, Error> {
    host.measure(&source.disk, source.state.is_active()).await
}

fn composed(way: Way<'_>, blank: PushPlan) -> PushPlan {
    let estimate = way.composer.estimate();
    let part = snapdeck_bucket::part_size(estimate.file_bytes);
    let kept = way.composer.kept_range();
    let body = (kept.end / part).saturating_sub(kept.start.div_ceil(part)) * part;
    let copy_bytes = if way.base.is_ok() { body } else { 0 };
    PushPlan {
        method: method(way.layout),
        reason: way.reason,
        is_base_in_bucket: way.base.is_ok(),
        base_reason: match way.base {
            Ok(proof) => proof.why.to_owned(),
            Err(why) => why,
        },
        size_bytes: estimate.file_bytes,
        upload_bytes: estimate.file_bytes - copy_bytes,
        copy_bytes,
        dead_bytes: estimate.dead_bytes,
        ..blank
    }
}
