//! Bookmarks: filters with a name.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogReply, TextInput};
use crate::actions::Action;
use crate::bookmarks::Bookmarks;
use crate::command::Command;
use crate::format::fit;

#[derive(Debug)]
pub(crate) struct BookmarksDialog {
    bookmarks: Bookmarks,
    /// The filter of the open list.
    filter: String,
    row: usize,
    /// The name of a new bookmark while it is typed.
    name: Option<TextInput>,
}

const NAME_WIDTH: usize = 20;

impl BookmarksDialog {
    pub(crate) fn new(bookmarks: Bookmarks, filter: String) -> Self {
        let current = bookmarks.all().iter().position(|one| one.filter == filter);
        Self {
            row: current.unwrap_or(0),
            bookmarks,
            filter,
            name: None,
        }
    }

    fn apply(&self, row: usize) -> DialogReply {
        match self.bookmarks.all().get(row) {
            Some(bookmark) => DialogReply::Filter(bookmark.filter.clone()),
            None => DialogReply::Stay,
        }
    }

    fn save(&self) -> DialogReply {
        DialogReply::Execute(vec![Command::SaveBookmarks(self.bookmarks.clone())])
    }

    fn on_name_key(&mut self, key: KeyEvent) -> DialogReply {
        let Some(input) = &mut self.name else {
            return DialogReply::Ignored;
        };
        if key.code != KeyCode::Enter {
            input.on_key(key);
            return DialogReply::Stay;
        }
        let name = input.text().trim().to_owned();
        if name.is_empty() {
            return DialogReply::Stay;
        }
        self.name = None;
        self.bookmarks.add(&name, &self.filter);
        let mut names = self.bookmarks.all().iter().map(|one| &one.name);
        self.row = names.position(|one| *one == name).unwrap_or(0);
        self.save()
    }
}

impl Dialog for BookmarksDialog {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        if self.name.is_some() {
            return self.on_name_key(key);
        }
        let last = self.bookmarks.all().len().saturating_sub(1);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.row = self.row.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.row = (self.row + 1).min(last),
            KeyCode::Home | KeyCode::Char('g') => self.row = 0,
            KeyCode::End | KeyCode::Char('G') => self.row = last,
            KeyCode::Enter => return self.apply(self.row),
            KeyCode::Char('a') if !self.filter.is_empty() => {
                self.name = Some(TextInput::default());
            }
            KeyCode::Char('d') | KeyCode::Delete if self.row < self.bookmarks.all().len() => {
                self.bookmarks.remove(self.row);
                self.row = self.row.min(last.saturating_sub(1));
                return self.save();
            }
            KeyCode::Char('q') => return DialogReply::close(),
            _ if context.is_key(key, Action::Bookmarks) => return DialogReply::close(),
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    fn cancel(&mut self) -> DialogReply {
        match self.name.take() {
            Some(_) => DialogReply::Stay,
            None => DialogReply::close(),
        }
    }

    fn paste(&mut self, text: &str) {
        if let Some(input) = &mut self.name {
            input.paste(text);
        }
    }

    /// Selects a bookmark; a second click applies it.
    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        if self.row == target {
            return self.apply(target);
        }
        self.row = target;
        DialogReply::Stay
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new("bookmarks of filters", context, width);
        for (row, bookmark) in self.bookmarks.all().iter().enumerate() {
            let (name_style, style) = match row == self.row && self.name.is_none() {
                true => (theme.selected, theme.selected),
                false => (theme.text, theme.dim),
            };
            if row == self.row {
                content.focus = Some(content.length());
            }
            content.push_target(row);
            content.push_line(Line::from(vec![
                Span::styled(fit(&bookmark.name, NAME_WIDTH), name_style),
                Span::styled(
                    fit(
                        &format!(" {}", bookmark.filter),
                        width.saturating_sub(NAME_WIDTH),
                    ),
                    style,
                ),
            ]));
        }
        if self.bookmarks.all().is_empty() {
            content.push_wrapped("There are no bookmarks.", 0, theme.dim);
        }
        content.push_blank();
        if let Some(input) = &self.name {
            content.push_wrapped(&format!("Filter: {}", self.filter), 0, theme.text);
            content.push_text_input("Name: ", input, true);
            content.push_key("enter", "save", !input.text().trim().is_empty());
            content.push_key("esc", "back", true);
            return content;
        }
        match self.filter.is_empty() {
            true => {
                content.push_wrapped("To add one, filter a list (/) and come back.", 0, theme.dim)
            }
            false => {
                let text = format!("Current filter: {}", self.filter);
                content.push_wrapped(&text, 0, theme.text);
            }
        }
        let exists = self.row < self.bookmarks.all().len();
        content.push_key("enter", "apply", exists);
        content.push_key("a", "add current", !self.filter.is_empty());
        content.push_key("d", "delete", exists);
        content.push_key("esc", "close", true);
        content
    }
}
