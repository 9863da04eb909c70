//! The operations, one file each, whose steps are in order from top to bottom.

mod adopt;
mod adopt_object;
mod block_digests;
mod block_index;
mod clone_sandbox;
mod compose;
mod configure;
mod consistency_mode;
mod context;
mod convert;
mod copy_snapshot;
mod create;
mod create_object;
mod create_sandbox;
mod dependents;
mod destroy;
mod direct_download;
mod direct_upload;
mod existing_sandbox;
mod fetch;
mod hash_blocks;
mod host_memory;
mod image_chain;
mod image_source;
mod install;
mod job;
mod lag_tracker;
mod leftovers;
mod local_snapshot;
mod new_id;
mod new_sandbox;
mod object_proof;
mod origin;
mod pin;
mod publish_object;
mod publish_snapshot;
mod pull;
mod push;
mod push_cache;
mod relayed_hosts;
mod remote_object;
mod remove;
mod rename_sandbox;
mod repair;
mod replace;
mod request;
mod retry;
mod sandbox;
mod sandbox_disk;
mod send_parts;
mod sharing;
mod standalone_image;
mod transfer;
mod transfer_plan;
mod upload_snapshot;
mod uploaded_image;
mod variables;
mod variables_change;
mod verify;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::settings::SandboxSettings;
use snapdeck_model::{Error, Kind, Operation, Outcome, Result};

pub use adopt::adopt_snapshot;
pub use adopt_object::adopt_object;
pub use compose::plan_push;
pub use context::{Context, LogFn};
pub use create::create;
pub use create_sandbox::create_sandbox;
pub use fetch::FetchHandle;
pub use leftovers::clear_leftovers;
pub use pull::pull;
pub use push::push;
pub use push_cache::{PushCache, content_digest};
pub use relayed_hosts::RelayedHosts;
pub use remove::remove;
pub use request::SnapshotRequest;
pub use sandbox::sandbox;
pub use sharing::{SharedDirectory, SharingHosts};
pub use upload_snapshot::upload_snapshot;
pub use verify::{verify_object, verify_snapshot};

/// Runs `operation` on the host it names; a copy reads from the host `source`.
///
/// A pull downloads by `fetch_handle`; `sandboxes` are the defaults of new sandboxes.
///
/// # Errors
/// That of the operation, after the temporary files of it are removed.
pub async fn run(
    operation: &Operation,
    host: Option<&Host>,
    source: Option<&Host>,
    bucket: &Bucket,
    fetch_handle: FetchHandle,
    sandboxes: &SandboxSettings,
    ctx: &Context,
) -> Result<Outcome> {
    let needs_host = || {
        Error::new(
            Kind::InvalidInput,
            format!("{} needs a host", operation.verb()),
        )
    };
    let on_host = || host.ok_or_else(needs_host);
    for id in operation.sandbox().into_iter().chain(operation.new_id()) {
        if let Some(host) = host {
            clear_leftovers(host, Some(id), &*ctx.log).await;
        }
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
            let request = SnapshotRequest::new(name, *overwrite, *compact);
            // Boxed: the future is large.
            Box::pin(create(on_host()?, bucket, sandbox, &request, *live, ctx)).await
        }
        Operation::Push {
            sandbox,
            name,
            overwrite,
            compact,
            ..
        } => {
            let request = SnapshotRequest::new(name, *overwrite, *compact);
            Box::pin(push(on_host()?, bucket, sandbox, &request, ctx)).await
        }
        Operation::Pull {
            name, overwrite, ..
        } => pull(on_host()?, bucket, name, *overwrite, fetch_handle, ctx).await,
        Operation::Copy {
            name, overwrite, ..
        } => {
            let (host, source) = (on_host()?, source.ok_or_else(needs_host)?);
            let copy =
                copy_snapshot::copy_snapshot(source, host, name, *overwrite, fetch_handle, ctx);
            Box::pin(copy).await
        }
        Operation::Upload {
            name, overwrite, ..
        } => {
            let upload = upload_snapshot(on_host()?, bucket, name, *overwrite, ctx);
            Box::pin(upload).await
        }
        Operation::Verify {
            host: Some(_),
            name,
            repair,
        } => verify_snapshot(on_host()?, bucket, name, *repair, ctx).await,
        Operation::Verify { name, .. } => verify_object(bucket, name, ctx).await,
        Operation::Adopt {
            host: Some(_),
            name,
        } => Box::pin(adopt_snapshot(on_host()?, name, ctx)).await,
        Operation::Adopt { host: None, name } => Box::pin(adopt_object(bucket, name, ctx)).await,
        Operation::Remove {
            name,
            from_bucket,
            expected_identity,
            ..
        } => {
            let bucket = from_bucket.then_some(bucket);
            remove(host, bucket, name, expected_identity.as_ref(), ctx).await
        }
        Operation::CreateSandbox { id, spec, .. } => {
            create_sandbox(on_host()?, id, spec, sandboxes, ctx).await
        }
        Operation::CloneSandbox {
            id, new_id, start, ..
        } => {
            let clone = clone_sandbox::clone_sandbox(on_host()?, id, new_id, *start, ctx);
            Box::pin(clone).await
        }
        Operation::RenameSandbox { id, new_id, .. } => {
            Box::pin(rename_sandbox::rename_sandbox(on_host()?, id, new_id, ctx)).await
        }
        Operation::Sandbox { id, verb, .. } => {
            sandbox(on_host()?, id, *verb, sandboxes.stop_timeout, ctx).await
        }
    }
}
