//! The jobs that have not finished: their resource locks and cancellation tokens.

use tokio_util::sync::CancellationToken;

use super::resource_locks::{self, ResourceLock};
use super::view::JobId;
use snapdeck_model::{Error, Kind, Result};

#[derive(Default)]
pub(super) struct JobTable {
    last_id: u64,
    active: Vec<ActiveJob>,
}

struct ActiveJob {
    id: JobId,
    title: String,
    locks: Vec<ResourceLock>,
    cancel: CancellationToken,
}

impl JobTable {
    /// Adds a job and takes its locks. `prerequisites` are jobs of the same chain: their locks do not conflict.
    ///
    /// # Errors
    /// `Conflict` if another job holds one of `locks`.
    pub(crate) fn add(
        &mut self,
        title: &str,
        locks: Vec<ResourceLock>,
        prerequisites: &[JobId],
        cancel: CancellationToken,
    ) -> Result<JobId> {
        let others = self.active.iter();
        let conflict = others
            .filter(|job| !prerequisites.contains(&job.id))
            .find_map(|job| resource_locks::conflict(&locks, &job.locks).map(|lock| (job, lock)));
        if let Some((job, lock)) = conflict {
            let message = format!(
                "cannot {title} while job {} ({}) works on {}",
                job.id.0, job.title, lock.resource
            );
            return Err(Error::new(Kind::Conflict, message)
                .hint("wait until it has finished, or cancel it"));
        }
        self.last_id += 1;
        let id = JobId(self.last_id);
        self.active.push(ActiveJob {
            id,
            title: title.to_owned(),
            locks,
            cancel,
        });
        Ok(id)
    }

    pub(crate) fn remove(&mut self, id: JobId) {
        self.active.retain(|job| job.id != id);
    }

    pub(crate) fn cancel_token(&self, id: JobId) -> Option<CancellationToken> {
        let job = self.active.iter().find(|job| job.id == id)?;
        Some(job.cancel.clone())
    }
}
