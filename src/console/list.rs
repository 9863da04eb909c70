//! The state of a list: selection, marks, sort order and filter. Items are identified by key, not by row number, so that
//! the state survives a refresh.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Range;

use jiff::Timestamp;

use super::columns::{Column, Row};
use super::facts::Facts;
use super::families::{Family, FamilyRows};
use super::query::{Match, Query};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    MoveBy(isize),
    First,
    Last,
    /// Select the row of this number, if it exists.
    Row(usize),
    /// Toggle the mark of the selected row, and select the next one.
    Mark,
    /// Mark the rows from the last toggled one to the selected one.
    MarkRange,
    MarkAll,
    Invert,
    Unmark,
    /// Show the rows that match (see [`Query`]); all rows if empty.
    Filter(String),
    Sort(Sort),
    /// Group the rows by family, all folded, or no longer.
    Group,
    /// Fold or unfold the family of the selected row.
    Fold,
}

/// A sort order. Equal rows are sorted by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sort {
    pub column: Column,
    pub descending: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self::by(Column::Name)
    }
}

impl Sort {
    /// Returns the usual order by `column`: texts ascending, numbers descending.
    pub(crate) fn by(column: Column) -> Self {
        Self {
            column,
            descending: column.is_number(),
        }
    }
}

/// The items shown: all in their own order, or these in this order.
#[derive(Debug)]
enum Rows {
    All(usize),
    Some(Vec<u32>),
    Families(FamilyRows),
}

impl Rows {
    fn row_of(&self, item: usize) -> Option<usize> {
        match self {
            Self::All(count) => (item < *count).then_some(item),
            Self::Some(rows) => rows.iter().position(|row| *row as usize == item),
            Self::Families(rows) => rows.row_of(item as u32),
        }
    }

    /// Groups the rows by family.
    fn group<R: Row>(&mut self, items: &[R], is_folded: impl Fn(&str) -> bool) {
        let rows = match std::mem::replace(self, Self::All(0)) {
            Self::All(count) => FamilyRows::new(items, 0..count as u32, is_folded),
            Self::Some(rows) => FamilyRows::new(items, rows, is_folded),
            Self::Families(rows) => rows,
        };
        *self = Self::Families(rows);
    }
}

/// The numbers of a list's title.
#[derive(Debug, Default)]
pub(crate) struct Summary<'a> {
    pub total: usize,
    /// Items that match the filter.
    pub visible: usize,
    /// Those in rows, and rows of families.
    pub rows: usize,
    pub marked: usize,
    pub filter: &'a str,
    pub filter_error: Option<&'a str>,
    pub sort: Sort,
}

/// A list's state. The items themselves are in the view.
#[derive(Debug)]
pub(crate) struct List<K> {
    selected: Option<K>,
    row: usize,
    rows: Rows,
    marks: HashSet<K>,
    /// The item whose mark was toggled last.
    anchor: Option<K>,
    filter: String,
    query: Query,
    filter_error: Option<String>,
    sort: Sort,
    /// All items in the order of `sort`; empty if sorted by name.
    order: Vec<u32>,
    is_grouped: bool,
    /// The families that are not folded, by name.
    unfolded: HashSet<String>,
    /// Whether the row of the selected item's family is selected, not the item.
    is_family_selected: bool,
    /// First visible row of the last frame.
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
            is_grouped: false,
            unfolded: HashSet::new(),
            is_family_selected: false,
            offset: 0,
        }
    }
}

impl<K: Clone + Ord + Hash> List<K> {
    /// Updates the state for new items, which are sorted by name. If the selected item no longer exists its neighbour is
    /// selected.
    pub(crate) fn update<R: Row<Key = K>>(&mut self, items: &[R]) {
        self.update_with(items, &());
    }

    /// As [`Self::update`], for a filter that may need facts.
    pub(crate) fn update_with<R: Row<Key = K>>(&mut self, items: &[R], facts: &dyn Facts<R>) {
        if !self.marks.is_empty() {
            let marks = std::mem::take(&mut self.marks);
            let kept = items.iter().map(Row::key).filter(|key| marks.contains(key));
            self.marks = kept.cloned().collect();
        }
        self.order(items);
        self.apply_filter(items, facts);
    }

    /// Updates the state for an incomplete list: keeps selection and marks of items that may follow.
    pub(crate) fn update_partial<R: Row<Key = K>>(&mut self, items: &[R], facts: &dyn Facts<R>) {
        let selected = self.selected.clone();
        self.order(items);
        self.apply_filter(items, facts);
        self.selected = selected.or(self.selected.take());
    }

    fn order<R: Row<Key = K>>(&mut self, items: &[R]) {
        let Sort { column, descending } = self.sort;
        self.order.clear();
        if self.sort == Sort::default() {
            return;
        }
        self.order.extend((0..items.len()).map(|item| item as u32));
        let value = |item: &u32| items[*item as usize].value(column);
        match (column, descending) {
            (Column::Name, _) => self.order.reverse(),
            // Both sorts are stable: equal items stay sorted by name.
            (_, false) => self.order.sort_by_key(value),
            (_, true) => self
                .order
                .sort_by(|one, other| value(other).cmp(&value(one))),
        }
    }

    /// Applies the filter and restores the selection. If sorted by name, exact matches come before fuzzy ones.
    pub(crate) fn apply_filter<R: Row<Key = K>>(&mut self, items: &[R], facts: &dyn Facts<R>) {
        let by_name = self.order.is_empty();
        self.rows = match (self.query.is_empty(), by_name) {
            (true, true) => Rows::All(items.len()),
            (true, false) => Rows::Some(self.order.clone()),
            (false, _) => {
                let (mut rows, mut fuzzy) = (Vec::new(), Vec::new());
                let mut test = |item: u32| match self.query.find(&items[item as usize], facts) {
                    Some(Match::Fuzzy) if by_name => fuzzy.push(item),
                    Some(_) => rows.push(item),
                    None => {}
                };
                match by_name {
                    true => (0..items.len()).for_each(|item| test(item as u32)),
                    false => self.order.iter().for_each(|item| test(*item)),
                }
                rows.append(&mut fuzzy);
                Rows::Some(rows)
            }
        };
        if self.is_grouped {
            // What a filter finds is shown.
            let is_filtered = !self.query.is_empty();
            let is_folded = |family: &str| !is_filtered && !self.unfolded.contains(family);
            self.rows.group(items, is_folded);
        }
        if self.len() == 0 {
            self.row = 0;
            return;
        }
        let row = match &self.selected {
            None => Some(self.row),
            Some(old) => {
                let is_behind = |key: &K| key > old;
                let neighbour = || match by_name {
                    true => (0..self.len())
                        .find(|&row| self.keys_in(items, row).next().is_some_and(is_behind)),
                    false => Some(self.row),
                };
                self.selected_row(items, old).or_else(neighbour)
            }
        };
        self.select(items, row.unwrap_or(usize::MAX));
    }

    pub(crate) fn apply<R: Row<Key = K>>(&mut self, items: &[R], change: Change) {
        self.apply_with(items, change, &());
    }

    /// As [`Self::apply`], for a filter that may need facts.
    pub(crate) fn apply_with<R: Row<Key = K>>(
        &mut self,
        items: &[R],
        change: Change,
        facts: &dyn Facts<R>,
    ) {
        match change {
            Change::MoveBy(rows) => self.select(items, self.row.saturating_add_signed(rows)),
            Change::First => self.select(items, 0),
            Change::Last => self.select(items, usize::MAX),
            Change::Row(row) if row < self.len() => self.select(items, row),
            Change::Row(_) => {}
            Change::Mark => {
                let keys = self.keys_to_mark(items, self.row..self.row + 1);
                if let Some(key) = keys.first().cloned() {
                    self.toggle_all(keys);
                    self.anchor = Some(key);
                    self.select(items, self.row + 1);
                }
            }
            Change::MarkRange => {
                let anchor = self.anchor.as_ref();
                let from = anchor
                    .and_then(|key| self.row_of(items, key))
                    .unwrap_or(self.row);
                let range = from.min(self.row)..from.max(self.row) + 1;
                let keys = self.keys_to_mark(items, range);
                self.marks.extend(keys);
                let anchor = self.keys_in(items, self.row).next().cloned();
                self.anchor = anchor;
            }
            Change::MarkAll => {
                let keys = self.keys_to_mark(items, 0..self.len());
                self.marks.extend(keys);
            }
            Change::Invert => {
                for key in self.keys_to_mark(items, 0..self.len()) {
                    self.toggle_all(vec![key]);
                }
            }
            Change::Unmark => self.marks.clear(),
            Change::Filter(text) => {
                (self.query, self.filter_error) = Query::parse(&text, Timestamp::now());
                self.filter = text;
                self.apply_filter(items, facts);
            }
            Change::Sort(sort) => {
                self.sort = sort;
                self.order(items);
                self.apply_filter(items, facts);
            }
            Change::Group => {
                self.is_grouped = !self.is_grouped;
                self.unfolded.clear();
                self.apply_filter(items, facts);
            }
            Change::Fold => self.fold(items, facts),
        }
    }

    /// Folds or unfolds the family of the selected row, whose row is selected then.
    fn fold<R: Row<Key = K>>(&mut self, items: &[R], facts: &dyn Facts<R>) {
        let Rows::Families(rows) = &self.rows else {
            return;
        };
        let row = match rows.item(self.row) {
            Some(item) => rows.family_row_of(item),
            None => Some(self.row),
        };
        let Some((row, family)) = row.and_then(|row| Some((row, rows.family(row)?))) else {
            return;
        };
        let name = family.name.clone();
        if !self.unfolded.remove(&name) {
            self.unfolded.insert(name);
        }
        self.select(items, row);
        self.apply_filter(items, facts);
    }

    /// Marks these keys, or unmarks them if all are marked.
    fn toggle_all(&mut self, keys: Vec<K>) {
        match keys.iter().all(|key| self.marks.contains(key)) {
            true => self.marks.retain(|key| !keys.contains(key)),
            false => self.marks.extend(keys),
        }
    }

    /// Returns the keys of the items in these rows, each once.
    fn keys_to_mark<R: Row<Key = K>>(&self, items: &[R], rows: Range<usize>) -> Vec<K> {
        let is_single = rows.len() == 1;
        // The items of an unfolded family have rows of their own.
        let counts = |row: &usize| is_single || self.family(*row).is_none_or(|it| it.is_folded);
        let keys = rows.filter(counts).flat_map(|row| self.keys_in(items, row));
        keys.cloned().collect()
    }

    /// Returns the row of the item with this key.
    pub(crate) fn row_of<R: Row<Key = K>>(&self, items: &[R], key: &K) -> Option<usize> {
        // Most lists are sorted by name: a linear search through 100,000 items is too slow for a keystroke.
        match items.binary_search_by(|item| item.key().cmp(key)) {
            Ok(at) => self.rows.row_of(at),
            Err(_) => {
                (0..self.len()).find(|&row| self.keys_in(items, row).any(|other| other == key))
            }
        }
    }

    /// Returns the row that is selected if the item with this key is, or its family.
    fn selected_row<R: Row<Key = K>>(&self, items: &[R], key: &K) -> Option<usize> {
        let row = self.row_of(items, key)?;
        match &self.rows {
            Rows::Families(rows) if self.is_family_selected => {
                let family = rows.item(row).and_then(|item| rows.family_row_of(item));
                Some(family.unwrap_or(row))
            }
            _ => Some(row),
        }
    }

    /// Restores the state of an earlier run before the items are known.
    pub(crate) fn restore(&mut self, selected: Option<K>, marks: Vec<K>, filter: String) {
        self.selected = selected;
        self.marks = marks.into_iter().collect();
        (self.query, self.filter_error) = Query::parse(&filter, Timestamp::now());
        self.filter = filter;
    }

    /// Returns the selected key, whether the item exists or not.
    pub(crate) fn selected(&self) -> Option<&K> {
        self.selected.as_ref()
    }

    /// Returns the marked keys, unsorted.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &K> {
        self.marks.iter()
    }

    pub(crate) fn new(sort: Sort, is_grouped: bool) -> Self {
        Self {
            sort,
            is_grouped,
            ..Self::default()
        }
    }

    /// Takes over the filter and the sort order of another list; [`Self::update`] applies them.
    pub(crate) fn adopt_order(&mut self, other: &Self) {
        self.sort = other.sort;
        self.filter.clone_from(&other.filter);
        self.query = other.query.clone();
        self.filter_error.clone_from(&other.filter_error);
        self.is_grouped = other.is_grouped;
    }

    pub(crate) fn is_grouped(&self) -> bool {
        self.is_grouped
    }

    /// Returns the numbers of a list of `total` items.
    pub(crate) fn summary(&self, total: usize) -> Summary<'_> {
        Summary {
            total,
            visible: match &self.rows {
                Rows::Families(rows) => rows.item_count(),
                _ => self.len(),
            },
            rows: self.len(),
            marked: self.marks.len(),
            filter: &self.filter,
            filter_error: self.filter_error.as_deref(),
            sort: self.sort,
        }
    }

    pub(crate) fn sort(&self) -> Sort {
        self.sort
    }

    /// Selects the item with this key if it is shown.
    pub(crate) fn select_key<R: Row<Key = K>>(&mut self, items: &[R], key: &K) {
        if let Some(row) = self.row_of(items, key) {
            self.select(items, row);
        }
    }

    fn select<R: Row<Key = K>>(&mut self, items: &[R], row: usize) {
        self.row = row.min(self.len().saturating_sub(1));
        self.is_family_selected = self.family(self.row).is_some();
        let mut keys = self.keys_in(items, self.row);
        if let Some(key) = keys.next().cloned()
            && !(self.is_family_selected && keys.any(|other| self.selected.as_ref() == Some(other)))
        {
            drop(keys);
            self.selected = Some(key);
        }
    }

    /// Returns the key of the item in `row`; for the row of a family, of all its items.
    fn keys_in<'a, R: Row<Key = K>>(
        &'a self,
        items: &'a [R],
        row: usize,
    ) -> impl Iterator<Item = &'a K> {
        let family = self.family(row).into_iter();
        let of_family = family.flat_map(|family| family.items.iter().map(|item| *item as usize));
        let indices = self.item(row).into_iter().chain(of_family);
        indices.filter_map(|item| Some(items.get(item)?.key()))
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        match &self.rows {
            Rows::All(count) => *count,
            Rows::Some(rows) => rows.len(),
            Rows::Families(rows) => rows.len(),
        }
    }

    /// Returns the index of the item in `row`; `None` for the row of a family.
    pub(crate) fn item(&self, row: usize) -> Option<usize> {
        match &self.rows {
            Rows::All(count) => (row < *count).then_some(row),
            Rows::Some(rows) => rows.get(row).map(|item| *item as usize),
            Rows::Families(rows) => rows.item(row).map(|item| item as usize),
        }
    }

    /// Returns the family whose row this is.
    pub(crate) fn family(&self, row: usize) -> Option<&Family> {
        match &self.rows {
            Rows::Families(rows) => rows.family(row),
            _ => None,
        }
    }

    pub(crate) fn row(&self) -> usize {
        self.row
    }

    /// Returns whether `row` is below the row of its family.
    pub(crate) fn is_version(&self, row: usize) -> bool {
        matches!(&self.rows, Rows::Families(rows) if rows.is_version(row))
    }

    /// Returns the family whose row is selected.
    pub(crate) fn selected_family(&self) -> Option<&Family> {
        self.family(self.row)
    }

    /// Returns the selected item; `None` if the row of a family is selected.
    pub(crate) fn current<'a, R: Row<Key = K>>(&self, items: &'a [R]) -> Option<&'a R> {
        items.get(self.item(self.row)?)
    }

    pub(crate) fn is_marked(&self, key: &K) -> bool {
        self.marks.contains(key)
    }

    /// Returns the marked keys; the selected key if none is marked.
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

    pub(crate) fn query(&self) -> &Query {
        &self.query
    }

    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    /// Returns the rows to draw in `height` lines, with the selected one. It scrolls as little as possible.
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
                problem: None,
            })
            .collect()
    }

    fn selected(list: &List<SnapshotName>, items: &[Object]) -> Option<String> {
        list.current(items).map(|object| object.name.to_string())
    }

    #[test]
    fn the_selection_stays_on_its_item_or_moves_to_the_neighbour() {
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
    fn marks_are_kept_by_name_until_the_item_disappears() {
        let mut list = List::default();
        let items = objects(&["a", "b", "c"]);
        list.update(&items);
        list.apply(&items, Change::Mark);
        list.apply(&items, Change::Mark);
        assert_eq!(chosen(&list, &items), ["a", "b"]);
        let items = objects(&["0", "b", "c"]);
        list.update(&items);
        assert_eq!(chosen(&list, &items), ["b"]);
    }

    #[test]
    fn a_filter_hides_rows_until_it_is_cleared() {
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
    fn a_sorted_list_keeps_selection_and_order_when_filtered() {
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
        let descending = Sort {
            column: Column::Name,
            descending: true,
        };
        list.apply(&items, Change::Sort(descending));
        assert_eq!(names(&list, &items), ["ba", "a"]);
        list.apply(&items, Change::Filter(String::new()));
        assert_eq!(names(&list, &items), ["ba", "b", "a"]);
    }

    #[test]
    fn exact_matches_come_before_fuzzy_ones() {
        let mut list = List::default();
        let items = objects(&["a-xb", "xab", "xb"]);
        list.update(&items);
        list.apply(&items, Change::Filter("~ab".to_owned()));
        assert_eq!(names(&list, &items), ["xab", "a-xb"]);
    }

    #[test]
    fn marks_apply_to_visible_rows() {
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
        fn a_window_contains_the_selected_row_and_fits(
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
