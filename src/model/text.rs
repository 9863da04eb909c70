//! Makes text from hosts, guests and stores safe to show: on a terminal, in a log, in JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Maximum length in characters of a text in a message, a log line or a finding.
const MAX_MESSAGE_CHARS: usize = 4000;
/// Room for the note about a cut, which has the number of bytes that are missing.
const CUT_NOTE_CHARS: usize = 40;

/// Returns whether the character acts on a terminal or a log viewer, or is invisible, so that two texts that differ look
/// the same: C0 and C1 control characters, line and paragraph separators, directional formatting (Unicode TR 9, section
/// 2), interlinear annotations, and everything that is ignored when it is displayed (Unicode character database,
/// `Default_Ignorable_Code_Point`).
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Returns `text` with unprintable characters as `\u{9b}`; newlines and tabs, too. The selector of emoji presentation is
/// kept after a symbol.
pub fn escape_unprintable(text: &str) -> Cow<'_, str> {
    escape(text, false)
}

/// Returns `text` with unprintable characters as `\u{9b}`, but keeps newlines.
pub fn escape_unprintable_lines(text: &str) -> Cow<'_, str> {
    escape(text, true)
}

/// Returns JSON with unprintable characters in the form of RFC 8259, section 7: it has the same value. Newlines between
/// values are kept; in texts JSON escapes them itself.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains(|c| c != '\n' && is_unprintable(c)) {
        return Cow::Borrowed(json);
    }
    let escaped = json.chars().fold(String::new(), |mut escaped, c| {
        match c != '\n' && is_unprintable(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                // Writing to a String does not fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }),
            false => escaped.push(c),
        }
        escaped
    });
    Cow::Owned(escaped)
}

/// Returns a text for a message: in one line, without unprintable characters, and cut with a note if it is very long.
pub fn printable(text: &str) -> String {
    printable_within(text, MAX_MESSAGE_CHARS)
}

/// As [`printable`], with at most `max_chars` characters.
pub fn printable_within(text: &str, max_chars: usize) -> String {
    cut(text, max_chars, false)
}

/// As [`printable_within`], but keeps newlines.
pub fn printable_lines_within(text: &str, max_chars: usize) -> String {
    cut(text, max_chars, true)
}

fn escape(text: &str, keeps_newlines: bool) -> Cow<'_, str> {
    match text.contains(is_unprintable) {
        true => Cow::Owned(
            pieces(text, keeps_newlines)
                .map(|(_, piece)| piece)
                .collect(),
        ),
        false => Cow::Borrowed(text),
    }
}

fn cut(text: &str, max_chars: usize, keeps_newlines: bool) -> String {
    let kept_chars = max_chars.saturating_sub(CUT_NOTE_CHARS);
    let (mut escaped, mut chars) = (String::new(), 0);
    // The part that is kept if the text is too long: its length, and that of its source.
    let mut kept = (0, 0);
    for (end, piece) in pieces(text, keeps_newlines) {
        chars += piece.chars().count();
        if chars > max_chars {
            let (length, source_length) = kept;
            escaped.truncate(length);
            // Writing to a String does not fail.
            let _ = write!(escaped, "… ({} more bytes)", text.len() - source_length);
            return escaped;
        }
        escaped.push_str(&piece);
        if chars <= kept_chars {
            kept = (escaped.len(), end);
        }
    }
    escaped
}

/// Returns each character as it is shown, with the end of its bytes in `text`.
fn pieces(text: &str, keeps_newlines: bool) -> impl Iterator<Item = (usize, String)> {
    let mut previous = ' ';
    text.char_indices().map(move |(start, c)| {
        let is_kept = match c {
            '\n' => keeps_newlines,
            '\u{fe0f}' => is_symbol(previous),
            _ => !is_unprintable(c),
        };
        previous = c;
        let piece = match is_kept {
            true => c.to_string(),
            false => c.escape_unicode().to_string(),
        };
        (start + c.len_utf8(), piece)
    })
}

/// Returns whether the selector of emoji presentation is usual after the character: most of these are emoji.
fn is_symbol(c: char) -> bool {
    matches!(c, '\u{203c}'..='\u{205f}' | '\u{2100}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}' | '\u{1f000}'..='\u{1faff}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_a_terminal_acts_on_are_shown() {
        for (text, escaped) in [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
            ("a\r\nb\tc", "a\\u{d}\\u{a}b\\u{9}c"),
        ] {
            assert_eq!(escape_unprintable(text), escaped);
        }
        assert_eq!(escape_unprintable_lines("a\nb\u{7}"), "a\nb\\u{7}");
        assert_eq!(printable_lines_within("a\nb\u{7}", 100), "a\nb\\u{7}");
    }

    #[test]
    fn invisible_characters_are_shown() {
        let invisible = "\u{ad}\u{34f}\u{61c}\u{180e}\u{200b}\u{200d}\u{200f}\u{2028}\u{2060}\u{3164}\u{fe00}\u{feff}\u{e0041}\u{e0100}";
        for c in invisible.chars() {
            let escaped = format!("base\\u{{{:x}}}", u32::from(c));
            assert_eq!(escape_unprintable(&format!("base{c}")), escaped);
        }
        // A selector that changes nothing makes two names look the same.
        assert_eq!(escape_unprintable("base\u{fe0f}"), "base\\u{fe0f}");
    }

    #[test]
    fn ordinary_text_is_unchanged() {
        for text in [
            "Grün→😀 e\u{301}",
            "日本語 한국어 العربية עברית",
            "⚠\u{fe0f} ☀\u{fe0f} 👍🏽",
            "C:\\dir ~/x {\u{a0}}",
            "",
        ] {
            assert_eq!(escape_unprintable(text), text);
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_with_a_note() {
        let text = printable(&"ü\u{1b}".repeat(1 << 20));
        assert!(text.chars().count() <= MAX_MESSAGE_CHARS, "{}", text.len());
        assert!(text.starts_with("ü\\u{1b}ü") && !text.contains('\u{1b}'));
        let (kept, note) = text.split_once("… (").unwrap();
        let source_bytes = kept.matches('ü').count() * 2 + kept.matches("\\u{1b}").count();
        assert!(kept.ends_with(['ü', '}']), "an escape is not cut");
        assert_eq!(note, format!("{} more bytes)", (3 << 20) - source_bytes));
        assert_eq!(printable_within("abc", 3), "abc");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"a\u{9b}\u{e0041}": ["\u{1b}\n\u{202e}ü日😀\u{7f}"]});
        let json = format!("{value:#}");
        let escaped = escape_json(&json);
        assert!(escaped.contains("\\u009b\\udb40\\udc41"), "{escaped}");
        assert!(!escaped.contains(|c| c != '\n' && is_unprintable(c)));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&escaped).unwrap(),
            value
        );
    }

    /// Text with many characters that are treated in a special way.
    fn any_text() -> impl Strategy<Value = String> {
        let c = prop_oneof![
            any::<char>(),
            prop::sample::select(
                "\u{0}\n\t\r\u{1b}\u{7}\u{7f}\u{85}\u{9b}\u{9c}\u{ad}\u{200b}\u{200d}\u{202e}\u{2067}\u{fe0f}\u{feff}\u{e0001}⚠😀ü日\\u{}"
                    .chars()
                    .collect::<Vec<_>>()
            ),
        ];
        prop::collection::vec(c, 0..60).prop_map(|chars| chars.into_iter().collect())
    }

    /// Returns whether nothing of `text` has to be escaped.
    fn is_safe(text: &str) -> bool {
        let mut previous = ' ';
        text.chars().all(|c| {
            let is_presentation = c == '\u{fe0f}' && is_symbol(previous);
            previous = c;
            is_presentation || !is_unprintable(c)
        })
    }

    proptest! {
        #[test]
        fn every_text_is_safe_and_is_escaped_once(text in any_text(), max_chars in 0_usize..200) {
            let escaped = escape_unprintable(&text).into_owned();
            prop_assert!(is_safe(&escaped), "{escaped:?}");
            prop_assert_eq!(&escape_unprintable(&escaped), &escaped);
            prop_assert_eq!(is_safe(&text), escaped == text);
            let lines = escape_unprintable_lines(&text).into_owned();
            prop_assert!(lines.split('\n').all(is_safe));
            prop_assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
            prop_assert_eq!(&escape_unprintable_lines(&lines), &lines);
            let cut = printable_within(&text, max_chars);
            prop_assert!(is_safe(&cut));
            if max_chars >= CUT_NOTE_CHARS {
                prop_assert!(cut.chars().count() <= max_chars);
                prop_assert_eq!(&printable_within(&cut, max_chars), &cut);
            }
            prop_assert_eq!(printable(&text), escaped);
        }

        #[test]
        fn json_of_every_text_is_safe_and_keeps_its_value(text in any_text()) {
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escape_json(&json);
            prop_assert!(!escaped.contains(is_unprintable));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
