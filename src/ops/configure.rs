//! Changes settings of a sandbox's definition.

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Result, SandboxId, SandboxVerb};

use crate::context::Context;
use crate::host_memory::check_memory;

/// Applies a verb that changes a setting of the sandbox `id`.
///
/// # Errors
/// `Conflict` for a transient domain, or if the host has less memory; `InvalidInput` if nothing is to be changed;
/// `Failed` with libvirt's message; `NotFound`.
pub(crate) async fn configure(
    host: &Host,
    id: &SandboxId,
    verb: SandboxVerb,
    ctx: &Context,
) -> Result<Outcome> {
    let facts = host.sandboxes().facts(id).await?;
    let refused = |kind| {
        let summary = format!("cannot {} {id} on host {}", verb.as_str(), host.name());
        Error::new(kind, summary)
    };
    if !facts.is_persistent {
        return Err(refused(Kind::Conflict)
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
        SandboxVerb::Set { cpus, memory_bytes } => {
            if cpus.is_none() && memory_bytes.is_none() {
                return Err(
                    refused(Kind::InvalidInput).with_cause("neither CPUs nor memory are given")
                );
            }
            if let Some(bytes) = memory_bytes {
                check_memory(host, id, bytes, refused, ctx).await?;
            }
            domain.set_size(id, cpus, memory_bytes).await?
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
