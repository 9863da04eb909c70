//! Jobs: operations taken on, run a few at a time, kept until dismissed.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::journal::JournalEntry;
use super::scheduler::JobPermit;
use super::view::{JobId, JobState, JobView, LogLine};
use super::wording::operation_title;
use super::{Inner, resource_locks};
use snapdeck_host::{Host, RetryPolicy};
use snapdeck_model::{Error, HostName, Kind, Operation, Outcome, Phase, ProgressCell, Result};
use snapdeck_ops::FetchHandle;

/// Finished jobs that are kept; the oldest go first.
const MAX_FINISHED_JOBS: usize = 200;
/// Lines kept of one job's log; the first ones stay, they say how it began.
const MAX_LOG_LINES: usize = 500;

/// The jobs that are not over, with what their views need not show.
#[derive(Default)]
pub(super) struct JobTable {
    last_id: u64,
    active: Vec<ActiveJob>,
}

struct ActiveJob {
    id: JobId,
    title: String,
    locks: Vec<resource_locks::ResourceLock>,
    cancel: CancellationToken,
}

pub(super) fn find_host<'a>(inner: &'a Inner, name: &HostName) -> Result<(usize, &'a Host)> {
    inner
        .hosts
        .iter()
        .enumerate()
        .find(|(_, host)| host.name() == name)
        .ok_or_else(|| {
            let known: Vec<&str> = inner
                .hosts
                .iter()
                .map(|host| host.name().as_str())
                .collect();
            Error::new(Kind::InvalidInput, format!("host {name} is not configured"))
                .hint(format!("known hosts: {}", known.join(", ")))
        })
}

/// An operation that was taken on.
struct AcceptedJob {
    id: JobId,
    operation: Operation,
    host: Option<(usize, Host)>,
    progress_cell: Arc<ProgressCell>,
    cancel: CancellationToken,
}

/// A place among the jobs that run, or why there is none; the jobs of one fan-out have one in common.
type PermitFuture = Shared<BoxFuture<'static, Result<Arc<JobPermit>>>>;

/// Takes operations on, each for itself; pulls of one snapshot share a slot and a fetch.
pub(super) fn submit(inner: &Arc<Inner>, operations: Vec<Operation>) -> Vec<Result<JobId>> {
    let now = Timestamp::now();
    let operations = operations.into_iter().map(|operation| (operation, now));
    submit_since(inner, operations.collect())
}

/// As [`submit`], for operations that were asked for at some time.
pub(super) fn submit_since(
    inner: &Arc<Inner>,
    operations: Vec<(Operation, Timestamp)>,
) -> Vec<Result<JobId>> {
    let taken: Vec<Result<AcceptedJob>> = operations
        .into_iter()
        .map(|(operation, asked)| accept(inner, operation, &[], asked, None))
        .collect();
    let ids = taken
        .iter()
        .map(|taken| taken.as_ref().map(|job| job.id).map_err(Error::clone))
        .collect();
    let mut groups: Vec<Vec<AcceptedJob>> = Vec::new();
    for job in taken.into_iter().flatten() {
        let of_one = |group: &&mut Vec<AcceptedJob>| {
            let is_pull = |operation: &Operation| matches!(operation, Operation::Pull { .. });
            is_pull(&job.operation)
                && group.first().is_some_and(|first| {
                    is_pull(&first.operation)
                        && first.operation.snapshot() == job.operation.snapshot()
                })
        };
        match groups.iter_mut().find(of_one) {
            Some(group) => group.push(job),
            None => groups.push(vec![job]),
        }
    }
    for group in groups {
        let ids = group.iter().map(|job| job.id).collect();
        let turn = inner.job_queue.join(ids);
        let slot = async move { turn.await.map(Arc::new) };
        let slot: PermitFuture = slot.boxed().shared();
        let shares = FetchHandle::shared_by(group.len());
        for (job, share) in group.into_iter().zip(shares) {
            tokio::spawn(run_job(inner.clone(), job, slot.clone(), share));
        }
    }
    ids
}

/// Takes operations on as a chain, all or none: each begins when the one before it has ended well.
pub(super) fn submit_chain(inner: &Arc<Inner>, operations: Vec<Operation>) -> Result<Vec<JobId>> {
    submit_chain_since(inner, operations, Timestamp::now())
}

/// As [`submit_chain`], for operations that were asked for at `asked`.
pub(super) fn submit_chain_since(
    inner: &Arc<Inner>,
    operations: Vec<Operation>,
    asked: Timestamp,
) -> Result<Vec<JobId>> {
    let mut chain: Vec<AcceptedJob> = Vec::new();
    for operation in operations {
        let before: Vec<JobId> = chain.iter().map(|job| job.id).collect();
        match accept(inner, operation, &before, asked, Some(before.len())) {
            Ok(job) => chain.push(job),
            Err(error) => {
                for id in before {
                    remove_entry(inner, id);
                    remove_view(inner, id);
                }
                return Err(error);
            }
        }
    }
    let ids = chain.iter().map(|job| job.id).collect();
    let mut before: Option<tokio::task::JoinHandle<Result<()>>> = None;
    for job in chain {
        let (turns, title, id) = (
            inner.job_queue.clone(),
            operation_title(&job.operation),
            job.id,
        );
        let slot = async move {
            if let Some(before) = before {
                let ended = before.await.unwrap_or_else(|crash| {
                    Err(
                        Error::new(Kind::Failed, "the previous job of the chain crashed")
                            .with_cause(crash),
                    )
                });
                ended.map_err(|error| error.context(format!("cannot {title}")))?;
            }
            turns.join(vec![id]).await.map(Arc::new)
        };
        let slot: PermitFuture = slot.boxed().shared();
        before = Some(tokio::spawn(run_job(
            inner.clone(),
            job,
            slot,
            FetchHandle::single(),
        )));
    }
    Ok(ids)
}

/// Takes back the acceptance of a job that has not begun.
fn remove_view(inner: &Inner, id: JobId) {
    inner.jobs().active.retain(|live| live.id != id);
    inner.publish(|view| view.jobs.retain(|job| job.id != id));
}

/// `friends` are jobs that it does not compete with: it waits for them. It is noted in the journal as asked for at
/// `asked`, and as that `link` of the chain that begins with the first of its friends, or with itself.
fn accept(
    inner: &Arc<Inner>,
    operation: Operation,
    friends: &[JobId],
    asked: Timestamp,
    link: Option<usize>,
) -> Result<AcceptedJob> {
    let host = operation
        .host()
        .map(|name| find_host(inner, name))
        .transpose()?;
    let wanted = resource_locks::locks_for(&operation);
    let cancel = inner.stop.child_token();
    let cell = Arc::new(ProgressCell::default());
    let id = {
        let mut table = inner.jobs();
        let clash = table
            .active
            .iter()
            .filter(|live| !friends.contains(&live.id))
            .find_map(|live| {
                resource_locks::conflict(&wanted, &live.locks).map(|claim| (live, claim))
            });
        if let Some((live, claim)) = clash {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "cannot {} while job {} ({}) works on {}",
                    operation_title(&operation),
                    live.id.0,
                    live.title,
                    claim.resource
                ),
            )
            .hint("wait until it has finished, or cancel it"));
        }
        table.last_id += 1;
        let id = JobId(table.last_id);
        table.active.push(ActiveJob {
            id,
            title: operation_title(&operation),
            locks: wanted,
            cancel: cancel.clone(),
        });
        id
    };
    if let Some(journal) = inner.journal.get() {
        let location = inner.bucket.location();
        let mut note = JournalEntry::new(operation.clone(), asked, &inner.settings, location);
        if let Some(link) = link {
            let first = friends.first().copied().unwrap_or(id);
            note = note.in_chain(journal.chain_name(first), link);
        }
        // What was asked for is worth more than the promise to go on with it.
        if let Err(error) = journal.record(id, &note) {
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
            progress_cell: cell.clone(),
        }));
    });
    Ok(AcceptedJob {
        id,
        host: host.map(|(index, host)| (index, host.clone())),
        operation,
        progress_cell: cell,
        cancel,
    })
}

/// Runs a job to its end, and tells whether that was a good one.
async fn run_job(
    inner: Arc<Inner>,
    job: AcceptedJob,
    slot: PermitFuture,
    share: FetchHandle,
) -> Result<()> {
    let AcceptedJob {
        id,
        operation,
        host,
        progress_cell: cell,
        cancel,
    } = job;
    let title = operation_title(&operation);
    let slot = tokio::select! {
        slot = slot => slot,
        () = cancel.cancelled() => Err(Error::cancelled(title.clone())),
    };
    let result = if let Err(error) = &slot {
        Err(error.clone())
    } else {
        update(&inner, id, |job| {
            job.started_at = Some(Instant::now());
            if job.state == JobState::Queued {
                job.state = JobState::Running;
            }
        });
        tracing::info!(job = id.0, "{title}: started");
        let ctx = snapdeck_ops::Context {
            progress: cell.clone(),
            cancel,
            suspend_token: inner.suspend_token.clone(),
            log: job_log(&inner, id),
            zstd_enabled: inner.settings.push.zstd_enabled,
        };
        let worker = {
            let inner = inner.clone();
            let host = host.as_ref().map(|(_, host)| with_retry_policy(host, &ctx));
            // A task of its own, so that a panic ends this job and nothing else.
            tokio::spawn(async move {
                run_operation(&inner, &operation, host.as_ref(), share, &ctx).await
            })
        };
        worker.await.unwrap_or_else(|crash| {
            Err(
                Error::new(Kind::Failed, format!("{title} crashed inside snapdeck"))
                    .with_cause(crash),
            )
        })
    };
    let ended = result.as_ref().map(|_| ()).map_err(Error::clone);
    finish(&inner, id, &title, &cell, result);
    drop(slot);
    if let Some((index, _)) = host {
        inner.host_refresh[index].notify_one();
    }
    inner.bucket_refresh.notify_one();
    ended
}

/// Does the operation, apart from all others: from this process's by its claims, from other processes' by locks on
/// the host.
async fn run_operation(
    inner: &Inner,
    operation: &Operation,
    host: Option<&Host>,
    share: FetchHandle,
    ctx: &snapdeck_ops::Context,
) -> Result<Outcome> {
    let cannot = |error: Error| error.context(format!("cannot {}", operation_title(operation)));
    let lost = CancellationToken::new();
    let lock = match host {
        Some(host) => {
            ctx.progress.enter(Phase::Checking, 0);
            let wants = resource_locks::host_locks(operation, host);
            let lock = host
                .locks()
                .acquire(wants, &operation_title(operation), lost.clone())
                .await;
            Some(lock.map_err(cannot)?)
        }
        None => None,
    };
    let (sandboxes, bucket) = (&inner.settings.sandbox, &inner.bucket);
    let run = snapdeck_ops::run(operation, host, bucket, share, sandboxes, ctx);
    tokio::pin!(run);
    let result = tokio::select! {
        result = &mut run => result,
        () = lost.cancelled() => {
            ctx.cancel.cancel();
            run.await.map_err(|_| {
                cannot(Error::new(Kind::Conflict, "another snapdeck process took its lock while the host was unreachable"))
            })
        }
    };
    if let Some(lock) = lock {
        lock.release().await;
    }
    result
}

/// The host, for a job: it waits for it while it is away.
fn with_retry_policy(host: &Host, ctx: &snapdeck_ops::Context) -> Host {
    let log = ctx.log.clone();
    let tell = Arc::new(move |warning, text| log(warning, text));
    host.with_retry_policy(RetryPolicy::new(
        host.settings().reconnect_timeout,
        ctx.cancel.clone(),
        tell,
    ))
}

fn finish(inner: &Inner, id: JobId, title: &str, cell: &ProgressCell, result: Result<Outcome>) {
    let is_cancelled = matches!(&result, Err(error) if error.kind() == Kind::Cancelled);
    // What the operator cancelled was struck then.
    if !(is_cancelled && inner.suspend_token.is_cancelled()) {
        remove_entry(inner, id);
    }
    let state = match result {
        Ok(outcome) => {
            tracing::info!(job = id.0, "{title}: done");
            cell.enter(Phase::Finished, 0);
            JobState::Finished(outcome)
        }
        Err(error) if error.kind() == Kind::Cancelled => {
            tracing::info!(job = id.0, "{title}: cancelled");
            // However deep below it was noticed, the operator cancelled this job.
            JobState::Failed(Error::cancelled(title))
        }
        Err(error) => {
            tracing::error!(job = id.0, "{title}: {error}");
            JobState::Failed(error)
        }
    };
    inner.jobs().active.retain(|live| live.id != id);
    inner.publish(|view| {
        edit(&mut view.jobs, id, |job| {
            job.state = state;
            job.ended_at = Some(Instant::now());
        });
        let over = view
            .jobs
            .iter()
            .filter(|job| job.state.is_finished())
            .count();
        let mut surplus = over.saturating_sub(MAX_FINISHED_JOBS);
        view.jobs.retain(|job| {
            let goes = surplus > 0 && job.state.is_finished() && job.id != id;
            surplus -= usize::from(goes);
            !goes
        });
    });
}

fn remove_entry(inner: &Inner, id: JobId) {
    if let Some(journal) = inner.journal.get() {
        journal.remove(id);
    }
}

/// Stops a job for good.
pub(super) fn cancel(inner: &Inner, id: JobId) {
    // At once: nobody is to take up what was cancelled, even if we are killed while it cleans up.
    remove_entry(inner, id);
    interrupt(inner, id);
}

/// Stops a job; what the journal has of it stays.
pub(super) fn interrupt(inner: &Inner, id: JobId) {
    let token = inner
        .jobs()
        .active
        .iter()
        .find(|live| live.id == id)
        .map(|live| live.cancel.clone());
    if let Some(token) = token {
        update(inner, id, |job| {
            if !job.state.is_finished() {
                job.state = JobState::Cancelling;
            }
        });
        token.cancel();
    }
}

/// Moves a job that waits for its turn, and those it runs together with, by so many places.
pub(super) fn shift(inner: &Inner, id: JobId, by: isize) {
    if !inner.job_queue.shift(id, by) {
        return;
    }
    let order = inner.job_queue.order();
    let turn = |job: &Arc<JobView>| order.iter().position(|id| *id == job.id);
    inner.publish(|view| {
        let places: Vec<usize> = (0..view.jobs.len())
            .filter(|at| turn(&view.jobs[*at]).is_some())
            .collect();
        let mut waiting: Vec<_> = places.iter().map(|at| view.jobs[*at].clone()).collect();
        waiting.sort_by_key(turn);
        for (at, job) in places.into_iter().zip(waiting) {
            view.jobs[at] = job;
        }
    });
}

pub(super) fn dismiss(inner: &Inner, id: JobId) {
    inner.publish(|view| {
        view.jobs
            .retain(|job| job.id != id || !job.state.is_finished())
    });
}

fn update(inner: &Inner, id: JobId, change: impl FnOnce(&mut JobView)) {
    inner.publish(|view| edit(&mut view.jobs, id, change));
}

fn edit(jobs: &mut [Arc<JobView>], id: JobId, change: impl FnOnce(&mut JobView)) {
    if let Some(job) = jobs.iter_mut().find(|job| job.id == id) {
        change(Arc::make_mut(job));
    }
}

/// The log of one job: its lines stand on the job and in the program's log.
fn job_log(inner: &Arc<Inner>, id: JobId) -> Arc<snapdeck_ops::LogFn> {
    let inner = inner.clone();
    Arc::new(move |warning, text| {
        if warning {
            tracing::warn!(job = id.0, "{text}");
        } else {
            tracing::info!(job = id.0, "{text}");
        }
        update(&inner, id, |job| {
            if job.log.len() < MAX_LOG_LINES {
                let line = LogLine {
                    time: Timestamp::now(),
                    text,
                    is_warning: warning,
                };
                job.log = job.log.iter().cloned().chain([line]).collect();
            }
        });
    })
}
