//! Retries while a host is unreachable: backoff, limit, cancellation and log lines of one job.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use jiff::Timestamp;
use snapdeck_model::{Error, Kind, Result, WaitChange};

/// Minimum and maximum delay between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Retry policy of one job.
///
/// Calls are retried only on a host that has answered the job before.
#[derive(Clone)]
pub struct RetryPolicy {
    limit: Duration,
    cancel: CancellationToken,
    on_change: Arc<dyn Fn(WaitChange) + Send + Sync>,
    has_connected: Arc<AtomicBool>,
    /// Whether any call waits. Many calls may wait for one host; it is reported once.
    is_waiting: Arc<AtomicBool>,
    /// Whether a call has waited for `limit`. Later ones, such as those of the cleanup, are attempted once.
    is_exhausted: Arc<AtomicBool>,
}

impl RetryPolicy {
    /// Returns a policy that retries for at most `limit`, until cancelled. `on_change` is called when
    /// waiting begins and when it ends.
    pub fn new(
        limit: Duration,
        cancel: CancellationToken,
        on_change: Arc<dyn Fn(WaitChange) + Send + Sync>,
    ) -> Self {
        Self {
            limit,
            cancel,
            on_change,
            has_connected: Arc::default(),
            is_waiting: Arc::default(),
            is_exhausted: Arc::default(),
        }
    }

    /// Returns a policy without retries.
    pub fn no_retry() -> Self {
        Self::new(Duration::ZERO, CancellationToken::new(), Arc::new(|_| {}))
    }

    /// Returns whether the job is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Starts the retries of one call.
    pub fn start_retry(&self) -> Retry<'_> {
        Retry {
            policy: self,
            started_at: None,
            delay: BACKOFF.0,
        }
    }

    /// Repeats `call` until it succeeds, fails with an error that is not retried, or the limit is reached.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn call<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut retry = self.start_retry();
        loop {
            match call().await {
                Ok(value) => {
                    self.mark_reachable();
                    return Ok(value);
                }
                Err(error) => retry.wait_after(error).await?,
            }
        }
    }

    /// Records that the host has answered.
    pub fn mark_reachable(&self) {
        self.has_connected.store(true, Relaxed);
        self.is_exhausted.store(false, Relaxed);
        if self.is_waiting.swap(false, Relaxed) {
            let text = "the host is reachable again".into();
            (self.on_change)(WaitChange::Ended { text });
        }
    }
}

/// The retries of one call.
pub struct Retry<'a> {
    policy: &'a RetryPolicy,
    started_at: Option<Instant>,
    delay: Duration,
}

impl Retry<'_> {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `error` if it is not retried; `Cancelled`.
    pub async fn wait_after(&mut self, error: Error) -> Result<()> {
        let RetryPolicy {
            limit,
            cancel,
            on_change,
            has_connected,
            is_waiting,
            is_exhausted,
        } = self.policy;
        let is_unreachable = error.kind() == Kind::Unreachable && error.is_retryable();
        if !is_unreachable
            || limit.is_zero()
            || !has_connected.load(Relaxed)
            || cancel.is_cancelled()
        {
            return Err(error);
        }
        if self.started_at.is_none() && is_exhausted.load(Relaxed) {
            return Err(error);
        }
        let started_at = *self.started_at.get_or_insert_with(|| {
            if !is_waiting.swap(true, Relaxed) {
                let (cause, seconds) = (error.message(), limit.as_secs());
                let now = Timestamp::now();
                on_change(WaitChange::Started {
                    text: format!("{cause}; retrying for up to {seconds} s"),
                    until: now.checked_add(*limit).unwrap_or(now),
                });
            }
            Instant::now()
        });
        if started_at.elapsed() >= *limit {
            if !is_exhausted.swap(true, Relaxed) {
                on_change(WaitChange::GivenUp);
            }
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
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_wait_is_reported_with_its_end_and_given_up_at_the_limit() {
        let limit = Duration::from_millis(100);
        let changes: Arc<Mutex<Vec<WaitChange>>> = Arc::default();
        let reported = changes.clone();
        let report = move |change| reported.lock().unwrap().push(change);
        let policy = RetryPolicy::new(limit, CancellationToken::new(), Arc::new(report));
        let began = Timestamp::now();
        policy.mark_reachable();
        let lost = || async { Err::<(), _>(Error::new(Kind::Unreachable, "lost").retryable()) };
        policy.call(lost).await.unwrap_err();
        policy.mark_reachable();
        let changes = changes.lock().unwrap();
        let [
            WaitChange::Started { text, until },
            WaitChange::GivenUp,
            WaitChange::Ended { .. },
        ] = &changes[..]
        else {
            panic!("{changes:?}");
        };
        assert!(text.starts_with("lost; retrying"), "{text}");
        assert!(*until > began && *until < Timestamp::now());
    }

    #[tokio::test]
    async fn later_calls_do_not_wait_for_the_limit_until_the_host_is_reachable() {
        let limit = Duration::from_millis(100);
        let policy = RetryPolicy::new(limit, CancellationToken::new(), Arc::new(|_| {}));
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
