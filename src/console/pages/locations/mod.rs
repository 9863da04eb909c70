//! The Locations page: a row for each snapshot, a column for the bucket and each host.

mod view;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{DrawContext, Page, Subject};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::cell::{self, Cell, Place, State, places};
use crate::dialog::describe_location;
use crate::facts::AnnotationsQuery;
use crate::list::{Change, List, Summary};
use crate::world::World;
use snapdeck_engine::{JobView, Link, View};
use snapdeck_model::{HostName, Object, Snapshot, SnapshotName};

/// The snapshots of each host, and the objects, from which rows and columns were built.
type SourceLists = (Vec<Arc<[Snapshot]>>, Arc<[Object]>);

#[derive(Debug)]
pub(crate) struct Locations {
    /// The state of the rows.
    list: List<SnapshotName>,
    /// All rows, sorted.
    names: Vec<SnapshotName>,
    /// Length of the longest name.
    widest: usize,
    /// The columns: the bucket, then the hosts.
    places: Vec<Place>,
    /// The current column.
    place: Place,
    /// The first visible one of the scrolling columns.
    first_column: usize,
    /// Marked cells.
    marks: HashSet<(SnapshotName, HostName)>,
    /// The row whose mark was toggled last.
    anchor: Option<SnapshotName>,
    /// The last job about each cell.
    jobs: HashMap<(SnapshotName, Place), Arc<JobView>>,
    source_lists: Option<SourceLists>,
    /// Snapshots of active jobs.
    pending_names: Vec<SnapshotName>,
    /// The version of the facts by which the rows are filtered.
    facts_version: u64,
}

impl Default for Locations {
    fn default() -> Self {
        Self {
            list: List::default(),
            names: Vec::new(),
            widest: 0,
            places: Vec::new(),
            place: Place::Bucket,
            first_column: 0,
            marks: HashSet::new(),
            anchor: None,
            jobs: HashMap::new(),
            source_lists: None,
            pending_names: Vec::new(),
            facts_version: 0,
        }
    }
}

impl Locations {
    /// Updates jobs, and rows and columns if a list has changed.
    fn rebuild(&mut self, world: &World) {
        let view: &View = world.view();
        let facts_version = std::mem::replace(&mut self.facts_version, world.facts_version());
        self.jobs = HashMap::new();
        for job in &view.jobs {
            let Some(name) = job.operation.snapshot() else {
                continue;
            };
            let cells = places(&job.operation).map(|place| ((name.clone(), place), job.clone()));
            self.jobs.extend(cells);
        }
        let snapshots = view.hosts.iter().map(|host| host.snapshots.clone());
        let source_lists = (snapshots.collect::<Vec<_>>(), view.bucket.objects.clone());
        // A snapshot that is being pushed exists nowhere yet; its row shows the progress.
        let active = view.jobs.iter().filter(|job| !job.state.is_finished());
        let active = active.filter(|job| places(&job.operation).next().is_some());
        let pending_names: Vec<SnapshotName> = active
            .filter_map(|job| job.operation.snapshot().cloned())
            .collect();
        let is_same = self
            .source_lists
            .as_ref()
            .is_some_and(|(snapshots, objects)| {
                let same = |(a, b): (&Arc<[Snapshot]>, &Arc<[Snapshot]>)| Arc::ptr_eq(a, b);
                Arc::ptr_eq(objects, &source_lists.1)
                    && snapshots.len() == source_lists.0.len()
                    && snapshots.iter().zip(&source_lists.0).all(same)
            });
        if is_same && self.pending_names == pending_names {
            if facts_version != self.facts_version && self.list.query().has_facts() {
                self.list.apply_filter(&self.names, world);
            }
            return;
        }
        (self.source_lists, self.pending_names) = (Some(source_lists), pending_names);
        let hosts = view.hosts.iter().map(|host| Place::Host(host.name.clone()));
        self.places = [Place::Bucket].into_iter().chain(hosts).collect();
        let objects = view.bucket.objects.iter().map(|object| &object.name);
        let snapshots = view.hosts.iter().flat_map(|host| host.snapshots.iter());
        let names = objects.chain(snapshots.map(|snapshot| &snapshot.name));
        let names: HashSet<&SnapshotName> = names.chain(&self.pending_names).collect();
        self.marks.retain(|(name, _)| names.contains(name));
        self.names = names.into_iter().cloned().collect();
        self.names.sort_unstable();
        let lengths = self.names.iter().map(|name| name.as_str().len());
        self.widest = lengths.max().unwrap_or(0);
        self.list.update_with(&self.names, world);
    }

    /// Applies `change`. Marks are those of the current column's cells; in the bucket's column, those of all hosts.
    fn change(&mut self, change: Change, world: &World) {
        match change {
            Change::Mark => {
                let row = self.list.row();
                self.anchor = self.list.current(&self.names).cloned();
                self.toggle(row);
                self.list.apply(&self.names, Change::MoveBy(1));
            }
            Change::MarkRange => {
                let row = self.list.row();
                let anchor = self.anchor.as_ref();
                let from = anchor.and_then(|name| self.list.row_of(&self.names, name));
                let from = from.unwrap_or(row);
                for row in from.min(row)..=from.max(row) {
                    self.marks.extend(self.cells(row));
                }
                self.anchor = self.list.current(&self.names).cloned();
            }
            Change::MarkAll => {
                for row in 0..self.list.len() {
                    self.marks.extend(self.cells(row));
                }
            }
            Change::Invert => (0..self.list.len()).for_each(|row| self.toggle(row)),
            Change::Unmark => self.marks.clear(),
            change => self.list.apply_with(&self.names, change, world),
        }
    }

    /// Returns the cells of a row that a mark in the current column marks.
    fn cells(&self, row: usize) -> Vec<(SnapshotName, HostName)> {
        let name = self.list.item(row).and_then(|item| self.names.get(item));
        let Some(name) = name else { return Vec::new() };
        match &self.place {
            Place::Host(host) => vec![(name.clone(), host.clone())],
            Place::Bucket => self
                .hosts()
                .map(|host| (name.clone(), host.clone()))
                .collect(),
        }
    }

    fn toggle(&mut self, row: usize) {
        let cells = self.cells(row);
        if cells.iter().all(|cell| self.marks.contains(cell)) {
            self.marks.retain(|cell| !cells.contains(cell));
        } else {
            self.marks.extend(cells);
        }
    }

    fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.places.iter().filter_map(|place| match place {
            Place::Host(host) => Some(host),
            Place::Bucket => None,
        })
    }

    fn is_marked(&self, name: &SnapshotName, place: &Place) -> bool {
        match place {
            Place::Bucket => false,
            Place::Host(_) if self.marks.is_empty() => false,
            Place::Host(host) => self.marks.contains(&(name.clone(), host.clone())),
        }
    }

    /// Returns the current cell.
    pub(crate) fn current(&self) -> Option<(&SnapshotName, &Place)> {
        Some((self.list.current(&self.names)?, &self.place))
    }

    /// Returns the marked cells; the current one if none is marked.
    fn chosen_cells(&self) -> Vec<(SnapshotName, Place)> {
        if self.marks.is_empty() {
            let current = self.current().into_iter();
            return current
                .map(|(name, place)| (name.clone(), place.clone()))
                .collect();
        }
        let mut marked: Vec<_> = self.marks.iter().cloned().collect();
        marked.sort_unstable();
        let cells = marked.into_iter();
        cells
            .map(|(name, host)| (name, Place::Host(host)))
            .collect()
    }

    /// Returns the number of the current column.
    fn column(&self) -> usize {
        let column = self.places.iter().position(|place| *place == self.place);
        column.unwrap_or(0)
    }

    /// Returns whether to draw the bucket's column first, and the scrolling columns to draw, `room` in all.
    ///
    /// The current column is always among them; the bucket's column too, unless `room` is 1.
    fn window(&self, room: usize) -> (bool, Range<usize>) {
        let pinned = room > 1;
        let (from, room) = if pinned { (1, room - 1) } else { (0, room) };
        let end = self.places.len();
        let current = self.column().max(from);
        let latest = end.saturating_sub(room).max(from);
        let first = self.first_column.clamp(from, latest).min(current);
        let first = first.max((current + 1).saturating_sub(room)).max(from);
        (pinned, first..(first + room).min(end).max(first))
    }

    /// Makes the column of `place` the current one.
    pub(crate) fn set_place(&mut self, place: Place) {
        self.place = place;
    }

    pub(crate) fn set_first_column(&mut self, first: usize) {
        self.first_column = first;
    }

    /// Returns the state of a cell.
    pub(crate) fn cell<'a>(
        &'a self,
        world: &'a World,
        name: &SnapshotName,
        place: &Place,
    ) -> Cell<'a> {
        let job = self.jobs.get(&(name.clone(), place.clone()));
        match place {
            Place::Bucket => {
                let bucket = &world.view().bucket;
                let state = State::of_bucket(bucket, world.object(name));
                Cell::new(state, &bucket.link, bucket.last_listing, job)
            }
            Place::Host(host_name) => {
                let Some(host) = world.host(host_name) else {
                    return Cell::new(State::Unknown, &Link::Connecting, None, job);
                };
                let snapshot = world.snapshot(host_name, name);
                let state = State::of_host(host, snapshot, world.object_size(name));
                Cell::new(state, &host.link, host.last_scan, job)
            }
        }
    }
}

impl Page for Locations {
    fn update(&mut self, world: &World) {
        self.rebuild(world);
    }

    fn close(&mut self) {
        self.source_lists = None;
        self.jobs.clear();
    }

    fn apply(&mut self, _pane: Pane, change: Change, world: &World) {
        self.change(change, world);
    }

    fn annotations_query(&self, _pane: Pane, world: &World) -> Option<AnnotationsQuery> {
        let needs_them = self.list.query().has_annotations();
        needs_them.then(|| AnnotationsQuery::about_all(world))
    }

    fn summary(&self, _pane: Pane) -> Summary<'_> {
        Summary {
            marked: self.marks.len(),
            ..self.list.summary(self.names.len())
        }
    }

    fn selected(&self, _pane: Pane, _world: &World) -> Option<Subject> {
        let (name, place) = self.current()?;
        Some(Subject::Snapshot(name.clone(), place.clone()))
    }

    fn chosen(&self, _pane: Pane, _world: &World) -> Vec<Subject> {
        let cells = self.chosen_cells().into_iter();
        cells
            .map(|(name, place)| Subject::Snapshot(name, place))
            .collect()
    }

    fn select(&mut self, subject: &Subject, world: &World) {
        let name = match subject {
            Subject::Snapshot(name, place) => {
                self.place = place.clone();
                Some(name.clone())
            }
            Subject::Sandbox(host, id) => {
                self.place = Place::Host(host.clone());
                world
                    .sandbox(host, id)
                    .and_then(|sandbox| sandbox.base().cloned())
            }
            Subject::Host(host) => {
                self.place = Place::Host(host.clone());
                None
            }
            Subject::Partial(host, name) => {
                self.place = Place::Host(host.clone());
                Some(name.clone())
            }
            Subject::Job(_) | Subject::Interrupted(_) | Subject::Past(_) => None,
        };
        if let Some(name) = name {
            self.list.select_key(&self.names, &name);
        }
    }

    fn move_column(&mut self, by: isize, world: &mut World) -> bool {
        let last = self.places.len().saturating_sub(1);
        let column = self.column().saturating_add_signed(by).min(last);
        if let Some(place) = self.places.get(column) {
            self.place = place.clone();
        }
        if let Place::Host(host) = &self.place {
            world.set_current_host(host.clone());
        }
        true
    }

    fn desired_height(&self, _context: &DrawContext<'_>, _width: u16) -> usize {
        self.list.len().max(1) + 3
    }

    fn details(&self, context: &DrawContext<'_>, width: usize) -> Option<Vec<Line<'static>>> {
        let (name, place) = self.current()?;
        let theme = &context.appearance.theme;
        let mut lines = vec![Line::styled(format!(" {name}"), theme.title)];
        lines.extend(describe_places(context, name, Some(place), width));
        Some(lines)
    }

    fn draw(&self, context: &DrawContext<'_>, frame: &mut Frame, area: Rect, areas: &mut Areas) {
        view::draw(self, context, frame, area, areas);
    }

    fn set_offset(&mut self, _pane: Pane, first: usize) {
        self.list.offset = first;
    }
}

/// Describes where a snapshot is: the place `first`, then all others that have it, or of which that is unknown.
pub(crate) fn describe_places(
    context: &DrawContext<'_>,
    name: &SnapshotName,
    first: Option<&Place>,
    width: usize,
) -> Vec<Line<'static>> {
    let (view, theme) = (context.world.view(), &context.appearance.theme);
    let hosts = view.hosts.iter().map(|host| Place::Host(host.name.clone()));
    let others = [Place::Bucket].into_iter().chain(hosts);
    let others = others.filter(|place| Some(place) != first);
    let all = first.cloned().into_iter().chain(others);
    let describe = |place: Place| {
        let cell = cell::cell(view, name, &place);
        let is_missing = match place {
            Place::Bucket if view.bucket.link == Link::Unconfigured => true,
            _ => cell.state == State::Absent,
        };
        let is_shown = Some(&place) == first || cell.job.is_some() || !is_missing;
        is_shown.then(|| describe_location(view, &place, &cell, theme, width, context.now))
    };
    all.filter_map(describe).flatten().collect()
}
