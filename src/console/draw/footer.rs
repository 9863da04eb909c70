//! The last line: the keys of the focused pane. A notice is above it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;
use unicode_width::UnicodeWidthStr;

use super::dialogs::key_line;
use crate::actions::{Action, Entry};
use crate::app::{App, obstacle};
use crate::areas::Areas;
use crate::format::{clip, fit, wrap};
use crate::widgets::text;

/// Lines of the longest notice.
const MAX_NOTICE_LINES: usize = 4;

/// Draws the keys that may follow the pressed ones, over the lines above `footer`.
pub(super) fn draw_chord(app: &App, frame: &mut Frame, footer: Rect) {
    let theme = &app.appearance().theme;
    let next: Vec<_> = app
        .keymap()
        .continuations(app.pending_keys(), app.focus())
        .collect();
    let widest = next
        .iter()
        .map(|(key, entry)| key.width() + entry.name.width() + 3);
    let column = widest.max().unwrap_or(0).max(1);
    let columns = (usize::from(footer.width) / column).max(1);
    let height = u16::try_from(next.len().div_ceil(columns)).unwrap_or(u16::MAX);
    let height = height.min(footer.y.saturating_sub(1));
    let area = Rect {
        y: footer.y - height,
        height,
        ..footer
    };
    frame.render_widget(Clear, area);
    let lines = next.chunks(columns).map(|row| {
        let cells = row.iter().flat_map(|(key, entry)| {
            let possible = obstacle(app, entry.action).is_none();
            let (key_style, style) = match possible {
                true => (theme.key, theme.text),
                false => (theme.dim, theme.dim),
            };
            let room = column.saturating_sub(key.width() + 2);
            [
                Span::styled(format!(" {key}"), key_style),
                Span::styled(format!(" {}", fit(entry.name, room)), style),
            ]
        });
        Line::from(cells.collect::<Vec<_>>())
    });
    text::draw_lines(frame, area, &lines.collect::<Vec<_>>());
    let keys: Vec<String> = app
        .pending_keys()
        .iter()
        .map(|press| press.name())
        .collect();
    let text = format!(" {} … · esc cancel", keys.join(" "));
    let text = fit(&text, usize::from(footer.width));
    frame.render_widget(Line::styled(text, theme.focus), footer);
}

pub(super) fn draw(app: &App, frame: &mut Frame, area: Rect, areas: &mut Areas) {
    let theme = &app.appearance().theme;
    let width = usize::from(area.width);
    if app.is_shutting_down() {
        let text = " stopping jobs and cleaning up…";
        frame.render_widget(Line::styled(clip(text, width), theme.warn), area);
        return;
    }
    if let Some(input) = app.filter_input() {
        let (text, style) = match app.summary(app.list()).filter_error {
            _ if input.is_selected() => {
                let text = " typing replaces the filter · → edits it · ↑ history · enter keeps it · esc clears it";
                (text.to_owned(), theme.text)
            }
            Some(error) => (format!(" ✗ {error}"), theme.bad),
            None => {
                let text = " words ~fuzzy /regex/ · state:running size>10G !word · ↑ history · tab field · enter apply · esc clear";
                (text.to_owned(), theme.text)
            }
        };
        frame.render_widget(Line::styled(clip(&text, width), style), area);
        return;
    }
    // Palette, help and quit end the line and are never left out.
    let (tail, entries): (Vec<&Entry>, Vec<&Entry>) = app
        .keymap()
        .entries()
        .filter(|entry| entry.in_footer && entry.panes.contains(&app.focus()))
        .partition(|entry| matches!(entry.action, Action::Palette | Action::Help | Action::Quit));
    let cells = |entry: &&Entry| {
        let key = app.keymap().keys(entry.action).next()?;
        // A dialog takes all keys.
        let possible = app.layers().is_empty() && obstacle(app, entry.action).is_none();
        Some((entry.action, key, entry.name, possible))
    };
    let size = |(_, key, name, _): &(Action, String, &str, bool)| key.width() + name.width() + 3;
    let tail: Vec<_> = tail.iter().filter_map(cells).collect();
    let mut room = width.saturating_sub(tail.iter().map(size).sum());
    let mut shown = Vec::new();
    for cell in entries.iter().filter_map(cells) {
        let Some(remaining) = room.checked_sub(size(&cell)) else {
            break;
        };
        room = remaining;
        shown.push(cell);
    }
    shown.extend(tail);
    let mut x = area.x;
    for cell in &shown {
        let width = u16::try_from(size(cell)).unwrap_or(u16::MAX);
        let key = Rect { x, width, ..area };
        areas.keys.push((cell.0, key.intersection(area)));
        x = x.saturating_add(width);
    }
    let keys = shown
        .into_iter()
        .map(|(_, key, name, possible)| (key, name, possible));
    frame.render_widget(key_line(keys, theme), area);
}

/// Draws the notice over the lines above `footer`, which keeps its keys.
pub(super) fn draw_notice(app: &App, frame: &mut Frame, footer: Rect) {
    let Some(notice) = app.notice() else { return };
    let theme = &app.appearance().theme;
    let (sign, style) = match notice.is_error {
        true => ("✗", theme.bad),
        false => ("·", theme.focus),
    };
    let lines = wrap(&notice.text, usize::from(footer.width).saturating_sub(4));
    let count = lines
        .len()
        .min(MAX_NOTICE_LINES)
        .min(usize::from(footer.y / 2));
    let height = u16::try_from(count).unwrap_or(0);
    let area = Rect {
        y: footer.y - height,
        height,
        ..footer
    };
    frame.render_widget(Clear, area);
    let mut sign = sign;
    let lines = lines.into_iter().take(count).map(|line| {
        let sign = std::mem::replace(&mut sign, " ");
        Line::styled(format!(" {sign} {line}"), style)
    });
    text::draw_lines(frame, area, &lines.collect::<Vec<_>>());
}
