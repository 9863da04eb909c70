//! A cell of the matrix: the state of a snapshot in one place, and its last job.

use std::sync::Arc;
use std::time::Instant;

use super::lookup;
use snapdeck_engine::{BucketView, HostView, JobState, JobView, Link, View};
use snapdeck_model::{Error, HostName, Kind, Object, Operation, Outcome, Snapshot, SnapshotName};

/// A location of snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Bucket,
    Host(HostName),
}

impl Place {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Bucket => "bucket",
            Self::Host(host) => host.as_str(),
        }
    }
}

/// The state of a snapshot in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// The place was never scanned.
    Unknown,
    Absent,
    Present {
        bytes: u64,
        /// Number of sandboxes based on it.
        dependents: usize,
        /// The object in the bucket has another size.
        differs: bool,
    },
    /// The file is not a usable snapshot, for this reason.
    Damaged(String),
}

impl State {
    pub(crate) fn of_host(
        host: &HostView,
        snapshot: Option<&Snapshot>,
        object_bytes: Option<u64>,
    ) -> Self {
        match snapshot {
            None if host.last_scan.is_none() => Self::Unknown,
            None => Self::Absent,
            Some(snapshot) => match &snapshot.problem {
                Some(problem) => Self::Damaged(problem.clone()),
                None => Self::Present {
                    bytes: snapshot.size_bytes,
                    dependents: snapshot.dependents.len(),
                    differs: object_bytes.is_some_and(|bytes| bytes != snapshot.size_bytes),
                },
            },
        }
    }

    pub(crate) fn of_bucket(bucket: &BucketView, object: Option<&Object>) -> Self {
        match object {
            None if bucket.last_listing.is_none() => Self::Unknown,
            None => Self::Absent,
            Some(object) => match &object.problem {
                Some(problem) => Self::Damaged(problem.clone()),
                None => Self::Present {
                    bytes: object.size_bytes,
                    dependents: 0,
                    differs: false,
                },
            },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Cell<'a> {
    pub state: State,
    /// The place is unreachable: this is the last known state.
    pub stale: bool,
    /// A pull to the place has finished since the last scan.
    pub pulled_since_scan: bool,
    /// The last job about the cell.
    pub job: Option<&'a Arc<JobView>>,
}

impl<'a> Cell<'a> {
    pub(crate) fn new(
        state: State,
        link: &Link,
        last_scan: Option<Instant>,
        job: Option<&'a Arc<JobView>>,
    ) -> Self {
        let stale = lookup::is_stale(link, last_scan);
        let pulled = |job: &&Arc<JobView>| {
            matches!(
                job.state,
                JobState::Finished(Outcome::Pulled { .. } | Outcome::Copied { .. })
            ) && job.ended_at >= last_scan
        };
        Self {
            state,
            stale,
            pulled_since_scan: stale && job.as_ref().is_some_and(pulled),
            job,
        }
    }

    /// Returns the job about the cell that is not finished.
    pub(crate) fn active_job(&self) -> Option<&Arc<JobView>> {
        self.job.filter(|job| !job.state.is_finished())
    }

    /// Returns the error of the last job unless the requested state has been reached in another way since.
    pub(crate) fn error(&self) -> Option<&Error> {
        let job = self.job?;
        let JobState::Failed(error) = &job.state else {
            return None;
        };
        let is_present = matches!(self.state, State::Present { .. });
        let is_resolved = match &job.operation {
            Operation::Remove { .. } => self.state == State::Absent,
            Operation::Pull { overwrite, .. }
            | Operation::Push { overwrite, .. }
            | Operation::Upload { overwrite, .. }
            | Operation::Copy { overwrite, .. }
            | Operation::Create { overwrite, .. } => is_present && !overwrite,
            Operation::Verify { .. } | Operation::Adopt { .. } => false,
            // These change no snapshot.
            Operation::CreateSandbox { .. }
            | Operation::RenameSandbox { .. }
            | Operation::CloneSandbox { .. }
            | Operation::Sandbox { .. } => true,
        };
        (error.kind() != Kind::Cancelled && !is_resolved).then_some(error)
    }
}

/// Returns the places whose snapshots an operation changes or verifies.
pub(crate) fn places(operation: &Operation) -> impl Iterator<Item = Place> {
    let (host, bucket) = match operation {
        Operation::Create { .. } | Operation::Push { .. } | Operation::Upload { .. } => {
            (None, true)
        }
        Operation::Pull { host, .. } | Operation::Copy { host, .. } => (Some(host), false),
        Operation::Remove {
            host,
            from_bucket: bucket,
            ..
        } => (host.as_ref(), *bucket),
        Operation::Verify { host, .. } | Operation::Adopt { host, .. } => {
            (host.as_ref(), host.is_none())
        }
        Operation::CreateSandbox { .. }
        | Operation::RenameSandbox { .. }
        | Operation::CloneSandbox { .. }
        | Operation::Sandbox { .. } => (None, false),
    };
    let host = host.map(|host| Place::Host(host.clone()));
    host.into_iter().chain(bucket.then_some(Place::Bucket))
}

/// Returns a cell, by a linear search. `App::cell` is faster.
pub(crate) fn cell<'a>(view: &'a View, name: &SnapshotName, place: &Place) -> Cell<'a> {
    let object = lookup::object(view, name);
    let concerns_cell = |job: &&Arc<JobView>| {
        job.operation.snapshot() == Some(name)
            && places(&job.operation).any(|other| other == *place)
    };
    let job = view.jobs.iter().rev().find(concerns_cell);
    match place {
        Place::Bucket => {
            let bucket = &view.bucket;
            let state = State::of_bucket(bucket, object);
            Cell::new(state, &bucket.link, bucket.last_listing, job)
        }
        Place::Host(host_name) => {
            let Some(host) = lookup::host(view, host_name) else {
                return Cell::new(State::Unknown, &Link::Connecting, None, job);
            };
            let snapshot = lookup::snapshot(view, host_name, name);
            let object_bytes = object.map(|object| object.size_bytes);
            let state = State::of_host(host, snapshot, object_bytes);
            Cell::new(state, &host.link, host.last_scan, job)
        }
    }
}
