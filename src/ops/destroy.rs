//! Destroy: a sandbox is removed with its process, its definition, saved state and UEFI variables, and its overlay.

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxId};

use crate::context::Context;
use crate::dependents::refuse_unresolved_chains;

/// Destroys the sandbox `id`, or the leftovers of one whose creation or destruction was interrupted.
///
/// # Errors
/// `Conflict` for a domain that is not a sandbox, or whose overlay is in use, which names its users; `NotFound` if
/// nothing has that id.
pub(crate) async fn destroy(host: &Host, id: &SandboxId, ctx: &Context) -> Result<Outcome> {
    let inventory = host.inventory().scan().await?;
    let error = || {
        Error::new(
            Kind::Conflict,
            format!("cannot destroy {id} on host {}", host.name()),
        )
    };
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
    if let Some(users) = inventory.overlay_users.get(id) {
        return Err(error()
            .with_cause(format!("its disk {disk} is in use by {}", users.join(", ")))
            .hint("destroy those first"));
    }
    refuse_unresolved_chains(&inventory, error)?;
    let variables = host.variables_path(id);
    let has_foreign_variables =
        sandbox.is_some_and(|sandbox| sandbox.variables.as_ref() != Some(&variables));
    if sandbox.is_none() && !host.fs().has_file(&disk).await? {
        if !host.fs().has_file(&variables).await? {
            return Err(host.sandboxes().not_found_error(id));
        }
        let users = host.sandboxes().file_users(&variables, None).await?;
        if !users.is_empty() {
            return Err(host.sandboxes().not_found_error(id).with_cause(format!(
                "{variables} are the UEFI variables of {}",
                users.join(", ")
            )));
        }
    }
    ctx.enter_phase(Phase::Removing)?;
    match sandbox {
        Some(sandbox) => {
            if sandbox.state.is_active() {
                host.sandboxes().force_off(id).await?;
            }
            undefine(host, id, sandbox.variables.as_deref(), ctx).await?;
        }
        None => ctx.info(format!("no sandbox {id}, only its leftovers")),
    }
    // libvirt no longer lists it: if this is interrupted, the next destroy removes the remaining files.
    if !has_foreign_variables {
        remove_unused_variables(host, id, &variables, ctx).await?;
    }
    host.fs().remove_file(&disk).await?;
    Ok(Outcome::SandboxChanged {
        host: host.name().clone(),
        id: id.clone(),
        state: None,
        changed: true,
    })
}

/// Undefines the sandbox. libvirt removes its UEFI variables, unless another domain refers to them, too.
async fn undefine(
    host: &Host,
    id: &SandboxId,
    variables: Option<&str>,
    ctx: &Context,
) -> Result<()> {
    let users = match variables {
        Some(variables) => host.sandboxes().file_users(variables, Some(id)).await?,
        None => Vec::new(),
    };
    match variables {
        Some(variables) if !users.is_empty() => {
            warn_of_kept_variables(variables, &users, ctx);
            host.sandboxes().undefine_without_variables(id).await
        }
        _ => host.sandboxes().undefine(id).await,
    }
}

/// Removes the UEFI variables, unless a domain refers to them: one that was renamed keeps those under its former name.
async fn remove_unused_variables(
    host: &Host,
    id: &SandboxId,
    variables: &str,
    ctx: &Context,
) -> Result<()> {
    if !host.fs().has_file(variables).await? {
        return Ok(());
    }
    let users = host.sandboxes().file_users(variables, Some(id)).await?;
    if !users.is_empty() {
        warn_of_kept_variables(variables, &users, ctx);
        return Ok(());
    }
    host.fs().remove_file(variables).await.map(|_| ())
}

fn warn_of_kept_variables(variables: &str, users: &[String], ctx: &Context) {
    let users = users.join(", ");
    ctx.warn(format!(
        "keeping {variables}, the UEFI variables of {users}"
    ));
}
