//! One cell of the matrix: what a place has of a snapshot, and what goes on there.

use std::sync::Arc;
use std::time::Instant;

use super::lookup;
use snapdeck_engine::{BucketView, HostView, JobState, JobView, Link, View};
use snapdeck_model::{Error, HostName, Kind, Object, Operation, Outcome, Snapshot, SnapshotName};

/// Where a snapshot can be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The bucket.
    Bucket,
    /// A host.
    Host(HostName),
}

impl Place {
    /// Its name on screen.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Bucket => "bucket",
            Self::Host(host) => host.as_str(),
        }
    }
}

/// What a place has of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It was never seen.
    Unknown,
    /// It has none.
    Absent,
    /// It has it.
    Present {
        /// Bytes of the file or object.
        bytes: u64,
        /// Sandboxes that stand on it.
        dependents: usize,
        /// The bucket has one of another size.
        differs: bool,
    },
    /// It has a file that is not fit to be a snapshot, and why.
    Damaged(String),
}

impl State {
    /// What a host has.
    pub(crate) fn of_host(
        host: &HostView,
        found: Option<&Snapshot>,
        object_bytes: Option<u64>,
    ) -> Self {
        match found {
            None if host.last_scan.is_none() => Self::Unknown,
            None => Self::Absent,
            Some(found) => match &found.problem {
                Some(problem) => Self::Damaged(problem.clone()),
                None => Self::Present {
                    bytes: found.size_bytes,
                    dependents: found.dependents.len(),
                    differs: object_bytes.is_some_and(|bytes| bytes != found.size_bytes),
                },
            },
        }
    }

    /// What the bucket has.
    pub(crate) fn of_bucket(bucket: &BucketView, found: Option<&Object>) -> Self {
        match found {
            None if bucket.last_listing.is_none() => Self::Unknown,
            None => Self::Absent,
            Some(found) => Self::Present {
                bytes: found.size_bytes,
                dependents: 0,
                differs: false,
            },
        }
    }
}

/// One cell.
#[derive(Debug)]
pub(crate) struct Cell<'a> {
    /// What is there.
    pub state: State,
    /// Is that only what was seen last?
    pub stale: bool,
    /// Has it come by a pull since then?
    pub pulled_since_scan: bool,
    /// The last job that was about it.
    pub job: Option<&'a Arc<JobView>>,
}

impl<'a> Cell<'a> {
    /// What was seen at `seen` through `link`, and the last job.
    pub(crate) fn new(
        state: State,
        link: &Link,
        seen: Option<Instant>,
        job: Option<&'a Arc<JobView>>,
    ) -> Self {
        let stale = lookup::is_stale(link, seen);
        let pulled = |job: &&Arc<JobView>| {
            matches!(job.state, JobState::Finished(Outcome::Pulled { .. })) && job.ended_at >= seen
        };
        Self {
            state,
            stale,
            pulled_since_scan: stale && job.as_ref().is_some_and(pulled),
            job,
        }
    }
    /// The job that is about it now.
    pub(crate) fn active_job(&self) -> Option<&Arc<JobView>> {
        self.job.filter(|job| !job.state.is_finished())
    }

    /// Why the last job failed; it stands until what was asked for has come about otherwise.
    pub(crate) fn error(&self) -> Option<&Error> {
        let job = self.job?;
        let JobState::Failed(error) = &job.state else {
            return None;
        };
        let is_here = matches!(self.state, State::Present { .. });
        let came_about = match &job.operation {
            Operation::Remove { .. } => self.state == State::Absent,
            Operation::Pull { overwrite, .. }
            | Operation::Push { overwrite, .. }
            | Operation::Create { overwrite, .. } => is_here && !overwrite,
            Operation::Verify { .. } => false,
            // They change no snapshot.
            Operation::CreateSandbox { .. } | Operation::Sandbox { .. } => true,
        };
        (error.kind() != Kind::Cancelled && !came_about).then_some(error)
    }
}

/// Where an operation changes what is there.
pub(crate) fn places(operation: &Operation) -> impl Iterator<Item = Place> {
    let (host, bucket) = match operation {
        Operation::Create { .. } | Operation::Push { .. } => (None, true),
        Operation::Pull { host, .. } => (Some(host), false),
        Operation::Remove {
            host,
            from_bucket: bucket,
            ..
        } => (host.as_ref(), *bucket),
        Operation::Verify { host, .. } => (host.as_ref(), host.is_none()),
        Operation::CreateSandbox { .. } | Operation::Sandbox { .. } => (None, false),
    };
    let host = host.map(|host| Place::Host(host.clone()));
    host.into_iter().chain(bucket.then_some(Place::Bucket))
}

/// A cell, looked up in a view alone. [`App::cell`] is faster.
pub(crate) fn cell<'a>(view: &'a View, name: &SnapshotName, place: &Place) -> Cell<'a> {
    let object = lookup::object(view, name);
    let about = |job: &&Arc<JobView>| {
        job.operation.snapshot() == Some(name)
            && places(&job.operation).any(|found| found == *place)
    };
    let job = view.jobs.iter().rev().find(about);
    match place {
        Place::Bucket => {
            let bucket = &view.bucket;
            Cell::new(
                State::of_bucket(bucket, object),
                &bucket.link,
                bucket.last_listing,
                job,
            )
        }
        Place::Host(on) => {
            let Some(host) = lookup::host(view, on) else {
                return Cell::new(State::Unknown, &Link::Connecting, None, job);
            };
            let found = lookup::snapshot(view, on, name);
            let bytes = object.map(|object| object.size_bytes);
            Cell::new(
                State::of_host(host, found, bytes),
                &host.link,
                host.last_scan,
                job,
            )
        }
    }
}
