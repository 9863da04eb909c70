//! Looking things up in a view.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use snapdeck_engine::{HostView, JobId, JobView, Link, View};
use snapdeck_model::{HostName, Object, Sandbox, SandboxId, Snapshot, SnapshotName};

/// The host of that name.
pub(crate) fn host<'a>(view: &'a View, name: &HostName) -> Option<&'a HostView> {
    view.hosts
        .iter()
        .map(Arc::as_ref)
        .find(|host| host.name == *name)
}

/// A sandbox of a host.
pub(crate) fn sandbox<'a>(view: &'a View, on: &HostName, id: &SandboxId) -> Option<&'a Sandbox> {
    host(view, on)?
        .sandboxes
        .iter()
        .find(|sandbox| sandbox.id == *id)
}

/// A snapshot of a host.
pub(crate) fn snapshot<'a>(
    view: &'a View,
    on: &HostName,
    name: &SnapshotName,
) -> Option<&'a Snapshot> {
    let snapshots = &host(view, on)?.snapshots;
    let at = snapshots.binary_search_by(|snapshot| snapshot.name.cmp(name));
    snapshots.get(at.ok()?)
}

/// An object.
pub(crate) fn object<'a>(view: &'a View, name: &SnapshotName) -> Option<&'a Object> {
    view.bucket
        .objects
        .iter()
        .find(|object| object.name == *name)
}

/// A job.
pub(crate) fn job(view: &View, id: JobId) -> Option<&Arc<JobView>> {
    view.jobs.iter().find(|job| job.id == id)
}

/// Are the rows of a host or the bucket only what was seen last, because it does not answer?
pub(crate) fn is_unreachable(link: &Link) -> bool {
    matches!(link, Link::Down(_))
}

/// Are rows that were seen at `seen` only what was seen last? They are, too, while an answer is awaited for the first
/// time: an earlier run saw them.
pub(crate) fn is_stale(link: &Link, seen: Option<Instant>) -> bool {
    match link {
        Link::Down(_) => true,
        Link::Connecting => seen.is_some(),
        Link::Up | Link::Unconfigured => false,
    }
}

/// Is what is shown of the bucket what is there?
pub(crate) fn is_bucket_known(view: &View) -> bool {
    view.bucket.link == Link::Up && view.bucket.last_listing.is_some()
}

/// What tells a list from any other that is alive.
pub(crate) fn address<T>(items: &Arc<[T]>) -> usize {
    Arc::as_ptr(items).cast::<()>() as usize
}

/// Places and sizes by name of one list, made again only when that list has changed.
#[derive(Debug, Default)]
pub(crate) struct Index {
    source_list: usize,
    entries: HashMap<SnapshotName, (usize, u64)>,
}

impl Index {
    /// Takes up `items`; cheap where they are the ones from before. The caller keeps the list it gave
    /// alive until it gives another one, so that an address stands for its content.
    pub(crate) fn update<T>(
        &mut self,
        items: &Arc<[T]>,
        entry: impl Fn(&T) -> (&SnapshotName, u64),
    ) -> bool {
        let address = address(items);
        if self.source_list == address && self.entries.len() == items.len() {
            return false;
        }
        self.source_list = address;
        self.entries = items
            .iter()
            .enumerate()
            .map(|(at, item)| {
                let (name, size) = entry(item);
                (name.clone(), (at, size))
            })
            .collect();
        true
    }

    /// Which item of the list has that name, where there is one.
    pub(crate) fn position(&self, name: &SnapshotName) -> Option<usize> {
        self.entries.get(name).map(|(at, _)| *at)
    }

    /// Bytes of that name, where there is one.
    pub(crate) fn size(&self, name: &SnapshotName) -> Option<u64> {
        self.entries.get(name).map(|(_, size)| *size)
    }
}
