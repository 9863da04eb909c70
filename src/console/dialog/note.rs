//! The note on a snapshot.

use crossterm::event::{KeyCode, KeyEvent};

use super::{Content, Field, Reply};
use crate::console::app::Command;
use crate::console::theme::Theme;
use crate::model::RemarksChange;

/// The dialog.
#[derive(Debug)]
pub struct Note {
    /// What is done in the end, but for the note.
    command: Command,
    field: Field,
}

impl Note {
    /// Can it be edited here?
    pub fn takes(note: &str) -> bool {
        note.chars().count() <= Field::MAX && !note.contains('\n')
    }

    /// Of the snapshot that `command` says something of, with the `note` there is.
    pub fn new(command: Command, note: &str) -> Self {
        Self {
            command,
            field: Field::holding(note),
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> Reply {
        if key.code != KeyCode::Enter {
            self.field.key(key);
            return Reply::Stay;
        }
        let mut command = self.command.clone();
        if let Command::Say { change, .. } = &mut command {
            *change = RemarksChange {
                note: Some(self.field.text().trim().to_owned()),
                ..RemarksChange::default()
            };
        }
        Reply::Close(vec![command])
    }

    /// Takes pasted text.
    pub fn paste(&mut self, text: &str) {
        self.field.paste(text);
    }

    /// What it shows.
    pub fn content(&self, theme: &Theme, width: usize) -> Content {
        let mut content = Content::default();
        if let Command::Say {
            host, bucket, name, ..
        } = &self.command
        {
            content.title = format!("note on {name}");
            let places = match (host, bucket) {
                (Some(host), true) => format!("Kept on {host} and in the bucket."),
                (Some(host), false) => format!("Kept on {host}."),
                (None, _) => "Kept in the bucket.".to_owned(),
            };
            content.say(&places, 0, theme.dim, width);
        }
        content.field("note: ", &self.field, true, width, theme);
        content.keys = vec![("enter", "keep", true), ("esc", "close", true)];
        content
    }
}
