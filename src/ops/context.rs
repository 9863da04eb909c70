//! The context of every operation.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::push_cache::PushCache;
use crate::relayed_hosts::RelayedHosts;
use crate::sharing::SharingHosts;
use snapdeck_model::{Error, Phase, ProgressCell, Result};

/// A log callback; `true` marks a warning.
pub type LogFn = dyn Fn(bool, String) + Send + Sync;

/// Progress, cancellation and log of one operation.
#[derive(Clone)]
pub struct Context {
    /// Progress, sampled by the front ends.
    pub progress: Arc<ProgressCell>,
    /// Fires when the operator cancels; cleanup still runs to its end.
    pub cancel: CancellationToken,
    /// Returns whether `cancel` has fired because this process ends, and a later one resumes the operation.
    pub is_suspended: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The job's own log.
    pub log: Arc<LogFn>,
    /// Whether new clusters are compressed with zstd, if the image's version allows it.
    pub zstd_enabled: bool,
    /// All configured hosts, which may use the files of the operation's host.
    pub sharing: Arc<SharingHosts>,
    /// Whether a pull reads and checks blocks whose extents it shares with another snapshot.
    pub check_shared_blocks: bool,
    /// Records the last upload of each sandbox.
    pub push_cache: Arc<PushCache>,
    /// The hosts that could not reach the bucket by themselves.
    pub relayed_hosts: Arc<RelayedHosts>,
}

impl Context {
    /// Enters a phase without a byte count; fails if the operation is cancelled.
    pub(crate) fn enter_phase(&self, phase: Phase) -> Result<()> {
        self.progress.enter(phase, 0);
        self.check_cancelled()
    }

    /// Fails if the operation is cancelled.
    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled("the operation"));
        }
        Ok(())
    }

    /// Runs `work`, which changes nothing, until the operation is cancelled; then it is dropped.
    pub(crate) async fn until_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let result = self.cancel.run_until_cancelled(work).await;
        result.unwrap_or_else(|| Err(Error::cancelled("the operation")))
    }

    pub(crate) fn info(&self, text: impl Into<String>) {
        (self.log)(false, text.into());
    }

    pub(crate) fn warn(&self, text: impl Into<String>) {
        (self.log)(true, text.into());
    }
}
