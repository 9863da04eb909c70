//! The jobs page: what was left by an earlier run, what runs, what waits and in which order, and what is over.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::actions::Pane;
use super::app::{App, Command};
use super::fields::Row;
use super::format;
use super::list::List;
use snapdeck_engine::{JobId, JobState, JobView, LeftId, LeftJob, View};

/// What tells a row from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// Left by an earlier run.
    Left(LeftId),
    /// Of this one.
    Job(JobId),
}

/// The parts of the page, from its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Left by an earlier run.
    Left,
    /// Runs, or cleans up.
    Running,
    /// Waits for its turn.
    Queue,
    /// Is over.
    Over,
}

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    key: Key,
    /// The part it stands in.
    pub part: Part,
    title: String,
}

impl Row for Item {
    type Key = Key;
    fn key(&self) -> &Key {
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
    pub list: List<Key>,
    /// Its rows.
    pub items: Vec<Item>,
    /// The list it was opened from.
    pub back: Pane,
}

impl Default for JobsPage {
    fn default() -> Self {
        Self {
            list: List::default(),
            items: Vec::new(),
            back: Pane::Sandboxes,
        }
    }
}

fn part(job: &JobView) -> Part {
    match job.state {
        JobState::Queued => Part::Queue,
        JobState::Running | JobState::Cancelling => Part::Running,
        JobState::Done(_) | JobState::Failed(_) => Part::Over,
    }
}

impl JobsPage {
    /// Takes up a view. Jobs that are over come newest first: the one that just ended is the one that is looked for.
    pub(crate) fn sync(&mut self, view: &View) {
        let left = view.left.iter().map(|left| Item {
            key: Key::Left(left.id),
            part: Part::Left,
            title: left.title.clone(),
        });
        let item = |job: &Arc<JobView>| Item {
            key: Key::Job(job.id),
            part: part(job),
            title: job.operation.title(),
        };
        let of = |wanted: Part| view.jobs.iter().filter(move |job| part(job) == wanted);
        let mut over: Vec<&Arc<JobView>> = of(Part::Over).collect();
        over.sort_by_key(|job| std::cmp::Reverse((job.ended, job.id)));
        self.items = left
            .chain(of(Part::Running).map(item))
            .chain(of(Part::Queue).map(item))
            .chain(over.into_iter().map(item))
            .collect();
        self.list.sync(&self.items);
    }

    /// The selected row.
    pub(crate) fn current(&self) -> Option<Key> {
        self.list.current(&self.items).map(|item| item.key)
    }
}

/// `3 minutes ago`, as ages are told.
pub(crate) fn ago(at: Timestamp) -> String {
    let age = Timestamp::now().duration_since(at);
    let age = Duration::try_from(age).unwrap_or_default();
    format!("{} ago", format::age(age))
}

/// What was left, by its number.
pub(crate) fn left(view: &View, id: LeftId) -> Option<&LeftJob> {
    view.left.iter().find(|left| left.id == id)
}

impl App {
    /// What was left and is selected on the jobs page.
    pub(crate) fn selected_left(&self) -> Option<LeftId> {
        match self
            .page
            .current()
            .filter(|_| self.list == Pane::JobsPage)?
        {
            Key::Left(id) => Some(id),
            Key::Job(_) => None,
        }
    }

    /// Takes the selected row off the jobs page where its job was left: something is done to it, and the next key is
    /// for the next row. What comes to nothing is there again with the next view.
    pub(crate) fn drop_left_row(&mut self) {
        if let Some(id) = self.selected_left() {
            self.page.items.retain(|item| item.key != Key::Left(id));
            self.page.list.sync(&self.page.items);
        }
    }

    /// The job that is selected on the jobs page.
    pub(crate) fn page_job(&self) -> Option<&Arc<JobView>> {
        match self.page.current()? {
            Key::Job(id) => self.view.jobs.iter().find(|job| job.id == id),
            Key::Left(_) => None,
        }
    }

    /// Opens the page, or goes back from it.
    pub(crate) fn turn_jobs_page(&mut self) {
        if self.list == Pane::JobsPage {
            return self.focus_on(self.page.back);
        }
        self.page.back = match self.list {
            Pane::Matrix | Pane::Tree => self.page.back,
            list => list,
        };
        let view = self.view.clone();
        self.page.sync(&view);
        self.focus_on(Pane::JobsPage);
    }
}

/// What retrying does: what failed or was cancelled is asked for anew, what was left goes on.
pub(crate) fn retry(app: &App) -> Result<Vec<Command>, String> {
    if let Some(id) = app.selected_left() {
        return Ok(vec![Command::ResumeLeft(vec![id])]);
    }
    let job = selected(app).ok_or("there is no job")?;
    match &job.state {
        JobState::Failed(_) => Ok(vec![Command::Retry(job.id, job.operation.clone())]),
        JobState::Done(_) => Err("this job has done its work".to_owned()),
        _ => Err("this job is not over".to_owned()),
    }
}

/// Moves the selected job in the queue.
pub(crate) fn shift(app: &App, by: isize) -> Result<Vec<Command>, String> {
    let job = selected(app).ok_or("there is no job")?;
    match job.state {
        JobState::Queued => Ok(vec![Command::Shift(job.id, by)]),
        _ => Err("only a job that waits for its turn can be moved".to_owned()),
    }
}

fn selected(app: &App) -> Option<&Arc<JobView>> {
    match app.focus {
        Pane::JobsPage => app.page_job(),
        _ => app.jobs.current(&app.view.jobs),
    }
}
