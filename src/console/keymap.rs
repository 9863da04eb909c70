//! From a pressed key to an action, through the one table.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::actions::{ACTIONS, Action, Entry, Key, Pane};

/// What a key press came to.
#[derive(Debug, Clone, Copy)]
pub enum Pressed {
    /// Do this.
    Do(Action),
    /// It means this, but in other panes.
    Elsewhere(&'static Entry),
}

/// What `key` means while `focus` has the focus; `None` where it means nothing at all.
pub fn look_up(key: KeyEvent, focus: Pane) -> Option<Pressed> {
    let mut elsewhere = None;
    for entry in ACTIONS {
        if !entry.keys.iter().any(|wanted| matches(*wanted, key)) {
            continue;
        }
        if entry.panes.contains(&focus) {
            return Some(Pressed::Do(match (entry.action, key.code) {
                (Action::Host(_), KeyCode::Char(digit)) => {
                    Action::Host(digit.to_digit(10).unwrap_or(1).saturating_sub(1) as u8)
                }
                (action, _) => action,
            }));
        }
        elsewhere = Some(Pressed::Elsewhere(entry));
    }
    elsewhere
}

fn matches(wanted: Key, key: KeyEvent) -> bool {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    match (wanted, key.code) {
        (Key::Char(wanted), KeyCode::Char(typed)) => !ctrl && !alt && wanted == typed,
        (Key::Digit, KeyCode::Char(typed)) => !ctrl && !alt && matches!(typed, '1'..='9'),
        (Key::Ctrl(wanted), KeyCode::Char(typed)) => ctrl && wanted == typed.to_ascii_lowercase(),
        (Key::Code(wanted), code) => wanted == code,
        _ => false,
    }
}

/// The key's name on screen.
pub fn name(key: Key) -> String {
    match key {
        Key::Char(' ') => "space".to_owned(),
        Key::Char(char) => char.to_string(),
        Key::Ctrl(char) => format!("ctrl-{char}"),
        Key::Digit => "1-9".to_owned(),
        Key::Code(KeyCode::BackTab) => "shift-tab".to_owned(),
        Key::Code(KeyCode::PageUp) => "page up".to_owned(),
        Key::Code(KeyCode::PageDown) => "page down".to_owned(),
        Key::Code(code) => code.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_meanings_in_one_pane() {
        for (at, one) in ACTIONS.iter().enumerate() {
            for other in &ACTIONS[at + 1..] {
                let shared_pane = one.panes.iter().any(|pane| other.panes.contains(pane));
                let shared_key = one.keys.iter().find(|key| other.keys.contains(key));
                assert!(
                    !shared_pane || shared_key.is_none(),
                    "{} and {}",
                    one.name,
                    other.name
                );
            }
        }
    }

    #[test]
    fn a_digit_names_a_host_and_ctrl_is_not_the_plain_letter() {
        let digit = KeyEvent::from(KeyCode::Char('3'));
        assert!(matches!(
            look_up(digit, Pane::Bucket),
            Some(Pressed::Do(Action::Host(2)))
        ));
        let ctrl_d = KeyEvent::new(KeyCode::Char('d'), KeyModifiers::CONTROL);
        assert!(look_up(ctrl_d, Pane::Bucket).is_none());
        let remove = KeyEvent::from(KeyCode::Char('d'));
        assert!(matches!(
            look_up(remove, Pane::Jobs),
            Some(Pressed::Elsewhere(_))
        ));
    }
}
