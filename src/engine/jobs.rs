//! Jobs: submitted operations, which wait in the queue, run, and stay in the view until they are dismissed.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::history::{self, HistoryEntry};
use super::job_target::{JobDelay, JobTarget, TargetFinder};
use super::journal::JournalEntry;
use super::resource_locks;
use super::scheduler::JobSlot;
use super::state::{Engine, Inner};
use super::submission::{
    AcceptedJob, JobRequest, PermitFuture, submit_chain_requests, submit_requests,
};
use super::view::{JobId, JobState, JobView, LogLine, View};
use super::wording::{failure_summary, operation_title};
use snapdeck_bucket::StoreRetry;
use snapdeck_host::{Host, LockGuard, RetryPolicy};
use snapdeck_model::{
    Error, Kind, Operation, Outcome, Phase, ProgressCell, Result, WaitChange, WaitTarget, printable,
};
use snapdeck_ops::FetchHandle;

/// Limit of the wait of a job for a store that is overloaded or unreachable, from its latest successful call.
const STORE_RETRY_LIMIT: Duration = Duration::from_secs(300);
/// Time that a cancelled job has to end by itself while it checks, and to release its locks.
const CANCEL_GRACE: Duration = Duration::from_millis(400);
/// Time for which a cancelled job that cleans up counts among those that run at once.
const CLEANUP_GRACE: Duration = Duration::from_secs(20);
/// Limit of the look at the target of a job when it is requested.
const TARGET_TIMEOUT: Duration = Duration::from_secs(10);
/// Further finished jobs are dismissed, oldest first.
const MAX_FINISHED_JOBS: usize = 200;
/// Later lines are dropped: the first ones show how the job started.
const MAX_LOG_LINES: usize = 500;

impl Engine {
    /// Submits an operation as a job.
    ///
    /// # Errors
    /// `Conflict` if another job works on the same sandbox, snapshot or object; `InvalidInput` for an unknown host.
    pub fn submit(&self, operation: Operation) -> Result<JobId> {
        let mut results = self.submit_all(vec![operation]);
        results
            .pop()
            .unwrap_or_else(|| Err(Error::new(Kind::Failed, "the operation was not accepted")))
    }

    /// Submits operations as jobs; returns their results in order. Pulls of one snapshot run together as one of the
    /// `jobs.parallel` jobs, and each byte is downloaded once for all their hosts.
    ///
    /// # Errors
    /// Per operation those of [`Engine::submit`]; the other operations are submitted nevertheless.
    pub fn submit_all(&self, operations: Vec<Operation>) -> Vec<Result<JobId>> {
        let now = Timestamp::now();
        let requests = operations
            .into_iter()
            .map(|operation| JobRequest::new(operation, now));
        submit_requests(&self.inner, requests.collect())
    }

    /// Submits operations as a chain of jobs, all or none: each starts when the previous one finished, and fails with
    /// its error otherwise. Returns the ids; an earlier pull that an active job does already is that job.
    ///
    /// # Errors
    /// Those of [`Engine::submit`]. The locks of the jobs of a chain do not conflict with each other.
    pub fn submit_chain(&self, operations: Vec<Operation>) -> Result<Vec<JobId>> {
        let now = Timestamp::now();
        let requests = operations
            .into_iter()
            .map(|operation| JobRequest::new(operation, now));
        submit_chain_requests(&self.inner, requests.collect())
    }

    /// Waits until a job ends and returns its outcome. Each job ends: all its steps have a timeout or can be cancelled.
    ///
    /// # Errors
    /// Those of the job; `NotFound` for an unknown or dismissed job.
    pub async fn wait(&self, id: JobId) -> Result<Outcome> {
        let not_found = || Error::new(Kind::NotFound, format!("there is no job {}", id.0));
        let mut watch = self.watch();
        let has_ended = |view: &Arc<View>| view.job(id).is_none_or(|job| job.state.is_finished());
        let view = watch.wait_for(has_ended).await.map_err(|_| not_found())?;
        match view.job(id).map(|job| &job.state) {
            Some(JobState::Finished(outcome)) => Ok(outcome.clone()),
            Some(JobState::Failed(error)) => Err(error.clone()),
            _ => Err(not_found()),
        }
    }

    /// Cancels a job, and the earlier jobs of its chain unless others wait for them. Returns at once; a job ends after
    /// its cleanup. A job that has ended is unchanged.
    pub fn cancel(&self, id: JobId) {
        let unneeded = self.inner.jobs().withdraw(id);
        for id in [id].into_iter().chain(unneeded) {
            cancel_one(&self.inner, id);
        }
    }

    /// As [`Engine::cancel`], because this process ends: what an upload has sent is kept for the next one.
    pub fn stop(&self, id: JobId) {
        self.inner.suspend_token.cancel();
        self.cancel(id);
    }

    /// Removes a job that has ended from the view.
    pub fn dismiss(&self, id: JobId) {
        self.inner.publish(|view| {
            view.jobs
                .retain(|job| job.id != id || !job.state.is_finished())
        });
    }

    /// Moves a queued job, with the pulls that share its fetch, by `by` positions towards the end of the queue (negative:
    /// the front).
    pub fn shift(&self, id: JobId, by: isize) {
        if !self.inner.job_queue.shift(id, by) {
            return;
        }
        let queue = self.inner.job_queue.order();
        let position = |job: &Arc<JobView>| queue.iter().position(|id| *id == job.id);
        self.inner.publish(|view| {
            let indices: Vec<usize> = (0..view.jobs.len())
                .filter(|index| position(&view.jobs[*index]).is_some())
                .collect();
            let mut queued: Vec<_> = indices
                .iter()
                .map(|index| view.jobs[*index].clone())
                .collect();
            queued.sort_by_key(position);
            for (index, job) in indices.into_iter().zip(queued) {
                view.jobs[index] = job;
            }
        });
    }
}

/// Cancels a job, but not the earlier jobs of its chain.
pub(super) fn cancel_one(inner: &Inner, id: JobId) {
    // First, so that the job is not resumed even if this process is killed during the cleanup.
    remove_from_journal(inner, id);
    interrupt(inner, id);
}

/// The hosts of a job.
#[derive(Clone, Copy)]
struct JobHosts<'a> {
    host: Option<&'a Host>,
    /// The host that it copies from.
    source: Option<&'a Host>,
}

/// Finds the target of a job, so that it is recognised when the job begins, or after a restart.
async fn observe_target(inner: &Inner, job: &mut JournalEntry, hosts: JobHosts<'_>) {
    let finder = TargetFinder {
        operation: &job.operation,
        host: hosts.host,
        source: hosts.source,
        bucket: &inner.bucket,
    };
    // What does not answer in time is unknown.
    let target = tokio::time::timeout(TARGET_TIMEOUT, finder.observe()).await;
    job.target = target.ok();
}

fn update_journal(inner: &Inner, id: JobId, entry: &JournalEntry) {
    if let Some(journal) = inner.journal.get() {
        journal.update(id, entry);
    }
}

/// Runs a job to its end.
pub(super) async fn run_job(
    inner: Arc<Inner>,
    job: AcceptedJob,
    queued: PermitFuture,
    fetch: FetchHandle,
) {
    let AcceptedJob {
        id,
        operation,
        mut entry,
        is_interrupted,
        is_prerequisite,
        host,
        source,
        progress_cell,
        cancel,
        end,
    } = job;
    let title = operation_title(&operation);
    let mut record = HistoryEntry::start(&operation);
    let mut delay = match is_interrupted {
        true => JobDelay::Interrupted,
        false => JobDelay::None,
    };
    let permit = match queued.clone().now_or_never() {
        Some(permit) => permit,
        None => {
            let mut wait = pin!(async {
                if !is_interrupted {
                    delay = JobDelay::Queued;
                    let hosts = JobHosts {
                        host: host.as_ref().map(|(_, host)| host),
                        source: source.as_ref(),
                    };
                    observe_target(&inner, &mut entry, hosts).await;
                    update_journal(&inner, id, &entry);
                }
                queued.clone().await
            });
            tokio::select! {
                permit = &mut wait => permit,
                () = cancel.cancelled() => Err(Error::cancelled(title.clone())),
            }
        }
    };
    // It has the permit, too.
    drop(queued);
    let slot = permit.map(|permit| Arc::new(JobSlot::new(&inner.job_queue, id, permit)));
    let result = if let Ok(slot) = &slot {
        record.started_at = Some(Timestamp::now());
        update(&inner, id, |job| {
            job.started_at = Some(Instant::now());
            if job.state == JobState::Queued {
                job.state = JobState::Running;
            }
        });
        tracing::info!(job = id.0, "{title}: started");
        let cancelled = cancel.clone();
        let ctx = snapdeck_ops::Context {
            progress: progress_cell.clone(),
            cancel,
            is_suspended: suspension_check(&inner, id),
            log: job_log(&inner, id),
            zstd_enabled: inner.settings.push.zstd_enabled,
            sharing: inner.sharing.clone(),
            check_shared_blocks: inner.settings.pull.check_shared_blocks,
            push_cache: inner.push_cache.clone(),
            relayed_hosts: inner.relayed_hosts.clone(),
        };
        let mut worker = {
            let (inner, slot) = (inner.clone(), slot.clone());
            let host = host.as_ref().map(|(_, host)| with_retry_policy(host, &ctx));
            let source = source.as_ref().map(|host| with_retry_policy(host, &ctx));
            // A task of its own, so that a panic ends only this job.
            tokio::spawn(async move {
                let hosts = JobHosts {
                    host: host.as_ref(),
                    source: source.as_ref(),
                };
                begin(&inner, id, &mut entry, delay, hosts, &ctx).await;
                let requested = RequestedTarget {
                    target: entry.target.unwrap_or_default(),
                    delay,
                    is_prerequisite,
                };
                run_operation(&inner, &operation, &requested, hosts, fetch, (&slot, &ctx)).await
            })
        };
        let cleaning_up = async {
            cancelled.cancelled().await;
            sleep(CLEANUP_GRACE).await;
        };
        let ended = tokio::select! {
            ended = &mut worker => ended,
            // A host that never answers must not keep out the jobs of others.
            () = cleaning_up => {
                slot.give_back();
                worker.await
            }
        };
        ended.unwrap_or_else(|panic| {
            Err(
                Error::new(Kind::Failed, format!("{title} crashed inside snapdeck"))
                    .with_cause(panic),
            )
        })
    } else {
        Err(slot
            .as_ref()
            .err()
            .cloned()
            .unwrap_or_else(|| Error::cancelled(&title)))
    };
    let error = result.as_ref().map(|_| ()).map_err(Error::clone);
    if !is_suspended(&inner, id, &result) {
        history::add(&inner, record.end(&result)).await;
    }
    finish(&inner, id, &title, &progress_cell, result);
    if let Some((index, _)) = host {
        inner.host_refresh[index].notify_one();
    }
    inner.bucket_refresh.notify_one();
    end.send_replace(Some(error));
}

/// Records that a job begins, and its target if there is a journal.
async fn begin(
    inner: &Inner,
    id: JobId,
    entry: &mut JournalEntry,
    delay: JobDelay,
    hosts: JobHosts<'_>,
    ctx: &snapdeck_ops::Context,
) {
    if inner.journal.get().is_none() {
        return;
    }
    if delay == JobDelay::None {
        tokio::select! {
            () = observe_target(inner, entry, hosts) => {}
            () = ctx.cancel.cancelled() => return,
        }
    }
    entry.begin();
    update_journal(inner, id, entry);
}

/// The target of a job when it was requested.
struct RequestedTarget {
    target: JobTarget,
    delay: JobDelay,
    is_prerequisite: bool,
}

/// Runs the operation under the locks on its host, which other processes respect, too. Fails if its target was replaced
/// since it was requested.
async fn run_operation(
    inner: &Inner,
    operation: &Operation,
    requested: &RequestedTarget,
    hosts: JobHosts<'_>,
    fetch: FetchHandle,
    (slot, ctx): (&JobSlot, &snapdeck_ops::Context),
) -> Result<Outcome> {
    let title = operation_title(operation);
    let cannot = |error: Error| error.context(failure_summary(operation));
    let lock_lost = CancellationToken::new();
    let JobHosts { host, source } = hosts;
    let target_locks = host.map(|host| {
        let requests = resource_locks::host_locks(operation, host, requested.is_prerequisite);
        (host, requests)
    });
    let source_locks = source.map(|host| (host, resource_locks::source_locks(operation, host)));
    let mut locks = Vec::new();
    let on_wait = |holder: &str| {
        let text = match holder {
            "" => "waiting for another snapdeck process".to_owned(),
            holder => format!("waiting for another snapdeck process: {holder}"),
        };
        (ctx.log)(true, text);
        // It may wait for a day, and the jobs of other hosts with it.
        slot.give_back();
    };
    for (host, requests) in target_locks.into_iter().chain(source_locks) {
        ctx.progress.enter(Phase::Checking, 0);
        let acquire = async {
            let locks = host.locks();
            let lock = locks.acquire_or_wait(requests, &title, lock_lost.clone(), on_wait);
            let lock = lock.await?;
            slot.take_again().await?;
            Ok(lock)
        };
        let lock = tokio::select! {
            lock = acquire => lock,
            () = cancelled_in_checks(ctx) => Err(Error::cancelled("the operation")),
        };
        match lock {
            Ok(lock) => locks.push(lock),
            Err(error) => {
                release(locks, ctx).await;
                return Err(cannot(error));
            }
        }
    }
    let on_change = report_wait(ctx, WaitTarget::Store);
    let retry = StoreRetry::new(STORE_RETRY_LIMIT, ctx.cancel.clone(), on_change);
    let (sandboxes, bucket) = (&inner.settings.sandbox, &inner.bucket.with_retry(retry));
    let finder = TargetFinder {
        operation,
        host,
        source,
        bucket,
    };
    let run = async {
        finder.verify(&requested.target, requested.delay).await?;
        snapdeck_ops::run(operation, host, source, bucket, fetch, sandboxes, ctx).await
    };
    tokio::pin!(run);
    let result = tokio::select! {
        result = &mut run => result,
        () = lock_lost.cancelled() => {
            ctx.cancel.cancel();
            run.await.map_err(|_| {
                cannot(Error::new(Kind::Conflict, "another snapdeck process took its lock while the host was unreachable"))
            })
        }
        () = cancelled_in_checks(ctx) => Err(Error::cancelled("the operation")),
    };
    release(locks, ctx).await;
    result
}

async fn release(locks: Vec<LockGuard>, ctx: &snapdeck_ops::Context) {
    let release = join_all(locks.into_iter().map(LockGuard::release));
    match ctx.cancel.is_cancelled() {
        // A host that does not answer releases it by itself.
        true => drop(timeout(CANCEL_GRACE, release).await),
        false => drop(release.await),
    }
}

/// Completes if the job is cancelled and is still checking a moment later: it waits for a host or a store that does not
/// answer, and has changed nothing, so that it can be dropped.
async fn cancelled_in_checks(ctx: &snapdeck_ops::Context) {
    ctx.cancel.cancelled().await;
    sleep(CANCEL_GRACE).await;
    if ctx.progress.sample().phase != Phase::Checking {
        pending().await
    }
}

/// Returns the host with the retry policy of a job: it waits while the host is unreachable.
fn with_retry_policy(host: &Host, ctx: &snapdeck_ops::Context) -> Host {
    let timeout = host.settings().reconnect_timeout;
    host.with_retry_policy(RetryPolicy::new(
        timeout,
        ctx.cancel.clone(),
        report_wait(ctx, WaitTarget::Host),
    ))
}

/// Returns a callback that shows on the job, in its progress and in its log, that it waits for `target`.
fn report_wait(
    ctx: &snapdeck_ops::Context,
    target: WaitTarget,
) -> Arc<dyn Fn(WaitChange) + Send + Sync> {
    let (log, progress) = (ctx.log.clone(), ctx.progress.clone());
    Arc::new(move |change| {
        progress.set_wait(target, &change);
        match change {
            WaitChange::Started { text, .. } => log(true, text),
            WaitChange::Ended { text } => log(false, text),
            // The error of the job says so.
            WaitChange::GivenUp => {}
        }
    })
}

/// Returns whether a job was stopped and stays in the journal, to be resumed by the next process.
fn is_suspended(inner: &Inner, id: JobId, result: &Result<Outcome>) -> bool {
    let is_cancelled = matches!(result, Err(error) if error.kind() == Kind::Cancelled);
    let journal = inner.journal.get();
    is_cancelled
        && inner.suspend_token.is_cancelled()
        && journal.is_some_and(|journal| journal.entry(id).is_some())
}

fn finish(
    inner: &Inner,
    id: JobId,
    title: &str,
    progress_cell: &ProgressCell,
    result: Result<Outcome>,
) {
    let is_cancelled = matches!(&result, Err(error) if error.kind() == Kind::Cancelled);
    // At a suspension, jobs stay in the journal; those that do not were removed before.
    match is_cancelled && inner.suspend_token.is_cancelled() {
        true => suspend_in_journal(inner, id),
        false => remove_from_journal(inner, id),
    }
    let state = match result {
        Ok(outcome) => {
            tracing::info!(job = id.0, "{title}: finished");
            progress_cell.enter(Phase::Finished, 0);
            JobState::Finished(outcome)
        }
        Err(_) if is_cancelled => {
            tracing::info!(job = id.0, "{title}: cancelled");
            // Not the message of the step that noticed it.
            JobState::Failed(Error::cancelled(title))
        }
        Err(error) => {
            tracing::error!(job = id.0, "{title}: {error}");
            JobState::Failed(error)
        }
    };
    inner.jobs().remove(id);
    inner.publish(|view| {
        edit(&mut view.jobs, id, |job| {
            job.state = state;
            job.ended_at = Some(Instant::now());
        });
        let finished = view.jobs.iter().filter(|job| job.state.is_finished());
        let mut surplus = finished.count().saturating_sub(MAX_FINISHED_JOBS);
        view.jobs.retain(|job| {
            let is_surplus = surplus > 0 && job.state.is_finished() && job.id != id;
            surplus -= usize::from(is_surplus);
            !is_surplus
        });
    });
}

pub(super) fn remove_from_journal(inner: &Inner, id: JobId) {
    if let Some(journal) = inner.journal.get() {
        journal.remove(id);
    }
}

/// Records that a job was stopped in order, if it is still in the journal.
fn suspend_in_journal(inner: &Inner, id: JobId) {
    if let Some(journal) = inner.journal.get()
        && let Some(mut entry) = journal.entry(id)
        && entry.has_begun
    {
        entry.suspend();
        journal.update(id, &entry);
    }
}

/// Returns a function that tells whether this process ends, and a later one resumes the job: it is in the journal, which a cancelled
/// one is not.
fn suspension_check(inner: &Arc<Inner>, id: JobId) -> Arc<dyn Fn() -> bool + Send + Sync> {
    let inner = inner.clone();
    Arc::new(move || {
        let journal = inner.journal.get();
        inner.suspend_token.is_cancelled()
            && journal.is_some_and(|journal| journal.entry(id).is_some())
    })
}

/// Stops a job; its journal entry stays.
pub(super) fn interrupt(inner: &Inner, id: JobId) {
    let token = inner.jobs().cancel_token(id);
    if let Some(token) = token {
        update(inner, id, |job| {
            if !job.state.is_finished() {
                job.state = JobState::Cancelling;
            }
        });
        token.cancel();
    }
}

fn update(inner: &Inner, id: JobId, change: impl FnOnce(&mut JobView)) {
    inner.publish(|view| edit(&mut view.jobs, id, change));
}

fn edit(jobs: &mut [Arc<JobView>], id: JobId, change: impl FnOnce(&mut JobView)) {
    if let Some(job) = jobs.iter_mut().find(|job| job.id == id) {
        change(Arc::make_mut(job));
    }
}

/// Returns the log of a job; its lines also go to the program's log. They may quote hosts and the store.
fn job_log(inner: &Arc<Inner>, id: JobId) -> Arc<snapdeck_ops::LogFn> {
    let inner = inner.clone();
    Arc::new(move |is_warning, text| {
        let text = printable(&text);
        if is_warning {
            tracing::warn!(job = id.0, "{text}");
        } else {
            tracing::info!(job = id.0, "{text}");
        }
        update(&inner, id, |job| {
            if job.log.len() < MAX_LOG_LINES {
                let line = LogLine {
                    time: Timestamp::now(),
                    text,
                    is_warning,
                };
                job.log = job.log.iter().cloned().chain([line]).collect();
            }
        });
    })
}
