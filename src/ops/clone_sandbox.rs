//! Clones a sandbox that is shut off: a sandbox with the same settings, a copy of its overlay on the same base, and a copy
//! of its UEFI variables. The overlay is copied under a hidden name; the domain is defined last.

use bytes::Bytes;

use snapdeck_host::{DomainCopy, Host};
use snapdeck_model::{
    Error, Kind, Outcome, Phase, Result, Sandbox, SandboxId, SandboxState, VerbKind,
};

use crate::context::Context;
use crate::host_memory::check_memory;
use crate::new_id::refuse_used_id;
use crate::new_sandbox::NewSandbox;
use crate::sandbox::refuse_if_impossible;
use crate::sandbox_disk::SandboxDisk;
use crate::variables::read_variables;

/// Creates the sandbox `id` as a clone of `source_id`.
///
/// # Errors
/// `Conflict` unless the source is shut off and has one disk, or if the id is taken; `NotFound`; `NoSpace`; `Failed` with
/// libvirt's message. Everything that was created is removed then.
pub(crate) async fn clone_sandbox(
    host: &Host,
    source_id: &SandboxId,
    id: &SandboxId,
    start: bool,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let find = async {
        let state = host.sandboxes().owned_state(source_id).await?;
        refuse_if_impossible(host, source_id, VerbKind::Clone, state)?;
        let refused = |kind| clone_error(host, source_id, kind);
        refuse_used_id(host, id, &[], refused, ctx).await?;
        SandboxDisk::find(host, source_id)
            .await?
            .protect(host)
            .await
    };
    let source = ctx.until_cancelled(Box::pin(find)).await?;
    let result = clone_protected(host, &source, id, start, ctx).await;
    source.release().await;
    result
}

fn clone_error(host: &Host, source_id: &SandboxId, kind: Kind) -> Error {
    let summary = format!("cannot clone {source_id} on host {}", host.name());
    Error::new(kind, summary)
}

/// Clones a sandbox that cannot be started meanwhile.
async fn clone_protected(
    host: &Host,
    source: &SandboxDisk,
    id: &SandboxId,
    start: bool,
    ctx: &Context,
) -> Result<Outcome> {
    refuse_if_impossible(host, &source.id, VerbKind::Clone, source.state)?;
    let refused = |kind| clone_error(host, &source.id, kind);
    let (disk, variables) = (host.disk_path(id), host.variables_path(id));
    let copy = DomainCopy {
        source: &source.id,
        source_disk: &source.disk_path,
        id,
        disk: &disk,
        variables: source.firmware.is_uefi.then_some(&*variables),
    };
    let domain = host.sandboxes().with_uuid(&source.facts.uuid);
    let xml = copy
        .definition(&domain.definition(&source.id).await?)
        .map_err(|cause| {
            refused(Kind::Conflict)
                .with_cause(cause)
                .hint("create a snapshot of it, and a sandbox from that")
        })?;
    let memory_bytes = domain.get(&source.id).await?.memory_bytes;
    check_memory(host, id, memory_bytes, refused, ctx).await?;
    let variables_bytes = match &source.variables {
        Some(path) => Some(read_variables(host, path).await?),
        // libvirt creates them at the first start.
        None => None,
    };
    if source.firmware.has_tpm {
        ctx.warn(format!(
            "the TPM state of {} is not copied, {id} begins with an empty one: secrets that are sealed to it (BitLocker) are lost without it",
            source.id
        ));
    }
    ctx.check_cancelled()?;

    ctx.enter_phase(Phase::Creating)?;
    let mut new_sandbox = NewSandbox::new(host, id, &disk, &variables);
    let work = create(&mut new_sandbox, source, variables_bytes, xml, start, ctx);
    let result = Box::pin(work).await;
    new_sandbox.finish(result, ctx).await
}

async fn create(
    new_sandbox: &mut NewSandbox<'_>,
    source: &SandboxDisk,
    variables: Option<Bytes>,
    xml: String,
    start: bool,
    ctx: &Context,
) -> Result<Sandbox> {
    let (host, id) = (new_sandbox.host, new_sandbox.id);
    let stamps = source.stamps(host).await?;
    let dirs = host.scratch_dirs();
    let dir = dirs
        .copy_overlay(id, &source.disk_path, &ctx.cancel)
        .await?;
    let published = async {
        source
            .check_unchanged(host, SandboxState::ShutOff, &stamps)
            .await?;
        ctx.check_cancelled()?;
        dirs.publish_copy(&dir, new_sandbox.disk).await
    }
    .await;
    if published.is_ok() {
        new_sandbox.add_disk();
    }
    if let Err(error) = dirs.remove(&dir).await {
        ctx.warn(error.to_string());
    }
    published?;
    if let Some(bytes) = variables {
        new_sandbox.create_variables(bytes).await?;
    }
    ctx.check_cancelled()?;
    new_sandbox.define(xml).await?;
    if start {
        ctx.enter_phase(Phase::Starting)?;
        host.sandboxes().start(id).await?;
    }
    host.sandboxes().get(id).await
}
