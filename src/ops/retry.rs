//! Retries of reading a disk after a lost connection, and of resuming a guest.

use std::time::Duration;

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Result, SandboxId, SandboxState};

use crate::context::Context;
use crate::sandbox_disk::SandboxDisk;

/// Attempts to resume a sandbox before that is left to the watchdog.
const MAX_RESUME_ATTEMPTS: u32 = 5;
const RESUME_INTERVAL: Duration = Duration::from_millis(300);
/// Attempts to read a disk.
const MAX_READ_ATTEMPTS: u32 = 3;

/// Counts the attempts to read a disk.
pub(crate) struct ReadRetries {
    remaining: u32,
}

impl ReadRetries {
    pub(crate) fn new() -> Self {
        Self {
            remaining: MAX_READ_ATTEMPTS - 1,
        }
    }

    /// Returns whether to read the disk again from the start after `error`, and logs it.
    ///
    /// True only for a lost connection: bytes read across one may be torn.
    pub(crate) fn should_retry(&mut self, error: &Error, ctx: &Context) -> bool {
        let is_connection_lost = error.kind() == Kind::Unreachable && error.is_retryable();
        if !is_connection_lost || self.remaining == 0 || ctx.cancel.is_cancelled() {
            return false;
        }
        self.remaining -= 1;
        ctx.warn(format!("{error}; reading the disk again from the start"));
        true
    }
}

/// Resumes the sandbox; does nothing if it is no longer paused or no longer exists.
pub(crate) async fn resume_with_retries(host: &Host, id: &SandboxId) -> Result<()> {
    let mut attempts = 0;
    loop {
        let Err(error) = host.sandboxes().resume(id).await else {
            return Ok(());
        };
        match host.sandboxes().state(id).await {
            // Another client has resumed, stopped or destroyed it.
            Ok(state) if state != SandboxState::Paused => return Ok(()),
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Ok(_) | Err(_) => {}
        }
        attempts += 1;
        if attempts == MAX_RESUME_ATTEMPTS {
            return Err(error);
        }
        tokio::time::sleep(RESUME_INTERVAL).await;
    }
}

/// Adds to a failed resume of `source` what still resumes it.
pub(crate) fn resume_error(error: Error, host: &Host, source: &SandboxDisk) -> Error {
    // By UUID: virsh takes a name that is a number for the ID of another domain.
    error
        .context(format!(
            "cannot resume sandbox {} on host {}",
            source.id,
            host.name()
        ))
        .hint(format!(
            "the watchdog on the host keeps trying; otherwise run `virsh resume {}` there",
            source.facts.uuid
        ))
}

/// Returns the error for a guest that another client has resumed while it was to be paused.
pub(crate) fn resumed_by_other_error(host: &Host, source: &SandboxDisk) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "sandbox {} on host {} changed while its disk was read",
            source.id,
            host.name()
        ),
    )
    .with_cause("another client has resumed it; nothing was uploaded")
    .hint("create the snapshot again")
}
