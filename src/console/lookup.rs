//! Finds hosts, sandboxes, snapshots, objects and jobs in a view.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use snapdeck_engine::{HostView, JobId, JobView, Link, View};
use snapdeck_model::{
    HostLock, HostName, LockedResource, Object, Operation, PartialPull, Sandbox, SandboxId,
    Snapshot, SnapshotName,
};

pub(crate) fn host<'a>(view: &'a View, name: &HostName) -> Option<&'a HostView> {
    view.hosts
        .iter()
        .map(Arc::as_ref)
        .find(|host| host.name == *name)
}

/// Returns a sandbox, by a linear search. [`Sandboxes`] is faster for many.
pub(crate) fn sandbox<'a>(
    view: &'a View,
    host_name: &HostName,
    id: &SandboxId,
) -> Option<&'a Sandbox> {
    #[cfg(test)]
    count_search();
    host(view, host_name)?
        .sandboxes
        .iter()
        .find(|sandbox| sandbox.id == *id)
}

pub(crate) fn snapshot<'a>(
    view: &'a View,
    host_name: &HostName,
    name: &SnapshotName,
) -> Option<&'a Snapshot> {
    let snapshots = &host(view, host_name)?.snapshots;
    let index = snapshots.binary_search_by(|snapshot| snapshot.name.cmp(name));
    snapshots.get(index.ok()?)
}

/// Returns the partial pulls on a host that no job of any snapdeck continues now.
pub(crate) fn interrupted_partials<'a>(
    view: &'a View,
    host: &'a HostView,
) -> impl Iterator<Item = &'a PartialPull> {
    host.partials
        .iter()
        .filter(move |partial| !is_downloading(view, host, &partial.name))
}

/// Returns the partial pull of a snapshot on a host.
pub(crate) fn partial_pull<'a>(
    view: &'a View,
    host_name: &HostName,
    name: &SnapshotName,
) -> Option<&'a PartialPull> {
    let mut partials = host(view, host_name)?.partials.iter();
    partials.find(|partial| partial.name == *name)
}

fn is_downloading(view: &View, host: &HostView, name: &SnapshotName) -> bool {
    let is_own = view.jobs.iter().any(|job| {
        !job.state.is_finished()
            && matches!(&job.operation,
                Operation::Pull { host: to, name: pulled, .. }
                | Operation::Copy { host: to, name: pulled, .. }
                    if *to == host.name && pulled == name)
    });
    let is_locked = |lock: &HostLock| matches!(&lock.resource, LockedResource::Snapshot(locked) if locked == name);
    is_own || host.locks.iter().any(is_locked)
}

/// Returns an object, by a linear search. [`objects_by_name`] is faster for many.
pub(crate) fn object<'a>(view: &'a View, name: &SnapshotName) -> Option<&'a Object> {
    #[cfg(test)]
    count_search();
    view.bucket
        .objects
        .iter()
        .find(|object| object.name == *name)
}

pub(crate) fn objects_by_name(view: &View) -> HashMap<&SnapshotName, &Object> {
    #[cfg(test)]
    count_search();
    let objects = view.bucket.objects.iter();
    objects.map(|object| (&object.name, object)).collect()
}

/// Sandboxes by host and id.
pub(crate) struct Sandboxes<'a>(HashMap<(&'a HostName, &'a SandboxId), &'a Sandbox>);

impl<'a> Sandboxes<'a> {
    /// Returns the sandboxes of the hosts of `ids`.
    pub(crate) fn new(view: &'a View, ids: &[(HostName, SandboxId)]) -> Self {
        #[cfg(test)]
        count_search();
        let hosts: HashSet<&HostName> = ids.iter().map(|(host, _)| host).collect();
        let hosts = view.hosts.iter().filter(|host| hosts.contains(&host.name));
        let sandboxes = hosts.flat_map(|host| {
            let sandboxes = host.sandboxes.iter();
            sandboxes.map(|sandbox| ((&host.name, &sandbox.id), sandbox))
        });
        Self(sandboxes.collect())
    }

    pub(crate) fn get(&self, host: &HostName, id: &SandboxId) -> Option<&'a Sandbox> {
        self.0.get(&(host, id)).copied()
    }
}

#[cfg(test)]
thread_local! {
    /// Passes over a list of sandboxes or objects.
    static SEARCHES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn count_search() {
    SEARCHES.set(SEARCHES.get() + 1);
}

/// Returns how often lists of sandboxes or objects were searched since the last call.
#[cfg(test)]
pub(crate) fn take_search_count() -> usize {
    SEARCHES.take()
}

pub(crate) fn job(view: &View, id: JobId) -> Option<&Arc<JobView>> {
    view.jobs.iter().find(|job| job.id == id)
}

pub(crate) fn is_unreachable(link: &Link) -> bool {
    matches!(link, Link::Down(_))
}

/// Returns whether the rows are only the last known ones: the place is unreachable, or it is connecting and the rows are
/// those of an earlier run.
pub(crate) fn is_stale(link: &Link, last_scan: Option<Instant>) -> bool {
    match link {
        Link::Down(_) => true,
        Link::Connecting => last_scan.is_some(),
        Link::Up | Link::Unconfigured => false,
    }
}

/// Returns whether the list of objects is complete and current.
pub(crate) fn is_bucket_known(view: &View) -> bool {
    view.bucket.link == Link::Up && view.bucket.last_listing.is_some()
}

/// Positions and sizes of a list's items by name, rebuilt only when the list changes.
#[derive(Debug)]
pub(crate) struct Index<T> {
    source: Option<Arc<[T]>>,
    entries: HashMap<SnapshotName, (usize, u64)>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            source: None,
            entries: HashMap::new(),
        }
    }
}

impl<T> Index<T> {
    /// Updates the index for `items`; cheap if they are the same list.
    pub(crate) fn update(&mut self, items: &Arc<[T]>, entry: impl Fn(&T) -> (SnapshotName, u64)) {
        if self
            .source
            .as_ref()
            .is_some_and(|source| Arc::ptr_eq(source, items))
        {
            return;
        }
        self.source = Some(items.clone());
        let items = items.iter().enumerate();
        self.entries = items
            .map(|(index, item)| {
                let (name, size) = entry(item);
                (name, (index, size))
            })
            .collect();
    }

    pub(crate) fn position(&self, name: &SnapshotName) -> Option<usize> {
        self.entries.get(name).map(|(index, _)| *index)
    }

    /// Returns the size in bytes.
    pub(crate) fn size(&self, name: &SnapshotName) -> Option<u64> {
        self.entries.get(name).map(|(_, size)| *size)
    }
}
