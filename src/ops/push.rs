//! Push: the disk of a stopped or paused sandbox becomes an object (spec, "Push Snapshot").

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxId, SandboxState};

use super::flatten::Stillness;
use super::make::{Wish, make_object};
use super::source::Source;
use super::{Context, refuse_existing};

/// Pushes `sandbox` as `wish` says.
///
/// # Errors
/// `Refused` where the sandbox is neither stopped nor paused, changes meanwhile, or the object exists and is not to be
/// overwritten; `NotFound` without such a sandbox; `NoSpace` where the disk has to be converted and does not fit.
pub async fn push(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    wish: &Wish,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter(Phase::Checking)?;
    let source = pushable(host, sandbox).await?;
    refuse_existing(bucket, &wish.name, wish.overwrite).await?;
    warn_of_memory(&source, ctx);
    let sent = make_object(host, bucket, &source, Stillness::Given, wish, ctx).await?;
    Ok(Outcome::Pushed {
        snapshot_name: wish.name.clone(),
        snapshot_path: sent.object.key,
        size_bytes: sent.object.size_bytes,
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
        transfer: sent.moved,
    })
}

/// The sandbox, where it stands still.
pub(super) async fn pushable(host: &Host, sandbox: &SandboxId) -> Result<Source> {
    let source = Source::find(host, sandbox).await?;
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
    .with_cause(format!("it is {}", source.state.as_str()))
    .hint("stop or pause it first, or use create, which pauses it for you"))
}

/// A saved or paused guest's memory holds what it has not yet written to its disk.
pub(super) fn warn_of_memory(source: &Source, ctx: &Context) {
    match source.state {
        SandboxState::Saved => ctx.warn(format!(
            "{} is saved to disk: its memory is not in the snapshot, so the snapshot's disk looks like after a power cut",
            source.id
        )),
        SandboxState::Paused => ctx.info(format!(
            "{} is paused: what its guest has not yet written to disk is not in the snapshot",
            source.id
        )),
        SandboxState::Crashed => ctx.warn(format!("{} has crashed: its disk may need a repair", source.id)),
        _ => {}
    }
}
