//! All hosts together: the rows of each, in one list, told apart by name and host.

use std::sync::Arc;

use super::fields::{Field, Row, Value};
use super::list::List;
use super::world;
use snapdeck_engine::{HostView, View};
use snapdeck_model::{HostName, Sandbox, SandboxId, Snapshot, SnapshotName};

/// What tells a row from all others: its name, and the host it is on.
pub(crate) type On<K> = (K, HostName);

/// A row: an item with the host it is on.
#[derive(Debug)]
pub(crate) struct Placed<T: Row> {
    key: On<T::Key>,
    items: Arc<[T]>,
    item: usize,
    host: usize,
}

impl<T: Row> Row for Placed<T> {
    type Key = On<T::Key>;
    fn key(&self) -> &On<T::Key> {
        &self.key
    }
    fn text(&self) -> &str {
        self.items.get(self.item).map_or("", Row::text)
    }
    fn beside(&self) -> &str {
        self.key.1.as_str()
    }
    fn value(&self, field: Field) -> Option<Value<'_>> {
        match field {
            Field::Host => Some(Value::Text(self.beside())),
            field => self.items.get(self.item)?.value(field),
        }
    }
}

impl<T: Row> Placed<T> {
    /// The item with its host. `view` has the lists that the rows were made of.
    pub(crate) fn find<'a>(&'a self, view: &'a View) -> Option<(&'a HostView, &'a T)> {
        Some((view.hosts.get(self.host)?, self.items.get(self.item)?))
    }
}

/// The lists of all hosts together.
#[derive(Debug, Default)]
pub(crate) struct Together {
    /// Are they shown, instead of the current host's?
    pub shown: bool,
    /// The sandboxes' list.
    pub sandboxes: List<On<SandboxId>>,
    /// The snapshots' list.
    pub snapshots: List<On<SnapshotName>>,
    /// All sandboxes, by id and then host.
    pub sandbox_rows: Vec<Placed<Sandbox>>,
    /// All snapshots, by name and then host.
    pub snapshot_rows: Vec<Placed<Snapshot>>,
    of: Vec<(usize, usize)>,
}

impl Together {
    /// Takes up a view, where it is shown and has other lists than the one before, which the caller keeps
    /// alive meanwhile.
    pub(crate) fn sync(&mut self, view: &View) {
        let lists = |host: &Arc<HostView>| {
            (
                world::address(&host.sandboxes),
                world::address(&host.snapshots),
            )
        };
        let of: Vec<_> = view.hosts.iter().map(lists).collect();
        if !self.shown {
            self.of.clear();
        } else if self.of != of {
            self.of = of;
            self.sandbox_rows = rows(view, |host| &host.sandboxes);
            self.snapshot_rows = rows(view, |host| &host.snapshots);
            self.sandboxes.sync(&self.sandbox_rows);
            self.snapshots.sync(&self.snapshot_rows);
        }
    }
}

fn rows<T: Row>(view: &View, items: impl Fn(&HostView) -> &Arc<[T]>) -> Vec<Placed<T>> {
    let of = |(at, host): (usize, &Arc<HostView>)| -> Vec<Placed<T>> {
        let all = items(host);
        let placed = |(item, found): (usize, &T)| Placed {
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
