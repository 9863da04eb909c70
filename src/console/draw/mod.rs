//! Drawing: renders the state into a frame and returns where things are on it.

mod annotations;
mod details;
mod dialogs;
mod footer;
mod header;
mod host_strip;
mod layout;
mod log_lines;
mod metrics;
mod serial;

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders};
use tui_logger::TuiLoggerWidget;

use self::layout::{LayoutInput, ScreenLayout};
use self::log_lines::LogLines;
use super::actions::Pane;
use super::app::App;
use super::areas::Areas;
use super::format::utc_offset;
use super::pages::{DrawContext, jobs};
use super::widgets::chart::{draw_charts, fit_charts};
use super::widgets::{ascii, text};

/// On a smaller screen only a message is shown.
const MIN_SCREEN: (u16, u16) = (40, 10);

/// Draws the state at `now`.
pub(crate) fn draw(app: &App, frame: &mut Frame, now: Instant) -> Areas {
    let mut areas = Areas::default();
    let area = frame.area();
    areas.screen = (area.width, area.height);
    if area.is_empty() {
        return areas;
    }
    if area.width < MIN_SCREEN.0 || area.height < MIN_SCREEN.1 {
        let text = format!("snapdeck needs {}x{} cells", MIN_SCREEN.0, MIN_SCREEN.1);
        frame.render_widget(Line::raw(text), Rect { height: 1, ..area });
        return areas;
    }
    let context = app.draw_context(now);
    let plan = plan(app, &context, area);
    header::draw(app, frame, plan.header, now, &mut areas);
    if plan.page.height > 0 {
        app.page().draw(&context, frame, plan.page, &mut areas);
    }
    let section = |pane: Pane, title: String| Section {
        pane,
        title,
        is_boxed: plan.is_boxed,
    };
    if plan.details.height > 0 {
        draw_details(app, &context, frame, &plan, &mut areas);
    }
    if plan.jobs.height > 0 {
        let title = jobs::pane_title(app.world());
        let inner = section(Pane::Jobs, title).draw(&context, frame, plan.jobs);
        jobs::draw_pane(&app.pages().jobs, &context, frame, inner, &mut areas);
    }
    if plan.log.height > 0 {
        // The times of its lines have no zone.
        let zone = utc_offset(jiff::Timestamp::now());
        let title = format!(" Log · {} · {zone} ", app.log().label());
        let inner = section(Pane::Log, title).draw(&context, frame, plan.log);
        areas.panes.push((Pane::Log, inner, 0));
        let widget = TuiLoggerWidget::default()
            .state(&app.log().state)
            .formatter(Box::new(LogLines::new(&context.appearance.theme)));
        frame.render_widget(widget, inner);
    }
    match app.pending_keys().is_empty() {
        true => footer::draw(app, frame, plan.footer, &mut areas),
        false => footer::draw_chord(app, frame, plan.footer),
    }
    footer::draw_notice(app, frame, plan.footer);
    dialogs::draw(app, frame, area, now, &mut areas);
    text::remove_unprintable(frame.buffer_mut());
    if context.appearance.ascii || context.appearance.plain {
        ascii::translate(frame.buffer_mut());
    }
    areas
}

fn plan(app: &App, context: &DrawContext<'_>, area: Rect) -> ScreenLayout {
    let input = LayoutInput {
        focus: app.focus(),
        list: app.list(),
        is_zoomed: app.is_zoomed(),
        plain: context.appearance.plain,
        page: app.page().desired_height(context, area.width),
        jobs: app.view().jobs.len(),
        log: app.log().filter,
    };
    ScreenLayout::new(input, area)
}

/// Draws the details, and the guest's screen beside them.
fn draw_details(
    app: &App,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    plan: &ScreenLayout,
    areas: &mut Areas,
) {
    let area = plan.details;
    let edge = if plan.is_boxed { 2 } else { 1 };
    let room = Rect {
        height: area.height.saturating_sub(edge),
        ..area
    };
    let picture = metrics::picture_size(app, room);
    // A frame of its own, or a column between text and picture.
    let side = picture.map_or(0, |size| size.width + if plan.is_boxed { 2 } else { 1 });
    let [left, right] = match plan.is_boxed {
        true => Layout::horizontal([Constraint::Min(0), Constraint::Length(side)]).areas(area),
        false => [area, area],
    };
    let section = Section {
        pane: Pane::Details,
        title: " Details ".to_owned(),
        is_boxed: plan.is_boxed,
    };
    let inner = section.draw(context, frame, left);
    let text_area = match plan.is_boxed {
        true => inner,
        false => Rect {
            width: inner.width.saturating_sub(side),
            ..inner
        },
    };
    let width = usize::from(text_area.width);
    let wrapped = |has_charts: bool| -> Vec<Line> {
        let lines = details::lines(app, context, (width, inner.height), has_charts).into_iter();
        lines
            .flat_map(|line| text::wrap_line(line, width))
            .collect()
    };
    let below = |lines: &[Line]| {
        // An empty line between both.
        let used = u16::try_from(lines.len() + 1).unwrap_or(u16::MAX);
        Rect {
            y: text_area.y.saturating_add(used),
            height: text_area.height.saturating_sub(used),
            ..text_area
        }
    };
    let charts = details::charts(app, context);
    let mut lines = wrapped(!charts.is_empty());
    let fit = fit_charts(charts.len(), below(&lines));
    if fit {
        draw_charts(&charts, frame, below(&lines), &context.appearance.theme);
    } else if !charts.is_empty() {
        lines = wrapped(false);
    }
    let height = usize::from(inner.height);
    areas.details_end = u16::try_from(lines.len().saturating_sub(height)).unwrap_or(u16::MAX);
    areas.panes.push((Pane::Details, inner, 0));
    let first = usize::from(app.details_scroll().min(areas.details_end));
    let shown: Vec<Line> = lines.into_iter().skip(first).take(height).collect();
    text::draw_lines(frame, text_area, &shown);
    let Some(size) = picture else { return };
    let room = match plan.is_boxed {
        true => {
            let theme = &context.appearance.theme;
            let title = Line::styled(metrics::picture_title(context), theme.heading);
            context
                .appearance
                .border(theme.border)
                .title(title)
                .draw(frame, right)
        }
        false => Rect {
            x: inner.right().saturating_sub(size.width),
            width: size.width,
            ..inner
        },
    };
    areas.picture = Some(room);
    metrics::draw_picture(app, frame, room);
}

/// A part of the screen below the lists.
struct Section {
    pane: Pane,
    title: String,
    /// A border on each side; else only a line above.
    is_boxed: bool,
}

impl Section {
    /// Draws border and title; returns the area inside.
    fn draw(self, context: &DrawContext<'_>, frame: &mut Frame, area: Rect) -> Rect {
        let theme = &context.appearance.theme;
        let (style, title_style) = match context.focus == self.pane {
            true => (theme.focus, theme.focus),
            false => (theme.border, theme.heading),
        };
        let title = Line::styled(self.title, title_style);
        if self.is_boxed {
            return context
                .appearance
                .border(style)
                .title(title)
                .draw(frame, area);
        }
        let borders = if context.appearance.plain {
            Borders::NONE
        } else {
            Borders::TOP
        };
        let block = Block::new()
            .borders(borders)
            .border_style(style)
            .title(title);
        let inner = block.inner(area);
        // Only the edge: a block visits each cell inside.
        let edge = Rect {
            height: area.height.min(1),
            ..area
        };
        frame.render_widget(block, edge);
        inner
    }
}
