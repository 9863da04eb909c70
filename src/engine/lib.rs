//! The engine behind the front ends (console, command line, HTTP API): it publishes immutable views and accepts
//! operations as jobs.
//!
//! ```text
//! hosts, bucket --scan, list--> inventory --\
//!                                            View --> front ends --Operation--> jobs --> ops
//!                                    jobs --/
//! ```

mod annotations;
mod copies;
mod doctor;
mod doctor_direct;
mod history;
mod host_load;
mod inventory;
mod inventory_cache;
mod job_table;
mod job_target;
mod jobs;
mod journal;
mod lineage;
mod manifest_cache;
mod metrics;
mod proposal;
mod prune;
mod queries;
mod recovery;
mod resource_locks;
mod scheduler;
mod screens;
mod state;
mod submission;
mod terminal;
mod view;
mod vnc;
mod wording;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::history::History;
use self::state::Inner;
use snapdeck_bucket::{Bucket, UploadRecords};
use snapdeck_host::Host;
pub use snapdeck_host::VncTunnel;
use snapdeck_model::settings::Settings;
use snapdeck_model::{HostName, Result};
use snapdeck_ops::{PushCache, SharingHosts};
use snapdeck_ownership::OwnershipRecords;

pub use annotations::AnnotationList;
pub use copies::ImageLocation;
pub use doctor::check_settings;
pub use history::{HistoryEntry, JobResult};
pub use inventory_cache::CachedInventory;
pub use prune::{Partials, PruneRequest};
pub use screens::{Screen, ScreenKey, Screens};
pub use state::Engine;
pub use view::{
    BucketView, HealthCheckView, HostView, InterruptedId, InterruptedJob, JobId, JobState, JobView,
    Link, LogLine, Parents, Sample, SandboxMetrics, View, WatchTarget,
};
pub use wording::{error_code, leftover_label, operation_title, pause_summary, transfer_summary};

/// The jobs that stay in the journal when the engine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspension {
    /// All of them: the operator decides on each at the next start.
    All,
    /// Those that the next start resumes without a confirmation; see [`Engine::resume_unfinished`].
    Unattended,
}

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Engine {
    /// Returns an engine for `settings` without a state directory: leftovers of its jobs are its own until it ends.
    ///
    /// # Errors
    /// As [`Engine::with_state`].
    pub async fn new(settings: Settings) -> Result<Self> {
        Self::with_state(settings, None).await
    }

    /// Returns an engine for `settings` that records in the state directory what its jobs create, so that a later process
    /// cleans up after a killed one, and which jobs have finished. Opens no connection; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` for a host with invalid settings.
    pub async fn with_state(settings: Settings, state: Option<&Path>) -> Result<Self> {
        let records = open_records(state);
        let hosts = connectable_hosts(&settings, &records)?;
        let sharing = open_sharing(&hosts, state);
        Self::with_hosts(settings, hosts, sharing, records, state)
    }

    /// Returns an engine for one host of `settings`; other processes serve the others, which may use the same files.
    ///
    /// # Errors
    /// As [`Engine::with_state`].
    pub async fn for_host(mut settings: Settings, host: &HostName, state: &Path) -> Result<Self> {
        let records = open_records(Some(state));
        let all = connectable_hosts(&settings, &records)?;
        let sharing = open_sharing(&all, Some(state));
        settings.hosts.retain(|settings| settings.name == *host);
        let hosts = all.into_iter().filter(|known| known.name() == host);
        Self::with_hosts(settings, hosts.collect(), sharing, records, Some(state))
    }

    fn with_hosts(
        settings: Settings,
        hosts: Vec<Host>,
        sharing: SharingHosts,
        records: OwnershipRecords,
        state: Option<&Path>,
    ) -> Result<Self> {
        let suspend_token = CancellationToken::new();
        let bucket = Bucket::new(&settings.bucket)
            .with_records(records)
            .with_upload_records(open_upload_records(state, &suspend_token));
        let view = inventory::empty_view(&settings, &bucket);
        Ok(Self {
            inner: Arc::new(Inner {
                host_refresh: hosts.iter().map(|_| Notify::new()).collect(),
                hosts,
                sharing: Arc::new(sharing),
                push_cache: Arc::new(open_push_cache(state)),
                relayed_hosts: Arc::default(),
                bucket,
                bucket_refresh: Notify::new(),
                jobs: Mutex::default(),
                job_queue: scheduler::JobQueue::new(settings.jobs.max_parallel),
                view: watch::Sender::new(Arc::new(view)),
                watch_target: watch::Sender::default(),
                metrics: watch::Sender::default(),
                watch_host_load: watch::Sender::default(),
                host_loads: watch::Sender::default(),
                watch_screens: watch::Sender::default(),
                screens: watch::Sender::default(),
                disk_spaces: Mutex::default(),
                history: History::new(state),
                tunnels: Mutex::default(),
                manifests: Mutex::default(),
                interrupted_jobs: Mutex::default(),
                stop: CancellationToken::new(),
                journal: OnceLock::new(),
                suspend_token,
                settings,
            }),
        })
    }

    /// Returns the settings in use.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Starts to update the view from all hosts and the bucket, and what is watched of metrics and
    /// loads. Returns at once.
    pub fn follow(&self) {
        for index in 0..self.inner.hosts.len() {
            tokio::spawn(inventory::follow_host(self.inner.clone(), index));
        }
        tokio::spawn(inventory::follow_bucket(self.inner.clone()));
        tokio::spawn(metrics::collect_metrics(self.inner.clone()));
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.history.follow());
        tokio::spawn(screens::take_thumbnails(self.inner.clone()));
        tokio::spawn(host_load::sample_host_loads(self.inner.clone()));
    }

    /// Returns the current view.
    pub fn view(&self) -> Arc<View> {
        self.inner.view.borrow().clone()
    }

    /// Returns a receiver of new views. The progress of jobs does not make a new view.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.inner.view.subscribe()
    }

    /// Requests a new scan of all hosts and a new listing of the bucket. Returns at once.
    pub fn refresh(&self) {
        self.inner.host_refresh.iter().for_each(Notify::notify_one);
        self.inner.bucket_refresh.notify_one();
    }

    /// Cancels all jobs, waits at most 30 s for their cleanup, and disconnects from the hosts.
    pub async fn shutdown(&self) {
        self.stop_jobs(SHUTDOWN_TIMEOUT, |id| jobs::cancel_one(&self.inner, id))
            .await;
    }

    /// Stops all jobs within `deadline`. Those that `suspension` names stay in the journal with their partial results; the
    /// others are cancelled as by [`Engine::shutdown`].
    pub async fn suspend(&self, deadline: Duration, suspension: Suspension) {
        self.inner.suspend_token.cancel();
        let stop = |id| match suspension {
            Suspension::All => jobs::interrupt(&self.inner, id),
            Suspension::Unattended if self.resumes_unattended(id) => {
                jobs::interrupt(&self.inner, id);
            }
            // Not by its chain: the pull for a new sandbox is resumed.
            Suspension::Unattended => jobs::cancel_one(&self.inner, id),
        };
        self.stop_jobs(deadline, stop).await;
    }

    async fn stop_jobs(&self, deadline: Duration, stop: impl Fn(JobId)) {
        let ids: Vec<JobId> = self.view().jobs.iter().map(|job| job.id).collect();
        ids.into_iter().for_each(stop);
        let mut watch = self.watch();
        let idle = |view: &Arc<View>| view.jobs.iter().all(|job| job.state.is_finished());
        // After the deadline the watchdogs on the hosts clean up.
        let _ = tokio::time::timeout(deadline, watch.wait_for(idle)).await;
        self.inner.stop.cancel();
        // A running health check removes its test objects from the bucket.
        let idle = |view: &Arc<View>| view.health_checks.iter().all(|check| !check.is_running);
        let _ = tokio::time::timeout(deadline, watch.wait_for(idle)).await;
        let disconnected = join_all(self.inner.sharing.hosts().iter().map(Host::disconnect));
        let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, disconnected).await;
    }
}

fn open_records(state: Option<&Path>) -> OwnershipRecords {
    state.map_or_else(OwnershipRecords::in_memory, OwnershipRecords::open)
}

fn open_upload_records(state: Option<&Path>, exit: &CancellationToken) -> UploadRecords {
    state.map_or_else(UploadRecords::default, |state| {
        UploadRecords::new(&state.join("uploads"), exit.clone())
    })
}

fn open_push_cache(state: Option<&Path>) -> PushCache {
    state.map_or_else(PushCache::default, |state| {
        PushCache::new(state.join("pushes"))
    })
}

/// Returns all hosts; `state` has what is known of those that do not answer.
fn open_sharing(hosts: &[Host], state: Option<&Path>) -> SharingHosts {
    let sharing = SharingHosts::new(hosts.to_vec());
    if let Some(state) = state {
        sharing.remember_in(&state.join("directories.json"));
    }
    sharing
}

fn connectable_hosts(settings: &Settings, records: &OwnershipRecords) -> Result<Vec<Host>> {
    let host = |settings| Ok(Host::new(settings)?.with_records(records.clone()));
    settings.hosts.iter().cloned().map(host).collect()
}
