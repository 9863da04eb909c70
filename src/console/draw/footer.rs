//! The last line: the keys of the focused pane, or what there is to tell.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::console::actions::ACTIONS;
use crate::console::app::App;
use crate::console::format::clip;
use crate::console::keymap;
use crate::console::perform::obstacle;

/// Draws it.
pub fn draw(app: &App, frame: &mut Frame, area: Rect) {
    let theme = &app.theme;
    let width = usize::from(area.width);
    if app.ending {
        let text = " cleaning up: jobs end and take back what they began…";
        frame.render_widget(Line::styled(clip(text, width), theme.warn), area);
        return;
    }
    if let Some(notice) = &app.notice {
        let (sign, style) = if notice.bad {
            ("✗", theme.bad)
        } else {
            ("·", theme.text)
        };
        frame.render_widget(
            Line::styled(clip(&format!(" {sign} {}", notice.text), width), style),
            area,
        );
        return;
    }
    if app.filter.is_some() {
        let text = " type to filter by name · enter keeps it · esc drops it";
        frame.render_widget(Line::styled(clip(text, width), theme.text), area);
        return;
    }
    let mut spans = Vec::new();
    // Help and quit close the line and are never cut off.
    let (tail, entries): (Vec<_>, Vec<_>) = ACTIONS
        .iter()
        .filter(|entry| entry.footer && entry.panes.contains(&app.focus))
        .partition(|entry| matches!(entry.name, "help" | "quit"));
    let cells = |entry: &&crate::console::actions::Entry| {
        let key = keymap::name(entry.keys[0]);
        let possible = obstacle(app, entry.action).is_none();
        (key, entry.name, possible)
    };
    let size = |(key, name, _): &(String, &str, bool)| key.width() + name.width() + 3;
    let tail: Vec<_> = tail.iter().map(cells).collect();
    let mut room = width.saturating_sub(tail.iter().map(size).sum());
    let mut shown = Vec::new();
    for cell in entries.iter().map(cells) {
        let Some(left) = room.checked_sub(size(&cell)) else {
            break;
        };
        room = left;
        shown.push(cell);
    }
    for (key, name, possible) in shown.into_iter().chain(tail) {
        let (key_style, style) = if possible {
            (theme.key, theme.text)
        } else {
            (theme.dim, theme.dim)
        };
        spans.push(Span::styled(format!(" {key}"), key_style));
        spans.push(Span::styled(format!(" {name} "), style));
    }
    frame.render_widget(Line::from(spans), area);
}
