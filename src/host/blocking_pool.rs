//! Blocking calls off the async workers, each with a deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Limits concurrent blocking calls.
///
/// A call that hangs keeps its permit until it returns, so that hanging calls never take more threads than that.
#[derive(Clone)]
pub(crate) struct BlockingPool(Arc<Semaphore>);

/// The deadline passed; the call may still run.
#[derive(Debug)]
pub(crate) struct Timeout;

impl BlockingPool {
    pub(crate) fn new(max_calls: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_calls)))
    }

    /// Runs `call` on a blocking thread. Dropping the future or passing the deadline does not end it.
    ///
    /// # Errors
    /// [`Timeout`] after `deadline`, including the wait for a permit. Panics if `call` panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Timeout> {
        let semaphore = self.0.clone();
        let outcome = async {
            let permit = semaphore.acquire_owned().await.map_err(|_| Timeout)?;
            let task = tokio::task::spawn_blocking(move || {
                let result = call();
                drop(permit);
                result
            });
            match task.await {
                Ok(result) => Ok(result),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime shuts down.
                    Err(_) => Err(Timeout),
                },
            }
        };
        timeout(deadline, outcome).await.unwrap_or(Err(Timeout))
    }
}
