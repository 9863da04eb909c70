//! The border of a list or a dialog.

use ratatui::Frame;
use ratatui::layout::{Margin, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders};

use crate::theme::Appearance;

/// A border with titles; with `--plain` only the titles.
///
/// It draws the edges alone: a ratatui `Block` also visits each cell inside, which was a tenth of a frame's time.
pub(crate) struct Border {
    top: Block<'static>,
    bottom: Block<'static>,
    /// `None`: no lines.
    style: Option<Style>,
}

impl Appearance {
    pub(crate) fn border(&self, style: Style) -> Border {
        let edge = |borders| match self.plain {
            true => Block::new(),
            false => Block::new().borders(borders).border_style(style),
        };
        let sides = Borders::LEFT | Borders::RIGHT;
        Border {
            top: edge(Borders::TOP | sides),
            bottom: edge(Borders::BOTTOM | sides),
            style: (!self.plain).then_some(style),
        }
    }
}

impl Border {
    pub(crate) fn title(self, title: Line<'static>) -> Self {
        Self {
            top: self.top.title(title),
            ..self
        }
    }

    pub(crate) fn title_bottom(self, title: Line<'static>) -> Self {
        Self {
            bottom: self.bottom.title_bottom(title),
            ..self
        }
    }

    /// Draws the border along the edges of `area`; returns the area inside.
    pub(crate) fn draw(self, frame: &mut Frame, area: Rect) -> Rect {
        let inner = self.inner(area);
        let row = |y| Rect {
            y,
            height: area.height.min(1),
            ..area
        };
        if let Some(style) = self.style {
            let column = |x| Rect {
                x,
                width: area.width.min(1),
                ..area
            };
            let side = Block::new().borders(Borders::LEFT).border_style(style);
            frame.render_widget(&side, column(area.x));
            frame.render_widget(&side, column(area.right().saturating_sub(1)));
        }
        frame.render_widget(self.top, row(area.y));
        frame.render_widget(self.bottom, row(area.bottom().saturating_sub(1)));
        inner
    }

    /// Returns the area inside of the border of `area`.
    pub(crate) fn inner(&self, area: Rect) -> Rect {
        match self.style {
            Some(_) => area.inner(Margin::new(1, 1)),
            None => self.bottom.inner(self.top.inner(area)),
        }
    }
}
