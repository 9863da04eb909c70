//! Pauses guests and freezes their file systems for a moment.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use virt::domain::Domain;

use super::Sandboxes;
use crate::{CALL_TIMEOUT, domain};
use snapdeck_model::{AgentChannel, Error, Kind, Result, SandboxId, SandboxState};

/// Windows thaws its file systems by itself after 10 s.
const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

/// State of a guest's file systems, from its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsState {
    /// None is frozen.
    Thawed,
    /// At least one is frozen.
    Frozen,
    /// The agent does not tell.
    Unknown,
}

impl Sandboxes<'_> {
    /// Returns the state of the guest's file systems (`guest-fsfreeze-status`).
    ///
    /// libvirt's library has no call for it, and the agent of some guests freezes frozen file systems once more.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn fs_state(self, uuid: &str) -> Result<FsState> {
        let uri = self.host.uri_on_host();
        let query = r#"{"execute":"guest-fsfreeze-status"}"#;
        let argv = [
            "virsh",
            "-q",
            "-c",
            &uri,
            "qemu-agent-command",
            "--domain",
            uuid,
            "--timeout",
            "5",
            query,
        ];
        let never = CancellationToken::new();
        let output = self.host.runner.run(&argv, AGENT_TIMEOUT, &never).await?;
        let state = parse_fs_state(&output.stdout);
        if state == FsState::Unknown {
            tracing::debug!("guest-fsfreeze-status of {uuid}: {}", output.stderr.trim());
        }
        Ok(state)
    }

    /// Returns whether the guest agent's channel is connected.
    ///
    /// # Errors
    /// As [`Sandboxes::guest_access`].
    pub async fn has_agent(self, id: &SandboxId) -> Result<bool> {
        Ok(self.guest_access(id).await?.agent == AgentChannel::Connected)
    }

    /// As [`Sandboxes::suspend`], but fails if the guest is not running.
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
            .with_cause("it is no longer running")
            .hint("check its state, then create the snapshot again")),
        }
    }

    /// As [`Sandboxes::resume`], without retries: it fails if another client has resumed the guest.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn resume_paused(self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "resume", CALL_TIMEOUT, |domain| domain.resume())
            .await
    }

    /// Freezes the guest's file systems through its agent; returns how many.
    ///
    /// # Errors
    /// `Failed` if the agent cannot, or does not answer; it may freeze them later then.
    pub async fn freeze(self, id: &SandboxId) -> Result<u32> {
        self.call_domain_long(
            id,
            "freeze the file systems of",
            AGENT_TIMEOUT,
            snapdeck_libvirt::freeze,
        )
        .await
    }

    /// Thaws the guest's file systems through its agent; returns how many were frozen.
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

/// Parses the agent's answer to `guest-fsfreeze-status`.
fn parse_fs_state(json: &str) -> FsState {
    let answer: Option<Value> = serde_json::from_str(json).ok();
    match answer
        .as_ref()
        .and_then(|answer| answer.get("return")?.as_str())
    {
        Some("thawed") => FsState::Thawed,
        Some("frozen") => FsState::Frozen,
        _ => FsState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_fs_state() {
        snapdeck_fuzz::FuzzTarget::new("guest-fsfreeze-status")
            .seed(r#"{"return":"thawed"}"#)
            .seed(r#"{"return":"frozen"}"#)
            .seed(r#"{"error":{"class":"CommandNotFound","desc":"a"}}"#)
            // Of an array of numbers.
            .memory(1 << 20, 64)
            .run(|json| {
                let text = snapdeck_fuzz::text(json);
                if parse_fs_state(&text) != FsState::Unknown {
                    assert!(text.contains("return"));
                }
            });
    }
}
