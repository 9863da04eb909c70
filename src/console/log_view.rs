//! The state of the log pane: level and scroll position.

use std::fmt;

use tui_logger::{LevelFilter, TuiWidgetEvent, TuiWidgetState};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogFilter {
    /// Information and above; hidden on a small screen.
    #[default]
    Auto,
    /// Information and above.
    Info,
    /// Warnings and errors.
    Warnings,
    All,
    /// No log pane.
    Hidden,
}

pub(crate) struct LogView {
    pub filter: LogFilter,
    pub state: TuiWidgetState,
}

impl Default for LogView {
    fn default() -> Self {
        let filter = LogFilter::default();
        Self {
            filter,
            state: filter.widget_state(),
        }
    }
}

impl LogFilter {
    /// Returns the lowest level that is shown.
    fn level(self) -> LevelFilter {
        match self {
            Self::Warnings => LevelFilter::Warn,
            Self::All => LevelFilter::Trace,
            Self::Auto | Self::Info | Self::Hidden => LevelFilter::Info,
        }
    }

    /// Returns a state at the end of the log. Without a level it would show all lines.
    fn widget_state(self) -> TuiWidgetState {
        TuiWidgetState::new().set_default_display_level(self.level())
    }
}

impl fmt::Debug for LogView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogView")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

impl LogView {
    /// Switches to the next level. `visible`: the pane is on screen now.
    pub(crate) fn cycle_filter(&mut self, visible: bool) {
        self.filter = match self.filter {
            LogFilter::Auto if visible => LogFilter::Warnings,
            LogFilter::Auto | LogFilter::Hidden => LogFilter::Info,
            LogFilter::Info => LogFilter::Warnings,
            LogFilter::Warnings => LogFilter::All,
            LogFilter::All => LogFilter::Hidden,
        };
        self.state = self.filter.widget_state();
    }

    /// Returns the level for the pane's title.
    pub(crate) fn label(&self) -> &'static str {
        match self.filter {
            LogFilter::Warnings => "warnings",
            LogFilter::All => "debug",
            LogFilter::Auto | LogFilter::Info | LogFilter::Hidden => "info",
        }
    }

    /// Scrolls back (negative) or forward by a page; to the end for `isize::MAX`.
    pub(crate) fn scroll(&mut self, by: isize) {
        self.state.transition(match by {
            isize::MAX => TuiWidgetEvent::EscapeKey,
            ..0 => TuiWidgetEvent::PrevPageKey,
            _ => TuiWidgetEvent::NextPageKey,
        });
    }
}
