//! The common part of uploads and downloads: the size of parts, how many move at a time, retries, and progress.

use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{TryStreamExt, stream};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::meter::{ByteCounter, Meter};
use super::retry::StoreRetry;
use super::s3::{Reason, StoreError};
use snapdeck_model::{BLOCK_BYTES, Error, Kind, ProgressCell, Result};

const MIB: u64 = 1024 * 1024;
/// S3 requires parts of at least 5 MiB; most clients send 8 MiB.
pub(super) const MIN_PART_BYTES: u64 = BLOCK_BYTES;
/// S3 user guide, "Amazon S3 multipart upload limits".
const MAX_PARTS: u64 = 10_000;
/// Parts of an upload in memory at a time, at most.
pub const MAX_PARTS_IN_MEMORY: usize = 8;
/// Bytes of all parts in memory: half of the 128 MiB that the whole program may take.
const MAX_MEMORY_BYTES: u64 = 64 * MIB;
/// The same for longer parts than the smallest: the tables of such an image take 20 MiB and more.
const MAX_MEMORY_BYTES_OF_LARGE: u64 = 48 * MIB;
/// An attempt that moves no byte for this long is abandoned. Longer than draining a deep socket buffer over a slow
/// connection, during which no byte is counted.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that an attempt must move in that time until it has moved all: 273 bytes a second. A store that drips would
/// hold a job for years.
const MIN_PROGRESS_BYTES: u64 = 16 * 1024;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Returns the bytes of each part but the last: equal, at most 10,000 parts, and whole blocks of a manifest.
pub fn part_size(total: u64) -> u64 {
    total
        .div_ceil(MAX_PARTS)
        .next_multiple_of(MIN_PART_BYTES)
        .max(MIN_PART_BYTES)
}

pub(super) fn max_parts_in_memory(part_bytes: u64) -> usize {
    let bytes = match part_bytes > MIN_PART_BYTES {
        // Two parts if they fit at all.
        true => MAX_MEMORY_BYTES_OF_LARGE
            .max(2 * part_bytes)
            .min(MAX_MEMORY_BYTES),
        false => MAX_MEMORY_BYTES,
    };
    (bytes / part_bytes).clamp(1, MAX_PARTS_IN_MEMORY as u64) as usize
}

/// One part or range of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// From 0.
    pub(super) index: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

pub(super) struct Transfer<'a> {
    /// For messages: "the upload of s3://lab/a.qcow2".
    pub(super) description: String,
    pub(super) total_bytes: u64,
    pub(super) part_bytes: u64,
    pub(super) progress: &'a ProgressCell,
    pub(super) cancel: &'a CancellationToken,
    pub(super) retry: StoreRetry,
    pub(super) meter: Meter,
}

impl Transfer<'_> {
    fn part(&self, index: u64) -> Part {
        let offset = index * self.part_bytes;
        Part {
            index,
            offset,
            length: self.part_bytes.min(self.total_bytes - offset),
        }
    }

    /// Moves the parts of these indexes by `transfer`, in order, `concurrency` at a time; ends at the first error or
    /// when it is cancelled, and drops unfinished ones.
    pub(super) async fn for_each_part<F: Future<Output = Result<()>>>(
        &self,
        indexes: impl Iterator<Item = u64>,
        concurrency: usize,
        transfer: impl Fn(Part) -> F,
    ) -> Result<()> {
        let parts = stream::iter(indexes.map(|index| Ok(self.part(index))));
        self.run_with_progress(parts.try_for_each_concurrent(concurrency, transfer))
            .await
    }

    /// Runs `work` and reports progress meanwhile; ends when it is cancelled, and drops `work`.
    pub(super) async fn run_with_progress<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut tick = interval(PROGRESS_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let report = || self.progress.set_done(self.meter.total());
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(self.cancelled_error().into()),
                _ = tick.tick() => report(),
                outcome = &mut work => {
                    report();
                    return outcome;
                }
            }
        }
    }

    /// Waits for `work` until it is cancelled, and `grace` longer.
    pub(super) async fn run_until_cancelled<T>(
        &self,
        grace: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let expired = async {
            self.cancel.cancelled().await;
            sleep(grace).await;
        };
        tokio::select! {
            outcome = work => outcome,
            () = expired => Err(self.cancelled_error()),
        }
    }

    fn cancelled_error(&self) -> Error {
        Error::cancelled(self.description.clone())
    }

    /// Repeats `attempt` until it succeeds or the retry policy gives up. An attempt that stalls is dropped and counts as
    /// failed.
    pub(super) async fn retry<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        part: Part,
        attempt: impl Fn(ByteCounter) -> F,
    ) -> Result<T> {
        let watched_attempt = || async {
            let count = self.meter.begin(part.index);
            let result = tokio::select! {
                result = attempt(count.clone()) => result,
                () = wait_for_stall(&count, part.length) => Err(self.stalled_error()),
            };
            if result.is_err() {
                self.meter.remove(part.index);
            }
            result
        };
        let value = self.retry.call(watched_attempt).await?;
        self.meter.finish(part.index, part.length);
        Ok(value)
    }

    fn stalled_error(&self) -> StoreError {
        let error = Error::new(Kind::Unreachable, format!("{} stalled", self.description))
            .with_cause(format!(
                "hardly a byte moved for {} s",
                STALL_TIMEOUT.as_secs()
            ))
            .hint("check the network to the store")
            .retryable();
        StoreError {
            reason: Reason::NoResponse,
            error,
        }
    }
}

/// Returns when `count` of `length` bytes has not changed, or hardly, for [`STALL_TIMEOUT`].
async fn wait_for_stall(count: &ByteCounter, length: u64) {
    let mut previous = count.load(Relaxed);
    loop {
        sleep(STALL_TIMEOUT).await;
        let current = count.load(Relaxed);
        let moved = current.saturating_sub(previous);
        if moved == 0 || (moved < MIN_PROGRESS_BYTES && current < length) {
            return;
        }
        previous = current;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_with_the_object() {
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
    fn fewer_large_parts_are_in_memory() {
        assert_eq!(max_parts_in_memory(MIN_PART_BYTES), 8);
        assert_eq!(max_parts_in_memory(16 * MIB), 3);
        assert_eq!(max_parts_in_memory(24 * MIB), 2);
        assert_eq!(max_parts_in_memory(32 * MIB), 2);
        assert_eq!(max_parts_in_memory(525 * MIB), 1);
    }
}
