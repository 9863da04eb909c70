//! The log pane's state: which lines it shows, and how far it is scrolled.

use std::fmt;

use tui_logger::{LevelFilter, TuiWidgetEvent, TuiWidgetState};

/// Which lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogFilter {
    /// Errors, warnings and information; the pane is left out where the screen is small.
    #[default]
    Auto,
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
pub(crate) struct LogView {
    /// Which lines.
    pub filter: LogFilter,
    /// tui-logger's own state.
    pub state: TuiWidgetState,
}

impl fmt::Debug for LogView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogPane")
            .field("shown", &self.filter)
            .finish_non_exhaustive()
    }
}

impl LogView {
    /// The next form; `visible` says whether it is on screen now.
    pub(crate) fn cycle_filter(&mut self, visible: bool) {
        self.filter = match self.filter {
            LogFilter::Auto if visible => LogFilter::Warnings,
            LogFilter::Auto | LogFilter::Hidden => LogFilter::Info,
            LogFilter::Info => LogFilter::Warnings,
            LogFilter::Warnings => LogFilter::All,
            LogFilter::All => LogFilter::Hidden,
        };
        let level = match self.filter {
            LogFilter::Warnings => LevelFilter::Warn,
            LogFilter::All => LevelFilter::Trace,
            _ => LevelFilter::Info,
        };
        self.state = TuiWidgetState::new().set_default_display_level(level);
    }

    /// What its title says of the lines.
    pub(crate) fn label(&self) -> &'static str {
        match self.filter {
            LogFilter::Warnings => "warnings",
            LogFilter::All => "everything",
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
