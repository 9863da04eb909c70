//! The engine's view with indexes, and what is sampled beside it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::facts::AnnotationsQuery;
use super::load_history::LoadHistory;
use super::lookup::{self, Index};
use super::picture::EncodedImage;
use super::rates::JobRates;
use jiff::Timestamp;
use snapdeck_engine::{
    AnnotationList, HistoryEntry, HostView, Link, SandboxMetrics, ScreenKey, Screens, View,
};
use snapdeck_model::{
    Annotations, HostLoad, HostLock, HostName, LockedResource, Object, Sandbox, SandboxId,
    Snapshot, SnapshotName,
};

/// A link without its error.
type LinkKind = std::mem::Discriminant<Link>;

/// Data derived from the view of one host.
#[derive(Debug, Default)]
struct HostIndex {
    snapshots: Index<Snapshot>,
    /// The kind of link, and since when.
    link_since: Option<(LinkKind, Instant)>,
}

/// Hosts, bucket and jobs as pages and dialogs show them, and the hosts that are shown.
#[derive(Debug, Default)]
pub(crate) struct World {
    view: Arc<View>,
    hosts: HashMap<HostName, HostIndex>,
    objects: Index<Object>,
    metrics: Option<Arc<SandboxMetrics>>,
    loads: Arc<BTreeMap<HostName, HostLoad>>,
    load_history: LoadHistory,
    screens: Arc<Screens>,
    /// Screens, encoded for the terminal.
    thumbnails: HashMap<ScreenKey, EncodedImage>,
    history: Arc<[HistoryEntry]>,
    rates: JobRates,
    current_host: Option<HostName>,
    shows_all_hosts: bool,
    annotations: Option<(AnnotationsQuery, AnnotationList)>,
    /// Changes with the places and annotations of snapshots.
    facts_version: u64,
    /// Start time of this run.
    started_at: Option<Timestamp>,
}

/// The host whose rows the lists have; `None`: all hosts.
pub(crate) type Scope = Option<HostName>;

impl World {
    /// Replaces the view; returns the previous one.
    pub(crate) fn set_view(&mut self, view: Arc<View>, now: Instant) -> Arc<View> {
        self.started_at.get_or_insert_with(Timestamp::now);
        let before = std::mem::replace(&mut self.view, view);
        if !has_same_places(&before, &self.view) {
            self.facts_version += 1;
        }
        for host in &self.view.hosts {
            let index = self.hosts.entry(host.name.clone()).or_default();
            if host.last_scan.is_some() {
                let entry = |snapshot: &Snapshot| (snapshot.name.clone(), snapshot.size_bytes);
                index.snapshots.update(&host.snapshots, entry);
            }
            let kind = std::mem::discriminant(&host.link);
            if index.link_since.is_none_or(|(before, _)| before != kind) {
                index.link_since = Some((kind, now));
            }
        }
        let entry = |object: &Object| (object.name.clone(), object.size_bytes);
        self.objects.update(&self.view.bucket.objects, entry);
        let exists = |name: &HostName| lookup::host(&self.view, name).is_some();
        if !self.current_host.as_ref().is_some_and(exists) {
            self.current_host = self.view.hosts.first().map(|host| host.name.clone());
        }
        self.sample_rates(now);
        before
    }

    /// Makes a host the current one; `None` shows all hosts.
    pub(crate) fn set_scope(&mut self, scope: Scope) {
        match scope {
            None => self.shows_all_hosts = self.view.hosts.len() > 1,
            Some(host) if self.host(&host).is_some() => {
                self.shows_all_hosts = false;
                self.current_host = Some(host);
            }
            Some(_) => {}
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        self.current_host.clone().filter(|_| !self.shows_all_hosts)
    }

    pub(crate) fn shows_all_hosts(&self) -> bool {
        self.shows_all_hosts
    }

    /// Makes a host the current one, whether all hosts are shown or not.
    pub(crate) fn set_current_host(&mut self, host: HostName) {
        self.current_host = Some(host);
    }

    /// Returns the host that new sandboxes and pulls are for.
    pub(crate) fn current_host(&self) -> Option<&HostName> {
        self.current_host.as_ref()
    }

    pub(crate) fn current_host_view(&self) -> Option<&HostView> {
        self.host(self.current_host.as_ref()?)
    }

    /// Returns the hosts whose rows the lists have.
    pub(crate) fn shown_hosts(&self) -> impl Iterator<Item = &HostView> {
        let current = self.current_host.as_ref();
        self.hosts()
            .filter(move |host| self.shows_all_hosts || current == Some(&host.name))
    }

    pub(crate) fn sample_rates(&mut self, now: Instant) {
        self.rates.sample(&self.view, now);
    }

    pub(crate) fn set_annotations(&mut self, query: AnnotationsQuery, list: AnnotationList) {
        self.annotations = Some((query, list));
        self.facts_version += 1;
    }

    /// Returns whether the annotations are those that `query` asks for.
    pub(crate) fn has_annotations(&self, query: &AnnotationsQuery) -> bool {
        let known = self.annotations.as_ref();
        known.is_some_and(|(known, _)| known == query)
    }

    /// Returns the annotations of a snapshot on a host, or in the bucket (`None`), if they were read for a filter.
    pub(crate) fn annotations(
        &self,
        host: Option<&HostName>,
        name: &SnapshotName,
    ) -> Option<&Annotations> {
        let (_, list) = self.annotations.as_ref()?;
        list.entries.get(&(host.cloned(), name.clone()))
    }

    /// Returns a number that changes with the places and annotations of snapshots.
    pub(crate) fn facts_version(&self) -> u64 {
        self.facts_version
    }

    pub(crate) fn set_metrics(&mut self, metrics: Option<Arc<SandboxMetrics>>) {
        self.metrics = metrics;
    }

    pub(crate) fn set_loads(&mut self, loads: Arc<BTreeMap<HostName, HostLoad>>) {
        self.load_history.add(&loads);
        self.loads = loads;
    }

    pub(crate) fn set_screens(&mut self, screens: Arc<Screens>) {
        self.thumbnails.retain(|key, _| screens.contains_key(key));
        self.screens = screens;
    }

    pub(crate) fn screens(&self) -> &Screens {
        &self.screens
    }

    pub(crate) fn set_thumbnails(&mut self, thumbnails: Vec<(ScreenKey, EncodedImage)>) {
        self.thumbnails.extend(thumbnails);
    }

    pub(crate) fn thumbnail(&self, key: &ScreenKey) -> Option<&EncodedImage> {
        self.thumbnails.get(key)
    }

    /// Replaces the history of jobs, oldest first.
    pub(crate) fn set_history(&mut self, history: Arc<[HistoryEntry]>) {
        self.history = history;
    }

    /// Returns the jobs that ended before this run, newest first.
    pub(crate) fn past_jobs(&self) -> impl Iterator<Item = &HistoryEntry> {
        let entries = self.history.iter().rev();
        entries.filter(|entry| {
            self.started_at
                .is_none_or(|started| entry.ended_at < started)
        })
    }

    pub(crate) fn past_job(&self, ended_at: Timestamp) -> Option<&HistoryEntry> {
        self.history.iter().find(|entry| entry.ended_at == ended_at)
    }

    /// Returns the lock that another process holds on a sandbox or snapshot of a host.
    pub(crate) fn lock(&self, host: &HostName, resource: &LockedResource) -> Option<&HostLock> {
        let locks = &self.host(host)?.locks;
        locks.iter().find(|lock| lock.resource == *resource)
    }

    /// Returns the load of a host that is reachable.
    pub(crate) fn load(&self, host: &HostName) -> Option<HostLoad> {
        let is_up = self.host(host).is_some_and(|host| host.link == Link::Up);
        self.loads.get(host).copied().filter(|_| is_up)
    }

    /// Returns the load of a host over the last minutes, oldest first, with the ages at the last sample in seconds.
    pub(crate) fn load_history(&self, host: &HostName) -> Vec<(f64, HostLoad)> {
        self.load_history.of_host(host)
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    pub(crate) fn rates(&self) -> &JobRates {
        &self.rates
    }

    pub(crate) fn metrics(&self) -> Option<&Arc<SandboxMetrics>> {
        self.metrics.as_ref()
    }

    /// Returns the metrics of this sandbox if it is the watched one.
    pub(crate) fn metrics_of(&self, host: &HostName, id: &SandboxId) -> Option<&SandboxMetrics> {
        let metrics = self.metrics.as_deref()?;
        (metrics.target.host == *host && metrics.target.sandbox == *id).then_some(metrics)
    }

    pub(crate) fn host(&self, name: &HostName) -> Option<&HostView> {
        lookup::host(&self.view, name)
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &HostView> {
        self.view.hosts.iter().map(Arc::as_ref)
    }

    pub(crate) fn object(&self, name: &SnapshotName) -> Option<&Object> {
        self.view.bucket.objects.get(self.objects.position(name)?)
    }

    /// Returns the size of an object, in bytes.
    pub(crate) fn object_size(&self, name: &SnapshotName) -> Option<u64> {
        self.objects.size(name)
    }

    pub(crate) fn snapshot(&self, host: &HostName, name: &SnapshotName) -> Option<&Snapshot> {
        let position = self.hosts.get(host)?.snapshots.position(name)?;
        self.host(host)?.snapshots.get(position)
    }

    pub(crate) fn sandbox(&self, host: &HostName, id: &SandboxId) -> Option<&Sandbox> {
        let sandboxes = &self.host(host)?.sandboxes;
        let index = sandboxes.binary_search_by(|sandbox| sandbox.id.cmp(id));
        sandboxes.get(index.ok()?)
    }

    /// Returns the size of a snapshot on a host, in bytes.
    pub(crate) fn snapshot_size(&self, host: &HostName, name: &SnapshotName) -> Option<u64> {
        self.hosts.get(host)?.snapshots.size(name)
    }

    /// Returns since when the link of a host is in its state.
    pub(crate) fn link_since(&self, host: &HostName) -> Option<Instant> {
        Some(self.hosts.get(host)?.link_since?.1)
    }
}

/// Returns whether the same snapshots and objects are in both views.
fn has_same_places(one: &View, other: &View) -> bool {
    let mut hosts = one.hosts.iter().zip(&other.hosts);
    one.hosts.len() == other.hosts.len()
        && Arc::ptr_eq(&one.bucket.objects, &other.bucket.objects)
        && hosts.all(|(one, other)| Arc::ptr_eq(&one.snapshots, &other.snapshots))
}
