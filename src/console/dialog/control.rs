//! Controls: the values of the fields of a form.

use super::TextInput;

/// A field's control and its value.
#[derive(Debug)]
pub(super) enum Control {
    Text(TextInput),
    /// A text of digits.
    Number(TextInput),
    /// A text that several things match, and the chosen match.
    Search {
        input: TextInput,
        at: usize,
        count: usize,
    },
    CheckBox(bool),
    /// One of several options.
    Choice {
        options: Vec<String>,
        at: usize,
    },
    /// A text that must be typed to confirm.
    Phrase {
        phrase: String,
        input: TextInput,
    },
}

impl Control {
    /// Returns a text field with a proposed text.
    pub(super) fn text(proposed: &str) -> Self {
        Self::Text(TextInput::proposed(proposed))
    }

    /// Returns a field for a number, with a proposed one.
    pub(super) fn number(proposed: &str) -> Self {
        Self::Number(TextInput::proposed(proposed))
    }

    pub(super) fn search(proposed: &str) -> Self {
        Self::Search {
            input: TextInput::proposed(proposed),
            at: 0,
            count: 0,
        }
    }

    pub(super) fn choice(options: Vec<String>, at: usize) -> Self {
        Self::Choice { options, at }
    }

    pub(super) fn phrase() -> Self {
        Self::Phrase {
            phrase: String::new(),
            input: TextInput::default(),
        }
    }

    pub(super) fn input(&self) -> Option<&TextInput> {
        match self {
            Self::Text(input)
            | Self::Number(input)
            | Self::Search { input, .. }
            | Self::Phrase { input, .. } => Some(input),
            Self::CheckBox(_) | Self::Choice { .. } => None,
        }
    }

    pub(super) fn input_mut(&mut self) -> Option<&mut TextInput> {
        match self {
            Self::Text(input)
            | Self::Number(input)
            | Self::Search { input, .. }
            | Self::Phrase { input, .. } => Some(input),
            Self::CheckBox(_) | Self::Choice { .. } => None,
        }
    }

    /// Toggles a check box, or chooses the option `by` positions further.
    pub(super) fn step(&mut self, by: isize) -> bool {
        match self {
            Self::CheckBox(is_checked) => *is_checked = !*is_checked,
            Self::Choice { options, at } => *at = rotate(*at, by, options.len()),
            Self::Search { at, count, .. } => *at = rotate(*at, by, *count),
            _ => return false,
        }
        true
    }
}

/// Returns the position `by` further than `at`, of `count` in a circle.
pub(super) fn rotate(at: usize, by: isize, count: usize) -> usize {
    match isize::try_from(count) {
        Ok(count) if count > 0 => (at as isize + by).rem_euclid(count) as usize,
        _ => 0,
    }
}
