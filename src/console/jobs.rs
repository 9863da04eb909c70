//! The jobs page: what was left by an earlier run, what runs, what waits and in which order, and what is over.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::actions::Pane;
use super::app::{App, Command};
use super::columns::Row;
use super::format;
use super::list::List;
use snapdeck_engine::{InterruptedId, InterruptedJob, JobId, JobState, JobView, View};

/// What tells a row from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum JobRowKey {
    /// Left by an earlier run.
    Interrupted(InterruptedId),
    /// Of this one.
    Job(JobId),
}

/// The parts of the page, from its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobSection {
    /// Left by an earlier run.
    Interrupted,
    /// Runs, or cleans up.
    Running,
    /// Waits for its turn.
    Queued,
    /// Is over.
    Finished,
}

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct JobRow {
    key: JobRowKey,
    /// The part it stands in.
    pub section: JobSection,
    title: String,
}

impl Row for JobRow {
    type Key = JobRowKey;
    fn key(&self) -> &JobRowKey {
        &self.key
    }
    fn text(&self) -> &str {
        &self.title
    }
}

/// The page's state.
#[derive(Debug)]
pub(crate) struct JobsPage {
    /// Its rows' state.
    pub list: List<JobRowKey>,
    /// Its rows.
    pub items: Vec<JobRow>,
    /// The list it was opened from.
    pub opened_from: Pane,
}

impl Default for JobsPage {
    fn default() -> Self {
        Self {
            list: List::default(),
            items: Vec::new(),
            opened_from: Pane::Sandboxes,
        }
    }
}

fn section_of(job: &JobView) -> JobSection {
    match job.state {
        JobState::Queued => JobSection::Queued,
        JobState::Running | JobState::Cancelling => JobSection::Running,
        JobState::Finished(_) | JobState::Failed(_) => JobSection::Finished,
    }
}

impl JobsPage {
    /// Takes up a view. Jobs that are over come newest first: the one that just ended is the one that is looked for.
    pub(crate) fn update(&mut self, view: &View) {
        let left = view.interrupted_jobs.iter().map(|left| JobRow {
            key: JobRowKey::Interrupted(left.id),
            section: JobSection::Interrupted,
            title: left.title.clone(),
        });
        let item = |job: &Arc<JobView>| JobRow {
            key: JobRowKey::Job(job.id),
            section: section_of(job),
            title: job.title(),
        };
        let of = |wanted: JobSection| {
            view.jobs
                .iter()
                .filter(move |job| section_of(job) == wanted)
        };
        let mut over: Vec<&Arc<JobView>> = of(JobSection::Finished).collect();
        over.sort_by_key(|job| std::cmp::Reverse((job.ended_at, job.id)));
        self.items = left
            .chain(of(JobSection::Running).map(item))
            .chain(of(JobSection::Queued).map(item))
            .chain(over.into_iter().map(item))
            .collect();
        self.list.update(&self.items);
    }

    /// The selected row.
    pub(crate) fn current(&self) -> Option<JobRowKey> {
        self.list.current(&self.items).map(|item| item.key)
    }
}

/// `3 minutes ago`, as ages are told.
pub(crate) fn format_time_ago(at: Timestamp) -> String {
    let age = Timestamp::now().duration_since(at);
    let age = Duration::try_from(age).unwrap_or_default();
    format!("{} ago", format::age(age))
}

/// What was left, by its number.
pub(crate) fn interrupted_job(view: &View, id: InterruptedId) -> Option<&InterruptedJob> {
    view.interrupted_jobs.iter().find(|left| left.id == id)
}

impl App {
    /// What was left and is selected on the jobs page.
    pub(crate) fn selected_interrupted(&self) -> Option<InterruptedId> {
        match self
            .page
            .current()
            .filter(|_| self.list == Pane::JobsPage)?
        {
            JobRowKey::Interrupted(id) => Some(id),
            JobRowKey::Job(_) => None,
        }
    }

    /// Takes the selected row off the jobs page where its job was left: something is done to it, and the next key is
    /// for the next row. What comes to nothing is there again with the next view.
    pub(crate) fn drop_interrupted_row(&mut self) {
        if let Some(id) = self.selected_interrupted() {
            self.page
                .items
                .retain(|item| item.key != JobRowKey::Interrupted(id));
            self.page.list.update(&self.page.items);
        }
    }

    /// The job that is selected on the jobs page.
    pub(crate) fn page_job(&self) -> Option<&Arc<JobView>> {
        match self.page.current()? {
            JobRowKey::Job(id) => self.view.jobs.iter().find(|job| job.id == id),
            JobRowKey::Interrupted(_) => None,
        }
    }

    /// Opens the page, or goes back from it.
    pub(crate) fn toggle_jobs_page(&mut self) {
        if self.list == Pane::JobsPage {
            return self.focus_on(self.page.opened_from);
        }
        self.page.opened_from = match self.list {
            Pane::Matrix | Pane::Tree => self.page.opened_from,
            list => list,
        };
        let view = self.view.clone();
        self.page.update(&view);
        self.focus_on(Pane::JobsPage);
    }
}

/// What retrying does: what failed or was cancelled is asked for anew, what was left goes on.
pub(crate) fn retry(app: &App) -> Result<Vec<Command>, String> {
    if let Some(id) = app.selected_interrupted() {
        return Ok(vec![Command::ResumeInterrupted(vec![id])]);
    }
    let job = selected(app).ok_or("there is no job")?;
    match &job.state {
        JobState::Failed(_) => Ok(vec![Command::Retry(job.id, job.operation.clone())]),
        JobState::Finished(_) => Err("this job has finished".to_owned()),
        _ => Err("this job is not over".to_owned()),
    }
}

/// Moves the selected job in the queue.
pub(crate) fn shift(app: &App, by: isize) -> Result<Vec<Command>, String> {
    let job = selected(app).ok_or("there is no job")?;
    match job.state {
        JobState::Queued => Ok(vec![Command::Shift(job.id, by)]),
        _ => Err("only a queued job can be moved".to_owned()),
    }
}

fn selected(app: &App) -> Option<&Arc<JobView>> {
    match app.focus {
        Pane::JobsPage => app.page_job(),
        _ => app.jobs.current(&app.view.jobs),
    }
}
