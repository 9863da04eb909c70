//! The Jobs page: a line for each job, after the section it is in. The details show the selected job with its log.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{jobs, text};
use crate::actions::Pane;
use crate::app::{App, Areas};
use crate::columns::Row as _;
use crate::dialog::{log_lines, outcome_text};
use crate::format::{self, fit, wrap};
use crate::jobs::{JobRow, JobRowKey, JobSection, format_time_ago};
use snapdeck_engine::{InterruptedJob, JobState};

/// Columns of a section's label.
const SECTION_WIDTH: usize = 13;

pub(super) fn draw(app: &App, frame: &mut Frame, area: Rect, now: Instant, areas: &mut Areas) {
    let theme = &app.theme;
    let page = &app.page;
    let focused = app.focus == Pane::JobsPage;
    let inner = super::page_border(app, Pane::JobsPage, area.width).draw(frame, area);
    if inner.is_empty() {
        return;
    }
    let window = page.list.window(usize::from(inner.height));
    areas.panes.push((Pane::JobsPage, inner, window.start));
    let width = usize::from(inner.width).saturating_sub(SECTION_WIDTH);
    let rows = window.filter_map(|row| {
        let item = page.items.get(page.list.item(row)?)?;
        Some((row, item))
    });
    let rows: Vec<(usize, &JobRow)> = rows.collect();
    let name = |item: &JobRow| match item.key() {
        JobRowKey::Job(id) => app.view.job(*id).map(|job| jobs::name(app, job).width()),
        JobRowKey::Interrupted(_) => Some(item.text().width()),
    };
    let widest = rows.iter().filter_map(|(_, item)| name(item)).max();
    let room = widest.unwrap_or(0).min((width * 2 / 5).max(12));
    let (mut lines, mut before) = (Vec::new(), None);
    for (row, item) in rows {
        let name = section_label(
            app,
            item,
            before.replace(item.section) != Some(item.section),
        );
        let line = match item.key() {
            JobRowKey::Interrupted(id) => crate::jobs::interrupted_job(&app.view, *id)
                .map(|job| interrupted_line(app, job, room, width)),
            JobRowKey::Job(id) => {
                let job = app.view.job(*id);
                job.map(|job| jobs::line(app, job, room, width, now))
            }
        };
        let mut line = line.unwrap_or_default();
        line.spans
            .insert(0, Span::styled(fit(&name, SECTION_WIDTH), theme.dim));
        lines.push(match row == page.list.row() && focused {
            true => line.style(theme.selected),
            false => line,
        });
    }
    if lines.is_empty() {
        let is_empty = page.items.is_empty();
        lines.push(super::empty_line(app, is_empty, " no jobs yet"));
    }
    text::draw_lines(frame, inner, &lines);
}

/// Returns the label before a row: the section in its first row; the position of each queued job.
fn section_label(app: &App, item: &JobRow, is_first: bool) -> String {
    match item.section {
        JobSection::Queued => {
            let queue = app
                .page
                .items
                .iter()
                .filter(|other| other.section == JobSection::Queued);
            let at = queue.take_while(|other| other.key() != item.key()).count();
            format!(" queued {}", at + 1)
        }
        _ if !is_first => String::new(),
        JobSection::Interrupted => " interrupted".to_owned(),
        JobSection::Running => " running".to_owned(),
        JobSection::Finished => " finished".to_owned(),
    }
}

fn interrupted_line(app: &App, job: &InterruptedJob, room: usize, width: usize) -> Line<'static> {
    let theme = &app.theme;
    let note = format!(
        "requested {}; t resumes, X discards",
        format_time_ago(job.requested_at)
    );
    Line::from(vec![
        Span::raw(" "),
        Span::styled("↻", theme.warn),
        Span::raw(format!(" {}  ", fit(&job.title, room))),
        Span::styled(
            format::clip(&note, width.saturating_sub(room + 5)),
            theme.dim,
        ),
    ])
}

/// Adds the details of the selected job: title, result and log.
pub(super) fn push_details(lines: &mut Vec<Line<'static>>, app: &App, width: usize) {
    let theme = &app.theme;
    if let Some(job) = app
        .selected_interrupted()
        .and_then(|id| crate::jobs::interrupted_job(&app.view, id))
    {
        lines.push(Line::styled(format!(" {}", job.title), theme.title));
        let text = format!(
            "Interrupted: snapdeck exited while this job was {} (requested {}, {}). A pull resumes, other jobs restart; the job fails if its sandbox, snapshot or object was replaced meanwhile.",
            job.progress_label(),
            format_time_ago(job.requested_at),
            format::timestamp(job.requested_at)
        );
        for line in wrap(&text, width.saturating_sub(3)) {
            lines.push(Line::raw(format!("   {line}")));
        }
        return;
    }
    let Some(job) = app.page_job() else { return };
    let title = format!(" job {}: {}", job.id.0, job.title());
    lines.push(Line::styled(title, theme.title));
    let result = match &job.state {
        JobState::Failed(error) => Some((error.to_string(), theme.bad)),
        JobState::Finished(outcome) => Some((outcome_text(outcome), theme.good)),
        _ => None,
    };
    if let Some((text, style)) = result {
        let wrapped = wrap(&text, width.saturating_sub(3)).into_iter();
        lines.extend(wrapped.map(|line| Line::styled(format!("   {line}"), style)));
    }
    lines.extend(log_lines(job, theme, width));
}
