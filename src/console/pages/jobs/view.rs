//! Draws jobs: phase, gauge, bytes, rate and remaining time; finished ones with their results.

use std::sync::Arc;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{JobRow, JobRowKey, JobSection, Jobs, format_time_ago, interrupted_job};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::columns::Row as _;
use crate::dialog::{log_lines, outcome_text};
use crate::format::{self, fit, wrap};
use crate::lookup::partial_pull;
use crate::pages::frame::{empty_line, page_border};
use crate::pages::{DrawContext, Page, Subject};
use crate::rates::TransferRates;
use crate::theme::Theme;
use crate::widgets::chart::{Chart, Curve, MIN_CHART, Scale, window};
use crate::widgets::gauge::gauge;
use crate::widgets::text;
use crate::world::World;
use snapdeck_engine::{HistoryEntry, InterruptedJob, JobResult, JobState, JobView};
use snapdeck_model::{Error, HostName, Kind, PartialPull, SnapshotName};

/// Height of the chart of all transfers, at most.
pub(super) const MAX_CHART: u16 = 16;
/// Width of the bar in the details of a job, in columns.
const MIN_BAR: usize = 8;
const MAX_BAR: usize = 60;
/// Columns of the progress of a job with its rate.
const PROGRESS_WIDTH: usize = 60;
const MIN_NAME: usize = 12;
/// Jobs among which those about the selection are searched, so that a frame costs the same with many.
const MAX_SEARCHED: usize = 200;
/// Columns of a section's label.
const SECTION_WIDTH: usize = 13;

pub(super) fn draw(
    page: &Jobs,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    area: Rect,
    areas: &mut Areas,
) {
    let (world, theme) = (context.world, &context.appearance.theme);
    let focused = context.focus == Pane::JobsPage;
    let border = page_border(
        context,
        Pane::JobsPage,
        &page.summary(Pane::JobsPage),
        area.width,
    );
    let inner = border.draw(frame, area);
    if inner.is_empty() {
        return;
    }
    let inner = draw_transfers(context, page.list.len(), frame, inner);
    let window = page.list.window(usize::from(inner.height));
    areas.panes.push((Pane::JobsPage, inner, window.start));
    let width = usize::from(inner.width).saturating_sub(SECTION_WIDTH);
    let rows = window.filter_map(|row| {
        let item = page.items.get(page.list.item(row)?)?;
        Some((row, item))
    });
    let rows: Vec<(usize, &JobRow)> = rows.collect();
    let name_width = |item: &JobRow| match item.key() {
        JobRowKey::Job(id) => world.view().job(*id).map(|job| name(world, job).width()),
        JobRowKey::Interrupted(_) | JobRowKey::Partial(..) | JobRowKey::Past(_) => {
            Some(item.text().width())
        }
    };
    let widest = rows.iter().filter_map(|(_, item)| name_width(item)).max();
    let room = name_room(widest, width);
    let (mut lines, mut before) = (Vec::new(), None);
    for (row, item) in rows {
        let name = section_label(
            page,
            item,
            before.replace(item.section) != Some(item.section),
        );
        let line = match item.key() {
            JobRowKey::Interrupted(id) => interrupted_job(world.view(), *id)
                .map(|job| interrupted_line(theme, job, room, width)),
            JobRowKey::Partial(host, name) => partial_pull(world.view(), host, name)
                .map(|partial| partial_line(theme, item.text(), partial, room, width)),
            JobRowKey::Past(ended_at) => world
                .past_job(*ended_at)
                .map(|entry| past_line(theme, entry, room, width)),
            JobRowKey::Job(id) => {
                let job = world.view().job(*id);
                job.map(|job| line(context, job, (room, width), true))
            }
        };
        let mut line = line.unwrap_or_default();
        line.spans
            .insert(0, Span::styled(fit(&name, SECTION_WIDTH), theme.label));
        lines.push(match row == page.list.row() && focused {
            true => select_line(line, theme.selected, inner.width),
            false => line,
        });
    }
    if lines.is_empty() {
        let is_empty = page.items.is_empty();
        lines.push(empty_line(
            context,
            is_empty,
            " no jobs yet: create (c), push (p) or pull (f) in the lists",
        ));
    }
    text::draw_lines(frame, inner, &lines);
}

/// Returns the columns for the names of jobs: all if enough is left for their progress.
fn name_room(widest: Option<usize>, width: usize) -> usize {
    let most = (width * 2 / 5).max(width.saturating_sub(PROGRESS_WIDTH));
    widest.unwrap_or(0).min(most.max(MIN_NAME))
}

/// Returns the height of the chart of all transfers above `rows` in `height` lines; 0: there is none.
fn chart_height(context: &DrawContext<'_>, rows: usize, height: u16) -> u16 {
    if context.appearance.plain || !context.world.rates().has_history() {
        return 0;
    }
    let rows = u16::try_from(rows).unwrap_or(u16::MAX);
    let chart = height.saturating_sub(rows).max(height / 2).min(MAX_CHART);
    if chart < MIN_CHART.1 { 0 } else { chart }
}

/// Draws the rates of all transfers over time; returns the area below.
fn draw_transfers(context: &DrawContext<'_>, rows: usize, frame: &mut Frame, area: Rect) -> Rect {
    let height = chart_height(context, rows, area.height);
    let [above, below] = ratatui::layout::Layout::vertical([
        ratatui::layout::Constraint::Length(height),
        ratatui::layout::Constraint::Min(0),
    ])
    .areas(area);
    if height > 0 {
        transfer_chart(context).draw(frame, above, &context.appearance.theme);
    }
    below
}

fn transfer_chart(context: &DrawContext<'_>) -> Chart {
    let rates = context.world.rates();
    let styles = context.appearance.theme.curves;
    let history = rates.history();
    let curve = |at: usize, label: &str, value: fn(&TransferRates) -> f64| {
        let points: Vec<(f64, f64)> = history
            .iter()
            .map(|(age, rates)| (*age, value(rates)))
            .collect();
        let last = points.last().map_or(0.0, |(_, value)| *value);
        let most = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let legend = match last >= 1.0 {
            true => format!(
                "{label} {}, at most {}",
                format::rate(last),
                format::rate(most)
            ),
            false => format!("{label}, at most {}", format::rate(most)),
        };
        (most >= 1.0).then_some(Curve {
            points,
            legend,
            style: styles[at],
        })
    };
    let curves = [
        curve(1, "↓ down", |rates| rates.down),
        curve(0, "↑ up", |rates| rates.up),
    ];
    let mut curves: Vec<Curve> = curves.into_iter().flatten().collect();
    // Disks are faster: beside theirs, the curves of transfers would be flat.
    if curves.is_empty() {
        curves.extend(curve(2, "● on hosts", |rates| rates.on_hosts));
    }
    Chart {
        title: "Transfers".to_owned(),
        curves,
        scale: Scale::Rate,
        window: window(history.first().map_or(0.0, |(age, _)| *age)),
        end: match rates.is_active() {
            true => "now",
            false => "the last one ended",
        },
    }
}

/// Returns the label before a row: the section in its first row; the position of each queued job.
fn section_label(page: &Jobs, item: &JobRow, is_first: bool) -> String {
    match item.section {
        JobSection::Queued => {
            let queue = page
                .items
                .iter()
                .filter(|other| other.section == JobSection::Queued);
            let at = queue.take_while(|other| other.key() != item.key()).count();
            format!(" queued {}", at + 1)
        }
        _ if !is_first => String::new(),
        JobSection::Interrupted => " interrupted".to_owned(),
        JobSection::Partial => " partial".to_owned(),
        JobSection::Running => " running".to_owned(),
        JobSection::Finished => " finished".to_owned(),
        JobSection::Earlier => " earlier".to_owned(),
    }
}

fn interrupted_line(
    theme: &Theme,
    job: &InterruptedJob,
    room: usize,
    width: usize,
) -> Line<'static> {
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

/// Returns the line of the partial file of an interrupted pull.
fn partial_line(
    theme: &Theme,
    title: &str,
    partial: &PartialPull,
    room: usize,
    width: usize,
) -> Line<'static> {
    let mut note = format!("{} on disk", format::size(partial.allocated_bytes));
    if let Some(at) = partial.modified {
        note.push_str(&format!(", written {}", format_time_ago(at)));
    }
    note.push_str("; t resumes, X frees");
    let note = format::clip(&note, width.saturating_sub(room + 5));
    Line::from(vec![
        Span::raw(" "),
        Span::styled("↓", theme.warn),
        Span::raw(format!(" {}  ", fit(title, room))),
        Span::styled(note, theme.dim),
    ])
}

fn push_partial(
    lines: &mut Vec<Line<'static>>,
    (host, name): (&HostName, &SnapshotName),
    partial: &PartialPull,
    theme: &Theme,
    width: usize,
) {
    lines.push(Line::styled(format!(" pull {name} → {host}"), theme.title));
    let written = partial.modified.map_or(String::new(), |at| {
        format!(
            ", last written {} ({})",
            format::timestamp(at),
            format_time_ago(at)
        )
    });
    let text = format!(
        "Interrupted: {} of this pull are on the disk of host {host}{written}. A pull of {name} resumes there; another snapdeck may have started this one.",
        format::size(partial.allocated_bytes)
    );
    for line in wrap(&text, width.saturating_sub(3)) {
        lines.push(Line::raw(format!("   {line}")));
    }
}

/// Adds the details of a job: title, result and log.
pub(crate) fn push_details(
    lines: &mut Vec<Line<'static>>,
    context: &DrawContext<'_>,
    subject: &Subject,
    width: usize,
) {
    let (view, theme) = (context.world.view(), &context.appearance.theme);
    let job = match subject {
        Subject::Interrupted(id) => {
            if let Some(job) = interrupted_job(view, *id) {
                push_interrupted(lines, job, theme, width);
            }
            return;
        }
        Subject::Past(ended_at) => {
            if let Some(entry) = context.world.past_job(*ended_at) {
                push_past(lines, entry, theme, width);
            }
            return;
        }
        Subject::Partial(host, name) => {
            if let Some(partial) = partial_pull(view, host, name) {
                push_partial(lines, (host, name), partial, theme, width);
            }
            return;
        }
        Subject::Job(id) => view.job(*id),
        Subject::Sandbox(..) | Subject::Snapshot(..) | Subject::Host(_) => None,
    };
    let Some(job) = job else { return };
    let title = format!(" job {}: {}", job.id.0, job.title());
    lines.push(Line::styled(title, theme.title));
    if job.state == JobState::Running {
        lines.push(progress_line(context, job, width));
    }
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

/// Returns the progress of a job with a bar that takes what its numbers leave of `width`.
fn progress_line(context: &DrawContext<'_>, job: &JobView, width: usize) -> Line<'static> {
    let theme = &context.appearance.theme;
    let progress = job.progress();
    let mut spans = vec![Span::styled(
        format!("   {}", progress.phase.as_str()),
        theme.good,
    )];
    let mut numbers = String::new();
    if let Some(percent) = progress.percent() {
        let share = format::share(progress.done_bytes, progress.total_bytes);
        numbers = format!("  {percent:>3} %  {share}");
        if progress.direct_bytes > 0 {
            let direct = format::size(progress.direct_bytes);
            numbers.push_str(&format!(", {direct} of it direct"));
        }
    }
    if let Some(elapsed) = duration_text(job, context.now) {
        numbers.push_str(&format!("  {elapsed} so far"));
    }
    let used = spans[0].width() + numbers.width() + 4;
    if progress.percent().is_some() && !context.appearance.plain && used + MIN_BAR <= width {
        let share = progress.done_bytes as f64 / progress.total_bytes.max(1) as f64;
        let bar = format!("  {}", gauge(share, (width - used).min(MAX_BAR)));
        spans.push(Span::styled(bar, theme.meter));
    }
    spans.push(Span::raw(numbers));
    Line::from(spans)
}

fn result_style(result: JobResult, theme: &Theme) -> (&'static str, Style) {
    match result {
        JobResult::Finished => ("✓", theme.good),
        JobResult::Cancelled => ("–", theme.warn),
        JobResult::Failed => ("✗", theme.bad),
    }
}

/// Returns the line of a job of an earlier run.
fn past_line(theme: &Theme, entry: &HistoryEntry, room: usize, width: usize) -> Line<'static> {
    let (sign, style) = result_style(entry.result, theme);
    let mut text = format_time_ago(entry.ended_at);
    if !entry.summary.is_empty() {
        text.push_str(": ");
        text.push_str(&entry.summary);
    }
    let text = format::clip(&text, width.saturating_sub(room + 5));
    Line::from(vec![
        Span::raw(" "),
        Span::styled(sign, style),
        Span::raw(format!(" {}  ", fit(&entry.title, room))),
        Span::styled(text, theme.dim),
    ])
}

/// Returns a line for each of the last jobs about a sandbox or snapshot of that name, newest first.
pub(crate) fn recent_lines(
    context: &DrawContext<'_>,
    (name, host): (&str, Option<&HostName>),
    count: usize,
    width: usize,
) -> Vec<Line<'static>> {
    let world = context.world;
    let is_about = |title: &str| title.split(' ').any(|word| word == name);
    let is_on_host = |other: Option<&str>| match (host, other) {
        (Some(host), Some(other)) => host.as_str() == other,
        _ => true,
    };
    let jobs = world.view().jobs.iter().rev().take(MAX_SEARCHED);
    let jobs = jobs.filter(|job| {
        let on_host = job.operation.host().map(HostName::as_str);
        is_about(&job.title()) && is_on_host(on_host)
    });
    let past = world.past_jobs();
    let past = past.filter(|entry| is_about(&entry.title) && is_on_host(entry.host.as_deref()));
    // Whether it is of this run, and what its line shows.
    let jobs: Vec<&Arc<JobView>> = jobs.take(count).collect();
    let past: Vec<&HistoryEntry> = past.take(count - jobs.len()).collect();
    let titles = jobs.iter().map(|job| self::name(world, job).width());
    let widest = titles
        .chain(past.iter().map(|entry| entry.title.width()))
        .max();
    let room = widest.unwrap_or(0).min(width / 2);
    let jobs = jobs
        .into_iter()
        .map(|job| line(context, job, (room, width), true));
    let theme = &context.appearance.theme;
    let past = past
        .into_iter()
        .map(|entry| past_line(theme, entry, room, width));
    let mut lines: Vec<Line> = jobs.chain(past).collect();
    for line in &mut lines {
        // The margin of a row.
        line.spans.remove(0);
    }
    lines
}

fn push_past(lines: &mut Vec<Line<'static>>, entry: &HistoryEntry, theme: &Theme, width: usize) {
    lines.push(Line::styled(format!(" {}", entry.title), theme.title));
    let (_, style) = result_style(entry.result, theme);
    for line in wrap(&entry.summary, width.saturating_sub(3)) {
        lines.push(Line::styled(format!("   {line}"), style));
    }
    let mut text = format!("ended {}", format::timestamp(entry.ended_at));
    if let Some(started) = entry.started_at {
        text.push_str(&format!(", started {}", format::timestamp(started)));
    }
    if let Some(bytes) = entry.moved_bytes {
        text.push_str(&format!(", {} moved", format::size(bytes)));
    }
    for line in wrap(&text, width.saturating_sub(3)) {
        lines.push(Line::styled(format!("   {line}"), theme.dim));
    }
}

fn push_interrupted(
    lines: &mut Vec<Line<'static>>,
    job: &InterruptedJob,
    theme: &Theme,
    width: usize,
) {
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
}

/// Returns whether a job has failed. One that was cancelled has not.
fn has_failed(state: &JobState) -> bool {
    matches!(state, JobState::Failed(error) if error.kind() != Kind::Cancelled)
}

/// Returns the title of the pane: `Jobs · 2 running, 1 queued`.
pub(crate) fn pane_title(world: &World) -> String {
    let jobs = &world.view().jobs;
    let count =
        |wanted: fn(&JobState) -> bool| jobs.iter().filter(|job| wanted(&job.state)).count();
    let counts = [
        (
            count(|state| matches!(state, JobState::Running | JobState::Cancelling)),
            "running",
        ),
        (count(|state| matches!(state, JobState::Queued)), "queued"),
        (count(has_failed), "failed"),
        (
            count(|state| state.is_finished() && !has_failed(state)),
            "finished",
        ),
    ];
    let shown = counts.iter().filter(|(count, _)| *count > 0);
    let texts: Vec<String> = shown
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    format!(" Jobs · {} ", texts.join(", "))
}

/// Draws the jobs of the pane below the lists.
pub(crate) fn draw_pane(
    page: &Jobs,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    inner: Rect,
    areas: &mut Areas,
) {
    let world = context.world;
    let jobs = &world.view().jobs;
    let height = usize::from(inner.height);
    let mut window = page.pane.window(height);
    if context.focus != Pane::Jobs {
        // Without the focus the list shows the jobs from the first unfinished one on.
        let active = jobs.iter().position(|job| !job.state.is_finished());
        let end = jobs.len();
        let start = active.unwrap_or(end).min(end.saturating_sub(height));
        window = start..(start + height).min(end);
    }
    let width = usize::from(inner.width);
    let shown = jobs.get(window.clone()).unwrap_or_default();
    let widest = shown.iter().map(|job| name(world, job).width()).max();
    let room = name_room(widest, width);
    let line = |row: usize| {
        let job = jobs.get(row)?;
        let selected = row == page.pane.row() && context.focus == Pane::Jobs;
        let mut line = line(context, job, (room, width), false);
        if let Some(first) = line
            .spans
            .first_mut()
            .filter(|_| selected && context.appearance.plain)
        {
            *first = Span::raw(">");
        }
        Some(match selected {
            true => select_line(line, context.appearance.theme.selected, inner.width),
            false => line,
        })
    };
    areas.panes.push((Pane::Jobs, inner, window.start));
    let lines: Vec<Line> = window.filter_map(line).collect();
    text::draw_lines(frame, inner, &lines);
}

/// Returns the line in the style of a selected row, in all of the `width`. Other colours would make a patchwork of it.
fn select_line(line: Line<'static>, selected: Style, width: u16) -> Line<'static> {
    let padding = " ".repeat(usize::from(width).saturating_sub(line.width()));
    let spans = line.spans.into_iter().chain([Span::raw(padding)]);
    let spans: Vec<Span> = spans
        .map(|span| Span::styled(span.content, selected))
        .collect();
    Line::from(spans).style(selected)
}

/// Returns the line of a job in `width` columns, `room` of them for its name. `with_age`: how long ago it ended.
fn line(
    context: &DrawContext<'_>,
    job: &JobView,
    (room, width): (usize, usize),
    with_age: bool,
) -> Line<'static> {
    let (theme, now) = (&context.appearance.theme, context.now);
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
        Span::raw(format!(" {}  ", fit(&name(context.world, job), room))),
    ];
    let rest = width.saturating_sub(room + 5);
    let age = job.ended_at.filter(|_| with_age).map(|ended| {
        let age = format::age(now.saturating_duration_since(ended));
        format!("{age} ago")
    });
    spans.extend(match &job.state {
        JobState::Queued => vec![Span::styled("queued", theme.dim)],
        JobState::Running => running_line(context, job, rest, style),
        JobState::Cancelling => {
            let phase = job.progress().phase.as_str();
            vec![Span::styled(format!("cancelling ({phase})"), style)]
        }
        JobState::Finished(outcome) => {
            let duration = duration_text(job, now)
                .map(|duration| format!(" in {duration}"))
                .unwrap_or_default();
            let outcome = outcome_text(outcome);
            let text = match age {
                Some(age) => format!("{age}{duration}: {outcome}"),
                None => format!("finished{duration}: {outcome}"),
            };
            vec![Span::raw(format::clip(&text, rest))]
        }
        JobState::Failed(error) => {
            let cause = cause_text(error);
            let text = match age {
                Some(age) => format!("{age}: {cause}"),
                None => cause,
            };
            vec![Span::styled(format::clip(&text, rest), style)]
        }
    });
    Line::from(spans)
}

/// Returns the error without what could not be done, which the title of the job says: `cannot pull app: it needs ...`.
fn cause_text(error: &Error) -> String {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((summary, cause)) if summary.starts_with("cannot ") => cause.to_owned(),
        _ => text,
    }
}

/// Returns the job's title, with the host if the title does not name it and there are several.
fn name(world: &World, job: &JobView) -> String {
    let title = job.title();
    match (job.operation.host(), job.operation.sandbox()) {
        (Some(host), Some(_)) if world.view().hosts.len() > 1 => format!("{title} · {host}"),
        _ => title,
    }
}

fn duration_text(job: &JobView, now: std::time::Instant) -> Option<String> {
    let ended = job.ended_at.unwrap_or(now);
    Some(format::clock(
        ended.saturating_duration_since(job.started_at?),
    ))
}

/// Returns the progress of a running job, as much of it as fits.
fn running_line(
    context: &DrawContext<'_>,
    job: &JobView,
    room: usize,
    style: Style,
) -> Vec<Span<'static>> {
    let (rates, plain) = (context.world.rates(), context.appearance.plain);
    let progress = job.progress();
    let percent = progress.percent();
    if let Some(wait) = progress.wait {
        let mut text = format::wait(wait, job.operation.host());
        if let Some(percent) = percent {
            text.push_str(&format!(", {percent} % done"));
        }
        let style = context.appearance.theme.warn;
        return vec![Span::styled(format::clip(&text, room), style)];
    }
    // Each with its rank: those of the highest rank are left out first.
    let mut parts = vec![(0, fit(progress.phase.as_str(), 11), style)];
    let mut push = |rank: u8, text: String| parts.push((rank, text, Style::new()));
    if let Some(percent) = percent {
        push(0, format!("{percent:>3} %"));
        let share = format::share(progress.done_bytes, progress.total_bytes);
        push(3, share);
    } else if progress.done_bytes > 0 {
        push(3, format::size(progress.done_bytes));
    }
    if let Some(rate) = rates.rate(job.id).filter(|_| progress.done_bytes > 0) {
        push(1, format::rate(rate));
        if let Some(remaining) = rates.time_remaining(job.id, progress) {
            push(1, format!("{} left", format::clock(remaining)));
        }
        if progress.direct_bytes > 0 {
            push(2, "direct".to_owned());
        }
        if !plain {
            push(4, rates.graph(job.id));
        }
    } else if let Some(stall) = rates.stall(job.id).filter(|_| percent.is_some()) {
        parts.push((
            1,
            format!("no data for {}", format::clock(stall)),
            context.appearance.theme.warn,
        ));
    }
    if percent.is_some() && !plain {
        let share = progress.done_bytes as f64 / progress.total_bytes.max(1) as f64;
        let gauge = gauge(share, if room >= 60 { 10 } else { 8 });
        parts.insert(1, (2, gauge, style));
    }
    let width = |parts: &[(u8, String, Style)]| -> usize {
        parts.iter().map(|(_, text, _)| text.width() + 2).sum()
    };
    while width(&parts) > room + 2 {
        let ranks = parts.iter().enumerate();
        let last = ranks.max_by_key(|(_, (rank, ..))| *rank).map(|(at, _)| at);
        match last.filter(|_| parts.len() > 1) {
            Some(at) => drop(parts.remove(at)),
            None => break,
        }
    }
    let spans = parts.into_iter();
    spans
        .flat_map(|(_, text, style)| [Span::styled(text, style), Span::raw("  ")])
        .collect()
}
