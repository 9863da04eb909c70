//! All keys, from the table of actions, with a search.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply, TextInput};
use crate::actions::{Action, Entry};
use crate::format;
use crate::query::rank;

#[derive(Debug, Default)]
pub(crate) struct Help {
    search: TextInput,
    /// The search is being typed.
    is_searching: bool,
}

/// Columns of `: disable autostart`.
const KEYS_WIDTH: usize = 19;
/// Columns for a sentence, the panes and the keys.
const MAX_WIDTH: u16 = 120;

/// Legend of the signs in the lists.
const SIGNS: &[&str] = &[
    "Sandboxes   ● running, ◐ paused or suspended, ◌ saved, ○ shut off, ✗ crashed",
    "Snapshots   ⌂N sandboxes based on it, ✓ same size in the bucket, ≠ other size in the bucket, ↑ not in the bucket",
    "Bucket      ✓ same size on this host, ≠ other size on this host, ↓ not on this host",
    "Locations   ● present, ≠ other size than in the bucket, · absent, ! damaged, ? host unreachable, ✗ pull failed",
    "Filters     words of a name, ~fuzzy, /regex/, state:running, size>10G, memory<=4G, users:0, age<7d, date>2026-01-31, place:both, pin:yes, note:text, label:key=value, !word",
];

/// The sections, from the top.
const SECTIONS: &[&str] = &[
    "Sandboxes",
    "Snapshots and objects",
    "Jobs",
    "Rows",
    "Pages and panes",
    "Moving",
    "Console",
    "Commands",
];

/// Returns the section of an action.
fn section_of(action: Action) -> &'static str {
    match action {
        Action::Create
        | Action::Push
        | Action::New
        | Action::Start
        | Action::Stop
        | Action::Pause
        | Action::Sandbox
        | Action::Verb(_)
        | Action::Destroy
        | Action::Screen
        | Action::CopyVnc
        | Action::Serial
        | Action::Viewer => "Sandboxes",
        Action::Pull
        | Action::Upload
        | Action::CopyTo
        | Action::Remove
        | Action::Note
        | Action::Pin
        | Action::Adopt
        | Action::Prune => "Snapshots and objects",
        Action::Cancel
        | Action::Retry
        | Action::MoveJobUp
        | Action::MoveJobDown
        | Action::Dismiss => "Jobs",
        Action::Open
        | Action::Mark
        | Action::MarkRange
        | Action::MarkAll
        | Action::Invert
        | Action::Filter
        | Action::Sort(_)
        | Action::Reverse
        | Action::Columns
        | Action::Group
        | Action::Fold
        | Action::Bookmarks
        | Action::Copy
        | Action::Definition => "Rows",
        Action::AllHosts
        | Action::NextHost
        | Action::PreviousHost
        | Action::Host(_)
        | Action::Matrix
        | Action::Tree
        | Action::Jobs
        | Action::Hosts
        | Action::Wall
        | Action::Focus(_)
        | Action::Zoom
        | Action::Log
        | Action::Doctor => "Pages and panes",
        Action::Up
        | Action::Down
        | Action::PageUp
        | Action::PageDown
        | Action::HalfPageUp
        | Action::HalfPageDown
        | Action::First
        | Action::Last
        | Action::NextPane
        | Action::PreviousPane
        | Action::Left
        | Action::Right => "Moving",
        Action::Back
        | Action::Shell
        | Action::Refresh
        | Action::Setup
        | Action::Palette
        | Action::Help
        | Action::Theme
        | Action::Suspend
        | Action::Quit => "Console",
        Action::Custom(_) => "Commands",
    }
}

impl Dialog for Help {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        if self.is_searching {
            match key.code {
                KeyCode::Enter => self.is_searching = false,
                _ if self.search.on_key(key) => {}
                _ => return DialogReply::Ignored,
            }
            return DialogReply::Stay;
        }
        match key.code {
            KeyCode::Char('/') => {
                self.search = TextInput::default();
                self.is_searching = true;
                DialogReply::Stay
            }
            KeyCode::Char('q') | KeyCode::Enter | KeyCode::F(1) => DialogReply::close(),
            _ if context.is_key(key, Action::Help) => DialogReply::close(),
            _ => DialogReply::Ignored,
        }
    }

    fn cancel(&mut self) -> DialogReply {
        if !self.is_searching && self.search.text().is_empty() {
            return DialogReply::close();
        }
        *self = Self::default();
        DialogReply::Stay
    }

    fn paste(&mut self, text: &str) {
        if self.is_searching {
            self.search.paste(text);
        }
    }

    fn max_width(&self) -> u16 {
        MAX_WIDTH
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let query = self.search.text();
        // The title stays visible while the rest is scrolled.
        let title = match (query, self.is_searching) {
            ("", false) => "help".to_owned(),
            (query, false) => format!("help /{query}"),
            (query, true) => format!("help /{query}▏"),
        };
        let mut content = Content::new(title, context, width);
        let mut count = 0;
        let matches = |line: &&&str| line.to_lowercase().contains(&query.to_lowercase());
        let signs: Vec<&&str> = SIGNS.iter().filter(matches).collect();
        for line in &signs {
            content.push_wrapped(line, 0, theme.dim);
        }
        let mut section = "";
        let sections = SECTIONS.iter().flat_map(|section| {
            let entries = context.keymap.entries();
            entries
                .filter(|entry| section_of(entry.action) == *section)
                .map(|entry| (*section, entry))
        });
        for (title, entry) in sections {
            let keys: Vec<String> = context.keymap.keys(entry.action).collect();
            let keys = keys.join(", ");
            let Entry {
                name,
                words,
                sentence,
                ..
            } = entry;
            let all = format!("{name} {keys} {words} {sentence}");
            // Scattered letters match nearly every sentence.
            if rank(query, &all).is_none_or(|rank| rank >= 4) {
                continue;
            }
            count += 1;
            if std::mem::replace(&mut section, title) != title {
                content.push_blank();
                content.push_line(Line::styled(title, theme.title));
            }
            // The panes of what works here are not of interest.
            let is_here = entry.panes.contains(&context.focus);
            let (sentence, key_style, style) = match is_here {
                true => (entry.sentence.to_owned(), theme.key, theme.text),
                false => {
                    let sentence = format!("{} [{}]", entry.sentence, entry.places());
                    (sentence, theme.dim, theme.dim)
                }
            };
            let mut keys = format::fit(&keys_text(entry, &keys), KEYS_WIDTH);
            for line in format::wrap(&sentence, width.saturating_sub(KEYS_WIDTH + 1)) {
                let keys = std::mem::replace(&mut keys, " ".repeat(KEYS_WIDTH));
                content.push_line(Line::from(vec![
                    Span::styled(keys, key_style),
                    Span::styled(format!(" {line}"), style),
                ]));
            }
        }
        if count == 0 && signs.is_empty() {
            content.push_wrapped("No action matches.", 0, theme.dim);
        }
        if self.is_searching {
            content.push_key("enter", "done", true);
            content.push_key("esc", "cancel", true);
            return content;
        }
        content.push_key("j k", "scroll", true);
        content.push_key("/", "search", true);
        content.push_key("esc", "close", true);
        content
    }
}

/// Returns the keys; for an action without keys, how the palette finds it.
fn keys_text(entry: &Entry, keys: &str) -> String {
    match keys {
        "" => format!(": {}", entry.name),
        keys => keys.to_owned(),
    }
}
