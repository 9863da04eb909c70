//! What a command answers, and the one place that writes it.

use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::exit;
use snapdeck_model::{Error, Kind, Result};

/// What a command answers: the same thing for a program and for a person.
#[derive(Debug, Clone)]
pub struct CommandOutput {
    /// The one document of `--json`.
    pub json: Value,
    /// The same for a person, lines with their ends.
    pub text: String,
    /// Exit code.
    pub code: u8,
}

impl CommandOutput {
    /// An answer that ends with exit code 0.
    pub fn new(json: &impl Serialize, text: impl Into<String>) -> Result<Self> {
        let json = serde_json::to_value(json).map_err(|error| {
            Error::new(Kind::Failed, "cannot write the answer as JSON").with_cause(error)
        })?;
        Ok(Self {
            json,
            text: text.into(),
            code: 0,
        })
    }
}

/// Prints what came of a command and returns its exit code. An error's sentence goes to stderr, and with
/// `json` its object to stdout too.
pub fn finish(result: Result<CommandOutput>, json: bool) -> u8 {
    let (written, code) = match result {
        Ok(answer) if json => (print(&format!("{:#}\n", answer.json)), answer.code),
        Ok(answer) => (print(&answer.text), answer.code),
        Err(error) => {
            eprint_line(&error);
            let written = match json {
                true => print(&format!("{:#}\n", exit::json(&error))),
                false => Ok(()),
            };
            (written, exit::code(error.kind()))
        }
    };
    match written {
        Ok(()) => code,
        // Whoever read it has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => {
            eprint_line(Error::new(Kind::Failed, "cannot write to stdout").with_cause(error));
            exit::code(Kind::Failed).max(code)
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// One line on stderr, `snapdeck: ...`. A closed stderr is nobody's business.
pub fn eprint_line(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "snapdeck: {line}");
}

/// Asks on the terminal; returns the line that is typed.
pub fn prompt(question: &str) -> Result<String> {
    let ask = || -> io::Result<String> {
        let mut told = io::stderr().lock();
        told.write_all(question.as_bytes())?;
        told.flush()?;
        let mut typed = String::new();
        io::stdin().lock().read_line(&mut typed)?;
        Ok(typed)
    };
    ask().map_err(|error| {
        Error::new(
            Kind::Failed,
            "cannot read the confirmation from this terminal",
        )
        .with_cause(error)
    })
}

/// Columns under their headings, two spaces between; a heading that begins with `>` is right-aligned. The
/// last column is not padded.
pub fn format_table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings
        .iter()
        .map(|heading| heading.trim_start_matches('>').width())
        .collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let titles: Vec<String> = headings
        .iter()
        .map(|heading| heading.trim_start_matches('>').to_owned())
        .collect();
    let mut text = String::new();
    for row in [&titles].into_iter().chain(rows) {
        let mut line = String::new();
        for ((cell, width), heading) in row.iter().zip(&widths).zip(headings) {
            let gap = " ".repeat(width.saturating_sub(cell.width()));
            match heading.starts_with('>') {
                true => line += &format!("{gap}{cell}  "),
                false => line += &format!("{cell}{gap}  "),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes for a person: `9.77 GiB`.
pub fn format_size(bytes: u64) -> String {
    humansize::format_size(bytes, humansize::BINARY)
}

/// A time for a person, in the local time zone; `-` where it is not known.
pub fn format_time(at: Option<jiff::Timestamp>) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| {
            at.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%d %H:%M")
                .to_string()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["a".into(), "9 B".into(), "x".into()],
            vec!["long".into(), "10 GiB".into(), String::new()],
        ];
        assert_eq!(
            format_table(&["NAME", ">SIZE", "USED BY"], &rows),
            "NAME    SIZE  USED BY\na        9 B  x\nlong  10 GiB\n"
        );
    }
}
