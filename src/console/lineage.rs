//! What is known of the selected snapshot beyond the inventory: asked for when it is selected, and not before.

use super::actions::Pane;
use super::app::{App, Command};
use super::dialog::{Dialog, NoteDialog};
use super::perform;
use super::tree::TreeRowKey;
use snapdeck_engine::Link;
use snapdeck_model::{AnnotationsPatch, HostName, Lineage, SnapshotName};

/// A question about a snapshot. While it stays equal the answer is still true, as far as can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineageQuery {
    /// The snapshot.
    pub name: SnapshotName,
    /// The host it is compared with.
    pub host: Option<HostName>,
    /// Its lengths on the host and in the bucket, the host's snapshots, and how often something was said here.
    fingerprint: (Option<u64>, Option<u64>, usize, u64),
}

/// An answer, or why there is none.
#[derive(Debug)]
pub(crate) struct LineageState {
    query: LineageQuery,
    result: Result<Lineage, String>,
}

impl App {
    /// What is to be asked about the selected snapshot or object.
    pub(crate) fn lineage_query(&self) -> Option<LineageQuery> {
        let (name, host) = match self.list {
            Pane::Snapshots => {
                let (host, snapshot) = self.snapshot()?;
                (&snapshot.name, Some(host))
            }
            Pane::Bucket => {
                let object = self.objects.current(&self.view.bucket.objects)?;
                (&object.name, self.host_view())
            }
            Pane::Tree => match self.tree.current()? {
                TreeRowKey::Snapshot(name) => (name, self.host_view()),
                TreeRowKey::Sandbox(..) => return None,
            },
            _ => return None,
        };
        let host = host.filter(|host| host.link == Link::Up);
        if self.list == Pane::Snapshots && host.is_none() {
            return None;
        }
        let lists = host.and_then(|host| self.hosts.get(&host.name));
        let here = lists.and_then(|lists| lists.index.size(name));
        let count = host.map_or(0, |host| host.snapshots.len());
        Some(LineageQuery {
            name: name.clone(),
            host: host.map(|host| host.name.clone()),
            fingerprint: (here, self.index.size(name), count, self.annotation_edits),
        })
    }

    /// The question, where it is not answered yet.
    pub(crate) fn pending_query(&self) -> Option<LineageQuery> {
        let asked = self.lineage_query()?;
        let answered = self.lineage.as_ref().is_some_and(|kin| kin.query == asked);
        (!answered).then_some(asked)
    }

    /// Takes up an answer.
    pub(crate) fn on_lineage(&mut self, asked: LineageQuery, found: Result<Lineage, String>) {
        self.lineage = Some(LineageState {
            query: asked,
            result: found,
        });
    }

    /// What was found of the selected snapshot, be it that there is a newer question by now.
    pub(crate) fn lineage(&self) -> Option<Result<&Lineage, &str>> {
        let asked = self.lineage_query()?;
        let kin = self.lineage.as_ref()?;
        let same = kin.query.name == asked.name && kin.query.host == asked.host;
        same.then(|| kin.result.as_ref().map_err(String::as_str))
    }
}

/// The selected snapshot with what is said of it, or why nothing can be said.
pub(crate) fn annotatable_lineage(app: &App) -> Result<&Lineage, String> {
    let nothing = || "select a snapshot or an object first".to_owned();
    app.lineage_query().ok_or_else(nothing)?;
    match app.lineage() {
        Some(found) => found.map_err(str::to_owned),
        None => Err("its annotations are still loading".to_owned()),
    }
}

/// Changes what is said of the selected snapshot, wherever it is.
fn annotate_command(app: &App, change: AnnotationsPatch) -> Option<Command> {
    let asked = app.lineage_query()?;
    let (here, there, ..) = asked.fingerprint;
    Some(Command::Annotate {
        host: asked.host.filter(|_| here.is_some()),
        bucket: there.is_some(),
        name: asked.name,
        change,
    })
}

/// Pins the selected snapshot, or takes its pin away.
pub(crate) fn toggle_pin(app: &mut App) -> Vec<Command> {
    let Ok(lineage) = annotatable_lineage(app) else {
        return Vec::new();
    };
    let change = AnnotationsPatch::with_pinned(!lineage.is_pinned());
    annotate_command(app, change).into_iter().collect()
}

/// Opens the dialog for the note.
pub(crate) fn open_note(app: &mut App) {
    let Ok(lineage) = annotatable_lineage(app) else {
        return;
    };
    let note = lineage.note().unwrap_or_default().to_owned();
    if let Some(command) = annotate_command(app, AnnotationsPatch::default()) {
        perform::open(app, Dialog::Note(Box::new(NoteDialog::new(command, &note))));
    }
}
