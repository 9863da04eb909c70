//! Where things were drawn on the last frame, for the mouse and for paging.

use ratatui::layout::Rect;

use super::actions::{Action, Pane};
use super::cell::Place;
use super::columns::Column;
use snapdeck_model::HostName;

#[derive(Debug, Default, Clone)]
pub(crate) struct Areas {
    /// Columns and rows of the whole screen.
    pub screen: (u16, u16),
    /// Rows of each visible pane, with the number of the first row.
    pub panes: Vec<(Pane, Rect, usize)>,
    /// Titles of panes.
    pub tabs: Vec<(Pane, Rect)>,
    /// Headers of columns, which a click sorts by.
    pub headers: Vec<(Pane, Column, Rect)>,
    /// Hosts of the host bar; `None`: all hosts.
    pub hosts: Vec<(Option<HostName>, Rect)>,
    /// Keys of the footer.
    pub keys: Vec<(Action, Rect)>,
    /// Columns of the matrix, and the first scrolling one.
    pub columns: (Vec<(Place, Rect)>, usize),
    /// Maximum scroll offset of the details.
    pub details_end: u16,
    /// Area of the guest's screen.
    pub picture: Option<Rect>,
    /// Visible lines and maximum scroll offset of the topmost dialog.
    pub layer: (usize, usize),
    /// Scroll offset of the topmost dialog.
    pub layer_top: usize,
    /// Lines of the topmost dialog.
    pub layer_body: Rect,
}
