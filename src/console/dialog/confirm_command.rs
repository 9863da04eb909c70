//! The confirmation of a command of the operator.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::Line;

use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::custom::CommandRun;
use crate::format::{clip, number};

#[derive(Debug)]
pub(crate) struct ConfirmCommand {
    /// The command with the values of each row.
    pub runs: Vec<CommandRun>,
}

impl Dialog for ConfirmCommand {
    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        match key.code {
            KeyCode::Char('y') => DialogReply::Close(vec![Command::Run(self.runs.clone())]),
            KeyCode::Char('n' | 'q') => DialogReply::close(),
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let name = self.runs.first().map_or("", |run| run.name);
        let mut content = Content::new(name, context, width);
        match self.runs.as_slice() {
            [run] => {
                content.push_wrapped("Run this command?", 0, theme.text);
                content.push_blank();
                // An argument a line: spaces in a value are seen.
                for word in words(run) {
                    content.push_wrapped(&word, 2, theme.title);
                }
            }
            runs => {
                let count = number(runs.len());
                let text = format!("Run these {count} commands, one after the other?");
                content.push_wrapped(&text, 0, theme.text);
                content.push_blank();
                let style = theme.title;
                content.push_rows(runs.len(), move |row| {
                    let text = format!("  {}", words(&runs[row]).join(" "));
                    Line::styled(clip(&text, width), style)
                });
            }
        }
        content.push_key("y", "run", true);
        content.push_key("n", "cancel", true);
        content
    }
}

fn words(run: &CommandRun) -> Vec<String> {
    run.words("{uuid}")
}
