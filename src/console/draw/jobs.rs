//! Jobs: phase, gauge, bytes, rate and remaining time; finished ones with their results.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{draw_section, text};
use crate::actions::Pane;
use crate::app::{App, Areas};
use crate::dialog::outcome_text;
use crate::format::{self, fit};
use snapdeck_engine::{JobState, JobView};
use snapdeck_model::Kind;

pub(super) fn draw(app: &App, frame: &mut Frame, area: Rect, now: Instant, areas: &mut Areas) {
    let jobs = &app.view.jobs;
    let finished = jobs.iter().filter(|job| job.state.is_finished()).count();
    let title = match jobs.len() - finished {
        active if finished == 0 => format!(" Jobs ({active} active) "),
        active => format!(" Jobs ({active} active, {finished} finished) "),
    };
    let inner = draw_section(app, frame, area, Pane::Jobs, title);
    let mut window = app.jobs.window(usize::from(inner.height));
    if app.focus != Pane::Jobs {
        // Without the focus the list shows the jobs from the first unfinished one on.
        let height = usize::from(inner.height);
        let active = jobs.iter().position(|job| !job.state.is_finished());
        let end = jobs.len();
        let start = active.unwrap_or(end).min(end.saturating_sub(height));
        window = start..(start + height).min(end);
    }
    let width = usize::from(inner.width);
    let shown = jobs.get(window.clone()).unwrap_or_default();
    let widest = shown.iter().map(|job| name(app, job).width()).max();
    let room = widest.unwrap_or(0).min((width * 2 / 5).max(12));
    let line = |row: usize| {
        let job = jobs.get(row)?;
        let selected = row == app.jobs.row() && app.focus == Pane::Jobs;
        let mut line = line(app, job, room, width, now);
        if let Some(first) = line.spans.first_mut().filter(|_| selected && app.plain) {
            *first = Span::raw(">");
        }
        Some(if selected {
            line.style(app.theme.selected)
        } else {
            line
        })
    };
    areas.panes.push((Pane::Jobs, inner, window.start));
    let lines: Vec<Line> = window.filter_map(line).collect();
    text::draw_lines(frame, inner, &lines);
}

/// Returns the line of a job in `width` columns, `room` of them for its name.
pub(super) fn line(
    app: &App,
    job: &JobView,
    room: usize,
    width: usize,
    now: Instant,
) -> Line<'static> {
    let theme = &app.theme;
    let (sign, style) = match &job.state {
        JobState::Queued => ("◌", theme.dim),
        JobState::Running => ("●", theme.good),
        JobState::Cancelling => ("◐", theme.warn),
        JobState::Finished(_) => ("✓", theme.good),
        JobState::Failed(error) if error.kind() == Kind::Cancelled => ("–", theme.warn),
        JobState::Failed(_) => ("✗", theme.bad),
    };
    let mut spans = vec![
        Span::raw(" "),
        Span::styled(sign, style),
        Span::raw(format!(" {}  ", fit(&name(app, job), room))),
    ];
    let rest = width.saturating_sub(room + 5);
    spans.extend(match &job.state {
        JobState::Queued => vec![Span::styled("queued", theme.dim)],
        JobState::Running => running_line(app, job, rest, style),
        JobState::Cancelling => {
            let phase = job.progress().phase.as_str();
            vec![Span::styled(format!("cancelling ({phase})"), style)]
        }
        JobState::Finished(outcome) => {
            let duration = duration_text(job, now)
                .map(|duration| format!(" in {duration}"))
                .unwrap_or_default();
            vec![Span::raw(format::clip(
                &format!("finished{duration}: {}", outcome_text(outcome)),
                rest,
            ))]
        }
        JobState::Failed(error) => {
            vec![Span::styled(format::clip(&error.to_string(), rest), style)]
        }
    });
    Line::from(spans)
}

/// Returns the job's title, with the host if the title does not name it and there are several.
pub(super) fn name(app: &App, job: &JobView) -> String {
    let title = job.title();
    match (job.operation.host(), job.operation.sandbox()) {
        (Some(host), Some(_)) if app.view.hosts.len() > 1 => format!("{title} · {host}"),
        _ => title,
    }
}

fn duration_text(job: &JobView, now: Instant) -> Option<String> {
    let ended = job.ended_at.unwrap_or(now);
    Some(format::clock(
        ended.saturating_duration_since(job.started_at?),
    ))
}

/// Returns the progress of a running job, as much of it as fits.
fn running_line(app: &App, job: &JobView, room: usize, style: Style) -> Vec<Span<'static>> {
    let progress = job.progress();
    let mut parts = vec![fit(progress.phase.as_str(), 11)];
    let percent = progress.percent();
    if let Some(percent) = percent {
        let share = progress.done_bytes as f64 / progress.total_bytes.max(1) as f64;
        if !app.plain {
            parts.push(gauge(share, if room >= 60 { 10 } else { 8 }));
        }
        parts.push(format!("{percent:>3} %"));
        parts.push(format::share(progress.done_bytes, progress.total_bytes));
    } else if progress.done_bytes > 0 {
        parts.push(format::size(progress.done_bytes));
    }
    if let Some(rate) = app.rates.rate(job.id).filter(|_| progress.done_bytes > 0) {
        parts.push(format::rate(rate));
        if let Some(remaining) = app.rates.time_remaining(job.id, progress) {
            parts.push(format!("{} left", format::clock(remaining)));
        }
        if !app.plain {
            parts.push(app.rates.graph(job.id));
        }
    }
    let mut spans = Vec::new();
    let mut used = 0;
    for (at, part) in parts.into_iter().enumerate() {
        used += part.width() + 2;
        if used > room + 2 {
            break;
        }
        let style = if at == 1 && percent.is_some() && !app.plain {
            style
        } else {
            Style::new()
        };
        spans.push(Span::styled(part, style));
        spans.push(Span::raw("  "));
    }
    spans
}

/// Returns a bar of `width` columns, to an eighth of a column.
pub(super) fn gauge(share: f64, width: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0) as usize;
    let bar = format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8]);
    format!(
        "{bar}{}",
        "░".repeat(width.saturating_sub(bar.chars().count()))
    )
}
