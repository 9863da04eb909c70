//! Limits how many SSH log-ins run at once. A server refuses some of those beyond `MaxStartups` (sshd_config(5): 10 by
//! default), and a jump host sees those to all hosts behind it.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

/// Below the default of `MaxStartups`.
const MAX_LOGINS: usize = 8;
/// After so long a log-in counts as hanging and gives its place to another, so that hosts that are down delay no other.
const HANGING: Duration = Duration::from_secs(1);
/// Limit of the wait for a place; then a log-in runs without one.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);

static PLACES: Semaphore = Semaphore::const_new(MAX_LOGINS);

/// A place for one log-in.
pub(crate) struct Place {
    _permit: Option<SemaphorePermit<'static>>,
}

/// Waits for a place.
pub(crate) async fn enter() -> Place {
    let permit = timeout(MAX_WAIT, PLACES.acquire()).await;
    Place {
        _permit: permit.ok().and_then(Result::ok),
    }
}

impl Place {
    /// Runs `log_in`, and gives the place away when that ends or hangs.
    pub(crate) async fn run<T>(self, log_in: impl Future<Output = T>) -> T {
        let mut log_in = std::pin::pin!(log_in);
        tokio::select! {
            biased;
            result = &mut log_in => return result,
            () = sleep(HANGING) => drop(self),
        }
        log_in.await
    }
}
