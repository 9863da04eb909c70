//! Push: the disk of a stopped or paused sandbox becomes an object (spec, "Push Snapshot").

use crate::bucket::Bucket;
use crate::host::Host;
use crate::model::{Error, Kind, Outcome, Phase, Result, SandboxId, SandboxState, SnapshotName};

use super::flatten::{Source, Stillness, flatten_and_upload};
use super::{Context, refuse_existing};

/// Pushes `sandbox` as `name`.
///
/// # Errors
/// `Refused` where the sandbox is neither stopped nor paused, changes meanwhile, or the object exists and
/// `overwrite` is not set; `NotFound` without such a sandbox; `NoSpace` where the temporary file does not fit.
pub async fn push(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    name: &SnapshotName,
    overwrite: bool,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter(Phase::Checking)?;
    let source = Source::find(host, sandbox).await?;
    if !source.state.is_still() {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "cannot push {sandbox} on host {}: sandbox must be stopped or paused",
                host.name()
            ),
        )
        .because(format!("it is {}", source.state.as_str()))
        .hint("stop or pause it first, or use create, which pauses it for you"));
    }
    refuse_existing(bucket, name, overwrite).await?;
    warn_of_memory(&source, ctx);
    let sent = flatten_and_upload(
        host,
        bucket,
        &source,
        Stillness::Given,
        name,
        overwrite,
        ctx,
    )
    .await?;
    Ok(Outcome::Pushed {
        snapshot_name: name.clone(),
        snapshot_path: sent.object.key,
        size_bytes: sent.object.size_bytes,
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
    })
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
