//! Progress of a job: a small `Copy` struct, written by the worker and sampled by front ends.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

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
    /// Verifying the image.
    Verifying,
    /// Renaming it into place.
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
    const ALL: [Self; 15] = [
        Self::Queued,
        Self::Checking,
        Self::Pausing,
        Self::Converting,
        Self::Uploading,
        Self::Downloading,
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
}

/// Progress as written by a worker: plain atomics, so that a hot loop never blocks and wakes no reader.
#[derive(Debug)]
pub struct ProgressCell {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl Default for ProgressCell {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Queued as u8),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }
    }
}

impl ProgressCell {
    /// Enters `phase` with `total_bytes` to do (0: unknown).
    pub fn enter(&self, phase: Phase, total_bytes: u64) {
        self.done.store(0, Relaxed);
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

    /// Sets the bytes done in this phase; they decrease when a part is uploaded again.
    pub fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    /// Returns the current progress.
    pub fn sample(&self) -> Progress {
        Progress {
            phase: Phase::ALL[usize::from(self.phase.load(Relaxed)).min(Phase::ALL.len() - 1)],
            done_bytes: self.done.load(Relaxed),
            total_bytes: self.total.load(Relaxed),
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
    fn cell_returns_every_phase() {
        for phase in Phase::ALL {
            let cell = ProgressCell::default();
            cell.enter(phase, 1);
            assert_eq!(cell.sample().phase, phase);
        }
    }
}
