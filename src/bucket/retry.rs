//! Retries while a store is overloaded or unreachable: backoff with jitter, limits, cancellation and log lines of one job.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::s3::{Reason, StoreError};
use jiff::Timestamp;
use snapdeck_model::{Error, WaitChange};

/// Minimum and maximum delay between two attempts of one call, before jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(125), Duration::from_secs(20));
/// Limit of calls outside a job, of a store that has not responded to the job before, and of errors other than overload
/// and lost connections: these are seldom temporary.
const SHORT_LIMIT: Duration = Duration::from_secs(4);
/// Time that a small call has when its job is cancelled. A store that responds finishes what a job does after its last
/// point of return; one that does not, or drips, holds no job up.
const CANCEL_GRACE: Duration = Duration::from_millis(300);
/// A store that fails for less than this is not reported.
const REPORT_AFTER: Duration = Duration::from_secs(2);
/// Retry quota of one job. Each successful call returns one retry, so that only a store that fails more than it
/// succeeds exhausts it (AWS, "Retry behavior").
const RETRY_QUOTA: u32 = 1000;

/// Retry policy of the calls of one job, or of none.
///
/// The time limit counts from the first failure after the latest success of any call: parts that are uploaded
/// concurrently fail together.
#[derive(Clone)]
pub struct StoreRetry {
    limit: Duration,
    cancel: CancellationToken,
    on_change: Arc<dyn Fn(WaitChange) + Send + Sync>,
    state: Arc<Mutex<State>>,
}

struct State {
    has_responded: bool,
    failing_since: Option<Instant>,
    is_reported: bool,
    quota: u32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            has_responded: false,
            failing_since: None,
            is_reported: false,
            quota: RETRY_QUOTA,
        }
    }
}

impl State {
    /// Returns the delay before the next attempt of a call that failed at `now`, and whether the wait is to be
    /// reported; `None` if it is not retried.
    fn retry(
        &mut self,
        now: Instant,
        reason: Reason,
        limit: Duration,
        retries: &mut Retries,
    ) -> Option<(Duration, bool)> {
        let limit = match reason {
            Reason::Overloaded => limit,
            Reason::NoResponse if self.has_responded => limit,
            _ => limit.min(SHORT_LIMIT),
        };
        let store_failing_since = *self.failing_since.get_or_insert(now);
        let call_failing_since = *retries.failing_since.get_or_insert(now);
        let delay = retries.next_delay();
        let total = now - store_failing_since.min(call_failing_since) + delay;
        if total > limit || self.quota == 0 {
            return None;
        }
        self.quota -= 1;
        let report = total > REPORT_AFTER && !self.is_reported;
        self.is_reported |= report;
        Some((delay, report))
    }

    /// Records a success; returns whether a wait was reported.
    fn succeed(&mut self) -> bool {
        self.has_responded = true;
        self.failing_since = None;
        self.quota = (self.quota + 1).min(RETRY_QUOTA);
        std::mem::take(&mut self.is_reported)
    }
}

impl StoreRetry {
    /// Returns a policy that retries for at most `limit` without a success, until cancelled. `on_change` is called
    /// when the store has failed for a while, and when that ends.
    pub fn new(
        limit: Duration,
        cancel: CancellationToken,
        on_change: Arc<dyn Fn(WaitChange) + Send + Sync>,
    ) -> Self {
        Self {
            limit,
            cancel,
            on_change,
            state: Arc::default(),
        }
    }

    /// Returns a policy for calls outside a job: a few retries within seconds.
    pub(crate) fn short() -> Self {
        Self::new(SHORT_LIMIT, CancellationToken::new(), Arc::new(|_| {}))
    }

    /// Returns a policy without retries.
    pub(crate) fn none() -> Self {
        Self {
            limit: Duration::ZERO,
            ..Self::short()
        }
    }

    /// Returns the policy of the same job for work that is cancelled by `cancel`.
    pub fn with_cancel(&self, cancel: CancellationToken) -> Self {
        Self {
            cancel,
            ..self.clone()
        }
    }

    /// Repeats `call` until it succeeds, fails with an error that is not retryable, or the limit is reached.
    ///
    /// # Errors
    /// The last attempt's; `Cancelled` if the job is cancelled during a delay.
    pub(crate) async fn call<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        let mut retries = Retries::default();
        loop {
            match call().await {
                Ok(value) => {
                    self.mark_success();
                    return Ok(value);
                }
                Err(error) => self.wait_after(error, &mut retries).await?,
            }
        }
    }

    /// Waits for `work` until the job is cancelled, and [`CANCEL_GRACE`] longer.
    ///
    /// # Errors
    /// Those of `work`; `Cancelled`: then `work` is dropped.
    pub(crate) async fn until_cancelled<T>(
        &self,
        activity: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            result = work => result,
            () = self.cancelled(CANCEL_GRACE) => Err(Error::cancelled(activity).into()),
        }
    }

    /// Returns when `grace` is over after the job was cancelled.
    pub(crate) async fn cancelled(&self, grace: Duration) {
        self.cancel.cancelled().await;
        sleep(grace).await;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `failure` if it is not retried; `Cancelled`.
    pub(crate) async fn wait_after(
        &self,
        failure: StoreError,
        retries: &mut Retries,
    ) -> Result<(), StoreError> {
        let StoreError { reason, error } = &failure;
        if !error.is_retryable() {
            return Err(failure);
        }
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled(error.message()).into());
        }
        let limit = self.limit;
        let now = Instant::now();
        let (retry, failing_since, is_reported) = {
            let mut state = self.lock();
            let retry = state.retry(now, *reason, limit, retries);
            (retry, state.failing_since, state.is_reported)
        };
        let Some((delay, report)) = retry else {
            if is_reported {
                (self.on_change)(WaitChange::GivenUp);
            }
            return Err(failure);
        };
        tracing::debug!(?delay, %error, "retrying a call to the store");
        if report {
            let minutes = limit.as_secs().div_ceil(60);
            let cause = error.message();
            let remaining = limit.saturating_sub(now - failing_since.unwrap_or(now));
            let now = Timestamp::now();
            (self.on_change)(WaitChange::Started {
                text: format!("waiting for the store, up to {minutes} min: {cause}"),
                until: now.checked_add(remaining).unwrap_or(now),
            });
        }
        tokio::select! {
            () = sleep(delay) => Ok(()),
            () = self.cancel.cancelled() => Err(Error::cancelled(error.message()).into()),
        }
    }

    /// Records a successful call.
    pub(crate) fn mark_success(&self) {
        let was_reported = self.lock().succeed();
        if was_reported {
            let text = "the store answers again".into();
            (self.on_change)(WaitChange::Ended { text });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The retries of one call.
pub(crate) struct Retries {
    failing_since: Option<Instant>,
    delays: ExponentialBackoff,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            failing_since: None,
            delays: ExponentialBuilder::default()
                .with_min_delay(BACKOFF.0)
                .with_max_delay(BACKOFF.1)
                .without_max_times()
                .with_jitter()
                .build(),
        }
    }
}

impl Retries {
    /// Returns a delay up to twice the one before, with jitter, so that calls that failed together are not repeated
    /// together.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(BACKOFF.1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    /// Fails a call again and again; returns how long and how often it is retried, and how many waits are reported.
    fn fail(state: &mut State, reason: Reason) -> (Duration, u32, u32) {
        let (start, mut retries) = (Instant::now(), Retries::default());
        let (mut now, mut attempts, mut reports) = (start, 0, 0);
        while let Some((delay, report)) = state.retry(now, reason, LIMIT, &mut retries) {
            now += delay;
            attempts += 1;
            reports += u32::from(report);
        }
        (now - start, attempts, reports)
    }

    #[test]
    fn an_overloaded_store_is_waited_for_to_the_limit_and_reported_once() {
        let (time, attempts, reports) = fail(&mut State::default(), Reason::Overloaded);
        assert!((200..=300).contains(&time.as_secs()), "{time:?}");
        assert!((10..60).contains(&attempts), "{attempts}");
        assert_eq!(reports, 1);
    }

    #[test]
    fn only_a_store_that_has_responded_is_waited_for_when_it_is_lost() {
        let mut state = State::default();
        assert!(fail(&mut state, Reason::NoResponse).0 <= SHORT_LIMIT);
        state.succeed();
        assert!(fail(&mut state, Reason::NoResponse).0 > LIMIT / 2);
    }

    #[test]
    fn other_errors_are_retried_for_seconds() {
        let mut state = State::default();
        state.succeed();
        let (time, attempts, _) = fail(&mut state, Reason::Other);
        assert!(time <= SHORT_LIMIT && attempts > 2, "{time:?}, {attempts}");
    }

    #[test]
    fn a_success_ends_the_wait_of_the_store_but_not_that_of_a_call() {
        let mut state = State::default();
        let (start, mut retries) = (Instant::now(), Retries::default());
        let mut now = start;
        while let Some((delay, _)) = state.retry(now, Reason::Overloaded, LIMIT, &mut retries) {
            now += delay;
            // Other parts of the same job are uploaded.
            state.succeed();
        }
        assert!(now - start <= LIMIT);
        assert!(state.succeed() || state.failing_since.is_none());
        assert!(fail(&mut state, Reason::Overloaded).0 > LIMIT / 2);
    }

    #[test]
    fn the_quota_ends_retries_of_a_store_that_fails_more_than_it_succeeds() {
        let mut state = State::default();
        let now = Instant::now();
        let mut attempts = 0;
        while state
            .retry(now, Reason::Overloaded, LIMIT, &mut Retries::default())
            .is_some()
        {
            attempts += 1;
        }
        assert_eq!(attempts, RETRY_QUOTA);
        state.succeed();
        assert!(
            state
                .retry(now, Reason::Overloaded, LIMIT, &mut Retries::default())
                .is_some()
        );
    }
}
