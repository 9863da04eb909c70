//! The three lists: sandboxes and snapshots of the shown hosts, and the objects of the bucket.

mod rows;
mod view;

use std::sync::Arc;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{DrawContext, Page, Subject};
use crate::actions::{LISTS, Pane};
use crate::areas::Areas;
use crate::cell::Place;
use crate::columns::{ChosenColumns, Row};
use crate::facts::AnnotationsQuery;
use crate::host_list::{HostList, HostRow};
use crate::list::{Change, List, Sort, Summary};
use crate::world::World;
use snapdeck_model::{Object, Sandbox, SandboxState, Snapshot, SnapshotName};

#[cfg(test)]
pub(crate) use view::visible_rows;
pub(crate) use view::{state_sign, state_style};

#[derive(Debug)]
pub(crate) struct Lists {
    pub sandboxes: HostList<Sandbox>,
    pub snapshots: HostList<Snapshot>,
    pub objects: List<SnapshotName>,
    items: Arc<[Object]>,
    /// Whether `items` was a complete listing.
    is_complete: bool,
    totals: Totals,
    /// The columns of the lists, in the order of [`LISTS`].
    columns: [ChosenColumns; 3],
    /// The version of the facts by which the objects are filtered.
    facts_version: u64,
}

/// Sums for the titles of the lists, computed once for each change.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    running: usize,
    snapshot_bytes: u64,
    object_bytes: u64,
    /// Length of the longest name of each list.
    widest: [usize; 3],
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            sandboxes: HostList::new(|host| &host.sandboxes),
            snapshots: HostList::new(|host| &host.snapshots),
            objects: List::default(),
            items: Arc::default(),
            is_complete: false,
            totals: Totals::default(),
            columns: LISTS.map(ChosenColumns::new),
            facts_version: 0,
        }
    }
}

impl Lists {
    /// Returns the objects shown, which the rows refer to.
    pub(crate) fn items(&self) -> &[Object] {
        &self.items
    }

    pub(crate) fn columns(&self, pane: Pane) -> &ChosenColumns {
        let at = LISTS.iter().position(|list| *list == pane);
        &self.columns[at.unwrap_or(0)]
    }

    pub(crate) fn set_columns(&mut self, pane: Pane, columns: ChosenColumns) {
        if let Some(at) = LISTS.iter().position(|list| *list == pane) {
            self.columns[at] = columns;
        }
    }
}

fn widest<R: Row>(rows: &[R]) -> usize {
    rows.iter().map(|row| row.text().len()).max().unwrap_or(0)
}

impl Page for Lists {
    fn update(&mut self, world: &World) {
        if self.sandboxes.update(world) {
            let sandboxes = self.sandboxes.rows().iter().filter_map(HostRow::item);
            let running = sandboxes.filter(|sandbox| sandbox.state == SandboxState::Running);
            self.totals.running = running.count();
            self.totals.widest[0] = widest(self.sandboxes.rows());
        }
        if self.snapshots.update(world) {
            let snapshots = self.snapshots.rows().iter().filter_map(HostRow::item);
            let sizes = snapshots.map(|snapshot| snapshot.size_bytes);
            self.totals.snapshot_bytes = sizes.fold(0, u64::saturating_add);
            self.totals.widest[1] = widest(self.snapshots.rows());
        }
        let bucket = &world.view().bucket;
        let is_complete = bucket.last_listing.is_some();
        let facts_version = std::mem::replace(&mut self.facts_version, world.facts_version());
        if Arc::ptr_eq(&self.items, &bucket.objects) && is_complete == self.is_complete {
            if facts_version != self.facts_version && self.objects.query().has_facts() {
                self.objects.apply_filter(&self.items, world);
            }
            return;
        }
        self.items = bucket.objects.clone();
        let sizes = self.items.iter().map(|object| object.size_bytes);
        self.totals.object_bytes = sizes.fold(0, u64::saturating_add);
        self.totals.widest[2] = widest(&self.items);
        self.is_complete = is_complete;
        match is_complete {
            true => self.objects.update_with(&self.items, world),
            false => self.objects.update_partial(&self.items, world),
        }
    }

    fn apply(&mut self, pane: Pane, change: Change, world: &World) {
        match pane {
            Pane::Sandboxes => self.sandboxes.apply(change, world),
            Pane::Snapshots => self.snapshots.apply(change, world),
            Pane::Bucket => self.objects.apply_with(&self.items, change, world),
            _ => {}
        }
    }

    fn summary(&self, pane: Pane) -> Summary<'_> {
        match pane {
            Pane::Sandboxes => self.sandboxes.summary(),
            Pane::Snapshots => self.snapshots.summary(),
            Pane::Bucket => self.objects.summary(self.items.len()),
            _ => Summary::default(),
        }
    }

    fn selected(&self, pane: Pane, _world: &World) -> Option<Subject> {
        Some(match pane {
            Pane::Sandboxes => {
                let row = self.sandboxes.current()?;
                Subject::Sandbox(row.host().clone(), row.item()?.id.clone())
            }
            Pane::Snapshots => {
                let row = self.snapshots.current()?;
                let place = Place::Host(row.host().clone());
                Subject::Snapshot(row.item()?.name.clone(), place)
            }
            Pane::Bucket => {
                let object = self.objects.current(&self.items)?;
                Subject::Snapshot(object.name.clone(), Place::Bucket)
            }
            _ => return None,
        })
    }

    fn chosen(&self, pane: Pane, _world: &World) -> Vec<Subject> {
        match pane {
            Pane::Sandboxes => {
                let keys = self.sandboxes.chosen_keys().into_iter();
                keys.map(|(id, host)| Subject::Sandbox(host, id)).collect()
            }
            Pane::Snapshots => {
                let keys = self.snapshots.chosen_keys().into_iter();
                keys.map(|(name, host)| Subject::Snapshot(name, Place::Host(host)))
                    .collect()
            }
            Pane::Bucket => {
                let names = self.objects.chosen_keys(&self.items).into_iter();
                names
                    .map(|name| Subject::Snapshot(name, Place::Bucket))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn select(&mut self, subject: &Subject, _world: &World) {
        match subject {
            Subject::Sandbox(host, id) => self.sandboxes.select(&(id.clone(), host.clone())),
            Subject::Snapshot(name, Place::Host(host)) => {
                self.snapshots.select(&(name.clone(), host.clone()));
            }
            Subject::Snapshot(name, Place::Bucket) => self.objects.select_key(&self.items, name),
            Subject::Job(_)
            | Subject::Interrupted(_)
            | Subject::Past(_)
            | Subject::Partial(..)
            | Subject::Host(_) => {}
        }
    }

    fn annotations_query(&self, pane: Pane, world: &World) -> Option<AnnotationsQuery> {
        let hosts = world.shown_hosts();
        let hosts = hosts.map(|host| (host.name.clone(), host.snapshots.clone()));
        let (query, hosts, objects) = match pane {
            Pane::Snapshots => (self.snapshots.list().query(), hosts.collect(), None),
            Pane::Bucket => {
                let objects = world.view().bucket.objects.clone();
                (self.objects.query(), Vec::new(), Some(objects))
            }
            _ => return None,
        };
        query.has_annotations().then_some(AnnotationsQuery {
            hosts,
            objects,
            edits: 0,
        })
    }

    fn sort(&self, pane: Pane) -> Option<Sort> {
        match pane {
            Pane::Sandboxes => Some(self.sandboxes.sort()),
            Pane::Snapshots => Some(self.snapshots.sort()),
            Pane::Bucket => Some(self.objects.sort()),
            _ => None,
        }
    }

    fn is_family_selected(&self, pane: Pane) -> bool {
        match pane {
            Pane::Snapshots => self.snapshots.list().selected_family().is_some(),
            Pane::Bucket => self.objects.selected_family().is_some(),
            _ => false,
        }
    }

    fn details(&self, context: &DrawContext<'_>, width: usize) -> Option<Vec<Line<'static>>> {
        let theme = &context.appearance.theme;
        match context.list {
            Pane::Snapshots => {
                view::family_details(self.snapshots.rows(), self.snapshots.list(), theme, width)
            }
            Pane::Bucket => view::family_details(&self.items, &self.objects, theme, width),
            _ => None,
        }
    }

    fn desired_height(&self, context: &DrawContext<'_>, width: u16) -> usize {
        view::desired_height(self, context, width)
    }

    fn draw(&self, context: &DrawContext<'_>, frame: &mut Frame, area: Rect, areas: &mut Areas) {
        view::draw(self, context, frame, area, areas);
    }

    fn set_offset(&mut self, pane: Pane, first: usize) {
        match pane {
            Pane::Sandboxes => self.sandboxes.set_offset(first),
            Pane::Snapshots => self.snapshots.set_offset(first),
            Pane::Bucket => self.objects.offset = first,
            _ => {}
        }
    }
}
