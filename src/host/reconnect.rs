//! How long a job puts up with a host that is away.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use snapdeck_model::{Error, Kind, Result};

/// First and longest wait between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Who waits, how long, and whom to tell. A host that never answered is not waited for.
#[derive(Clone)]
pub struct RetryPolicy {
    limit: Duration,
    cancel: CancellationToken,
    on_change: Arc<dyn Fn(bool, String) + Send + Sync>,
    has_connected: Arc<AtomicBool>,
    /// Is anybody waiting? Many calls wait for one host, and it is told once.
    is_waiting: Arc<AtomicBool>,
    /// A call has waited for `limit`: later ones, such as those of the clean-up, are tried once.
    is_exhausted: Arc<AtomicBool>,
}

impl RetryPolicy {
    /// Waits at most `limit` for a host that was there before, until cancelled; `tell` is told why,
    /// with `true`, and when it is back.
    pub fn new(
        limit: Duration,
        cancel: CancellationToken,
        tell: Arc<dyn Fn(bool, String) + Send + Sync>,
    ) -> Self {
        Self {
            limit,
            cancel,
            on_change: tell,
            has_connected: Arc::default(),
            is_waiting: Arc::default(),
            is_exhausted: Arc::default(),
        }
    }

    /// None at all.
    pub fn no_retry() -> Self {
        Self::new(
            Duration::ZERO,
            CancellationToken::new(),
            Arc::new(|_, _| {}),
        )
    }

    /// Has been told to stop?
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Begins to count for one call.
    pub fn start_retry(&self) -> Retry<'_> {
        Retry {
            policy: self,
            started_at: None,
            delay: BACKOFF.0,
        }
    }

    /// Calls until it succeeds, fails for good, or the patience is at its end.
    ///
    /// # Errors
    /// The last try's.
    pub async fn call<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut wait = self.start_retry();
        loop {
            match call().await {
                Ok(value) => {
                    self.mark_reachable();
                    return Ok(value);
                }
                Err(error) => wait.wait_after(error).await?,
            }
        }
    }

    /// The host has answered.
    pub fn mark_reachable(&self) {
        self.has_connected.store(true, Relaxed);
        self.is_exhausted.store(false, Relaxed);
        if self.is_waiting.swap(false, Relaxed) {
            (self.on_change)(false, "the host is back".into());
        }
    }
}

/// One call's waiting.
pub struct Retry<'a> {
    policy: &'a RetryPolicy,
    started_at: Option<Instant>,
    delay: Duration,
}

impl Retry<'_> {
    /// Waits for the next try.
    ///
    /// # Errors
    /// `error`, where there is to be none.
    pub async fn wait_after(&mut self, error: Error) -> Result<()> {
        let RetryPolicy {
            limit,
            cancel,
            on_change: tell,
            has_connected: met,
            is_waiting: waiting,
            is_exhausted,
        } = self.policy;
        let away = error.kind() == Kind::Unreachable && error.is_retryable();
        if !away || limit.is_zero() || !met.load(Relaxed) || cancel.is_cancelled() {
            return Err(error);
        }
        if self.started_at.is_none() && is_exhausted.load(Relaxed) {
            return Err(error);
        }
        let since = *self.started_at.get_or_insert_with(|| {
            if !waiting.swap(true, Relaxed) {
                let (why, limit) = (error.message(), limit.as_secs());
                tell(
                    true,
                    format!("{why}; waiting for the host, {limit} s at most"),
                );
            }
            Instant::now()
        });
        if since.elapsed() >= *limit {
            is_exhausted.store(true, Relaxed);
            return Err(error);
        }
        tokio::select! {
            () = tokio::time::sleep(self.delay) => {}
            () = cancel.cancelled() => return Err(Error::cancelled("waiting for the host")),
        }
        self.delay = (self.delay * 2).min(BACKOFF.1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_waited_for_once_until_the_host_is_reachable() {
        let limit = Duration::from_millis(100);
        let policy = RetryPolicy::new(limit, CancellationToken::new(), Arc::new(|_, _| {}));
        policy.mark_reachable();
        let lost = || async { Err::<(), _>(Error::new(Kind::Unreachable, "lost").retryable()) };
        for (waits, reachable) in [(true, false), (false, true), (true, false)] {
            let since = Instant::now();
            policy.call(lost).await.unwrap_err();
            assert_eq!(since.elapsed() >= limit, waits);
            if reachable {
                policy.mark_reachable();
            }
        }
    }
}
