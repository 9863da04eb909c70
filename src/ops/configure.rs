//! Changes settings of a sandbox's definition.

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Result, SandboxId, SandboxVerb};

use crate::context::Context;

/// Applies a verb that changes a setting of the sandbox `id`.
///
/// # Errors
/// `Conflict` for a transient domain; `Failed` with libvirt's message; `NotFound`.
pub(crate) async fn configure(
    host: &Host,
    id: &SandboxId,
    verb: SandboxVerb,
    ctx: &Context,
) -> Result<Outcome> {
    let facts = host.sandboxes().facts(id).await?;
    if !facts.is_persistent {
        let summary = format!("cannot {} {id} on host {}", verb.as_str(), host.name());
        return Err(Error::new(Kind::Conflict, summary)
            .with_cause("it is transient: libvirt has no definition of it")
            .hint("define it with `virsh define`"));
    }
    let domain = host.sandboxes().with_uuid(&facts.uuid);
    ctx.check_cancelled()?;
    let changed = match verb {
        SandboxVerb::Autostart { enabled } if domain.autostart(id).await? != enabled => {
            domain.set_autostart(id, enabled).await?;
            true
        }
        _ => false,
    };
    let sandbox = domain.get(id).await?;
    Ok(Outcome::SandboxConfigured {
        host: host.name().clone(),
        sandbox_id: sandbox.id,
        cpus: sandbox.cpus,
        memory_bytes: sandbox.memory_bytes,
        autostart: sandbox.autostart,
        changed,
    })
}
