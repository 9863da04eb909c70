//! Control sequences that the console sends beside its frames. Texts in them are made printable and short, so that none
//! can end its sequence and begin another.

use crossterm::Command as _;
use crossterm::clipboard::CopyToClipboard;
use snapdeck_model::{escape_unprintable_lines, printable_within};

/// Maximum length in bytes of a text for the clipboard; many terminals accept less.
const MAX_CLIPBOARD_BYTES: usize = 1 << 20;
/// Maximum length in characters of a notification.
const MAX_NOTIFICATION_CHARS: usize = 300;

/// A control sequence without the text of others, made only by this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlSequence(String);

impl ControlSequence {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the query of the background's colour (OSC 11).
pub(crate) fn background_query() -> ControlSequence {
    ControlSequence("\x1b]11;?\x1b\\".to_owned())
}

/// Returns the bell.
pub(crate) fn bell() -> ControlSequence {
    ControlSequence("\x07".to_owned())
}

/// Returns the sequence of a desktop notification (OSC 9), and the bell.
pub(crate) fn notification(message: &str, in_tmux: bool) -> ControlSequence {
    let text = printable_within(message, MAX_NOTIFICATION_CHARS);
    let osc = wrap_for_tmux(&format!("\x1b]9;{text}\x1b\\"), in_tmux);
    ControlSequence(format!("{osc}\x07"))
}

/// Returns the sequence that copies `text` to the terminal's clipboard (OSC 52); `None` if it is too long. It may be pasted
/// into a shell: unprintable characters are escaped, except newlines.
///
/// For tmux it is sent plain and wrapped: depending on its settings tmux handles the first (`set-clipboard`) or passes on
/// the second (`allow-passthrough`).
pub(crate) fn clipboard(text: &str, in_tmux: bool) -> Option<ControlSequence> {
    let text = escape_unprintable_lines(text);
    if text.len() > MAX_CLIPBOARD_BYTES {
        return None;
    }
    let mut plain = String::new();
    // Writing to a string cannot fail.
    let _ = CopyToClipboard::to_clipboard_from(&*text).write_ansi(&mut plain);
    Some(ControlSequence(match in_tmux {
        true => format!("{plain}{}", wrap_for_tmux(&plain, true)),
        false => plain,
    }))
}

/// Wraps `sequence` so that tmux passes it on to its terminal.
fn wrap_for_tmux(sequence: &str, in_tmux: bool) -> String {
    match in_tmux {
        true => format!("\x1bPtmux;{}\x1b\\", sequence.replace('\x1b', "\x1b\x1b")),
        false => sequence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_clipboard_sequence_is_also_wrapped_for_tmux() {
        let copy = |in_tmux| clipboard("vnc://127.0.0.1:5901", in_tmux).unwrap().0;
        // base64 of vnc://127.0.0.1:5901
        let plain = "\x1b]52;c;dm5jOi8vMTI3LjAuMC4xOjU5MDE=";
        let direct = copy(false);
        assert!(direct.starts_with(plain), "{direct:?}");
        let both = copy(true);
        assert!(both.starts_with(&direct), "{both:?}");
        let wrapped = format!("\x1bPtmux;\x1b{plain}");
        assert!(both.contains(&wrapped), "{both:?}");
        assert!(both.ends_with("\x1b\\"), "{both:?}");
    }

    #[test]
    fn a_text_does_not_end_its_sequence() {
        let evil = "a\x1b\\\x1b]52;c;eA==\x07\u{9c}\u{9d}52;c;eA==\n\u{202e}";
        let sent = notification(evil, false).0;
        let payload = sent
            .strip_prefix("\x1b]9;")
            .and_then(|rest| rest.strip_suffix("\x1b\\\x07"))
            .unwrap();
        assert!(!payload.contains(char::is_control), "{payload:?}");
        assert!(
            payload.starts_with("a\\u{1b}\\\\u{1b}]52;c;eA==\\u{7}"),
            "{payload}"
        );
        let long = notification(&"x".repeat(1 << 20), true).0;
        assert!(long.len() < 400, "{}", long.len());
        // base64 of a\\u{d}, and of a newline between two names.
        assert_eq!(clipboard("a\r", false), clipboard("a\\u{d}", false));
        assert_ne!(clipboard("a\nb", false), clipboard("a\\u{a}b", false));
        assert_eq!(clipboard(&"x".repeat(2 << 20), false), None);
    }
}
