//! Errors on the command line: their exit code, their JSON, their sentence.

use serde_json::{Value, json};

use snapdeck_engine::error_code;
use snapdeck_model::{Error, Kind};

/// The exit code of a failure; the only place where kinds become numbers.
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

/// `{"error": {"message", "hint", "kind"}}`.
pub fn json(error: &Error) -> Value {
    json!({"error": {
        "message": error.message(),
        "hint": error.hint_text(),
        "kind": error_code(error.kind()),
    }})
}

/// What clap has to say about a command line, as one sentence with its usage tips as the hint.
pub fn usage_error(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let (told, _) = text.split_once("\nUsage:").unwrap_or((&text, ""));
    let (told, _) = told
        .split_once("\nFor more information")
        .unwrap_or((told, ""));
    let (what, tips): (Vec<&str>, Vec<&str>) = told
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .partition(|line| !line.starts_with("tip:"));
    let what = what.join(" ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let tips = tips.iter().map(|tip| tip.trim_start_matches("tip:").trim());
    let hint: Vec<&str> = tips.chain(["see snapdeck --help"]).collect();
    Error::new(Kind::InvalidInput, what).hint(hint.join("; "))
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
