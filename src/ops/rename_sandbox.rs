//! Renames a sandbox: its domain has another name then. Overlay and UEFI variables keep theirs, since the definition refers
//! to them by path, and a crash between several renames would leave a sandbox without its disk.

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxId, VerbKind};

use crate::context::Context;
use crate::new_id::refuse_used_id;
use crate::sandbox::refuse_if_impossible;

/// Gives the sandbox `id` the id `new_id`.
///
/// # Errors
/// `Conflict` unless it is shut off, if the new id is taken, or if its UEFI variables would be lost; `Failed` with libvirt's
/// message; `NotFound`.
pub(crate) async fn rename_sandbox(
    host: &Host,
    id: &SandboxId,
    new_id: &SandboxId,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let refused = |kind| {
        let summary = format!("cannot rename {id} to {new_id} on host {}", host.name());
        Error::new(kind, summary)
    };
    let state = host.sandboxes().owned_state(id).await?;
    refuse_if_impossible(host, id, VerbKind::Rename, state)?;
    let facts = host.sandboxes().facts(id).await?;
    let domain = host.sandboxes().with_uuid(&facts.uuid);
    let sandbox = domain.get(id).await?;
    let firmware = domain.firmware(id).await?;
    if let (None, Some(path)) = (&sandbox.variables, &firmware.variables)
        && host.fs().has_file(path).await?
    {
        return Err(refused(Kind::Conflict)
            .with_cause(format!(
                "its definition does not name the file of its UEFI variables, {path}: libvirt would create new ones"
            ))
            .hint("name the file in <nvram> with `virsh edit`"));
    }
    let disk_path = sandbox.disk().unwrap_or_default().to_owned();
    let own_files = [
        &*disk_path,
        sandbox.variables.as_deref().unwrap_or_default(),
    ];
    refuse_used_id(host, new_id, &own_files, refused, ctx).await?;
    ctx.check_cancelled()?;
    domain.rename(id, new_id).await?;
    let variables = sandbox.variables.iter();
    for file in [&disk_path].into_iter().chain(variables) {
        ctx.info(format!("{file} keeps its name"));
    }
    Ok(Outcome::SandboxRenamed {
        host: host.name().clone(),
        sandbox_id: new_id.clone(),
        former_id: id.clone(),
        disk_path,
    })
}
