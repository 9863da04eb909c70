//! Draws the three lists side by side, or one of them with tabs. Only visible rows are built.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Margin, Rect};
use ratatui::style::Style;
use ratatui::text::Line;

use super::Lists;
use super::rows::{RowBuilder, sum};
use crate::actions::{LISTS, Pane};
use crate::areas::Areas;
use crate::columns::{Column, Row};
use crate::format::{self, short_size};
use crate::list::List;
use crate::lookup;
use crate::pages::frame::{filter_line, page_title};
use crate::pages::{DrawContext, Page};
use crate::theme::Theme;
use crate::widgets::border::Border;
use crate::widgets::table::TableLayout;
use crate::widgets::text;
use crate::world::World;
use snapdeck_engine::Link;
use snapdeck_model::{HostName, Object, Sandbox, SandboxState, Snapshot};

/// Minimum width for the three lists side by side.
const SIDE_BY_SIDE_WIDTH: u16 = 100;
/// Versions listed in the details of a family.
const MAX_DETAILS: usize = 200;
/// Lines of a list that are not rows: borders and header.
const FRAME_LINES: usize = 3;
/// Columns around the text of an empty list: borders and margins.
const EMPTY_TEXT_EDGE: usize = 4;
const MAX_EMPTY_LINES: usize = 8;

pub(super) fn desired_height(lists: &Lists, context: &DrawContext<'_>, width: u16) -> usize {
    let is_side_by_side = is_side_by_side(context, width);
    let rows = |pane: &Pane| match lists.summary(*pane).rows {
        // The text of an empty list says what to press.
        0 => {
            let share = match (is_side_by_side, *pane == context.list) {
                (false, _) => 1,
                (true, true) => 2,
                (true, false) => 4,
            };
            let width = usize::from(width) / share;
            let (text, _) = empty_text(lists, context, *pane);
            let lines = format::wrap(&text, width.saturating_sub(EMPTY_TEXT_EDGE).max(1));
            lines.len().clamp(1, MAX_EMPTY_LINES)
        }
        rows => rows,
    };
    match is_side_by_side {
        true => LISTS.iter().map(rows).max().unwrap_or(1) + FRAME_LINES,
        // A line has the tabs.
        false => rows(&context.list) + FRAME_LINES + 1,
    }
}

fn is_side_by_side(context: &DrawContext<'_>, width: u16) -> bool {
    width >= SIDE_BY_SIDE_WIDTH && !context.appearance.plain && !context.is_zoomed
}

pub(super) fn draw(
    lists: &Lists,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    area: Rect,
    areas: &mut Areas,
) {
    if is_side_by_side(context, area.width) {
        // The active list shows more columns than the others.
        let share = |pane: &Pane| Constraint::Fill(if *pane == context.list { 2 } else { 1 });
        let columns: [Rect; 3] = Layout::horizontal(LISTS.iter().map(share)).areas(area);
        for (pane, column) in LISTS.iter().zip(columns) {
            areas.tabs.push((*pane, column));
            let border = pane_border(lists, context, *pane, column.width);
            let inner = border.draw(frame, column);
            draw_list(lists, context, frame, *pane, inner, areas);
        }
        return;
    }
    let theme = &context.appearance.theme;
    let [tabs, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let mut x = tabs.x;
    for pane in LISTS {
        let count = format::number(lists.summary(pane).total);
        let text = format!(" {} {count} ", pane.name());
        let width = (text.chars().count() as u16).min(tabs.right() - x);
        let style = match (pane == context.list, context.focus == context.list) {
            (true, true) => theme.selected,
            (true, false) => theme.selected_inactive,
            (false, _) => theme.dim,
        };
        let tab = Rect { x, width, ..tabs };
        frame.render_widget(Line::styled(text, style), tab);
        areas.tabs.push((pane, tab));
        x += width;
    }
    let border = pane_border(lists, context, context.list, below.width);
    let inner = border.draw(frame, below);
    draw_list(lists, context, frame, context.list, inner, areas);
}

fn pane_border(lists: &Lists, context: &DrawContext<'_>, pane: Pane, width: u16) -> Border {
    let theme = &context.appearance.theme;
    let (style, title_style) = match context.focus == pane {
        true => (theme.focus, theme.focus),
        false => (theme.border, theme.heading),
    };
    let mut text = title(lists, context, pane);
    if let Some(last_seen) = stale_since(context, pane) {
        let age = context.now.saturating_duration_since(last_seen);
        text.push_str(&format!("· seen {} ago ", format::age(age)));
    }
    let text = format::clip(&text, usize::from(width.saturating_sub(2)));
    let mut border = context
        .appearance
        .border(style)
        .title(Line::styled(text, title_style));
    let link = link_state(context, pane);
    if let Some(filter) = filter_line(context, pane, &lists.summary(pane), usize::from(width)) {
        border = border.title_bottom(filter);
    } else if let (Some((Link::Down(error), Some(_))), true) = (link, width > 4) {
        let text = format::clip(&format!(" ✗ {error} "), usize::from(width) - 2);
        border = border.title_bottom(Line::styled(text, theme.bad));
    }
    border
}

/// Returns the title of a list: `Sandboxes 62 · 12 running · on alpha`.
fn title(lists: &Lists, context: &DrawContext<'_>, pane: Pane) -> String {
    let world = context.world;
    let totals = &lists.totals;
    let amount = match pane {
        Pane::Sandboxes => (totals.running > 0).then(|| format!("{} running", totals.running)),
        Pane::Snapshots => (totals.snapshot_bytes > 0).then(|| format::size(totals.snapshot_bytes)),
        _ => (totals.object_bytes > 0).then(|| format::size(totals.object_bytes)),
    };
    let host = world
        .current_host()
        .filter(|_| world.view().hosts.len() > 1);
    let place = match (pane, host) {
        (Pane::Bucket, _) | (_, None) => None,
        _ if world.shows_all_hosts() => Some("all hosts".to_owned()),
        (_, Some(host)) => Some(format!("on {host}")),
    };
    let partials = (pane == Pane::Snapshots).then(|| partials_text(world));
    let more: Vec<String> = amount
        .into_iter()
        .chain(partials.flatten())
        .chain(place)
        .collect();
    let is_listing = pane == Pane::Bucket && world.view().bucket.is_listing;
    page_title(pane.name(), &lists.summary(pane), &more, is_listing)
}

/// Returns number and size of the partial pulls on the shown hosts that no job continues: `2 partial, 3.1 GiB`.
fn partials_text(world: &World) -> Option<String> {
    let (mut count, mut bytes) = (0_usize, 0_u64);
    for host in world.shown_hosts() {
        for partial in lookup::interrupted_partials(world.view(), host) {
            count += 1;
            bytes = bytes.saturating_add(partial.allocated_bytes);
        }
    }
    (count > 0).then(|| format!("{count} partial, {}", format::size(bytes)))
}

/// Returns when stale rows were seen; `None` if they are current.
fn stale_since(context: &DrawContext<'_>, pane: Pane) -> Option<Instant> {
    let (link, last_seen) = link_state(context, pane)?;
    last_seen.filter(|_| lookup::is_stale(link, last_seen))
}

fn link_state<'a>(context: &DrawContext<'a>, pane: Pane) -> Option<(&'a Link, Option<Instant>)> {
    let world = context.world;
    match pane {
        Pane::Bucket => {
            let bucket = &world.view().bucket;
            Some((&bucket.link, bucket.last_listing))
        }
        _ if world.shows_all_hosts() => None,
        _ => world
            .current_host_view()
            .map(|host| (&host.link, host.last_scan)),
    }
}

fn draw_list(
    lists: &Lists,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    pane: Pane,
    area: Rect,
    areas: &mut Areas,
) {
    let theme = &context.appearance.theme;
    let [header_area, body] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let table = layout(lists, context, pane, area.width);
    let sort = lists.sort(pane);
    text::draw_lines(frame, header_area, &[table.header(sort, theme)]);
    let headers = table.header_areas(header_area);
    let sortable = headers.filter(|(column, _)| column.is_sortable());
    areas
        .headers
        .extend(sortable.map(|(column, area)| (pane, column, area)));
    let (first, lines) = visible_rows(lists, context, pane, body.width, body.height);
    if lines.is_empty() && body.height > 0 {
        let inner = body.inner(Margin::new(1, 0));
        let (text, style) = empty_text(lists, context, pane);
        let lines = format::wrap(&text, usize::from(inner.width)).into_iter();
        let lines: Vec<Line> = lines.map(|line| Line::styled(line, style)).collect();
        text::draw_lines(frame, inner, &lines);
    }
    text::draw_lines(frame, body, &lines);
    areas.panes.push((pane, body, first));
}

fn layout(lists: &Lists, context: &DrawContext<'_>, pane: Pane, width: u16) -> TableLayout {
    let [sandbox, snapshot, object] = lists.totals.widest;
    let widest = match pane {
        Pane::Sandboxes => sandbox,
        Pane::Snapshots => snapshot,
        _ => object,
    };
    let specs = lists.columns(pane).shown();
    let shows_all = context.world.shows_all_hosts();
    let hosts = context.world.view().hosts.iter();
    let widest_host = hosts.map(|host| host.name.as_str().len()).max();
    let widest = (widest, widest_host.unwrap_or(0));
    TableLayout::new(specs, usize::from(width), widest, |column| {
        column != Column::Host || shows_all
    })
}

/// Returns the text of a list without rows.
fn empty_text(lists: &Lists, context: &DrawContext<'_>, pane: Pane) -> (String, Style) {
    let theme = &context.appearance.theme;
    let world = context.world;
    let kind = pane.name().to_lowercase();
    let host = world.current_host().map_or("", |host| host.as_str());
    if lists.summary(pane).total > 0 {
        let text = "nothing matches the filter (esc clears it)";
        return (text.to_owned(), theme.dim);
    }
    match link_state(context, pane).map(|(link, _)| link) {
        None if world.shows_all_hosts() => (format!("no {kind} on any reachable host"), theme.dim),
        None => ("no host configured".to_owned(), theme.warn),
        // The list with the focus, or the first one, says why.
        Some(Link::Down(_)) if pane == Pane::Snapshots && context.list != pane => {
            (format!("host {host} is unreachable"), theme.bad)
        }
        Some(Link::Down(error)) => {
            let setup = match context.can_set_up {
                true => "; : and setup names other hosts",
                false => "",
            };
            let text = format!("{error}. D runs the health checks{setup}.");
            (text, theme.bad)
        }
        Some(Link::Unconfigured) => {
            let next = match context.can_set_up {
                true => "Press : and run setup to name one.",
                false => "Add [bucket] name = \"...\" to config.toml.",
            };
            let text = format!("No bucket configured. {next} Everything else works without one.");
            (text, theme.warn)
        }
        Some(_) if pane == Pane::Bucket && world.view().bucket.is_listing => {
            ("listing the bucket…".to_owned(), theme.dim)
        }
        Some(Link::Connecting) if pane == Pane::Bucket => {
            ("listing the bucket…".to_owned(), theme.dim)
        }
        Some(Link::Connecting) => (format!("connecting to {host}…"), theme.dim),
        Some(Link::Up) if pane == Pane::Bucket => (
            "the bucket has no snapshots yet: push, create or upload one".to_owned(),
            theme.dim,
        ),
        Some(Link::Up) if pane == Pane::Snapshots => {
            let text = format!(
                "{host} has no snapshots: f in the bucket pulls one. D checks its directories."
            );
            (text, theme.dim)
        }
        Some(Link::Up) => {
            let text = format!("{host} has no {kind}: n on a snapshot creates one.");
            (text, theme.dim)
        }
    }
}

/// Returns the index of the first visible row, and the visible rows.
pub(crate) fn visible_rows(
    lists: &Lists,
    context: &DrawContext<'_>,
    pane: Pane,
    width: u16,
    height: u16,
) -> (usize, Vec<Line<'static>>) {
    let build = RowBuilder {
        context,
        pane,
        height: usize::from(height),
        table: layout(lists, context, pane, width),
    };
    let theme = &context.appearance.theme;
    let is_stale = |host: &HostName| {
        let host = context.world.host(host);
        host.is_some_and(|host| lookup::is_stale(&host.link, host.last_scan))
    };
    match pane {
        Pane::Sandboxes => {
            let list = &lists.sandboxes;
            build.rows(
                list.rows(),
                list.list(),
                |row, column| match column {
                    Column::Host => (row.host().to_string(), theme.text),
                    _ => row.item().map_or_else(Default::default, |sandbox| {
                        sandbox_cell(sandbox, column, theme)
                    }),
                },
                |row| is_stale(row.host()),
            )
        }
        Pane::Snapshots => {
            let list = &lists.snapshots;
            build.rows(
                list.rows(),
                list.list(),
                |row, column| match column {
                    Column::Host => (row.host().to_string(), theme.text),
                    _ => row.item().map_or_else(Default::default, |snapshot| {
                        snapshot_cell(context, snapshot, column)
                    }),
                },
                |row| is_stale(row.host()),
            )
        }
        Pane::Bucket => {
            let bucket = &context.world.view().bucket;
            let is_stale = lookup::is_stale(&bucket.link, bucket.last_listing);
            build.rows(
                lists.items(),
                &lists.objects,
                |object, column| object_cell(context, object, column),
                |_| is_stale,
            )
        }
        _ => (0, Vec::new()),
    }
}

/// Returns the versions of the selected family; `None` if an item is selected.
pub(super) fn family_details<R: Row>(
    items: &[R],
    list: &List<R::Key>,
    theme: &Theme,
    width: usize,
) -> Option<Vec<Line<'static>>> {
    let family = list.selected_family()?;
    let versions = family.items.iter();
    let versions: Vec<&R> = versions
        .filter_map(|item| items.get(*item as usize))
        .collect();
    let (count, size) = (versions.len(), sum(&versions, Column::Size));
    let title = format!(
        "{} · {} versions, {}",
        family.name,
        format::number(count),
        format::size(size)
    );
    let mut lines = vec![Line::styled(format::clip(&title, width), theme.title)];
    for version in versions.iter().take(MAX_DETAILS) {
        let size = sum(&[*version], Column::Size);
        let host = version.secondary_text();
        let text = format!("{:>9}  {}  {host}", format::size(size), version.text());
        lines.push(Line::styled(format::clip(&text, width), theme.text));
    }
    if count > MAX_DETAILS {
        let more = format!("… and {} more", format::number(count - MAX_DETAILS));
        lines.push(Line::styled(more, theme.dim));
    }
    Some(lines)
}

pub(crate) fn state_sign(state: SandboxState) -> &'static str {
    match state {
        SandboxState::Running => "●",
        SandboxState::Paused | SandboxState::Suspended => "◐",
        SandboxState::Saved => "◌",
        SandboxState::ShutOff => "○",
        SandboxState::Crashed => "✗",
    }
}

pub(crate) fn state_style(state: SandboxState, theme: &Theme) -> Style {
    match state {
        SandboxState::Running => theme.running,
        SandboxState::Paused | SandboxState::Suspended => theme.paused,
        SandboxState::Saved => theme.saved,
        SandboxState::ShutOff => theme.dim,
        SandboxState::Crashed => theme.crashed,
    }
}

fn sandbox_cell(sandbox: &Sandbox, column: Column, theme: &Theme) -> (String, Style) {
    let state = state_style(sandbox.state, theme);
    match column {
        Column::Sign => (state_sign(sandbox.state).to_owned(), state),
        Column::Name => (sandbox.id.to_string(), theme.text),
        // "suspended (S3)" is too long; the details have it.
        Column::State => (sandbox.state.as_str().to_owned(), state),
        Column::Base => (
            sandbox.base().map_or(String::new(), ToString::to_string),
            theme.label,
        ),
        Column::Size => {
            let overlay = sandbox.chain.first().and_then(|link| link.size_bytes);
            (overlay.map_or("?".to_owned(), short_size), theme.number)
        }
        Column::Cpus => (sandbox.cpus.to_string(), theme.number),
        Column::Memory => (short_size(sandbox.memory_bytes), theme.number),
        Column::Host | Column::Dependents | Column::Modified | Column::Elsewhere => {
            (String::new(), theme.text)
        }
    }
}

fn snapshot_cell(
    context: &DrawContext<'_>,
    snapshot: &Snapshot,
    column: Column,
) -> (String, Style) {
    let theme = &context.appearance.theme;
    match column {
        Column::Name => {
            let style = match snapshot.problem {
                Some(_) => theme.bad,
                None => theme.text,
            };
            (snapshot.name.to_string(), style)
        }
        Column::Size => (short_size(snapshot.size_bytes), theme.number),
        Column::Dependents => match snapshot.dependents.len() {
            0 => ("-".to_owned(), theme.dim),
            count => (format!("⌂{count}"), theme.number),
        },
        Column::Elsewhere => {
            let (text, style) = match context.world.object_size(&snapshot.name) {
                _ if snapshot.problem.is_some() => ("! damaged", theme.bad),
                Some(size) if size == snapshot.size_bytes => ("✓ same", theme.same),
                Some(_) => ("≠ differs", theme.differs),
                None if lookup::is_bucket_known(context.world.view()) => {
                    ("↑ absent", theme.only_here)
                }
                None => ("? unknown", theme.dim),
            };
            (text.to_owned(), style)
        }
        Column::Modified => (
            snapshot.modified.map_or(String::new(), format::date),
            theme.dim,
        ),
        _ => (String::new(), theme.text),
    }
}

fn object_cell(context: &DrawContext<'_>, object: &Object, column: Column) -> (String, Style) {
    let theme = &context.appearance.theme;
    match column {
        Column::Name => {
            let style = match object.problem {
                Some(_) => theme.bad,
                None => theme.text,
            };
            (object.name.to_string(), style)
        }
        Column::Size => (short_size(object.size_bytes), theme.number),
        Column::Elsewhere if context.world.shows_all_hosts() => on_hosts(context, object),
        Column::Elsewhere => {
            let world = context.world;
            let host = world
                .current_host_view()
                .filter(|host| host.last_scan.is_some());
            let local = host.map(|host| world.snapshot_size(&host.name, &object.name));
            let (text, style) = match local {
                _ if object.problem.is_some() => ("! damaged", theme.bad),
                None => ("? unknown", theme.dim),
                Some(Some(size)) if size == object.size_bytes => ("✓ same", theme.same),
                Some(Some(_)) => ("≠ differs", theme.differs),
                Some(None) => ("↓ absent", theme.only_there),
            };
            (text.to_owned(), style)
        }
        Column::Modified => (
            object.modified.map_or(String::new(), format::date),
            theme.dim,
        ),
        _ => (String::new(), theme.text),
    }
}

/// Returns on how many hosts an object is.
fn on_hosts(context: &DrawContext<'_>, object: &Object) -> (String, Style) {
    let theme = &context.appearance.theme;
    let world = context.world;
    let sizes = world
        .hosts()
        .map(|host| world.snapshot_size(&host.name, &object.name));
    let (count, all) = (sizes.flatten().count(), world.view().hosts.len());
    let is_certain = world.hosts().all(|host| host.last_scan.is_some());
    match (count, is_certain) {
        (0, true) => (format!("0 of {all}"), theme.only_there),
        (_, true) => (format!("{count} of {all}"), theme.same),
        (0, false) => ("? unknown".to_owned(), theme.dim),
        (_, false) => (format!("{count}? of {all}"), theme.text),
    }
}
