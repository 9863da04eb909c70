//! Destroy: a sandbox is removed with its process, its definition, saved state and UEFI variables, and its overlay.

use snapdeck_host::Host;
use snapdeck_model::{Outcome, Phase, Result, SandboxId};

use crate::context::Context;
use crate::dependents::refuse_if_files_in_use;

/// Destroys the sandbox `id`, or the leftovers of one whose creation or destruction was interrupted.
///
/// # Errors
/// `Conflict` for a domain that is not a sandbox, or whose overlay is in use, which names its users; `NotFound` if
/// nothing has that id.
pub(crate) async fn destroy(host: &Host, id: &SandboxId, ctx: &Context) -> Result<Outcome> {
    let inventory = ctx.sharing.scan(host).await?;
    let mut foreign_domains = inventory.foreign_domains.iter();
    if foreign_domains.any(|domain| domain.id == id.as_str()) {
        return Err(host.sandboxes().foreign_domain_error(id));
    }
    let mut sandboxes = inventory.sandboxes.iter();
    let sandbox = sandboxes.find(|sandbox| sandbox.id == *id);
    let disk = match sandbox {
        Some(sandbox) => sandbox.disk().map(str::to_owned).unwrap_or_default(),
        None => host.disk_path(id),
    };
    let variables = host.variables_path(id);
    let own_variables = sandbox.and_then(|sandbox| sandbox.variables.as_deref());
    let mut all_variables = vec![&*variables];
    all_variables.extend(own_variables.filter(|path| *path != variables));
    refuse_if_files_in_use(host, &inventory, id, &disk, &all_variables).await?;
    let has_foreign_variables =
        sandbox.is_some_and(|sandbox| sandbox.variables.as_ref() != Some(&variables));
    if sandbox.is_none()
        && !host.fs().has_file(&disk).await?
        && !host.fs().has_file(&variables).await?
    {
        return Err(host.sandboxes().not_found_error(id));
    }
    ctx.enter_phase(Phase::Removing)?;
    match sandbox {
        Some(sandbox) => {
            if sandbox.state.is_active() {
                host.sandboxes().force_off(id).await?;
            }
            host.sandboxes().undefine(id).await?;
        }
        None => ctx.info(format!("no sandbox {id}, only its leftovers")),
    }
    // libvirt no longer lists it: if this is interrupted, the next destroy removes the remaining files.
    if !has_foreign_variables {
        host.fs().remove_file(&variables).await?;
    }
    host.fs().remove_file(&disk).await?;
    Ok(Outcome::SandboxChanged {
        host: host.name().clone(),
        id: id.clone(),
        state: None,
        changed: true,
    })
}
