//! The serial console of a sandbox: the cells of its emulator.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Clear;
use snapdeck_model::is_unprintable;

use super::dialogs::key_line;
use crate::app::App;
use crate::areas::Areas;
use crate::dialog::{Content, SerialConsole};
use crate::format::clip;

pub(super) fn draw(
    app: &App,
    frame: &mut Frame,
    area: Rect,
    console: &SerialConsole,
    content: Content<'_>,
    areas: &mut Areas,
) {
    let theme = &app.appearance().theme;
    let mut title = format!(" {} ", content.title);
    let end = console.terminal.end();
    let state = console.terminal.lock();
    let scrollback = state
        .as_ref()
        .map_or(0, |state| state.emulator.screen().scrollback());
    if let Some(end) = &end {
        title = format!("{title}· {end} ");
    } else if scrollback > 0 {
        title = format!("{title}· {scrollback} lines back ");
    }
    let block = app
        .appearance()
        .border(theme.focus)
        .title(Line::styled(clip(&title, area.width.into()), theme.focus));
    // A serial line tells the guest no size.
    let (rows, columns) = state
        .as_ref()
        .map_or((0, 0), |state| state.emulator.screen().size());
    let hint = format!(" {columns}x{rows} · in the guest: stty cols {columns} rows {rows} ");
    let block = match end.is_none() && hint.len() + 2 <= usize::from(area.width) {
        true => block.title_bottom(Line::styled(hint, theme.dim).right_aligned()),
        false => block,
    };
    frame.render_widget(Clear, area);
    let inner = block.draw(frame, area);
    let room = Rect {
        height: inner.height.saturating_sub(1),
        ..inner
    };
    let last = Rect {
        y: room.bottom(),
        height: inner.height.min(1),
        ..inner
    };
    frame.render_widget(key_line(content.keys, theme), last);
    areas.layer_body = room;
    let Some(state) = state else { return };
    let screen = state.emulator.screen();
    let (rows, columns) = screen.size();
    let (cursor_row, cursor_column) = screen.cursor_position();
    // The terminal may be smaller than when the console was opened: the line with the cursor stays visible.
    let first = (cursor_row + 1).saturating_sub(room.height);
    let has_color = !app.appearance().plain;
    for row in first..rows.min(first.saturating_add(room.height)) {
        for column in 0..columns.min(room.width) {
            let Some(cell) = screen.cell(row, column) else {
                continue;
            };
            let position = Position::new(room.x + column, room.y + row - first);
            if let Some(target) = frame.buffer_mut().cell_mut(position) {
                let is_shown = |c: &char| !is_unprintable(*c) && !c.is_control();
                let symbol: String = cell.contents().chars().filter(is_shown).collect();
                target.set_symbol(if symbol.is_empty() { " " } else { &symbol });
                target.set_style(style(cell, has_color));
            }
        }
    }
    if end.is_none() && scrollback == 0 && !screen.hide_cursor() {
        let column = cursor_column.min(room.width.saturating_sub(1));
        let row = (cursor_row - first).min(room.height.saturating_sub(1));
        frame.set_cursor_position(Position::new(room.x + column, room.y + row));
    }
}

fn style(cell: &vt100::Cell, has_color: bool) -> Style {
    let mut style = Style::default();
    if has_color {
        style = style.fg(color(cell.fgcolor())).bg(color(cell.bgcolor()));
    }
    let modifiers = [
        (cell.bold(), Modifier::BOLD),
        (cell.dim(), Modifier::DIM),
        (cell.italic(), Modifier::ITALIC),
        (cell.underline(), Modifier::UNDERLINED),
        (cell.inverse(), Modifier::REVERSED),
    ];
    for (is_set, modifier) in modifiers {
        if is_set {
            style = style.add_modifier(modifier);
        }
    }
    style
}

fn color(color: vt100::Color) -> Color {
    match color {
        vt100::Color::Default => Color::Reset,
        vt100::Color::Idx(index) => Color::Indexed(index),
        vt100::Color::Rgb(red, green, blue) => Color::Rgb(red, green, blue),
    }
}
