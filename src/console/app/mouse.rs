//! Mouse clicks and the mouse wheel.

use std::time::{Duration, Instant};

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::perform;
use super::{App, Command};
use crate::actions::{Action, Pane};
use crate::cell::Place;
use crate::dialog::Dialog;
use crate::list::{Change, Sort};

/// Longest time between the clicks of a double click.
const DOUBLE_CLICK: Duration = Duration::from_millis(400);

pub(crate) fn on_mouse(app: &mut App, mouse: MouseEvent) -> Vec<Command> {
    if app.is_shutting_down {
        return Vec::new();
    }
    let position = Position::new(mouse.column, mouse.row);
    let by = match mouse.kind {
        MouseEventKind::ScrollUp => -3,
        MouseEventKind::ScrollDown => 3,
        _ => 0,
    };
    let is_click = mouse.kind == MouseEventKind::Down(MouseButton::Left);
    if let Some(console) = app.dialog().and_then(Dialog::serial) {
        console.scroll(by);
        return Vec::new();
    }
    if let Some(mut layer) = app.layers.pop() {
        let (body, end) = (app.areas.layer_body, app.areas.layer.1);
        layer.scroll = layer.scroll.min(end);
        if is_click && body.contains(position) {
            let line = layer.scroll + usize::from(position.y - body.y);
            let width = body.width.into();
            let reply = app.with_context(|context| layer.on_click(line, context, width));
            return app.on_dialog_reply(layer, reply);
        }
        if by != 0 {
            layer.is_following = false;
            layer.scroll = layer.scroll.saturating_add_signed(by).min(end);
        }
        app.layers.push(layer);
        return Vec::new();
    }
    if is_click {
        app.notice = None;
        return on_click(app, position);
    } else if by != 0 {
        let mut panes = app.areas.panes.iter();
        if let Some((pane, ..)) = panes.find(|(_, area, _)| area.contains(position)) {
            app.scroll(*pane, by);
        }
    }
    Vec::new()
}

fn on_click(app: &mut App, position: Position) -> Vec<Command> {
    let areas = app.areas.clone();
    let now = Instant::now();
    let is_double = app.last_click.is_some_and(|(at, before)| {
        before == position && now.saturating_duration_since(at) <= DOUBLE_CLICK
    });
    // A third click is not another double one.
    app.last_click = (!is_double).then_some((now, position));
    let hit = |area: &ratatui::layout::Rect| area.contains(position);
    if let Some((action, _)) = areas.keys.iter().find(|(_, area)| hit(area)) {
        return perform::perform_by_name(app, *action);
    }
    if let Some((host, _)) = areas.hosts.iter().find(|(_, area)| hit(area)) {
        app.filter = None;
        app.set_scope(host.clone());
    }
    if let Some((pane, column, _)) = areas.headers.iter().find(|(.., area)| hit(area)) {
        app.focus_on(*pane);
        let mut sort = Sort::by(*column);
        // Another click reverses the order.
        if let Some(current) = app.sort(*pane).filter(|sort| sort.column == *column) {
            sort.descending = !current.descending;
        }
        app.change(*pane, Change::Sort(sort));
        return Vec::new();
    }
    let column = areas.columns.0.iter().find(|(_, area)| hit(area));
    if let Some((place, _)) = column {
        app.focus_on(Pane::Matrix);
        app.pages.locations.set_place(place.clone());
        if let Place::Host(host) = place {
            app.world.set_current_host(host.clone());
        }
        app.details = 0;
    }
    if let Some((pane, area, first)) = areas.panes.iter().find(|(_, area, _)| hit(area)) {
        app.focus_on(*pane);
        app.change(*pane, Change::Row(first + usize::from(position.y - area.y)));
        if is_double {
            return perform::perform(app, Action::Open);
        }
    } else if let Some((pane, _)) = areas.tabs.iter().find(|(_, area)| hit(area)) {
        app.focus_on(*pane);
    }
    Vec::new()
}
