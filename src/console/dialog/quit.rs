//! Quitting while jobs run.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::Line;

use super::{Content, DialogReply};
use crate::app::Command;
use crate::format;
use crate::theme::Theme;
use snapdeck_engine::View;

#[derive(Debug)]
pub(crate) struct QuitDialog {
    /// Whether the jobs can be resumed at the next start.
    pub can_leave: bool,
}

impl QuitDialog {
    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        match key.code {
            KeyCode::Char('c') => DialogReply::Close(vec![Command::Quit]),
            KeyCode::Char('q' | 'y') | KeyCode::Enter if count_unfinished(view) == 0 => {
                DialogReply::Close(vec![Command::Quit])
            }
            KeyCode::Char('l') if self.can_leave => DialogReply::Close(vec![Command::Leave]),
            KeyCode::Char('s' | 'n') | KeyCode::Enter => DialogReply::close(),
            _ => DialogReply::Stay,
        }
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: "quit".to_owned(),
            ..Content::default()
        };
        let unfinished = count_unfinished(view);
        if unfinished == 0 {
            content.push_wrapped("All jobs have finished.", 0, theme.text, width);
            content.keys = vec![("q", "quit", true), ("s", "stay", true)];
            return content;
        }
        let verb = if unfinished == 1 { "is" } else { "are" };
        let text = format!("{} {verb} not finished:", format::count(unfinished, "job"));
        content.push_wrapped(&text, 0, theme.text, width);
        content.push_blank();
        for job in view.jobs.iter().filter(|job| !job.state.is_finished()) {
            let line = format!("  {}", job.title());
            content.lines.push(Line::raw(format::clip(&line, width)));
        }
        content.push_blank();
        let resumption = match self.can_leave {
            true => {
                "Leave: jobs stop now; the next start offers to resume them. Pulls continue, other jobs restart."
            }
            false => "Jobs cannot be resumed at the next start: this session has no job journal.",
        };
        content.push_wrapped(resumption, 0, theme.dim, width);
        let cleanup = "Cancelled jobs clean up: temporary files are removed, and a guest that was paused \
            for its job is resumed.";
        content.push_wrapped(cleanup, 0, theme.dim, width);
        content.keys = vec![
            ("s", "stay", true),
            ("l", "leave: resume at the next start", self.can_leave),
            ("c", "cancel jobs and quit", true),
        ];
        content
    }
}

fn count_unfinished(view: &View) -> usize {
    view.jobs
        .iter()
        .filter(|job| !job.state.is_finished())
        .count()
}
