//! Health checks of each host and the bucket, updated while they run.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply};
use crate::actions::Action;
use crate::command::Command;
use crate::format;
use crate::theme::Theme;
use snapdeck_engine::HealthCheckView;
use snapdeck_model::{Check, HealthReport, Verdict};

#[derive(Debug)]
pub(crate) struct DoctorDialog;

const CHECK_NAME_WIDTH: usize = 20;

impl Dialog for DoctorDialog {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        match key.code {
            KeyCode::Char('q') | KeyCode::Enter => DialogReply::close(),
            _ if context.is_key(key, Action::Doctor) => DialogReply::close(),
            // Checks that still run are not restarted.
            KeyCode::Char('r') => DialogReply::Execute(vec![Command::RunChecks]),
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new("doctor", context, width);
        if let [_, _, ..] = &context.view.health_checks[..] {
            // The results of all, before their checks.
            for target in &context.view.health_checks {
                content.push_line(heading(target, theme));
            }
        }
        for target in &context.view.health_checks {
            if content.length() > 0 {
                content.push_blank();
            }
            content.push_line(heading(target, theme));
            let checks = target.report.iter().flat_map(|report| &report.checks);
            let mut checks: Vec<&Check> = checks.collect();
            // Problems come first; while checks run, none changes its place.
            if !target.is_running {
                checks.sort_by_key(|check| match check.verdict {
                    Verdict::Failed => 0,
                    Verdict::Warning => 1,
                    Verdict::Passed => 2,
                });
            }
            for check in checks {
                push_check(&mut content, check);
            }
        }
        content.push_key("esc", "close", true);
        content.push_key("j k", "scroll", true);
        content.push_key("r", "run again", true);
        content
    }
}

fn heading(target: &HealthCheckView, theme: &Theme) -> Line<'static> {
    let name = target.host.as_ref().map_or("bucket", |host| host.as_str());
    let (state, style) = match (&target.report, target.is_running) {
        (_, true) => ("◌ checking".to_owned(), theme.dim),
        (None, false) => ("not checked".to_owned(), theme.dim),
        (Some(report), false) => summarize(report, theme),
    };
    Line::from(vec![
        Span::styled(format!("{name}  "), theme.title),
        Span::styled(state, style),
    ])
}

/// Returns the numbers of failed checks and warnings, and their style.
pub(super) fn summarize(report: &HealthReport, theme: &Theme) -> (String, Style) {
    let count = |verdict| {
        let checks = report.checks.iter();
        checks.filter(|check| check.verdict == verdict).count()
    };
    match (count(Verdict::Failed), count(Verdict::Warning)) {
        (0, 0) => ("all checks passed".to_owned(), theme.good),
        (0, warnings) => (format::count(warnings, "warning"), theme.warn),
        (failed, 0) => (format!("{failed} failed"), theme.bad),
        (failed, warnings) => {
            let warnings = format::count(warnings, "warning");
            (format!("{failed} failed, {warnings}"), theme.bad)
        }
    }
}

pub(super) fn push_check(content: &mut Content<'_>, check: &Check) {
    let (theme, width) = (content.theme, content.width);
    let (mut sign, style) = match check.verdict {
        Verdict::Passed => ("✓", theme.good),
        Verdict::Warning => ("!", theme.warn),
        Verdict::Failed => ("✗", theme.bad),
    };
    let mut name = format::fit(&check.name, CHECK_NAME_WIDTH);
    for line in format::wrap(&check.finding, width.saturating_sub(CHECK_NAME_WIDTH + 4)) {
        let name = std::mem::replace(&mut name, " ".repeat(CHECK_NAME_WIDTH));
        content.push_line(Line::from(vec![
            Span::styled(format!(" {} ", std::mem::replace(&mut sign, " ")), style),
            Span::raw(format!("{name} {line}")),
        ]));
    }
    if let Some(fix) = &check.fix {
        content.push_wrapped(&format!("→ {fix}"), 5, theme.warn);
    }
}
