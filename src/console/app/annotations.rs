//! Annotations and lineage of the selected snapshot, queried from the engine when it is selected.

use super::{App, Command};
use crate::actions::Pane;
use crate::cell::Place;
use crate::dialog::NoteDialog;
use crate::pages::Subject;
use snapdeck_engine::Link;
use snapdeck_model::{AnnotationsPatch, HostName, Lineage, SnapshotName};

/// A query about a snapshot. Its result is valid while [`App::lineage_query`] returns an equal query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineageQuery {
    pub name: SnapshotName,
    /// The host to compare with the bucket.
    pub host: Option<HostName>,
    /// Bytes on the host and in the bucket, number of the host's snapshots, and of annotations edited by the console.
    fingerprint: (Option<u64>, Option<u64>, usize, u64),
}

#[derive(Debug)]
pub(crate) struct LineageState {
    query: LineageQuery,
    result: Result<Lineage, String>,
}

impl App {
    /// Returns the query about the selected snapshot or object.
    pub(crate) fn lineage_query(&self) -> Option<LineageQuery> {
        if self.list == Pane::Matrix {
            return None;
        }
        let Subject::Snapshot(name, place) = self.selected()? else {
            return None;
        };
        let host = match place {
            Place::Host(host) => self.world.host(&host),
            Place::Bucket => self.world.current_host_view(),
        };
        let host = host.filter(|host| host.link == Link::Up);
        if self.list == Pane::Snapshots && host.is_none() {
            return None;
        }
        let local_bytes = host.and_then(|host| self.world.snapshot_size(&host.name, &name));
        let object_bytes = self.world.object_size(&name);
        let count = host.map_or(0, |host| host.snapshots.len());
        Some(LineageQuery {
            name,
            host: host.map(|host| host.name.clone()),
            fingerprint: (local_bytes, object_bytes, count, self.annotation_edits),
        })
    }

    /// Repeats the query: annotations were edited.
    pub(crate) fn on_annotations_edited(&mut self) {
        self.annotation_edits += 1;
    }

    /// Returns the query if it has no result yet.
    pub(crate) fn pending_query(&self) -> Option<LineageQuery> {
        let query = self.lineage_query()?;
        let state = self.lineage.as_ref();
        (!state.is_some_and(|state| state.query == query)).then_some(query)
    }

    pub(crate) fn on_lineage(&mut self, query: LineageQuery, result: Result<Lineage, String>) {
        self.lineage = Some(LineageState { query, result });
    }

    /// Returns the lineage of the selected snapshot, or the error of the query; perhaps outdated.
    pub(crate) fn lineage(&self) -> Option<Result<&Lineage, &str>> {
        let query = self.lineage_query()?;
        let state = self.lineage.as_ref()?;
        let is_same = state.query.name == query.name && state.query.host == query.host;
        is_same.then(|| state.result.as_ref().map_err(String::as_str))
    }
}

/// Returns the lineage of the selected snapshot, or why its annotations cannot be edited.
pub(crate) fn annotatable_lineage(app: &App) -> Result<&Lineage, String> {
    if app.lineage_query().is_none() {
        return Err("select a snapshot or an object first".to_owned());
    }
    match app.lineage() {
        Some(result) => result.map_err(str::to_owned),
        None => Err("its annotations are still loading".to_owned()),
    }
}

/// Returns the command that edits the annotations of the selected snapshot, on the host and in the bucket.
fn annotate_command(app: &App, change: AnnotationsPatch) -> Option<Command> {
    let query = app.lineage_query()?;
    let (local_bytes, object_bytes, ..) = query.fingerprint;
    Some(Command::Annotate {
        host: query.host.filter(|_| local_bytes.is_some()),
        bucket: object_bytes.is_some(),
        name: query.name,
        change,
    })
}

pub(crate) fn toggle_pin(app: &mut App) -> Vec<Command> {
    let Ok(lineage) = annotatable_lineage(app) else {
        return Vec::new();
    };
    let change = AnnotationsPatch::with_pinned(!lineage.is_pinned());
    annotate_command(app, change).into_iter().collect()
}

pub(crate) fn open_note(app: &mut App) {
    let Ok(lineage) = annotatable_lineage(app) else {
        return;
    };
    let note = lineage.note().unwrap_or_default().to_owned();
    if let Some(command) = annotate_command(app, AnnotationsPatch::default()) {
        app.open(Box::new(NoteDialog::new(command, &note)));
    }
}
