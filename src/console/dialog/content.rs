//! The content of a dialog. Long lists are functions from a row to its line, so that only visible lines are built.

use std::borrow::Cow;
use std::fmt;

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Context, TextInput};
use crate::format;
use crate::theme::Theme;

/// The content of a dialog, wrapped to the requested width.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    pub title: String,
    pub theme: Theme,
    pub width: usize,
    blocks: Vec<Block<'a>>,
    length: usize,
    /// Column and line of the text cursor.
    pub cursor: Option<(u16, usize)>,
    /// The line to keep in view.
    pub focus: Option<usize>,
    /// Keys, their labels, and whether each is possible now.
    pub keys: Vec<(Cow<'static, str>, &'static str, bool)>,
    /// Lines that can be clicked, with the dialog's number for each.
    targets: Vec<(usize, usize)>,
}

enum Block<'a> {
    Line(Line<'static>),
    /// The number of rows, and the function that builds one.
    Rows(usize, Box<dyn Fn(usize) -> Line<'static> + 'a>),
}

impl fmt::Debug for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => line.fmt(f),
            Self::Rows(count, _) => write!(f, "{count} rows"),
        }
    }
}

impl<'a> Content<'a> {
    pub(crate) fn new(title: impl Into<String>, context: &Context<'_>, width: usize) -> Self {
        Self {
            title: title.into(),
            theme: *context.theme,
            width,
            blocks: Vec::new(),
            length: 0,
            cursor: None,
            focus: None,
            keys: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Returns the number of lines.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Builds `count` lines from the line `first` on.
    pub(crate) fn lines(&self, first: usize, count: usize) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        let (mut skip, mut rest) = (first, count);
        for block in &self.blocks {
            if rest == 0 {
                break;
            }
            let length = block.length();
            if skip >= length {
                skip -= length;
                continue;
            }
            let end = length.min(skip.saturating_add(rest));
            match block {
                Block::Line(line) => lines.push(line.clone()),
                Block::Rows(_, row) => lines.extend((skip..end).map(row)),
            }
            rest -= end - skip;
            skip = 0;
        }
        lines
    }

    /// Returns the target at a line.
    pub(super) fn target(&self, line: usize) -> Option<usize> {
        let target = self.targets.iter().find(|(other, _)| *other == line);
        target.map(|(_, target)| *target)
    }

    pub(super) fn push_line(&mut self, line: Line<'static>) {
        self.length += 1;
        self.blocks.push(Block::Line(line));
    }

    pub(super) fn push_lines(&mut self, lines: impl IntoIterator<Item = Line<'static>>) {
        lines.into_iter().for_each(|line| self.push_line(line));
    }

    /// Adds `count` lines, which `row` builds when they are visible.
    pub(super) fn push_rows(&mut self, count: usize, row: impl Fn(usize) -> Line<'static> + 'a) {
        self.length += count;
        self.blocks.push(Block::Rows(count, Box::new(row)));
    }

    /// Adds `text` as wrapped lines in `style`, indented by `indent` columns.
    pub(super) fn push_wrapped(&mut self, text: &str, indent: usize, style: Style) {
        for line in format::wrap(text, self.width.saturating_sub(indent)) {
            self.push_line(Line::from(vec![
                Span::raw(" ".repeat(indent)),
                Span::styled(line, style),
            ]));
        }
    }

    pub(super) fn push_blank(&mut self) {
        self.push_line(Line::default());
    }

    /// Makes the next line a target of clicks.
    pub(super) fn push_target(&mut self, target: usize) {
        self.targets.push((self.length, target));
    }

    /// Adds the reason why something is not possible.
    pub(super) fn push_refusal(&mut self, reason: &str) {
        self.push_wrapped(&format!("✗ {reason}"), 0, self.theme.bad);
    }

    pub(super) fn push_key(
        &mut self,
        key: impl Into<Cow<'static, str>>,
        label: &'static str,
        possible: bool,
    ) {
        self.keys.push((key.into(), label, possible));
    }

    /// Adds a line that can be focused and is not a text field.
    pub(super) fn push_choice(&mut self, text: &str, focused: bool, enabled: bool) {
        let style = match (focused, enabled) {
            (true, _) => self.theme.selected,
            (false, true) => self.theme.text,
            (false, false) => self.theme.dim,
        };
        if focused {
            self.focus = Some(self.length);
        }
        self.push_line(Line::styled(format::clip(text, self.width), style));
    }

    /// Adds a labelled text field, with the cursor in it if it has the focus.
    pub(super) fn push_text_input(&mut self, label: &str, input: &TextInput, focused: bool) {
        let room = self.width.saturating_sub(label.len() + 1).max(1);
        let (text, column) = input.visible(room);
        let theme = &self.theme;
        let label_style = if focused { theme.focus } else { theme.text };
        let mut line = Line::from(Span::styled(label.to_owned(), label_style));
        match focused && input.is_selected() {
            true => {
                let rest = room.saturating_sub(unicode_width::UnicodeWidthStr::width(&*text));
                line.push_span(Span::styled(text, theme.selected));
                line.push_span(Span::styled(" ".repeat(rest), theme.title.underlined()));
            }
            false => line.push_span(Span::styled(
                format::fit(&text, room),
                theme.title.underlined(),
            )),
        }
        if focused {
            self.cursor = Some(((label.len() + column) as u16, self.length));
        }
        self.push_line(line);
    }
}

impl Block<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Line(_) => 1,
            Self::Rows(count, _) => *count,
        }
    }
}
