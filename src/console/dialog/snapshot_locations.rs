//! Locations of a snapshot: its state in the bucket and on each host, and the last job there.

use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply, outcome_text};
use crate::actions::Action;
use crate::cell::{self, Cell, Place, State};
use crate::command::Command;
use crate::format::{self, count, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{JobId, JobState, JobView, Link, View};
use snapdeck_model::SnapshotName;

#[derive(Debug)]
pub(crate) struct SnapshotLocations {
    name: SnapshotName,
    place: Place,
}

impl SnapshotLocations {
    /// Returns a dialog about `name` that lists `place` first.
    pub(crate) fn new(name: SnapshotName, place: Place) -> Self {
        Self { name, place }
    }

    /// Returns the active job on the snapshot at the selected place.
    fn job(&self, view: &View) -> Option<JobId> {
        let cell = cell::cell(view, &self.name, &self.place);
        cell.active_job().map(|job| job.id)
    }
}

impl Dialog for SnapshotLocations {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let is_key = |action| context.is_key(key, action);
        match (key.code, self.job(context.view)) {
            (KeyCode::Char('q') | KeyCode::Enter, _) => DialogReply::close(),
            _ if is_key(Action::Pull) => DialogReply::Perform(Action::Pull),
            _ if is_key(Action::Remove) => DialogReply::Perform(Action::Remove),
            (_, Some(job)) if is_key(Action::Cancel) => {
                DialogReply::Execute(vec![Command::Cancel(job)])
            }
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let (view, theme) = (&**context.view, context.theme);
        let mut content = Content::new(self.name.to_string(), context, width);
        let hosts = view.hosts.iter().map(|host| Place::Host(host.name.clone()));
        let places = [Place::Bucket].into_iter().chain(hosts);
        let rest = places.filter(|place| *place != self.place);
        for place in [self.place.clone()].into_iter().chain(rest) {
            let cell = cell::cell(view, &self.name, &place);
            content.push_lines(describe_location(
                view,
                &place,
                &cell,
                theme,
                width,
                context.now,
            ));
            if place == self.place {
                content.push_blank();
            }
        }
        content.push_key("esc", "close", true);
        content.push_key("j k", "scroll", true);
        content.push_key(context.key(Action::Pull), "pull", true);
        content.push_key(context.key(Action::Remove), "remove", true);
        if self.job(view).is_some() {
            let (key, place) = (context.key(Action::Cancel), self.place.name());
            content.push_wrapped(&format!("{key} cancels the job on {place}"), 0, theme.dim);
            content.push_key(key, "cancel", true);
        }
        content
    }
}

/// Describes one cell, in lines of `width` columns.
pub(crate) fn describe_location(
    view: &View,
    place: &Place,
    cell: &Cell<'_>,
    theme: &Theme,
    width: usize,
    now: Instant,
) -> Vec<Line<'static>> {
    let (link, last_seen) = match place {
        Place::Bucket => (Some(&view.bucket.link), view.bucket.last_listing),
        Place::Host(name) => {
            let host = lookup::host(view, name);
            (
                host.map(|host| &host.link),
                host.and_then(|host| host.last_scan),
            )
        }
    };
    let (sign, text, style) = match &cell.state {
        State::Unknown => ("?", "unknown".to_owned(), theme.dim),
        State::Absent => ("·", "absent".to_owned(), theme.dim),
        State::Damaged(problem) => ("!", format!("damaged: {problem}"), theme.warn),
        State::Present {
            bytes,
            dependents,
            differs,
        } => {
            let mut text = size(*bytes);
            if *differs {
                text.push_str(", size differs from the bucket's");
            }
            if *dependents > 0 {
                text.push_str(&format!(", base of {}", count(*dependents, "sandbox")));
            }
            (if *differs { "≠" } else { "●" }, text, theme.good)
        }
    };
    let style = if cell.stale { theme.dim } else { style };
    let mut wrapped = format::wrap(&text, width.saturating_sub(17)).into_iter();
    let mut lines = vec![Line::from(vec![
        Span::styled(format!(" {} ", format::fit(place.name(), 12)), theme.title),
        Span::styled(
            format!("{sign} {}", wrapped.next().unwrap_or_default()),
            style,
        ),
    ])];
    let indent = " ".repeat(16);
    lines.extend(wrapped.map(|line| Line::styled(format!("{indent}{line}"), style)));
    let mut push = |text: &str, style: Style| {
        for line in format::wrap(text, width.saturating_sub(16)) {
            lines.push(Line::styled(format!("{indent}{line}"), style));
        }
    };
    if let Some(job) = cell.job {
        let (text, style) = job_line(job, theme);
        push(&text, style);
    }
    match link {
        Some(Link::Down(error)) => {
            let age = last_seen.map(|seen| format::age(now.saturating_duration_since(seen)));
            let age = age.map_or(String::new(), |age| format!(" · last seen {age} ago"));
            push(&format!("✗ {error}{age}"), theme.bad);
        }
        Some(Link::Connecting) => push("◌ connecting…", theme.warn),
        _ => {}
    }
    lines
}

fn job_line(job: &JobView, theme: &Theme) -> (String, Style) {
    let title = job.title();
    match &job.state {
        JobState::Queued => (format!("◌ {title}: queued"), theme.dim),
        JobState::Cancelling => (format!("◐ {title}: cancelling"), theme.warn),
        JobState::Running => {
            let progress = job.progress();
            if let Some(wait) = progress.wait {
                let text = format::wait(wait, job.operation.host());
                return (format!("◌ {title}: {text}"), theme.warn);
            }
            let mut text = format!("● {title}: {}", progress.phase.as_str());
            if let Some(percent) = progress.percent() {
                let share = format::share(progress.done_bytes, progress.total_bytes);
                text.push_str(&format!(" {percent} %, {share}"));
            }
            (text, theme.good)
        }
        JobState::Finished(outcome) => (format!("✓ {title}: {}", outcome_text(outcome)), theme.dim),
        JobState::Failed(error) => (format!("✗ {title}: {error}"), theme.bad),
    }
}
