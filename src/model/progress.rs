//! Progress of a job: a small `Copy` struct, written by the worker and sampled by front ends.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

use jiff::Timestamp;

use crate::names::HostName;

/// Phase of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting in the queue.
    Queued,
    /// Checking states, names and space.
    Checking,
    /// The guest is being paused or is paused.
    Pausing,
    /// Writing the converted image.
    Converting,
    /// Uploading to the bucket.
    Uploading,
    /// Downloading from the bucket.
    Downloading,
    /// Computing the digests of an image whose digests are unknown.
    Hashing,
    /// Verifying the image.
    Verifying,
    /// Giving the image its name: a file is renamed, an object completed by the store.
    Publishing,
    /// Deleting.
    Removing,
    /// Creating a sandbox's files and domain.
    Creating,
    /// Starting or resuming a guest.
    Starting,
    /// Waiting for a guest to shut down.
    Stopping,
    /// Writing a guest's memory to disk.
    Saving,
    /// Removing temporary files and uploads.
    CleaningUp,
    /// Finished.
    Finished,
}

impl Phase {
    const ALL: [Self; 16] = [
        Self::Queued,
        Self::Checking,
        Self::Pausing,
        Self::Converting,
        Self::Uploading,
        Self::Downloading,
        Self::Hashing,
        Self::Verifying,
        Self::Publishing,
        Self::Removing,
        Self::Creating,
        Self::Starting,
        Self::Stopping,
        Self::Saving,
        Self::CleaningUp,
        Self::Finished,
    ];

    /// Returns the word on screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Checking => "checking",
            Self::Pausing => "pausing",
            Self::Converting => "converting",
            Self::Uploading => "uploading",
            Self::Downloading => "downloading",
            Self::Hashing => "hashing",
            Self::Verifying => "verifying",
            Self::Publishing => "publishing",
            Self::Removing => "removing",
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Saving => "saving",
            Self::CleaningUp => "cleaning up",
            Self::Finished => "finished",
        }
    }
}

/// Sample of a job's progress in its current phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The phase.
    pub phase: Phase,
    /// Bytes done.
    pub done_bytes: u64,
    /// Total bytes; 0: unknown.
    pub total_bytes: u64,
    /// Bytes of `done_bytes` that were not transferred: an earlier job has written them, or they are shared with another
    /// file. They count neither into the rate nor into the remaining time.
    pub reused_bytes: u64,
    /// Bytes of `done_bytes` that went straight between the host and the store, not through this machine.
    pub direct_bytes: u64,
    /// Set while the job waits for its host or the store; it transfers nothing then.
    pub wait: Option<Wait>,
}

/// Target of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitTarget {
    /// The host of the job, which is unreachable.
    Host,
    /// The store, which is unreachable or overloaded.
    Store,
}

/// A wait for something that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The host or the store.
    pub target: WaitTarget,
    /// When the job gives up.
    pub until: Timestamp,
}

impl Wait {
    /// Returns what a job of `host` waits for: `waiting for host alpha`.
    pub fn label(&self, host: Option<&HostName>) -> String {
        match (self.target, host) {
            (WaitTarget::Host, Some(host)) => format!("waiting for host {host}"),
            (WaitTarget::Host, None) => "waiting for the host".to_owned(),
            (WaitTarget::Store, _) => "waiting for the store".to_owned(),
        }
    }
}

/// A change of the wait of a job for its host or the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitChange {
    /// It begins.
    Started {
        /// Cause and limit, for the log of the job.
        text: String,
        /// When the job gives up.
        until: Timestamp,
    },
    /// The target answers again.
    Ended {
        /// Line for the log of the job.
        text: String,
    },
    /// The limit is reached.
    GivenUp,
}

impl Progress {
    /// Returns the percentage of this phase, at most 99 until the job is finished; `None` if the total is unknown.
    pub fn percent(&self) -> Option<u8> {
        if self.phase == Phase::Finished {
            return Some(100);
        }
        if self.total_bytes == 0 {
            return None;
        }
        let percent = u128::from(self.done_bytes) * 100 / u128::from(self.total_bytes);
        Some(percent.min(99) as u8)
    }

    /// Returns the bytes that were transferred in this phase.
    pub fn transferred_bytes(&self) -> u64 {
        self.done_bytes.saturating_sub(self.reused_bytes)
    }
}

/// Progress as written by a worker: plain atomics, so that a hot loop never blocks and wakes no reader.
#[derive(Debug)]
pub struct ProgressCell {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    reused: AtomicU64,
    direct: AtomicU64,
    /// Unix times in seconds; 0: no wait.
    host_wait: AtomicI64,
    store_wait: AtomicI64,
    was_host_lost: AtomicBool,
}

impl Default for ProgressCell {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Queued as u8),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            direct: AtomicU64::new(0),
            host_wait: AtomicI64::new(0),
            store_wait: AtomicI64::new(0),
            was_host_lost: AtomicBool::new(false),
        }
    }
}

impl ProgressCell {
    /// Enters `phase` with `total_bytes` to do (0: unknown).
    pub fn enter(&self, phase: Phase, total_bytes: u64) {
        self.resume(phase, total_bytes, 0);
    }

    /// Enters `phase` with `total_bytes` to do, of which `reused_bytes` need no transfer.
    pub fn resume(&self, phase: Phase, total_bytes: u64, reused_bytes: u64) {
        self.done.store(reused_bytes, Relaxed);
        self.reused.store(reused_bytes, Relaxed);
        self.direct.store(0, Relaxed);
        self.total.store(total_bytes, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// Sets the total bytes of this phase.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
    }

    /// Adds to the bytes done in this phase.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// Adds to the bytes that went straight between the host and the store.
    pub fn add_direct(&self, bytes: u64) {
        self.direct.fetch_add(bytes, Relaxed);
    }

    /// Sets the bytes done in this phase; they decrease when a part is uploaded again.
    pub fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    /// Records a change of the wait for `target`.
    pub fn set_wait(&self, target: WaitTarget, change: &WaitChange) {
        let seconds = match change {
            WaitChange::Started { until, .. } => until.as_second().max(1),
            WaitChange::Ended { .. } | WaitChange::GivenUp => 0,
        };
        match target {
            WaitTarget::Host => {
                if seconds > 0 {
                    self.was_host_lost.store(true, Relaxed);
                }
                self.host_wait.store(seconds, Relaxed);
            }
            WaitTarget::Store => self.store_wait.store(seconds, Relaxed),
        }
    }

    /// Returns whether the job has waited for its host.
    pub fn was_host_lost(&self) -> bool {
        self.was_host_lost.load(Relaxed)
    }

    fn wait(&self) -> Option<Wait> {
        let waits = [
            (WaitTarget::Host, &self.host_wait),
            (WaitTarget::Store, &self.store_wait),
        ];
        waits.into_iter().find_map(|(target, seconds)| {
            let seconds = Some(seconds.load(Relaxed)).filter(|seconds| *seconds > 0)?;
            let until = Timestamp::from_second(seconds).ok()?;
            Some(Wait { target, until })
        })
    }

    /// Returns the current progress.
    pub fn sample(&self) -> Progress {
        Progress {
            phase: Phase::ALL[usize::from(self.phase.load(Relaxed)).min(Phase::ALL.len() - 1)],
            done_bytes: self.done.load(Relaxed),
            total_bytes: self.total.load(Relaxed),
            reused_bytes: self.reused.load(Relaxed),
            direct_bytes: self.direct.load(Relaxed),
            wait: self.wait(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_is_under_100_until_the_job_is_finished() {
        let cell = ProgressCell::default();
        assert_eq!(cell.sample().percent(), None);
        cell.enter(Phase::Uploading, 10);
        cell.add(10);
        assert_eq!(cell.sample().percent(), Some(99));
        cell.enter(Phase::Finished, 0);
        assert_eq!(cell.sample().percent(), Some(100));
    }

    #[test]
    fn a_wait_is_shown_until_it_ends_and_reused_bytes_are_not_transferred() {
        let cell = ProgressCell::default();
        cell.resume(Phase::Downloading, 100, 40);
        cell.set_done(55);
        assert_eq!(cell.sample().done_bytes, 55);
        assert_eq!(cell.sample().transferred_bytes(), 15);
        assert_eq!((cell.sample().wait, cell.was_host_lost()), (None, false));
        let until = Timestamp::from_second(1_800_000_000).unwrap_or_default();
        let started = WaitChange::Started {
            text: "lost".into(),
            until,
        };
        for target in [WaitTarget::Store, WaitTarget::Host] {
            cell.set_wait(target, &started);
            assert_eq!(cell.sample().wait, Some(Wait { target, until }));
        }
        cell.enter(Phase::CleaningUp, 0);
        assert!(cell.sample().wait.is_some());
        cell.set_wait(WaitTarget::Store, &WaitChange::GivenUp);
        let ended = WaitChange::Ended { text: "up".into() };
        cell.set_wait(WaitTarget::Host, &ended);
        assert_eq!((cell.sample().wait, cell.was_host_lost()), (None, true));
    }

    #[test]
    fn cell_returns_every_phase() {
        for phase in Phase::ALL {
            let cell = ProgressCell::default();
            cell.enter(phase, 1);
            assert_eq!(cell.sample().phase, phase);
        }
    }
}
