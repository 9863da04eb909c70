//! Editing a filter: all keys go to the text input until enter or esc.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::App;
use crate::actions::Pane;
use crate::columns::Column;
use crate::dialog::TextInput;
use crate::list::Change;
use crate::query::complete_field;

/// Number of filters that are kept.
const MAX_HISTORY: usize = 100;

/// The last filters, oldest first.
#[derive(Debug, Default)]
pub(crate) struct FilterHistory {
    texts: Vec<String>,
    /// The one that is shown while a filter is edited.
    position: usize,
}

impl FilterHistory {
    fn add(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.texts.retain(|other| other != text);
        self.texts.push(text.to_owned());
        if self.texts.len() > MAX_HISTORY {
            self.texts.remove(0);
        }
    }

    /// Returns the previous filter, or the next one; an empty text after the last.
    fn go(&mut self, is_back: bool) -> &str {
        self.position = match is_back {
            true => self.position.saturating_sub(1),
            false => (self.position + 1).min(self.texts.len()),
        };
        self.texts.get(self.position).map_or("", String::as_str)
    }
}

pub(crate) fn start_filter(app: &mut App) {
    app.filter_history.position = app.filter_history.texts.len();
    // Typing begins a new filter, a cursor key edits the old one.
    app.filter = Some(TextInput::proposed(&text(app, app.list)));
}

pub(crate) fn on_key(app: &mut App, key: KeyEvent) {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    let Some(input) = &mut app.filter else { return };
    match (key.code, ctrl) {
        (KeyCode::Enter, _) => {
            app.filter_history.add(input.text());
            app.filter = None;
        }
        (KeyCode::Esc, _) => {
            app.filter = None;
            app.change(app.list, Change::Filter(String::new()));
        }
        (KeyCode::Char('p'), true) => app.change(app.list, Change::MoveBy(-1)),
        (KeyCode::Char('n'), true) => app.change(app.list, Change::MoveBy(1)),
        (KeyCode::Up | KeyCode::Down, _) if !app.filter_history.texts.is_empty() => {
            let text = app.filter_history.go(key.code == KeyCode::Up);
            *input = TextInput::with_text(text);
            refilter(app);
        }
        (KeyCode::Tab, _) => {
            if let Some(text) = complete(input.text()) {
                *input = TextInput::with_text(&text);
                refilter(app);
            }
        }
        // Without a history they move the selection.
        (KeyCode::Up, _) => app.change(app.list, Change::MoveBy(-1)),
        (KeyCode::Down, _) => app.change(app.list, Change::MoveBy(1)),
        _ if input.on_key(key) => refilter(app),
        _ => {}
    }
}

/// Returns `text` with its last word completed to the name of a field, as far as it is unambiguous.
fn complete(text: &str) -> Option<String> {
    let start = text.rfind([' ', '!']).map_or(0, |at| at + 1);
    let (before, word) = text.split_at(start);
    let names = complete_field(word);
    match names.as_slice() {
        _ if word.is_empty() => None,
        [name] => {
            let sign = if is_compared(name) { "" } else { ":" };
            Some(format!("{before}{name}{sign}"))
        }
        [first, rest @ ..] => {
            let common =
                |length: &usize| rest.iter().all(|name| name.starts_with(&first[..*length]));
            let length = (word.len()..=first.len()).rev().find(common)?;
            Some(format!("{before}{}", &first[..length]))
        }
        [] => None,
    }
}

/// Returns whether the field is usually compared by `<` or `>`.
fn is_compared(name: &str) -> bool {
    matches!(name, "age") || Column::from_name(name).is_some_and(Column::is_number)
}

/// Applies the filter as typed so far.
pub(crate) fn refilter(app: &mut App) {
    let typed = app.filter.as_ref().map(|input| input.text().to_owned());
    if let Some(typed) = typed.filter(|typed| *typed != text(app, app.list)) {
        app.change(app.list, Change::Filter(typed));
    }
}

fn text(app: &App, pane: Pane) -> String {
    app.summary(pane).filter.to_owned()
}
