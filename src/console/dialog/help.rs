//! All keys, from the table of actions, with a search.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply, TextInput};
use crate::actions::{Action, Entry};
use crate::format;
use crate::query::rank;
use crate::table::ACTIONS;

#[derive(Debug, Default)]
pub(crate) struct Help {
    search: TextInput,
}

const KEYS_WIDTH: usize = 17;

/// Legend of the signs in the lists.
const SIGNS: &[&str] = &[
    "Sandboxes   ● running, ◐ paused or suspended, ◌ saved, ○ shut off, ✗ crashed",
    "Snapshots   ⌂N sandboxes based on it, = same size in the bucket, ≠ other size in the bucket, ↑ not in the bucket",
    "Bucket      = same size on this host, ≠ other size on this host, ↓ not on this host",
    "Locations   ● present, ≠ other size than in the bucket, · absent, ! damaged, ? host unreachable, ✗ pull failed",
    "Filters     words of a name, state:running, size>10G, memory<=4G, users:0, age<7d, date>2026-01-31, !word",
];

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
        for entry in ACTIONS {
            let keys: Vec<String> = context.keymap.keys(entry.action).collect();
            let keys = keys.join(", ");
            let all = format!("{} {keys} {}", entry.name, entry.sentence);
            // Scattered letters match nearly every sentence.
            if rank(query, &all).is_none_or(|rank| rank >= 4) {
                continue;
            }
            count += 1;
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
        let matches = |line: &&&str| line.to_lowercase().contains(&query.to_lowercase());
        let signs: Vec<&&str> = SIGNS.iter().filter(matches).collect();
        if count == 0 && signs.is_empty() {
            content.push_wrapped("No action matches.", 0, theme.dim);
        } else if count > 0 && !signs.is_empty() {
            content.push_blank();
        }
        for line in signs {
            content.push_wrapped(line, 0, theme.dim);
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
