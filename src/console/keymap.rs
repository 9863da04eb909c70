//! Maps pressed keys to actions: the default keys, or those of the user's `keymap.toml`.

use std::path::Path;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use toml::de::{DeTable, DeValue};

use super::actions::{Action, Entry, Pane};
use super::table::ACTIONS;
use snapdeck_model::Result;
use snapdeck_settings::SourceText;

const NAMED: &[(&str, KeyCode)] = &[
    ("space", KeyCode::Char(' ')),
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("shift-tab", KeyCode::BackTab),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("insert", KeyCode::Insert),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("page-up", KeyCode::PageUp),
    ("page-down", KeyCode::PageDown),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
];
/// Former and present ids of actions. A `keymap.toml` may use both.
const FORMER_IDS: &[(&str, &str)] = &[
    ("suspend", "background"),
    ("copy-name", "copy"),
    ("again", "retry"),
    ("sooner", "move-up"),
    ("later", "move-down"),
    ("matrix", "locations"),
    ("pane-before", "previous-pane"),
    ("host-before", "previous-host"),
];
/// Any digit from 1 to 9, as the last key of a chord.
const DIGIT: &str = "1-9";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Press {
    Key {
        code: KeyCode,
        ctrl: bool,
        alt: bool,
    },
    Digit,
}

impl Press {
    /// Returns the key of an event. Shift changes the letter and is ignored otherwise.
    pub(crate) fn new(key: KeyEvent) -> Self {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let code = match key.code {
            KeyCode::Char(c) if ctrl => KeyCode::Char(c.to_ascii_lowercase()),
            code => code,
        };
        Self::Key {
            code,
            ctrl,
            alt: key.modifiers.contains(KeyModifiers::ALT),
        }
    }

    /// Parses a name: `c`, `space`, `ctrl-a`, `alt-x`, `f1`, `page-up`, `1-9`.
    fn named(name: &str) -> Option<Self> {
        if name == DIGIT {
            return Some(Self::Digit);
        }
        let (mut rest, mut ctrl, mut alt) = (name, false, false);
        while let Some((modifier, key)) = rest.split_once('-').filter(|(_, key)| !key.is_empty()) {
            match modifier {
                "ctrl" => ctrl = true,
                "alt" => alt = true,
                _ => break,
            }
            rest = key;
        }
        let mut letters = rest.chars();
        let code = match (letters.next(), letters.next()) {
            (Some(c), None) if !c.is_control() && !c.is_whitespace() => match ctrl {
                true => KeyCode::Char(c.to_ascii_lowercase()),
                false => KeyCode::Char(c),
            },
            _ => {
                let function = rest.strip_prefix('f').and_then(|n| n.parse::<u8>().ok());
                let function = function.filter(|n| (1..=24).contains(n)).map(KeyCode::F);
                let named = NAMED.iter().find(|(name, _)| *name == rest);
                named.map(|(_, code)| *code).or(function)?
            }
        };
        Some(Self::Key { code, ctrl, alt })
    }

    /// Returns the name that [`Self::named`] parses.
    pub(crate) fn name(self) -> String {
        let Self::Key { code, ctrl, alt } = self else {
            return DIGIT.to_owned();
        };
        let named = NAMED.iter().find(|(_, other)| *other == code);
        let key = match (named, code) {
            (Some((name, _)), _) => (*name).to_owned(),
            (None, KeyCode::Char(c)) => c.to_string(),
            (None, code) => code.to_string().to_lowercase(),
        };
        let prefix = |on: bool, name: &'static str| if on { name } else { "" };
        format!("{}{}{key}", prefix(ctrl, "ctrl-"), prefix(alt, "alt-"))
    }

    fn matches(self, pressed: Self) -> bool {
        let is_digit = |code| matches!(code, KeyCode::Char('1'..='9'));
        match (self, pressed) {
            (Self::Digit, Self::Key { code, ctrl, alt }) => !ctrl && !alt && is_digit(code),
            _ => self == pressed,
        }
    }
}

/// Keys that are pressed one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chord(Vec<Press>);

impl Chord {
    fn named(text: &str) -> std::result::Result<Self, String> {
        let press = |name: &str| Press::named(name).ok_or_else(|| name.to_owned());
        let presses: Vec<Press> = text
            .split_whitespace()
            .map(press)
            .collect::<std::result::Result<_, _>>()?;
        match presses.is_empty() {
            true => Err(text.to_owned()),
            false => Ok(Self(presses)),
        }
    }

    fn name(&self) -> String {
        let names: Vec<String> = self.0.iter().map(|press| press.name()).collect();
        names.join(" ")
    }

    fn begins_with(&self, pressed: &[Press]) -> bool {
        let pairs = self.0.iter().zip(pressed);
        self.0.len() >= pressed.len() && pairs.into_iter().all(|(one, other)| one.matches(*other))
    }

    /// Returns whether one chord is the beginning of the other, so that both cannot be used in one pane.
    fn collides(&self, other: &Self) -> bool {
        let overlap = |one: &Press, other: &Press| one.matches(*other) || other.matches(*one);
        self.0
            .iter()
            .zip(&other.0)
            .all(|(one, other)| overlap(one, other))
    }
}

#[derive(Debug, Clone)]
struct Binding {
    chord: Chord,
    entry: &'static Entry,
    /// Offset in the user's file, in bytes; `None` for a default.
    source_offset: Option<usize>,
}

/// The result of looking up pressed keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyMatch {
    Perform(Action),
    /// The beginning of a chord.
    Incomplete,
    /// The keys are bound in other panes.
    OtherPane(&'static Entry),
    Unbound,
}

#[derive(Debug, Clone)]
pub(crate) struct Keymap(Vec<Binding>, Vec<&'static Entry>);

/// A key of the operator, and its offset in the file, in bytes.
pub(crate) type UserKey = (String, usize);

impl Default for Keymap {
    fn default() -> Self {
        // A test finds invalid names in the table.
        let bindings = ACTIONS.iter().flat_map(|entry| {
            let chords = entry.keys.iter().filter_map(|name| Chord::named(name).ok());
            chords.map(move |chord| Binding {
                chord,
                entry,
                source_offset: None,
            })
        });
        Self(bindings.collect(), Vec::new())
    }
}

impl Keymap {
    /// Reads `text`, the content of `path`. Actions that it does not name have their default keys.
    ///
    /// The second part lists the default keys that now trigger another action.
    ///
    /// # Errors
    /// `InvalidInput` with the line: an unknown action or key, or one key for two of the user's actions that work in the
    /// same pane.
    pub(crate) fn read(text: &str, path: &Path) -> Result<(Self, Vec<String>)> {
        let text = SourceText {
            error_summary: "cannot read the keymap",
            path,
            text,
        };
        let root = DeTable::parse(text.text)
            .map_err(|error| text.syntax_error(error.span(), error.message()))?;
        let mut user_bindings = Vec::new();
        let mut named: Vec<Action> = Vec::new();
        for (name, value) in root.get_ref() {
            let ids = || ACTIONS.iter().map(Entry::id);
            let former = FORMER_IDS.iter().find(|(old, _)| old == name.get_ref());
            let id = former.map_or(name.get_ref().as_ref(), |(_, id)| *id);
            let entry = ACTIONS.iter().find(|entry| entry.id() == id);
            let entry = entry.ok_or_else(|| {
                text.unknown_name_error(name.span().start, "action", name.get_ref(), ids())
                    .hint("use an action of config/keymap.toml; `?` lists them")
            })?;
            named.push(entry.action);
            let type_error = |at| {
                text.error_at(
                    at,
                    format!("{name} must be a list of keys, such as [\"g g\"]"),
                )
            };
            let values = match value.get_ref() {
                DeValue::Array(values) => values.iter().collect(),
                DeValue::String(_) => vec![value],
                _ => return Err(type_error(value.span().start)),
            };
            for value in values {
                let at = value.span().start;
                let keys = value.get_ref().as_str().ok_or_else(|| type_error(at))?;
                let chord = Chord::named(keys).map_err(|key| {
                    text.error_at(at, format!("{name}: unknown key {key:?}")).hint(
                        "use letters and signs, space, enter, esc, tab, up, page-down, f1, ctrl-a, alt-x, ...",
                    )
                })?;
                let (has_digit, last) = (chord.0.contains(&Press::Digit), chord.0.last());
                if has_digit != matches!(entry.action, Action::Host(_))
                    || has_digit && last != Some(&Press::Digit)
                {
                    let message = "1-9 must be the last key of host, and only of host";
                    return Err(text.error_at(at, format!("{name}: {message}")));
                }
                user_bindings.push(Binding {
                    chord,
                    entry,
                    source_offset: Some(at),
                });
            }
        }
        user_bindings.sort_by_key(|binding| binding.source_offset);
        let conflict = |one: &Binding, other: &Binding| {
            one.chord.collides(&other.chord) && share_pane(one.entry, other.entry)
        };
        for (number, one) in user_bindings.iter().enumerate() {
            let others = &user_bindings[..number];
            if let Some(other) = others.iter().find(|other| conflict(one, other)) {
                let (id, key) = (one.entry.id(), one.chord.name());
                let line = text.line_at(other.source_offset.unwrap_or(0));
                let message = format!(
                    "{id}: {key} collides with {} of {} in line {line}",
                    other.chord.name(),
                    other.entry.id()
                );
                return Err(text.error_at(one.source_offset.unwrap_or(0), message));
            }
        }
        let mut reassigned = Vec::new();
        let mut bindings = Self::default().0;
        bindings.retain(|binding| !named.contains(&binding.entry.action));
        bindings.retain(|binding| {
            let Some(user) = user_bindings.iter().find(|user| conflict(user, binding)) else {
                return true;
            };
            reassigned.push(format!(
                "{} is now {}, no longer {}",
                binding.chord.name(),
                user.entry.id(),
                binding.entry.id()
            ));
            false
        });
        bindings.extend(user_bindings);
        Ok((Self(bindings, Vec::new()), reassigned))
    }

    /// Binds the keys of commands of the operator. Returns the default keys that now run a command.
    ///
    /// # Errors
    /// `InvalidInput` with the line: an unknown key, or one that is also in `keymap.toml` or of another command.
    pub(crate) fn add_commands(
        &mut self,
        commands: Vec<(&'static Entry, Vec<UserKey>)>,
        text: &SourceText<'_>,
    ) -> Result<Vec<String>> {
        let mut reassigned = Vec::new();
        for (entry, keys) in commands {
            self.1.push(entry);
            for (keys, at) in keys {
                let name = entry.name;
                let chord = Chord::named(&keys)
                    .ok()
                    .filter(|chord| !chord.0.contains(&Press::Digit));
                let chord = chord
                    .ok_or_else(|| text.error_at(at, format!("{name}: unknown key {keys:?}")))?;
                let is_other = |binding: &Binding| {
                    !(binding.chord.collides(&chord) && share_pane(binding.entry, entry))
                };
                let others = self.0.iter().filter(|binding| !is_other(binding));
                if let Some(other) = others
                    .into_iter()
                    .find(|binding| binding.source_offset.is_some())
                {
                    let place = match other.entry.action {
                        Action::Custom(_) => "",
                        _ => " in keymap.toml",
                    };
                    let (key, taken) = (chord.name(), other.chord.name());
                    let id = other.entry.id();
                    let message = format!("{name}: {key} collides with {taken} of {id}{place}");
                    return Err(text.error_at(at, message));
                }
                let taken = self.0.iter().filter(|binding| !is_other(binding));
                reassigned.extend(taken.map(|binding| {
                    let (key, id) = (binding.chord.name(), binding.entry.id());
                    format!("{key} is now {name}, no longer {id}")
                }));
                self.0.retain(is_other);
                self.0.push(Binding {
                    chord,
                    entry,
                    source_offset: Some(at),
                });
            }
        }
        Ok(reassigned)
    }

    /// Returns all actions: those of the table, then the commands of the operator.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &'static Entry> {
        ACTIONS.iter().chain(self.1.iter().copied())
    }

    /// Looks up `pressed`, the keys of a chord so far, in the pane `focus`.
    pub(crate) fn look_up(&self, pressed: &[Press], focus: Pane) -> KeyMatch {
        let mut fallback = KeyMatch::Unbound;
        for binding in &self.0 {
            if !binding.chord.begins_with(pressed) {
                continue;
            }
            let is_complete = binding.chord.0.len() == pressed.len();
            match (binding.entry.panes.contains(&focus), is_complete) {
                (true, true) => {
                    return KeyMatch::Perform(with_digit(binding.entry.action, pressed));
                }
                (true, false) => return KeyMatch::Incomplete,
                (false, true) => fallback = KeyMatch::OtherPane(binding.entry),
                (false, false) => {}
            }
        }
        fallback
    }

    /// Returns the remaining keys, with their actions, of the chords that begin with `pressed` in `focus`.
    pub(crate) fn continuations<'a>(
        &'a self,
        pressed: &'a [Press],
        focus: Pane,
    ) -> impl Iterator<Item = (String, &'static Entry)> + 'a {
        let bindings = self.0.iter().filter(move |binding| {
            binding.chord.0.len() > pressed.len()
                && binding.chord.begins_with(pressed)
                && binding.entry.panes.contains(&focus)
        });
        bindings.map(|binding| {
            let rest = Chord(binding.chord.0[pressed.len()..].to_vec());
            (rest.name(), binding.entry)
        })
    }

    /// Returns the keys of an action that are not chords. A dialog uses the default keys if there are only chords.
    fn single_keys(&self, action: Action) -> Vec<Press> {
        let single = |keymap: &Self| -> Vec<Press> {
            let bindings = keymap.0.iter();
            let chords = bindings
                .filter(|binding| binding.entry.action == action)
                .map(|binding| binding.chord.0.as_slice());
            chords
                .filter_map(|chord| match chord {
                    [press] => Some(*press),
                    _ => None,
                })
                .collect()
        };
        let keys = single(self);
        match keys.is_empty() {
            true => single(&Self::default()),
            false => keys,
        }
    }

    /// Returns whether `key` is a key of `action` in a dialog.
    pub(crate) fn is_key_of(&self, key: KeyEvent, action: Action) -> bool {
        let pressed = Press::new(key);
        let mut keys = self.single_keys(action).into_iter();
        keys.any(|press| press.matches(pressed))
    }

    /// Returns the name of the key that a dialog shows for `action`.
    pub(crate) fn single_key(&self, action: Action) -> Option<String> {
        self.single_keys(action).first().map(|press| press.name())
    }

    /// Returns the names of an action's chords; the first one is shown.
    pub(crate) fn keys(&self, action: Action) -> impl Iterator<Item = String> {
        let bindings = self.0.iter();
        bindings
            .filter(move |binding| binding.entry.action == action)
            .map(|binding| binding.chord.name())
    }
}

fn share_pane(one: &Entry, other: &Entry) -> bool {
    one.panes.iter().any(|pane| other.panes.contains(pane))
}

fn with_digit(action: Action, pressed: &[Press]) -> Action {
    let digit = match pressed.last() {
        Some(Press::Key {
            code: KeyCode::Char(c),
            ..
        }) => c.to_digit(10),
        _ => None,
    };
    match (action, digit) {
        (Action::Host(_), Some(digit)) => Action::Host(digit.saturating_sub(1) as u8),
        (action, _) => action,
    }
}

/// Returns the content of `config/keymap.toml`: the default keys, each action with its description.
pub fn file() -> String {
    let mut text = String::from(
        "# Default keys of the console. Copy the lines you want to change to\n\
         # ~/.config/snapdeck/keymap.toml (beside config.toml): it replaces all keys of the actions it names.\n\
         # Keys are letters and signs, space, enter, esc, tab, shift-tab, backspace, delete, insert, home, end, page-up,\n\
         # page-down, up, down, left, right, f1 to f24, each also with ctrl- and alt-; 1-9 is any digit. Keys separated by\n\
         # spaces are pressed in sequence. [] removes all keys of an action; the palette still finds it.\n",
    );
    for entry in ACTIONS {
        let panes = match entry.is_everywhere() {
            true => String::new(),
            false => format!(" In {}.", entry.places()),
        };
        let keys: Vec<String> = entry.keys.iter().map(|key| format!("{key:?}")).collect();
        text.push_str(&format!(
            "\n# {}{panes}\n{} = [{}]\n",
            entry.sentence,
            entry.id(),
            keys.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<(Keymap, Vec<String>)> {
        Keymap::read(text, Path::new("/home/me/keymap.toml"))
    }

    fn press(names: &str) -> Vec<Press> {
        Chord::named(names).unwrap().0
    }

    #[test]
    fn former_action_ids_are_accepted() {
        for (former, id) in FORMER_IDS {
            assert!(ACTIONS.iter().any(|entry| entry.id() == *id), "{id}");
            let (keymap, _) = read(&format!("{former} = [\"f12\"]")).unwrap();
            let entry = keymap.0.iter().find(|one| one.chord.name() == "f12");
            assert_eq!(entry.unwrap().entry.id(), *id);
        }
    }

    #[test]
    fn default_keys_are_valid_and_unique_in_each_pane() {
        let keymap = Keymap::default();
        let key_count: usize = ACTIONS.iter().map(|entry| entry.keys.len()).sum();
        assert_eq!(keymap.0.len(), key_count, "the table has an invalid key");
        for (number, one) in keymap.0.iter().enumerate() {
            for other in &keymap.0[number + 1..] {
                assert!(
                    !(one.chord.collides(&other.chord) && share_pane(one.entry, other.entry)),
                    "{} and {}: {}",
                    one.entry.name,
                    other.entry.name,
                    one.chord.name()
                );
            }
            assert_eq!(Chord::named(&one.chord.name()).unwrap(), one.chord);
        }
        let mut ids: Vec<String> = ACTIONS.iter().map(Entry::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), ACTIONS.len(), "two actions have the same name");
    }

    #[test]
    fn the_default_file_matches_the_table() {
        let (keymap, reassigned) = read(&file()).unwrap();
        assert!(reassigned.is_empty(), "{reassigned:?}");
        for entry in ACTIONS {
            let keys: Vec<String> = keymap.keys(entry.action).collect();
            assert_eq!(keys, entry.keys, "{}", entry.name);
        }
    }

    #[test]
    fn digits_select_hosts_and_ctrl_is_distinct() {
        let keymap = Keymap::default();
        assert!(matches!(
            keymap.look_up(&press("3"), Pane::Bucket),
            KeyMatch::Perform(Action::Host(2))
        ));
        let ctrl_s = Press::new(KeyEvent::new(KeyCode::Char('s'), KeyModifiers::CONTROL));
        assert!(matches!(
            keymap.look_up(&[ctrl_s], Pane::Bucket),
            KeyMatch::Unbound
        ));
        assert!(matches!(
            keymap.look_up(&press("d"), Pane::Jobs),
            KeyMatch::OtherPane(_)
        ));
    }

    #[test]
    fn a_chord_is_incomplete_until_its_last_key() {
        let keymap = Keymap::default();
        assert!(matches!(
            keymap.look_up(&press("g"), Pane::Log),
            KeyMatch::Incomplete
        ));
        assert!(matches!(
            keymap.look_up(&press("g g"), Pane::Log),
            KeyMatch::Perform(Action::First)
        ));
        assert!(matches!(
            keymap.look_up(&press("g x"), Pane::Log),
            KeyMatch::Unbound
        ));
        let next: Vec<String> = keymap
            .continuations(&press("g"), Pane::Log)
            .map(|(key, _)| key)
            .collect();
        assert!(
            next.contains(&"g".to_owned()) && next.contains(&"j".to_owned()),
            "{next:?}"
        );
    }

    #[test]
    fn user_keys_replace_default_keys() {
        let (keymap, reassigned) =
            read("push = [\"c\", \"ctrl-p\"]\nquit = \"Q Q\"\nlog = []\n").unwrap();
        assert_eq!(reassigned, ["c is now push, no longer create"]);
        let action = |keys: &str| keymap.look_up(&press(keys), Pane::Sandboxes);
        assert!(matches!(action("c"), KeyMatch::Perform(Action::Push)));
        assert!(matches!(action("Q Q"), KeyMatch::Perform(Action::Quit)));
        assert!(matches!(action("q"), KeyMatch::Unbound));
        assert!(matches!(action("L"), KeyMatch::Unbound));
    }

    #[test]
    fn an_invalid_keymap_is_reported_with_its_line() {
        for (text, line, message) in [
            ("\npsuh = [\"c\"]", 2, "unknown action \"psuh\""),
            ("push = [\n\"hyper-c\"]", 2, "unknown key \"hyper-c\""),
            ("push = 3", 1, "must be a list of keys"),
            (
                "push = [\"c\"]\n\ncreate = [\"c\"]",
                3,
                "collides with c of",
            ),
            ("push = [\"x\"]\ncreate = [\"x x\"]", 2, "collides with"),
            ("push = [\"1-9\"]", 1, "1-9 must be the last key of host"),
            ("host = [\"h\"]", 1, "1-9 must be the last key of host"),
            ("push = [", 1, "push"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("/home/me/keymap.toml"), "{error}");
            assert!(error.contains(&format!("line {line}")), "{text:?}: {error}");
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }
}
