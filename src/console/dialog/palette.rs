//! The command palette: finds an action by a few letters of its name.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply, TextInput};
use crate::actions::{Action, Entry};
use crate::format::{fit, wrap};
use crate::query::rank;

#[derive(Debug, Default)]
pub(crate) struct Palette {
    search: TextInput,
    row: usize,
}

const NAME_WIDTH: usize = 18;
const KEY_WIDTH: usize = 10;

/// Returns the actions whose name or sentence matches `query`, the best match first; of equal ones, those of the focused
/// pane first.
fn matching_entries(query: &str, context: &Context<'_>) -> Vec<&'static Entry> {
    // The palette is open already, and a host's number cannot be typed here.
    let is_offered = |entry: &&Entry| !matches!(entry.action, Action::Palette | Action::Host(_));
    let entries = context.keymap.entries().filter(is_offered);
    let ranked = entries.filter_map(|entry| {
        let words = rank(query, entry.words).filter(|rank| *rank < 4);
        let name = rank(query, entry.name);
        let name = match (name, words.map(|rank| rank + 2)) {
            (Some(name), Some(words)) => Some(name.min(words)),
            (name, words) => name.or(words),
        };
        let sentence = rank(query, entry.sentence).filter(|rank| *rank < 4);
        let rank = name.or(sentence.map(|rank| rank + 8))?;
        Some(((rank, !entry.panes.contains(&context.focus)), entry))
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

impl Dialog for Palette {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let count = matching_entries(self.search.text(), context).len();
        let last = count.saturating_sub(1);
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, ctrl) {
            (KeyCode::Up, _) | (KeyCode::Char('p'), true) => self.row = self.row.saturating_sub(1),
            (KeyCode::Down, _) | (KeyCode::Char('n'), true) => {
                self.row = (self.row + 1).min(last);
            }
            (KeyCode::Enter, _) => return run(self.search.text(), self.row, context),
            _ if self.search.on_key(key) => self.row = 0,
            (KeyCode::Home, _) => self.row = 0,
            (KeyCode::End, _) => self.row = last,
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    fn on_click(&mut self, target: usize, context: &Context<'_>) -> DialogReply {
        if self.row == target {
            return run(self.search.text(), target, context);
        }
        self.row = target;
        DialogReply::Stay
    }

    fn paste(&mut self, text: &str) {
        self.search.paste(text);
        self.row = 0;
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new(format!(":{}▏", self.search.text()), context, width);
        let rest = width.saturating_sub(NAME_WIDTH + KEY_WIDTH + 2);
        let all = matching_entries(self.search.text(), context);
        for (row, entry) in all.iter().enumerate() {
            let refusal = (context.refusal)(entry);
            let keys = context.keymap.keys(entry.action).next().unwrap_or_default();
            let text = refusal.as_deref().unwrap_or(entry.sentence);
            let mut texts = wrap(text, rest.max(1)).into_iter();
            let mut first = texts.next().unwrap_or_default();
            if row != self.row && texts.len() > 0 {
                first.push('…');
            }
            let style = match (row == self.row, refusal.is_some()) {
                (true, _) => theme.selected,
                (false, true) => theme.dim,
                (false, false) => theme.text,
            };
            if row == self.row {
                content.focus = Some(content.length());
            }
            let key_style = if style == theme.text {
                theme.key
            } else {
                style
            };
            content.push_target(row);
            content.push_line(Line::from(vec![
                Span::styled(fit(entry.name, NAME_WIDTH), style),
                Span::styled(fit(&format!(" {keys}"), KEY_WIDTH + 1), key_style),
                Span::styled(fit(&format!(" {first}"), rest + 1), style),
            ]));
            // The selected action shows its whole sentence.
            for text in texts.filter(|_| row == self.row) {
                let indent = " ".repeat(NAME_WIDTH + KEY_WIDTH + 2);
                content.push_line(Line::styled(fit(&format!("{indent}{text}"), width), style));
            }
        }
        if all.is_empty() {
            content.push_wrapped("No such action.", 0, theme.dim);
        }
        let possible = all
            .get(self.row)
            .is_some_and(|entry| (context.refusal)(entry).is_none());
        content.push_key("enter", "run", possible);
        content.push_key("↑ ↓", "select", true);
        content.push_key("esc", "close", true);
        content
    }
}

/// Performs the action in a row.
fn run(query: &str, row: usize, context: &Context<'_>) -> DialogReply {
    match matching_entries(query, context).get(row) {
        Some(entry) => DialogReply::Perform(entry.action),
        None => DialogReply::Stay,
    }
}
