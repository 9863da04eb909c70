//! The editor of a snapshot's note.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Widget;
use ratatui_textarea::{CursorMove, TextArea, WrapMode};

use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use snapdeck_model::{AnnotationsPatch, MAX_NOTE_BYTES, is_unprintable};

/// Visible lines of the note.
const EDITOR_HEIGHT: u16 = 10;

#[derive(Debug)]
pub(crate) struct NoteDialog {
    /// The command to run, without the note.
    command: Command,
    original: String,
    text: TextArea<'static>,
    /// Whether the warning about unsaved changes is shown.
    has_warned: bool,
}

impl NoteDialog {
    /// Returns an editor with `note`, the present note of the snapshot that `command` annotates.
    pub(crate) fn new(command: Command, note: &str) -> Self {
        let mut text = TextArea::new(note.lines().map(str::to_owned).collect());
        text.set_wrap_mode(WrapMode::WordOrGlyph);
        text.set_cursor_line_style(Style::new());
        // The terminal's own cursor is shown instead.
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
}

impl Dialog for NoteDialog {
    /// Closes the editor; with unsaved changes the first call only shows a warning.
    fn cancel(&mut self) -> DialogReply {
        if self.has_warned || self.note() == self.original {
            return DialogReply::close();
        }
        self.has_warned = true;
        DialogReply::Stay
    }

    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
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

    /// Inserts pasted text. Terminals paste line ends as carriage returns.
    fn paste(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let plain = text.replace(|c: char| c.is_control() && c != '\n', " ");
        // Texts of web pages often have invisible spaces.
        let plain = plain.replace(|c| !matches!(c, '\n' | '\u{fe0f}') && is_unprintable(c), "");
        // Text beyond the limit is dropped, so that it does not have to be deleted by hand.
        let room = MAX_NOTE_BYTES.saturating_sub(self.note().len());
        let end = plain.floor_char_boundary(room);
        self.text.insert_str(&plain[..end]);
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new("", context, width);
        if let Command::Annotate {
            host, bucket, name, ..
        } = &self.command
        {
            content.title = format!("note on {name}");
            let location = match (host, bucket) {
                (Some(host), true) => format!("Saved on {host} and in the bucket."),
                (Some(host), false) => format!("Saved on {host}."),
                (None, _) => "Saved in the bucket.".to_owned(),
            };
            content.push_wrapped(&location, 0, theme.dim);
            content.push_blank();
        }
        self.push_editor(&mut content, width);
        let length = self.note().len();
        if !self.fits() {
            let text =
                format!("✗ A note may have at most {MAX_NOTE_BYTES} bytes; this one has {length}.");
            content.push_wrapped(&text, 0, theme.bad);
        }
        if self.has_warned {
            let text = "! Unsaved changes: press esc again to discard them.";
            content.push_wrapped(text, 0, theme.warn);
        }
        content.push_key("ctrl-s", "save", self.fits());
        content.push_key("enter", "new line", true);
        content.push_key("esc", "cancel", true);
        content
    }
}

impl NoteDialog {
    /// Renders the editor into a buffer of its own and copies the lines.
    fn push_editor(&self, content: &mut Content<'_>, width: usize) {
        let area = Rect::new(
            0,
            0,
            u16::try_from(width).unwrap_or(u16::MAX),
            EDITOR_HEIGHT,
        );
        let mut buffer = Buffer::empty(area);
        (&self.text).render(area, &mut buffer);
        let first = content.length();
        for y in 0..area.height {
            // A wide character also takes the cells after it.
            let mut line = String::new();
            let mut x = 0;
            while let Some(cell) = buffer.cell((x, y)).filter(|_| x < area.width) {
                let symbol = cell.symbol();
                line.push_str(symbol);
                x += u16::try_from(unicode_width::UnicodeWidthStr::width(symbol))
                    .unwrap_or(1)
                    .max(1);
            }
            content.push_line(Line::raw(line.trim_end().to_owned()));
        }
        let cursor = self.text.screen_cursor();
        let row = cursor
            .row
            .saturating_sub(self.text.scroll_offset().0.into());
        let column = u16::try_from(cursor.col).unwrap_or(u16::MAX);
        content.cursor = Some((column.min(area.width.saturating_sub(1)), first + row));
    }
}
