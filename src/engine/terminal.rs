//! Commands for the operator's terminal: a log-in to a host, and the serial console of a sandbox.

use super::state::Engine;
use snapdeck_model::{Error, HostName, Kind, Result, SandboxId, SandboxState};

impl Engine {
    /// Returns the command that logs in to a host over SSH; `None` for this machine.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host.
    pub fn login_argv(&self, host: &HostName) -> Result<Option<Vec<String>>> {
        Ok(self.host(host)?.login_argv())
    }

    /// Returns the UUID of the domain of a sandbox.
    ///
    /// # Errors
    /// As [`Engine::sandbox`].
    pub async fn domain_uuid(&self, host: &HostName, id: &SandboxId) -> Result<String> {
        self.host(host)?.sandboxes().domain_uuid(id).await
    }

    /// Returns the command that attaches a terminal to the serial console of a sandbox, which is named by its UUID.
    ///
    /// # Errors
    /// `Conflict` if the sandbox is not running or has no serial console; as [`Engine::sandbox`].
    pub async fn serial_console_argv(
        &self,
        host_name: &HostName,
        id: &SandboxId,
    ) -> Result<Vec<String>> {
        let host = self.host(host_name)?;
        let conflict = |cause: String| {
            let summary = format!("cannot open the serial console of {id} on host {host_name}");
            Error::new(Kind::Conflict, summary).with_cause(cause)
        };
        let state = host.sandboxes().owned_state(id).await?;
        if !matches!(state, SandboxState::Running | SandboxState::Paused) {
            return Err(conflict(format!("it is {}", state.label())));
        }
        let xml = host.sandboxes().domain_xml(id).await?;
        if !xml.contains("<console") && !xml.contains("<serial") {
            let error = conflict("its domain has no serial device".to_owned());
            return Err(error.hint(format!(
                "shut it down and add <serial type='pty'/> to its devices with `virsh edit {id}`"
            )));
        }
        let uuid = host.sandboxes().domain_uuid(id).await?;
        Ok(host.console_argv(&uuid))
    }
}
