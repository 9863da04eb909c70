//! The log pane's state: which lines it shows, and how far it is scrolled.

use std::fmt;

use tui_logger::{LevelFilter, TuiWidgetEvent, TuiWidgetState};

/// Which lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shown {
    /// Errors, warnings and information; the pane is left out where the screen is small.
    #[default]
    IfRoom,
    /// Errors, warnings and information.
    Info,
    /// Errors and warnings.
    Warnings,
    /// Everything that is kept.
    All,
    /// No pane.
    Hidden,
}

/// The pane.
#[derive(Default)]
pub(crate) struct LogPane {
    /// Which lines.
    pub shown: Shown,
    /// tui-logger's own state.
    pub state: TuiWidgetState,
}

impl fmt::Debug for LogPane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogPane")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl LogPane {
    /// The next form; `visible` says whether it is on screen now.
    pub(crate) fn next(&mut self, visible: bool) {
        self.shown = match self.shown {
            Shown::IfRoom if visible => Shown::Warnings,
            Shown::IfRoom | Shown::Hidden => Shown::Info,
            Shown::Info => Shown::Warnings,
            Shown::Warnings => Shown::All,
            Shown::All => Shown::Hidden,
        };
        let level = match self.shown {
            Shown::Warnings => LevelFilter::Warn,
            Shown::All => LevelFilter::Trace,
            _ => LevelFilter::Info,
        };
        self.state = TuiWidgetState::new().set_default_display_level(level);
    }

    /// What its title says of the lines.
    pub(crate) fn label(&self) -> &'static str {
        match self.shown {
            Shown::Warnings => "warnings",
            Shown::All => "everything",
            _ => "information",
        }
    }

    /// Scrolls back (negative) or forth by a page.
    pub(crate) fn scroll(&mut self, by: isize) {
        self.state.transition(match by {
            isize::MAX => TuiWidgetEvent::EscapeKey,
            ..0 => TuiWidgetEvent::PrevPageKey,
            _ => TuiWidgetEvent::NextPageKey,
        });
    }
}
