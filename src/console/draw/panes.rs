//! The three lists. Only visible rows are built.

use std::sync::Arc;
use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Margin, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthChar;

use super::border::Border;
use super::{is_list, text, title};
use crate::actions::{LISTS, Pane};
use crate::app::{App, Areas};
use crate::columns::Row;
use crate::format::{self, fit, short_size};
use crate::list::{List, Sort};
use crate::lookup;
use snapdeck_engine::{HostView, Link};
use snapdeck_model::{Object, Sandbox, SandboxState, Snapshot};

/// Columns of a filter line without its text: border, slash, cursor.
const FILTER_DECORATION_WIDTH: usize = 6;

/// Draws the three lists side by side, or one with tabs.
pub(super) fn draw(
    app: &App,
    frame: &mut Frame,
    area: Rect,
    wide: bool,
    now: Instant,
    areas: &mut Areas,
) {
    if wide && !app.plain {
        let columns: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
        for (pane, column) in LISTS.iter().zip(columns) {
            areas.tabs.push((*pane, column));
            let inner = pane_border(app, *pane, column.width, now).draw(frame, column);
            draw_list(app, frame, *pane, inner, areas);
        }
        return;
    }
    let [tabs, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let mut x = tabs.x;
    for pane in LISTS {
        let count = app.numbers(*pane).total;
        let text = format!(" {} ({count}) ", pane.name());
        let width = (text.chars().count() as u16).min(tabs.right() - x);
        let style = match (*pane == app.list, app.focus == app.list) {
            (true, true) => app.theme.selected,
            (true, false) => app.theme.selected_inactive,
            (false, _) => app.theme.dim,
        };
        let tab = Rect { x, width, ..tabs };
        frame.render_widget(Line::styled(text, style), tab);
        areas.tabs.push((*pane, tab));
        x += width;
    }
    let inner = pane_border(app, app.list, below.width, now).draw(frame, below);
    draw_list(app, frame, app.list, inner, areas);
}

fn pane_border(app: &App, pane: Pane, width: u16, now: Instant) -> Border {
    let theme = &app.theme;
    let focused = app.focus == pane;
    let (style, title_style) = match focused {
        true => (theme.focus, theme.focus),
        false => (theme.border, theme.text),
    };
    let mut text = count_label(app, pane);
    if let Some(last_seen) = stale_since(app, pane) {
        text.push_str(&format!(
            "· seen {} ago ",
            format::age(now.saturating_duration_since(last_seen))
        ));
    }
    let mut border = app.border(style).title(Line::styled(text, title_style));
    if let Some(filter) = filter_line(app, pane, usize::from(width)) {
        border = border.title_bottom(filter);
    } else if let (Some((Link::Down(error), Some(_))), true) = (link_state(app, pane), width > 4) {
        let text = format::clip(&format!(" ✗ {error} "), usize::from(width) - 2);
        border = border.title_bottom(Line::styled(text, theme.bad));
    }
    border
}

/// Returns the title of a list with its counts, sort order and marks.
pub(super) fn count_label(app: &App, pane: Pane) -> String {
    let numbers = app.numbers(pane);
    let count = if numbers.filter.is_empty() {
        numbers.total.to_string()
    } else {
        format!("{} of {}", numbers.visible, numbers.total)
    };
    let mut text = format!(" {} ({count}", title(app, pane));
    if pane == Pane::Bucket && app.view.bucket.is_listing {
        text.push('…');
    }
    text.push_str(") ");
    if numbers.sort != Sort::default() {
        let sign = if numbers.sort.descending {
            "↓"
        } else {
            "↑"
        };
        text.push_str(&format!("{sign}{} ", numbers.sort.column.name()));
    }
    if numbers.marked > 0 {
        text.push_str(&format!("{} marked ", numbers.marked));
    }
    text
}

/// Returns the filter of a list; while it is typed, the part around the cursor.
pub(super) fn filter_line(app: &App, pane: Pane, width: usize) -> Option<Line<'static>> {
    let theme = &app.theme;
    let typing = app.filter.as_ref().filter(|_| pane == app.list);
    if let Some(field) = typing {
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
    let filter = app.numbers(pane).filter;
    let style = match app.filter_error(pane) {
        Some(_) => theme.bad,
        None => theme.focus,
    };
    (!filter.is_empty()).then(|| Line::styled(format!(" /{filter} "), style))
}

/// Returns when stale rows were seen; `None` if they are current.
fn stale_since(app: &App, pane: Pane) -> Option<Instant> {
    let (link, last_seen) = link_state(app, pane)?;
    last_seen.filter(|_| lookup::is_stale(link, last_seen))
}

fn link_state(app: &App, pane: Pane) -> Option<(&Link, Option<Instant>)> {
    match pane {
        Pane::Bucket => Some((&app.view.bucket.link, app.view.bucket.last_listing)),
        _ if app.all_hosts.is_shown => None,
        _ => app.host_view().map(|host| (&host.link, host.last_scan)),
    }
}

fn draw_list(app: &App, frame: &mut Frame, pane: Pane, area: Rect, areas: &mut Areas) {
    let (first, lines) = visible_rows(app, pane, area.width, area.height);
    if lines.is_empty() && area.height > 0 {
        let inner = area.inner(Margin::new(1, 0));
        let (text, style) = empty_text(app, pane);
        let lines = format::wrap(&text, usize::from(inner.width)).into_iter();
        let lines: Vec<Line> = lines.map(|line| Line::styled(line, style)).collect();
        text::draw_lines(frame, inner, &lines);
    }
    text::draw_lines(frame, area, &lines);
    areas.panes.push((pane, area, first));
}

/// Returns the text of a list without rows.
fn empty_text(app: &App, pane: Pane) -> (String, Style) {
    let theme = &app.theme;
    let kind = pane.name().to_lowercase();
    let host = app.host.as_ref().map_or("", |host| host.as_str());
    if app.numbers(pane).total > 0 {
        return (
            "nothing matches the filter (esc clears it)".to_owned(),
            theme.dim,
        );
    }
    match link_state(app, pane).map(|(link, _)| link) {
        None if app.all_hosts.is_shown => (format!("no {kind} on any reachable host"), theme.dim),
        None => ("no host configured".to_owned(), theme.warn),
        Some(Link::Down(error)) => (error.to_string(), theme.bad),
        Some(Link::Unconfigured) => {
            let text = "No bucket configured. Add [bucket] name = \"...\" to config.toml. Everything else works without one.";
            (text.to_owned(), theme.warn)
        }
        Some(_) if pane == Pane::Bucket && app.view.bucket.is_listing => {
            ("listing the bucket…".to_owned(), theme.dim)
        }
        Some(Link::Connecting) if pane == Pane::Bucket => {
            ("listing the bucket…".to_owned(), theme.dim)
        }
        Some(Link::Connecting) => (format!("connecting to {host}…"), theme.dim),
        Some(Link::Up) if pane == Pane::Bucket => (
            "the bucket has no snapshots yet: push or create one".to_owned(),
            theme.dim,
        ),
        Some(Link::Up) => (format!("{host} has no {kind}"), theme.dim),
    }
}

/// Returns the index of the first visible row, and the visible rows.
pub(crate) fn visible_rows(
    app: &App,
    pane: Pane,
    width: u16,
    height: u16,
) -> (usize, Vec<Line<'static>>) {
    let width = usize::from(width);
    let stale =
        link_state(app, pane).is_some_and(|(link, last_seen)| lookup::is_stale(link, last_seen));
    let build = RowBuilder {
        app,
        pane,
        height: usize::from(height),
        is_stale: stale,
    };
    let all = &app.all_hosts;
    match (pane, app.host_view(), app.host_lists()) {
        (Pane::Sandboxes, ..) if all.is_shown => {
            build.build_rows(&all.sandbox_rows, &all.sandboxes, |row| {
                row.find(&app.view).map(|(host, sandbox)| {
                    with_host(app, host, width, |width| sandbox_row(sandbox, width))
                })
            })
        }
        (Pane::Snapshots, ..) if all.is_shown => {
            build.build_rows(&all.snapshot_rows, &all.snapshots, |row| {
                row.find(&app.view).map(|(host, snapshot)| {
                    with_host(app, host, width, |width| snapshot_row(app, snapshot, width))
                })
            })
        }
        (Pane::Sandboxes, Some(host), Some(lists)) => {
            build.build_rows(&host.sandboxes, &lists.sandboxes, |sandbox| {
                Some(sandbox_row(sandbox, width))
            })
        }
        (Pane::Snapshots, Some(host), Some(lists)) => {
            build.build_rows(&host.snapshots, &lists.snapshots, |snapshot| {
                Some(snapshot_row(app, snapshot, width))
            })
        }
        (Pane::Bucket, ..) => build.build_rows(&app.view.bucket.objects, &app.objects, |object| {
            Some(object_row(app, object, width))
        }),
        _ => (0, Vec::new()),
    }
}

struct RowBuilder<'a> {
    app: &'a App,
    pane: Pane,
    height: usize,
    is_stale: bool,
}

impl RowBuilder<'_> {
    fn build_rows<R: Row>(
        &self,
        items: &[R],
        list: &List<R::Key>,
        text: impl Fn(&R) -> Option<(String, Style)>,
    ) -> (usize, Vec<Line<'static>>) {
        let theme = &self.app.theme;
        let window = list.window(self.height);
        let row = |row: usize| {
            let item = items.get(list.item(row)?)?;
            let (text, style) = text(item)?;
            let mark = match (list.is_marked(item.key()), self.app.plain) {
                (true, false) => "▸",
                (false, false) => " ",
                // Without styles the selection and the marks are words.
                (true, true) if row == list.row() => "> marked ",
                (false, true) if row == list.row() => "> ",
                (true, true) => "  marked ",
                (false, true) => "  ",
            };
            let style = match (row == list.row(), self.app.focus == self.pane) {
                (true, true) => style.patch(theme.selected),
                (true, false) if self.app.list == self.pane && is_list(self.pane) => {
                    style.patch(theme.selected_inactive)
                }
                _ => style,
            };
            let style = if self.is_stale {
                style.patch(theme.dim)
            } else {
                style
            };
            Some(Line::from(vec![
                Span::styled(mark, style),
                Span::styled(text, style),
            ]))
        };
        (window.start, window.clone().filter_map(row).collect())
    }
}

pub(super) fn state_sign(state: SandboxState) -> &'static str {
    match state {
        SandboxState::Running => "●",
        SandboxState::Paused | SandboxState::Suspended => "◐",
        SandboxState::Saved => "◌",
        SandboxState::ShutOff => "○",
        SandboxState::Crashed => "✗",
    }
}

/// Returns a row of the list of all hosts: the host's name, then `row` in the remaining columns.
fn with_host(
    app: &App,
    host: &HostView,
    width: usize,
    row: impl FnOnce(usize) -> (String, Style),
) -> (String, Style) {
    let names = app.view.hosts.iter().map(|host| host.name.as_str().len());
    let column = names.max().unwrap_or(0).min(width / 4);
    let (text, style) = row(width.saturating_sub(column + 1));
    let style = match lookup::is_stale(&host.link, host.last_scan) {
        true => style.patch(app.theme.dim),
        false => style,
    };
    (format!("{} {text}", fit(host.name.as_str(), column)), style)
}

fn sandbox_row(sandbox: &Sandbox, width: usize) -> (String, Style) {
    let memory = short_size(sandbox.memory_bytes);
    let state = sandbox.state.label();
    let right = match width {
        ..34 => format!("{state:<8} "),
        _ => format!("{state:<8} {:>2}c {memory:>5} ", sandbox.cpus),
    };
    let name = fit(sandbox.id.as_str(), width.saturating_sub(right.len() + 4));
    (
        format!("{} {name} {right}", state_sign(sandbox.state)),
        Style::new(),
    )
}

fn snapshot_row(app: &App, snapshot: &Snapshot, width: usize) -> (String, Style) {
    let sign = match app.index.size(&snapshot.name) {
        _ if snapshot.problem.is_some() => "!",
        Some(size) if size == snapshot.size_bytes => "=",
        Some(_) => "≠",
        None if lookup::is_bucket_known(&app.view) => "↑",
        None => "?",
    };
    let size = short_size(snapshot.size_bytes);
    let dependents = snapshot.dependents.len();
    let name = fit(snapshot.name.as_str(), width.saturating_sub(16));
    let style = if snapshot.problem.is_some() {
        app.theme.warn
    } else {
        Style::new()
    };
    (format!("{name} {size:>6} ⌂{dependents:<3} {sign} "), style)
}

fn object_row(app: &App, object: &Object, width: usize) -> (String, Style) {
    let size = short_size(object.size_bytes);
    let name = fit(object.name.as_str(), width.saturating_sub(20));
    if app.all_hosts.is_shown {
        let hosts = &app.view.hosts;
        let has_snapshot = |host: &&Arc<HostView>| {
            let lists = app.hosts.get(&host.name);
            lists.is_some_and(|lists| lists.index.position(&object.name).is_some())
        };
        let (count, all) = (hosts.iter().filter(has_snapshot).count(), hosts.len());
        let is_certain = hosts.iter().all(|host| host.last_scan.is_some());
        let (text, style) = match (count, is_certain) {
            (_, true) => (format!("on {count} of {all}"), Style::new()),
            (0, false) => ("? unknown".to_owned(), app.theme.dim),
            (_, false) => (format!("on {count}? of {all}"), Style::new()),
        };
        return (format!("{name} {size:>6} {} ", fit(&text, 10)), style);
    }
    let host = app.host_view().filter(|host| host.last_scan.is_some());
    let local_bytes = app
        .host_lists()
        .and_then(|lists| lists.index.size(&object.name));
    let (sign, style) = match (host, local_bytes) {
        (None, _) => ("? unknown", app.theme.dim),
        (_, Some(size)) if size == object.size_bytes => ("= present", Style::new()),
        (_, Some(_)) => ("≠ differs", Style::new()),
        (_, None) => ("↓ absent", Style::new()),
    };
    (format!("{name} {size:>6} {} ", fit(sign, 9)), style)
}
