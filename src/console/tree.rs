//! The tree of snapshots: what was made from what, wherever it is now, with the sandboxes that stand on them as leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::actions::Pane;
use super::app::App;
use super::cell::Place;
use super::fields::Row;
use super::list::List;
use super::world;
use snapdeck_engine::{Link, Parents, View};
use snapdeck_model::{HostName, Object, Sandbox, SandboxId, Snapshot, SnapshotName};

/// What tells a row from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// A snapshot.
    Snapshot(SnapshotName),
    /// A sandbox on its host.
    Sandbox(HostName, SandboxId),
}

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// What it is.
    pub key: Key,
    /// The lines that lead to it.
    pub branch: String,
}

impl Row for Item {
    type Key = Key;
    fn key(&self) -> &Key {
        &self.key
    }
    fn text(&self) -> &str {
        match &self.key {
            Key::Snapshot(name) => name.as_str(),
            Key::Sandbox(_, id) => id.as_str(),
        }
    }
}

/// The lists a tree is made of: while they are the very same, so is the tree.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    snapshots: Vec<Arc<[Snapshot]>>,
    objects: Arc<[Object]>,
}

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<[Snapshot]>, &Arc<[Snapshot]>)| Arc::ptr_eq(a, b);
        self.snapshots.len() == other.snapshots.len()
            && self.snapshots.iter().zip(&other.snapshots).all(same)
            && Arc::ptr_eq(&self.objects, &other.objects)
    }
}

/// The tree's state.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Its rows' state.
    pub list: List<Key>,
    /// Its rows, from the top.
    pub items: Vec<Item>,
    /// The list it was opened from.
    pub back: Pane,
    /// What was made from what, and of which lists that is true.
    pub parents: Option<(Mark, Parents)>,
    /// What the rows were made of.
    of: Option<(Mark, Vec<Arc<[Sandbox]>>)>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            list: List::default(),
            items: Vec::new(),
            back: Pane::Snapshots,
            parents: None,
            of: None,
        }
    }
}

/// The lists that tell which snapshots there are.
fn mark(view: &View) -> Mark {
    let up = view.hosts.iter().filter(|host| host.link == Link::Up);
    Mark {
        snapshots: up.map(|host| host.snapshots.clone()).collect(),
        objects: view.bucket.objects.clone(),
    }
}

impl Tree {
    /// Takes up a view; the rows are made again only where they are others.
    pub(crate) fn sync(&mut self, view: &View) {
        let sandboxes: Vec<Arc<[Sandbox]>> = view
            .hosts
            .iter()
            .map(|host| host.sandboxes.clone())
            .collect();
        let same = |(lists, before): &(Mark, Vec<Arc<[Sandbox]>>)| {
            *lists == mark(view)
                && before.len() == sandboxes.len()
                && before
                    .iter()
                    .zip(&sandboxes)
                    .all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if !self.of.as_ref().is_some_and(same) {
            self.of = Some((mark(view), sandboxes));
            self.grow(view);
        }
    }

    fn grow(&mut self, view: &View) {
        let parents = self.parents.as_ref().map(|(_, parents)| &parents.of);
        self.items = rows(view, parents.unwrap_or(&BTreeMap::new()));
        self.list.sync(&self.items);
    }

    /// The selected row.
    pub(crate) fn current(&self) -> Option<&Key> {
        self.list.current(&self.items).map(|item| &item.key)
    }
}

type Children<'a, T> = BTreeMap<&'a SnapshotName, BTreeSet<T>>;

/// All rows, in the order in which they stand on screen.
fn rows(view: &View, parents: &BTreeMap<SnapshotName, SnapshotName>) -> Vec<Item> {
    let objects = view.bucket.objects.iter().map(|object| &object.name);
    let snapshots = view.hosts.iter().flat_map(|host| host.snapshots.iter());
    let mut names: BTreeSet<&SnapshotName> = objects
        .chain(snapshots.map(|snapshot| &snapshot.name))
        .collect();
    let mut sandboxes: Children<'_, (&HostName, &SandboxId)> = BTreeMap::new();
    for host in &view.hosts {
        for sandbox in host.sandboxes.iter() {
            if let Some(base) = sandbox.base() {
                names.insert(base);
                let leaves = sandboxes.entry(base).or_default();
                leaves.insert((&host.name, &sandbox.id));
            }
        }
    }
    // A parent that is nowhere any more still holds its children together.
    let needed = parents.iter().filter(|(name, _)| names.contains(name));
    let needed: Vec<&SnapshotName> = needed.map(|(_, parent)| parent).collect();
    names.extend(needed);
    let mut children: Children<'_, &SnapshotName> = BTreeMap::new();
    let mut roots: BTreeSet<&SnapshotName> = names.clone();
    for name in &names {
        if let Some(parent) = parents.get(*name)
            && !is_circle(name, parents)
        {
            names_of(&mut children, parent).insert(name);
            roots.remove(name);
        }
    }
    let mut rows = Vec::new();
    // A stack in the place of recursion: lineages may be long.
    let mut stack: Vec<(Key, String, String)> = Vec::new();
    for root in roots.into_iter().rev() {
        stack.push((Key::Snapshot(root.clone()), String::new(), String::new()));
    }
    while let Some((key, branch, below)) = stack.pop() {
        if let Key::Snapshot(name) = &key {
            let leaves = sandboxes.get(name).into_iter().flatten();
            let leaves = leaves.map(|(host, id)| Key::Sandbox((*host).clone(), (*id).clone()));
            let made = children.get(name).into_iter().flatten();
            let made = made.map(|name| Key::Snapshot((*name).clone()));
            let all: Vec<Key> = leaves.chain(made).collect();
            let last = all.len().saturating_sub(1);
            for (at, child) in all.into_iter().enumerate().rev() {
                let (arm, rest) = if at == last {
                    ("└ ", "  ")
                } else {
                    ("├ ", "│ ")
                };
                stack.push((child, format!("{below}{arm}"), format!("{below}{rest}")));
            }
        }
        rows.push(Item { key, branch });
    }
    rows
}

fn names_of<'a, 'b>(
    children: &'b mut Children<'a, &'a SnapshotName>,
    parent: &'a SnapshotName,
) -> &'b mut BTreeSet<&'a SnapshotName> {
    children.entry(parent).or_default()
}

/// Does following the parents lead round? Then nothing says which of them is the root.
fn is_circle(name: &SnapshotName, parents: &BTreeMap<SnapshotName, SnapshotName>) -> bool {
    let mut seen = BTreeSet::from([name]);
    let mut at = name;
    while let Some(parent) = parents.get(at) {
        if !seen.insert(parent) {
            return true;
        }
        at = parent;
    }
    false
}

impl App {
    /// The lists whose parents are to be asked for, where the tree is open and they are not known.
    pub(crate) fn unrooted(&self) -> Option<Mark> {
        if self.list != Pane::Tree {
            return None;
        }
        let mark = mark(&self.view);
        let known = self.tree.parents.as_ref();
        (!known.is_some_and(|(known, _)| *known == mark)).then_some(mark)
    }

    /// Takes up what was made from what.
    pub(crate) fn take_parents(&mut self, mark: Mark, parents: Parents) {
        self.tree.parents = Some((mark, parents));
        let view = self.view.clone();
        self.tree.grow(&view);
    }

    /// Opens the tree at what is selected, or goes back from it.
    pub(crate) fn turn_tree(&mut self) {
        if self.list == Pane::Tree {
            return self.focus_on(self.tree.back);
        }
        let at = match self.list {
            Pane::Sandboxes => self
                .sandbox()
                .map(|(host, sandbox)| Key::Sandbox(host.name.clone(), sandbox.id.clone())),
            Pane::Bucket => {
                let object = self.objects.current(&self.view.bucket.objects);
                object.map(|object| Key::Snapshot(object.name.clone()))
            }
            Pane::Matrix => self
                .matrix
                .current()
                .map(|(name, _)| Key::Snapshot(name.clone())),
            _ => self
                .snapshot()
                .map(|(_, snapshot)| Key::Snapshot(snapshot.name.clone())),
        };
        self.tree.back = match self.list {
            Pane::Matrix | Pane::JobsPage => self.tree.back,
            list => list,
        };
        let view = self.view.clone();
        self.tree.sync(&view);
        if let Some(key) = at {
            self.tree.list.go_to(&self.tree.items, &key);
        }
        self.focus_on(Pane::Tree);
    }

    /// The snapshot that is selected in the tree, and the nearest place that has it: the current host, else the bucket.
    pub(crate) fn tree_snapshot(&self) -> Option<(SnapshotName, Place)> {
        let Key::Snapshot(name) = self.tree.current()? else {
            return None;
        };
        let host = self.host_view();
        let host = host.filter(|host| world::snapshot(&self.view, &host.name, name).is_some());
        let place = host.map_or(Place::Bucket, |host| Place::Host(host.name.clone()));
        Some((name.clone(), place))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::populated;

    fn drawn(parents: &[(&str, &str)]) -> Vec<String> {
        let name = |name: &str| name.parse::<SnapshotName>().unwrap();
        let parents = parents.iter().map(|(of, from)| (name(of), name(from)));
        let rows = rows(&populated(), &parents.collect());
        rows.iter()
            .map(|row| format!("{}{}", row.branch, row.text()))
            .collect()
    }

    #[test]
    fn snapshots_stand_under_what_they_were_made_from_and_sandboxes_under_their_base() {
        let parents = [("myapp-v1.0", "winserver-base"), ("far-away", "myapp-v1.0")];
        assert_eq!(
            drawn(&parents),
            [
                "local-only",
                "winserver-base",
                "├ config-vm",
                "├ sandbox-002",
                "├ sandbox-003",
                "├ sandbox-004",
                "└ myapp-v1.0",
                "  └ far-away",
            ]
        );
    }

    #[test]
    fn a_parent_that_is_gone_stays_and_a_circle_has_no_root() {
        let gone = drawn(&[("myapp-v1.0", "gone"), ("far-away", "gone")]);
        assert_eq!(gone[..3], ["gone", "├ far-away", "└ myapp-v1.0"]);
        let circle = drawn(&[("myapp-v1.0", "far-away"), ("far-away", "myapp-v1.0")]);
        assert!(circle.contains(&"far-away".to_owned()), "{circle:?}");
        assert!(circle.contains(&"myapp-v1.0".to_owned()), "{circle:?}");
    }
}
