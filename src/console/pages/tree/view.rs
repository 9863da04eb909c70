//! The lineage tree. Only visible rows are built.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{Tree, TreeRow, TreeRowKey};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::columns::Row as _;
use crate::format::{self, count, size};
use crate::pages::frame::{empty_line, page_border};
use crate::pages::lists::{state_sign, state_style};
use crate::pages::{DrawContext, NO_SNAPSHOTS, Page};
use crate::widgets::text;
use crate::world::World;
use snapdeck_model::SnapshotName;

/// Maximum width of branch and name.
const MAX_NAME_WIDTH: usize = 56;

pub(super) fn draw(
    tree: &Tree,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    area: Rect,
    areas: &mut Areas,
) {
    let theme = &context.appearance.theme;
    let focused = context.focus == Pane::Tree;
    let mut block = page_border(context, Pane::Tree, &tree.summary(Pane::Tree), area.width);
    let note = match &tree.parents {
        None => Some(" ◌ reading manifests ".to_owned()),
        Some((_, parents)) if parents.unread_count > 0 => Some(format!(
            " lineage of {} unknown ",
            count(parents.unread_count, "snapshot")
        )),
        Some(_) => None,
    };
    if let Some(note) = note {
        block = block.title(Line::styled(note, theme.dim).right_aligned());
    }
    let inner = block.draw(frame, area);
    let window = tree.list.window(usize::from(inner.height));
    areas.panes.push((Pane::Tree, inner, window.start));
    let rows = window.filter_map(|row| {
        let item = tree.items.get(tree.list.item(row)?)?;
        Some((row, item))
    });
    let rows: Vec<(usize, &TreeRow)> = rows.collect();
    let width = usize::from(inner.width);
    let widest = rows
        .iter()
        .map(|(_, item)| item.branch.width() + item.text().width());
    let room = widest.max().unwrap_or(0).min(MAX_NAME_WIDTH).min(width / 2);
    let mut lines: Vec<Line> = rows
        .into_iter()
        .map(|(row, item)| {
            let line = row_line(context, item, room);
            match row == tree.list.row() && focused {
                true => line.style(theme.selected),
                false => line,
            }
        })
        .collect();
    if lines.is_empty() {
        let is_empty = tree.items.is_empty();
        lines.push(empty_line(context, is_empty, NO_SNAPSHOTS));
    }
    text::draw_lines(frame, inner, &lines);
}

fn row_line(context: &DrawContext<'_>, item: &TreeRow, room: usize) -> Line<'static> {
    let (world, theme) = (context.world, &context.appearance.theme);
    let room = room.saturating_sub(item.branch.width());
    let name = format::fit_middle(item.text(), room);
    let branch = Span::styled(format!(" {}", item.branch), theme.dim);
    match &item.key {
        TreeRowKey::Snapshot(snapshot) => Line::from(vec![
            branch,
            Span::styled(name, theme.title),
            Span::raw(format!("  {}", format_places(world, snapshot))),
        ]),
        TreeRowKey::Sandbox(host, id) => {
            let sandbox = world.sandbox(host, id);
            let (state, style) = sandbox.map_or_else(Default::default, |sandbox| {
                let text = format!("  {} {}", state_sign(sandbox.state), sandbox.state.label());
                (text, state_style(sandbox.state, theme))
            });
            Line::from(vec![
                branch,
                Span::raw(name),
                Span::styled(state, style),
                Span::styled(format!(", on {host}"), theme.dim),
            ])
        }
    }
}

/// Returns the size and the locations of a snapshot.
fn format_places(world: &World, name: &SnapshotName) -> String {
    let files = world.hosts().filter_map(|host| {
        let bytes = world.snapshot_size(&host.name, name)?;
        Some((host.name.to_string(), bytes))
    });
    let object = world.object_size(name);
    let object = object.map(|bytes| ("bucket".to_owned(), bytes));
    let all: Vec<(String, u64)> = files.chain(object).collect();
    let Some(bytes) = all.iter().map(|(_, bytes)| *bytes).max() else {
        return "not found".to_owned();
    };
    let places: Vec<String> = all.into_iter().map(|(place, _)| place).collect();
    format!("{:>9}  {}", size(bytes), places.join(", "))
}
