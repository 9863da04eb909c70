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
}

const KEYS_WIDTH: usize = 17;

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
        let is_help = self.search.text().is_empty() && context.is_key(key, Action::Help);
        if is_help || matches!(key.code, KeyCode::Enter | KeyCode::F(1)) {
            return DialogReply::close();
        }
        match self.search.on_key(key) {
            true => DialogReply::Stay,
            false => DialogReply::Ignored,
        }
    }

    fn paste(&mut self, text: &str) {
        self.search.paste(text);
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let query = self.search.text();
        // The title stays visible while the rest is scrolled.
        let title = match query {
            "" => "help".to_owned(),
            query => format!("help: {query}▏"),
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
            let all = format!("{} {keys} {}", entry.name, entry.sentence);
            // Scattered letters match nearly every sentence.
            if rank(query, &all).is_none_or(|rank| rank >= 4) {
                continue;
            }
            count += 1;
            if std::mem::replace(&mut section, title) != title {
                content.push_blank();
                content.push_line(Line::styled(title, theme.title));
            }
            let mut keys = format::fit(&keys, KEYS_WIDTH);
            for line in format::wrap(&entry_sentence(entry), width.saturating_sub(KEYS_WIDTH + 1)) {
                content.push_line(Line::from(vec![
                    Span::styled(
                        std::mem::replace(&mut keys, " ".repeat(KEYS_WIDTH)),
                        theme.key,
                    ),
                    Span::raw(format!(" {line}")),
                ]));
            }
        }
        if count == 0 && signs.is_empty() {
            content.push_wrapped("No action matches.", 0, theme.dim);
        }
        content.push_key("type", "search", true);
        content.push_key("↑ ↓", "scroll", true);
        content.push_key("esc", "close", true);
        content
    }
}

fn entry_sentence(entry: &Entry) -> String {
    match entry.is_everywhere() {
        true => entry.sentence.to_owned(),
        false => format!("{} [{}]", entry.sentence, entry.places()),
    }
}
