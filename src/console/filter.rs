//! Typing a filter: every key belongs to the field until enter or esc.

use crossterm::event::{KeyCode, KeyEvent};

use super::actions::Pane;
use super::app::App;
use super::dialog::TextInput;
use super::list::Change;

/// Begins to type the filter of the focused list.
pub(crate) fn start_filter(app: &mut App) {
    app.filter = Some(TextInput::with_text(&text(app, app.list)));
}

/// Takes a key.
pub(crate) fn on_key(app: &mut App, key: KeyEvent) {
    let Some(field) = &mut app.filter else { return };
    match key.code {
        KeyCode::Enter => app.filter = None,
        KeyCode::Esc => {
            app.filter = None;
            app.change(app.list, Change::Filter(String::new()));
        }
        KeyCode::Up => app.change(app.list, Change::MoveBy(-1)),
        KeyCode::Down => app.change(app.list, Change::MoveBy(1)),
        _ if field.on_key(key) => refilter(app),
        _ => {}
    }
}

/// Shows what matches the text as it stands now.
pub(crate) fn refilter(app: &mut App) {
    let wanted = app.filter.as_ref().map(|field| field.text().to_owned());
    if let Some(wanted) = wanted.filter(|wanted| *wanted != text(app, app.list)) {
        app.change(app.list, Change::Filter(wanted));
    }
}

/// The filter of a list.
pub(crate) fn text(app: &App, pane: Pane) -> String {
    app.numbers(pane).filter.to_owned()
}
