//! VNC tunnels to the screens of sandboxes.

use std::sync::Arc;

use super::state::Engine;
use snapdeck_host::VncTunnel;
use snapdeck_model::{HostName, Result, SandboxId};

impl Engine {
    /// Returns the address of a sandbox's screen for a VNC viewer of this user, or of the one who ran `sudo`, on this
    /// machine. A tunnel closes some time after its last connection.
    ///
    /// # Errors
    /// `Conflict` if the sandbox has no VNC server; `NotFound`; `Unreachable`.
    pub async fn open_screen(
        &self,
        host: &HostName,
        sandbox: &SandboxId,
        sudo_uid: Option<u32>,
    ) -> Result<Arc<VncTunnel>> {
        let key = (host.clone(), sandbox.clone());
        let existing = self.inner.tunnels().get(&key).cloned();
        let tunnel = self
            .host(host)?
            .sandboxes()
            .open_tunnel(sandbox, existing, sudo_uid)
            .await?;
        self.inner.tunnels().insert(key, tunnel.clone());
        Ok(tunnel)
    }
}
