//! Submission of jobs: alone, together, or as a chain.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::job_table::{Added, NewJob, Prerequisite};
use super::job_target::JobTarget;
use super::jobs::{remove_from_journal, run_job};
use super::journal::JournalEntry;
use super::resource_locks;
use super::scheduler::JobPermit;
use super::state::Inner;
use super::view::{JobId, JobState, JobView};
use super::wording::{failure_summary, operation_title};
use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Operation, ProgressCell, Result, SnapshotName};
use snapdeck_ops::FetchHandle;

/// An operation to submit.
pub(super) struct JobRequest {
    pub operation: Operation,
    pub requested_at: Timestamp,
    /// Whether an earlier process left it.
    pub is_interrupted: bool,
    /// Crashes of earlier processes in it.
    pub crashes: u32,
    /// The target that the earlier process recorded.
    pub target: Option<JobTarget>,
}

impl JobRequest {
    pub(crate) fn new(operation: Operation, requested_at: Timestamp) -> Self {
        Self {
            operation,
            requested_at,
            is_interrupted: false,
            crashes: 0,
            target: None,
        }
    }
}

/// A job that is in the view and has its locks.
pub(super) struct AcceptedJob {
    pub id: JobId,
    pub operation: Operation,
    pub entry: JournalEntry,
    pub is_interrupted: bool,
    /// Whether it is done only for a later job of its chain.
    pub is_prerequisite: bool,
    pub host: Option<(usize, Host)>,
    /// The host that it copies from.
    pub source: Option<Host>,
    pub progress_cell: Arc<ProgressCell>,
    pub cancel: CancellationToken,
    /// Receives its result.
    pub end: watch::Sender<Option<Result<()>>>,
}

/// Result of an accepted request.
enum Acceptance {
    Job(Box<AcceptedJob>, Vec<Prerequisite>),
    /// An active job does what it would do.
    Existing(Prerequisite),
}

/// Waits in the job queue; pulls that share a fetch share one permit.
pub(super) type PermitFuture = Shared<BoxFuture<'static, Result<Arc<JobPermit>>>>;

/// As [`Engine::submit_all`].
pub(super) fn submit_requests(inner: &Arc<Inner>, requests: Vec<JobRequest>) -> Vec<Result<JobId>> {
    let mut ids = Vec::new();
    let mut groups: Vec<Vec<AcceptedJob>> = Vec::new();
    for request in requests {
        let (job, prerequisites) = match accept(inner, request, None, false) {
            Ok(Acceptance::Job(job, prerequisites)) => (*job, prerequisites),
            Ok(Acceptance::Existing(existing)) => {
                ids.push(Ok(existing.id));
                continue;
            }
            Err(error) => {
                ids.push(Err(error));
                continue;
            }
        };
        ids.push(Ok(job.id));
        if !prerequisites.is_empty() {
            start_after(inner, job, prerequisites);
            continue;
        }
        let shares_fetch = |group: &&mut Vec<AcceptedJob>| {
            let first = group.first();
            first.is_some_and(|first| can_share_fetch(&first.operation, &job.operation))
        };
        match groups.iter_mut().find(shares_fetch) {
            Some(group) => group.push(job),
            None => groups.push(vec![job]),
        }
    }
    for group in groups {
        let ids = group.iter().map(|job| job.id).collect();
        let permit = inner.job_queue.join(ids);
        let permit = async move { permit.await.map(Arc::new) };
        let permit: PermitFuture = permit.boxed().shared();
        let fetches = FetchHandle::shared_by(group.len());
        for (job, fetch) in group.into_iter().zip(fetches) {
            tokio::spawn(run_job(inner.clone(), job, permit.clone(), fetch));
        }
    }
    ids
}

/// Starts a job when those that it waits for have ended; it fails with the first error of one that must succeed.
fn start_after(inner: &Arc<Inner>, job: AcceptedJob, prerequisites: Vec<Prerequisite>) {
    let (queue, id) = (inner.job_queue.clone(), job.id);
    let summary = failure_summary(&job.operation);
    let permit = async move {
        for prerequisite in prerequisites {
            let result = prerequisite.wait().await;
            result.map_err(|error| error.context(&*summary))?;
        }
        queue.join(vec![id]).await.map(Arc::new)
    };
    let permit: PermitFuture = permit.boxed().shared();
    tokio::spawn(run_job(inner.clone(), job, permit, FetchHandle::single()));
}

/// Returns whether two jobs receive the same snapshot from the same place.
fn can_share_fetch(a: &Operation, b: &Operation) -> bool {
    let has_fetch = |operation: &Operation| {
        matches!(operation, Operation::Pull { .. } | Operation::Copy { .. })
    };
    has_fetch(a)
        && has_fetch(b)
        && a.snapshot() == b.snapshot()
        && a.source_host() == b.source_host()
}

/// As [`Engine::submit_chain`].
pub(super) fn submit_chain_requests(
    inner: &Arc<Inner>,
    requests: Vec<JobRequest>,
) -> Result<Vec<JobId>> {
    let mut chain: Vec<(AcceptedJob, Vec<Prerequisite>)> = Vec::new();
    let mut earlier: Vec<Prerequisite> = Vec::new();
    let last = requests.len().saturating_sub(1);
    for (index, request) in requests.into_iter().enumerate() {
        let position = ChainPosition {
            first: chain.first().map(|(job, _)| job.id),
            index: chain.len(),
            earlier: &earlier,
        };
        match accept(inner, request, Some(position), index < last) {
            Ok(Acceptance::Job(job, prerequisites)) => {
                earlier.push(Prerequisite::new(job.id, job.end.subscribe()));
                chain.push((*job, prerequisites));
            }
            Ok(Acceptance::Existing(existing)) => earlier.push(existing),
            Err(error) => {
                for (AcceptedJob { id, .. }, _) in chain {
                    remove_from_journal(inner, id);
                    inner.jobs().remove(id);
                    inner.publish(|view| view.jobs.retain(|job| job.id != id));
                }
                return Err(error);
            }
        }
    }
    for (job, prerequisites) in chain {
        start_after(inner, job, prerequisites);
    }
    Ok(earlier.into_iter().map(|job| job.id).collect())
}

/// Place of a job in its chain.
struct ChainPosition<'a> {
    /// The first job that was accepted for the chain.
    first: Option<JobId>,
    index: usize,
    earlier: &'a [Prerequisite],
}

/// Takes the locks of an operation and records it in the journal and the view. `is_prerequisite`: it is done only for a
/// later job of its chain.
fn accept(
    inner: &Arc<Inner>,
    request: JobRequest,
    chain: Option<ChainPosition<'_>>,
    is_prerequisite: bool,
) -> Result<Acceptance> {
    let JobRequest {
        operation,
        requested_at,
        is_interrupted,
        crashes,
        target,
    } = request;
    if let Some(organization) = operation.snapshot().and_then(SnapshotName::organization)
        && !inner.bucket.has_organization(organization)
    {
        return Err(Error::unknown_organization(
            organization,
            failure_summary(&operation),
        ));
    }
    let host = operation
        .host()
        .map(|name| inner.find_host(name))
        .transpose()?;
    let source = operation
        .source_host()
        .map(|name| inner.find_source(name))
        .transpose()?;
    if source.is_some() && operation.source_host() == operation.host() {
        // Its own locks would refuse it.
        return Err(Error::new(Kind::InvalidInput, failure_summary(&operation))
            .with_cause("it is the same host")
            .hint("name another host"));
    }
    let cancel = inner.stop.child_token();
    let progress_cell = Arc::new(ProgressCell::default());
    let title = operation_title(&operation);
    let (end, end_receiver) = watch::channel(None);
    let added = inner.jobs().add(NewJob {
        title: &title,
        locks: resource_locks::locks_for(&operation),
        cancel: cancel.clone(),
        end: end_receiver,
        earlier: chain.as_ref().map_or(&[], |chain| chain.earlier),
        is_prerequisite,
    })?;
    let (id, prerequisites) = match added {
        Added::Job { id, prerequisites } => (id, prerequisites),
        Added::Existing(existing) => return Ok(Acceptance::Existing(existing)),
    };
    let location = inner.bucket.location();
    let mut entry = JournalEntry::new(operation.clone(), requested_at, &inner.settings, location);
    entry.target = target;
    entry.crashes = crashes;
    if let Some(journal) = inner.journal.get() {
        if let Some(chain) = chain {
            let first = chain.first.unwrap_or(id);
            entry = entry.in_chain(journal.chain_name(first), chain.index);
        }
        // The job runs nevertheless.
        if let Err(error) = journal.record(id, &entry) {
            tracing::warn!(
                job = id.0,
                "cannot record it in the journal, so it will not resume after a restart: {error}"
            );
        }
    }
    inner.publish(|view| {
        view.jobs.push(Arc::new(JobView {
            id,
            operation: operation.clone(),
            state: JobState::Queued,
            started_at: None,
            ended_at: None,
            log: Arc::default(),
            progress_cell: progress_cell.clone(),
        }));
    });
    let job = AcceptedJob {
        id,
        host: host.map(|(index, host)| (index, host.clone())),
        source: source.cloned(),
        operation,
        entry,
        is_interrupted,
        is_prerequisite,
        progress_cell,
        cancel,
        end,
    };
    Ok(Acceptance::Job(Box::new(job), prerequisites))
}
