//! The Hosts page: the hosts with their load.

mod view;

pub(crate) use view::{HIGH_LOAD, bar_style, charts, load_style};

use std::sync::Arc;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{DrawContext, Page, Subject};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::columns::{Column, Row, Value};
use crate::list::{Change, List, Sort, Summary};
use crate::world::World;
use snapdeck_engine::{HostView, Link};
use snapdeck_model::{HostLoad, HostName, SandboxState};

/// A host with what its columns show.
#[derive(Debug)]
pub(crate) struct HostItem {
    host: Arc<HostView>,
    load: Option<HostLoad>,
    running: usize,
}

impl Row for HostItem {
    type Key = HostName;
    fn key(&self) -> &HostName {
        &self.host.name
    }
    fn text(&self) -> &str {
        self.host.name.as_str()
    }
    fn secondary_text(&self) -> &str {
        &self.host.uri
    }
    fn value(&self, column: Column) -> Option<Value<'_>> {
        Some(match column {
            Column::Name | Column::Host => Value::Text(self.text()),
            Column::State => Value::Text(match self.host.link {
                Link::Up => "reachable",
                Link::Connecting => "connecting",
                Link::Down(_) | Link::Unconfigured => "unreachable",
            }),
            Column::Cpus => Value::Number(self.load?.cpu_permille?.into()),
            Column::Memory => Value::Number(self.load?.memory_used_bytes),
            Column::Size => Value::Number(self.load?.snapshots_free_bytes?),
            Column::Dependents => Value::Number(self.host.sandboxes.len() as u64),
            _ => return None,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Hosts {
    list: List<HostName>,
    items: Vec<HostItem>,
}

impl Hosts {
    /// Returns the length of the longest name.
    fn widest(&self) -> usize {
        self.items
            .iter()
            .map(|item| item.text().len())
            .max()
            .unwrap_or(0)
    }
}

impl Page for Hosts {
    fn update(&mut self, world: &World) {
        let item = |host: &Arc<HostView>| {
            let sandboxes = host.sandboxes.iter();
            let running = sandboxes.filter(|sandbox| sandbox.state == SandboxState::Running);
            HostItem {
                host: host.clone(),
                load: world.load(&host.name),
                running: running.count(),
            }
        };
        self.items = world.view().hosts.iter().map(item).collect();
        self.items
            .sort_by(|one, other| one.host.name.cmp(&other.host.name));
        self.list.update(&self.items);
    }

    fn close(&mut self) {
        self.items.clear();
    }

    fn apply(&mut self, _pane: Pane, change: Change, _world: &World) {
        self.list.apply(&self.items, change);
    }

    fn summary(&self, _pane: Pane) -> Summary<'_> {
        self.list.summary(self.items.len())
    }

    fn selected(&self, _pane: Pane, _world: &World) -> Option<Subject> {
        let item = self.list.current(&self.items)?;
        Some(Subject::Host(item.host.name.clone()))
    }

    fn select(&mut self, subject: &Subject, world: &World) {
        let host = match subject {
            Subject::Host(host) | Subject::Sandbox(host, _) | Subject::Partial(host, _) => {
                Some(host)
            }
            Subject::Snapshot(..)
            | Subject::Job(_)
            | Subject::Interrupted(_)
            | Subject::Past(_) => world.current_host(),
        };
        if let Some(host) = host {
            self.list.select_key(&self.items, host);
        }
    }

    fn sort(&self, _pane: Pane) -> Option<Sort> {
        Some(self.list.sort())
    }

    fn desired_height(&self, _context: &DrawContext<'_>, _width: u16) -> usize {
        self.list.len().max(1) + 3
    }

    fn details(&self, context: &DrawContext<'_>, width: usize) -> Option<Vec<Line<'static>>> {
        let item = self.list.current(&self.items)?;
        Some(view::details(item, context, width))
    }

    fn draw(&self, context: &DrawContext<'_>, frame: &mut Frame, area: Rect, areas: &mut Areas) {
        view::draw(self, context, frame, area, areas);
    }

    fn set_offset(&mut self, _pane: Pane, first: usize) {
        self.list.offset = first;
    }
}
