//! The engine: one cheap handle for every face. It hands out immutable views and takes commands.
//!
//! ```text
//! hosts, bucket --survey, list--> inventory --\
//!                                              View --> faces --Operation--> jobs --> ops
//!                       jobs, their states ----/
//! ```

mod annotations;
mod doctor;
mod inventory;
mod inventory_cache;
mod job_table;
mod jobs;
mod journal;
mod lineage;
mod manifest_cache;
mod metrics;
mod prune;
mod queries;
mod recovery;
mod resource_locks;
mod scheduler;
mod state;
mod view;
mod vnc;
mod wording;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::state::Inner;
use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::Result;
use snapdeck_model::settings::Settings;

pub use inventory_cache::CachedInventory;
pub use prune::PruneRequest;
pub use state::Engine;
pub use view::{
    BucketView, HealthCheckView, HostView, InterruptedId, InterruptedJob, JobId, JobState, JobView,
    Link, LogLine, Parents, Sample, SandboxMetrics, View, WatchTarget,
};
pub use wording::{error_code, leftover_label, operation_title, pause_summary, transfer_summary};

/// How long [`Engine::shutdown`] waits for jobs to clean up.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the connections to the hosts have to end.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

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
}
