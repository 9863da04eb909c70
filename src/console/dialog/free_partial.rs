//! The confirmation that removes the partial file of an interrupted pull.

use crossterm::event::{KeyCode, KeyEvent};

use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::format::size;
use crate::lookup;
use snapdeck_model::{HostName, SnapshotName};

#[derive(Debug)]
pub(crate) struct FreePartial {
    pub host: HostName,
    pub name: SnapshotName,
}

impl Dialog for FreePartial {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let is_there = lookup::partial_pull(context.view, &self.host, &self.name).is_some();
        match key.code {
            KeyCode::Char('y') if is_there => {
                let partial = (self.host.clone(), self.name.clone());
                DialogReply::Close(vec![Command::RemovePartials(vec![partial])])
            }
            KeyCode::Char('n' | 'q') => DialogReply::close(),
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let title = format!("partial pull of {} on {}", self.name, self.host);
        let mut content = Content::new(title, context, width);
        let partial = lookup::partial_pull(context.view, &self.host, &self.name);
        match partial {
            Some(partial) => {
                let text = format!(
                    "Remove it? This frees {}; a later pull starts again.",
                    size(partial.allocated_bytes)
                );
                content.push_wrapped(&text, 0, context.theme.text);
            }
            None => content.push_wrapped("It is gone.", 0, context.theme.dim),
        }
        content.push_key("y", "remove", partial.is_some());
        content.push_key("n", "cancel", true);
        content
    }
}
