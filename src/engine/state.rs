//! The state that the parts of the engine share.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::history::History;
use super::job_table::JobTable;
use super::journal::{InterruptedEntry, Journal};
use super::manifest_cache::ManifestCache;
use super::scheduler::JobQueue;
use super::screens::{ScreenKey, Screens};
use super::view::{SandboxMetrics, View, WatchTarget};
use snapdeck_bucket::Bucket;
use snapdeck_host::{DiskSpace, Host, VncTunnel};
use snapdeck_model::settings::Settings;
use snapdeck_model::{Error, HostLoad, HostName, Kind, Result, SandboxId};
use snapdeck_ops::{PushCache, RelayedHosts, SharingHosts};

pub(super) type Tunnels = HashMap<(HostName, SandboxId), Arc<VncTunnel>>;

/// A handle of the engine; its clones share one engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub settings: Settings,
    pub hosts: Vec<Host>,
    /// All configured hosts: these, and those that other processes serve.
    pub sharing: Arc<SharingHosts>,
    /// Records the last upload of each sandbox.
    pub push_cache: Arc<PushCache>,
    pub relayed_hosts: Arc<RelayedHosts>,
    /// Per host: requests a new scan.
    pub host_refresh: Vec<Notify>,
    pub bucket: Bucket,
    pub bucket_refresh: Notify,
    pub jobs: Mutex<JobTable>,
    pub job_queue: JobQueue,
    /// The lock is held while a view is changed, never during I/O.
    pub view: watch::Sender<Arc<View>>,
    pub watch_target: watch::Sender<Option<WatchTarget>>,
    pub metrics: watch::Sender<Option<Arc<SandboxMetrics>>>,
    pub watch_host_load: watch::Sender<bool>,
    pub host_loads: watch::Sender<Arc<BTreeMap<HostName, HostLoad>>>,
    pub watch_screens: watch::Sender<Vec<ScreenKey>>,
    pub screens: watch::Sender<Arc<Screens>>,
    /// Space for snapshots at the last scan, by host.
    pub disk_spaces: Mutex<HashMap<HostName, DiskSpace>>,
    pub history: History,
    pub tunnels: Mutex<Tunnels>,
    pub manifests: Mutex<ManifestCache>,
    pub interrupted_jobs: Mutex<Vec<InterruptedEntry>>,
    pub stop: CancellationToken,
    /// Set once, by [`Engine::open_journal`].
    pub journal: OnceLock<Journal>,
    /// Fires before jobs are stopped that the next start is to resume.
    pub suspend_token: CancellationToken,
}

impl Inner {
    pub(crate) fn jobs(&self) -> MutexGuard<'_, JobTable> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tunnels(&self) -> MutexGuard<'_, Tunnels> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn disk_space(&self, host: &HostName) -> Option<DiskSpace> {
        self.disk_spaces().get(host).copied()
    }

    pub(crate) fn disk_spaces(&self) -> MutexGuard<'_, HashMap<HostName, DiskSpace>> {
        self.disk_spaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn manifests(&self) -> MutexGuard<'_, ManifestCache> {
        self.manifests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn interrupted(&self) -> MutexGuard<'_, Vec<InterruptedEntry>> {
        self.interrupted_jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find_host(&self, name: &HostName) -> Result<(usize, &Host)> {
        self.hosts
            .iter()
            .enumerate()
            .find(|(_, host)| host.name() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = self.hosts.iter().map(|host| host.name().as_str()).collect();
                Error::new(Kind::InvalidInput, format!("host {name} is not configured"))
                    .hint(format!("use a configured host: {}", names.join(", ")))
            })
    }

    /// Returns the host that a snapshot is copied from: any host of the settings, also if this engine serves another one.
    pub(crate) fn find_source(&self, name: &HostName) -> Result<&Host> {
        let mut all = self.sharing.hosts().iter();
        match all.find(|host| host.name() == name) {
            Some(host) => Ok(host),
            None => self.find_host(name).map(|(_, host)| host),
        }
    }

    /// Changes the view and wakes its receivers.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }

    /// Changes the view without waking its receivers.
    pub(crate) fn publish_silently(&self, change: impl FnOnce(&mut View)) {
        self.view.send_if_modified(|view| {
            change(Arc::make_mut(view));
            false
        });
    }
}

impl Engine {
    /// Returns whether the settings have this host, also if this engine serves another one.
    pub fn is_configured_host(&self, name: &HostName) -> bool {
        self.inner.find_source(name).is_ok()
    }

    pub(crate) fn host(&self, name: &HostName) -> Result<&Host> {
        self.inner.find_host(name).map(|(_, host)| host)
    }
}
