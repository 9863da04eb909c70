//! At startup: the jobs that were interrupted when snapdeck last exited.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::Line;

use super::{Content, Context, Dialog, DialogReply};
use crate::actions::Action;
use crate::command::Command;
use crate::format;
use crate::pages::jobs::format_time_ago;

#[derive(Debug)]
pub(crate) struct InterruptedJobsDialog;

impl Dialog for InterruptedJobsDialog {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let jobs = &context.view.interrupted_jobs;
        let ids = || jobs.iter().map(|job| job.id).collect();
        match key.code {
            KeyCode::Char('q' | 'n') => DialogReply::close(),
            _ if context.is_key(key, Action::Retry) => {
                DialogReply::Close(vec![Command::ResumeInterrupted(ids())])
            }
            _ if context.is_key(key, Action::Dismiss) => {
                DialogReply::Close(vec![Command::DiscardInterrupted(ids())])
            }
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let jobs = &context.view.interrupted_jobs;
        let mut content = Content::new("interrupted jobs", context, width);
        let verb = if jobs.len() == 1 { "was" } else { "were" };
        let text = format!(
            "{} {verb} not finished when snapdeck last exited:",
            format::count(jobs.len(), "job")
        );
        content.push_wrapped(&text, 0, theme.text);
        content.push_blank();
        for job in jobs.iter() {
            let line = format!(
                "  {}, {}, requested {}",
                job.title,
                job.progress_label(),
                format_time_ago(job.requested_at)
            );
            content.push_line(Line::raw(format::clip(&line, width)));
        }
        content.push_blank();
        let text = format!(
            "Pulls resume; other jobs restart. A job whose sandbox, snapshot or object was replaced meanwhile fails. \
             You can decide one by one on the Jobs page ({}); until then they are kept.",
            context.key(Action::Jobs)
        );
        content.push_wrapped(&text, 0, theme.dim);
        content.push_key(context.key(Action::Retry), "resume all", true);
        content.push_key(context.key(Action::Dismiss), "discard all", true);
        content.push_key("esc", "decide later", true);
        content
    }
}
