//! At startup: the jobs that were interrupted when snapdeck last exited.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::Line;

use super::{Content, DialogReply};
use crate::app::Command;
use crate::format;
use crate::jobs::format_time_ago;
use crate::theme::Theme;
use snapdeck_engine::View;

#[derive(Debug)]
pub(crate) struct InterruptedJobsDialog;

impl InterruptedJobsDialog {
    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        let ids = || view.interrupted_jobs.iter().map(|job| job.id).collect();
        match key.code {
            KeyCode::Char('t') => DialogReply::Close(vec![Command::ResumeInterrupted(ids())]),
            KeyCode::Char('X') => DialogReply::Close(vec![Command::DiscardInterrupted(ids())]),
            KeyCode::Char('q' | 'n') => DialogReply::close(),
            _ => DialogReply::Stay,
        }
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let number = view.interrupted_jobs.len();
        let mut content = Content {
            title: "interrupted jobs".to_owned(),
            ..Content::default()
        };
        let verb = if number == 1 { "was" } else { "were" };
        let text = format!(
            "{} {verb} not finished when snapdeck last exited:",
            format::count(number, "job")
        );
        content.push_wrapped(&text, 0, theme.text, width);
        content.push_blank();
        for job in view.interrupted_jobs.iter() {
            let line = format!(
                "  {}, {}, requested {}",
                job.title,
                job.progress_label(),
                format_time_ago(job.requested_at)
            );
            content.lines.push(Line::raw(format::clip(&line, width)));
        }
        content.push_blank();
        let text = "Pulls resume; other jobs restart. A job whose sandbox, snapshot or object was replaced meanwhile fails. You can decide one by one on the Jobs page (J); until then they are kept.";
        content.push_wrapped(text, 0, theme.dim, width);
        content.keys = vec![
            ("t", "resume all", true),
            ("X", "discard all", true),
            ("esc", "decide later", true),
        ];
        content
    }
}
