//! Mouse clicks and the mouse wheel.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::actions::Pane;
use super::app::{App, Command};
use super::list::Change;

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
        on_click(app, position);
    } else if by != 0 {
        let mut panes = app.areas.panes.iter();
        if let Some((pane, ..)) = panes.find(|(_, area, _)| area.contains(position)) {
            app.scroll(*pane, by);
        }
    }
    Vec::new()
}

fn on_click(app: &mut App, position: Position) {
    let areas = app.areas.clone();
    if let Some((host, _)) = areas.hosts.iter().find(|(_, area)| area.contains(position)) {
        app.filter = None;
        app.show_host(host.as_ref());
    }
    let column = areas
        .columns
        .0
        .iter()
        .find(|(_, area)| area.contains(position));
    if let Some((place, _)) = column {
        app.focus_on(Pane::Matrix);
        app.matrix.place = place.clone();
        app.details = 0;
    }
    let pane = areas
        .panes
        .iter()
        .find(|(_, area, _)| area.contains(position));
    if let Some((pane, area, first)) = pane {
        app.focus_on(*pane);
        app.change(*pane, Change::Row(first + usize::from(position.y - area.y)));
    } else if let Some((pane, _)) = areas.tabs.iter().find(|(_, area)| area.contains(position)) {
        app.focus_on(*pane);
    }
}
