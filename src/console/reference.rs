//! The table of actions for those outside who write it down: the README, the man page, `config/keymap.toml`.

use super::table::ACTIONS;

pub use super::keymap::file as keymap_file;

/// An action with its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its keys, the one to show first.
    pub keys: &'static [&'static str],
    /// What it is called in `keymap.toml`.
    pub id: String,
    /// One sentence.
    pub sentence: &'static str,
    /// Where it applies; `None`: everywhere.
    pub places: Option<String>,
    /// Is it one of those that the footer shows?
    pub is_main: bool,
}

/// All actions, in the order of the help.
pub fn keys() -> Vec<Reference> {
    let row = |entry: &super::actions::Entry| Reference {
        keys: entry.keys,
        id: entry.id(),
        sentence: entry.sentence,
        places: (!entry.is_everywhere()).then(|| entry.places()),
        is_main: entry.in_footer,
    };
    ACTIONS.iter().map(row).collect()
}
