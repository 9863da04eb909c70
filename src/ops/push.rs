//! Push: the disk of a stopped or paused sandbox becomes an object (spec, "Push Snapshot").

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxId, SandboxState};

use super::convert::ConsistencyMode;
use super::create_object::{SnapshotRequest, build_object};
use super::sandbox_disk::SandboxDisk;
use super::{Context, refuse_existing};

/// Pushes `sandbox` as `wish` says.
///
/// # Errors
/// `Unsupported` where the sandbox is neither stopped nor paused, changes meanwhile, or the object exists and is not to be
/// overwritten; `NotFound` without such a sandbox; `NoSpace` where the disk has to be converted and does not fit.
pub async fn push(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let source = find_pushable_disk(host, sandbox).await?;
    refuse_existing(bucket, &wish.name, wish.overwrite).await?;
    warn_of_memory(&source, ctx);
    let sent = build_object(
        host,
        bucket,
        &source,
        ConsistencyMode::AlreadyQuiet,
        wish,
        ctx,
    )
    .await?;
    Ok(Outcome::Pushed {
        snapshot_name: wish.name.clone(),
        snapshot_path: sent.object.key,
        size_bytes: sent.object.size_bytes,
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
        transfer: sent.transfer,
    })
}

/// The sandbox, where it stands still.
pub(super) async fn find_pushable_disk(host: &Host, sandbox: &SandboxId) -> Result<SandboxDisk> {
    let source = SandboxDisk::find(host, sandbox).await?;
    if source.state.is_quiescent() {
        return Ok(source);
    }
    Err(Error::new(
        Kind::Conflict,
        format!(
            "cannot push {sandbox} on host {}: sandbox must be stopped or paused",
            host.name()
        ),
    )
    .with_cause(format!("it is {}", source.state.label()))
    .hint("stop or pause it first, or use create, which pauses it for you"))
}

/// A saved or paused guest's memory holds what it has not yet written to its disk.
pub(super) fn warn_of_memory(source: &SandboxDisk, ctx: &Context) {
    match source.state {
        SandboxState::Saved => ctx.warn(format!(
            "{} is saved: its memory is not in the snapshot, whose disk is as after a power cut",
            source.id
        )),
        SandboxState::Paused => ctx.info(format!(
            "{} is paused: data that its guest has not written to disk is not in the snapshot",
            source.id
        )),
        SandboxState::Crashed => ctx.warn(format!(
            "{} has crashed: its disk may need a repair",
            source.id
        )),
        _ => {}
    }
}
