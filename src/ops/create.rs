//! Create: a snapshot of a sandbox in any state, running ones included (spec, "Create Snapshot").

use crate::bucket::Bucket;
use crate::host::Host;
use crate::model::{Outcome, Phase, Result, SandboxId, SandboxState, SnapshotName};

use super::flatten::{Source, Stillness, flatten_and_upload};
use super::push::warn_of_memory;
use super::{Context, refuse_existing};

/// Cuts `name` from `sandbox`. A running guest is paused while its disk is read and always runs again
/// afterwards; with `live` it is not paused, and the disk may be torn.
///
/// # Errors
/// `Refused` where the object exists and `overwrite` is not set; `NotFound` without such a sandbox;
/// `NoSpace` where the temporary file does not fit.
pub async fn create(
    host: &Host,
    bucket: &Bucket,
    sandbox: &SandboxId,
    name: &SnapshotName,
    live: bool,
    overwrite: bool,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter(Phase::Checking)?;
    let source = Source::find(host, sandbox).await?;
    refuse_existing(bucket, name, overwrite).await?;
    let stillness = match (source.state, live) {
        (SandboxState::Running, false) => Stillness::Pause,
        (SandboxState::Running, true) => {
            ctx.warn(format!(
                "{sandbox} keeps running: the snapshot may be inconsistent"
            ));
            Stillness::None
        }
        _ => Stillness::Given,
    };
    warn_of_memory(&source, ctx);
    let sent = flatten_and_upload(host, bucket, &source, stillness, name, overwrite, ctx).await?;
    Ok(Outcome::Created {
        name: name.clone(),
        snapshot_path: sent.object.key,
        size_bytes: sent.object.size_bytes,
        live_mode: live,
        sandbox_id: sandbox.clone(),
        host: host.name().clone(),
        paused_ms: u64::try_from(sent.paused.as_millis()).unwrap_or(u64::MAX),
    })
}
