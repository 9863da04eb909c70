//! The choice and order of a list's columns.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply};
use crate::actions::Pane;
use crate::columns::{ChosenColumns, ColumnSpec};
use crate::format::fit;

#[derive(Debug)]
pub(crate) struct ColumnsDialog {
    pane: Pane,
    chosen: ChosenColumns,
    /// The columns in their order, and whether each is shown.
    columns: Vec<(&'static ColumnSpec, bool)>,
    row: usize,
}

impl ColumnsDialog {
    pub(crate) fn new(pane: Pane, chosen: &ChosenColumns) -> Self {
        Self {
            pane,
            chosen: chosen.clone(),
            columns: chosen.choices(),
            row: 0,
        }
    }

    fn last(&self) -> usize {
        self.columns.len().saturating_sub(1)
    }

    fn toggle(&mut self) {
        if let Some((_, is_shown)) = self.columns.get_mut(self.row) {
            *is_shown = !*is_shown;
        }
    }

    /// Moves the selected column by one place.
    fn shift(&mut self, down: bool) {
        let other = match down {
            true => Some(self.row + 1).filter(|row| *row <= self.last()),
            false => self.row.checked_sub(1),
        };
        if let Some(other) = other {
            self.columns.swap(self.row, other);
            self.row = other;
        }
    }
}

impl Dialog for ColumnsDialog {
    fn on_key(&mut self, key: KeyEvent, _context: &Context<'_>) -> DialogReply {
        let shifts = key
            .modifiers
            .intersects(KeyModifiers::SHIFT | KeyModifiers::CONTROL | KeyModifiers::ALT);
        match key.code {
            KeyCode::Char('K' | '-') => self.shift(false),
            KeyCode::Char('J' | '+') => self.shift(true),
            KeyCode::Up if shifts => self.shift(false),
            KeyCode::Down if shifts => self.shift(true),
            KeyCode::Up | KeyCode::BackTab | KeyCode::Char('k') => {
                self.row = self.row.checked_sub(1).unwrap_or(self.last());
            }
            KeyCode::Down | KeyCode::Tab | KeyCode::Char('j') => {
                self.row = (self.row + 1) % self.columns.len().max(1);
            }
            KeyCode::Home | KeyCode::Char('g') => self.row = 0,
            KeyCode::End | KeyCode::Char('G') => self.row = self.last(),
            KeyCode::Char(' ') => self.toggle(),
            KeyCode::Char('r') => self.columns = self.chosen.reset().choices(),
            KeyCode::Enter => {
                let shown = self.columns.iter().filter(|(_, is_shown)| *is_shown);
                let shown: Vec<&str> = shown.map(|(spec, _)| spec.header).collect();
                return DialogReply::ChooseColumns(self.pane, self.chosen.with(&shown));
            }
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    fn on_click(&mut self, target: usize, _context: &Context<'_>) -> DialogReply {
        self.row = target.min(self.last());
        self.toggle();
        DialogReply::Stay
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let title = format!("columns of {}", self.pane.name());
        let mut content = Content::new(title, context, width);
        for (row, (spec, is_shown)) in self.columns.iter().enumerate() {
            let style = match row == self.row {
                true => theme.selected,
                false => theme.text,
            };
            if row == self.row {
                content.focus = Some(content.length());
            }
            let check = if *is_shown { "[x]" } else { "[ ]" };
            content.push_target(row);
            let text = format!(" {check} {}", spec.header);
            content.push_line(Line::from(Span::styled(fit(&text, width), style)));
        }
        content.push_blank();
        content.push_wrapped(
            "The host and the name are always shown. A narrow list leaves out the less important columns.",
            0,
            theme.dim,
        );
        content.push_key("space", "show or hide", true);
        content.push_key("J K", "move", true);
        content.push_key("r", "default", true);
        content.push_key("enter", "apply", true);
        content.push_key("esc", "close", true);
        content
    }
}
