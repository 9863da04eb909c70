//! The lineage tree: snapshots of all hosts and the bucket below their parents, with the sandboxes based on them.

mod view;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ratatui::Frame;
use ratatui::layout::Rect;

use super::{DrawContext, Page, Subject};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::cell::Place;
use crate::columns::Row;
use crate::facts::{AnnotationsQuery, Fact, Facts};
use crate::list::{Change, List, Summary};
use crate::world::World;
use snapdeck_engine::{Link, Parents, View};
use snapdeck_model::{HostName, Object, Sandbox, SandboxId, Snapshot, SnapshotName};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TreeRowKey {
    Snapshot(SnapshotName),
    Sandbox(HostName, SandboxId),
}

#[derive(Debug, Clone)]
pub(crate) struct TreeRow {
    pub key: TreeRowKey,
    /// The lines of the tree before the name.
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

/// The lists on which the parents depend. Compared by address.
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

impl Facts<TreeRow> for World {
    fn texts<'a>(&'a self, row: &'a TreeRow, fact: Fact) -> Vec<Cow<'a, str>> {
        match (&row.key, fact) {
            (TreeRowKey::Snapshot(name), fact) => self.texts(name, fact),
            (TreeRowKey::Sandbox(host, _), Fact::Place) => {
                vec![host.as_str().into(), "host".into()]
            }
            (TreeRowKey::Sandbox(..), _) => Vec::new(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tree {
    list: List<TreeRowKey>,
    items: Vec<TreeRow>,
    /// The parents of all snapshots, and the lists for which they were queried.
    parents: Option<(TreeInputs, Parents)>,
    /// The lists from which the rows were built.
    source_lists: Option<(TreeInputs, Vec<Arc<[Sandbox]>>)>,
    /// The version of the facts by which the rows are filtered.
    facts_version: u64,
}

fn tree_inputs(view: &View) -> TreeInputs {
    let up = view.hosts.iter().filter(|host| host.link == Link::Up);
    TreeInputs {
        snapshots: up.map(|host| host.snapshots.clone()).collect(),
        objects: view.bucket.objects.clone(),
    }
}

impl Tree {
    /// Rebuilds the rows if a list has changed.
    fn update_rows(&mut self, world: &World) {
        let view: &View = world.view();
        let facts_version = std::mem::replace(&mut self.facts_version, world.facts_version());
        let sandboxes: Vec<Arc<[Sandbox]>> = view
            .hosts
            .iter()
            .map(|host| host.sandboxes.clone())
            .collect();
        let is_same = |(inputs, previous): &(TreeInputs, Vec<Arc<[Sandbox]>>)| {
            *inputs == tree_inputs(view)
                && previous.len() == sandboxes.len()
                && previous
                    .iter()
                    .zip(&sandboxes)
                    .all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if !self.source_lists.as_ref().is_some_and(is_same) {
            self.source_lists = Some((tree_inputs(view), sandboxes));
            self.rebuild(world);
        } else if facts_version != self.facts_version && self.list.query().has_facts() {
            self.list.apply_filter(&self.items, world);
        }
    }

    fn rebuild(&mut self, world: &World) {
        let parents = self.parents.as_ref().map(|(_, parents)| &parents.parents);
        self.items = rows(world.view(), parents.unwrap_or(&BTreeMap::new()));
        self.list.update_with(&self.items, world);
    }

    /// Returns the inputs of the query of parents that is due.
    pub(crate) fn pending_parents_query(&self, world: &World) -> Option<TreeInputs> {
        let inputs = tree_inputs(world.view());
        let parents = self.parents.as_ref();
        (!parents.is_some_and(|(queried, _)| *queried == inputs)).then_some(inputs)
    }

    pub(crate) fn on_parents(&mut self, inputs: TreeInputs, parents: Parents, world: &World) {
        self.parents = Some((inputs, parents));
        self.rebuild(world);
    }

    fn current(&self) -> Option<&TreeRowKey> {
        self.list.current(&self.items).map(|item| &item.key)
    }
}

type Children<'a, T> = BTreeMap<&'a SnapshotName, BTreeSet<T>>;

/// Returns all rows, from the top of the tree.
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
    // Show parents that no longer exist, too: they group their children.
    let relations = parents.iter().filter(|(name, _)| names.contains(name));
    let parent_names: Vec<&SnapshotName> = relations.map(|(_, parent)| parent).collect();
    names.extend(parent_names);
    let mut children: Children<'_, &SnapshotName> = BTreeMap::new();
    let mut roots: BTreeSet<&SnapshotName> = names.clone();
    for name in &names {
        if let Some(parent) = parents.get(*name)
            && !is_cycle(name, parents)
        {
            children.entry(parent).or_default().insert(*name);
            roots.remove(name);
        }
    }
    let mut rows = Vec::new();
    // A stack instead of recursion: lineages may be long.
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
            let snapshots = children.get(name).into_iter().flatten();
            let snapshots = snapshots.map(|name| TreeRowKey::Snapshot((*name).clone()));
            let below_name: Vec<TreeRowKey> = leaves.chain(snapshots).collect();
            let last = below_name.len().saturating_sub(1);
            for (index, child) in below_name.into_iter().enumerate().rev() {
                let (arm, rest) = if index == last {
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

/// Returns whether the chain of parents is a cycle, which has no root.
fn is_cycle(name: &SnapshotName, parents: &BTreeMap<SnapshotName, SnapshotName>) -> bool {
    let mut seen = BTreeSet::from([name]);
    let mut current = name;
    while let Some(parent) = parents.get(current) {
        if !seen.insert(parent) {
            return true;
        }
        current = parent;
    }
    false
}

impl Page for Tree {
    fn update(&mut self, world: &World) {
        self.update_rows(world);
    }

    fn apply(&mut self, _pane: Pane, change: Change, world: &World) {
        self.list.apply_with(&self.items, change, world);
    }

    fn annotations_query(&self, _pane: Pane, world: &World) -> Option<AnnotationsQuery> {
        let needs_them = self.list.query().has_annotations();
        needs_them.then(|| AnnotationsQuery::about_all(world))
    }

    fn summary(&self, _pane: Pane) -> Summary<'_> {
        self.list.summary(self.items.len())
    }

    /// A snapshot is selected on the current host if it is there, else in the bucket.
    fn selected(&self, _pane: Pane, world: &World) -> Option<Subject> {
        Some(match self.current()? {
            TreeRowKey::Sandbox(host, id) => Subject::Sandbox(host.clone(), id.clone()),
            TreeRowKey::Snapshot(name) => {
                let host = world.current_host();
                let host = host.filter(|host| world.snapshot(host, name).is_some());
                let place = host.map_or(Place::Bucket, |host| Place::Host(host.clone()));
                Subject::Snapshot(name.clone(), place)
            }
        })
    }

    fn select(&mut self, subject: &Subject, _world: &World) {
        let key = match subject {
            Subject::Sandbox(host, id) => TreeRowKey::Sandbox(host.clone(), id.clone()),
            Subject::Snapshot(name, _) => TreeRowKey::Snapshot(name.clone()),
            Subject::Job(_)
            | Subject::Interrupted(_)
            | Subject::Past(_)
            | Subject::Partial(..)
            | Subject::Host(_) => {
                return;
            }
        };
        self.list.select_key(&self.items, &key);
    }

    fn desired_height(&self, _context: &DrawContext<'_>, _width: u16) -> usize {
        self.list.len().max(1) + 2
    }

    fn draw(&self, context: &DrawContext<'_>, frame: &mut Frame, area: Rect, areas: &mut Areas) {
        view::draw(self, context, frame, area, areas);
    }

    fn set_offset(&mut self, _pane: Pane, first: usize) {
        self.list.offset = first;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::populated;

    fn row_texts(parents: &[(&str, &str)]) -> Vec<String> {
        let name = |name: &str| name.parse::<SnapshotName>().unwrap();
        let parents = parents.iter().map(|(of, from)| (name(of), name(from)));
        let rows = rows(&populated(), &parents.collect());
        rows.iter()
            .map(|row| format!("{}{}", row.branch, row.text()))
            .collect()
    }

    #[test]
    fn snapshots_are_below_their_parents_and_sandboxes_below_their_base() {
        let parents = [("myapp-v1.0", "winserver-base"), ("far-away", "myapp-v1.0")];
        assert_eq!(
            row_texts(&parents),
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
    fn removed_parents_are_shown_and_cycles_are_cut() {
        let removed = row_texts(&[("myapp-v1.0", "removed"), ("far-away", "removed")]);
        assert!(
            removed
                .join(" ")
                .contains("removed ├ far-away └ myapp-v1.0")
        );
        let cycle = row_texts(&[("myapp-v1.0", "far-away"), ("far-away", "myapp-v1.0")]);
        assert!(cycle.contains(&"far-away".to_owned()), "{cycle:?}");
        assert!(cycle.contains(&"myapp-v1.0".to_owned()), "{cycle:?}");
    }
}
