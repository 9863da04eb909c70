//! A text that is only read: the domain XML of a sandbox, or the manifest of a snapshot.

use std::fmt;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Context, Dialog, DialogAnswer, DialogQuery, DialogReply, TextInput};
use crate::actions::Action;
use crate::command::Command;
use crate::format::clip;
use snapdeck_model::{HostName, Result, SandboxId, SnapshotName};

/// The source of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextSource {
    DomainXml(HostName, SandboxId),
    /// The manifest on a host, or in the bucket (`None`).
    Manifest(Option<HostName>, SnapshotName),
}

impl fmt::Display for TextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DomainXml(host, id) => write!(f, "domain XML of {id} on {host}"),
            Self::Manifest(Some(host), name) => write!(f, "manifest of {name} on {host}"),
            Self::Manifest(None, name) => write!(f, "manifest of {name} in the bucket"),
        }
    }
}

/// Columns of a step to the side.
const SIDE_STEP: usize = 10;
/// Bytes of a line that are kept; a longer one is cut.
const MAX_LINE_BYTES: usize = 4096;

#[derive(Debug)]
pub(crate) struct TextView {
    source: TextSource,
    /// The lines, or why there are none; `None`: not read yet.
    lines: Option<std::result::Result<Vec<String>, String>>,
    /// The whole text, to be copied.
    text: String,
    /// First visible column.
    column: usize,
    search: TextInput,
    /// The search is being typed.
    is_searching: bool,
    /// The line of the current match.
    found: Option<usize>,
}

impl TextView {
    pub(crate) fn new(source: TextSource) -> Self {
        Self {
            source,
            lines: None,
            text: String::new(),
            column: 0,
            search: TextInput::default(),
            is_searching: false,
            found: None,
        }
    }

    fn lines(&self) -> &[String] {
        match &self.lines {
            Some(Ok(lines)) => lines,
            _ => &[],
        }
    }

    /// Selects the next match after line `from`, or the one before it; around the end.
    fn find(&mut self, from: usize, is_back: bool) {
        let word = self.search.text().to_lowercase();
        let count = self.lines().len();
        if word.is_empty() || count == 0 {
            self.found = None;
            return;
        }
        let matches = |line: &usize| self.lines()[*line].to_lowercase().contains(&word);
        self.found = match is_back {
            false => (0..count).map(|by| (from + by) % count).find(matches),
            true => (0..count)
                .map(|by| (from + count - by) % count)
                .find(matches),
        };
    }

    fn find_next(&mut self, is_back: bool) {
        let count = self.lines().len().max(1);
        let from = match (self.found, is_back) {
            (Some(line), false) => (line + 1) % count,
            (Some(line), true) => (line + count - 1) % count,
            (None, _) => 0,
        };
        self.find(from, is_back);
    }

    fn on_search_key(&mut self, key: KeyEvent) -> DialogReply {
        match key.code {
            KeyCode::Enter => self.is_searching = false,
            _ if self.search.on_key(key) => self.find(self.found.unwrap_or(0), false),
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    fn line(&self, number: usize, width: usize, context: &ViewStyles) -> Line<'static> {
        let text = &self.lines()[number];
        let shown: String = text.chars().skip(self.column).collect();
        let shown = clip(&shown, width);
        let word = self.search.text().to_lowercase();
        let base = match self.found == Some(number) {
            true => context.selected,
            false => context.text,
        };
        if word.is_empty() || !shown.is_ascii() {
            return Line::from(Span::styled(shown, base));
        }
        let mut spans = Vec::new();
        let (lower, mut at) = (shown.to_ascii_lowercase(), 0);
        while let Some(start) = lower[at..].find(&word).map(|start| at + start) {
            spans.push(Span::styled(shown[at..start].to_owned(), base));
            at = start + word.len();
            spans.push(Span::styled(shown[start..at].to_owned(), context.found));
        }
        spans.push(Span::styled(shown[at..].to_owned(), base));
        Line::from(spans)
    }
}

#[derive(Clone, Copy)]
struct ViewStyles {
    text: ratatui::style::Style,
    selected: ratatui::style::Style,
    found: ratatui::style::Style,
}

impl Dialog for TextView {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        if self.is_searching {
            return self.on_search_key(key);
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Enter => return DialogReply::close(),
            KeyCode::Char('/') => {
                self.search = TextInput::default();
                self.is_searching = true;
            }
            KeyCode::Char('n') => self.find_next(false),
            KeyCode::Char('N') => self.find_next(true),
            KeyCode::Left | KeyCode::Char('h') => {
                self.column = self.column.saturating_sub(SIDE_STEP);
            }
            KeyCode::Right | KeyCode::Char('l') => {
                let widest = self.lines().iter().map(String::len).max().unwrap_or(0);
                if self.column + SIDE_STEP < widest {
                    self.column += SIDE_STEP;
                }
            }
            _ if context.is_key(key, Action::Copy) && !self.text.is_empty() => {
                return DialogReply::Execute(vec![Command::Copy(self.text.clone())]);
            }
            _ if context.is_key(key, Action::Definition) => return DialogReply::close(),
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    /// The lines are not wrapped.
    fn max_width(&self) -> u16 {
        u16::MAX
    }

    fn cancel(&mut self) -> DialogReply {
        if self.is_searching || self.found.is_some() {
            self.is_searching = false;
            self.search = TextInput::default();
            self.found = None;
            return DialogReply::Stay;
        }
        DialogReply::close()
    }

    fn paste(&mut self, text: &str) {
        if self.is_searching {
            self.search.paste(text);
            self.find(self.found.unwrap_or(0), false);
        }
    }

    fn pending_query(&self) -> Option<DialogQuery> {
        let is_known = self.lines.is_some();
        (!is_known).then(|| DialogQuery::Text(self.source.clone()))
    }

    fn on_answer(&mut self, answer: DialogAnswer) {
        let DialogAnswer::Text(source, result) = answer else {
            return;
        };
        if source != self.source {
            return;
        }
        self.lines = Some(lines(&result));
        self.text = result.unwrap_or_default();
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut title = self.source.to_string();
        if self.is_searching {
            title = format!("/{}▏", self.search.text());
        } else if !self.search.text().is_empty() {
            title = format!("{title} /{}", self.search.text());
        }
        let mut content = Content::new(title, context, width);
        match &self.lines {
            None => content.push_wrapped("reading…", 0, theme.dim),
            Some(Err(error)) => content.push_refusal(error),
            Some(Ok(lines)) => {
                let styles = ViewStyles {
                    text: theme.text,
                    selected: theme.title,
                    found: theme.selected,
                };
                content.focus = self.found;
                content.push_rows(lines.len(), move |row| self.line(row, width, &styles));
            }
        }
        let has_text = matches!(self.lines, Some(Ok(_)));
        if self.is_searching {
            let is_found = self.found.is_some() || self.search.text().is_empty();
            content.push_key(
                "enter",
                if is_found { "done" } else { "not found" },
                is_found,
            );
            content.push_key("esc", "cancel", true);
            return content;
        }
        content.push_key("esc", "close", true);
        content.push_key("j k h l", "scroll", has_text);
        content.push_key("/", "search", has_text);
        content.push_key("n N", "next, previous", self.found.is_some());
        content.push_key(context.key(Action::Copy), "copy all", has_text);
        content
    }
}

/// Returns the lines of a text, tabs as spaces and each of bounded length.
fn lines(text: &Result<String>) -> std::result::Result<Vec<String>, String> {
    let text = text.as_ref().map_err(ToString::to_string)?;
    let line = |line: &str| {
        let end = line.floor_char_boundary(MAX_LINE_BYTES);
        line[..end].replace('\t', "        ")
    };
    Ok(text.lines().map(line).collect())
}
