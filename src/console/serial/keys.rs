//! Keys as the bytes that a terminal sends (xterm, "Control sequences": PC-style function keys).

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Returns the bytes of a key; `None` for one that a terminal does not send. `is_application`: cursor keys are in
/// application mode.
pub(crate) fn encode_key(key: KeyEvent, is_application: bool) -> Option<Vec<u8>> {
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    let shift = key.modifiers.contains(KeyModifiers::SHIFT);
    let modifier = 1 + u8::from(shift) + 2 * u8::from(alt) + 4 * u8::from(ctrl);
    let cursor = |letter: char| match (modifier, is_application) {
        (1, true) => format!("\x1bO{letter}"),
        (1, false) => format!("\x1b[{letter}"),
        _ => format!("\x1b[1;{modifier}{letter}"),
    };
    let tilde = |number: u8| match modifier {
        1 => format!("\x1b[{number}~"),
        _ => format!("\x1b[{number};{modifier}~"),
    };
    let text = match key.code {
        KeyCode::Char(c) if ctrl => (control(c)? as char).to_string(),
        KeyCode::Char(c) => c.to_string(),
        KeyCode::Enter => "\r".to_owned(),
        KeyCode::Tab => "\t".to_owned(),
        KeyCode::BackTab => return Some(b"\x1b[Z".to_vec()),
        KeyCode::Backspace => "\x7f".to_owned(),
        KeyCode::Esc => "\x1b".to_owned(),
        KeyCode::Up => return Some(cursor('A').into_bytes()),
        KeyCode::Down => return Some(cursor('B').into_bytes()),
        KeyCode::Right => return Some(cursor('C').into_bytes()),
        KeyCode::Left => return Some(cursor('D').into_bytes()),
        KeyCode::Home => return Some(cursor('H').into_bytes()),
        KeyCode::End => return Some(cursor('F').into_bytes()),
        KeyCode::Insert => return Some(tilde(2).into_bytes()),
        KeyCode::Delete => return Some(tilde(3).into_bytes()),
        KeyCode::PageUp => return Some(tilde(5).into_bytes()),
        KeyCode::PageDown => return Some(tilde(6).into_bytes()),
        KeyCode::F(number @ 1..=4) => {
            let letter = char::from(b'P' + number - 1);
            return Some(match modifier {
                1 => format!("\x1bO{letter}").into_bytes(),
                _ => format!("\x1b[1;{modifier}{letter}").into_bytes(),
            });
        }
        KeyCode::F(number @ 5..=12) => {
            const NUMBERS: [u8; 8] = [15, 17, 18, 19, 20, 21, 23, 24];
            return Some(tilde(NUMBERS[usize::from(number - 5)]).into_bytes());
        }
        _ => return None,
    };
    let prefix = if alt { "\x1b" } else { "" };
    Some(format!("{prefix}{text}").into_bytes())
}

/// Returns the control character of a key with ctrl.
fn control(c: char) -> Option<u8> {
    Some(match c {
        'a'..='z' | 'A'..='Z' => c.to_ascii_lowercase() as u8 - b'a' + 1,
        ' ' | '@' | '2' => 0,
        '[' | '3' => 0x1b,
        // crossterm reads 0x1c to 0x1f as digits.
        '\\' | '4' => 0x1c,
        ']' | '5' => 0x1d,
        '^' | '6' => 0x1e,
        '_' | '7' | '/' => 0x1f,
        '?' | '8' => 0x7f,
        _ => return None,
    })
}

/// Returns the bytes of a pasted text; a guest that has asked for it sees where it begins and ends.
pub(crate) fn encode_paste(text: &str, is_bracketed: bool) -> Vec<u8> {
    // The end of the paste cannot be in it.
    let text = text
        .replace('\x1b', "")
        .replace("\r\n", "\r")
        .replace('\n', "\r");
    match is_bracketed {
        true => format!("\x1b[200~{text}\x1b[201~").into_bytes(),
        false => text.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sent_as_by_xterm() {
        const NONE: KeyModifiers = KeyModifiers::NONE;
        for (code, modifiers, bytes) in [
            (KeyCode::Char('é'), NONE, "é"),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, "\x03"),
            (KeyCode::Char('4'), KeyModifiers::CONTROL, "\x1c"),
            (KeyCode::Char('x'), KeyModifiers::ALT, "\x1bx"),
            (KeyCode::Enter, NONE, "\r"),
            (KeyCode::Esc, NONE, "\x1b"),
            (KeyCode::Up, NONE, "\x1b[A"),
            (KeyCode::Left, KeyModifiers::CONTROL, "\x1b[1;5D"),
            (KeyCode::Delete, NONE, "\x1b[3~"),
            (KeyCode::F(1), NONE, "\x1bOP"),
            (KeyCode::F(12), NONE, "\x1b[24~"),
        ] {
            let key = KeyEvent::new(code, modifiers);
            assert_eq!(encode_key(key, false), Some(bytes.as_bytes().to_vec()));
        }
        let up = KeyEvent::from(KeyCode::Up);
        assert_eq!(encode_key(up, true), Some(b"\x1bOA".to_vec()));
        assert_eq!(encode_key(KeyCode::CapsLock.into(), false), None);
        let paste = encode_paste("a\nb\x1b[201~", true);
        assert_eq!(paste, b"\x1b[200~a\rb[201~\x1b[201~");
    }
}
