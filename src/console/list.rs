//! What a list remembers: selection, marks and filter, all by identity and never by row number, so
//! that they survive any refresh.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use crate::engine::{JobId, JobView};
use crate::model::{Object, Sandbox, SandboxId, Snapshot, SnapshotName};

/// Something a list shows.
pub trait Row {
    /// What tells it from all others.
    type Key: Clone + Ord + Hash;
    /// Its identity.
    fn key(&self) -> &Self::Key;
    /// What a filter looks at.
    fn text(&self) -> &str;
    /// What it looks at beside that.
    fn beside(&self) -> &str {
        ""
    }
}

impl Row for Sandbox {
    type Key = SandboxId;
    fn key(&self) -> &SandboxId {
        &self.id
    }
    fn text(&self) -> &str {
        self.id.as_str()
    }
}

impl Row for Snapshot {
    type Key = SnapshotName;
    fn key(&self) -> &SnapshotName {
        &self.name
    }
    fn text(&self) -> &str {
        self.name.as_str()
    }
}

impl Row for Object {
    type Key = SnapshotName;
    fn key(&self) -> &SnapshotName {
        &self.name
    }
    fn text(&self) -> &str {
        self.name.as_str()
    }
}

impl Row for SnapshotName {
    type Key = Self;
    fn key(&self) -> &Self {
        self
    }
    fn text(&self) -> &str {
        self.as_str()
    }
}

impl Row for Arc<JobView> {
    type Key = JobId;
    fn key(&self) -> &JobId {
        &self.id
    }
    fn text(&self) -> &str {
        self.operation.subject()
    }
}

/// What can be done to a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Move the selection by so many rows.
    By(isize),
    /// Select the first row.
    First,
    /// Select the last row.
    Last,
    /// Select this row, where there is one.
    Row(usize),
    /// Mark the selected row or unmark it, and go on to the next.
    Mark,
    /// Drop all marks.
    Unmark,
    /// Show only what contains this text (letter case does not count); empty: everything.
    Filter(String),
}

/// Which items are rows: all of them, or the ones a filter left.
#[derive(Debug)]
enum Rows {
    All(usize),
    Some(Vec<usize>),
}

/// A list's state, beside the items themselves, which belong to the view.
#[derive(Debug)]
pub struct List<K> {
    selected: Option<K>,
    row: usize,
    rows: Rows,
    marks: HashSet<K>,
    filter: String,
    /// First row on screen when it was last drawn.
    pub offset: usize,
}

impl<K> Default for List<K> {
    fn default() -> Self {
        Self {
            selected: None,
            row: 0,
            rows: Rows::All(0),
            marks: HashSet::new(),
            filter: String::new(),
            offset: 0,
        }
    }
}

impl<K: Clone + Ord + Hash> List<K> {
    /// Takes up new items. Where the selected one is gone its nearest neighbour is selected.
    pub fn sync<R: Row<Key = K>>(&mut self, items: &[R]) {
        if !self.marks.is_empty() {
            let marks = std::mem::take(&mut self.marks);
            let kept = items.iter().map(Row::key).filter(|key| marks.contains(key));
            self.marks = kept.cloned().collect();
        }
        self.rows = if self.filter.is_empty() {
            Rows::All(items.len())
        } else {
            let wanted = self.filter.to_ascii_lowercase();
            let holds = |text: &str| text.to_ascii_lowercase().contains(&wanted);
            let matches = |item: &R| holds(item.text()) || holds(item.beside());
            Rows::Some((0..items.len()).filter(|&i| matches(&items[i])).collect())
        };
        if self.len() == 0 {
            self.row = 0;
            return;
        }
        let row_of = |test: &dyn Fn(&K) -> bool| {
            (0..self.len()).find(|&row| self.key_at(items, row).is_some_and(test))
        };
        let row = match &self.selected {
            None => Some(self.row),
            Some(old) => row_of(&|key| key == old).or_else(|| row_of(&|key| key > old)),
        };
        self.select(items, row.unwrap_or(usize::MAX));
    }

    /// Does `change`.
    pub fn apply<R: Row<Key = K>>(&mut self, items: &[R], change: Change) {
        match change {
            Change::By(rows) => self.select(items, self.row.saturating_add_signed(rows)),
            Change::First => self.select(items, 0),
            Change::Last => self.select(items, usize::MAX),
            Change::Row(row) if row < self.len() => self.select(items, row),
            Change::Row(_) => {}
            Change::Mark => {
                if let Some(key) = self.key_at(items, self.row).cloned() {
                    if !self.marks.remove(&key) {
                        self.marks.insert(key);
                    }
                    self.select(items, self.row + 1);
                }
            }
            Change::Unmark => self.marks.clear(),
            Change::Filter(text) => {
                self.filter = text;
                self.sync(items);
            }
        }
    }

    /// Selects the item of that identity, where it is a row.
    pub fn go_to<R: Row<Key = K>>(&mut self, items: &[R], key: &K) {
        if let Some(row) = (0..self.len()).find(|&row| self.key_at(items, row) == Some(key)) {
            self.select(items, row);
        }
    }

    fn select<R: Row<Key = K>>(&mut self, items: &[R], row: usize) {
        self.row = row.min(self.len().saturating_sub(1));
        if let Some(key) = self.key_at(items, self.row) {
            self.selected = Some(key.clone());
        }
    }

    fn key_at<'a, R: Row<Key = K>>(&self, items: &'a [R], row: usize) -> Option<&'a K> {
        Some(items.get(self.item(row)?)?.key())
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::All(count) => *count,
            Rows::Some(rows) => rows.len(),
        }
    }

    /// Which item is this row?
    pub fn item(&self, row: usize) -> Option<usize> {
        match &self.rows {
            Rows::All(count) => (row < *count).then_some(row),
            Rows::Some(rows) => rows.get(row).copied(),
        }
    }

    /// The selected row's number.
    pub fn row(&self) -> usize {
        self.row
    }

    /// The selected item.
    pub fn current<'a, R: Row<Key = K>>(&self, items: &'a [R]) -> Option<&'a R> {
        items.get(self.item(self.row)?)
    }

    /// Is it marked?
    pub fn is_marked(&self, key: &K) -> bool {
        self.marks.contains(key)
    }

    /// How many are marked.
    pub fn marked(&self) -> usize {
        self.marks.len()
    }

    /// What an operation is about: all that is marked, else the selected one.
    pub fn chosen<R: Row<Key = K>>(&self, items: &[R]) -> Vec<K> {
        if self.marks.is_empty() {
            return self
                .current(items)
                .map(|item| item.key().clone())
                .into_iter()
                .collect();
        }
        let marked = items
            .iter()
            .map(Row::key)
            .filter(|key| self.marks.contains(key));
        marked.cloned().collect()
    }

    /// The filter's text.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The rows to draw in `height` lines: the selected one is among them, and as little as possible moves.
    pub fn window(&self, height: usize) -> Range<usize> {
        let top = self
            .offset
            .min(self.row)
            .min(self.len().saturating_sub(height));
        let start = top.max((self.row + 1).saturating_sub(height));
        start..(start + height).min(self.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn objects(names: &[&str]) -> Vec<Object> {
        names
            .iter()
            .map(|name| Object {
                name: name.parse().unwrap(),
                key: format!("snapshots/{name}.qcow2"),
                size_bytes: 1,
                modified: None,
                etag: None,
            })
            .collect()
    }

    fn selected(list: &List<SnapshotName>, items: &[Object]) -> Option<String> {
        list.current(items).map(|object| object.name.to_string())
    }

    #[test]
    fn the_selection_stays_on_the_same_thing_and_goes_to_its_neighbour_when_that_is_gone() {
        let mut list = List::default();
        let before = objects(&["b", "d", "f"]);
        list.sync(&before);
        list.apply(&before, Change::By(1));
        let more = objects(&["a", "b", "c", "d", "f"]);
        list.sync(&more);
        assert_eq!(selected(&list, &more).as_deref(), Some("d"));
        let fewer = objects(&["b", "f"]);
        list.sync(&fewer);
        assert_eq!(selected(&list, &fewer).as_deref(), Some("f"));
        let last = objects(&["a", "b"]);
        list.sync(&last);
        assert_eq!(selected(&list, &last).as_deref(), Some("b"));
        list.sync(&objects(&[]));
        assert_eq!(selected(&list, &[]), None);
        list.sync(&before);
        assert_eq!(selected(&list, &before).as_deref(), Some("b"));
    }

    #[test]
    fn marks_are_kept_by_name_and_end_with_their_object() {
        let mut list = List::default();
        let items = objects(&["a", "b", "c"]);
        list.sync(&items);
        list.apply(&items, Change::Mark);
        list.apply(&items, Change::Mark);
        let chosen: Vec<String> = list
            .chosen(&items)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(chosen, ["a", "b"]);
        let later = objects(&["0", "b", "c"]);
        list.sync(&later);
        let chosen: Vec<String> = list
            .chosen(&later)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(chosen, ["b"]);
    }

    #[test]
    fn a_filter_hides_and_gives_back() {
        let mut list = List::default();
        let items = objects(&["alpha", "beta", "Alphabet"]);
        list.sync(&items);
        list.apply(&items, Change::By(1));
        list.apply(&items, Change::Filter("nothing".to_owned()));
        assert_eq!(selected(&list, &items), None);
        list.apply(&items, Change::Filter(String::new()));
        assert_eq!(selected(&list, &items).as_deref(), Some("beta"));
        list.apply(&items, Change::Filter("ALPHA".to_owned()));
        assert_eq!(list.len(), 2);
    }

    proptest! {
        #[test]
        fn a_window_holds_the_selected_row_and_no_more_than_fits(
            rows in 0usize..60, row in 0usize..80, offset in 0usize..80, height in 0usize..30,
        ) {
            let names: Vec<String> = (0..rows).map(|i| format!("o{i:03}")).collect();
            let items = objects(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let mut list = List::default();
            list.sync(&items);
            list.apply(&items, Change::Row(row));
            list.offset = offset;
            let window = list.window(height);
            prop_assert!(window.len() <= height);
            prop_assert!(window.end <= rows);
            prop_assert_eq!(window.len(), height.min(rows));
            if height > 0 && rows > 0 {
                prop_assert!(window.contains(&list.row()));
            }
        }
    }
}
