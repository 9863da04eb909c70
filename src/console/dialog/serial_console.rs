//! The serial console of a sandbox, on the whole screen. All keys but one go to the guest.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::serial::{SerialTerminal, encode_key, encode_paste};
use snapdeck_model::{HostName, SandboxId};

/// The dialog; `draw::serial` draws the terminal.
#[derive(Debug)]
pub(crate) struct SerialConsole {
    pub host: HostName,
    pub sandbox: SandboxId,
    pub terminal: SerialTerminal,
}

impl SerialConsole {
    /// Returns the command that sends a pasted text.
    pub(crate) fn paste_command(&self, text: &str) -> Command {
        let state = self.terminal.lock();
        let is_bracketed = state.is_some_and(|state| state.emulator.screen().bracketed_paste());
        Command::SerialInput(encode_paste(text, is_bracketed))
    }

    /// Changes the size of the terminal; returns whether it was another one.
    pub(crate) fn resize(&self, (columns, rows): (u16, u16)) -> bool {
        let state = self.terminal.lock();
        state.is_some_and(|mut state| state.emulator.resize(columns, rows))
    }

    /// Scrolls back (negative) or forward by so many lines.
    pub(crate) fn scroll(&self, by: isize) {
        if let Some(mut state) = self.terminal.lock() {
            state.emulator.scroll(by);
        }
    }

    fn page(&self) -> isize {
        let state = self.terminal.lock();
        let rows = state.map_or(0, |state| state.emulator.screen().size().0);
        isize::try_from(rows).unwrap_or(1).max(2) - 1
    }
}

/// Returns whether the key is ctrl-], which crossterm reads as ctrl-5.
fn is_escape(key: KeyEvent) -> bool {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    ctrl && matches!(key.code, KeyCode::Char(']' | '5'))
}

impl Dialog for SerialConsole {
    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        if is_escape(key) {
            return DialogReply::Close(vec![Command::SerialClose]);
        }
        if key.modifiers.contains(KeyModifiers::SHIFT) {
            match key.code {
                KeyCode::PageUp => self.scroll(-self.page()),
                KeyCode::PageDown => self.scroll(self.page()),
                _ => return self.send(key),
            }
            return DialogReply::Stay;
        }
        self.send(key)
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let title = format!("serial console of {} on {}", self.sandbox, self.host);
        let mut content = Content::new(title, context, width);
        let is_open = self.terminal.end().is_none();
        content.push_key("ctrl-]", "leave", true);
        if !is_open {
            content.push_key("esc", "close", true);
        }
        content.push_key("shift-page-up", "scroll back", true);
        content
    }

    fn serial(&self) -> Option<&SerialConsole> {
        Some(self)
    }
}

impl SerialConsole {
    fn send(&self, key: KeyEvent) -> DialogReply {
        if self.terminal.end().is_some() {
            return match key.code {
                KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => {
                    DialogReply::Close(vec![Command::SerialClose])
                }
                _ => DialogReply::Stay,
            };
        }
        let mut is_application = false;
        if let Some(mut state) = self.terminal.lock() {
            state.emulator.scroll_to_end();
            is_application = state.emulator.screen().application_cursor();
        }
        match encode_key(key, is_application) {
            Some(bytes) => DialogReply::Execute(vec![Command::SerialInput(bytes)]),
            None => DialogReply::Stay,
        }
    }
}
