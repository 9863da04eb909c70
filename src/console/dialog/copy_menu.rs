//! The menu of the copy key: name, path, URL of the chosen rows.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply};
use crate::actions::Action;
use crate::command::Command;
use crate::format::{count, fit_middle};

/// Something that can be copied: a line for each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyValue {
    pub letter: char,
    pub label: &'static str,
    pub lines: Vec<String>,
}

impl CopyValue {
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

#[derive(Debug)]
pub(crate) struct CopyMenu {
    values: Vec<CopyValue>,
    row: usize,
}

const LABEL_WIDTH: usize = 6;

impl CopyMenu {
    pub(crate) fn new(values: Vec<CopyValue>) -> Self {
        Self { values, row: 0 }
    }

    fn copy(&self, row: usize) -> DialogReply {
        match self.values.get(row) {
            Some(value) => DialogReply::Close(vec![Command::Copy(value.text())]),
            None => DialogReply::Stay,
        }
    }
}

impl Dialog for CopyMenu {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let last = self.values.len().saturating_sub(1);
        let letter = |c: char| self.values.iter().position(|value| value.letter == c);
        match key.code {
            KeyCode::Char(c) if letter(c).is_some() => return self.copy(letter(c).unwrap_or(0)),
            KeyCode::Up | KeyCode::BackTab | KeyCode::Char('k') => {
                self.row = self.row.checked_sub(1).unwrap_or(last);
            }
            KeyCode::Down | KeyCode::Tab | KeyCode::Char('j') => {
                self.row = if self.row == last { 0 } else { self.row + 1 };
            }
            KeyCode::Home | KeyCode::Char('g') => self.row = 0,
            KeyCode::End | KeyCode::Char('G') => self.row = last,
            KeyCode::Enter => return self.copy(self.row),
            KeyCode::Char('q') => return DialogReply::close(),
            // The same key twice copies the names.
            _ if context.is_key(key, Action::Copy) => return self.copy(0),
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    /// Selects a row; a second click copies it.
    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        if self.row == target {
            return self.copy(target);
        }
        self.row = target;
        DialogReply::Stay
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new("copy", context, width);
        for (row, value) in self.values.iter().enumerate() {
            let (key, style) = match row == self.row {
                true => (theme.selected, theme.selected),
                false => (theme.key, theme.text),
            };
            if row == self.row {
                content.focus = Some(content.length());
            }
            let text = match value.lines.as_slice() {
                [line] => line.clone(),
                lines => count(lines.len(), "line"),
            };
            let room = width.saturating_sub(LABEL_WIDTH + 4);
            content.push_target(row);
            content.push_line(Line::from(vec![
                Span::styled(format!(" {} ", value.letter), key),
                Span::styled(format!("{:LABEL_WIDTH$} ", value.label), style),
                Span::styled(fit_middle(&text, room), style),
            ]));
        }
        content.push_key("letter", "copy", true);
        content.push_key("↑ ↓", "select", true);
        content.push_key("enter", "copy selected", true);
        content.push_key("esc", "close", true);
        content
    }
}
