//! Blocking calls on threads of their own, each with a deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A few threads' worth of blocking calls. A call that hangs keeps its place until it returns, so that what
/// hangs can never take more than these.
#[derive(Clone)]
pub(crate) struct BlockingPool(Arc<Semaphore>);

/// The deadline passed; the call may still be under way.
#[derive(Debug)]
pub(crate) struct Timeout;

impl BlockingPool {
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Runs `call` off the async workers. Dropping the future or passing the deadline does not end `call`.
    ///
    /// # Errors
    /// [`Timeout`] after `deadline`, the wait for a place included. A panic of `call` goes on here.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Timeout> {
        let places = self.0.clone();
        let called = async {
            let place = places.acquire_owned().await.map_err(|_| Timeout)?;
            let call = tokio::task::spawn_blocking(move || {
                let result = call();
                drop(place);
                result
            });
            match call.await {
                Ok(result) => Ok(result),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is ending.
                    Err(_) => Err(Timeout),
                },
            }
        };
        timeout(deadline, called).await.unwrap_or(Err(Timeout))
    }
}
