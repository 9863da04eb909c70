//! The operations, one file each, read top to bottom as the story of that operation
//! (spec, "Push Snapshot", "Pull Snapshot", "Create Snapshot", "API Reference").

mod block_digests;
mod bring;
mod compose;
mod create;
mod destroy;
mod fetch;
mod flatten;
mod hashes;
mod leftovers;
mod make;
mod mend;
mod new;
mod plan;
mod pull;
mod push;
mod receive;
mod remove;
mod sandbox;
mod source;
mod users;
mod variables;
mod verify;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::settings::SandboxSettings;
use snapdeck_model::{Error, Kind, Operation, Outcome, Phase, ProgressCell, Result, SnapshotName};

pub use compose::forecast;
pub use create::create;
pub use fetch::Share;
pub use leftovers::clear_leftovers;
pub use make::Wish;
pub use new::new;
pub use pull::pull;
pub use push::push;
pub use remove::remove;
pub use sandbox::sandbox;
pub use verify::{verify_object, verify_snapshot};

/// A line an operation has to say; `true` marks a warning.
pub type Log = dyn Fn(bool, String) + Send + Sync;

/// What an operation is given beside its arguments: where to tell its progress, where to log, and
/// when to stop.
#[derive(Clone)]
pub struct Context {
    /// Progress, sampled by whoever draws.
    pub progress: Arc<ProgressCell>,
    /// Fires when the operator cancels; clean-up still runs to its end.
    pub cancel: CancellationToken,
    /// Fires before `cancel` where the next start goes on with the operation: what it can go on from stays then.
    pub leaving: CancellationToken,
    /// The job's own log.
    pub log: Arc<Log>,
    /// Are clusters that are written anew packed with zstd, where the image can have it?
    pub zstd: bool,
}

impl Context {
    /// Enters a phase without bytes; fails where the operation was cancelled meanwhile.
    fn enter(&self, phase: Phase) -> Result<()> {
        self.progress.enter(phase, 0);
        self.go_on()
    }

    /// Fails where the operation was cancelled.
    fn go_on(&self) -> Result<()> {
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
    share: Share,
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
            let wish = Wish::new(name, *overwrite, *compact);
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
            let wish = Wish::new(name, *overwrite, *compact);
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
            new(on_host()?, id, form, sandboxes, ctx).await
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
