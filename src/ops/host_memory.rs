//! Memory of a host, compared with what a sandbox requests.

use humansize::{BINARY, format_size};

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Result, SandboxId};

use crate::context::Context;

/// Fails with an error of `refused` if the host has less memory than the sandbox `id` requests, and warns if less is
/// available.
///
/// # Errors
/// `Conflict`; `Unreachable`.
pub(crate) async fn check_memory(
    host: &Host,
    id: &SandboxId,
    requested_bytes: u64,
    refused: impl Fn(Kind) -> Error,
    ctx: &Context,
) -> Result<()> {
    let memory = host.libvirt().memory().await?;
    let requested = format_size(requested_bytes, BINARY);
    if requested_bytes > memory.total_bytes {
        let total = format_size(memory.total_bytes, BINARY);
        return Err(refused(Kind::Conflict)
            .with_cause(format!(
                "{requested} of memory requested, the host has {total} in total"
            ))
            .hint("request less with --memory"));
    }
    if requested_bytes > memory.available_bytes {
        ctx.warn(format!(
            "{id} requests {requested} of memory, host {} has {} available",
            host.name(),
            format_size(memory.available_bytes, BINARY)
        ));
    }
    Ok(())
}
