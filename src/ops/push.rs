//! Push: the disk of a stopped or paused sandbox becomes an object.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Outcome, Phase, Result, SandboxId};

use crate::consistency_mode::ConsistencyMode;
use crate::context::Context;
use crate::create_object::build_object;
use crate::job::SnapshotJob;
use crate::request::SnapshotRequest;
use crate::sandbox_disk::SandboxDisk;
use crate::variables;

/// Pushes the disk of `sandbox`.
///
/// # Errors
/// `Conflict` if the sandbox is neither stopped nor paused, or changes meanwhile, or the object exists and may not be
/// overwritten; `NotFound` without such a sandbox; `NoSpace` if the disk has to be converted and does not fit.
pub async fn push(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    request: &SnapshotRequest,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let find = async {
        let source = SandboxDisk::find_pushable(host, sandbox).await?;
        request.refuse_existing(bucket).await?;
        variables::refuse_missing(bucket, &source, request).await?;
        source.protect(host).await
    };
    let source = ctx.until_cancelled(Box::pin(find)).await?;
    source.warn_of_missing_data(ctx);
    source.warn_of_tpm(ctx);
    let job = SnapshotJob {
        host,
        bucket,
        source: &source,
        request,
        ctx,
    };
    let image = build_object(job, ConsistencyMode::AlreadyQuiet).await;
    source.release().await;
    let image = image?;
    Ok(Outcome::Pushed {
        snapshot_name: request.name.clone(),
        snapshot_path: image.object.key,
        size_bytes: image.object.size_bytes,
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
        transfer: image.transfer,
    })
}
