//! The note on a snapshot: an editor of several lines.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Widget;
use ratatui_textarea::{CursorMove, TextArea, WrapMode};

use super::{Content, DialogReply};
use crate::app::Command;
use crate::theme::Theme;
use snapdeck_model::{AnnotationsPatch, MAX_NOTE_BYTES};

/// Lines of the note that are shown at once.
const EDITOR_HEIGHT: u16 = 10;

/// The dialog.
#[derive(Debug)]
pub(crate) struct NoteDialog {
    /// What is done in the end, but for the note.
    command: Command,
    original: String,
    text: TextArea<'static>,
    /// Was it told that closing loses what was typed?
    has_warned: bool,
}

impl NoteDialog {
    /// Of the snapshot that `command` says something of, with the `note` there is.
    pub(crate) fn new(command: Command, note: &str) -> Self {
        let mut text = TextArea::new(note.lines().map(str::to_owned).collect());
        text.set_wrap_mode(WrapMode::WordOrGlyph);
        text.set_cursor_line_style(Style::new());
        // The terminal's own cursor is the one that is seen.
        text.set_cursor_style(Style::new());
        text.move_cursor(CursorMove::Bottom);
        text.move_cursor(CursorMove::End);
        Self {
            command,
            original: note.trim_end().to_owned(),
            text,
            has_warned: false,
        }
    }

    fn note(&self) -> String {
        self.text.lines().join("\n").trim_end().to_owned()
    }

    fn fits(&self) -> bool {
        self.note().len() <= MAX_NOTE_BYTES
    }

    /// Takes the key that closes: where something was typed, the first one only warns.
    pub(crate) fn cancel(&mut self) -> DialogReply {
        if self.has_warned || self.note() == self.original {
            return DialogReply::close();
        }
        self.has_warned = true;
        DialogReply::Stay
    }

    /// Takes a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent) -> DialogReply {
        self.has_warned = false;
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        if !(ctrl && key.code == KeyCode::Char('s')) {
            self.text.input(key);
            return DialogReply::Stay;
        }
        if !self.fits() {
            return DialogReply::Stay;
        }
        let mut command = self.command.clone();
        if let Command::Annotate { change, .. } = &mut command {
            *change = AnnotationsPatch {
                new_note: Some(self.note()),
                ..AnnotationsPatch::default()
            };
        }
        DialogReply::Close(vec![command])
    }

    /// Takes pasted text. Terminals paste line ends as carriage returns.
    pub(crate) fn paste(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let plain = text.replace(|c: char| c.is_control() && c != '\n', " ");
        // What is far too long is not to be edited down by hand.
        let room = MAX_NOTE_BYTES.saturating_sub(self.note().len());
        let end = plain.floor_char_boundary(room);
        self.text.insert_str(&plain[..end]);
    }

    /// What it shows.
    pub(crate) fn content(&self, theme: &Theme, width: usize) -> Content {
        let mut content = Content::default();
        if let Command::Annotate {
            host, bucket, name, ..
        } = &self.command
        {
            content.title = format!("note on {name}");
            let places = match (host, bucket) {
                (Some(host), true) => format!("Saved on {host} and in the bucket."),
                (Some(host), false) => format!("Kept on {host}."),
                (None, _) => "Saved in the bucket.".to_owned(),
            };
            content.push_wrapped(&places, 0, theme.dim, width);
            content.push_blank();
        }
        self.push_editor(&mut content, width);
        let length = self.note().len();
        if !self.fits() {
            let text =
                format!("✗ A note may have at most {MAX_NOTE_BYTES} bytes; this one has {length}.");
            content.push_wrapped(&text, 0, theme.bad, width);
        }
        if self.has_warned {
            let text = "! Unsaved changes: press esc again to discard them.";
            content.push_wrapped(text, 0, theme.warn, width);
        }
        content.keys = vec![
            ("ctrl-s", "keep", self.fits()),
            ("enter", "new line", true),
            ("esc", "close", true),
        ];
        content
    }

    /// Has the editor draw itself aside, and takes what it drew.
    fn push_editor(&self, content: &mut Content, width: usize) {
        let area = Rect::new(
            0,
            0,
            u16::try_from(width).unwrap_or(u16::MAX),
            EDITOR_HEIGHT,
        );
        let mut drawn = Buffer::empty(area);
        (&self.text).render(area, &mut drawn);
        let first = content.lines.len();
        for y in 0..area.height {
            // What stands behind a wide character is a part of it.
            let mut line = String::new();
            let mut x = 0;
            while let Some(cell) = drawn.cell((x, y)).filter(|_| x < area.width) {
                let symbol = cell.symbol();
                line.push_str(symbol);
                x += u16::try_from(unicode_width::UnicodeWidthStr::width(symbol))
                    .unwrap_or(1)
                    .max(1);
            }
            content.lines.push(Line::raw(line.trim_end().to_owned()));
        }
        let cursor = self.text.screen_cursor();
        let row = cursor
            .row
            .saturating_sub(self.text.scroll_offset().0.into());
        let column = u16::try_from(cursor.col).unwrap_or(u16::MAX);
        let row = u16::try_from(first + row).unwrap_or(u16::MAX);
        content.cursor = Some((column.min(area.width.saturating_sub(1)), row));
    }
}
