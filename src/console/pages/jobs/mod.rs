//! Jobs: the pane below the lists, and the Jobs page with the interrupted jobs of an earlier run, then running, queued and
//! finished jobs.

mod view;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::Rect;

use super::{DrawContext, Page, Subject};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::columns::Row;
use crate::format;
use crate::list::{Change, List, Summary};
use crate::lookup;
use crate::world::World;
use snapdeck_engine::{HostView, InterruptedId, InterruptedJob, JobId, JobState, JobView, View};
use snapdeck_model::{HostName, Operation, PartialPull, SnapshotName};

pub(crate) use view::{draw_pane, pane_title, push_details, recent_lines};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum JobRowKey {
    Interrupted(InterruptedId),
    /// The partial file of an interrupted pull on a host.
    Partial(HostName, SnapshotName),
    Job(JobId),
    /// A job of an earlier run, by its end time.
    Past(Timestamp),
}

/// The sections of the page, from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobSection {
    Interrupted,
    /// Partial files of pulls that no journal has.
    Partial,
    /// Running or cancelling.
    Running,
    Queued,
    Finished,
    /// Ended in an earlier run, or in another process.
    Earlier,
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

/// Both lists of jobs.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// The rows of the page.
    list: List<JobRowKey>,
    items: Vec<JobRow>,
    /// The jobs of the pane.
    pane: List<JobId>,
    jobs: Vec<Arc<JobView>>,
}

fn section(job: &JobView) -> JobSection {
    match job.state {
        JobState::Queued => JobSection::Queued,
        JobState::Running | JobState::Cancelling => JobSection::Running,
        JobState::Finished(_) | JobState::Failed(_) => JobSection::Finished,
    }
}

impl Jobs {
    /// Rebuilds the rows of the page. Finished jobs are listed newest first.
    fn rebuild(&mut self, world: &World) {
        let view = world.view();
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
        let partial = |host: &Arc<HostView>, partial: &PartialPull| JobRow {
            key: JobRowKey::Partial(host.name.clone(), partial.name.clone()),
            section: JobSection::Partial,
            title: format!("pull {} → {}", partial.name, host.name),
        };
        let is_offered = |host: &HostView, name: &SnapshotName| {
            let operations = view.interrupted_jobs.iter().flat_map(|job| &job.operations);
            operations.into_iter().any(|operation| {
                matches!(operation, Operation::Pull { host: to, name: pulled, .. }
                    if *to == host.name && pulled == name)
            })
        };
        let partials = view.hosts.iter().flat_map(|host| {
            let partials = lookup::interrupted_partials(view, host);
            let others = partials.filter(|one| !is_offered(host, &one.name));
            others.map(move |one| partial(host, one))
        });
        self.items = interrupted
            .chain(partials)
            .chain(jobs_in(JobSection::Running).map(row))
            .chain(jobs_in(JobSection::Queued).map(row))
            .chain(finished.into_iter().map(row))
            .chain(world.past_jobs().map(|entry| JobRow {
                key: JobRowKey::Past(entry.ended_at),
                section: JobSection::Earlier,
                title: entry.title.clone(),
            }))
            .collect();
        self.list.update(&self.items);
    }

    /// Updates the pane, which is shown on other pages.
    pub(crate) fn update_pane(&mut self, world: &World) {
        self.jobs.clone_from(&world.view().jobs);
        self.pane.update(&self.jobs);
    }

    fn current(&self) -> Option<JobRowKey> {
        self.list.current(&self.items).map(|item| item.key.clone())
    }

    /// Removes the row of an interrupted job, so that the next key acts on the next row.
    ///
    /// The row reappears with the next view if the command for it fails.
    pub(crate) fn drop_interrupted(&mut self, id: InterruptedId) {
        self.items
            .retain(|item| item.key != JobRowKey::Interrupted(id));
        self.list.update(&self.items);
    }
}

/// Returns an age: `3m ago`.
pub(crate) fn format_time_ago(time: Timestamp) -> String {
    let age = Timestamp::now().duration_since(time);
    let age = Duration::try_from(age).unwrap_or_default();
    format!("{} ago", format::age(age))
}

pub(crate) fn interrupted_job(view: &View, id: InterruptedId) -> Option<&InterruptedJob> {
    view.interrupted_jobs.iter().find(|job| job.id == id)
}

impl Page for Jobs {
    fn update(&mut self, world: &World) {
        self.rebuild(world);
    }

    fn apply(&mut self, pane: Pane, change: Change, _world: &World) {
        match pane {
            Pane::Jobs => self.pane.apply(&self.jobs, change),
            _ => self.list.apply(&self.items, change),
        }
    }

    fn summary(&self, pane: Pane) -> Summary<'_> {
        match pane {
            Pane::Jobs => self.pane.summary(self.jobs.len()),
            _ => self.list.summary(self.items.len()),
        }
    }

    fn selected(&self, pane: Pane, _world: &World) -> Option<Subject> {
        match pane {
            Pane::Jobs => self
                .pane
                .current(&self.jobs)
                .map(|job| Subject::Job(job.id)),
            _ => self.current().map(|key| match key {
                JobRowKey::Job(id) => Subject::Job(id),
                JobRowKey::Interrupted(id) => Subject::Interrupted(id),
                JobRowKey::Partial(host, name) => Subject::Partial(host, name),
                JobRowKey::Past(ended_at) => Subject::Past(ended_at),
            }),
        }
    }

    fn select(&mut self, subject: &Subject, _world: &World) {
        let key = match subject {
            Subject::Job(id) => JobRowKey::Job(*id),
            Subject::Interrupted(id) => JobRowKey::Interrupted(*id),
            Subject::Past(ended_at) => JobRowKey::Past(*ended_at),
            Subject::Partial(host, name) => JobRowKey::Partial(host.clone(), name.clone()),
            Subject::Sandbox(..) | Subject::Snapshot(..) | Subject::Host(_) => return,
        };
        self.list.select_key(&self.items, &key);
    }

    fn desired_height(&self, context: &DrawContext<'_>, _width: u16) -> usize {
        let chart = match context.world.rates().has_history() && !context.appearance.plain {
            true => usize::from(view::MAX_CHART),
            false => 0,
        };
        self.list.len().max(1) + 2 + chart
    }

    fn draw(&self, context: &DrawContext<'_>, frame: &mut Frame, area: Rect, areas: &mut Areas) {
        view::draw(self, context, frame, area, areas);
    }

    fn set_offset(&mut self, pane: Pane, first: usize) {
        match pane {
            Pane::Jobs => self.pane.offset = first,
            _ => self.list.offset = first,
        }
    }
}
