//! What uploads and downloads share: how big parts are, how many move at once, how each is tried
//! again, and the loop that drives them.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::meter::{ByteCounter, Meter};
use snapdeck_model::{BLOCK_BYTES, Error, Kind, ProgressCell, Result};

const MIB: u64 = 1024 * 1024;
/// Smallest part: S3 takes 5 MiB, 8 MiB is what clients settle on.
pub(super) const MIN_PART_BYTES: u64 = BLOCK_BYTES;
/// Most parts of an upload (S3 user guide, "Amazon S3 multipart upload limits").
const MAX_PARTS: u64 = 10_000;
/// Parts of an upload in memory at once, at most.
pub const MAX_PARTS_IN_MEMORY: usize = 8;
/// Their bytes: the program itself takes half as many, and 128 MiB are all there is.
const MAX_MEMORY_BYTES: u64 = 64 * MIB;
/// Tries of one part.
const MAX_ATTEMPTS: u32 = 5;
/// A try that moves no byte for so long is given up. Longer than it takes to empty a deep socket
/// buffer over a slow line, which looks the same from here.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often progress is written.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of each part but the last: equal, not more than 10,000 of them, and whole blocks of a manifest.
pub fn part_size(total: u64) -> u64 {
    total
        .div_ceil(MAX_PARTS)
        .next_multiple_of(MIN_PART_BYTES)
        .max(MIN_PART_BYTES)
}

/// How many parts of that size may be in memory at once.
pub(super) fn max_parts_in_memory(part: u64) -> usize {
    (MAX_MEMORY_BYTES / part).clamp(1, MAX_PARTS_IN_MEMORY as u64) as usize
}

/// One part or range of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// From 0.
    pub(super) index: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A transfer of `total` bytes in parts of `size`.
pub(super) struct Transfer<'a> {
    pub(super) description: String,
    pub(super) total_bytes: u64,
    pub(super) part_bytes: u64,
    pub(super) progress: &'a ProgressCell,
    pub(super) cancel: &'a CancellationToken,
    pub(super) meter: Meter,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        what: String,
        total: u64,
        size: u64,
        progress: &'a ProgressCell,
        cancel: &'a CancellationToken,
    ) -> Self {
        Self {
            description: what,
            total_bytes: total,
            part_bytes: size,
            progress,
            cancel,
            meter: Meter::default(),
        }
    }

    fn part(&self, index: u64) -> Part {
        let offset = index * self.part_bytes;
        Part {
            index,
            offset,
            length: self.part_bytes.min(self.total_bytes - offset),
        }
    }

    /// Moves the parts of these numbers by `each`, in their order, `most` at once; ends at the first error or when it is
    /// cancelled, dropping what is on its way.
    pub(super) async fn drive<T, F: Future<Output = Result<T>>>(
        &self,
        parts: impl Iterator<Item = u64>,
        most: usize,
        each: impl Fn(Part) -> F,
    ) -> Result<Vec<T>> {
        let mut done = Vec::new();
        let mut moving = FuturesUnordered::new();
        let mut ahead = parts.map(|index| self.part(index));
        self.run_with_progress(async {
            loop {
                while moving.len() < most
                    && let Some(part) = ahead.next()
                {
                    moving.push(each(part));
                }
                match moving.next().await {
                    Some(outcome) => done.push(outcome?),
                    None => return Ok(done),
                }
            }
        })
        .await
    }

    /// Does `work`, telling progress meanwhile; ends when it is cancelled, dropping it.
    pub(super) async fn run_with_progress<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut tick = interval(PROGRESS_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let tell = || self.progress.set_done(self.meter.total());
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(self.cancelled_error().into()),
                _ = tick.tick() => tell(),
                outcome = &mut work => {
                    tell();
                    return outcome;
                }
            }
        }
    }

    /// Waits for `work` unless the operator cancels.
    pub(super) async fn run_until_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.run_until_cancelled_with_grace(Duration::ZERO, work)
            .await
    }

    /// Waits for `work`, and `grace` longer when the operator cancels.
    pub(super) async fn run_until_cancelled_with_grace<T>(
        &self,
        grace: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let over = async {
            self.cancel.cancelled().await;
            sleep(grace).await;
        };
        tokio::select! {
            outcome = work => outcome,
            () = over => Err(self.cancelled_error()),
        }
    }

    pub(super) fn cancelled_error(&self) -> Error {
        Error::cancelled(self.description.clone())
    }

    /// Tries `attempt` until it succeeds, fails for good, or has been tried often enough.
    pub(super) async fn retry<T, F: Future<Output = Result<T>>>(
        &self,
        part: Part,
        attempt: impl Fn(ByteCounter) -> F,
    ) -> Result<T> {
        let mut tried = 0;
        loop {
            let count = self.meter.begin(part.index);
            let outcome = tokio::select! {
                outcome = attempt(count.clone()) => outcome,
                () = wait_for_stall(&count) => Err(self.stalled_error()),
            };
            tried += 1;
            match outcome {
                Ok(value) => {
                    self.meter.finish(part.index, part.length);
                    return Ok(value);
                }
                Err(error) if error.is_retryable() && tried < MAX_ATTEMPTS => {
                    tracing::debug!(part = part.index, tried, %error, "trying a part again");
                    self.meter.begin(part.index);
                    sleep(backoff(tried)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn stalled_error(&self) -> Error {
        Error::new(
            Kind::Unreachable,
            format!("{} stands still", self.description),
        )
        .with_cause(format!("no byte moved for {} s", STALL_TIMEOUT.as_secs()))
        .hint("check the network to the store")
        .retryable()
    }
}

/// Returns when `count` has not moved for [`STALL_TIMEOUT`].
async fn wait_for_stall(count: &ByteCounter) {
    let mut seen = count.load(Relaxed);
    loop {
        sleep(STALL_TIMEOUT).await;
        let now = count.load(Relaxed);
        if now == seen {
            return;
        }
        seen = now;
    }
}

/// The wait before the next try: doubled each time, up to half of it by chance, so that parts that
/// failed together do not come back together.
pub(super) fn backoff(tried: u32) -> Duration {
    let base = Duration::from_millis(250) * 2_u32.pow(tried.min(5) - 1);
    base / 2 + base.mul_f64(0.5 * (random() % 1000) as f64 / 1000.0)
}

/// A number nobody can guess from the last: the standard library seeds its hashers from the system.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_so_that_there_are_not_too_many() {
        for total in [
            0,
            1,
            MIN_PART_BYTES,
            MIN_PART_BYTES + 1,
            80 << 30,
            81 << 30,
            1 << 40,
            5 << 40,
        ] {
            let size = part_size(total);
            assert!((MIN_PART_BYTES..=5 << 30).contains(&size));
            assert!(total.div_ceil(size) <= MAX_PARTS, "{total}");
        }
        assert_eq!(part_size(40 << 30), MIN_PART_BYTES);
    }

    #[test]
    fn big_parts_move_fewer_at_once() {
        assert_eq!(max_parts_in_memory(MIN_PART_BYTES), 8);
        assert_eq!(max_parts_in_memory(24 * MIB), 2);
        assert_eq!(max_parts_in_memory(525 * MIB), 1);
    }

    #[test]
    fn waits_grow_and_stay_short() {
        for tried in 1..MAX_ATTEMPTS {
            assert!(backoff(tried) <= Duration::from_secs(4));
        }
        assert!(backoff(4) > backoff(1));
    }
}
