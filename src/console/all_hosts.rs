//! The lists of all hosts merged into one; a row is identified by name and host.

use std::sync::Arc;

use super::columns::{Column, Row, Value};
use super::list::List;
use super::lookup;
use snapdeck_engine::{HostView, View};
use snapdeck_model::{HostName, Sandbox, SandboxId, Snapshot, SnapshotName};

pub(crate) type HostKey<K> = (K, HostName);

/// An item with its host.
#[derive(Debug)]
pub(crate) struct HostRow<T: Row> {
    key: HostKey<T::Key>,
    items: Arc<[T]>,
    item: usize,
    host: usize,
}

impl<T: Row> Row for HostRow<T> {
    type Key = HostKey<T::Key>;
    fn key(&self) -> &HostKey<T::Key> {
        &self.key
    }
    fn text(&self) -> &str {
        self.items.get(self.item).map_or("", Row::text)
    }
    fn secondary_text(&self) -> &str {
        self.key.1.as_str()
    }
    fn value(&self, column: Column) -> Option<Value<'_>> {
        match column {
            Column::Host => Some(Value::Text(self.secondary_text())),
            column => self.items.get(self.item)?.value(column),
        }
    }
}

impl<T: Row> HostRow<T> {
    /// Returns the item with its host. `view` must have the lists from which the rows were built.
    pub(crate) fn find<'a>(&'a self, view: &'a View) -> Option<(&'a HostView, &'a T)> {
        Some((view.hosts.get(self.host)?, self.items.get(self.item)?))
    }
}

/// The merged lists.
#[derive(Debug, Default)]
pub(crate) struct AllHosts {
    pub is_shown: bool,
    pub sandboxes: List<HostKey<SandboxId>>,
    pub snapshots: List<HostKey<SnapshotName>>,
    /// By id, then host.
    pub sandbox_rows: Vec<HostRow<Sandbox>>,
    /// By name, then host.
    pub snapshot_rows: Vec<HostRow<Snapshot>>,
    /// Addresses of the lists from which the rows were built, by host.
    source_lists: Vec<(usize, usize)>,
}

impl AllHosts {
    /// Rebuilds the rows if they are shown and a list of `view` has changed.
    ///
    /// The caller keeps the previous view alive meanwhile: lists are compared by address.
    pub(crate) fn update(&mut self, view: &View) {
        let addresses = |host: &Arc<HostView>| {
            (
                lookup::address(&host.sandboxes),
                lookup::address(&host.snapshots),
            )
        };
        let source_lists: Vec<_> = view.hosts.iter().map(addresses).collect();
        if !self.is_shown {
            self.source_lists.clear();
        } else if self.source_lists != source_lists {
            self.source_lists = source_lists;
            self.sandbox_rows = rows(view, |host| &host.sandboxes);
            self.snapshot_rows = rows(view, |host| &host.snapshots);
            self.sandboxes.update(&self.sandbox_rows);
            self.snapshots.update(&self.snapshot_rows);
        }
    }
}

fn rows<T: Row>(view: &View, items: impl Fn(&HostView) -> &Arc<[T]>) -> Vec<HostRow<T>> {
    let host_rows = |(host_index, host): (usize, &Arc<HostView>)| -> Vec<HostRow<T>> {
        let items = items(host);
        let row = |(index, item): (usize, &T)| HostRow {
            key: (item.key().clone(), host.name.clone()),
            items: items.clone(),
            item: index,
            host: host_index,
        };
        items.iter().enumerate().map(row).collect()
    };
    let mut rows: Vec<_> = view.hosts.iter().enumerate().flat_map(host_rows).collect();
    rows.sort_by(|one, other| one.key.cmp(&other.key));
    rows
}
