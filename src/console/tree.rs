//! The tree of snapshots: what was made from what, wherever it is now, with the sandboxes that stand on them as leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::actions::Pane;
use super::app::App;
use super::cell::Place;
use super::columns::Row;
use super::list::List;
use super::lookup;
use snapdeck_engine::{Link, Parents, View};
use snapdeck_model::{HostName, Object, Sandbox, SandboxId, Snapshot, SnapshotName};

/// What tells a row from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TreeRowKey {
    /// A snapshot.
    Snapshot(SnapshotName),
    /// A sandbox on its host.
    Sandbox(HostName, SandboxId),
}

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct TreeRow {
    /// What it is.
    pub key: TreeRowKey,
    /// The lines that lead to it.
    pub branch: String,
}

impl Row for TreeRow {
    type Key = TreeRowKey;
    fn key(&self) -> &TreeRowKey {
        &self.key
    }
    fn text(&self) -> &str {
        match &self.key {
            TreeRowKey::Snapshot(name) => name.as_str(),
            TreeRowKey::Sandbox(_, id) => id.as_str(),
        }
    }
}

/// The lists a tree is made of: while they are the very same, so is the tree.
#[derive(Debug, Clone)]
pub(crate) struct TreeInputs {
    snapshots: Vec<Arc<[Snapshot]>>,
    objects: Arc<[Object]>,
}

impl PartialEq for TreeInputs {
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
    pub list: List<TreeRowKey>,
    /// Its rows, from the top.
    pub items: Vec<TreeRow>,
    /// The list it was opened from.
    pub opened_from: Pane,
    /// What was made from what, and of which lists that is true.
    pub parents: Option<(TreeInputs, Parents)>,
    /// What the rows were made of.
    source_lists: Option<(TreeInputs, Vec<Arc<[Sandbox]>>)>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            list: List::default(),
            items: Vec::new(),
            opened_from: Pane::Snapshots,
            parents: None,
            source_lists: None,
        }
    }
}

/// The lists that tell which snapshots there are.
fn tree_inputs(view: &View) -> TreeInputs {
    let up = view.hosts.iter().filter(|host| host.link == Link::Up);
    TreeInputs {
        snapshots: up.map(|host| host.snapshots.clone()).collect(),
        objects: view.bucket.objects.clone(),
    }
}

impl Tree {
    /// Takes up a view; the rows are made again only where they are others.
    pub(crate) fn update(&mut self, view: &View) {
        let sandboxes: Vec<Arc<[Sandbox]>> = view
            .hosts
            .iter()
            .map(|host| host.sandboxes.clone())
            .collect();
        let same = |(lists, before): &(TreeInputs, Vec<Arc<[Sandbox]>>)| {
            *lists == tree_inputs(view)
                && before.len() == sandboxes.len()
                && before
                    .iter()
                    .zip(&sandboxes)
                    .all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if !self.source_lists.as_ref().is_some_and(same) {
            self.source_lists = Some((tree_inputs(view), sandboxes));
            self.rebuild(view);
        }
    }

    fn rebuild(&mut self, view: &View) {
        let parents = self.parents.as_ref().map(|(_, parents)| &parents.parents);
        self.items = rows(view, parents.unwrap_or(&BTreeMap::new()));
        self.list.update(&self.items);
    }

    /// The selected row.
    pub(crate) fn current(&self) -> Option<&TreeRowKey> {
        self.list.current(&self.items).map(|item| &item.key)
    }
}

type Children<'a, T> = BTreeMap<&'a SnapshotName, BTreeSet<T>>;

/// All rows, in the order in which they stand on screen.
fn rows(view: &View, parents: &BTreeMap<SnapshotName, SnapshotName>) -> Vec<TreeRow> {
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
            && !is_cycle(name, parents)
        {
            names_of(&mut children, parent).insert(name);
            roots.remove(name);
        }
    }
    let mut rows = Vec::new();
    // A stack in the place of recursion: lineages may be long.
    let mut stack: Vec<(TreeRowKey, String, String)> = Vec::new();
    for root in roots.into_iter().rev() {
        stack.push((
            TreeRowKey::Snapshot(root.clone()),
            String::new(),
            String::new(),
        ));
    }
    while let Some((key, branch, below)) = stack.pop() {
        if let TreeRowKey::Snapshot(name) = &key {
            let leaves = sandboxes.get(name).into_iter().flatten();
            let leaves =
                leaves.map(|(host, id)| TreeRowKey::Sandbox((*host).clone(), (*id).clone()));
            let made = children.get(name).into_iter().flatten();
            let made = made.map(|name| TreeRowKey::Snapshot((*name).clone()));
            let all: Vec<TreeRowKey> = leaves.chain(made).collect();
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
        rows.push(TreeRow { key, branch });
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
fn is_cycle(name: &SnapshotName, parents: &BTreeMap<SnapshotName, SnapshotName>) -> bool {
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
    pub(crate) fn pending_parents_query(&self) -> Option<TreeInputs> {
        if self.list != Pane::Tree {
            return None;
        }
        let mark = tree_inputs(&self.view);
        let known = self.tree.parents.as_ref();
        (!known.is_some_and(|(known, _)| *known == mark)).then_some(mark)
    }

    /// Takes up what was made from what.
    pub(crate) fn on_parents(&mut self, mark: TreeInputs, parents: Parents) {
        self.tree.parents = Some((mark, parents));
        let view = self.view.clone();
        self.tree.rebuild(&view);
    }

    /// Opens the tree at what is selected, or goes back from it.
    pub(crate) fn toggle_tree(&mut self) {
        if self.list == Pane::Tree {
            return self.focus_on(self.tree.opened_from);
        }
        let at = match self.list {
            Pane::Sandboxes => self
                .sandbox()
                .map(|(host, sandbox)| TreeRowKey::Sandbox(host.name.clone(), sandbox.id.clone())),
            Pane::Bucket => {
                let object = self.objects.current(&self.view.bucket.objects);
                object.map(|object| TreeRowKey::Snapshot(object.name.clone()))
            }
            Pane::Matrix => self
                .matrix
                .current()
                .map(|(name, _)| TreeRowKey::Snapshot(name.clone())),
            _ => self
                .snapshot()
                .map(|(_, snapshot)| TreeRowKey::Snapshot(snapshot.name.clone())),
        };
        self.tree.opened_from = match self.list {
            Pane::Matrix | Pane::JobsPage => self.tree.opened_from,
            list => list,
        };
        let view = self.view.clone();
        self.tree.update(&view);
        if let Some(key) = at {
            self.tree.list.select_key(&self.tree.items, &key);
        }
        self.focus_on(Pane::Tree);
    }

    /// The snapshot that is selected in the tree, and the nearest place that has it: the current host, else the bucket.
    pub(crate) fn tree_snapshot(&self) -> Option<(SnapshotName, Place)> {
        let TreeRowKey::Snapshot(name) = self.tree.current()? else {
            return None;
        };
        let host = self.host_view();
        let host = host.filter(|host| lookup::snapshot(&self.view, &host.name, name).is_some());
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
