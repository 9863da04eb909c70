//! A guest's screen, full size.

use crossterm::event::{KeyCode, KeyEvent};

use super::{Content, Context, Dialog, DialogReply};
use crate::actions::Action;
use crate::command::Command;
use snapdeck_model::{HostName, SandboxId};

/// The dialog; `draw::metrics` draws the picture.
#[derive(Debug)]
pub(crate) struct ScreenView {
    pub host: HostName,
    pub sandbox: SandboxId,
}

impl Dialog for ScreenView {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let viewer = |open| {
            DialogReply::Execute(vec![Command::Viewer {
                host: self.host.clone(),
                sandbox: self.sandbox.clone(),
                open,
            }])
        };
        match key.code {
            KeyCode::Char('q') | KeyCode::Enter => DialogReply::close(),
            _ if context.is_key(key, Action::CopyVnc) => viewer(false),
            _ if context.is_key(key, Action::Viewer) => viewer(true),
            _ if context.is_key(key, Action::Screen) => DialogReply::close(),
            _ => DialogReply::Ignored,
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let title = format!("screen of {} on {}", self.sandbox, self.host);
        let mut content = Content::new(title, context, width);
        content.push_key("esc", "back", true);
        content.push_key(context.key(Action::CopyVnc), "copy VNC", true);
        content.push_key(context.key(Action::Viewer), "viewer", true);
        content
    }

    fn screen(&self) -> Option<&ScreenView> {
        Some(self)
    }
}
