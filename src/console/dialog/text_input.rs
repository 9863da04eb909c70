//! A text field of one line.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use snapdeck_model::is_unprintable;
use tui_input::{Input, InputRequest};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

#[derive(Debug, Default)]
pub(crate) struct TextInput {
    input: Input,
    /// The text is selected as a whole: typing replaces it.
    is_selected: bool,
}

impl TextInput {
    /// Maximum length, in characters.
    const MAX: usize = 256;

    pub(crate) fn with_text(text: &str) -> Self {
        Self {
            input: Input::new(text.to_owned()),
            is_selected: false,
        }
    }

    /// Returns a field with a proposed text: typing replaces it, moving the cursor accepts it.
    pub(crate) fn proposed(text: &str) -> Self {
        Self {
            is_selected: !text.is_empty(),
            ..Self::with_text(text)
        }
    }

    /// Returns whether the text is selected as a whole, so that typing replaces it.
    pub(crate) fn is_selected(&self) -> bool {
        self.is_selected
    }

    /// Returns whether the cursor is before the first or behind the last character.
    fn is_cursor_at(&self, end: bool) -> bool {
        let edge = if end { self.text().chars().count() } else { 0 };
        self.input.cursor() == edge
    }

    /// Handles a key; returns whether it was an editing key.
    ///
    /// Home, End and ctrl-u that change nothing are not: then they scroll.
    pub(crate) fn on_key(&mut self, key: KeyEvent) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let request = match (key.code, ctrl, alt) {
            (KeyCode::Char(_), false, false)
                if !self.is_selected && self.text().chars().count() >= Self::MAX =>
            {
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
        let is_moved = match request {
            InputRequest::GoToStart if key.code == KeyCode::Home => !self.is_cursor_at(false),
            InputRequest::GoToEnd if key.code == KeyCode::End => !self.is_cursor_at(true),
            InputRequest::DeleteFromStart => !self.is_cursor_at(false),
            _ => true,
        };
        if !is_moved && !self.is_selected {
            return false;
        }
        if std::mem::take(&mut self.is_selected) {
            match request {
                InputRequest::InsertChar(_) => self.input.reset(),
                InputRequest::DeletePrevChar
                | InputRequest::DeleteNextChar
                | InputRequest::DeletePrevWord
                | InputRequest::DeleteFromStart
                | InputRequest::DeleteTillEnd => {
                    self.input.reset();
                    return true;
                }
                _ => {}
            }
        }
        self.input.handle(request);
        true
    }

    /// Inserts pasted text without line ends and other unprintable characters.
    pub(crate) fn paste(&mut self, text: &str) {
        if std::mem::take(&mut self.is_selected) {
            self.input.reset();
        }
        let room = Self::MAX.saturating_sub(self.text().chars().count());
        for c in text.chars().filter(|c| !is_unprintable(*c)).take(room) {
            self.input.handle(InputRequest::InsertChar(c));
        }
    }

    pub(crate) fn text(&self) -> &str {
        self.input.value()
    }

    /// Returns the part that is visible in `width` columns, and the cursor's column in it.
    pub(crate) fn visible(&self, width: usize) -> (String, usize) {
        // The cursor needs a column after the last character.
        let scroll = self.input.visual_scroll(width.saturating_sub(1));
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
        let column = self.input.visual_cursor().saturating_sub(scroll);
        let column = column.min(text.width()).min(width.saturating_sub(1));
        (text, column)
    }
}
