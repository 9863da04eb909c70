//! VNC tunnels to the screens of sandboxes.

use super::state::Engine;
use snapdeck_model::{HostName, Result, SandboxId};

impl Engine {
    /// A URL for a VNC viewer on this machine, `vnc://ADDRESS:PORT`, and whether it leads through a tunnel, which is
    /// opened for it where it must be and stands until the engine ends.
    ///
    /// # Errors
    /// `Unsupported` where the sandbox has no VNC server that can be reached; `NotFound`; `Unreachable`.
    pub async fn viewer_url(&self, host: &HostName, sandbox: &SandboxId) -> Result<(String, bool)> {
        let key = (host.clone(), sandbox.clone());
        let before = self.inner.tunnels().get(&key).cloned();
        let tunnel = self.host(host)?.open_tunnel(sandbox, before).await?;
        let answer = (tunnel.url(), tunnel.is_forwarded());
        self.inner.tunnels().insert(key, tunnel);
        Ok(answer)
    }
}
