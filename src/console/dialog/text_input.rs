//! A text field of one line.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use snapdeck_model::is_unprintable;
use tui_input::{Input, InputRequest};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

#[derive(Debug, Default)]
pub(crate) struct TextInput(Input);

impl TextInput {
    /// Maximum length, in characters.
    const MAX: usize = 256;

    pub(crate) fn with_text(text: &str) -> Self {
        Self(Input::new(text.to_owned()))
    }

    /// Handles a key; returns whether it was an editing key.
    pub(crate) fn on_key(&mut self, key: KeyEvent) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let request = match (key.code, ctrl, alt) {
            (KeyCode::Char(_), false, false) if self.text().chars().count() >= Self::MAX => {
                return true;
            }
            (KeyCode::Char(c), false, false) => InputRequest::InsertChar(c),
            (KeyCode::Char('a'), true, _) | (KeyCode::Home, ..) => InputRequest::GoToStart,
            (KeyCode::Char('e'), true, _) | (KeyCode::End, ..) => InputRequest::GoToEnd,
            (KeyCode::Char('u'), true, _) => InputRequest::DeleteFromStart,
            (KeyCode::Char('k'), true, _) => InputRequest::DeleteTillEnd,
            (KeyCode::Char('w'), true, _) => InputRequest::DeletePrevWord,
            (KeyCode::Backspace, _, true) | (KeyCode::Backspace, true, _) => {
                InputRequest::DeletePrevWord
            }
            (KeyCode::Backspace, ..) => InputRequest::DeletePrevChar,
            (KeyCode::Delete, ..) => InputRequest::DeleteNextChar,
            (KeyCode::Left, true, _) => InputRequest::GoToPrevWord,
            (KeyCode::Right, true, _) => InputRequest::GoToNextWord,
            (KeyCode::Left, ..) => InputRequest::GoToPrevChar,
            (KeyCode::Right, ..) => InputRequest::GoToNextChar,
            _ => return false,
        };
        self.0.handle(request);
        true
    }

    /// Inserts pasted text without line ends and other unprintable characters.
    pub(crate) fn paste(&mut self, text: &str) {
        let room = Self::MAX.saturating_sub(self.text().chars().count());
        for c in text.chars().filter(|c| !is_unprintable(*c)).take(room) {
            self.0.handle(InputRequest::InsertChar(c));
        }
    }

    pub(crate) fn text(&self) -> &str {
        self.0.value()
    }

    /// Returns the part that is visible in `width` columns, and the cursor's column in it.
    pub(crate) fn visible(&self, width: usize) -> (String, usize) {
        // The cursor needs a column after the last character.
        let scroll = self.0.visual_scroll(width.saturating_sub(1));
        let mut skipped = 0;
        let text: String = self
            .text()
            .chars()
            .skip_while(|c| {
                let skip = skipped < scroll;
                skipped += if skip { c.width().unwrap_or(0) } else { 0 };
                skip
            })
            .collect();
        let column = self.0.visual_cursor().saturating_sub(scroll);
        let column = column.min(text.width()).min(width.saturating_sub(1));
        (text, column)
    }
}
