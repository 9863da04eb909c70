//! Escape followed at once by an arrow, or an arrow with Meta on terminals that put an escape before it (urxvt, PuTTY):
//! `ESC ESC [ D`. crossterm 0.29 makes of it the escape and two letters that nobody typed, which must act on nothing.

use std::io;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

type EventResult = io::Result<Event>;

/// Longest sequence that is looked for.
const MAX_SEQUENCE: usize = 20;
/// Events of a paste that are dropped; what the terminal holds back is less.
const MAX_PASTE_EVENTS: usize = 1 << 16;

/// The events that begin with `first`, of those that `more` has at hand: where an escape is followed by the letters of a
/// sequence, it is the escape and the sequence's key, or the escape alone where no key is known.
pub(crate) fn merge_escape_sequence(
    first: EventResult,
    mut more: impl FnMut() -> Option<EventResult>,
) -> Vec<EventResult> {
    let mut events = vec![first];
    if !matches!(&events[0], Ok(Event::Key(key)) if *key == KeyCode::Esc.into()) {
        return events;
    }
    let mut text = String::new();
    while text.len() < MAX_SEQUENCE {
        let Some(event) = more() else { return events };
        let typed = letter(&event);
        events.push(event);
        match (typed, text.as_str()) {
            (Some('[' | 'O'), "") | (Some('<'), "[") => text.extend(typed),
            (Some('0'..='9' | ';'), before) if !before.is_empty() => text.extend(typed),
            (Some(last @ ('A'..='Z' | 'a'..='z' | '~')), before) if !before.is_empty() => {
                events.truncate(1);
                if (before, last) == ("[200", '~') {
                    // Its letters would be keys now.
                    let _ = std::iter::repeat_with(&mut more)
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

/// The key of a sequence (xterm, "PC-Style Function Keys") by its parameters and last letter.
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

    /// What becomes of an escape and these letters, all there at once.
    fn after_escape(letters: &str) -> Vec<KeyCode> {
        let mut letters = letters.chars();
        let more = || {
            letters
                .next()
                .map(|c| Ok(Event::Key(KeyCode::Char(c).into())))
        };
        let events = merge_escape_sequence(Ok(Event::Key(KeyCode::Esc.into())), more);
        let code = |event: EventResult| match event {
            Ok(Event::Key(key)) => key.code,
            other => panic!("{other:?}"),
        };
        events.into_iter().map(code).collect()
    }

    #[test]
    fn an_arrow_right_after_an_escape_is_an_arrow() {
        use KeyCode::{Char, Delete, Down, End, Esc, Left};
        assert_eq!(after_escape("[B"), [Esc, Down]);
        assert_eq!(after_escape("OF"), [Esc, End]);
        assert_eq!(after_escape("[1;5D"), [Esc, Left]);
        assert_eq!(after_escape("[3~"), [Esc, Delete]);
        assert_eq!(after_escape("[29~"), [Esc], "no key of ours");
        assert_eq!(after_escape("[<65;100;10M"), [Esc], "the wheel");
        assert_eq!(after_escape("[200~dd"), [Esc], "a paste");
        // What is typed behind an escape stays what it is.
        assert_eq!(after_escape(""), [Esc]);
        assert_eq!(after_escape("["), [Esc, Char('[')]);
        assert_eq!(after_escape("d"), [Esc, Char('d')]);
        let many = after_escape(&format!("[{}D", "1".repeat(30)));
        assert_eq!(
            many.len(),
            21,
            "no end in sight, what was read is kept: {many:?}"
        );
    }
}
