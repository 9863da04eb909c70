//! The operations, one file each, read top to bottom as the story of that operation
//! (spec, "Push Snapshot", "Pull Snapshot", "Create Snapshot", "API Reference").

mod block_digests;
mod block_plan;
mod compose;
mod convert;
mod create;
mod create_object;
mod create_sandbox;
mod dependents;
mod destroy;
mod fetch;
mod hash_blocks;
mod install;
mod leftovers;
mod pull;
mod push;
mod remove;
mod repair;
mod sandbox;
mod sandbox_disk;
mod transfer;
mod variables;
mod verify;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::settings::SandboxSettings;
use snapdeck_model::{Error, Kind, Operation, Outcome, Phase, ProgressCell, Result, SnapshotName};

pub use compose::plan_push;
pub use create::create;
pub use create_object::SnapshotRequest;
pub use create_sandbox::create_sandbox;
pub use fetch::FetchHandle;
pub use leftovers::clear_leftovers;
pub use pull::pull;
pub use push::push;
pub use remove::remove;
pub use sandbox::sandbox;
pub use verify::{verify_object, verify_snapshot};

/// A line an operation has to say; `true` marks a warning.
pub type LogFn = dyn Fn(bool, String) + Send + Sync;

/// What an operation is given beside its arguments: where to tell its progress, where to log, and
/// when to stop.
#[derive(Clone)]
pub struct Context {
    /// Progress, sampled by whoever draws.
    pub progress: Arc<ProgressCell>,
    /// Fires when the operator cancels; clean-up still runs to its end.
    pub cancel: CancellationToken,
    /// Fires before `cancel` where the next start goes on with the operation: what it can go on from stays then.
    pub suspend_token: CancellationToken,
    /// The job's own log.
    pub log: Arc<LogFn>,
    /// Are clusters that are written anew packed with zstd, where the image can have it?
    pub zstd_enabled: bool,
}

impl Context {
    /// Enters a phase without bytes; fails where the operation was cancelled meanwhile.
    fn enter_phase(&self, phase: Phase) -> Result<()> {
        self.progress.enter(phase, 0);
        self.check_cancelled()
    }

    /// Fails where the operation was cancelled.
    fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled("the operation"));
        }
        Ok(())
    }

    fn info(&self, text: impl Into<String>) {
        (self.log)(false, text.into());
    }

    fn warn(&self, text: impl Into<String>) {
        (self.log)(true, text.into());
    }
}

/// Runs `operation`; `host` is the host it names, `share` what a pull fetches by, `sandboxes` how sandboxes are made.
///
/// # Errors
/// What the operation failed with, after everything it made on the way is gone.
pub async fn run(
    operation: &Operation,
    host: Option<&Host>,
    bucket: &Bucket,
    share: FetchHandle,
    sandboxes: &SandboxSettings,
    ctx: &Context,
) -> Result<Outcome> {
    let on_host = || {
        host.ok_or_else(|| {
            Error::new(
                Kind::InvalidInput,
                format!("{} needs a host", operation.verb()),
            )
        })
    };
    if let Some((host, id)) = host.zip(operation.sandbox()) {
        clear_leftovers(host, Some(id), &*ctx.log).await;
    }
    match operation {
        Operation::Create {
            sandbox,
            name,
            live,
            overwrite,
            compact,
            ..
        } => {
            let wish = SnapshotRequest::new(name, *overwrite, *compact);
            // On the heap: its state is large.
            Box::pin(create(on_host()?, bucket, sandbox, &wish, *live, ctx)).await
        }
        Operation::Push {
            sandbox,
            name,
            overwrite,
            compact,
            ..
        } => {
            let wish = SnapshotRequest::new(name, *overwrite, *compact);
            Box::pin(push(on_host()?, bucket, sandbox, &wish, ctx)).await
        }
        Operation::Pull {
            name, overwrite, ..
        } => pull(on_host()?, bucket, name, *overwrite, share, ctx).await,
        Operation::Verify {
            host: Some(_),
            name,
            repair,
        } => verify_snapshot(on_host()?, bucket, name, *repair, ctx).await,
        Operation::Verify { name, .. } => verify_object(bucket, name, ctx).await,
        Operation::Remove {
            name,
            from_bucket,
            expected_identity: only,
            ..
        } => {
            let bucket = from_bucket.then_some(bucket);
            remove(host, bucket, name, only.as_ref(), ctx).await
        }
        Operation::CreateSandbox { id, spec: form, .. } => {
            create_sandbox(on_host()?, id, form, sandboxes, ctx).await
        }
        Operation::Sandbox { id, verb, .. } => {
            sandbox(on_host()?, id, *verb, sandboxes.stop_timeout, ctx).await
        }
    }
}

/// Refuses to go on where the object is there and may not be replaced: better now than after an
/// hour of converting. The bucket checks again when the upload completes.
async fn refuse_existing(bucket: &Bucket, name: &SnapshotName, overwrite: bool) -> Result<()> {
    match bucket.head(name).await? {
        Some(object) if !overwrite => Err(Error::new(
            Kind::Conflict,
            format!("{} already exists in {}", object.key, bucket.location()),
        )
        .hint("choose another name, or pass --overwrite to replace it")),
        _ => variables::refuse_existing(bucket, name, overwrite).await,
    }
}
