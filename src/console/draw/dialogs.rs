//! Dialogs: a frame in the middle of the screen, the content, and the keys on the last line.

use std::fmt::Display;
use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;

use super::{metrics, serial};
use crate::app::App;
use crate::areas::Areas;
use crate::dialog::{Content, Context, Layer};
use crate::theme::Theme;
use crate::widgets::text;

/// Draws the topmost dialog.
pub(super) fn draw(app: &App, frame: &mut Frame, area: Rect, now: Instant, areas: &mut Areas) {
    let Some(layer) = app.layers().last() else {
        return;
    };
    let width = layer.dialog.max_width().min(area.width.saturating_sub(6));
    let drawing = |context: &Context<'_>| {
        let content = layer.dialog.content(context, usize::from(width));
        match (layer.dialog.screen(), layer.dialog.serial()) {
            (Some(view), _) => {
                metrics::draw_full_screen(app, frame, area, (view, content), now, areas);
            }
            (None, Some(console)) => serial::draw(app, frame, area, console, content, areas),
            (None, None) => draw_content(app, layer, content, frame, area, areas),
        }
    };
    app.with_context(drawing);
}

fn draw_content(
    app: &App,
    layer: &Layer,
    content: Content<'_>,
    frame: &mut Frame,
    area: Rect,
    areas: &mut Areas,
) {
    let theme = &app.appearance().theme;
    let width = layer.dialog.max_width().min(area.width.saturating_sub(6));
    let length = content.length();
    let lines = u16::try_from(length).unwrap_or(u16::MAX);
    let height = lines.saturating_add(4).min(area.height.saturating_sub(2));
    let outer = Rect {
        x: area.x + (area.width - width - 4) / 2,
        y: area.y + (area.height - height) / 2,
        width: width + 4,
        height,
    };
    // Without a frame the rest of the screen would be read as a part of the dialog.
    frame.render_widget(Clear, if app.appearance().plain { area } else { outer });
    let block = app
        .appearance()
        .border(theme.focus)
        .title(Line::styled(format!(" {} ", content.title), theme.focus));
    let inner = block.inner(outer);
    let body = Rect {
        x: inner.x + 1,
        width: inner.width.saturating_sub(2),
        height: inner.height.saturating_sub(2),
        ..inner
    };
    let rows = usize::from(body.height);
    let end = length.saturating_sub(rows);
    areas.layer = (rows, end);
    areas.layer_body = body;
    let mut scroll = layer.scroll.min(end);
    let focus = content.cursor.map(|(_, line)| line).or(content.focus);
    if let Some(line) = focus.filter(|_| layer.is_following) {
        scroll = scroll.min(line).max((line + 1).saturating_sub(rows));
    }
    areas.layer_top = scroll;
    let block = if end > 0 {
        let text = format!(" {}-{} of {length} ", scroll + 1, scroll + rows);
        block.title_bottom(Line::styled(text, theme.dim).right_aligned())
    } else {
        block
    };
    block.draw(frame, outer);
    text::draw_lines(frame, body, &content.lines(scroll, rows));
    let last = Rect {
        y: inner.bottom().saturating_sub(1),
        height: inner.height.min(1),
        ..inner
    };
    frame.render_widget(key_line(content.keys, theme), last);
    let visible = |(_, line): &(u16, usize)| (scroll..scroll + rows).contains(line);
    if let Some((column, line)) = content.cursor.filter(visible) {
        let x = (body.x + column).min(body.right().saturating_sub(1));
        let y = u16::try_from(line - scroll).unwrap_or(0);
        frame.set_cursor_position(Position::new(x, body.y + y));
    }
}

/// Returns a line of keys with their labels; impossible ones are dimmed.
pub(super) fn key_line(
    keys: impl IntoIterator<Item = (impl Display, &'static str, bool)>,
    theme: &Theme,
) -> Line<'static> {
    let mut spans = Vec::new();
    for (key, label, possible) in keys {
        let (key_style, style) = if possible {
            (theme.key, theme.text)
        } else {
            (theme.dim, theme.dim)
        };
        spans.push(Span::styled(format!(" {key}"), key_style));
        spans.push(Span::styled(format!(" {label} "), style));
    }
    Line::from(spans)
}
