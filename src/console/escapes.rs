//! Parses `ESC ESC [ D`: escape followed at once by an arrow, or an arrow with Meta on terminals that send an escape
//! before it (urxvt, PuTTY).
//!
//! crossterm 0.29 reads it as escape and two letters, which must not be taken for typed keys.

use std::io;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

type EventResult = io::Result<Event>;

/// Maximum length of a sequence, in characters.
const MAX_SEQUENCE: usize = 20;
/// Limit of dropped events of a paste; a terminal buffers fewer.
const MAX_PASTE_EVENTS: usize = 1 << 16;

/// Returns `first` and the events read from `next` to complete a sequence.
///
/// An escape followed by the letters of a sequence becomes escape and the sequence's key; escape alone if the sequence
/// is not one of a known key.
pub(crate) fn merge_escape_sequence(
    first: EventResult,
    mut next: impl FnMut() -> Option<EventResult>,
) -> Vec<EventResult> {
    let mut events = vec![first];
    if !matches!(&events[0], Ok(Event::Key(key)) if *key == KeyCode::Esc.into()) {
        return events;
    }
    let mut text = String::new();
    while text.len() < MAX_SEQUENCE {
        let Some(event) = next() else { return events };
        let letter = letter(&event);
        events.push(event);
        match (letter, text.as_str()) {
            (Some('[' | 'O'), "") | (Some('<'), "[") => text.extend(letter),
            (Some('0'..='9' | ';'), start) if !start.is_empty() => text.extend(letter),
            (Some(last @ ('A'..='Z' | 'a'..='z' | '~')), start) if !start.is_empty() => {
                events.truncate(1);
                if (start, last) == ("[200", '~') {
                    // Drop the pasted text: its letters would act as keys.
                    let _ = std::iter::repeat_with(&mut next)
                        .take(MAX_PASTE_EVENTS)
                        .find(Option::is_none);
                }
                let key = key(&text[1..], last);
                events.extend(key.map(|code| Ok(Event::Key(code.into()))));
                return events;
            }
            _ => return events,
        }
    }
    events
}

fn letter(event: &EventResult) -> Option<char> {
    match event {
        Ok(Event::Key(KeyEvent {
            code: KeyCode::Char(c),
            modifiers,
            ..
        })) if (*modifiers - KeyModifiers::SHIFT).is_empty() => Some(*c),
        _ => None,
    }
}

/// Returns the key of a sequence with these parameters and last letter (xterm, "PC-Style Function Keys").
fn key(parameters: &str, last: char) -> Option<KeyCode> {
    let number = parameters.split(';').next().unwrap_or_default();
    Some(match (last, number) {
        ('A' | 'a', _) => KeyCode::Up,
        ('B' | 'b', _) => KeyCode::Down,
        ('C' | 'c', _) => KeyCode::Right,
        ('D' | 'd', _) => KeyCode::Left,
        ('H', _) | ('~', "1" | "7") => KeyCode::Home,
        ('F', _) | ('~', "4" | "8") => KeyCode::End,
        ('Z', _) => KeyCode::BackTab,
        ('~', "3") => KeyCode::Delete,
        ('~', "5") => KeyCode::PageUp,
        ('~', "6") => KeyCode::PageDown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the keys read from an escape followed at once by `letters`.
    fn after_escape(letters: &str) -> Vec<KeyCode> {
        let mut letters = letters.chars();
        let next = || {
            letters
                .next()
                .map(|c| Ok(Event::Key(KeyCode::Char(c).into())))
        };
        let events = merge_escape_sequence(Ok(Event::Key(KeyCode::Esc.into())), next);
        let code = |event: EventResult| match event {
            Ok(Event::Key(key)) => key.code,
            other => panic!("{other:?}"),
        };
        events.into_iter().map(code).collect()
    }

    #[test]
    fn an_arrow_right_after_an_escape_is_parsed() {
        use KeyCode::{Char, Delete, Down, End, Esc, Left};
        assert_eq!(after_escape("[B"), [Esc, Down]);
        assert_eq!(after_escape("OF"), [Esc, End]);
        assert_eq!(after_escape("[1;5D"), [Esc, Left]);
        assert_eq!(after_escape("[3~"), [Esc, Delete]);
        assert_eq!(after_escape("[29~"), [Esc], "an unknown key");
        assert_eq!(after_escape("[<65;100;10M"), [Esc], "the wheel");
        assert_eq!(after_escape("[200~dd"), [Esc], "a paste");
        // Typed letters are passed on.
        assert_eq!(after_escape(""), [Esc]);
        assert_eq!(after_escape("["), [Esc, Char('[')]);
        assert_eq!(after_escape("d"), [Esc, Char('d')]);
        let many = after_escape(&format!("[{}D", "1".repeat(30)));
        assert_eq!(
            many.len(),
            21,
            "an unterminated sequence is passed on: {many:?}"
        );
    }

    #[test]
    fn fuzz_escape_sequences() {
        snapdeck_fuzz::FuzzTarget::new("escape sequences of a terminal")
            .seed("[1;5D")
            .seed("[200~dd")
            .seed("[<65;100;10M")
            .run(|letters| {
                let keys = after_escape(&snapdeck_fuzz::text(letters));
                assert!(keys[0] == KeyCode::Esc && keys.len() <= MAX_SEQUENCE + 1);
            });
    }
}
