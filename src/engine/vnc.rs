//! VNC tunnels to the screens of sandboxes.

use super::state::Engine;
use snapdeck_model::{HostName, Result, SandboxId};

impl Engine {
    /// Returns a URL for a VNC viewer on this machine, `vnc://ADDRESS:PORT`, and whether it leads through a tunnel. The
    /// tunnel stays open until the engine ends.
    ///
    /// # Errors
    /// `Conflict` if the sandbox has no reachable VNC server; `NotFound`; `Unreachable`.
    pub async fn viewer_url(&self, host: &HostName, sandbox: &SandboxId) -> Result<(String, bool)> {
        let key = (host.clone(), sandbox.clone());
        let existing = self.inner.tunnels().get(&key).cloned();
        let tunnel = self
            .host(host)?
            .sandboxes()
            .open_tunnel(sandbox, existing)
            .await?;
        let url = (tunnel.url(), tunnel.is_forwarded());
        self.inner.tunnels().insert(key, tunnel);
        Ok(url)
    }
}
