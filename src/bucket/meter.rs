//! Counts bytes as they move, so that a part that is uploaded twice counts once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of one attempt of one part.
pub(super) type ByteCounter = Arc<AtomicU64>;

/// Bytes of one transfer: of finished parts, and of the current attempt of the others.
#[derive(Default)]
pub(super) struct Meter {
    parts: Mutex<HashMap<u64, ByteCounter>>,
}

impl Meter {
    /// Begins an attempt of `part`. Bytes of earlier attempts no longer count, even if an abandoned
    /// connection still moves some.
    pub(super) fn begin(&self, part: u64) -> ByteCounter {
        let count = ByteCounter::default();
        self.lock().insert(part, count.clone());
        count
    }

    pub(super) fn finish(&self, part: u64, bytes: u64) {
        self.lock().insert(part, Arc::new(AtomicU64::new(bytes)));
    }

    pub(super) fn remove(&self, part: u64) {
        self.lock().remove(&part);
    }

    pub(super) fn total(&self) -> u64 {
        self.lock().values().map(|count| count.load(Relaxed)).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, ByteCounter>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_sent_twice_counts_once() {
        let meter = Meter::default();
        let first = meter.begin(1);
        first.fetch_add(50, Relaxed);
        assert_eq!(meter.total(), 50);
        let second = meter.begin(1);
        first.fetch_add(50, Relaxed);
        second.fetch_add(10, Relaxed);
        assert_eq!(meter.total(), 10);
        meter.finish(1, 100);
        assert_eq!(meter.total(), 100);
        meter.begin(1);
        assert_eq!(meter.total(), 0);
    }
}
