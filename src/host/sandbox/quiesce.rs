//! A running guest brought to a standstill for a moment, and its file systems to rest.

use std::time::Duration;

use virt::domain::Domain;

use super::Sandboxes;
use crate::{CALL_TIMEOUT, domain};
use snapdeck_model::{AgentChannel, Error, Kind, Result, SandboxId, SandboxState};

/// For an answer of a guest's agent. Windows lets its file systems go on by itself after 10 s.
const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

impl Sandboxes<'_> {
    /// Has the sandbox a guest agent that listens?
    ///
    /// # Errors
    /// As [`Sandboxes::reach`].
    pub async fn has_agent(self, id: &SandboxId) -> Result<bool> {
        Ok(self.guest_access(id).await?.agent == AgentChannel::Connected)
    }

    /// As [`Sandboxes::suspend`], unless somebody else has stopped it already.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn suspend_running(self, id: &SandboxId) -> Result<()> {
        let suspend = |domain: &Domain| match domain::state(domain)? {
            SandboxState::Running => domain.suspend().map(|_| true),
            _ => Ok(false),
        };
        match self.call_domain(id, "pause", CALL_TIMEOUT, suspend).await? {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Conflict,
                format!("cannot pause sandbox {id} on host {}", self.host.name()),
            )
            .with_cause("it is no longer running")),
        }
    }

    /// As [`Sandboxes::resume`], in one try: it fails where somebody else has let the sandbox go on.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn resume_paused(self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "resume", CALL_TIMEOUT, |domain| domain.resume())
            .await
    }

    /// Has the guest's agent bring its file systems to rest; returns how many.
    ///
    /// # Errors
    /// `Failed` where it cannot, or does not answer; it may come true later then.
    pub async fn freeze(self, id: &SandboxId) -> Result<u32> {
        self.call_domain_long(
            id,
            "freeze the file systems of",
            AGENT_TIMEOUT,
            snapdeck_libvirt::freeze,
        )
        .await
    }

    /// Has the guest's agent let its file systems go on; returns how many were at rest.
    ///
    /// # Errors
    /// As [`Sandboxes::freeze`].
    pub async fn thaw(self, id: &SandboxId) -> Result<u32> {
        self.call_domain_long(
            id,
            "thaw the file systems of",
            AGENT_TIMEOUT,
            snapdeck_libvirt::thaw,
        )
        .await
    }
}
