//! Pages: the three lists, and what replaces them. A page has the state of its lists and draws them; it knows nothing of
//! dialogs, keys and the engine.

mod frame;
pub(crate) mod hosts;
pub(crate) mod jobs;
pub(crate) mod lists;
pub(crate) mod locations;
pub(crate) mod tree;
pub(crate) mod wall;

use std::fmt::Debug;
use std::time::Instant;

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::actions::Pane;
use super::areas::Areas;
use super::cell::Place;
use super::dialog::TextInput;
use super::facts::AnnotationsQuery;
use super::list::{Change, Sort, Summary};
use super::theme::Appearance;
use super::world::World;
use snapdeck_engine::{InterruptedId, JobId};
use snapdeck_model::{HostName, SandboxId, SnapshotName};

/// Text of a page without snapshots.
const NO_SNAPSHOTS: &str = " no snapshots on any reachable host or in the bucket";

/// The thing that a row is about. Actions apply to subjects, whatever page they are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Sandbox(HostName, SandboxId),
    /// A snapshot in a place, whether it is there or not.
    Snapshot(SnapshotName, Place),
    Job(JobId),
    Interrupted(InterruptedId),
    /// A job of an earlier run, by its end time.
    Past(Timestamp),
    /// The partial file of an interrupted pull on a host.
    Partial(HostName, SnapshotName),
    Host(HostName),
}

/// The state that a page needs to draw itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrawContext<'a> {
    pub world: &'a World,
    pub appearance: &'a Appearance,
    pub focus: Pane,
    /// The pane whose selected row the details show.
    pub list: Pane,
    /// The filter while it is edited.
    pub filter_input: Option<&'a TextInput>,
    /// The pane with the focus has the whole screen.
    pub is_zoomed: bool,
    /// The setup is possible.
    pub can_set_up: bool,
    pub now: Instant,
}

/// A page, or several lists that are shown together. `pane` is one of the page's own panes.
pub(crate) trait Page: Debug {
    /// Updates the rows for the world as it is now. Called only while the page is open.
    fn update(&mut self, world: &World);

    /// Frees what is only needed while the page is open.
    fn close(&mut self) {}

    fn apply(&mut self, pane: Pane, change: Change, world: &World);

    fn summary(&self, pane: Pane) -> Summary<'_>;

    /// Returns what the selected row is about.
    fn selected(&self, pane: Pane, world: &World) -> Option<Subject>;

    /// Returns what the marked rows are about; the selected row if none is marked.
    fn chosen(&self, pane: Pane, world: &World) -> Vec<Subject> {
        self.selected(pane, world).into_iter().collect()
    }

    /// Selects the row about `subject`, or one that is related to it, if there is one.
    fn select(&mut self, subject: &Subject, world: &World);

    /// Moves by so many columns; returns false if the page has no columns.
    fn move_column(&mut self, _by: isize, _world: &mut World) -> bool {
        false
    }

    /// Returns the annotations that the filter of `pane` needs, if any.
    fn annotations_query(&self, _pane: Pane, _world: &World) -> Option<AnnotationsQuery> {
        None
    }

    /// Returns the sort order of `pane`; `None` if its rows have a fixed order.
    fn sort(&self, _pane: Pane) -> Option<Sort> {
        None
    }

    /// Returns whether the row of a family of snapshots is selected in `pane`.
    fn is_family_selected(&self, _pane: Pane) -> bool {
        false
    }

    /// Returns the lines that the page needs to show all rows in `width` columns, borders included.
    fn desired_height(&self, context: &DrawContext<'_>, width: u16) -> usize;

    /// Returns the details of the selected row if only the page knows them.
    fn details(&self, _context: &DrawContext<'_>, _width: usize) -> Option<Vec<Line<'static>>> {
        None
    }

    fn draw(&self, context: &DrawContext<'_>, frame: &mut Frame, area: Rect, areas: &mut Areas);

    /// Stores the first visible row of the last frame.
    fn set_offset(&mut self, pane: Pane, first: usize);
}

/// All pages.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub lists: lists::Lists,
    pub locations: locations::Locations,
    pub tree: tree::Tree,
    pub jobs: jobs::Jobs,
    pub hosts: hosts::Hosts,
    pub wall: wall::Wall,
}

impl Pages {
    /// Returns the page that has `pane`; the lists for panes that belong to no page.
    pub(crate) fn with(&self, pane: Pane) -> &dyn Page {
        match pane {
            Pane::Matrix => &self.locations,
            Pane::Tree => &self.tree,
            Pane::JobsPage | Pane::Jobs => &self.jobs,
            Pane::Hosts => &self.hosts,
            Pane::Wall => &self.wall,
            Pane::Sandboxes | Pane::Snapshots | Pane::Bucket | Pane::Details | Pane::Log => {
                &self.lists
            }
        }
    }

    pub(crate) fn with_mut(&mut self, pane: Pane) -> &mut dyn Page {
        match pane {
            Pane::Matrix => &mut self.locations,
            Pane::Tree => &mut self.tree,
            Pane::JobsPage | Pane::Jobs => &mut self.jobs,
            Pane::Hosts => &mut self.hosts,
            Pane::Wall => &mut self.wall,
            Pane::Sandboxes | Pane::Snapshots | Pane::Bucket | Pane::Details | Pane::Log => {
                &mut self.lists
            }
        }
    }
}
