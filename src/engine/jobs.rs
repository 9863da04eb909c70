//! Jobs: operations taken on, run a few at a time, kept until dismissed.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::journal::Note;
use super::turns::Turn;
use super::view::{JobId, JobState, JobView, LogLine};
use super::{Inner, claims};
use snapdeck_host::{Host, RetryPolicy};
use snapdeck_model::{Error, HostName, Kind, Operation, Outcome, Phase, ProgressCell, Result};
use snapdeck_ops::Share;

/// Finished jobs that are kept; the oldest go first.
const HISTORY: usize = 200;
/// Lines kept of one job's log; the first ones stay, they say how it began.
const LOG_LINES: usize = 500;

/// The jobs that are not over, with what their views need not show.
#[derive(Default)]
pub(super) struct Table {
    last: u64,
    live: Vec<Live>,
}

struct Live {
    id: JobId,
    title: String,
    claims: Vec<claims::Claim>,
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
            Error::new(
                Kind::InvalidInput,
                format!("there is no host {name} in the settings"),
            )
            .hint(format!("known hosts: {}", known.join(", ")))
        })
}

/// An operation that was taken on.
struct Accepted {
    id: JobId,
    operation: Operation,
    host: Option<(usize, Host)>,
    cell: Arc<ProgressCell>,
    cancel: CancellationToken,
}

/// A place among the jobs that run, or why there is none; the jobs of one fan-out have one in common.
type Slot = Shared<BoxFuture<'static, Result<Arc<Turn>>>>;

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
    let taken: Vec<Result<Accepted>> = operations
        .into_iter()
        .map(|(operation, asked)| accept(inner, operation, &[], asked, None))
        .collect();
    let ids = taken
        .iter()
        .map(|taken| taken.as_ref().map(|job| job.id).map_err(Error::clone))
        .collect();
    let mut groups: Vec<Vec<Accepted>> = Vec::new();
    for job in taken.into_iter().flatten() {
        let of_one = |group: &&mut Vec<Accepted>| {
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
        let turn = inner.turns.join(ids);
        let slot = async move { turn.await.map(Arc::new) };
        let slot: Slot = slot.boxed().shared();
        let shares = Share::of(group.len());
        for (job, share) in group.into_iter().zip(shares) {
            tokio::spawn(run(inner.clone(), job, slot.clone(), share));
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
    let mut chain: Vec<Accepted> = Vec::new();
    for operation in operations {
        let before: Vec<JobId> = chain.iter().map(|job| job.id).collect();
        match accept(inner, operation, &before, asked, Some(before.len())) {
            Ok(job) => chain.push(job),
            Err(error) => {
                for id in before {
                    strike(inner, id);
                    forget(inner, id);
                }
                return Err(error);
            }
        }
    }
    let ids = chain.iter().map(|job| job.id).collect();
    let mut before: Option<tokio::task::JoinHandle<Result<()>>> = None;
    for job in chain {
        let (turns, title, id) = (inner.turns.clone(), job.operation.title(), job.id);
        let slot = async move {
            if let Some(before) = before {
                let ended = before.await.unwrap_or_else(|crash| {
                    Err(Error::new(Kind::Failed, "the job before it crashed").with_cause(crash))
                });
                ended.map_err(|error| error.context(format!("cannot {title}")))?;
            }
            turns.join(vec![id]).await.map(Arc::new)
        };
        let slot: Slot = slot.boxed().shared();
        before = Some(tokio::spawn(run(inner.clone(), job, slot, Share::alone())));
    }
    Ok(ids)
}

/// Takes back the acceptance of a job that has not begun.
fn forget(inner: &Inner, id: JobId) {
    inner.jobs().live.retain(|live| live.id != id);
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
) -> Result<Accepted> {
    let host = operation
        .host()
        .map(|name| find_host(inner, name))
        .transpose()?;
    let wanted = claims::of(&operation);
    let cancel = inner.stop.child_token();
    let cell = Arc::new(ProgressCell::default());
    let id = {
        let mut table = inner.jobs();
        let clash = table
            .live
            .iter()
            .filter(|live| !friends.contains(&live.id))
            .find_map(|live| claims::conflict(&wanted, &live.claims).map(|claim| (live, claim)));
        if let Some((live, claim)) = clash {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "cannot {} while job {} ({}) works on {}",
                    operation.title(),
                    live.id.0,
                    live.title,
                    claim.what
                ),
            )
            .hint("wait until it is over, or cancel it"));
        }
        table.last += 1;
        let id = JobId(table.last);
        table.live.push(Live {
            id,
            title: operation.title(),
            claims: wanted,
            cancel: cancel.clone(),
        });
        id
    };
    if let Some(journal) = inner.journal.get() {
        let location = inner.bucket.location();
        let mut note = Note::new(operation.clone(), asked, &inner.settings, location);
        if let Some(link) = link {
            let first = friends.first().copied().unwrap_or(id);
            note = note.in_chain(journal.chain_name(first), link);
        }
        // What was asked for is worth more than the promise to go on with it.
        if let Err(error) = journal.note(id, &note) {
            tracing::warn!(
                job = id.0,
                "it would not go on after a restart: cannot note it: {error}"
            );
        }
    }
    inner.publish(|view| {
        view.jobs.push(Arc::new(JobView {
            id,
            operation: operation.clone(),
            state: JobState::Queued,
            started: None,
            ended: None,
            log: Arc::default(),
            cell: cell.clone(),
        }));
    });
    Ok(Accepted {
        id,
        host: host.map(|(index, host)| (index, host.clone())),
        operation,
        cell,
        cancel,
    })
}

/// Runs a job to its end, and tells whether that was a good one.
async fn run(inner: Arc<Inner>, job: Accepted, slot: Slot, share: Share) -> Result<()> {
    let Accepted {
        id,
        operation,
        host,
        cell,
        cancel,
    } = job;
    let title = operation.title();
    let slot = tokio::select! {
        slot = slot => slot,
        () = cancel.cancelled() => Err(Error::cancelled(title.clone())),
    };
    let result = if let Err(error) = &slot {
        Err(error.clone())
    } else {
        update(&inner, id, |job| {
            job.started = Some(Instant::now());
            if job.state == JobState::Queued {
                job.state = JobState::Running;
            }
        });
        tracing::info!(job = id.0, "{title}: started");
        let ctx = snapdeck_ops::Context {
            progress: cell.clone(),
            cancel,
            leaving: inner.leaving.clone(),
            log: log_of(&inner, id),
            zstd: inner.settings.push.zstd_enabled,
        };
        let worker = {
            let inner = inner.clone();
            let host = host.as_ref().map(|(_, host)| patient(host, &ctx));
            // A task of its own, so that a panic ends this job and nothing else.
            tokio::spawn(async move { work(&inner, &operation, host.as_ref(), share, &ctx).await })
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
        inner.host_calls[index].notify_one();
    }
    inner.bucket_call.notify_one();
    ended
}

/// Does the operation, apart from all others: from this process's by its claims, from other processes' by locks on
/// the host.
async fn work(
    inner: &Inner,
    operation: &Operation,
    host: Option<&Host>,
    share: Share,
    ctx: &snapdeck_ops::Context,
) -> Result<Outcome> {
    let cannot = |error: Error| error.context(format!("cannot {}", operation.title()));
    let lost = CancellationToken::new();
    let lock = match host {
        Some(host) => {
            ctx.progress.enter(Phase::Checking, 0);
            let wants = claims::locks(operation, host);
            let lock = host.lock(wants, &operation.title(), lost.clone()).await;
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
                cannot(Error::new(Kind::Conflict, "another snapdeck took its place while the host was away"))
            })
        }
    };
    if let Some(lock) = lock {
        lock.release().await;
    }
    result
}

/// The host, for a job: it waits for it while it is away.
fn patient(host: &Host, ctx: &snapdeck_ops::Context) -> Host {
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
    if !(is_cancelled && inner.leaving.is_cancelled()) {
        strike(inner, id);
    }
    let state = match result {
        Ok(outcome) => {
            tracing::info!(job = id.0, "{title}: done");
            cell.enter(Phase::Finished, 0);
            JobState::Done(outcome)
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
    inner.jobs().live.retain(|live| live.id != id);
    inner.publish(|view| {
        edit(&mut view.jobs, id, |job| {
            job.state = state;
            job.ended = Some(Instant::now());
        });
        let over = view.jobs.iter().filter(|job| job.state.is_over()).count();
        let mut surplus = over.saturating_sub(HISTORY);
        view.jobs.retain(|job| {
            let goes = surplus > 0 && job.state.is_over() && job.id != id;
            surplus -= usize::from(goes);
            !goes
        });
    });
}

fn strike(inner: &Inner, id: JobId) {
    if let Some(journal) = inner.journal.get() {
        journal.strike(id);
    }
}

/// Stops a job for good.
pub(super) fn cancel(inner: &Inner, id: JobId) {
    // At once: nobody is to take up what was cancelled, even if we are killed while it cleans up.
    strike(inner, id);
    interrupt(inner, id);
}

/// Stops a job; what the journal has of it stays.
pub(super) fn interrupt(inner: &Inner, id: JobId) {
    let token = inner
        .jobs()
        .live
        .iter()
        .find(|live| live.id == id)
        .map(|live| live.cancel.clone());
    if let Some(token) = token {
        update(inner, id, |job| {
            if !job.state.is_over() {
                job.state = JobState::Cancelling;
            }
        });
        token.cancel();
    }
}

/// Moves a job that waits for its turn, and those it runs together with, by so many places.
pub(super) fn shift(inner: &Inner, id: JobId, by: isize) {
    if !inner.turns.shift(id, by) {
        return;
    }
    let order = inner.turns.order();
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
    inner.publish(|view| view.jobs.retain(|job| job.id != id || !job.state.is_over()));
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
fn log_of(inner: &Arc<Inner>, id: JobId) -> Arc<snapdeck_ops::Log> {
    let inner = inner.clone();
    Arc::new(move |warning, text| {
        if warning {
            tracing::warn!(job = id.0, "{text}");
        } else {
            tracing::info!(job = id.0, "{text}");
        }
        update(&inner, id, |job| {
            if job.log.len() < LOG_LINES {
                let line = LogLine {
                    at: Timestamp::now(),
                    text,
                    warning,
                };
                job.log = job.log.iter().cloned().chain([line]).collect();
            }
        });
    })
}
