//! Named filters.

use serde::{Deserialize, Serialize};

/// Maximum number of bookmarks.
const MAX_BOOKMARKS: usize = 200;

/// A filter with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bookmark {
    pub name: String,
    pub filter: String,
}

/// The bookmarks, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Bookmarks(Vec<Bookmark>);

impl Bookmarks {
    pub(crate) fn all(&self) -> &[Bookmark] {
        &self.0
    }

    /// Adds a bookmark; replaces the one of the same name.
    pub(crate) fn add(&mut self, name: &str, filter: &str) {
        self.0.retain(|bookmark| bookmark.name != name);
        self.0.push(Bookmark {
            name: name.to_owned(),
            filter: filter.to_owned(),
        });
        self.0.sort_by(|one, other| one.name.cmp(&other.name));
        self.0.truncate(MAX_BOOKMARKS);
    }

    pub(crate) fn remove(&mut self, row: usize) {
        if row < self.0.len() {
            self.0.remove(row);
        }
    }
}
