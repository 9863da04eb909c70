//! The doctor's page: what was found of each host and the bucket, as it comes.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, DialogReply};
use crate::app::Command;
use crate::format;
use crate::theme::Theme;
use snapdeck_engine::{HealthCheckView, View};
use snapdeck_model::{Check, Verdict};

/// The dialog.
#[derive(Debug)]
pub(crate) struct DoctorDialog;

/// Columns of what a check looks at.
const CHECK_NAME_WIDTH: usize = 20;

impl DoctorDialog {
    /// Takes a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent) -> DialogReply {
        match key.code {
            KeyCode::Char('q' | 'D') | KeyCode::Enter => DialogReply::close(),
            // What is being examined still is not begun anew.
            KeyCode::Char('r') => DialogReply::Execute(vec![Command::RunChecks]),
            _ => DialogReply::Stay,
        }
    }

    /// What it shows.
    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: "doctor".to_owned(),
            ..Content::default()
        };
        for patient in &view.health_checks {
            if !content.lines.is_empty() {
                content.push_blank();
            }
            content.lines.push(heading(patient, theme));
            let checks = patient.report.iter().flat_map(|found| &found.checks);
            checks.for_each(|check| push_check(&mut content, check, theme, width));
        }
        content.keys = vec![
            ("esc", "close", true),
            ("j k", "scroll", true),
            ("r", "again", true),
        ];
        content
    }
}

fn heading(patient: &HealthCheckView, theme: &Theme) -> Line<'static> {
    let name = patient.host.as_ref().map_or("bucket", |host| host.as_str());
    let (state, style) = match (&patient.report, patient.is_running) {
        (_, true) => ("◌ checking".to_owned(), theme.dim),
        (None, false) => ("not examined".to_owned(), theme.dim),
        (Some(found), false) => {
            let count = |verdict| {
                found
                    .checks
                    .iter()
                    .filter(|check| check.verdict == verdict)
                    .count()
            };
            match (count(Verdict::Failed), count(Verdict::Warning)) {
                (0, 0) => ("all is well".to_owned(), theme.good),
                (0, warnings) => (format::count(warnings, "warning"), theme.warn),
                (failed, 0) => (format!("{failed} failed"), theme.bad),
                (failed, warnings) => {
                    let warnings = format::count(warnings, "warning");
                    (format!("{failed} failed, {warnings}"), theme.bad)
                }
            }
        }
    };
    Line::from(vec![
        Span::styled(format!("{name}  "), theme.title),
        Span::styled(state, style),
    ])
}

fn push_check(content: &mut Content, check: &Check, theme: &Theme, width: usize) {
    let (sign, style) = match check.verdict {
        Verdict::Passed => ("✓", theme.good),
        Verdict::Warning => ("!", theme.warn),
        Verdict::Failed => ("✗", theme.bad),
    };
    let mut what = format::fit(&check.name, CHECK_NAME_WIDTH);
    let mut sign = sign;
    for line in format::wrap(&check.finding, width.saturating_sub(CHECK_NAME_WIDTH + 4)) {
        let what = std::mem::replace(&mut what, " ".repeat(CHECK_NAME_WIDTH));
        content.lines.push(Line::from(vec![
            Span::styled(format!(" {} ", std::mem::replace(&mut sign, " ")), style),
            Span::raw(format!("{what} {line}")),
        ]));
    }
    if let Some(mend) = &check.fix {
        content.push_wrapped(&format!("→ {mend}"), 5, theme.warn, width);
    }
}
