//! Create: a snapshot of a sandbox in any state, running ones included.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Outcome, Phase, Result, SandboxId, SandboxState};

use crate::consistency_mode::ConsistencyMode;
use crate::context::Context;
use crate::create_object::build_object;
use crate::job::SnapshotJob;
use crate::request::SnapshotRequest;
use crate::sandbox_disk::SandboxDisk;
use crate::variables;

/// Creates a snapshot of `sandbox`.
///
/// A running guest is paused for one point in time and always resumed; with `live` it is not paused, and the image may
/// be torn.
///
/// # Errors
/// `Conflict` if the object exists and may not be overwritten; `NotFound` without such a sandbox; `NoSpace` if the disk
/// has to be converted and does not fit.
pub async fn create(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    request: &SnapshotRequest,
    live: bool,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let find = async {
        let source = SandboxDisk::find(host, sandbox).await?;
        request.refuse_existing(bucket).await?;
        variables::refuse_missing(bucket, &source, request).await?;
        source.protect(host).await
    };
    let source = ctx.until_cancelled(Box::pin(find)).await?;
    let mode = match (source.state, live) {
        (SandboxState::Running, false) => ConsistencyMode::PauseGuest,
        (SandboxState::Running, true) => {
            ctx.warn(format!(
                "{sandbox} keeps running: the snapshot may be inconsistent"
            ));
            ConsistencyMode::Live
        }
        _ => ConsistencyMode::AlreadyQuiet,
    };
    source.warn_of_missing_data(ctx);
    source.warn_of_tpm(ctx);
    let job = SnapshotJob {
        host,
        bucket,
        source: &source,
        request,
        ctx,
    };
    let image = build_object(job, mode).await;
    source.release().await;
    let image = image?;
    Ok(Outcome::Created {
        name: request.name.clone(),
        paused_ms: image.paused_ms().unwrap_or_default(),
        snapshot_path: image.object.key,
        size_bytes: image.object.size_bytes,
        live_mode: live,
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
        consistency: image.consistency,
        transfer: image.transfer,
    })
}
