//! Drawing: renders the state into a frame and returns where things are on it.

mod ascii;
mod border;
mod details;
mod dialogs;
mod footer;
mod header;
mod hosts;
mod jobs;
mod jobs_page;
mod lineage;
mod log_lines;
mod matrix;
mod metrics;
mod panes;
mod text;
mod tree;

#[cfg(test)]
pub(crate) use panes::visible_rows as pane_rows;

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders};
use tui_logger::TuiLoggerWidget;

use self::border::Border;
use self::log_lines::LogLines;
use super::actions::{LISTS, Pane};
use super::app::{App, Areas};
use super::log_view::LogFilter;

/// On a smaller screen only a message is shown.
const MIN_SCREEN: (u16, u16) = (40, 10);
/// Minimum width for the three lists side by side.
const SIDE_BY_SIDE_WIDTH: u16 = 100;

/// Text of a page without snapshots.
const NO_SNAPSHOTS: &str = " no snapshots on any reachable host or in the bucket";

/// Draws the state at `now`.
pub(crate) fn draw(app: &App, frame: &mut Frame, now: Instant) -> Areas {
    let mut areas = Areas::default();
    let area = frame.area();
    if area.is_empty() {
        return areas;
    }
    if area.width < MIN_SCREEN.0 || area.height < MIN_SCREEN.1 {
        let text = format!("snapdeck needs {}x{} cells", MIN_SCREEN.0, MIN_SCREEN.1);
        frame.render_widget(Line::raw(text), Rect { height: 1, ..area });
        return areas;
    }
    let plan = ScreenLayout::new(app, area);
    header::draw(app, frame, plan.header, now, &mut areas);
    match app.list {
        Pane::Matrix => matrix::draw(app, frame, plan.lists, now, &mut areas),
        Pane::Tree => tree::draw(app, frame, plan.lists, &mut areas),
        Pane::JobsPage => jobs_page::draw(app, frame, plan.lists, now, &mut areas),
        _ => panes::draw(
            app,
            frame,
            plan.lists,
            area.width >= SIDE_BY_SIDE_WIDTH,
            now,
            &mut areas,
        ),
    }
    details::draw(app, frame, plan.details, now, &mut areas);
    if plan.jobs.height > 0 {
        jobs::draw(app, frame, plan.jobs, now, &mut areas);
    }
    if plan.log.height > 0 {
        draw_log(app, frame, plan.log, &mut areas);
    }
    if app.pending_keys.is_empty() {
        footer::draw(app, frame, plan.footer);
    } else {
        footer::draw_chord(app, frame, plan.footer);
    }
    dialogs::draw(app, frame, area, &mut areas);
    text::remove_unprintable(frame.buffer_mut());
    if app.ascii || app.plain {
        ascii::translate(frame.buffer_mut());
    }
    areas
}

struct ScreenLayout {
    header: Rect,
    lists: Rect,
    details: Rect,
    jobs: Rect,
    log: Rect,
    footer: Rect,
}

impl ScreenLayout {
    fn new(app: &App, area: Rect) -> Self {
        let height = area.height;
        let zoomed = |pane: Pane, usual: u16| {
            if app.focus == pane {
                usual.max(height / 2)
            } else {
                usual
            }
        };
        let usual = match height {
            // The details show the selected job's log.
            20.. if app.list == Pane::JobsPage => height / 3,
            20.. => 6,
            14.. => 3,
            _ => 2,
        };
        let details = if height < 14 {
            usual
        } else {
            zoomed(Pane::Details, usual)
        };
        let job_count = u16::try_from(app.view.jobs.len()).unwrap_or(u16::MAX);
        let jobs = match job_count {
            0 => 0,
            _ if app.list == Pane::JobsPage => 0,
            count => zoomed(Pane::Jobs, (height / 6).max(2)).min(count.saturating_add(1)),
        };
        let log = match app.log.filter {
            LogFilter::Hidden => 0,
            _ if height < 16 => 0,
            LogFilter::Auto if height < 30 => 0,
            LogFilter::Auto => 7,
            _ => zoomed(Pane::Log, 7.min(height / 3)),
        };
        let [header, lists, details, jobs, log, footer] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(4),
            Constraint::Length(details),
            Constraint::Length(jobs),
            Constraint::Length(log),
            Constraint::Length(1),
        ])
        .areas(area);
        Self {
            header,
            lists,
            details,
            jobs,
            log,
            footer,
        }
    }
}

/// Returns the border of a page that replaces the lists, with title and filter.
fn page_border(app: &App, pane: Pane, width: u16) -> Border {
    let theme = &app.theme;
    let (border, title) = match app.focus == pane {
        true => (theme.focus, theme.focus),
        false => (theme.border, theme.text),
    };
    let title = Line::styled(panes::count_label(app, pane), title);
    let border = app.border(border).title(title);
    match panes::filter_line(app, pane, usize::from(width)) {
        Some(filter) => border.title_bottom(filter),
        None => border,
    }
}

/// Returns the line of a page without rows: `empty_text`, or that the filter hides all rows.
fn empty_line(app: &App, is_empty: bool, empty_text: &'static str) -> Line<'static> {
    let text = match is_empty {
        true => empty_text,
        false => " nothing matches the filter (esc clears it)",
    };
    Line::styled(text, app.theme.dim)
}

/// Draws the border and title of a section below the lists; returns the area inside.
fn draw_section(app: &App, frame: &mut Frame, area: Rect, pane: Pane, title: String) -> Rect {
    let (style, title_style) = match app.focus == pane {
        true => (app.theme.focus, app.theme.focus),
        false => (app.theme.border, app.theme.text),
    };
    let borders = if app.plain {
        Borders::NONE
    } else {
        Borders::TOP
    };
    let block = Block::new()
        .borders(borders)
        .border_style(style)
        .title(Line::styled(title, title_style));
    let inner = block.inner(area);
    // Only the edge: a block visits each cell inside.
    let edge = Rect {
        height: area.height.min(1),
        ..area
    };
    frame.render_widget(block, edge);
    inner
}

fn draw_log(app: &App, frame: &mut Frame, area: Rect, areas: &mut Areas) {
    let title = format!(" Log · {} ", app.log.label());
    let inner = draw_section(app, frame, area, Pane::Log, title);
    areas.panes.push((Pane::Log, inner, 0));
    let widget = TuiLoggerWidget::default()
        .state(&app.log.state)
        .formatter(Box::new(LogLines::new(&app.theme)));
    frame.render_widget(widget, inner);
}

fn title(app: &App, pane: Pane) -> String {
    let host = app
        .host
        .as_ref()
        .map(|host| host.as_str())
        .unwrap_or("no host");
    match pane {
        Pane::Sandboxes | Pane::Snapshots if app.all_hosts.is_shown => {
            format!("{} · all", pane.name())
        }
        Pane::Sandboxes | Pane::Snapshots => format!("{} · {host}", pane.name()),
        _ => pane.name().to_owned(),
    }
}

fn is_list(pane: Pane) -> bool {
    LISTS.contains(&pane)
}
