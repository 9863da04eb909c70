//! The confirmation of a command of the operator.

use crossterm::event::{KeyCode, KeyEvent};

use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::custom::CommandRun;

#[derive(Debug)]
pub(crate) struct ConfirmCommand {
    pub run: CommandRun,
}

impl Dialog for ConfirmCommand {
    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        match key.code {
            KeyCode::Char('y') => DialogReply::Close(vec![Command::Run(self.run.clone())]),
            KeyCode::Char('n' | 'q') => DialogReply::close(),
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new(self.run.name, context, width);
        content.push_wrapped("Run this command?", 0, theme.text);
        content.push_blank();
        // An argument a line: spaces in a value are seen.
        for word in self.run.words("{uuid}") {
            content.push_wrapped(&word, 2, theme.title);
        }
        content.push_key("y", "run", true);
        content.push_key("n", "cancel", true);
        content
    }
}
