//! Quitting while jobs run.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::Line;

use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::format;
use snapdeck_engine::View;

#[derive(Debug)]
pub(crate) struct QuitDialog {
    /// Whether the jobs can be resumed at the next start.
    pub can_leave: bool,
}

impl Dialog for QuitDialog {
    fn is_quit(&self) -> bool {
        true
    }

    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        match key.code {
            KeyCode::Char('c') => DialogReply::Close(vec![Command::Quit]),
            KeyCode::Char('q' | 'y') | KeyCode::Enter if count_unfinished(context.view) == 0 => {
                DialogReply::Close(vec![Command::Quit])
            }
            KeyCode::Char('l') if self.can_leave => DialogReply::Close(vec![Command::Leave]),
            KeyCode::Char('s' | 'n') | KeyCode::Enter => DialogReply::close(),
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let (view, theme) = (context.view, context.theme);
        let mut content = Content::new("quit", context, width);
        let unfinished = count_unfinished(view);
        if unfinished == 0 {
            content.push_wrapped("All jobs have finished.", 0, theme.text);
            content.push_key("q", "quit", true);
            content.push_key("s", "stay", true);
            return content;
        }
        let verb = if unfinished == 1 { "is" } else { "are" };
        let text = format!("{} {verb} not finished:", format::count(unfinished, "job"));
        content.push_wrapped(&text, 0, theme.text);
        content.push_blank();
        for job in view.jobs.iter().filter(|job| !job.state.is_finished()) {
            let line = format!("  {}", job.title());
            content.push_line(Line::raw(format::clip(&line, width)));
        }
        content.push_blank();
        let resumption = match self.can_leave {
            true => {
                "Leave: jobs stop now; the next start offers to resume them. Pulls continue, other jobs restart."
            }
            false => "Jobs cannot be resumed at the next start: this session has no job journal.",
        };
        content.push_wrapped(resumption, 0, theme.dim);
        let cleanup = "Cancelled jobs clean up: temporary files are removed, and a guest that was paused \
            for its job is resumed.";
        content.push_wrapped(cleanup, 0, theme.dim);
        content.push_key("s", "stay", true);
        content.push_key("l", "leave: resume at the next start", self.can_leave);
        content.push_key("c", "cancel jobs and quit", true);
        content
    }
}

fn count_unfinished(view: &View) -> usize {
    view.jobs
        .iter()
        .filter(|job| !job.state.is_finished())
        .count()
}
