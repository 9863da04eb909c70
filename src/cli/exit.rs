//! Errors on the command line: exit code, JSON, message.

use serde_json::{Value, json};

use snapdeck_engine::error_code;
use snapdeck_model::{Error, Kind};

/// Returns the exit code of a failure.
pub fn code(kind: Kind) -> u8 {
    match kind {
        Kind::InvalidInput => 2,
        Kind::NotFound => 3,
        Kind::Conflict => 4,
        Kind::Unreachable => 5,
        Kind::Cancelled => 130,
        Kind::NoSpace | Kind::Damaged | Kind::Failed => 1,
    }
}

/// Returns `{"error": {"message", "hint", "kind"}}`.
pub fn json(error: &Error) -> Value {
    json!({"error": {
        "message": error.message(),
        "hint": error.hint_text(),
        "kind": error_code(error.kind()),
    }})
}

/// Returns an error of clap as one sentence, with its tips as the hint.
pub fn usage_error(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let (text, usage) = text.split_once("\nUsage:").unwrap_or((&text, ""));
    let is_command = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    let command: Vec<&str> = usage.split_whitespace().take_while(is_command).collect();
    let command = match command.is_empty() {
        true => "snapdeck".to_owned(),
        false => command.join(" "),
    };
    let (text, _) = text
        .split_once("\nFor more information")
        .unwrap_or((text, ""));
    let (message, tips): (Vec<&str>, Vec<&str>) = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .partition(|line| !line.starts_with("tip:"));
    let message = message.join(" ");
    let message = message
        .strip_prefix("error: ")
        .unwrap_or(&message)
        .replace("invalid digit found in string", "not a whole number")
        .replace(
            "invalid socket address syntax",
            "not an IP address and a port",
        );
    let tips = tips.iter().map(|tip| tip.trim_start_matches("tip:").trim());
    let help = format!("see {command} --help");
    let hint: Vec<&str> = tips.chain([&*help]).collect();
    Error::new(Kind::InvalidInput, message).hint(hint.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_documented_ones() {
        for (kind, expected) in [
            (Kind::InvalidInput, 2),
            (Kind::NotFound, 3),
            (Kind::Conflict, 4),
            (Kind::Unreachable, 5),
            (Kind::Cancelled, 130),
            (Kind::NoSpace, 1),
            (Kind::Damaged, 1),
            (Kind::Failed, 1),
        ] {
            assert_eq!(code(kind), expected, "{kind:?}");
        }
    }
}
