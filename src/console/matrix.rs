//! The matrix of the Locations page: a row for each snapshot, a column for the bucket and each host.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::actions::Pane;
use super::app::App;
use super::cell::{Cell, Place, State, places};
use super::list::{Change, List};
use super::lookup;
use snapdeck_engine::{JobView, Link, View};
use snapdeck_model::{HostName, SnapshotName};

#[derive(Debug)]
pub(crate) struct Matrix {
    /// The state of the rows.
    pub list: List<SnapshotName>,
    /// All rows, sorted.
    pub names: Vec<SnapshotName>,
    /// The columns: the bucket, then the hosts.
    pub places: Vec<Place>,
    /// The current column.
    pub place: Place,
    /// The first visible one of the scrolling columns.
    pub first_column: usize,
    /// The list to return to.
    pub opened_from: Pane,
    /// Marked cells.
    marks: HashSet<(SnapshotName, HostName)>,
    /// The row whose mark was toggled last.
    anchor: Option<SnapshotName>,
    /// The last job about each cell.
    jobs: HashMap<(SnapshotName, Place), Arc<JobView>>,
    source_lists: Vec<usize>,
    /// Snapshots of active jobs.
    pending_names: Vec<SnapshotName>,
}

impl Default for Matrix {
    fn default() -> Self {
        Self {
            list: List::default(),
            names: Vec::new(),
            places: Vec::new(),
            place: Place::Bucket,
            first_column: 0,
            opened_from: Pane::Snapshots,
            marks: HashSet::new(),
            anchor: None,
            jobs: HashMap::new(),
            source_lists: Vec::new(),
            pending_names: Vec::new(),
        }
    }
}

impl Matrix {
    /// Updates jobs, and rows and columns if a list has changed. The caller keeps the previous view alive: lists are
    /// compared by address.
    pub(crate) fn update(&mut self, view: &View) {
        self.jobs = HashMap::new();
        for job in &view.jobs {
            let Some(name) = job.operation.snapshot() else {
                continue;
            };
            let cells = places(&job.operation).map(|place| ((name.clone(), place), job.clone()));
            self.jobs.extend(cells);
        }
        let addresses = view
            .hosts
            .iter()
            .map(|host| lookup::address(&host.snapshots));
        let source_lists: Vec<usize> = addresses
            .chain([lookup::address(&view.bucket.objects)])
            .collect();
        // A snapshot that is being pushed exists nowhere yet; its row shows the progress.
        let active = view.jobs.iter().filter(|job| !job.state.is_finished());
        let active = active.filter(|job| places(&job.operation).next().is_some());
        let pending_names: Vec<SnapshotName> = active
            .filter_map(|job| job.operation.snapshot().cloned())
            .collect();
        if (&self.source_lists, &self.pending_names) == (&source_lists, &pending_names) {
            return;
        }
        (self.source_lists, self.pending_names) = (source_lists, pending_names);
        let hosts = view.hosts.iter().map(|host| Place::Host(host.name.clone()));
        self.places = [Place::Bucket].into_iter().chain(hosts).collect();
        let objects = view.bucket.objects.iter().map(|object| &object.name);
        let snapshots = view.hosts.iter().flat_map(|host| host.snapshots.iter());
        let names = objects.chain(snapshots.map(|snapshot| &snapshot.name));
        let names: HashSet<&SnapshotName> = names.chain(&self.pending_names).collect();
        self.marks.retain(|(name, _)| names.contains(name));
        self.names = names.into_iter().cloned().collect();
        self.names.sort_unstable();
        self.list.update(&self.names);
    }

    /// Clears the addresses of the lists, which are not kept alive while the matrix is closed.
    pub(crate) fn close(&mut self) {
        self.source_lists.clear();
        self.jobs.clear();
    }

    /// Applies `change`. Marks are those of the current column's cells; in the bucket's column, those of all hosts.
    pub(crate) fn change(&mut self, change: Change) {
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
            change => self.list.apply(&self.names, change),
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

    pub(crate) fn marked_count(&self) -> usize {
        self.marks.len()
    }

    pub(crate) fn is_marked(&self, name: &SnapshotName, place: &Place) -> bool {
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
    pub(crate) fn chosen_cells(&self) -> Vec<(SnapshotName, Place)> {
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
    pub(crate) fn column(&self) -> usize {
        let column = self.places.iter().position(|place| *place == self.place);
        column.unwrap_or(0)
    }

    pub(crate) fn move_column(&mut self, by: isize) {
        let last = self.places.len().saturating_sub(1);
        let column = self.column().saturating_add_signed(by).min(last);
        if let Some(place) = self.places.get(column) {
            self.place = place.clone();
        }
    }

    /// Returns whether to draw the bucket's column first, and the scrolling columns to draw, `room` in all.
    ///
    /// The current column is always among them; the bucket's column too, unless `room` is 1.
    pub(crate) fn window(&self, room: usize) -> (bool, Range<usize>) {
        let pinned = room > 1;
        let (from, room) = if pinned { (1, room - 1) } else { (0, room) };
        let end = self.places.len();
        let current = self.column().max(from);
        let latest = end.saturating_sub(room).max(from);
        let first = self.first_column.clamp(from, latest).min(current);
        let first = first.max((current + 1).saturating_sub(room)).max(from);
        (pinned, first..(first + room).min(end).max(first))
    }
}

impl App {
    /// Returns a cell of the open matrix.
    pub(crate) fn cell(&self, name: &SnapshotName, place: &Place) -> Cell<'_> {
        let view = &self.view;
        let job = self.matrix.jobs.get(&(name.clone(), place.clone()));
        match place {
            Place::Bucket => {
                let bucket = &view.bucket;
                let object = self.index.position(name);
                let object = object.and_then(|index| bucket.objects.get(index));
                let state = State::of_bucket(bucket, object);
                Cell::new(state, &bucket.link, bucket.last_listing, job)
            }
            Place::Host(host_name) => {
                let host = lookup::host(view, host_name);
                let (Some(host), Some(lists)) = (host, self.hosts.get(host_name)) else {
                    return Cell::new(State::Unknown, &Link::Connecting, None, job);
                };
                let snapshot = lists.index.position(name);
                let snapshot = snapshot.and_then(|index| host.snapshots.get(index));
                let state = State::of_host(host, snapshot, self.index.size(name));
                Cell::new(state, &host.link, host.last_scan, job)
            }
        }
    }

    /// Opens the matrix at the selected item.
    pub(crate) fn open_matrix(&mut self) {
        let place = match (self.list, &self.host) {
            (Pane::Bucket, _) | (_, None) => Place::Bucket,
            (_, Some(host)) => Place::Host(host.clone()),
        };
        let (name, place) = match self.list {
            Pane::Matrix => return self.focus_on(Pane::Matrix),
            Pane::Sandboxes => {
                let sandbox = self.sandbox();
                (
                    sandbox.and_then(|(_, sandbox)| sandbox.base().cloned()),
                    place,
                )
            }
            Pane::Bucket => {
                let object = self.objects.current(&self.view.bucket.objects);
                (object.map(|object| object.name.clone()), place)
            }
            _ => match self.snapshot() {
                Some((host, snapshot)) => {
                    (Some(snapshot.name.clone()), Place::Host(host.name.clone()))
                }
                None => (None, place),
            },
        };
        self.matrix.opened_from = self.list;
        self.matrix.place = place;
        let view = self.view.clone();
        self.matrix.update(&view);
        if let Some(name) = name {
            self.matrix.list.select_key(&self.matrix.names, &name);
        }
        self.focus_on(Pane::Matrix);
    }

    pub(crate) fn close_matrix(&mut self) {
        self.matrix.close();
        self.focus_on(self.matrix.opened_from);
    }
}
