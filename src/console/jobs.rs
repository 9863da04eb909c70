//! The Jobs page: interrupted jobs of an earlier run, then running, queued and finished jobs.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::actions::Pane;
use super::app::{App, Command};
use super::columns::Row;
use super::format;
use super::list::List;
use snapdeck_engine::{InterruptedId, InterruptedJob, JobId, JobState, JobView, View};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum JobRowKey {
    Interrupted(InterruptedId),
    Job(JobId),
}

/// The sections of the page, from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobSection {
    Interrupted,
    /// Running or cancelling.
    Running,
    Queued,
    Finished,
}

#[derive(Debug, Clone)]
pub(crate) struct JobRow {
    key: JobRowKey,
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

#[derive(Debug)]
pub(crate) struct JobsPage {
    pub list: List<JobRowKey>,
    pub items: Vec<JobRow>,
    /// The list to return to.
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

fn section(job: &JobView) -> JobSection {
    match job.state {
        JobState::Queued => JobSection::Queued,
        JobState::Running | JobState::Cancelling => JobSection::Running,
        JobState::Finished(_) | JobState::Failed(_) => JobSection::Finished,
    }
}

impl JobsPage {
    /// Rebuilds the rows. Finished jobs are listed newest first.
    pub(crate) fn update(&mut self, view: &View) {
        let interrupted = view.interrupted_jobs.iter().map(|job| JobRow {
            key: JobRowKey::Interrupted(job.id),
            section: JobSection::Interrupted,
            title: job.title.clone(),
        });
        let row = |job: &Arc<JobView>| JobRow {
            key: JobRowKey::Job(job.id),
            section: section(job),
            title: job.title(),
        };
        let jobs_in =
            |wanted: JobSection| view.jobs.iter().filter(move |job| section(job) == wanted);
        let mut finished: Vec<&Arc<JobView>> = jobs_in(JobSection::Finished).collect();
        finished.sort_by_key(|job| std::cmp::Reverse((job.ended_at, job.id)));
        self.items = interrupted
            .chain(jobs_in(JobSection::Running).map(row))
            .chain(jobs_in(JobSection::Queued).map(row))
            .chain(finished.into_iter().map(row))
            .collect();
        self.list.update(&self.items);
    }

    pub(crate) fn current(&self) -> Option<JobRowKey> {
        self.list.current(&self.items).map(|item| item.key)
    }
}

pub(crate) const NO_JOB: &str = "no job is selected";

/// Returns an age: `3m ago`.
pub(crate) fn format_time_ago(time: Timestamp) -> String {
    let age = Timestamp::now().duration_since(time);
    let age = Duration::try_from(age).unwrap_or_default();
    format!("{} ago", format::age(age))
}

pub(crate) fn interrupted_job(view: &View, id: InterruptedId) -> Option<&InterruptedJob> {
    view.interrupted_jobs.iter().find(|job| job.id == id)
}

impl App {
    /// Returns the interrupted job that is selected on the open Jobs page.
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

    /// Removes the selected row if it is an interrupted job, so that the next key acts on the next row.
    ///
    /// The row reappears with the next view if the command for it fails.
    pub(crate) fn drop_interrupted_row(&mut self) {
        if let Some(id) = self.selected_interrupted() {
            self.page
                .items
                .retain(|item| item.key != JobRowKey::Interrupted(id));
            self.page.list.update(&self.page.items);
        }
    }

    /// Returns the job of this run that is selected on the Jobs page.
    pub(crate) fn page_job(&self) -> Option<&Arc<JobView>> {
        match self.page.current()? {
            JobRowKey::Job(id) => self.view.jobs.iter().find(|job| job.id == id),
            JobRowKey::Interrupted(_) => None,
        }
    }

    /// Opens the page, or returns to the list it was opened from.
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

/// Returns the commands that retry the selected failed or cancelled job, or resume the interrupted one.
pub(crate) fn retry(app: &App) -> Result<Vec<Command>, String> {
    if let Some(id) = app.selected_interrupted() {
        return Ok(vec![Command::ResumeInterrupted(vec![id])]);
    }
    let job = selected(app).ok_or(NO_JOB)?;
    match &job.state {
        JobState::Failed(_) => Ok(vec![Command::Retry(job.id, job.operation.clone())]),
        JobState::Finished(_) => Err("this job has finished".to_owned()),
        _ => Err("this job is not finished".to_owned()),
    }
}

/// Returns the command that moves the selected job by `by` positions in the queue.
pub(crate) fn shift(app: &App, by: isize) -> Result<Vec<Command>, String> {
    let job = selected(app).ok_or(NO_JOB)?;
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
