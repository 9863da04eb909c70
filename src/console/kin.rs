//! What is known of the selected snapshot beyond the inventory: asked for when it is selected, and not before.

use super::actions::Pane;
use super::app::{App, Command};
use super::dialog::{Dialog, Note};
use super::perform;
use super::tree::Key;
use snapdeck_engine::Link;
use snapdeck_model::{HostName, Lineage, RemarksChange, SnapshotName};

/// A question about a snapshot. While it stays equal the answer is still true, as far as can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The snapshot.
    pub name: SnapshotName,
    /// The host it is compared with.
    pub host: Option<HostName>,
    /// Its lengths on the host and in the bucket, the host's snapshots, and how often something was said here.
    seen: (Option<u64>, Option<u64>, usize, u64),
}

/// An answer, or why there is none.
#[derive(Debug)]
pub(crate) struct Kin {
    asked: Asked,
    found: Result<Lineage, String>,
}

impl App {
    /// What is to be asked about the selected snapshot or object.
    pub(crate) fn asked(&self) -> Option<Asked> {
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
                Key::Snapshot(name) => (name, self.host_view()),
                Key::Sandbox(..) => return None,
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
        Some(Asked {
            name: name.clone(),
            host: host.map(|host| host.name.clone()),
            seen: (here, self.index.size(name), count, self.said),
        })
    }

    /// The question, where it is not answered yet.
    pub(crate) fn unanswered(&self) -> Option<Asked> {
        let asked = self.asked()?;
        let answered = self.kin.as_ref().is_some_and(|kin| kin.asked == asked);
        (!answered).then_some(asked)
    }

    /// Takes up an answer.
    pub(crate) fn take_kin(&mut self, asked: Asked, found: Result<Lineage, String>) {
        self.kin = Some(Kin { asked, found });
    }

    /// What was found of the selected snapshot, be it that there is a newer question by now.
    pub(crate) fn kin(&self) -> Option<Result<&Lineage, &str>> {
        let asked = self.asked()?;
        let kin = self.kin.as_ref()?;
        let same = kin.asked.name == asked.name && kin.asked.host == asked.host;
        same.then(|| kin.found.as_ref().map_err(String::as_str))
    }
}

/// The selected snapshot with what is said of it, or why nothing can be said.
pub(crate) fn sayable(app: &App) -> Result<&Lineage, String> {
    let nothing = || "select a snapshot or an object first".to_owned();
    app.asked().ok_or_else(nothing)?;
    match app.kin() {
        Some(found) => found.map_err(str::to_owned),
        None => Err("what is said of it is still being read".to_owned()),
    }
}

/// Changes what is said of the selected snapshot, wherever it is.
fn saying(app: &App, change: RemarksChange) -> Option<Command> {
    let asked = app.asked()?;
    let (here, there, ..) = asked.seen;
    Some(Command::Say {
        host: asked.host.filter(|_| here.is_some()),
        bucket: there.is_some(),
        name: asked.name,
        change,
    })
}

/// Pins the selected snapshot, or takes its pin away.
pub(crate) fn turn_pin(app: &mut App) -> Vec<Command> {
    let Ok(lineage) = sayable(app) else {
        return Vec::new();
    };
    let change = RemarksChange::pin(!lineage.is_pinned());
    saying(app, change).into_iter().collect()
}

/// Opens the dialog for the note.
pub(crate) fn open_note(app: &mut App) {
    let Ok(lineage) = sayable(app) else { return };
    let note = lineage.note().unwrap_or_default().to_owned();
    if let Some(command) = saying(app, RemarksChange::default()) {
        perform::open(app, Dialog::Note(Box::new(Note::new(command, &note))));
    }
}
