//! Colours and attributes by what they mean. Only the terminal's own colours are used, so that light
//! and dark backgrounds both work, and no meaning hangs on colour alone: crossterm drops colours under
//! `NO_COLOR`, attributes (reverse, bold, dim) stay.

use ratatui::style::{Color, Modifier, Style};

/// One style for each role on screen.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    /// Ordinary text.
    pub text: Style,
    /// Less important, stale or not possible.
    pub dim: Style,
    /// Headings and names.
    pub title: Style,
    /// Borders.
    pub border: Style,
    /// The border and title of what has the focus.
    pub focus: Style,
    /// The selected row of the focused list.
    pub selected: Style,
    /// The selected row of another list.
    pub resting: Style,
    /// All is well.
    pub good: Style,
    /// To be heeded.
    pub warn: Style,
    /// Failed or refused.
    pub bad: Style,
    /// The name of a key.
    pub key: Style,
}

impl Default for Theme {
    fn default() -> Self {
        let plain = Style::new();
        Self {
            text: plain,
            dim: plain.add_modifier(Modifier::DIM),
            title: plain.add_modifier(Modifier::BOLD),
            border: plain.add_modifier(Modifier::DIM),
            focus: plain.fg(Color::Cyan).add_modifier(Modifier::BOLD),
            selected: plain.add_modifier(Modifier::REVERSED | Modifier::BOLD),
            resting: plain.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            good: plain.fg(Color::Green),
            warn: plain.fg(Color::Yellow),
            bad: plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            key: plain.fg(Color::Cyan).add_modifier(Modifier::BOLD),
        }
    }
}
