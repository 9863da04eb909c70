//! All hosts together: the rows of each, in one list, told apart by name and host.

use std::sync::Arc;

use super::list::{List, Row};
use super::world;
use crate::engine::{HostView, View};
use crate::model::{HostName, Sandbox, SandboxId, Snapshot, SnapshotName};

/// What tells a row from all others: its name, and the host it is on.
pub type On<K> = (K, HostName);

/// A row: where in the view its item stands.
#[derive(Debug)]
pub struct Placed<K> {
    key: On<K>,
    host: usize,
    item: usize,
}

impl Row for Placed<SandboxId> {
    type Key = On<SandboxId>;
    fn key(&self) -> &On<SandboxId> {
        &self.key
    }
    fn text(&self) -> &str {
        self.key.0.as_str()
    }
    fn beside(&self) -> &str {
        self.key.1.as_str()
    }
}

impl Row for Placed<SnapshotName> {
    type Key = On<SnapshotName>;
    fn key(&self) -> &On<SnapshotName> {
        &self.key
    }
    fn text(&self) -> &str {
        self.key.0.as_str()
    }
    fn beside(&self) -> &str {
        self.key.1.as_str()
    }
}

impl Placed<SandboxId> {
    /// The sandbox with its host. `view` is the one the rows were made of.
    pub fn find<'a>(&self, view: &'a View) -> Option<(&'a HostView, &'a Sandbox)> {
        let host = view.hosts.get(self.host)?;
        Some((host, host.sandboxes.get(self.item)?))
    }
}

impl Placed<SnapshotName> {
    /// The snapshot with its host. `view` is the one the rows were made of.
    pub fn find<'a>(&self, view: &'a View) -> Option<(&'a HostView, &'a Snapshot)> {
        let host = view.hosts.get(self.host)?;
        Some((host, host.snapshots.get(self.item)?))
    }
}

/// The lists of all hosts together.
#[derive(Debug, Default)]
pub struct Together {
    /// Are they shown, instead of the current host's?
    pub shown: bool,
    /// The sandboxes' list.
    pub sandboxes: List<On<SandboxId>>,
    /// The snapshots' list.
    pub snapshots: List<On<SnapshotName>>,
    /// All sandboxes, by id and then host.
    pub sandbox_rows: Vec<Placed<SandboxId>>,
    /// All snapshots, by name and then host.
    pub snapshot_rows: Vec<Placed<SnapshotName>>,
    of: Vec<(usize, usize)>,
}

impl Together {
    /// Takes up a view, where it is shown and has other lists than the one before, which the caller keeps
    /// alive meanwhile.
    pub fn sync(&mut self, view: &View) {
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
            self.sandbox_rows = rows(view, |host| &host.sandboxes, |sandbox| &sandbox.id);
            self.snapshot_rows = rows(view, |host| &host.snapshots, |snapshot| &snapshot.name);
            self.sandboxes.sync(&self.sandbox_rows);
            self.snapshots.sync(&self.snapshot_rows);
        }
    }
}

fn rows<T, K: Clone + Ord>(
    view: &View,
    items: impl Fn(&HostView) -> &[T],
    name: impl Fn(&T) -> &K,
) -> Vec<Placed<K>> {
    let of = |(at, host): (usize, &Arc<HostView>)| -> Vec<Placed<K>> {
        let placed = |(item, found): (usize, &T)| Placed {
            key: (name(found).clone(), host.name.clone()),
            host: at,
            item,
        };
        items(host).iter().enumerate().map(placed).collect()
    };
    let mut rows: Vec<_> = view.hosts.iter().enumerate().flat_map(of).collect();
    rows.sort_by(|one, other| one.key.cmp(&other.key));
    rows
}
