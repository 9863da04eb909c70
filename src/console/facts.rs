//! Facts of a row for filters that are not properties of the row itself: in which places a snapshot is, and its
//! annotations.

use std::borrow::Cow;
use std::sync::Arc;

use super::host_list::HostRow;
use super::world::World;
use snapdeck_model::{Annotations, HostName, Object, Sandbox, Snapshot, SnapshotName};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The names of the hosts that have the snapshot; `host` if one has it, `bucket`, `both`.
    Place,
    /// `yes` or `no`.
    Pin,
    Note,
    /// The key of a label, and `KEY=VALUE`.
    Label,
}

/// The names of the facts in filters.
pub(crate) const FACTS: &[(&str, Fact)] = &[
    ("place", Fact::Place),
    ("pin", Fact::Pin),
    ("note", Fact::Note),
    ("label", Fact::Label),
];

impl Fact {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let named = FACTS.iter().find(|(other, _)| *other == name);
        named.map(|(_, fact)| *fact)
    }

    /// Returns whether it is read from the annotations of a snapshot.
    pub(crate) fn is_annotation(self) -> bool {
        self != Self::Place
    }
}

/// Knows the facts of rows.
pub(crate) trait Facts<R: ?Sized> {
    /// Returns the texts of a fact: none if it is unknown, or the row has no such fact.
    fn texts<'a>(&'a self, row: &'a R, fact: Fact) -> Vec<Cow<'a, str>>;
}

/// Knows no facts.
impl<R: ?Sized> Facts<R> for () {
    fn texts<'a>(&'a self, _row: &'a R, _fact: Fact) -> Vec<Cow<'a, str>> {
        Vec::new()
    }
}

/// The annotations that a filter needs. Compared by the addresses of the lists.
#[derive(Debug, Clone)]
pub(crate) struct AnnotationsQuery {
    pub hosts: Vec<(HostName, Arc<[Snapshot]>)>,
    /// `None`: not those of the bucket.
    pub objects: Option<Arc<[Object]>>,
    /// Number of annotations edited by this console.
    pub edits: u64,
}

impl AnnotationsQuery {
    /// Returns the query about all snapshots and objects.
    pub(crate) fn about_all(world: &World) -> Self {
        let hosts = world.hosts();
        Self {
            hosts: hosts
                .map(|host| (host.name.clone(), host.snapshots.clone()))
                .collect(),
            objects: Some(world.view().bucket.objects.clone()),
            edits: 0,
        }
    }
}

impl PartialEq for AnnotationsQuery {
    fn eq(&self, other: &Self) -> bool {
        let objects = match (&self.objects, &other.objects) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let mut hosts = self.hosts.iter().zip(&other.hosts);
        objects
            && self.edits == other.edits
            && self.hosts.len() == other.hosts.len()
            && hosts.all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1))
    }
}

impl Facts<HostRow<Snapshot>> for World {
    fn texts<'a>(&'a self, row: &'a HostRow<Snapshot>, fact: Fact) -> Vec<Cow<'a, str>> {
        let Some(snapshot) = row.item() else {
            return Vec::new();
        };
        match fact {
            Fact::Place => places(self, &snapshot.name),
            fact => match self.annotations(Some(row.host()), &snapshot.name) {
                Some(annotations) => annotation_texts(annotations, fact),
                None => Vec::new(),
            },
        }
    }
}

impl Facts<Object> for World {
    fn texts<'a>(&'a self, row: &'a Object, fact: Fact) -> Vec<Cow<'a, str>> {
        match fact {
            Fact::Place => places(self, &row.name),
            fact => match self.annotations(None, &row.name) {
                Some(annotations) => annotation_texts(annotations, fact),
                None => Vec::new(),
            },
        }
    }
}

/// A snapshot wherever it is: the annotations are those of all places.
impl Facts<SnapshotName> for World {
    fn texts<'a>(&'a self, row: &'a SnapshotName, fact: Fact) -> Vec<Cow<'a, str>> {
        if fact == Fact::Place {
            return places(self, row);
        }
        let hosts = self.hosts().map(|host| Some(&host.name));
        let found = hosts.chain([None]);
        let found = found.filter_map(|host| self.annotations(host, row));
        found
            .flat_map(|annotations| annotation_texts(annotations, fact))
            .collect()
    }
}

/// A sandbox is on its host; it has no annotations.
impl Facts<HostRow<Sandbox>> for World {
    fn texts<'a>(&'a self, row: &'a HostRow<Sandbox>, fact: Fact) -> Vec<Cow<'a, str>> {
        match fact {
            Fact::Place => vec![row.host().as_str().into(), "host".into()],
            _ => Vec::new(),
        }
    }
}

/// Returns where a snapshot is.
fn places<'a>(world: &'a World, name: &SnapshotName) -> Vec<Cow<'a, str>> {
    let hosts = world
        .hosts()
        .filter(|host| world.snapshot_size(&host.name, name).is_some());
    let mut texts: Vec<Cow<'a, str>> = hosts.map(|host| host.name.as_str().into()).collect();
    let is_on_host = !texts.is_empty();
    let is_in_bucket = world.object_size(name).is_some();
    let words = [
        ("host", is_on_host),
        ("bucket", is_in_bucket),
        ("both", is_on_host && is_in_bucket),
    ];
    texts.extend(
        words
            .into_iter()
            .filter_map(|(word, holds)| holds.then_some(word.into())),
    );
    texts
}

fn annotation_texts(annotations: &Annotations, fact: Fact) -> Vec<Cow<'_, str>> {
    match fact {
        Fact::Pin => vec![if annotations.pinned { "yes" } else { "no" }.into()],
        Fact::Note => {
            let note = annotations.notes.iter();
            note.map(|note| note.as_str().into()).collect()
        }
        Fact::Label => {
            let labels = annotations.labels.iter();
            labels
                .flat_map(|(key, value)| [key.as_str().into(), format!("{key}={value}").into()])
                .collect()
        }
        Fact::Place => Vec::new(),
    }
}
