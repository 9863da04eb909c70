//! The Locations page: a row for each snapshot, a column for the bucket and each host. Only visible rows are built.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::Locations;
use crate::actions::Pane;
use crate::areas::Areas;
use crate::cell::{Cell, Place, State};
use crate::format::{self, fit, short_size};
use crate::lookup;
use crate::pages::frame::{empty_line, page_border};
use crate::pages::{DrawContext, NO_SNAPSHOTS, Page};
use crate::theme::Theme;
use crate::widgets::gauge::gauge;
use crate::widgets::link::format_link;
use crate::widgets::text;
use snapdeck_engine::{JobState, JobView};
use snapdeck_model::{Error, Kind, SnapshotName};

const COLUMN_WIDTH: usize = 16;
/// Minimum and maximum width of the names.
const NAME_WIDTH_RANGE: (usize, usize) = (12, 40);

pub(super) fn draw(
    matrix: &Locations,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    area: Rect,
    areas: &mut Areas,
) {
    let theme = &context.appearance.theme;
    let focused = context.focus == Pane::Matrix;
    let width = usize::from(area.width.saturating_sub(2));
    let names = name_width(matrix, width);
    let (pinned, window) = matrix.window(((width - names) / COLUMN_WIDTH).max(1));
    let title_style = if focused { theme.focus } else { theme.heading };
    let mut block = page_border(
        context,
        Pane::Matrix,
        &matrix.summary(Pane::Matrix),
        area.width,
    );
    let from = usize::from(pinned);
    if window.start > from || window.end < matrix.places.len() {
        let text = format!(
            " ‹ hosts {}-{} of {} › ",
            window.start.max(1),
            window.end - 1,
            matrix.places.len() - 1
        );
        block = block.title(Line::styled(text, title_style).right_aligned());
    }
    let inner = block.draw(frame, area);
    if inner.is_empty() {
        return;
    }
    let first = window.start;
    let bucket = pinned.then_some(0);
    let columns: Vec<&Place> = bucket
        .into_iter()
        .chain(window)
        .filter_map(|at| matrix.places.get(at))
        .collect();
    for (at, place) in columns.iter().enumerate() {
        let x = u16::try_from(names + at * COLUMN_WIDTH).unwrap_or(u16::MAX);
        let column = Rect {
            x: inner.x.saturating_add(x),
            width: COLUMN_WIDTH as u16,
            ..inner
        };
        let column = ((*place).clone(), column.intersection(inner));
        areas.columns.0.push(column);
    }
    areas.columns.1 = first;
    let mut lines = vec![header_line(matrix, context, &columns, names)];
    let window = matrix.list.window(usize::from(inner.height - 1));
    let body = Rect {
        y: inner.y + 1,
        height: inner.height - 1,
        ..inner
    };
    areas.panes.push((Pane::Matrix, body, window.start));
    let row = |row: usize| {
        let name = matrix.names.get(matrix.list.item(row)?)?;
        Some(snapshot_line(
            matrix,
            context,
            name,
            row == matrix.list.row(),
            &columns,
            names,
        ))
    };
    lines.extend(window.filter_map(row));
    if lines.len() == 1 {
        let is_empty = matrix.names.is_empty();
        lines.push(empty_line(context, is_empty, NO_SNAPSHOTS));
    }
    text::draw_lines(frame, inner, &lines);
}

/// Returns the width of the names: a quarter, or more if the places leave it.
fn name_width(matrix: &Locations, width: usize) -> usize {
    let least = (width / 4).clamp(NAME_WIDTH_RANGE.0, NAME_WIDTH_RANGE.1);
    let left = width.saturating_sub(matrix.places.len() * COLUMN_WIDTH);
    // Columns before and after the name.
    let wanted = matrix.widest + 3;
    wanted.min(left).max(least).min(width)
}

fn header_line(
    matrix: &Locations,
    context: &DrawContext<'_>,
    columns: &[&Place],
    names: usize,
) -> Line<'static> {
    let theme = &context.appearance.theme;
    let (view, now) = (context.world.view(), context.now);
    let mut spans = vec![Span::styled(fit(" SNAPSHOT", names), theme.header)];
    for place in columns {
        let (link, last_seen) = match place {
            Place::Bucket => (&view.bucket.link, view.bucket.last_listing),
            Place::Host(name) => match lookup::host(view, name) {
                Some(host) => (&host.link, host.last_scan),
                None => continue,
            },
        };
        let (sign, _, style) = format_link(link, last_seen, None, now, theme);
        let name = format::clip(place.name(), COLUMN_WIDTH - 4);
        let room = COLUMN_WIDTH - 4 - name.width();
        let age = last_seen
            .filter(|_| lookup::is_unreachable(link))
            .map(|seen| format!(" {}", format::age(now.saturating_duration_since(seen))))
            .filter(|age| age.len() <= room)
            .unwrap_or_default();
        let name_style = match **place == matrix.place {
            true => theme.selected_inactive,
            false => theme.title,
        };
        spans.push(Span::raw(" "));
        let used = name.width() + 1;
        spans.push(Span::styled(name, name_style));
        let rest = fit(&format!(" {sign}{age}"), COLUMN_WIDTH - used);
        spans.push(Span::styled(rest, style));
    }
    Line::from(spans)
}

fn snapshot_line(
    matrix: &Locations,
    context: &DrawContext<'_>,
    name: &SnapshotName,
    is_current: bool,
    columns: &[&Place],
    names: usize,
) -> Line<'static> {
    let theme = &context.appearance.theme;
    let style = if is_current { theme.title } else { theme.text };
    let label = format::fit_middle(name.as_str(), names.saturating_sub(2));
    let label = fit(&format!(" {label}"), names.saturating_sub(1));
    let mut spans = vec![Span::styled(format!("{label} "), style)];
    for place in columns {
        let cell = matrix.cell(context.world, name, place);
        let (text, style) = cell_text(theme, &cell, **place == Place::Bucket);
        let is_selected = is_current && **place == matrix.place;
        let mark = match (
            matrix.is_marked(name, place),
            context.appearance.plain && is_selected,
        ) {
            (_, true) => ">",
            (true, false) => "▸",
            (false, false) => " ",
        };
        let style = match (is_selected, context.focus) {
            (true, Pane::Matrix) => style.patch(theme.selected),
            (true, _) => style.patch(theme.selected_inactive),
            _ => style,
        };
        spans.push(Span::styled(mark, style));
        spans.push(Span::styled(fit(&text, COLUMN_WIDTH - 2), style));
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

fn cell_text(theme: &Theme, cell: &Cell<'_>, in_bucket: bool) -> (String, Style) {
    if let Some(job) = cell.active_job() {
        return job_text(theme, job);
    }
    if let Some(error) = cell.error() {
        return (format!("✗ {}", error_word(error)), theme.bad);
    }
    if cell.pulled_since_scan {
        return ("✓ pulled".to_owned(), theme.good);
    }
    let (sign, text, style) = match &cell.state {
        State::Unknown => ("?", String::new(), theme.dim),
        State::Absent if cell.stale => ("?", "absent".to_owned(), theme.dim),
        State::Absent => ("·", String::new(), theme.dim),
        State::Damaged(_) => ("!", "damaged".to_owned(), theme.warn),
        State::Present { bytes, .. } if in_bucket => ("●", short_size(*bytes), theme.number),
        State::Present {
            dependents,
            differs,
            ..
        } => {
            let (sign, word, style) = match differs {
                true => ("≠", "differs", theme.differs),
                false => ("●", "present", theme.same),
            };
            match dependents {
                0 => (sign, word.to_owned(), style),
                count => (sign, format!("{word} ⌂{count}"), style),
            }
        }
    };
    // The state of an unreachable host is only the last known one.
    match cell.stale {
        true => (format!("? {text}"), style.patch(theme.dim)),
        false => (format!("{sign} {text}"), style),
    }
}

fn job_text(theme: &Theme, job: &JobView) -> (String, Style) {
    let progress = job.progress();
    match (&job.state, progress.percent()) {
        (JobState::Queued, _) => ("◌ queued".to_owned(), theme.dim),
        (JobState::Cancelling, _) => ("◐ cancelling".to_owned(), theme.warn),
        (_, Some(percent)) if progress.wait.is_some() => {
            (format!("◌ waits {percent:>2} %"), theme.warn)
        }
        (_, Some(percent)) => {
            let share = progress.done_bytes as f64 / progress.total_bytes.max(1) as f64;
            (format!("{} {percent:>2} %", gauge(share, 7)), theme.good)
        }
        _ => (progress.phase.as_str().to_owned(), theme.good),
    }
}

/// Returns the error in a word or two.
fn error_word(error: &Error) -> &'static str {
    match error.kind() {
        Kind::Unreachable => "unreachable",
        Kind::NoSpace => "no space",
        Kind::Damaged => "damaged",
        Kind::NotFound => "not found",
        Kind::Conflict => "conflict",
        Kind::InvalidInput | Kind::Cancelled | Kind::Failed => "failed",
    }
}
