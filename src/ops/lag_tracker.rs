//! Finds the hosts that slow down a shared download.

use std::time::Duration;

/// Interval of the updates.
pub(crate) const LAG_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Time for which a host may delay the others, less the time for which it does not: a host that delays them for less
/// than half of the time is never dropped, and one that has stopped is dropped after this time.
const MAX_LAG: Duration = Duration::from_secs(5);

/// Time by which each host has delayed the others.
pub(crate) struct LagTracker(Vec<Duration>);

impl LagTracker {
    pub(crate) fn new(hosts: usize) -> Self {
        Self(vec![Duration::ZERO; hosts])
    }

    /// Records how many blocks are queued for each host (`None`: dropped or finished); returns the hosts to drop.
    ///
    /// While the window is full, the host with the longest queue delays those whose queue is empty.
    pub(crate) fn update(
        &mut self,
        is_window_full: bool,
        queue_lengths: &[Option<usize>],
    ) -> Vec<usize> {
        let is_any_idle = is_window_full && queue_lengths.contains(&Some(0));
        let longest = queue_lengths.iter().copied().max().flatten();
        let mut laggards = Vec::new();
        for (host, (lag, length)) in self.0.iter_mut().zip(queue_lengths).enumerate() {
            *lag = match is_any_idle && length.is_some() && *length == longest {
                true => *lag + LAG_CHECK_INTERVAL,
                false => lag.saturating_sub(LAG_CHECK_INTERVAL),
            };
            if *lag >= MAX_LAG {
                laggards.push(host);
            }
        }
        laggards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Updates in `MAX_LAG`.
    const UPDATES: u128 = MAX_LAG.as_millis() / LAG_CHECK_INTERVAL.as_millis();

    #[test]
    fn a_host_that_stops_is_dropped_after_the_limit() {
        let mut tracker = LagTracker::new(3);
        let lengths = [Some(0), Some(8), Some(1)];
        for _ in 1..UPDATES {
            assert!(tracker.update(true, &lengths).is_empty());
        }
        assert_eq!(tracker.update(true, &lengths), [1]);
    }

    #[test]
    fn a_slightly_slower_host_is_not_dropped() {
        let mut tracker = LagTracker::new(2);
        for _ in 0..10 * UPDATES {
            assert!(tracker.update(true, &[Some(0), Some(8)]).is_empty());
            assert!(tracker.update(true, &[Some(1), Some(8)]).is_empty());
        }
    }

    #[test]
    fn no_host_is_dropped_while_none_is_idle_or_the_bucket_is_slow() {
        let mut tracker = LagTracker::new(2);
        for _ in 0..2 * UPDATES {
            assert!(tracker.update(true, &[Some(8), Some(8)]).is_empty());
            assert!(tracker.update(false, &[Some(0), Some(2)]).is_empty());
            assert!(tracker.update(true, &[Some(8), None]).is_empty());
        }
    }
}
