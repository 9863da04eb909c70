//! What processes before this one have left in the journal. It is moved into this one's own, so that it is not lost
//! when this one ends, too, and stays there until somebody decides what becomes of it.

use std::path::Path;
use std::sync::Arc;

use super::jobs;
use super::journal::{InterruptedEntry, Journal, JournalEntry};
use super::state::{Engine, Inner};
use super::view::{InterruptedId, InterruptedJob, JobId};
use super::wording::operation_title;
use snapdeck_model::{Operation, Result};

impl Engine {
    /// Is what is taken on noted, so that the next start can go on with it?
    pub fn has_journal(&self) -> bool {
        self.inner.journal.get().is_some()
    }

    /// From here on notes in the directory `state` what is taken on, until it is over. Several processes may share
    /// one directory.
    ///
    /// # Errors
    /// `Failed` where it cannot be written there.
    pub fn open_journal(&self, state: &Path) -> Result<()> {
        let journal = Journal::open(state)?;
        // A second one would forget what the first one holds.
        let _ = self.inner.journal.set(journal);
        Ok(())
    }

    /// Takes on again, oldest first, what processes that are gone have left in the journal: a pull goes on where it
    /// was, anything else begins anew. What was cancelled is over, and what is older than a day is dropped with a
    /// warning. What became of each, with its title.
    ///
    /// # Errors
    /// Of each as [`Engine::submit`]'s.
    pub fn resume_unfinished(&self) -> Vec<(String, Result<JobId>)> {
        resume_all(&self.inner)
    }

    /// Finds what processes that are gone have left in the journal, and shows it in the view.
    pub fn load_interrupted(&self) {
        load(&self.inner);
    }

    /// Takes on what was left, as if it were asked for now: what it had come to is gone on from. Pulls of one snapshot
    /// share a fetch. What is refused stays left.
    pub fn resume_interrupted(&self, ids: &[InterruptedId]) -> Vec<(String, Result<Vec<JobId>>)> {
        resume(&self.inner, ids)
    }

    /// Forgets what was left.
    pub fn discard_interrupted(&self, ids: &[InterruptedId]) {
        let mut left = self.inner.interrupted();
        left.retain(|held| {
            let goes = ids.contains(&held.id);
            if goes {
                held.remove();
            }
            !goes
        });
        show(&self.inner, &left);
    }
}

/// As [`Engine::load_interrupted`].
pub(super) fn load(inner: &Inner) {
    let Some(journal) = inner.journal.get() else {
        return;
    };
    let is_ours = |note: &JournalEntry| note.is_of(&inner.settings, inner.bucket.location());
    let mut found = journal.claim_orphans(is_ours);
    // The links of a chain come together, in their order.
    found.sort_by(|(_, a), (_, b)| a.order().cmp(&b.order()));
    let mut left = inner.interrupted();
    for (path, note) in found {
        let of_chain = |held: &InterruptedEntry| {
            let (_, other) = &held.entries[0];
            other.chain.is_some() && other.chain_name() == note.chain_name()
        };
        match left.last_mut().filter(|held| of_chain(held)) {
            Some(held) => held.entries.push((path, note)),
            None => {
                let id = InterruptedId(left.last().map_or(1, |held| held.id.0 + 1));
                left.push(InterruptedEntry {
                    id,
                    requested_at: note.requested_at,
                    entries: vec![(path, note)],
                });
            }
        }
    }
    show(inner, &left);
}

/// As [`Engine::resume_interrupted`].
pub(super) fn resume(
    inner: &Arc<Inner>,
    ids: &[InterruptedId],
) -> Vec<(String, Result<Vec<JobId>>)> {
    let mut left = inner.interrupted();
    let (taken, stays): (Vec<InterruptedEntry>, Vec<InterruptedEntry>) =
        left.drain(..).partition(|held| ids.contains(&held.id));
    *left = stays;
    let (chains, single): (Vec<InterruptedEntry>, Vec<InterruptedEntry>) =
        taken.into_iter().partition(|held| held.entries.len() > 1);
    let mut results = Vec::new();
    let mut settle = |held: InterruptedEntry, jobs: Result<Vec<JobId>>| {
        let title = title(&held.operations());
        match &jobs {
            Ok(_) => held.remove(),
            Err(_) => left.push(held),
        }
        results.push((title, jobs));
    };
    let asked = single.iter().flat_map(|held| {
        let operations = held.operations().into_iter();
        operations.map(|operation| (operation, held.requested_at))
    });
    let jobs = jobs::submit_since(inner, asked.collect());
    for (held, job) in single.into_iter().zip(jobs) {
        settle(held, job.map(|id| vec![id]));
    }
    for held in chains {
        let jobs = jobs::submit_chain_since(inner, held.operations(), held.requested_at);
        settle(held, jobs);
    }
    left.sort_by_key(|held| held.id);
    show(inner, &left);
    results
}

/// Takes on all that is not too old; the rest is told and forgotten. For faces that have nobody to ask.
pub(super) fn resume_all(inner: &Arc<Inner>) -> Vec<(String, Result<JobId>)> {
    load(inner);
    let (mut ids, mut results) = (Vec::new(), Vec::new());
    inner.interrupted().retain(|held| {
        let old = held.entries[0].1.is_old();
        if old {
            tracing::warn!(
                "{}, requested {}, was not finished and is too old to resume",
                title(&held.operations()),
                held.requested_at
            );
            held.remove();
        } else {
            ids.push(held.id);
        }
        !old
    });
    for (title, jobs) in resume(inner, &ids) {
        match jobs {
            Ok(jobs) => results.extend(jobs.into_iter().map(|id| (title.clone(), Ok(id)))),
            Err(error) => results.push((title, Err(error))),
        }
    }
    // What was refused is told, once.
    inner.interrupted().drain(..).for_each(|held| held.remove());
    inner.publish(|view| view.interrupted_jobs = Arc::default());
    results
}

/// `pull base → alpha, then new a on base`.
fn title(operations: &[Operation]) -> String {
    let titles: Vec<String> = operations.iter().map(operation_title).collect();
    titles.join(", then ")
}

fn show(inner: &Inner, left: &[InterruptedEntry]) {
    let shown = left.iter().map(|held| InterruptedJob {
        id: held.id,
        title: title(&held.operations()),
        operations: held.operations(),
        requested_at: held.requested_at,
    });
    let shown: Arc<[InterruptedJob]> = shown.collect();
    inner.publish(|view| view.interrupted_jobs = shown);
}
