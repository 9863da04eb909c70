//! Text of a TOML file, and errors that name its file and line.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use snapdeck_model::{Error, Kind};

/// Similarity from which an unknown name counts as a misspelled known one (Jaro-Winkler, 0 to 1).
const MIN_SIMILARITY: f64 = 0.8;

/// The text of a file beside `config.toml`.
#[derive(Debug, Clone, Copy)]
pub struct SourceText<'a> {
    /// Beginning of every error message.
    pub error_summary: &'static str,
    /// Path of the file.
    pub path: &'a Path,
    /// Content of the file.
    pub text: &'a str,
}

impl SourceText<'_> {
    /// Returns the line, from 1, of the byte at `at`.
    pub fn line_at(&self, at: usize) -> usize {
        line_number(self.text, at)
    }

    /// Returns the error of the text at `at`.
    pub fn error_at(&self, at: usize, cause: impl Display) -> Error {
        let place = format!("{} line {}", self.path.display(), self.line_at(at));
        Error::new(Kind::InvalidInput, self.error_summary).with_cause(format!("{place}: {cause}"))
    }

    /// Returns the error of text that is not TOML.
    pub fn syntax_error(&self, span: Option<Range<usize>>, message: &str) -> Error {
        let at = span.map_or(0, |span| span.start).min(self.text.len());
        let line = self
            .text
            .lines()
            .nth(self.line_at(at) - 1)
            .unwrap_or_default();
        self.error_at(at, format!("{message}: {}", line.trim()))
    }

    /// Returns the error of an unknown name, with the most similar one of `known`.
    pub fn unknown_name_error(
        &self,
        at: usize,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = String>,
    ) -> Error {
        let known: Vec<String> = known.collect();
        let similar = find_similar(name, known.iter().map(String::as_str));
        let question = similar.map_or(String::new(), |name| format!("; did you mean {name}?"));
        self.error_at(at, format!("unknown {kind} {name:?}{question}"))
    }
}

/// Returns the line, from 1, of the byte at `at` of `text`.
pub(super) fn line_number(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}

/// Returns the known name that is most similar to `name`, if any is similar.
pub(super) fn find_similar<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), known))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
