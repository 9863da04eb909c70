//! A guest's screen, full size.

use crossterm::event::{KeyCode, KeyEvent};

use super::{Content, DialogReply};
use crate::app::Command;
use snapdeck_model::{HostName, SandboxId};

/// The dialog; `draw::metrics` draws the picture.
#[derive(Debug)]
pub(crate) struct ScreenView {
    pub host: HostName,
    pub sandbox: SandboxId,
}

impl ScreenView {
    pub(crate) fn on_key(&self, key: KeyEvent) -> DialogReply {
        let viewer = |open| {
            DialogReply::Execute(vec![Command::Viewer {
                host: self.host.clone(),
                sandbox: self.sandbox.clone(),
                open,
            }])
        };
        match key.code {
            KeyCode::Char('v') => viewer(false),
            KeyCode::Char('V') => viewer(true),
            KeyCode::Char('i' | 'q') | KeyCode::Enter => DialogReply::close(),
            _ => DialogReply::Stay,
        }
    }

    pub(crate) fn content(&self) -> Content {
        Content {
            title: format!("screen of {} on {}", self.sandbox, self.host),
            keys: vec![
                ("esc", "back", true),
                ("v", "copy VNC", true),
                ("V", "viewer", true),
            ],
            ..Content::default()
        }
    }
}
