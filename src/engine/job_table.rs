//! The jobs that have not finished: their resource locks, cancellation tokens, and the jobs that they wait for.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::resource_locks::{self, Relation, ResourceLock};
use super::view::JobId;
use snapdeck_model::{Error, Kind, Result};

#[derive(Default)]
pub(super) struct JobTable {
    last_id: u64,
    active: Vec<ActiveJob>,
}

/// A job to add.
pub(super) struct NewJob<'a> {
    pub title: &'a str,
    pub locks: Vec<ResourceLock>,
    pub cancel: CancellationToken,
    pub end: JobEnd,
    /// The earlier jobs of its chain: their locks do not conflict, and it waits for them.
    pub earlier: &'a [Prerequisite],
    /// Whether it is done only for a later job of its chain.
    pub is_prerequisite: bool,
}

/// Receives the result of a job when that has ended.
pub(super) type JobEnd = watch::Receiver<Option<Result<()>>>;

/// A job that another one waits for.
#[derive(Clone)]
pub(super) struct Prerequisite {
    pub id: JobId,
    end: JobEnd,
    needs_success: bool,
}

/// Result of [`JobTable::add`].
pub(super) enum Added {
    Job {
        id: JobId,
        /// The jobs that it waits for.
        prerequisites: Vec<Prerequisite>,
    },
    /// An active job does what it would do.
    Existing(Prerequisite),
}

struct ActiveJob {
    id: JobId,
    title: String,
    locks: Vec<ResourceLock>,
    cancel: CancellationToken,
    end: JobEnd,
    waits_for: Vec<JobId>,
    is_prerequisite: bool,
}

impl Prerequisite {
    pub(crate) fn new(id: JobId, end: JobEnd) -> Self {
        Self {
            id,
            end,
            needs_success: true,
        }
    }

    /// Waits until the job has ended.
    ///
    /// # Errors
    /// Those of the job, if it must succeed.
    pub(crate) async fn wait(mut self) -> Result<()> {
        let result = match self.end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::new(Kind::Failed, "the previous job crashed")),
        };
        match self.needs_success {
            true => result,
            false => Ok(()),
        }
    }
}

impl JobTable {
    /// Adds a job and takes its locks.
    ///
    /// # Errors
    /// `Conflict` if another job holds one of the locks, and the new job cannot wait for it.
    pub(crate) fn add(&mut self, job: NewJob<'_>) -> Result<Added> {
        let mut prerequisites = job.earlier.to_vec();
        for other in &self.active {
            if prerequisites.iter().any(|earlier| earlier.id == other.id) {
                continue;
            }
            let is_ending = other.cancel.is_cancelled();
            let relation =
                resource_locks::relation(&job.locks, job.is_prerequisite, &other.locks, is_ending);
            match relation {
                Relation::Independent => {}
                Relation::Follows { needs_success } => prerequisites.push(Prerequisite {
                    needs_success,
                    ..other.as_prerequisite()
                }),
                Relation::Same => return Ok(Added::Existing(other.as_prerequisite())),
                Relation::Conflict(lock) => {
                    let message = format!(
                        "cannot {} while job {} ({}) works on {}",
                        job.title, other.id.0, other.title, lock.resource
                    );
                    return Err(Error::new(Kind::Conflict, message)
                        .hint("wait until it has finished, or cancel it"));
                }
            }
        }
        self.last_id += 1;
        let id = JobId(self.last_id);
        self.active.push(ActiveJob {
            id,
            title: job.title.to_owned(),
            locks: job.locks,
            cancel: job.cancel,
            end: job.end,
            waits_for: prerequisites.iter().map(|job| job.id).collect(),
            is_prerequisite: job.is_prerequisite,
        });
        Ok(Added::Job { id, prerequisites })
    }

    pub(crate) fn remove(&mut self, id: JobId) {
        self.active.retain(|job| job.id != id);
    }

    pub(crate) fn cancel_token(&self, id: JobId) -> Option<CancellationToken> {
        let job = self.active.iter().find(|job| job.id == id)?;
        Some(job.cancel.clone())
    }

    /// Returns the active jobs that were done only for the job `id`, which no longer waits for them.
    pub(crate) fn withdraw(&mut self, id: JobId) -> Vec<JobId> {
        let waiting = self.active.iter_mut().find(|job| job.id == id);
        let former = waiting.map(|job| std::mem::take(&mut job.waits_for));
        let is_needed = |id: &JobId| self.active.iter().any(|job| job.waits_for.contains(id));
        let unneeded = self.active.iter().filter(|job| {
            let is_former = former.as_ref().is_some_and(|jobs| jobs.contains(&job.id));
            is_former && job.is_prerequisite && !is_needed(&job.id)
        });
        unneeded.map(|job| job.id).collect()
    }
}

impl ActiveJob {
    fn as_prerequisite(&self) -> Prerequisite {
        Prerequisite::new(self.id, self.end.clone())
    }
}
