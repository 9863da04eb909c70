//! The engine: one cheap handle for every face. It hands out immutable views and takes commands.
//!
//! ```text
//! hosts, bucket --survey, list--> inventory --\
//!                                              View --> faces --Operation--> jobs --> ops
//!                       jobs, their states ----/
//! ```

mod doctor;
mod inventory;
mod inventory_cache;
mod jobs;
mod journal;
mod lineage;
mod metrics;
mod prune;
mod recovery;
mod resource_locks;
mod scheduler;
mod view;
mod wording;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::journal::Journal;
use snapdeck_bucket::Bucket;
use snapdeck_host::{Host, HostInventory};
use snapdeck_model::settings::Settings;
use snapdeck_model::{
    Error, ForeignDomain, HostName, Kind, Object, Operation, Outcome, PushPlan, Result, Sandbox,
    SandboxId, Snapshot, SnapshotName,
};
use snapdeck_ops::SnapshotRequest;

pub use inventory_cache::CachedInventory;
pub use lineage::Parents;
pub use metrics::{Sample, SandboxMetrics, WatchTarget};
pub use prune::PruneRequest;
pub use view::{
    BucketView, HealthCheckView, HostView, InterruptedId, InterruptedJob, JobId, JobState, JobView,
    Link, LogLine, View,
};
pub use wording::{leftover_label, operation_title, pause_summary, transfer_summary};

/// How long [`Engine::shutdown`] waits for jobs to clean up.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the connections to the hosts have to end.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The engine's handle; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    hosts: Vec<Host>,
    /// One per host: asks its follower for a fresh look.
    host_refresh: Vec<Notify>,
    bucket: Bucket,
    bucket_refresh: Notify,
    jobs: Mutex<jobs::JobTable>,
    job_queue: scheduler::JobQueue,
    /// The only place views are made in; its lock is held for the making of one, never for I/O.
    view: watch::Sender<Arc<View>>,
    /// What somebody looks at, and what there is to see.
    watch_target: watch::Sender<Option<WatchTarget>>,
    metrics: watch::Sender<Option<Arc<SandboxMetrics>>>,
    tunnels: Mutex<metrics::Tunnels>,
    manifests: Mutex<lineage::ManifestCache>,
    interrupted_jobs: Mutex<Vec<recovery::InterruptedEntry>>,
    stop: CancellationToken,
    /// Where operations are noted until they are over, if they are.
    journal: OnceLock<Journal>,
    /// Fires when what is cancelled from then on is left to the next start.
    suspend_token: CancellationToken,
}

impl Inner {
    fn jobs(&self) -> MutexGuard<'_, jobs::JobTable> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tunnels(&self) -> MutexGuard<'_, metrics::Tunnels> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manifests(&self) -> MutexGuard<'_, lineage::ManifestCache> {
        self.manifests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupted(&self) -> MutexGuard<'_, Vec<recovery::InterruptedEntry>> {
        self.interrupted_jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the view and wakes who watches it.
    fn publish(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }

    /// Changes the view without waking anybody: for what is only looked at when something else changes.
    fn note(&self, change: impl FnOnce(&mut View)) {
        self.view.send_if_modified(|view| {
            change(Arc::make_mut(view));
            false
        });
    }
}

impl Engine {
    /// An engine for `settings`; must be called inside a tokio runtime. Nothing is opened yet.
    ///
    /// # Errors
    /// `InvalidInput` where a host's settings cannot be served.
    pub async fn new(settings: Settings) -> Result<Self> {
        let hosts = settings
            .hosts
            .iter()
            .cloned()
            .map(Host::new)
            .collect::<Result<Vec<Host>>>()?;
        let bucket = Bucket::new(&settings.bucket).await;
        let view = inventory::empty_view(&settings, &bucket);
        Ok(Self {
            inner: Arc::new(Inner {
                host_refresh: hosts.iter().map(|_| Notify::new()).collect(),
                hosts,
                bucket,
                bucket_refresh: Notify::new(),
                jobs: Mutex::default(),
                job_queue: scheduler::JobQueue::new(settings.jobs.max_parallel),
                view: watch::Sender::new(Arc::new(view)),
                watch_target: watch::Sender::default(),
                metrics: watch::Sender::default(),
                tunnels: Mutex::default(),
                manifests: Mutex::default(),
                interrupted_jobs: Mutex::default(),
                stop: CancellationToken::new(),
                journal: OnceLock::new(),
                suspend_token: CancellationToken::new(),
                settings,
            }),
        })
    }

    /// Settings in force.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Begins to follow all hosts and the bucket, into the view, and what is looked at. Returns at once.
    pub fn follow(&self) {
        for index in 0..self.inner.hosts.len() {
            tokio::spawn(inventory::follow_host(self.inner.clone(), index));
        }
        tokio::spawn(inventory::follow_bucket(self.inner.clone()));
        tokio::spawn(metrics::follow(self.inner.clone()));
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        self.inner.view.borrow().clone()
    }

    /// Woken when there is a newer view (never for progress).
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.inner.view.subscribe()
    }

    /// Asks all hosts and the bucket again, now. Returns at once.
    pub fn refresh(&self) {
        self.inner.host_refresh.iter().for_each(Notify::notify_one);
        self.inner.bucket_refresh.notify_one();
    }

    /// Takes an operation on as a job.
    ///
    /// # Errors
    /// `Unsupported` where another job works on the same sandbox, snapshot or object; `InvalidInput` for a host that
    /// is not in the settings.
    pub fn submit(&self, operation: Operation) -> Result<JobId> {
        let mut taken = jobs::submit(&self.inner, vec![operation]);
        taken
            .pop()
            .unwrap_or_else(|| Err(Error::new(Kind::Failed, "the operation was not accepted")))
    }

    /// Takes operations on, a job each; what came of each stands in their order. Pulls of one snapshot run
    /// together, in one of the places of `jobs.parallel`, and each byte is fetched from the bucket once for all of
    /// their hosts.
    ///
    /// # Errors
    /// Of each as [`Engine::submit`]'s: one that is refused does not stop the others.
    pub fn submit_all(&self, operations: Vec<Operation>) -> Vec<Result<JobId>> {
        jobs::submit(&self.inner, operations)
    }

    /// Takes operations on as a chain, a job each, all or none: each begins when the one before it has ended well,
    /// and fails with its error where it has not.
    ///
    /// # Errors
    /// As [`Engine::submit`]'s. The jobs of a chain do not compete with each other.
    pub fn submit_chain(&self, operations: Vec<Operation>) -> Result<Vec<JobId>> {
        jobs::submit_chain(&self.inner, operations)
    }

    /// Waits until the job is over and returns what came of it. Jobs end: each of their steps has a
    /// deadline or can be cancelled.
    ///
    /// # Errors
    /// The job's own; `NotFound` for a job that is not (any more) known.
    pub async fn wait(&self, id: JobId) -> Result<Outcome> {
        let unknown = || Error::new(Kind::NotFound, format!("there is no job {}", id.0));
        let mut watch = self.watch();
        let over = |view: &Arc<View>| view.job(id).is_none_or(|job| job.state.is_finished());
        let view = watch.wait_for(over).await.map_err(|_| unknown())?;
        match view.job(id).map(|job| &job.state) {
            Some(JobState::Finished(outcome)) => Ok(outcome.clone()),
            Some(JobState::Failed(error)) => Err(error.clone()),
            _ => Err(unknown()),
        }
    }

    /// Stops a job; acknowledged at once, its clean-up is part of it. A job that is over stays as it is.
    pub fn cancel(&self, id: JobId) {
        jobs::cancel(&self.inner, id);
    }

    /// Forgets a job that is over.
    pub fn dismiss(&self, id: JobId) {
        jobs::dismiss(&self.inner, id);
    }

    /// Moves a job that waits for its turn by so many places towards the end of the queue, or below 0 towards its
    /// front, with those it shares a fetch with.
    pub fn shift(&self, id: JobId, by: isize) {
        jobs::shift(&self.inner, id, by);
    }

    /// Is what is taken on noted, so that the next start can go on with it?
    pub fn has_journal(&self) -> bool {
        self.inner.journal.get().is_some()
    }

    /// Begins to examine hosts, and with `bucket` the bucket, all at the same time; what was found of each comes
    /// into the view ([`View::patients`]) as soon as it is there, within three minutes. What is being examined
    /// already is not begun anew.
    ///
    /// # Errors
    /// `InvalidInput` for a host that is not in the settings: then nothing is begun.
    pub fn run_health_checks(&self, hosts: &[HostName], bucket: bool) -> Result<()> {
        doctor::run_checks(&self.inner, hosts, bucket)
    }

    /// [`Engine::examine`] of all hosts and the bucket.
    pub fn run_all_health_checks(&self) {
        let hosts: Vec<HostName> = self
            .inner
            .hosts
            .iter()
            .map(|host| host.name().clone())
            .collect();
        // None of them is unknown.
        let _ = self.run_health_checks(&hosts, true);
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
        recovery::resume_all(&self.inner)
    }

    /// Ends: cancels what runs, waits, 30 s at most, until it has cleaned up, and leaves the hosts.
    pub async fn shutdown(&self) {
        self.stop_jobs(SHUTDOWN_TIMEOUT, |id| self.cancel(id)).await;
    }

    /// As [`Engine::shutdown`], within `deadline`, but what runs stays in the journal, for the next start, with what
    /// it can go on from.
    pub async fn suspend(&self, deadline: Duration) {
        self.inner.suspend_token.cancel();
        self.stop_jobs(deadline, |id| jobs::interrupt(&self.inner, id))
            .await;
    }

    async fn stop_jobs(&self, deadline: Duration, stop: impl Fn(JobId)) {
        let ids: Vec<JobId> = self.view().jobs.iter().map(|job| job.id).collect();
        ids.into_iter().for_each(stop);
        let mut watch = self.watch();
        let idle = |view: &Arc<View>| view.jobs.iter().all(|job| job.state.is_finished());
        // Past the deadline the guards on the hosts do what is left to do.
        let _ = tokio::time::timeout(deadline, watch.wait_for(idle)).await;
        self.inner.stop.cancel();
        // What an examination has put into the bucket goes with it.
        let idle = |view: &Arc<View>| view.health_checks.iter().all(|patient| !patient.is_running);
        let _ = tokio::time::timeout(deadline, watch.wait_for(idle)).await;
        let leave = join_all(self.inner.hosts.iter().map(Host::disconnect));
        let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, leave).await;
    }

    /// What a push would do, found out now; moves nothing.
    ///
    /// # Errors
    /// As a push: `Unsupported` where the sandbox is neither stopped nor paused; `NotFound`; `Unreachable`.
    pub async fn plan_push(
        &self,
        host: &HostName,
        sandbox: &SandboxId,
        name: &SnapshotName,
        compact: bool,
    ) -> Result<PushPlan> {
        let inner = &self.inner;
        let wish = SnapshotRequest::new(name, false, compact);
        let zstd = inner.settings.push.zstd_enabled;
        snapdeck_ops::plan_push(self.host(host)?, &inner.bucket, sandbox, &wish, zstd).await
    }

    /// Sandboxes of a host, asked now.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host, `Unreachable` where it does not answer.
    pub async fn sandboxes(&self, host: &HostName) -> Result<Vec<Sandbox>> {
        Ok(self.scan(host).await?.sandboxes)
    }

    /// One sandbox of a host, asked now.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`]; `NotFound`; `Unsupported` where a guest of that name is no sandbox of ours.
    pub async fn sandbox(&self, host: &HostName, id: &SandboxId) -> Result<Sandbox> {
        self.host(host)?.sandboxes().get(id).await
    }

    /// All guests of a host, asked now: sandboxes, and those that are none of ours.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn guests(&self, host: &HostName) -> Result<(Vec<Sandbox>, Vec<ForeignDomain>)> {
        let survey = self.scan(host).await?;
        Ok((survey.sandboxes, survey.foreign_domains))
    }

    /// Snapshots of a host, asked now.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn snapshots(&self, host: &HostName) -> Result<Vec<Snapshot>> {
        Ok(self.scan(host).await?.snapshots)
    }

    /// One snapshot of a host, asked now.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn snapshot(&self, host: &HostName, name: &SnapshotName) -> Result<Option<Snapshot>> {
        let snapshots = self.snapshots(host).await?;
        Ok(snapshots
            .into_iter()
            .find(|snapshot| snapshot.name == *name))
    }

    /// All objects, asked now.
    ///
    /// # Errors
    /// As the bucket's listing fails.
    pub async fn objects(&self) -> Result<Vec<Object>> {
        self.inner.bucket.list().try_concat().await
    }

    /// One object, asked now; `None` where the bucket has no such object.
    ///
    /// # Errors
    /// As the bucket fails to answer.
    pub async fn object(&self, name: &SnapshotName) -> Result<Option<Object>> {
        self.inner.bucket.head(name).await
    }

    async fn scan(&self, host: &HostName) -> Result<HostInventory> {
        let survey = self.host(host)?.inventory().scan().await?;
        for warning in inventory::warnings(&survey) {
            tracing::warn!("{warning}");
        }
        Ok(survey)
    }

    fn host(&self, name: &HostName) -> Result<&Host> {
        jobs::find_host(&self.inner, name).map(|(_, host)| host)
    }
}
