//! All hosts together: the rows of each, in one list, told apart by name and host.

use std::sync::Arc;

use super::columns::{Column, Row, Value};
use super::list::List;
use super::lookup;
use snapdeck_engine::{HostView, View};
use snapdeck_model::{HostName, Sandbox, SandboxId, Snapshot, SnapshotName};

/// What tells a row from all others: its name, and the host it is on.
pub(crate) type HostKey<K> = (K, HostName);

/// A row: an item with the host it is on.
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
    fn value(&self, field: Column) -> Option<Value<'_>> {
        match field {
            Column::Host => Some(Value::Text(self.secondary_text())),
            field => self.items.get(self.item)?.value(field),
        }
    }
}

impl<T: Row> HostRow<T> {
    /// The item with its host. `view` has the lists that the rows were made of.
    pub(crate) fn find<'a>(&'a self, view: &'a View) -> Option<(&'a HostView, &'a T)> {
        Some((view.hosts.get(self.host)?, self.items.get(self.item)?))
    }
}

/// The lists of all hosts together.
#[derive(Debug, Default)]
pub(crate) struct AllHosts {
    /// Are they shown, instead of the current host's?
    pub is_shown: bool,
    /// The sandboxes' list.
    pub sandboxes: List<HostKey<SandboxId>>,
    /// The snapshots' list.
    pub snapshots: List<HostKey<SnapshotName>>,
    /// All sandboxes, by id and then host.
    pub sandbox_rows: Vec<HostRow<Sandbox>>,
    /// All snapshots, by name and then host.
    pub snapshot_rows: Vec<HostRow<Snapshot>>,
    source_lists: Vec<(usize, usize)>,
}

impl AllHosts {
    /// Takes up a view, where it is shown and has other lists than the one before, which the caller keeps
    /// alive meanwhile.
    pub(crate) fn update(&mut self, view: &View) {
        let lists = |host: &Arc<HostView>| {
            (
                lookup::address(&host.sandboxes),
                lookup::address(&host.snapshots),
            )
        };
        let of: Vec<_> = view.hosts.iter().map(lists).collect();
        if !self.is_shown {
            self.source_lists.clear();
        } else if self.source_lists != of {
            self.source_lists = of;
            self.sandbox_rows = rows(view, |host| &host.sandboxes);
            self.snapshot_rows = rows(view, |host| &host.snapshots);
            self.sandboxes.update(&self.sandbox_rows);
            self.snapshots.update(&self.snapshot_rows);
        }
    }
}

fn rows<T: Row>(view: &View, items: impl Fn(&HostView) -> &Arc<[T]>) -> Vec<HostRow<T>> {
    let of = |(at, host): (usize, &Arc<HostView>)| -> Vec<HostRow<T>> {
        let all = items(host);
        let placed = |(item, found): (usize, &T)| HostRow {
            key: (found.key().clone(), host.name.clone()),
            items: all.clone(),
            item,
            host: at,
        };
        all.iter().enumerate().map(placed).collect()
    };
    let mut rows: Vec<_> = view.hosts.iter().enumerate().flat_map(of).collect();
    rows.sort_by(|one, other| one.key.cmp(&other.key));
    rows
}
