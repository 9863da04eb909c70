//! Pull: objects are downloaded to a host.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Reply};
use crate::console::app::Command;
use crate::console::format::{self, size};
use crate::console::theme::Theme;
use crate::console::world;
use crate::engine::{Link, View};
use crate::model::{HostName, Operation, SnapshotName};

/// The dialog.
#[derive(Debug)]
pub struct Pull {
    host: HostName,
    names: Vec<SnapshotName>,
    overwrite: bool,
}

/// What a pull would find on the host.
enum Local {
    Absent,
    Broken(String),
    Here,
}

impl Pull {
    /// Asks whether `names` shall go to `host`.
    pub fn new(host: HostName, names: Vec<SnapshotName>) -> Self {
        Self {
            host,
            names,
            overwrite: false,
        }
    }

    fn local(&self, view: &View, name: &SnapshotName) -> Local {
        match world::snapshot(view, &self.host, name) {
            None => Local::Absent,
            Some(found) => match &found.problem {
                Some(problem) => Local::Broken(problem.clone()),
                None => Local::Here,
            },
        }
    }

    fn any_here(&self, view: &View) -> bool {
        self.names
            .iter()
            .any(|name| matches!(self.local(view, name), Local::Here))
    }

    fn refusal(&self, view: &View) -> Option<String> {
        match &view.bucket.link {
            Link::Off => {
                return Some("no bucket is configured: name one in config.toml".to_owned());
            }
            Link::Down(error) => return Some(error.to_string()),
            Link::Opening | Link::Up => {}
        }
        match world::host(view, &self.host).map(|host| &host.link) {
            None => Some(format!("there is no host {}", self.host)),
            Some(Link::Down(error)) => Some(error.to_string()),
            Some(_) => None,
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, view: &View) -> Reply {
        match key.code {
            KeyCode::Char('y') | KeyCode::Enter if self.refusal(view).is_none() => {
                let pull = |name: &SnapshotName| {
                    Command::Submit(Operation::Pull {
                        host: self.host.clone(),
                        name: name.clone(),
                        overwrite: self.overwrite && matches!(self.local(view, name), Local::Here),
                    })
                };
                Reply::Close(self.names.iter().map(pull).collect())
            }
            KeyCode::Char('n' | 'q') => Reply::close(),
            KeyCode::Char('o' | ' ') if self.any_here(view) => {
                self.overwrite = !self.overwrite;
                Reply::Stay
            }
            _ => Reply::Stay,
        }
    }

    /// What it shows.
    pub fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: format!("pull to {}", self.host),
            ..Content::default()
        };
        let mut bytes = 0;
        let mut files = 0;
        let mut lines = Vec::new();
        for name in &self.names {
            let known = world::object(view, name).map(|object| object.size_bytes);
            let (note, style, moves) = match (known, self.local(view, name)) {
                (None, _) => ("not seen in the bucket".to_owned(), theme.warn, false),
                (_, Local::Absent) => (String::new(), theme.dim, true),
                (_, Local::Here) if self.overwrite => {
                    ("here: is replaced".to_owned(), theme.warn, true)
                }
                (_, Local::Here) => (
                    "here: skipped where it is sound".to_owned(),
                    theme.dim,
                    false,
                ),
                (_, Local::Broken(why)) => (
                    format!("here but broken: repaired ({why})"),
                    theme.warn,
                    true,
                ),
            };
            if moves {
                bytes += known.unwrap_or(0);
                files += 1;
            }
            let known = known.map(size).unwrap_or_default();
            let columns = width.saturating_sub(14) / 2;
            lines.push(Line::from(vec![
                Span::raw(format!(
                    "  {} {known:>9}  ",
                    format::fit(name.as_str(), columns)
                )),
                Span::styled(format::clip(&note, columns), style),
            ]));
        }
        let what = format::count(files, "snapshot");
        let sum = format!(
            "Downloads {what}, {}, from {}",
            size(bytes),
            view.bucket.location
        );
        content.say(&sum, 0, theme.text, width);
        content.gap();
        content.lines.extend(lines);
        if self.any_here(view) {
            content.gap();
            let label = "overwrite: fetch again also what is here and sound";
            content.tick(label, self.overwrite, false, true, theme);
            content.keys.push(("o", "overwrite", true));
        }
        let refusal = self.refusal(view);
        if let Some(reason) = &refusal {
            content.gap();
            content.say(&format!("✗ {reason}"), 0, theme.bad, width);
        }
        content.keys.insert(0, ("y", "pull", refusal.is_none()));
        content.keys.push(("n", "close", true));
        content
    }
}
