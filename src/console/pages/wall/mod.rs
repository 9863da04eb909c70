//! The Wall page: the screens of all running guests as thumbnails.

mod view;

use std::cell::Cell;

use ratatui::Frame;
use ratatui::layout::{Rect, Size};

use super::{DrawContext, Page, Subject};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::columns::{Column, Row, Value};
use crate::host_list::HostKey;
use crate::list::{Change, List, Summary};
use crate::world::World;
use snapdeck_engine::{Link, ScreenKey};
use snapdeck_model::{SandboxId, SandboxState};

/// A guest that runs.
#[derive(Debug)]
pub(crate) struct WallItem {
    key: HostKey<SandboxId>,
    state: SandboxState,
}

impl Row for WallItem {
    type Key = HostKey<SandboxId>;
    fn key(&self) -> &HostKey<SandboxId> {
        &self.key
    }
    fn text(&self) -> &str {
        self.key.0.as_str()
    }
    fn secondary_text(&self) -> &str {
        self.key.1.as_str()
    }
    fn value(&self, column: Column) -> Option<Value<'_>> {
        Some(match column {
            Column::Name => Value::Text(self.text()),
            Column::Host => Value::Text(self.secondary_text()),
            Column::State => Value::Text(self.state.as_str()),
            _ => return None,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Wall {
    list: List<HostKey<SandboxId>>,
    items: Vec<WallItem>,
    /// Thumbnails in a row, and those that were visible, on the last frame.
    grid: Cell<Grid>,
}

/// The division of the last frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    columns: usize,
    first: usize,
    count: usize,
    /// Size of a picture, in cells.
    pub picture: Size,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            columns: 1,
            first: 0,
            count: 0,
            picture: Size::ZERO,
        }
    }
}

impl Wall {
    /// Returns the guests whose thumbnails are visible.
    pub(crate) fn visible(&self) -> Vec<ScreenKey> {
        let grid = self.grid.get();
        let rows = (grid.first..grid.first + grid.count).filter_map(|row| {
            let item = self.items.get(self.list.item(row)?)?;
            Some((item.key.1.clone(), item.key.0.clone()))
        });
        rows.collect()
    }

    /// Returns the size of a picture on the last frame, in cells.
    pub(crate) fn picture_size(&self) -> Size {
        self.grid.get().picture
    }
}

impl Page for Wall {
    fn update(&mut self, world: &World) {
        let hosts = world.shown_hosts().filter(|host| host.link == Link::Up);
        let items = hosts.flat_map(|host| {
            let active = host.sandboxes.iter().filter(|one| one.state.is_active());
            active.map(|sandbox| WallItem {
                key: (sandbox.id.clone(), host.name.clone()),
                state: sandbox.state,
            })
        });
        self.items = items.collect();
        self.items.sort_by(|one, other| one.key.cmp(&other.key));
        self.list.update(&self.items);
    }

    fn close(&mut self) {
        self.items.clear();
        self.grid.set(Grid::default());
    }

    fn apply(&mut self, _pane: Pane, change: Change, _world: &World) {
        let change = match change {
            // A row has several thumbnails.
            Change::MoveBy(by) => {
                Change::MoveBy(by.saturating_mul(self.grid.get().columns as isize))
            }
            change => change,
        };
        self.list.apply(&self.items, change);
    }

    fn summary(&self, _pane: Pane) -> Summary<'_> {
        self.list.summary(self.items.len())
    }

    fn selected(&self, _pane: Pane, _world: &World) -> Option<Subject> {
        let (id, host) = self.list.current(&self.items)?.key.clone();
        Some(Subject::Sandbox(host, id))
    }

    fn select(&mut self, subject: &Subject, _world: &World) {
        if let Subject::Sandbox(host, id) = subject {
            self.list
                .select_key(&self.items, &(id.clone(), host.clone()));
        }
    }

    fn move_column(&mut self, by: isize, _world: &mut World) -> bool {
        self.list.apply(&self.items, Change::MoveBy(by));
        true
    }

    fn desired_height(&self, _context: &DrawContext<'_>, _width: u16) -> usize {
        usize::from(u16::MAX)
    }

    fn draw(&self, context: &DrawContext<'_>, frame: &mut Frame, area: Rect, areas: &mut Areas) {
        view::draw(self, context, frame, area, areas);
    }

    fn set_offset(&mut self, _pane: Pane, first: usize) {
        self.list.offset = first;
    }
}
