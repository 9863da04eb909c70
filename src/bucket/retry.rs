//! Retries while a store is overloaded or unreachable: backoff with jitter, limits, cancellation and log lines of one job.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::s3::{Reason, StoreError};
use snapdeck_model::Error;

/// Shortest and longest delay between two tries of one call, before jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(125), Duration::from_secs(20));
/// Limit of calls outside a job, of a store that has not answered the job before, and of errors other than overload and
/// lost connections: these seldom heal.
const SHORT_LIMIT: Duration = Duration::from_secs(4);
/// A store that fails for less than this is not reported.
const REPORT_AFTER: Duration = Duration::from_secs(2);
/// Retries of one job. Each successful call gives one back, so that only a store that fails more than it succeeds
/// exhausts it (AWS, "Retry behavior": retry quota).
const BUDGET: u32 = 1000;

/// Retry policy of the calls of one job, or of none.
///
/// The time limit counts from the first failure after the latest success of any call: parts that are sent side by side
/// give up together.
#[derive(Clone)]
pub struct StoreRetry {
    limit: Duration,
    cancel: CancellationToken,
    on_change: Arc<dyn Fn(bool, String) + Send + Sync>,
    state: Arc<Mutex<State>>,
}

struct State {
    has_answered: bool,
    failing_since: Option<Instant>,
    is_reported: bool,
    budget: u32,
}

impl StoreRetry {
    /// Returns a policy that retries for at most `limit` without a success, until cancelled. `on_change` gets `true` and
    /// the cause when the store has failed for a while, `false` when it answers again.
    pub fn new(
        limit: Duration,
        cancel: CancellationToken,
        on_change: Arc<dyn Fn(bool, String) + Send + Sync>,
    ) -> Self {
        let state = State {
            has_answered: false,
            failing_since: None,
            is_reported: false,
            budget: BUDGET,
        };
        Self {
            limit,
            cancel,
            on_change,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Returns a policy for calls outside a job: a few retries within seconds.
    pub(crate) fn short() -> Self {
        Self::new(SHORT_LIMIT, CancellationToken::new(), Arc::new(|_, _| {}))
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
    /// The last try's; `Cancelled` if the job is cancelled during a delay.
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

    /// Waits before the next try.
    ///
    /// # Errors
    /// `failure` if it is not retried; `Cancelled`.
    pub(crate) async fn wait_after(
        &self,
        failure: StoreError,
        retries: &mut Retries,
    ) -> Result<(), StoreError> {
        let StoreError { reason, error } = &failure;
        if !error.is_retryable() || self.cancel.is_cancelled() {
            return Err(failure);
        }
        let delay = retries.next_delay();
        let report = {
            let mut state = self.lock();
            let limit = match reason {
                Reason::Overloaded => self.limit,
                Reason::NoAnswer if state.has_answered => self.limit,
                _ => self.limit.min(SHORT_LIMIT),
            };
            let failing_since = state.failing_since.get_or_insert_with(Instant::now);
            let elapsed = failing_since.elapsed().max(
                retries
                    .failing_since
                    .get_or_insert_with(Instant::now)
                    .elapsed(),
            );
            if elapsed + delay > limit || state.budget == 0 {
                return Err(failure);
            }
            state.budget -= 1;
            let report = elapsed + delay > REPORT_AFTER && !state.is_reported;
            state.is_reported |= report;
            report
        };
        tracing::debug!(?delay, %error, "retrying a call to the store");
        if report {
            let minutes = self.limit.as_secs().div_ceil(60);
            let cause = error.message();
            (self.on_change)(
                true,
                format!("waiting for the store, up to {minutes} min: {cause}"),
            );
        }
        tokio::select! {
            () = sleep(delay) => Ok(()),
            () = self.cancel.cancelled() => Err(Error::cancelled(error.message()).into()),
        }
    }

    /// Notes that the store has done what it was asked for.
    pub(crate) fn mark_success(&self) {
        let was_reported = {
            let mut state = self.lock();
            state.has_answered = true;
            state.failing_since = None;
            state.budget = (state.budget + 1).min(BUDGET);
            std::mem::take(&mut state.is_reported)
        };
        if was_reported {
            (self.on_change)(false, "the store answers again".into());
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
    use super::*;
    use snapdeck_model::Kind;
    use std::future::ready;

    type Log = Arc<Mutex<Vec<bool>>>;

    fn policy(limit: Duration) -> (StoreRetry, CancellationToken, Log) {
        let (cancel, log) = (CancellationToken::new(), Log::default());
        let changes = log.clone();
        let on_change = move |is_waiting, _| {
            changes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(is_waiting);
        };
        let policy = StoreRetry::new(limit, cancel.clone(), Arc::new(on_change));
        (policy, cancel, log)
    }

    fn failure(reason: Reason) -> StoreError {
        let error = Error::new(Kind::Failed, "cannot upload").retryable();
        StoreError { reason, error }
    }

    async fn fail_for(
        policy: &StoreRetry,
        reason: Reason,
        time: Duration,
    ) -> (Result<(), Error>, u32) {
        let (start, mut tries) = (Instant::now(), 0);
        let call = || {
            tries += 1;
            ready(match start.elapsed() < time {
                true => Err(failure(reason)),
                false => Ok(()),
            })
        };
        let result = policy.call(call).await;
        (result.map_err(Error::from), tries)
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_overloaded_for_minutes_is_waited_for() {
        let (policy, _, log) = policy(Duration::from_secs(300));
        let (result, tries) = fail_for(&policy, Reason::Overloaded, Duration::from_secs(240)).await;
        assert_eq!(result, Ok(()));
        assert!((12..80).contains(&tries), "{tries}");
        assert_eq!(
            *log.lock().unwrap_or_else(PoisonError::into_inner),
            [true, false]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_after_the_limit() {
        let (policy, ..) = policy(Duration::from_secs(300));
        let start = Instant::now();
        let (result, _) = fail_for(&policy, Reason::Overloaded, Duration::from_secs(3600)).await;
        assert_eq!(result, Err(failure(Reason::Overloaded).error));
        assert!(
            (270..=300).contains(&start.elapsed().as_secs()),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_failure_is_not_reported() {
        let (policy, _, log) = policy(Duration::from_secs(300));
        let (result, _) = fail_for(&policy, Reason::Overloaded, Duration::from_millis(300)).await;
        assert_eq!(result, Ok(()));
        assert!(
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_job_does_not_wait() {
        let (policy, cancel, _) = policy(Duration::from_secs(300));
        let canceller = async {
            sleep(Duration::from_secs(30)).await;
            cancel.cancel();
        };
        let start = Instant::now();
        let failing = fail_for(&policy, Reason::Overloaded, Duration::from_secs(3600));
        let ((result, _), ()) = tokio::join!(failing, canceller);
        assert_eq!(result.map_err(|error| error.kind()), Err(Kind::Cancelled));
        assert_eq!(start.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_store_that_has_answered_is_waited_for_when_it_is_lost() {
        let (policy, ..) = policy(Duration::from_secs(300));
        let minute = Duration::from_secs(60);
        let (result, _) = fail_for(&policy, Reason::NoAnswer, minute).await;
        assert!(result.is_err());
        policy.mark_success();
        let (result, _) = fail_for(&policy, Reason::NoAnswer, minute).await;
        assert_eq!(result, Ok(()));
        let (result, _) = fail_for(&policy, Reason::Other, minute).await;
        assert!(result.is_err());
    }

    #[tokio::test]
    async fn a_permanent_error_is_not_retried() {
        let (policy, ..) = policy(Duration::from_secs(300));
        let mut tries = 0;
        let call = async || {
            tries += 1;
            Err::<(), _>(StoreError::from(Error::new(
                Kind::Conflict,
                "cannot upload",
            )))
        };
        assert!(policy.call(call).await.is_err());
        assert_eq!(tries, 1);
    }
}
