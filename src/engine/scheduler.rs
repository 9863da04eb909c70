//! The job queue: a limited number of jobs run at once, the others wait in an order that can be changed.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::view::JobId;
use snapdeck_model::{Error, Result};

/// A cheap handle of the queue.
#[derive(Clone)]
pub(super) struct JobQueue(Arc<Mutex<QueueState>>);

struct QueueState {
    free_slots: usize,
    queue: VecDeque<JobGroup>,
}

/// Jobs that share one permit.
struct JobGroup {
    jobs: Vec<JobId>,
    permit_tx: oneshot::Sender<JobPermit>,
}

/// Permission to run; dropping it starts the next group.
pub(super) struct JobPermit(JobQueue);

/// The permit of one job, which it may give back while it waits.
pub(super) struct JobSlot {
    queue: JobQueue,
    job: JobId,
    permit: Mutex<Option<Arc<JobPermit>>>,
}

impl JobSlot {
    pub(crate) fn new(queue: &JobQueue, job: JobId, permit: Arc<JobPermit>) -> Self {
        Self {
            queue: queue.clone(),
            job,
            permit: Mutex::new(Some(permit)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<JobPermit>>> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next job run.
    pub(crate) fn give_back(&self) {
        drop(self.lock().take());
    }

    /// Waits at the end of the queue for a permit, unless the job has one.
    ///
    /// # Errors
    /// `Cancelled` if the queue is closed.
    pub(crate) async fn take_again(&self) -> Result<()> {
        if self.lock().is_none() {
            let permit = self.queue.join(vec![self.job]).await?;
            *self.lock() = Some(Arc::new(permit));
        }
        Ok(())
    }
}

impl JobQueue {
    pub(crate) fn new(max_parallel: usize) -> Self {
        Self(Arc::new(Mutex::new(QueueState {
            free_slots: max_parallel,
            queue: VecDeque::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a group at the end of the queue, at once; the future waits for its permit. Dropping the future removes the
    /// group.
    pub(crate) fn join(
        &self,
        jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<JobPermit>> + Send + use<> {
        let (permit_tx, permit_rx) = oneshot::channel();
        self.state().queue.push_back(JobGroup { jobs, permit_tx });
        self.grant_next();
        async move {
            permit_rx
                .await
                .map_err(|_| Error::cancelled("the operation"))
        }
    }

    /// Gives the free slots to the first groups of the queue.
    fn grant_next(&self) {
        loop {
            let next = {
                let mut state = self.state();
                state.queue.retain(|group| !group.permit_tx.is_closed());
                match state.free_slots {
                    0 => None,
                    _ => state.queue.pop_front(),
                }
                .inspect(|_| state.free_slots -= 1)
            };
            let Some(next) = next else { return };
            // A group that was dropped meanwhile drops the permit here, outside the lock, and so grants the next.
            let _ = next.permit_tx.send(JobPermit(self.clone()));
        }
    }

    /// Requeue the queued jobs in order.
    pub(crate) fn order(&self) -> Vec<JobId> {
        let state = self.state();
        let groups = state.queue.iter();
        let groups = groups.filter(|group| !group.permit_tx.is_closed());
        groups.flat_map(|group| group.jobs.clone()).collect()
    }

    /// Moves a job with its group by `by` positions towards the end (negative: the front); requeue whether it moved.
    pub(crate) fn shift(&self, job: JobId, by: isize) -> bool {
        let mut state = self.state();
        state.queue.retain(|group| !group.permit_tx.is_closed());
        let mut groups = state.queue.iter();
        let Some(from) = groups.position(|group| group.jobs.contains(&job)) else {
            return false;
        };
        let last = state.queue.len() - 1;
        let to = from.saturating_add_signed(by).min(last);
        if let Some(group) = state.queue.remove(from) {
            state.queue.insert(to, group);
        }
        to != from
    }
}

impl Drop for JobPermit {
    fn drop(&mut self) {
        self.0.state().free_slots += 1;
        self.0.grant_next();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt;

    fn ids(queue: &JobQueue) -> Vec<u64> {
        queue.order().iter().map(|id| id.0).collect()
    }

    fn join(queue: &JobQueue, id: u64) -> impl Future<Output = Result<JobPermit>> + use<> {
        queue.join(vec![JobId(id)])
    }

    #[test]
    fn jobs_above_the_limit_run_in_queue_order() {
        let queue = JobQueue::new(2);
        let first = join(&queue, 1).now_or_never().unwrap().unwrap();
        let _second = join(&queue, 2).now_or_never().unwrap().unwrap();
        let (mut third, mut fourth) = (Box::pin(join(&queue, 3)), Box::pin(join(&queue, 4)));
        assert!((&mut third).now_or_never().is_none());
        assert_eq!(ids(&queue), [3, 4]);
        drop(first);
        assert!((&mut fourth).now_or_never().is_none());
        let third = third.now_or_never().unwrap().unwrap();
        drop(third);
        assert!(fourth.now_or_never().unwrap().is_ok());
        assert_eq!(ids(&queue), [] as [u64; 0]);
    }

    #[test]
    fn dropped_jobs_do_not_block_the_queue() {
        let queue = JobQueue::new(1);
        let running = join(&queue, 1).now_or_never().unwrap().unwrap();
        let (second, third) = (join(&queue, 2), join(&queue, 3));
        let last = join(&queue, 4);
        drop(second);
        assert_eq!(ids(&queue), [3, 4]);
        drop(running);
        // It has its permit already.
        drop(third);
        assert!(last.now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_group_moves_as_a_whole() {
        let queue = JobQueue::new(0);
        let _groups = [
            queue.join(vec![JobId(1)]),
            queue.join(vec![JobId(2), JobId(3)]),
            queue.join(vec![JobId(4)]),
        ];
        assert!(queue.shift(JobId(3), -1));
        assert_eq!(ids(&queue), [2, 3, 1, 4]);
        assert!(queue.shift(JobId(2), isize::MAX));
        assert_eq!(ids(&queue), [1, 4, 2, 3]);
        assert!(!queue.shift(JobId(1), -1), "it is the first already");
        assert!(!queue.shift(JobId(9), 1));
    }
}
