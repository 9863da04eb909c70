//! Editing a filter: all keys go to the text input until enter or esc.

use crossterm::event::{KeyCode, KeyEvent};

use super::actions::Pane;
use super::app::App;
use super::dialog::TextInput;
use super::list::Change;

pub(crate) fn start_filter(app: &mut App) {
    app.filter = Some(TextInput::with_text(&text(app, app.list)));
}

pub(crate) fn on_key(app: &mut App, key: KeyEvent) {
    let Some(input) = &mut app.filter else { return };
    match key.code {
        KeyCode::Enter => app.filter = None,
        KeyCode::Esc => {
            app.filter = None;
            app.change(app.list, Change::Filter(String::new()));
        }
        KeyCode::Up => app.change(app.list, Change::MoveBy(-1)),
        KeyCode::Down => app.change(app.list, Change::MoveBy(1)),
        _ if input.on_key(key) => refilter(app),
        _ => {}
    }
}

/// Applies the filter as typed so far.
pub(crate) fn refilter(app: &mut App) {
    let typed = app.filter.as_ref().map(|input| input.text().to_owned());
    if let Some(typed) = typed.filter(|typed| *typed != text(app, app.list)) {
        app.change(app.list, Change::Filter(typed));
    }
}

pub(crate) fn text(app: &App, pane: Pane) -> String {
    app.numbers(pane).filter.to_owned()
}
