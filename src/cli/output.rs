//! The output of commands.

use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::exit;
use snapdeck_model::{Error, Kind, Result, escape_json, escape_unprintable_lines, printable};

/// The output of a command, as JSON and as text.
#[derive(Debug, Clone)]
pub struct CommandOutput {
    /// The document of `--json`.
    pub json: Value,
    /// The text, with newlines.
    pub text: String,
    /// Exit code.
    pub code: u8,
}

impl CommandOutput {
    /// Returns an output with exit code 0.
    ///
    /// # Errors
    /// `Failed` if it cannot be written as JSON.
    pub fn new(json: &impl Serialize, text: impl Into<String>) -> Result<Self> {
        let json = serde_json::to_value(json).map_err(|error| {
            Error::new(Kind::Failed, "cannot write the output as JSON").with_cause(error)
        })?;
        Ok(Self {
            json,
            text: text.into(),
            code: 0,
        })
    }
}

/// Prints the result of a command and returns the exit code. An error goes to stderr, and with `json` also to stdout.
pub fn finish(result: Result<CommandOutput>, json: bool) -> u8 {
    let (written, code) = match result {
        Ok(output) if json => (print_json(&output.json), output.code),
        Ok(output) => (print(&escape_unprintable_lines(&output.text)), output.code),
        Err(error) => {
            eprint_error(&error);
            let written = match json {
                true => print_json(&exit::json(&error)),
                false => Ok(()),
            };
            (written, exit::code(error.kind()))
        }
    };
    match written {
        Ok(()) => code,
        // The reader closed the pipe (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => {
            eprint_error(&Error::new(Kind::Failed, "cannot write to stdout").with_cause(error));
            exit::code(Kind::Failed).max(code)
        }
    }
}

fn print_json(document: &Value) -> io::Result<()> {
    print(&escape_json(&format!("{document:#}\n")))
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints `snapdeck: LINE` on stderr; a closed stderr is ignored.
pub fn eprint_line(line: impl std::fmt::Display) {
    let line = line.to_string();
    let line = escape_unprintable_lines(&line);
    let _ = writeln!(io::stderr().lock(), "snapdeck: {line}");
}

/// Prints text on stderr; a closed stderr is ignored.
pub(crate) fn eprint_text(text: &str) {
    let mut stderr = io::stderr().lock();
    let written = stderr.write_all(escape_unprintable_lines(text).as_bytes());
    let _ = written.and_then(|()| stderr.flush());
}

/// Prints `snapdeck: MESSAGE` on stderr, and the hint on a line of its own.
pub fn eprint_error(error: &Error) {
    eprint_line(format_error(error));
}

/// Returns the message, and the hint on a line of its own.
pub(crate) fn format_error(error: &Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{}\nhint: {hint}", error.message()),
        None => error.message(),
    }
}

/// Prints a question on the terminal and returns the line that is typed.
///
/// # Errors
/// `Failed` for an I/O error.
pub fn prompt(question: &str) -> Result<String> {
    eprint_text(question);
    let read_line = || -> io::Result<String> {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        Ok(line)
    };
    read_line().map_err(|error| {
        Error::new(Kind::Failed, "cannot read an answer from this terminal").with_cause(error)
    })
}

/// Formats a table with two spaces between columns. A column whose heading starts with `>` is right-aligned.
///
/// Cells are made printable, for they may have the names and paths of others.
pub fn format_table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let printable_row =
        |row: &Vec<String>| -> Vec<String> { row.iter().map(|cell| printable(cell)).collect() };
    let rows: Vec<Vec<String>> = rows.iter().map(printable_row).collect();
    let mut widths: Vec<usize> = headings
        .iter()
        .map(|heading| heading.trim_start_matches('>').width())
        .collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let titles: Vec<String> = headings
        .iter()
        .map(|heading| heading.trim_start_matches('>').to_owned())
        .collect();
    let mut text = String::new();
    for row in [&titles].into_iter().chain(&rows) {
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

/// Formats a line of details: the key in `width` columns, and the value, which is made printable.
pub(crate) fn format_field(key: &str, width: usize, value: &str) -> String {
    format!("  {key:<width$} {}\n", printable(value))
}

/// Returns a size such as `9.77 GiB`.
pub fn format_size(bytes: u64) -> String {
    humansize::format_size(bytes, humansize::BINARY)
}

/// Returns a time in the local time zone; `-` if unknown.
pub fn format_time(time: Option<jiff::Timestamp>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| {
            time.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%d %H:%M")
                .to_string()
        },
    )
}

/// Returns a time in the local time zone with its offset, such as `2026-11-28 14:03 UTC+01:00`; `-` if unknown.
pub(crate) fn format_time_with_offset(time: Option<jiff::Timestamp>) -> String {
    let Some(instant) = time else {
        return format_time(time);
    };
    let offset = instant.to_zoned(jiff::tz::TimeZone::system());
    let offset = match offset.offset().is_zero() {
        true => "UTC".to_owned(),
        false => offset.strftime("UTC%:z").to_string(),
    };
    format!("{} {offset}", format_time(time))
}

/// Returns a time of the day in the local time zone.
pub(crate) fn format_time_of_day(time: jiff::Timestamp) -> String {
    let time = time.to_zoned(jiff::tz::TimeZone::system());
    time.strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_others_stay_in_their_cell_and_field() {
        let name = "a\u{1b}[2J\nfake  row\u{202e}";
        let table = format_table(&["NAME", ">SIZE"], &[vec![name.into(), "1 B".into()]]);
        let shown = "a\\u{1b}[2J\\u{a}fake  row\\u{202e}";
        assert_eq!(table.lines().nth(1), Some(&*format!("{shown}   1 B")));
        assert_eq!(table.lines().count(), 2);
        let field = format_field("path", 6, name);
        assert_eq!(field, format!("  path   {shown}\n"));
    }

    #[test]
    fn columns_are_aligned() {
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
