//! Create: a snapshot of a sandbox in any state, running ones included (spec, "Create Snapshot").

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Outcome, Phase, Result, SandboxId, SandboxState};

use super::convert::ConsistencyMode;
use super::create_object::{SnapshotRequest, build_object, milliseconds};
use super::push::warn_of_memory;
use super::sandbox_disk::SandboxDisk;
use super::{Context, refuse_existing};

/// Cuts a snapshot from `sandbox` as `wish` says. A running guest is paused for a moment of its disk and always runs
/// again afterwards; with `live` it is not paused, and the disk may be torn.
///
/// # Errors
/// `Unsupported` where the object exists and is not to be overwritten; `NotFound` without such a sandbox; `NoSpace` where
/// the disk has to be converted and does not fit.
pub async fn create(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    wish: &SnapshotRequest,
    live: bool,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let source = SandboxDisk::find(host, sandbox).await?;
    refuse_existing(bucket, &wish.name, wish.overwrite).await?;
    let stillness = match (source.state, live) {
        (SandboxState::Running, false) => ConsistencyMode::PauseGuest,
        (SandboxState::Running, true) => {
            ctx.warn(format!(
                "{sandbox} keeps running: the snapshot may be inconsistent"
            ));
            ConsistencyMode::Live
        }
        _ => ConsistencyMode::AlreadyQuiet,
    };
    warn_of_memory(&source, ctx);
    let sent = build_object(host, bucket, &source, stillness, wish, ctx).await?;
    Ok(Outcome::Created {
        name: wish.name.clone(),
        snapshot_path: sent.object.key,
        size_bytes: sent.object.size_bytes,
        live_mode: live,
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
        paused_ms: sent.pause_duration.map_or(0, milliseconds),
        consistency: sent.consistency,
        transfer: sent.transfer,
    })
}
