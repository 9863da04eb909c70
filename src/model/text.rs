//! Makes text from hosts, guests and stores safe to print.

use std::borrow::Cow;

/// Returns whether a terminal or a log viewer may act on the character instead of showing it: C0 and C1 control
/// characters, line and paragraph separators, and directional formatting (Unicode TR 9, section 2).
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns `text` with unprintable characters as `\u{9b}`; newlines and tabs, too.
pub fn escape_unprintable(text: &str) -> Cow<'_, str> {
    escape(text, is_unprintable)
}

/// Returns `text` with unprintable characters as `\u{9b}`, but keeps newlines.
pub fn escape_unprintable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && is_unprintable(c))
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::new(), |mut escaped, c| {
        match is_escaped(c) {
            true => escaped.extend(c.escape_unicode()),
            false => escaped.push(c),
        }
        escaped
    });
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_a_terminal_acts_on_are_shown() {
        for (text, escaped) in [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
            ("a\r\nb\tc", "a\\u{d}\\u{a}b\\u{9}c"),
            ("Grün→😀 e\u{301}", "Grün→😀 e\u{301}"),
        ] {
            assert_eq!(escape_unprintable(text), escaped);
        }
        assert_eq!(escape_unprintable_lines("a\nb\u{7}"), "a\nb\\u{7}");
    }
}
