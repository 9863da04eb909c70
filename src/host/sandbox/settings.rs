//! Settings of a sandbox's definition.

use super::Sandboxes;
use crate::CALL_TIMEOUT;
use snapdeck_model::{Result, SandboxId};

impl Sandboxes<'_> {
    /// Returns whether the sandbox starts with its host.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn autostart(self, id: &SandboxId) -> Result<bool> {
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, |domain| domain.autostart()))
            .await
    }

    /// Chooses whether the sandbox starts with its host.
    ///
    /// # Errors
    /// `Failed` with libvirt's message; as [`Sandboxes::autostart`].
    pub async fn set_autostart(self, id: &SandboxId, enabled: bool) -> Result<()> {
        self.call_domain(id, "set autostart of", CALL_TIMEOUT, move |domain| {
            domain.set_autostart(enabled)
        })
        .await
    }
}
