//! Remove: deletes snapshots from hosts, the bucket, or both. Removing a last copy must be confirmed by typing.

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, DialogReply, TextInput};
use crate::app::Command;
use crate::cell::Place;
use crate::format::{self, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{ImageLocation, Link, View};
use snapdeck_model::{HostName, ImageIdentity, Operation, Snapshot, SnapshotName};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RemoveField {
    Host,
    Bucket,
    Confirmation,
}

#[derive(Debug)]
pub(crate) struct RemoveDialog {
    /// Candidates, each with its host.
    files: Vec<(HostName, SnapshotName)>,
    names: Vec<SnapshotName>,
    from_host: bool,
    from_bucket: bool,
    confirmation: TextInput,
    focus: RemoveField,
    /// Copies with the same bytes; `None`: not known yet.
    copies: Option<BTreeMap<ImageLocation, Vec<ImageLocation>>>,
}

impl RemoveDialog {
    /// Returns a dialog for the `chosen` snapshots, with the locations they were chosen in selected. `current` is the
    /// host whose files of the same names can be removed along with objects.
    pub(crate) fn new(chosen: Vec<(SnapshotName, Place)>, current: Option<&HostName>) -> Self {
        let in_bucket = chosen.iter().all(|(_, place)| *place == Place::Bucket);
        let mut names: Vec<SnapshotName> = chosen.iter().map(|(name, _)| name.clone()).collect();
        names.dedup();
        let file = |(name, place)| match place {
            Place::Host(host) => Some((host, name)),
            Place::Bucket => Some((current?.clone(), name)),
        };
        let files = chosen.into_iter().filter_map(file).collect();
        let focus = if in_bucket {
            RemoveField::Bucket
        } else {
            RemoveField::Host
        };
        Self {
            files,
            names,
            from_host: !in_bucket,
            from_bucket: in_bucket,
            confirmation: TextInput::default(),
            focus,
            copies: None,
        }
    }

    /// Returns the locations that can be removed, whose other copies [`Self::on_copies`] is to receive.
    pub(crate) fn locations(&self) -> Vec<ImageLocation> {
        let files = self.files.iter().map(|(host, name)| ImageLocation {
            host: Some(host.clone()),
            name: name.clone(),
        });
        let objects = self.names.iter().map(|name| ImageLocation {
            host: None,
            name: name.clone(),
        });
        files.chain(objects).collect()
    }

    /// Receives the copies of its locations that have the same bytes.
    pub(crate) fn on_copies(&mut self, copies: BTreeMap<ImageLocation, Vec<ImageLocation>>) {
        self.copies = Some(copies);
    }

    /// Returns the candidates that exist.
    fn files<'a>(
        &'a self,
        view: &'a View,
    ) -> impl Iterator<Item = (&'a HostName, &'a Snapshot)> + 'a {
        let files = self.files.iter();
        files.filter_map(|(host, name)| Some((host, lookup::snapshot(view, host, name)?)))
    }

    /// Returns the operations, one for each file and object, each with the identity that the dialog shows.
    fn operations(&self, view: &View) -> Vec<Operation> {
        let mut operations = Vec::new();
        for name in &self.names {
            let object = lookup::object(view, name).filter(|_| self.from_bucket);
            let files = self
                .files(view)
                .filter(|(_, snapshot)| self.from_host && snapshot.name == *name);
            for (host, snapshot) in files {
                operations.push(Operation::Remove {
                    host: Some(host.clone()),
                    name: name.clone(),
                    from_bucket: false,
                    expected_identity: snapshot.file.map(ImageIdentity::File),
                });
            }
            if let Some(object) = object {
                operations.push(Operation::Remove {
                    host: None,
                    name: name.clone(),
                    from_bucket: true,
                    expected_identity: Some(object.identity()),
                });
            }
        }
        operations
    }

    /// Returns the snapshots of which no other copy with the same bytes is known to remain. Only reachable hosts and the
    /// reachable bucket count.
    fn last_copies(&self, view: &View) -> Vec<SnapshotName> {
        let removed: Vec<ImageLocation> = self
            .operations(view)
            .iter()
            .flat_map(removed_locations)
            .collect();
        let exists = |location: &ImageLocation| match &location.host {
            None => lookup::is_bucket_known(view) && lookup::object(view, &location.name).is_some(),
            Some(host) => {
                lookup::host(view, host).is_some_and(|host| host.link == Link::Up)
                    && lookup::snapshot(view, host, &location.name)
                        .is_some_and(|snapshot| snapshot.problem.is_none())
            }
        };
        let remains = |location: &ImageLocation| {
            let copies = self.copies.as_ref().and_then(|all| all.get(location));
            let mut copies = copies.into_iter().flatten();
            copies.any(|copy| !removed.contains(copy) && exists(copy))
        };
        let last = removed.iter().filter(|location| !remains(location));
        let mut names: Vec<SnapshotName> = last.map(|location| location.name.clone()).collect();
        names.dedup();
        names
    }

    /// Returns what must be typed to confirm; `None` if no last copy is removed.
    fn phrase(&self, view: &View) -> Option<String> {
        match self.last_copies(view).as_slice() {
            [] => None,
            [name] => Some(name.to_string()),
            names => Some(format!("remove {}", names.len())),
        }
    }

    fn hosts(&self) -> Vec<&HostName> {
        let mut hosts: Vec<&HostName> = self.files.iter().map(|(host, _)| host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    fn refusals(&self, view: &View) -> Vec<String> {
        let mut refusals = Vec::new();
        for (host, snapshot) in self.files(view).filter(|_| self.from_host) {
            if !snapshot.dependents.is_empty() {
                let dependents = snapshot.dependents.join(", ");
                let on = match self.hosts().len() {
                    1 => String::new(),
                    _ => format!(" on {host}"),
                };
                refusals.push(format!(
                    "cannot remove {}{on}: in use by {dependents}",
                    snapshot.name
                ));
            }
        }
        for host in self.hosts().into_iter().filter(|_| self.from_host) {
            if let Some(Link::Down(error)) = lookup::host(view, host).map(|host| &host.link) {
                refusals.push(error.to_string());
            }
        }
        if let (true, Link::Down(error)) = (self.from_bucket, &view.bucket.link) {
            refusals.push(error.to_string());
        }
        refusals
    }

    fn visible_fields(&self, view: &View) -> Vec<RemoveField> {
        let mut fields = vec![RemoveField::Host, RemoveField::Bucket];
        if self.phrase(view).is_some() {
            fields.push(RemoveField::Confirmation);
        }
        fields
    }

    fn is_ready(&self, view: &View) -> bool {
        !self.operations(view).is_empty() && self.refusals(view).is_empty()
    }

    fn is_confirmed(&self, view: &View) -> bool {
        self.is_ready(view) && self.phrase(view).as_deref() == Some(self.confirmation.text())
    }

    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        let fields = self.visible_fields(view);
        if !fields.contains(&self.focus) {
            self.focus = RemoveField::Host;
        }
        if let Some(focus) = super::moved_focus(&fields, self.focus, key.code) {
            self.focus = focus;
            return DialogReply::Stay;
        }
        match key.code {
            KeyCode::Enter
                if self.focus == RemoveField::Confirmation && self.is_confirmed(view) =>
            {
                return self.submit(view);
            }
            _ if self.focus == RemoveField::Confirmation => {
                self.confirmation.on_key(key);
            }
            KeyCode::Char(' ') => match self.focus {
                RemoveField::Host => self.from_host = !self.from_host,
                _ => self.from_bucket = !self.from_bucket,
            },
            KeyCode::Char('y') if self.is_ready(view) => {
                if self.phrase(view).is_none() {
                    return self.submit(view);
                }
                self.focus = RemoveField::Confirmation;
            }
            KeyCode::Char('n' | 'q') => return DialogReply::close(),
            _ => {}
        }
        DialogReply::Stay
    }

    fn submit(&self, view: &View) -> DialogReply {
        DialogReply::Close(
            self.operations(view)
                .into_iter()
                .map(Command::Submit)
                .collect(),
        )
    }

    pub(crate) fn paste(&mut self, text: &str) {
        if self.focus == RemoveField::Confirmation {
            self.confirmation.paste(text.trim());
        }
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let subject = match self.names.as_slice() {
            [name] => name.to_string(),
            names => format::count(names.len(), "snapshot"),
        };
        let mut content = Content {
            title: format!("remove {subject}"),
            ..Content::default()
        };
        let file_count = self.files(view).count();
        let object_count = self
            .names
            .iter()
            .filter(|name| lookup::object(view, name).is_some())
            .count();
        let host = match self.hosts().as_slice() {
            [] => "no host".to_owned(),
            [one] => one.to_string(),
            many => format::count(many.len(), "host"),
        };
        let label = format!("on {host} ({})", format::count(file_count, "file"));
        content.push_check_box(
            &label,
            self.from_host,
            self.focus == RemoveField::Host,
            file_count > 0,
            theme,
        );
        let label = format!("in the bucket ({})", format::count(object_count, "object"));
        content.push_check_box(
            &label,
            self.from_bucket,
            self.focus == RemoveField::Bucket,
            object_count > 0,
            theme,
        );
        content.push_blank();
        self.push_targets(&mut content, view, theme, width);
        let refusals = self.refusals(view);
        for refusal in &refusals {
            content.push_wrapped(&format!("✗ {refusal}"), 0, theme.bad, width);
        }
        let phrase = self.phrase(view).filter(|_| refusals.is_empty());
        let ready = self.is_ready(view);
        if let Some(phrase) = &phrase {
            let warning = match self.copies {
                Some(_) => "! No other copy with the same bytes is known: this cannot be undone.",
                None => "! Looking for other copies with the same bytes…",
            };
            content.push_wrapped(warning, 0, theme.bad, width);
            let focused = self.focus == RemoveField::Confirmation;
            content.push_confirmation(phrase, &self.confirmation, focused, width, theme);
        }
        if self.focus == RemoveField::Confirmation && phrase.is_some() {
            let matches = phrase.as_deref() == Some(self.confirmation.text());
            content.keys = vec![
                ("enter", "remove", ready && matches),
                ("tab", "next", true),
                ("esc", "cancel", true),
            ];
        } else {
            let confirm = if phrase.is_some() {
                "continue (type to confirm)"
            } else {
                "remove"
            };
            content.keys = vec![
                ("y", confirm, ready),
                ("space", "toggle", true),
                ("n", "cancel", true),
            ];
        }
        content
    }

    fn push_targets(&self, content: &mut Content, view: &View, theme: &Theme, width: usize) {
        let operations = self.operations(view);
        if operations.is_empty() {
            content.push_wrapped("Nothing to remove: select a location.", 0, theme.dim, width);
            return;
        }
        content.push_wrapped("To remove:", 0, theme.text, width);
        let mut line = |place: &str, path: &str, bytes: u64| {
            let room = width.saturating_sub(22);
            content.lines.push(Line::from(vec![
                Span::styled(format!("  {} ", format::fit(place, 8)), theme.title),
                Span::raw(format!("{} {:>9}", format::fit(path, room), size(bytes))),
            ]));
        };
        for operation in &operations {
            let Operation::Remove {
                host,
                name,
                from_bucket,
                ..
            } = operation
            else {
                continue;
            };
            if let Some(host) = host
                && let Some(snapshot) = lookup::snapshot(view, host, name)
            {
                line(host.as_str(), &snapshot.path, snapshot.size_bytes);
            }
            if let Some(object) = lookup::object(view, name).filter(|_| *from_bucket) {
                line("bucket", &object.key, object.size_bytes);
            }
        }
        content.push_blank();
    }
}

/// Returns the locations that an operation removes.
fn removed_locations(operation: &Operation) -> Vec<ImageLocation> {
    let Operation::Remove {
        host,
        name,
        from_bucket,
        ..
    } = operation
    else {
        return Vec::new();
    };
    let on_host = host.iter().map(|host| Some(host.clone()));
    let locations = on_host.chain(from_bucket.then_some(None));
    locations
        .map(|host| ImageLocation {
            host,
            name: name.clone(),
        })
        .collect()
}
