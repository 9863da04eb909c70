//! Details of a job: its result or error, and its log.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply};
use crate::actions::Action;
use crate::command::Command;
use crate::format::{self, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{JobId, JobState, JobView, pause_summary, transfer_summary};
use snapdeck_model::Outcome;

#[derive(Debug)]
pub(crate) struct JobDetails(pub JobId);

impl Dialog for JobDetails {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let job = lookup::job(context.view, self.0);
        let finished = job.is_some_and(|job| job.state.is_finished());
        match key.code {
            KeyCode::Char('q') | KeyCode::Enter => DialogReply::close(),
            _ if context.is_key(key, Action::Jobs) => DialogReply::close(),
            _ if context.is_key(key, Action::Cancel) && !finished => {
                DialogReply::Execute(vec![Command::Cancel(self.0)])
            }
            _ if context.is_key(key, Action::Retry) => match job {
                Some(job) if matches!(job.state, JobState::Failed(_)) => {
                    DialogReply::Close(vec![Command::Retry(self.0, job.operation.clone())])
                }
                _ => DialogReply::Stay,
            },
            _ if context.is_key(key, Action::Dismiss) && finished => {
                DialogReply::Close(vec![Command::Dismiss(self.0)])
            }
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new(format!("job {}", self.0.0), context, width);
        content.push_key("esc", "close", true);
        content.push_key("j k", "scroll", true);
        let Some(job) = lookup::job(context.view, self.0) else {
            content.push_wrapped("This job was dismissed.", 0, theme.dim);
            return content;
        };
        content.push_wrapped(&job.title(), 0, theme.title);
        if let Some(host) = job.operation.host() {
            content.push_wrapped(&format!("on host {host}"), 0, theme.dim);
        }
        content.push_blank();
        match &job.state {
            JobState::Queued => content.push_wrapped("◌ queued", 0, theme.dim),
            JobState::Running => {
                let progress = job.progress();
                match progress.wait {
                    Some(wait) => {
                        let text = format::wait(wait, job.operation.host());
                        content.push_wrapped(&format!("◌ {text}"), 0, theme.warn);
                    }
                    None => {
                        let text = format!("● {}", progress.phase.as_str());
                        content.push_wrapped(&text, 0, theme.good);
                    }
                }
            }
            JobState::Cancelling => {
                content.push_wrapped("◐ cancelling: cleaning up", 0, theme.warn)
            }
            JobState::Finished(outcome) => {
                content.push_wrapped(&format!("✓ {}", outcome_text(outcome)), 0, theme.good);
            }
            JobState::Failed(error) => {
                content.push_wrapped(&format!("✗ {}", error.message()), 0, theme.bad);
                if let Some(hint) = error.hint_text() {
                    content.push_wrapped(&format!("→ {hint}"), 0, theme.warn);
                }
            }
        }
        content.push_blank();
        content.push_lines(log_lines(job, theme, width));
        if matches!(job.state, JobState::Failed(_)) {
            content.push_key(context.key(Action::Retry), "retry", true);
        }
        match job.state.is_finished() {
            true => content.push_key(context.key(Action::Dismiss), "dismiss", true),
            false => {
                let possible = job.state != JobState::Cancelling;
                content.push_key(context.key(Action::Cancel), "cancel", possible);
            }
        }
        content
    }
}

/// Returns the lines of a job's log.
pub(crate) fn log_lines(job: &JobView, theme: &Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for line in job.log.iter() {
        let style = if line.is_warning {
            theme.warn
        } else {
            theme.text
        };
        let mut time = format!("{} ", format::time_of_day(line.time));
        let mut sign = if line.is_warning { "!" } else { " " };
        for text in format::wrap(&line.text, width.saturating_sub(10)) {
            let margin = std::mem::replace(&mut time, " ".repeat(9));
            let sign = std::mem::replace(&mut sign, " ");
            lines.push(Line::from(vec![
                Span::styled(margin, theme.dim),
                Span::styled(format!("{sign}{text}"), style),
            ]));
        }
    }
    lines
}

/// Returns a short description of what a job did, with the path at the end: a narrow line cuts it first.
pub(crate) fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Created {
            snapshot_path,
            size_bytes,
            paused_ms,
            transfer,
            ..
        } => {
            let pause = pause_summary(transfer, *paused_ms);
            let pause = pause.unwrap_or_else(|| "no pause".to_owned());
            let bytes = size(*size_bytes);
            let transfer = transfer_summary(transfer, size);
            format!("{bytes}, {pause}{transfer}, {snapshot_path}")
        }
        Outcome::Pushed {
            snapshot_path,
            size_bytes,
            transfer,
            ..
        } => {
            let transfer = transfer_summary(transfer, size);
            format!("{}{transfer}, {snapshot_path}", size(*size_bytes))
        }
        Outcome::Pulled { differs: true, .. } => "kept: another image than the object".to_owned(),
        Outcome::Copied { differs: true, .. } => "kept: another image".to_owned(),
        Outcome::Pulled { skipped: true, .. } | Outcome::Copied { skipped: true, .. } => {
            "already present and valid".to_owned()
        }
        Outcome::Pulled {
            snapshot_path,
            size_bytes,
            repaired,
            ..
        }
        | Outcome::Copied {
            snapshot_path,
            size_bytes,
            repaired,
            ..
        } => {
            let repaired = if *repaired { ", repaired" } else { "" };
            format!("{}{repaired}, {snapshot_path}", size(*size_bytes))
        }
        Outcome::Uploaded {
            snapshot_path,
            size_bytes,
            uploaded_bytes,
            copied_bytes,
            ..
        } => {
            let bytes = size(*size_bytes);
            match copied_bytes {
                0 => format!("{snapshot_path}, {bytes}"),
                copied => format!(
                    "{snapshot_path}, {bytes} ({} sent, {} copied by the store)",
                    size(*uploaded_bytes),
                    size(*copied)
                ),
            }
        }
        Outcome::Verified {
            repaired_blocks,
            size_bytes,
            ..
        } => match repaired_blocks.len() {
            0 => format!("{}, no bad blocks", size(*size_bytes)),
            blocks => format!("{}, {blocks} bad blocks repaired", size(*size_bytes)),
        },
        Outcome::Adopted { changed: false, .. } => "already has a manifest".to_owned(),
        Outcome::Adopted { hashed_bytes, .. } => {
            format!("digests recorded, {} read", size(*hashed_bytes))
        }
        Outcome::Removed { .. } => "removed".to_owned(),
        Outcome::SandboxCreated { sandbox, .. } => format!("created, {}", sandbox.state.label()),
        Outcome::SandboxConfigured {
            cpus,
            memory_bytes,
            autostart,
            ..
        } => format!(
            "{cpus} CPUs, {}, autostart {}",
            size(*memory_bytes),
            if *autostart { "on" } else { "off" }
        ),
        Outcome::SandboxRenamed { sandbox_id, .. } => format!("renamed to {sandbox_id}"),
        Outcome::SandboxChanged {
            state: None,
            changed: false,
            ..
        } => "there was nothing to destroy".to_owned(),
        Outcome::SandboxChanged { state: None, .. } => "destroyed".to_owned(),
        Outcome::SandboxChanged {
            state: Some(state),
            changed,
            ..
        } => match changed {
            true => state.label().to_owned(),
            false => format!("already {}", state.label()),
        },
    }
}
