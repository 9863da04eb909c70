//! Rows of a list grouped by family: versions of one snapshot, below a row of their own that can be folded.

use std::collections::HashMap;

use super::columns::Row;

/// The versions of a snapshot that are shown or folded.
#[derive(Debug)]
pub(crate) struct Family {
    pub name: String,
    /// Indices of the items, in the order of the rows.
    pub items: Vec<u32>,
    pub is_folded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Item(u32),
    /// An item below the row of its family.
    Version(u32),
    /// Index of a family.
    Family(u32),
}

/// Rows in which families of several versions have a row before their items.
#[derive(Debug, Default)]
pub(crate) struct FamilyRows {
    entries: Vec<Entry>,
    families: Vec<Family>,
    /// Number of items, folded ones included.
    item_count: usize,
}

impl FamilyRows {
    /// Groups `rows`, indices of `items`: each family is where its first item was.
    pub(crate) fn new<R: Row>(
        items: &[R],
        rows: impl IntoIterator<Item = u32>,
        is_folded: impl Fn(&str) -> bool,
    ) -> Self {
        let mut groups: Vec<(Option<&str>, Vec<u32>)> = Vec::new();
        let mut group_of: HashMap<&str, usize> = HashMap::new();
        let mut item_count = 0;
        for item in rows {
            item_count += 1;
            let family = items.get(item as usize).and_then(Row::family);
            match family.and_then(|name| group_of.get(name)) {
                Some(at) => groups[*at].1.push(item),
                None => {
                    if let Some(name) = family {
                        group_of.insert(name, groups.len());
                    }
                    groups.push((family, vec![item]));
                }
            }
        }
        let mut grouped = Self {
            item_count,
            ..Self::default()
        };
        for (name, items) in groups {
            let Some(name) = name.filter(|_| items.len() > 1) else {
                let entries = items.iter().map(|item| Entry::Item(*item));
                grouped.entries.extend(entries);
                continue;
            };
            let is_folded = is_folded(name);
            let at = grouped.families.len() as u32;
            grouped.entries.push(Entry::Family(at));
            if !is_folded {
                let entries = items.iter().map(|item| Entry::Version(*item));
                grouped.entries.extend(entries);
            }
            grouped.families.push(Family {
                name: name.to_owned(),
                items,
                is_folded,
            });
        }
        grouped
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn item_count(&self) -> usize {
        self.item_count
    }

    /// Returns the item in `row`; `None` for the row of a family.
    pub(crate) fn item(&self, row: usize) -> Option<u32> {
        match self.entries.get(row)? {
            Entry::Item(item) | Entry::Version(item) => Some(*item),
            Entry::Family(_) => None,
        }
    }

    /// Returns the family whose row this is.
    pub(crate) fn family(&self, row: usize) -> Option<&Family> {
        match self.entries.get(row)? {
            Entry::Item(_) | Entry::Version(_) => None,
            Entry::Family(at) => self.families.get(*at as usize),
        }
    }

    /// Returns whether a version of a family is in `row`.
    pub(crate) fn is_version(&self, row: usize) -> bool {
        matches!(self.entries.get(row), Some(Entry::Version(_)))
    }

    /// Returns the row of an item; of its family if it is folded.
    pub(crate) fn row_of(&self, item: u32) -> Option<usize> {
        let wanted = [Entry::Item(item), Entry::Version(item)];
        let mut entries = self.entries.iter();
        let row = entries.position(|entry| wanted.contains(entry));
        row.or_else(|| self.family_row_of(item))
    }

    /// Returns the row of the family that an item belongs to.
    pub(crate) fn family_row_of(&self, item: u32) -> Option<usize> {
        let mut families = self.families.iter();
        let at = families.position(|family| family.items.contains(&item))? as u32;
        let mut entries = self.entries.iter();
        entries.position(|entry| *entry == Entry::Family(at))
    }
}
