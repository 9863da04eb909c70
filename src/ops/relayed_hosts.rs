//! Hosts that could not reach the bucket by themselves, so that not every job finds that out again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snapdeck_host::{Host, is_without_answer};
use snapdeck_model::settings::TransferRoute;
use snapdeck_model::{Error, HostName};

/// After which a host tries it again: a route or a certificate may have been added.
const RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Hosts with `transfer = "auto"` that are relayed for a while, and why.
#[derive(Default)]
pub struct RelayedHosts(Mutex<HashMap<HostName, (Instant, String)>>);

impl RelayedHosts {
    /// Records that no request of a host has succeeded, if another one is likely to fail, too.
    pub(crate) fn record(&self, host: &Host, error: &Error) {
        if host.settings().transfer == TransferRoute::Auto && is_without_answer(error) {
            let entry = (Instant::now(), error.message());
            self.lock().insert(host.name().clone(), entry);
        }
    }

    /// Returns why the host is relayed.
    pub(crate) fn reason(&self, host: &Host) -> Option<String> {
        if host.settings().transfer != TransferRoute::Auto {
            return None;
        }
        let hosts = self.lock();
        let (since, reason) = hosts.get(host.name())?;
        (since.elapsed() < RETRY_AFTER).then(|| reason.clone())
    }

    /// Forgets a host: a request of it has succeeded.
    pub fn remove(&self, host: &HostName) {
        self.lock().remove(host);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostName, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
