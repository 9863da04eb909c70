//! Turns: a few jobs run at once, the others wait for theirs in an order that can be changed.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::view::JobId;
use snapdeck_model::{Error, Result};

/// Who runs and who waits. Cheap to clone.
#[derive(Clone)]
pub(super) struct JobQueue(Arc<Mutex<QueueState>>);

struct QueueState {
    free_slots: usize,
    queue: VecDeque<QueuedJob>,
}

/// Jobs that run together and wait for one turn.
struct QueuedJob {
    jobs: Vec<JobId>,
    permit_tx: oneshot::Sender<JobPermit>,
}

/// A place among the jobs that run; the next one's as soon as it is dropped.
pub(super) struct JobPermit(JobQueue);

impl JobQueue {
    /// For at most so many at once.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(QueueState {
            free_slots: most,
            queue: VecDeque::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        // What a panic left is a queue like any other.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts jobs at the end of the queue, at once; what is returned waits for their turn. Dropped, they leave it.
    pub(crate) fn join(
        &self,
        jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<JobPermit>> + Send + use<> {
        let (call, called) = oneshot::channel();
        self.state().queue.push_back(QueuedJob {
            jobs,
            permit_tx: call,
        });
        self.grant_next();
        async move { called.await.map_err(|_| Error::cancelled("the operation")) }
    }

    /// Gives what is free to the first that wait.
    fn grant_next(&self) {
        loop {
            let next = {
                let mut state = self.state();
                state.queue.retain(|waiting| !waiting.permit_tx.is_closed());
                match state.free_slots {
                    0 => None,
                    _ => state.queue.pop_front(),
                }
                .inspect(|_| state.free_slots -= 1)
            };
            let Some(next) = next else { return };
            // Who has left meanwhile gives it back, by dropping it outside the lock, and calls the next.
            let _ = next.permit_tx.send(JobPermit(self.clone()));
        }
    }

    /// The jobs that wait, the next one first.
    pub(crate) fn order(&self) -> Vec<JobId> {
        let state = self.state();
        let waiting = state.queue.iter();
        let waiting = waiting.filter(|waiting| !waiting.permit_tx.is_closed());
        waiting.flat_map(|waiting| waiting.jobs.clone()).collect()
    }

    /// Moves a job, with those it runs together with, by so many places towards the end (or, below 0, the front);
    /// tells whether it waits and moved.
    pub(crate) fn shift(&self, job: JobId, by: isize) -> bool {
        let mut state = self.state();
        state.queue.retain(|waiting| !waiting.permit_tx.is_closed());
        let mut places = state.queue.iter();
        let Some(at) = places.position(|waiting| waiting.jobs.contains(&job)) else {
            return false;
        };
        let last = state.queue.len() - 1;
        let to = at.saturating_add_signed(by).min(last);
        if let Some(waiting) = state.queue.remove(at) {
            state.queue.insert(to, waiting);
        }
        to != at
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

    fn ids(turns: &JobQueue) -> Vec<u64> {
        turns.order().iter().map(|id| id.0).collect()
    }

    fn join(turns: &JobQueue, id: u64) -> impl Future<Output = Result<JobPermit>> + use<> {
        turns.join(vec![JobId(id)])
    }

    #[test]
    fn so_many_run_and_the_others_come_in_their_order() {
        let turns = JobQueue::new(2);
        let first = join(&turns, 1).now_or_never().unwrap().unwrap();
        let _second = join(&turns, 2).now_or_never().unwrap().unwrap();
        let (mut third, mut fourth) = (Box::pin(join(&turns, 3)), Box::pin(join(&turns, 4)));
        assert!((&mut third).now_or_never().is_none());
        assert_eq!(ids(&turns), [3, 4]);
        drop(first);
        assert!((&mut fourth).now_or_never().is_none());
        let third = third.now_or_never().unwrap().unwrap();
        drop(third);
        assert!(fourth.now_or_never().unwrap().is_ok());
        assert_eq!(ids(&turns), [] as [u64; 0]);
    }

    #[test]
    fn who_leaves_the_queue_holds_up_nobody() {
        let turns = JobQueue::new(1);
        let running = join(&turns, 1).now_or_never().unwrap().unwrap();
        let (left, called) = (join(&turns, 2), join(&turns, 3));
        let last = join(&turns, 4);
        drop(left);
        assert_eq!(ids(&turns), [3, 4]);
        drop(running);
        // It was called, and left before it noticed.
        drop(called);
        assert!(last.now_or_never().unwrap().is_ok());
    }

    #[test]
    fn the_order_can_be_changed_and_those_of_one_turn_stay_together() {
        let turns = JobQueue::new(0);
        let _waiting = [
            turns.join(vec![JobId(1)]),
            turns.join(vec![JobId(2), JobId(3)]),
            turns.join(vec![JobId(4)]),
        ];
        assert!(turns.shift(JobId(3), -1));
        assert_eq!(ids(&turns), [2, 3, 1, 4]);
        assert!(turns.shift(JobId(2), isize::MAX));
        assert_eq!(ids(&turns), [1, 4, 2, 3]);
        assert!(!turns.shift(JobId(1), -1), "it is the first");
        assert!(!turns.shift(JobId(9), 1));
    }
}
