//! Titles, filters and borders that pages have in common.

use ratatui::text::Line;
use unicode_width::UnicodeWidthChar;

use super::DrawContext;
use crate::actions::Pane;
use crate::format;
use crate::list::{Sort, Summary};
use crate::widgets::border::Border;

/// Columns of a filter line without its text: border, slash, cursor.
const FILTER_DECORATION_WIDTH: usize = 6;

/// Returns the border of a page that replaces the lists, with title and filter.
pub(super) fn page_border(
    context: &DrawContext<'_>,
    pane: Pane,
    summary: &Summary<'_>,
    width: u16,
) -> Border {
    let theme = &context.appearance.theme;
    let (border, title) = match context.focus == pane {
        true => (theme.focus, theme.focus),
        false => (theme.border, theme.heading),
    };
    let title = Line::styled(page_title(pane.title(), summary, &[], false), title);
    let border = context.appearance.border(border).title(title);
    match filter_line(context, pane, summary, usize::from(width)) {
        Some(filter) => border.title_bottom(filter),
        None => border,
    }
}

/// Returns a title with counts, sort order and marks: `Bucket 5,003 · 12 TiB`.
pub(super) fn page_title(
    name: &str,
    summary: &Summary<'_>,
    more: &[String],
    is_incomplete: bool,
) -> String {
    let count = match summary.filter.is_empty() {
        true => format::number(summary.total),
        false => format!(
            "{} of {}",
            format::number(summary.visible),
            format::number(summary.total)
        ),
    };
    let mut text = format!(" {name} {count}");
    if is_incomplete {
        text.push('…');
    }
    text.push(' ');
    if summary.marked > 0 {
        text.push_str(&format!("· {} marked ", format::number(summary.marked)));
    }
    for more in more {
        text.push_str(&format!("· {more} "));
    }
    if summary.sort != Sort::default() {
        let sign = if summary.sort.descending {
            "▼"
        } else {
            "▲"
        };
        text.push_str(&format!("· {sign} {} ", summary.sort.column.name()));
    }
    text
}

/// Returns the filter of a list; while it is typed, the part around the cursor.
pub(super) fn filter_line(
    context: &DrawContext<'_>,
    pane: Pane,
    summary: &Summary<'_>,
    width: usize,
) -> Option<Line<'static>> {
    let theme = &context.appearance.theme;
    if let Some(field) = context.filter_input.filter(|_| pane == context.list) {
        let room = width.saturating_sub(FILTER_DECORATION_WIDTH).max(1);
        let (text, column) = field.visible(room);
        let mut used = 0;
        let behind = text.char_indices().find(|(_, c)| {
            let start = used;
            used += c.width().unwrap_or(0);
            start >= column
        });
        let (before, after) = text.split_at(behind.map_or(text.len(), |(at, _)| at));
        return Some(Line::styled(format!(" /{before}▏{after}"), theme.selected));
    }
    let style = match summary.filter_error {
        Some(_) => theme.bad,
        None => theme.focus,
    };
    let filter = summary.filter;
    (!filter.is_empty()).then(|| Line::styled(format!(" /{filter} "), style))
}

/// Returns the line of a page without rows: `empty_text`, or that the filter hides all rows.
pub(super) fn empty_line(
    context: &DrawContext<'_>,
    is_empty: bool,
    empty_text: &'static str,
) -> Line<'static> {
    let text = match is_empty {
        true => empty_text,
        false => " nothing matches the filter (esc clears it)",
    };
    Line::styled(text, context.appearance.theme.dim)
}
