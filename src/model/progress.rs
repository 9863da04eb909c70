//! Progress of one job: one small `Copy` struct, written by the worker, sampled by whoever draws.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for its turn.
    Queued,
    /// Looking at states, names, space.
    Checking,
    /// The guest is being paused, or stands still.
    Pausing,
    /// Writing the flattened image.
    Converting,
    /// Sending to the bucket.
    Uploading,
    /// Fetching from the bucket.
    Downloading,
    /// Proving what was fetched.
    Verifying,
    /// Giving it its final name.
    Publishing,
    /// Deleting.
    Removing,
    /// Making a sandbox's files and its definition.
    Creating,
    /// Starting a guest, or letting it go on.
    Starting,
    /// Waiting until a guest has shut down.
    Stopping,
    /// Writing a guest's memory to the disk.
    Saving,
    /// Taking back what was made on the way.
    CleaningUp,
    /// Over.
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

    /// The word on screen.
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

/// A sample of a job's progress. Bytes are those of the current phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// Bytes of this phase in all; 0 where not known.
    pub total_bytes: u64,
}

impl Progress {
    /// Hundredths done of this phase, under 100 until the job is over; `None` where the total is not known.
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

/// Where a worker writes its progress: plain atomics, so that a hot loop never waits and nobody is
/// woken for a byte.
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
    /// Enters `phase` with `total_bytes` to do (0: not known).
    pub fn enter(&self, phase: Phase, total_bytes: u64) {
        self.done.store(0, Relaxed);
        self.total.store(total_bytes, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// Sets what is to do in this phase, in bytes.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
    }

    /// Adds `bytes` to what is done in this phase.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// Sets what is done in this phase, in bytes (also backwards: a part that is sent again).
    pub fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    /// The state now.
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
    fn stays_under_a_hundred_until_the_job_is_over() {
        let cell = ProgressCell::default();
        assert_eq!(cell.sample().percent(), None);
        cell.enter(Phase::Uploading, 10);
        cell.add(10);
        assert_eq!(cell.sample().percent(), Some(99));
        cell.enter(Phase::Finished, 0);
        assert_eq!(cell.sample().percent(), Some(100));
    }

    #[test]
    fn every_phase_survives_the_cell() {
        for phase in Phase::ALL {
            let cell = ProgressCell::default();
            cell.enter(phase, 1);
            assert_eq!(cell.sample().phase, phase);
        }
    }
}
