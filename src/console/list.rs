//! What a list remembers: selection, marks, sort and filter, all by identity and never by row number, so
//! that they survive any refresh.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Range;

use jiff::Timestamp;

use super::columns::{Column, Row};
use super::query::{Match, Query};

/// What can be done to a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Move the selection by so many rows.
    MoveBy(isize),
    /// Select the first row.
    First,
    /// Select the last row.
    Last,
    /// Select this row, where there is one.
    Row(usize),
    /// Mark the selected row or unmark it, and go on to the next.
    Mark,
    /// Mark all rows from the one that was marked or unmarked last to the selected one.
    MarkRange,
    /// Mark all rows.
    MarkAll,
    /// Mark the rows that are not marked, and unmark the others.
    Invert,
    /// Drop all marks.
    Unmark,
    /// Show only what this lets through (see [`Query`]); empty: everything.
    Filter(String),
    /// Put the rows in this order.
    Sort(Sort),
}

/// An order of rows. What is equal in it stands by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sort {
    /// By what.
    pub column: Column,
    /// From the largest to the smallest.
    pub descending: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self::by(Column::Name)
    }
}

impl Sort {
    /// By `field`, as one expects it: texts rising, numbers falling.
    pub(crate) fn by(field: Column) -> Self {
        Self {
            column: field,
            descending: field.is_number(),
        }
    }
}

/// Which items are rows: all of them in their own order, or these in this one.
#[derive(Debug)]
enum Rows {
    All(usize),
    Some(Vec<u32>),
}

impl Rows {
    /// The row of an item.
    fn row_of(&self, item: usize) -> Option<usize> {
        match self {
            Self::All(count) => (item < *count).then_some(item),
            Self::Some(rows) => rows.iter().position(|at| *at as usize == item),
        }
    }
}

/// A list's state, beside the items themselves, which belong to the view.
#[derive(Debug)]
pub(crate) struct List<K> {
    selected: Option<K>,
    row: usize,
    rows: Rows,
    marks: HashSet<K>,
    /// What was marked or unmarked last.
    anchor: Option<K>,
    filter: String,
    query: Query,
    filter_error: Option<String>,
    sort: Sort,
    /// All items in the order of `sort`; empty where that is their own.
    order: Vec<u32>,
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
            anchor: None,
            filter: String::new(),
            query: Query::default(),
            filter_error: None,
            sort: Sort::default(),
            order: Vec::new(),
            offset: 0,
        }
    }
}

impl<K: Clone + Ord + Hash> List<K> {
    /// Takes up new items, which stand by name. Where the selected one is gone its nearest neighbour is selected.
    pub(crate) fn update<R: Row<Key = K>>(&mut self, items: &[R]) {
        if !self.marks.is_empty() {
            let marks = std::mem::take(&mut self.marks);
            let kept = items.iter().map(Row::key).filter(|key| marks.contains(key));
            self.marks = kept.cloned().collect();
        }
        self.order(items);
        self.apply_filter(items);
    }

    /// Takes up items of which more are to come: what is selected or marked may be among those.
    pub(crate) fn update_partial<R: Row<Key = K>>(&mut self, items: &[R]) {
        let selected = self.selected.clone();
        self.order(items);
        self.apply_filter(items);
        self.selected = selected.or(self.selected.take());
    }

    /// Puts all items in the order of `sort`.
    fn order<R: Row<Key = K>>(&mut self, items: &[R]) {
        let Sort {
            column: field,
            descending: falling,
        } = self.sort;
        self.order.clear();
        if self.sort == Sort::default() {
            return;
        }
        self.order.extend((0..items.len()).map(|at| at as u32));
        let value = |at: &u32| items[*at as usize].value(field);
        match (field, falling) {
            (Column::Name, _) => self.order.reverse(),
            // Both are stable: equals stay by name.
            (_, false) => self.order.sort_by_key(value),
            (_, true) => self
                .order
                .sort_by(|one, other| value(other).cmp(&value(one))),
        }
    }

    /// Finds the rows that the filter lets through. Under the order by name those that match as typed stand before those
    /// with scattered letters.
    fn apply_filter<R: Row<Key = K>>(&mut self, items: &[R]) {
        let is_plain = self.order.is_empty();
        self.rows = match (self.query.is_empty(), is_plain) {
            (true, true) => Rows::All(items.len()),
            (true, false) => Rows::Some(self.order.clone()),
            (false, _) => {
                let (mut whole, mut scattered) = (Vec::new(), Vec::new());
                let mut look = |at: u32| match self.query.find(&items[at as usize]) {
                    Some(Match::Fuzzy) if is_plain => scattered.push(at),
                    Some(_) => whole.push(at),
                    None => {}
                };
                match is_plain {
                    true => (0..items.len()).for_each(|at| look(at as u32)),
                    false => self.order.iter().for_each(|at| look(*at)),
                }
                whole.append(&mut scattered);
                Rows::Some(whole)
            }
        };
        if self.len() == 0 {
            self.row = 0;
            return;
        }
        let row = match &self.selected {
            None => Some(self.row),
            Some(old) => {
                let next = || match is_plain {
                    true => (0..self.len())
                        .find(|&row| self.key_at(items, row).is_some_and(|key| key > old)),
                    // Its neighbours are what stands there now.
                    false => Some(self.row),
                };
                self.row_of(items, old).or_else(next)
            }
        };
        self.select(items, row.unwrap_or(usize::MAX));
    }

    /// Does `change`.
    pub(crate) fn apply<R: Row<Key = K>>(&mut self, items: &[R], change: Change) {
        match change {
            Change::MoveBy(rows) => self.select(items, self.row.saturating_add_signed(rows)),
            Change::First => self.select(items, 0),
            Change::Last => self.select(items, usize::MAX),
            Change::Row(row) if row < self.len() => self.select(items, row),
            Change::Row(_) => {}
            Change::Mark => {
                if let Some(key) = self.key_at(items, self.row).cloned() {
                    self.toggle(&key);
                    self.anchor = Some(key);
                    self.select(items, self.row + 1);
                }
            }
            Change::MarkRange => {
                let anchor = self.anchor.as_ref();
                let from = anchor
                    .and_then(|key| self.row_of(items, key))
                    .unwrap_or(self.row);
                for row in from.min(self.row)..=from.max(self.row) {
                    self.marks.extend(self.key_at(items, row).cloned());
                }
                self.anchor = self.key_at(items, self.row).cloned();
            }
            Change::MarkAll => {
                let keys = (0..self.len()).filter_map(|row| self.key_at(items, row).cloned());
                let keys: Vec<K> = keys.collect();
                self.marks.extend(keys);
            }
            Change::Invert => {
                for row in 0..self.len() {
                    if let Some(key) = self.key_at(items, row).cloned() {
                        self.toggle(&key);
                    }
                }
            }
            Change::Unmark => self.marks.clear(),
            Change::Filter(text) => {
                (self.query, self.filter_error) = Query::parse(&text, Timestamp::now());
                self.filter = text;
                self.apply_filter(items);
            }
            Change::Sort(sort) => {
                self.sort = sort;
                self.order(items);
                self.apply_filter(items);
            }
        }
    }

    fn toggle(&mut self, key: &K) {
        if !self.marks.remove(key) {
            self.marks.insert(key.clone());
        }
    }

    /// The row of that identity.
    pub(crate) fn row_of<R: Row<Key = K>>(&self, items: &[R], key: &K) -> Option<usize> {
        // Most lists stand by name, and there it is looked up: each item is elsewhere in memory, and a keystroke has no time
        // to look at a hundred thousand of them.
        match items.binary_search_by(|item| item.key().cmp(key)) {
            Ok(at) => self.rows.row_of(at),
            Err(_) => (0..self.len()).find(|&row| self.key_at(items, row) == Some(key)),
        }
    }

    /// An empty list with what an earlier run left: what was selected, what was marked, and the filter.
    pub(crate) fn restore(&mut self, selected: Option<K>, marks: Vec<K>, filter: String) {
        self.selected = selected;
        self.marks = marks.into_iter().collect();
        (self.query, self.filter_error) = Query::parse(&filter, Timestamp::now());
        self.filter = filter;
    }

    /// What is selected, whether it is there or not.
    pub(crate) fn selected(&self) -> Option<&K> {
        self.selected.as_ref()
    }

    /// What is marked, in no order.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &K> {
        self.marks.iter()
    }

    /// An empty list with this order.
    pub(crate) fn with_sort(sort: Sort) -> Self {
        Self {
            sort,
            ..Self::default()
        }
    }

    /// How the rows are ordered.
    pub(crate) fn sort(&self) -> Sort {
        self.sort
    }

    /// What of the filter cannot be meant.
    pub(crate) fn filter_error(&self) -> Option<&str> {
        self.filter_error.as_deref()
    }

    /// Selects the item of that identity, where it is a row.
    pub(crate) fn select_key<R: Row<Key = K>>(&mut self, items: &[R], key: &K) {
        if let Some(row) = self.row_of(items, key) {
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
    pub(crate) fn len(&self) -> usize {
        match &self.rows {
            Rows::All(count) => *count,
            Rows::Some(rows) => rows.len(),
        }
    }

    /// Which item is this row?
    pub(crate) fn item(&self, row: usize) -> Option<usize> {
        match &self.rows {
            Rows::All(count) => (row < *count).then_some(row),
            Rows::Some(rows) => rows.get(row).map(|at| *at as usize),
        }
    }

    /// The selected row's number.
    pub(crate) fn row(&self) -> usize {
        self.row
    }

    /// The selected item.
    pub(crate) fn current<'a, R: Row<Key = K>>(&self, items: &'a [R]) -> Option<&'a R> {
        items.get(self.item(self.row)?)
    }

    /// Is it marked?
    pub(crate) fn is_marked(&self, key: &K) -> bool {
        self.marks.contains(key)
    }

    /// How many are marked.
    pub(crate) fn marked_count(&self) -> usize {
        self.marks.len()
    }

    /// What an operation is about: all that is marked, else the selected one.
    pub(crate) fn chosen_keys<R: Row<Key = K>>(&self, items: &[R]) -> Vec<K> {
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
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    /// The rows to draw in `height` lines: the selected one is among them, and as little as possible moves.
    pub(crate) fn window(&self, height: usize) -> Range<usize> {
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
    use snapdeck_model::{Object, SnapshotName};

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
        list.update(&before);
        list.apply(&before, Change::MoveBy(1));
        let more = objects(&["a", "b", "c", "d", "f"]);
        list.update(&more);
        assert_eq!(selected(&list, &more).as_deref(), Some("d"));
        let fewer = objects(&["b", "f"]);
        list.update(&fewer);
        assert_eq!(selected(&list, &fewer).as_deref(), Some("f"));
        let last = objects(&["a", "b"]);
        list.update(&last);
        assert_eq!(selected(&list, &last).as_deref(), Some("b"));
        list.update(&objects(&[]));
        assert_eq!(selected(&list, &[]), None);
        list.update(&before);
        assert_eq!(selected(&list, &before).as_deref(), Some("b"));
    }

    #[test]
    fn marks_are_kept_by_name_and_end_with_their_object() {
        let mut list = List::default();
        let items = objects(&["a", "b", "c"]);
        list.update(&items);
        list.apply(&items, Change::Mark);
        list.apply(&items, Change::Mark);
        let chosen: Vec<String> = list
            .chosen_keys(&items)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(chosen, ["a", "b"]);
        let later = objects(&["0", "b", "c"]);
        list.update(&later);
        let chosen: Vec<String> = list
            .chosen_keys(&later)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(chosen, ["b"]);
    }

    #[test]
    fn a_filter_hides_and_gives_back() {
        let mut list = List::default();
        let items = objects(&["alpha", "beta", "Alphabet"]);
        list.update(&items);
        list.apply(&items, Change::MoveBy(1));
        list.apply(&items, Change::Filter("nothing".to_owned()));
        assert_eq!(selected(&list, &items), None);
        list.apply(&items, Change::Filter(String::new()));
        assert_eq!(selected(&list, &items).as_deref(), Some("beta"));
        list.apply(&items, Change::Filter("ALPHA".to_owned()));
        assert_eq!(list.len(), 2);
    }

    fn names(list: &List<SnapshotName>, items: &[Object]) -> Vec<String> {
        let rows = (0..list.len()).filter_map(|row| items.get(list.item(row)?));
        rows.map(|object| object.name.to_string()).collect()
    }

    fn chosen(list: &List<SnapshotName>, items: &[Object]) -> Vec<String> {
        list.chosen_keys(items)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_sorted_list_keeps_its_selection_and_its_order_under_a_filter() {
        let mut list = List::default();
        let mut items = objects(&["a", "ab", "b", "ba"]);
        for (item, size) in items.iter_mut().zip([1, 3, 3, 2]) {
            item.size_bytes = size;
        }
        list.update(&items);
        list.apply(&items, Change::MoveBy(1));
        list.apply(&items, Change::Sort(Sort::by(Column::Size)));
        assert_eq!(names(&list, &items), ["ab", "b", "ba", "a"]);
        assert_eq!(selected(&list, &items).as_deref(), Some("ab"));
        list.apply(&items, Change::Filter("a".to_owned()));
        assert_eq!(names(&list, &items), ["ab", "ba", "a"]);
        items.remove(1);
        list.update(&items);
        assert_eq!(names(&list, &items), ["ba", "a"]);
        assert_eq!(selected(&list, &items).as_deref(), Some("ba"));
        let falling = Sort {
            column: Column::Name,
            descending: true,
        };
        list.apply(&items, Change::Sort(falling));
        assert_eq!(names(&list, &items), ["ba", "a"]);
        list.apply(&items, Change::Filter(String::new()));
        assert_eq!(names(&list, &items), ["ba", "b", "a"]);
    }

    #[test]
    fn what_matches_as_typed_stands_before_scattered_letters() {
        let mut list = List::default();
        let items = objects(&["a-xb", "xab", "xb"]);
        list.update(&items);
        list.apply(&items, Change::Filter("ab".to_owned()));
        assert_eq!(names(&list, &items), ["xab", "a-xb"]);
    }

    #[test]
    fn ranges_all_and_the_others_are_marked_of_what_is_shown() {
        let mut list = List::default();
        let items = objects(&["a", "b", "c", "d", "e"]);
        list.update(&items);
        list.apply(&items, Change::MoveBy(1));
        list.apply(&items, Change::Mark);
        list.apply(&items, Change::Row(3));
        list.apply(&items, Change::MarkRange);
        assert_eq!(chosen(&list, &items), ["b", "c", "d"]);
        list.apply(&items, Change::Invert);
        assert_eq!(chosen(&list, &items), ["a", "e"]);
        list.apply(&items, Change::Filter("!a !b".to_owned()));
        list.apply(&items, Change::MarkAll);
        assert_eq!(chosen(&list, &items), ["a", "c", "d", "e"]);
        list.apply(&items, Change::Invert);
        assert_eq!(chosen(&list, &items), ["a"]);
    }

    proptest! {
        #[test]
        fn a_window_holds_the_selected_row_and_no_more_than_fits(
            rows in 0usize..60, row in 0usize..80, offset in 0usize..80, height in 0usize..30,
        ) {
            let names: Vec<String> = (0..rows).map(|i| format!("o{i:03}")).collect();
            let items = objects(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let mut list = List::default();
            list.update(&items);
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
