//! The table of actions for generated files: `docs/keys.md`, the man page, `config/keymap.toml`.

use super::table::ACTIONS;

pub use super::keymap::file as keymap_file;

/// An action with its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Default keys.
    pub keys: &'static [&'static str],
    /// Id in `keymap.toml`.
    pub id: String,
    /// One imperative sentence.
    pub sentence: &'static str,
    /// Names of the panes in which it works; `None`: all.
    pub places: Option<String>,
    /// The footer shows it.
    pub is_main: bool,
}

/// Returns all actions, in the order of the help.
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
