//! Destroy: a sandbox goes for good: its process, its definition with saved state and UEFI variables, its overlay.

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxId};

use crate::context::Context;

/// Destroys the sandbox `id`, or what is left of one that was made or destroyed in half.
///
/// # Errors
/// `Unsupported` for a guest that is no sandbox of ours, or whose overlay is needed by others, naming them; `NotFound`
/// where there is nothing of that id.
pub(crate) async fn destroy(host: &Host, id: &SandboxId, ctx: &Context) -> Result<Outcome> {
    let survey = host.scan().await?;
    let refused = || {
        Error::new(
            Kind::Conflict,
            format!("cannot destroy {id} on host {}", host.name()),
        )
    };
    if survey
        .foreign_domains
        .iter()
        .any(|other| other.id == id.as_str())
    {
        return Err(host.foreign_domain_error(id));
    }
    let sandbox = survey
        .sandboxes
        .into_iter()
        .find(|sandbox| sandbox.id == *id);
    let disk = match &sandbox {
        Some(sandbox) => sandbox.disk().map(str::to_owned).unwrap_or_default(),
        None => host.disk_path(id),
    };
    if let Some(users) = survey.overlay_users.get(id) {
        return Err(refused()
            .with_cause(format!("its disk {disk} is in use by {}", users.join(", ")))
            .hint("destroy those first"));
    }
    if !survey.unresolved_chains.is_empty() {
        return Err(refused()
            .with_cause(format!(
                "cannot determine the bases of these: {}",
                survey.unresolved_chains.join(", ")
            ))
            .hint("make those files readable"));
    }
    let variables = host.variables_path(id);
    let others_variables = sandbox
        .as_ref()
        .is_some_and(|sandbox| sandbox.variables.as_ref() != Some(&variables));
    if sandbox.is_none() && !host.has_file(&disk).await? && !host.has_file(&variables).await? {
        return Err(host.sandbox_not_found(id));
    }
    ctx.enter_phase(Phase::Removing)?;
    match &sandbox {
        Some(sandbox) => {
            if sandbox.state.is_active() {
                host.force_off(id).await?;
            }
            host.undefine(id).await?;
        }
        None => ctx.info(format!("no sandbox {id}, only its leftovers")),
    }
    // From here on it is not known to libvirt any more; what is left is found by the next try.
    if !others_variables {
        host.remove_file(&variables).await?;
    }
    host.remove_file(&disk).await?;
    Ok(Outcome::SandboxChanged {
        host: host.name().clone(),
        id: id.clone(),
        state: None,
        changed: true,
    })
}
