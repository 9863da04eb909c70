//! A text of the user's in TOML, and complaints about it that name its file and line.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use snapdeck_model::{Error, Kind};

/// A name that reads this much like a known one is a slip of the pen (Jaro-Winkler, 0 to 1).
const MIN_SIMILARITY: f64 = 0.8;

/// The text of a file beside `config.toml`.
#[derive(Debug, Clone, Copy)]
pub struct SourceText<'a> {
    /// How the sentence of a complaint begins.
    pub error_summary: &'static str,
    /// The file.
    pub path: &'a Path,
    /// Its content.
    pub text: &'a str,
}

impl SourceText<'_> {
    /// The line, from 1, of the byte at `at`.
    pub fn line_at(&self, at: usize) -> usize {
        line_number(self.text, at)
    }

    /// `InvalidInput`: what stands at `at` is wrong.
    pub fn error_at(&self, at: usize, why: impl Display) -> Error {
        let place = format!("{} line {}", self.path.display(), self.line_at(at));
        Error::new(Kind::InvalidInput, self.error_summary).with_cause(format!("{place}: {why}"))
    }

    /// `InvalidInput`: it is no TOML.
    pub fn syntax_error(&self, span: Option<Range<usize>>, message: &str) -> Error {
        let at = span.map_or(0, |span| span.start).min(self.text.len());
        let line = self
            .text
            .lines()
            .nth(self.line_at(at) - 1)
            .unwrap_or_default();
        self.error_at(at, format!("{message}: {}", line.trim()))
    }

    /// `InvalidInput`: nothing is called `name`; says which of `known` may have been meant.
    pub fn unknown_name_error(
        &self,
        at: usize,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = String>,
    ) -> Error {
        let known: Vec<String> = known.collect();
        let meant = find_similar(name, known.iter().map(String::as_str));
        let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
        self.error_at(at, format!("unknown {kind} {name:?}{meant}"))
    }
}

/// The line, from 1, of the byte at `at` of `text`.
pub(super) fn line_number(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}

/// The known name that `name` was probably meant to be.
pub(super) fn find_similar<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), known))
        .filter(|(likeness, _)| *likeness >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
