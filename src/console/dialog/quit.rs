//! Leaving while jobs run.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::Line;

use super::{Content, DialogReply};
use crate::app::Command;
use crate::format;
use crate::theme::Theme;
use snapdeck_engine::View;

/// The dialog.
#[derive(Debug)]
pub(crate) struct QuitDialog {
    /// Can the jobs be left to the next start?
    pub can_leave: bool,
}

impl QuitDialog {
    /// Takes a key.
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

    /// What it shows.
    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: "quit".to_owned(),
            ..Content::default()
        };
        let left = count_unfinished(view);
        if left == 0 {
            content.push_wrapped("All jobs have finished.", 0, theme.text, width);
            content.keys = vec![("q", "quit", true), ("s", "stay", true)];
            return content;
        }
        let verb = if left == 1 { "is" } else { "are" };
        let text = format!("{} {verb} not finished:", format::count(left, "job"));
        content.push_wrapped(&text, 0, theme.text, width);
        content.push_blank();
        for job in view.jobs.iter().filter(|job| !job.state.is_finished()) {
            let line = format!("  {}", job.title());
            content.lines.push(Line::raw(format::clip(&line, width)));
        }
        content.push_blank();
        let left = match self.can_leave {
            true => {
                "Leave: they stop now and can be resumed at the next start; pulls continue, other jobs restart."
            }
            false => "They cannot be resumed at the next start: there is no journal.",
        };
        content.push_wrapped(left, 0, theme.dim, width);
        let promise = "Cancelled jobs clean up after themselves: temporary files go, a guest that was \
            paused for its job runs again.";
        content.push_wrapped(promise, 0, theme.dim, width);
        content.keys = vec![
            ("s", "stay", true),
            ("l", "leave: resume at the next start", self.can_leave),
            ("c", "cancel them and quit", true),
        ];
        content
    }
}

/// How many jobs are not over.
pub(super) fn count_unfinished(view: &View) -> usize {
    view.jobs
        .iter()
        .filter(|job| !job.state.is_finished())
        .count()
}
