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
    if let Some(layer) = app.layers.last_mut() {
        layer.is_following = false;
        layer.scroll = layer
            .scroll
            .saturating_add_signed(by)
            .min(app.areas.layer.1);
        return Vec::new();
    }
    if mouse.kind == MouseEventKind::Down(MouseButton::Left) {
        app.notice = None;
        on_click(app, position);
    } else if by != 0 {
        let mut panes = app.areas.panes.iter();
        if let Some((pane, ..)) = panes.find(|(_, area, _)| area.contains(position)) {
            app.scroll(*pane, isize::from(by));
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
