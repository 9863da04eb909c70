//! A text of the user's in TOML, and complaints about it that name its file and line.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use snapdeck_model::{Error, Kind};

/// A name that reads this much like a known one is a slip of the pen (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// The text of a file beside `config.toml`.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// How the sentence of a complaint begins.
    pub what: &'static str,
    /// The file.
    pub path: &'a Path,
    /// Its content.
    pub text: &'a str,
}

impl Text<'_> {
    /// The line, from 1, of the byte at `at`.
    pub fn line(&self, at: usize) -> usize {
        line(self.text, at)
    }

    /// `BadInput`: what stands at `at` is wrong.
    pub fn wrong(&self, at: usize, why: impl Display) -> Error {
        let place = format!("{} line {}", self.path.display(), self.line(at));
        Error::new(Kind::BadInput, self.what).because(format!("{place}: {why}"))
    }

    /// `BadInput`: it is no TOML.
    pub fn syntax(&self, span: Option<Range<usize>>, message: &str) -> Error {
        let at = span.map_or(0, |span| span.start).min(self.text.len());
        let line = self.text.lines().nth(self.line(at) - 1).unwrap_or_default();
        self.wrong(at, format!("{message}: {}", line.trim()))
    }

    /// `BadInput`: nothing is called `name`; says which of `known` may have been meant.
    pub fn unknown(
        &self,
        at: usize,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = String>,
    ) -> Error {
        let known: Vec<String> = known.collect();
        let meant = alike(name, known.iter().map(String::as_str));
        let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
        self.wrong(at, format!("unknown {kind} {name:?}{meant}"))
    }
}

/// The line, from 1, of the byte at `at` of `text`.
pub(super) fn line(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}

/// The known name that `name` was probably meant to be.
pub(super) fn alike<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), known))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
