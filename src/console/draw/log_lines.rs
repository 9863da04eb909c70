//! Lines of the log pane: time, level and message, wrapped between words.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use tui_logger::{ExtLogRecord, LevelFilter, LogFormatter};

use crate::format::wrap;
use crate::theme::Theme;

pub(super) struct LogLines {
    error: Style,
    warning: Style,
    info: Style,
    debug: Style,
    /// The word of an information.
    info_level: Style,
}

/// Width of time and level, and indent of the further lines of a message.
const INDENT: usize = 15;

impl LogLines {
    pub(super) fn new(theme: &Theme) -> Self {
        Self {
            error: theme.bad,
            warning: theme.warn,
            info: theme.text,
            debug: theme.dim,
            info_level: theme.good,
        }
    }
}

impl LogFormatter for LogLines {
    fn min_width(&self) -> u16 {
        INDENT as u16 + 5
    }

    fn format(&self, width: usize, event: &ExtLogRecord) -> Vec<Line<'_>> {
        let style = match event.level.to_level_filter() {
            LevelFilter::Error => self.error,
            LevelFilter::Warn => self.warning,
            LevelFilter::Info => self.info,
            _ => self.debug,
        };
        let time = event.timestamp.strftime("%H:%M:%S");
        let level_style = match event.level.to_level_filter() {
            LevelFilter::Info => self.info_level,
            _ => style,
        };
        let mut prefix = vec![
            Span::styled(format!("{time} "), self.debug),
            Span::styled(format!("{:<5} ", event.level.as_str()), level_style),
        ];
        let message = wrap(&message(event.msg()), width.saturating_sub(INDENT));
        let lines = message.into_iter().map(|line| {
            let indent = vec![Span::raw(" ".repeat(INDENT))];
            let mut spans = std::mem::replace(&mut prefix, indent);
            spans.push(Span::styled(line, style));
            Line::from(spans)
        });
        lines.collect()
    }
}

/// Returns the message with its job's number as `job 1: started`; `tui_logger` has it as `job: 1 started`.
fn message(text: &str) -> String {
    let text = text.trim_start();
    let job = text
        .strip_prefix("job: ")
        .and_then(|rest| rest.split_once(' '));
    match job {
        Some((number, rest)) => format!("job {number}: {rest}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_job_is_a_prefix() {
        assert_eq!(
            message(" job: 12 pull app: started"),
            "job 12: pull app: started"
        );
        assert_eq!(
            message(" host alpha is reachable"),
            "host alpha is reachable"
        );
    }
}
