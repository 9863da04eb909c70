//! Recovery of jobs that earlier processes did not finish. Their entries move to this process's journal session, so that
//! they outlive this process, too, until they are resumed or discarded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::{InterruptedEntry, Journal, JournalEntry};
use super::state::{Engine, Inner};
use super::submission::{JobRequest, submit_chain_requests, submit_requests};
use super::view::{InterruptedId, InterruptedJob, JobId};
use super::wording::operation_title;
use snapdeck_model::{Operation, Result};

impl Engine {
    /// Returns whether jobs are recorded in a journal, so that the next start can resume them.
    pub fn has_journal(&self) -> bool {
        self.inner.journal.get().is_some()
    }

    /// Opens the journal in the directory `state`, in which all later jobs are recorded until they finish. Several
    /// processes may share one directory.
    ///
    /// # Errors
    /// `Failed` if it cannot be written.
    pub fn open_journal(&self, state: &Path) -> Result<()> {
        let journal = Journal::open(state)?;
        // The first one stays: it has the entries of running jobs.
        let _ = self.inner.journal.set(journal);
        Ok(())
    }

    /// Resumes what earlier processes did not finish and only adds something: pulls and copies of snapshots that the
    /// host does not have, pushes and uploads of new objects, and adoptions. Returns each with its title. They continue
    /// only if their source and target are what they were. All other jobs, those whose target is not recorded, those in
    /// which a process has crashed twice, and jobs older than a day are dropped with a warning: only an operator can
    /// repeat them.
    ///
    /// # Errors
    /// Per job those of [`Engine::submit`]; the job is dropped then.
    pub fn resume_unfinished(&self) -> Vec<(String, Result<JobId>)> {
        resume_unattended(&self.inner)
    }

    /// Returns whether the next start resumes a job of this process by [`Engine::resume_unfinished`].
    pub fn resumes_unattended(&self, id: JobId) -> bool {
        let entry = self
            .inner
            .journal
            .get()
            .and_then(|journal| journal.entry(id));
        entry.is_some_and(|entry| entry.resumes_unattended())
    }

    /// Loads the jobs that earlier processes did not finish into the view.
    pub fn load_interrupted(&self) {
        load(&self.inner);
    }

    /// Resumes interrupted jobs; returns each with its title. Pulls of one snapshot share a fetch. A job fails when it
    /// begins if its target was replaced since it was requested.
    ///
    /// # Errors
    /// Per job those of [`Engine::submit`]; the job stays interrupted then.
    pub fn resume_interrupted(&self, ids: &[InterruptedId]) -> Vec<(String, Result<Vec<JobId>>)> {
        resume(&self.inner, ids)
    }

    /// Removes interrupted jobs from the journal and the view.
    pub fn discard_interrupted(&self, ids: &[InterruptedId]) {
        let mut interrupted = self.inner.interrupted();
        let discarded = interrupted.extract_if(.., |entry| ids.contains(&entry.id));
        discarded.for_each(|entry| entry.remove());
        publish(&self.inner, &interrupted);
    }
}

fn load(inner: &Inner) {
    let Some(journal) = inner.journal.get() else {
        return;
    };
    let is_ours = |entry: &JournalEntry| entry.matches(&inner.settings, inner.bucket.location());
    let mut orphans = journal.claim_orphans(is_ours);
    // The jobs of a chain become neighbours, in their order.
    orphans.sort_by(|(_, a), (_, b)| a.order().cmp(&b.order()));
    let mut interrupted = inner.interrupted();
    for (path, entry) in orphans {
        let is_same_chain = |other: &InterruptedEntry| {
            let (_, other) = &other.entries[0];
            other.chain.is_some() && other.chain_name() == entry.chain_name()
        };
        match interrupted.last_mut().filter(|last| is_same_chain(last)) {
            Some(last) => last.entries.push((path, entry)),
            None => {
                let id = InterruptedId(interrupted.last().map_or(1, |last| last.id.0 + 1));
                interrupted.push(InterruptedEntry {
                    id,
                    requested_at: entry.requested_at,
                    entries: vec![(path, entry)],
                });
            }
        }
    }
    publish(inner, &interrupted);
}

fn resume(inner: &Arc<Inner>, ids: &[InterruptedId]) -> Vec<(String, Result<Vec<JobId>>)> {
    let mut interrupted = inner.interrupted();
    let (chains, single): (Vec<InterruptedEntry>, Vec<InterruptedEntry>) = interrupted
        .extract_if(.., |entry| ids.contains(&entry.id))
        .partition(|entry| entry.entries.len() > 1);
    let mut results = Vec::new();
    let mut record = |entry: InterruptedEntry, jobs: Result<Vec<JobId>>| {
        let title = title(&entry.operations());
        match &jobs {
            Ok(_) => entry.remove(),
            Err(_) => interrupted.push(entry),
        }
        results.push((title, jobs));
    };
    // First, so that a single new sandbox finds the pull that it waited for.
    for entry in chains {
        let jobs = submit_chain_requests(inner, requests(&entry));
        record(entry, jobs);
    }
    let jobs = submit_requests(inner, single.iter().flat_map(requests).collect());
    for (entry, job) in single.into_iter().zip(jobs) {
        record(entry, job.map(|id| vec![id]));
    }
    interrupted.sort_by_key(|entry| entry.id);
    publish(inner, &interrupted);
    results
}

/// Returns the requests of an interrupted job or chain, with the targets that were recorded.
fn requests(interrupted: &InterruptedEntry) -> Vec<JobRequest> {
    let entries = interrupted.entries.iter();
    let request = |(_, entry): &(PathBuf, JournalEntry)| JobRequest {
        operation: entry.operation.clone(),
        requested_at: interrupted.requested_at,
        is_interrupted: true,
        crashes: entry.crashes,
        target: entry.target.clone(),
    };
    entries.map(request).collect()
}

fn resume_unattended(inner: &Arc<Inner>) -> Vec<(String, Result<JobId>)> {
    load(inner);
    let mut results = Vec::new();
    let mut interrupted = inner.interrupted();
    for job in interrupted.iter_mut() {
        // Of a chain, the later jobs depend on an earlier one that may be dropped.
        let resumed = job
            .entries
            .iter()
            .position(|(_, e)| !e.resumes_unattended());
        let dropped = job.entries.split_off(resumed.unwrap_or(job.entries.len()));
        for (path, entry) in dropped {
            let progress = match entry.has_begun {
                true if entry.has_crashed_repeatedly() => "unfinished, and not for the first time,",
                true => "unfinished",
                false => "queued",
            };
            tracing::warn!(
                "{}: dropped: it was {progress} when snapdeck last exited (requested {}), and is not repeated without a confirmation",
                operation_title(&entry.operation),
                entry.requested_at
            );
            Journal::remove_entry(&path);
        }
    }
    interrupted.retain(|job| !job.entries.is_empty());
    let ids: Vec<InterruptedId> = interrupted.iter().map(|entry| entry.id).collect();
    drop(interrupted);
    for (title, jobs) in resume(inner, &ids) {
        match jobs {
            Ok(jobs) => results.extend(jobs.into_iter().map(|id| (title.clone(), Ok(id)))),
            Err(error) => results.push((title, Err(error))),
        }
    }
    // Jobs that could not be submitted are reported once, not at each start.
    inner
        .interrupted()
        .drain(..)
        .for_each(|entry| entry.remove());
    inner.publish(|view| view.interrupted_jobs = Arc::default());
    results
}

/// Returns the title of a chain: `pull base → alpha, then new a on base`.
fn title(operations: &[Operation]) -> String {
    let titles: Vec<String> = operations.iter().map(operation_title).collect();
    titles.join(", then ")
}

fn publish(inner: &Inner, interrupted: &[InterruptedEntry]) {
    let jobs = interrupted.iter().map(|entry| InterruptedJob {
        id: entry.id,
        title: title(&entry.operations()),
        operations: entry.operations(),
        requested_at: entry.requested_at,
        has_begun: entry.entries.iter().any(|(_, entry)| entry.has_begun),
    });
    let jobs: Arc<[InterruptedJob]> = jobs.collect();
    inner.publish(|view| view.interrupted_jobs = jobs);
}
