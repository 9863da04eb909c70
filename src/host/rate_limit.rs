//! Limit of the bytes that image transfers of a host move in a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A limit that all transfers of a host share.
#[derive(Debug)]
pub(crate) struct RateLimit {
    bytes_per_sec: u64,
    /// When all bytes that were taken have passed.
    free_at: Mutex<Instant>,
}

impl RateLimit {
    /// Creates a limit of `bytes_per_sec`; 0: none.
    pub(crate) fn new(bytes_per_sec: u64) -> Self {
        Self {
            bytes_per_sec,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Returns the limit.
    pub(crate) fn bytes_per_sec(&self) -> Option<u64> {
        Some(self.bytes_per_sec).filter(|limit| *limit > 0)
    }

    /// Waits until all bytes that were taken before have passed, then takes `bytes`.
    pub(crate) async fn take(&self, bytes: u64) {
        if let Some(start) = self.book(bytes, Instant::now()) {
            sleep_until(start).await;
        }
    }

    /// Gives back `bytes` that were taken and did not pass.
    pub(crate) fn give_back(&self, bytes: u64) {
        let Some(limit) = self.bytes_per_sec() else {
            return;
        };
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = Duration::from_secs_f64(bytes as f64 / limit as f64);
        *free_at = free_at.checked_sub(taken).unwrap_or_else(Instant::now);
    }

    /// Returns when `bytes` that are taken `now` may pass; `None` without a limit.
    fn book(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let seconds = bytes as f64 / self.bytes_per_sec()? as f64;
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = now.max(*free_at);
        *free_at = start + Duration::from_secs_f64(seconds);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_the_rate_of_the_limit() {
        let limit = RateLimit::new(1 << 20);
        let now = Instant::now();
        let after = |seconds| Some(now + Duration::from_secs(seconds));
        assert_eq!(limit.book(2 << 20, now), after(0));
        assert_eq!(limit.book(1 << 20, now), after(2));
        assert_eq!(limit.book(1 << 20, now), after(3));
        limit.give_back(2 << 20);
        assert_eq!(limit.book(1 << 20, now), after(2));
        // What was not used in time is lost.
        let later = now + Duration::from_secs(100);
        assert_eq!(limit.book(5 << 20, later), after(100));
        assert_eq!(limit.book(1, later), after(105));
    }

    #[test]
    fn nothing_waits_without_a_limit() {
        let limit = RateLimit::new(0);
        let now = Instant::now();
        assert_eq!(limit.book(u64::MAX, now), None);
        assert_eq!(limit.book(1, now), None);
    }
}
