//! A list of sandboxes or snapshots of one host or of all hosts. A row is identified by name and host.

use std::collections::HashMap;
use std::sync::Arc;

use super::columns::{Column, Row, Value};
use super::facts::Facts;
use super::list::{Change, List, Sort, Summary};
use super::world::{Scope, World};
use snapdeck_engine::HostView;
use snapdeck_model::HostName;

pub(crate) type HostKey<K> = (K, HostName);

/// An item with its host.
#[derive(Debug)]
pub(crate) struct HostRow<T: Row> {
    key: HostKey<T::Key>,
    items: Arc<[T]>,
    item: usize,
}

impl<T: Row> HostRow<T> {
    pub(crate) fn host(&self) -> &HostName {
        &self.key.1
    }

    /// Returns the item; `None` never happens.
    pub(crate) fn item(&self) -> Option<&T> {
        self.items.get(self.item)
    }
}

impl<T: Row> Row for HostRow<T> {
    type Key = HostKey<T::Key>;
    fn key(&self) -> &HostKey<T::Key> {
        &self.key
    }
    fn text(&self) -> &str {
        self.item().map_or("", Row::text)
    }
    fn secondary_text(&self) -> &str {
        self.key.1.as_str()
    }
    fn family(&self) -> Option<&str> {
        self.item()?.family()
    }
    fn value(&self, column: Column) -> Option<Value<'_>> {
        match column {
            Column::Host => Some(Value::Text(self.secondary_text())),
            column => self.item()?.value(column),
        }
    }
}

/// The rows of the shown hosts. Each scope has its own selection and marks; filter and sort order are common.
#[derive(Debug)]
pub(crate) struct HostList<T: Row> {
    /// Returns the items of a host.
    items: fn(&HostView) -> &Arc<[T]>,
    scope: Scope,
    list: List<HostKey<T::Key>>,
    /// By name, then host.
    rows: Vec<HostRow<T>>,
    /// The states of the list in other scopes.
    other_scopes: HashMap<Scope, List<HostKey<T::Key>>>,
    /// The lists from which the rows were built, and whether all shown hosts had been scanned.
    sources: (Vec<Arc<[T]>>, bool),
    /// The version of the facts by which the rows are filtered.
    facts_version: u64,
}

impl<T: Row> HostList<T> {
    pub(crate) fn new(items: fn(&HostView) -> &Arc<[T]>) -> Self {
        Self {
            items,
            scope: None,
            list: List::default(),
            rows: Vec::new(),
            other_scopes: HashMap::new(),
            sources: (Vec::new(), false),
            facts_version: 0,
        }
    }

    pub(crate) fn summary(&self) -> Summary<'_> {
        self.list.summary(self.rows.len())
    }

    pub(crate) fn list(&self) -> &List<HostKey<T::Key>> {
        &self.list
    }

    pub(crate) fn rows(&self) -> &[HostRow<T>] {
        &self.rows
    }

    /// Returns the selected row.
    pub(crate) fn current(&self) -> Option<&HostRow<T>> {
        self.list.current(&self.rows)
    }

    /// Returns the keys of the marked rows; of the selected one if none is marked.
    pub(crate) fn chosen_keys(&self) -> Vec<HostKey<T::Key>> {
        self.list.chosen_keys(&self.rows)
    }

    pub(crate) fn select(&mut self, key: &HostKey<T::Key>) {
        self.list.select_key(&self.rows, key);
    }

    pub(crate) fn set_offset(&mut self, first: usize) {
        self.list.offset = first;
    }

    /// Returns the states of the list in all scopes.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&Scope, &List<HostKey<T::Key>>)> {
        [(&self.scope, &self.list)]
            .into_iter()
            .chain(&self.other_scopes)
    }

    /// Restores the state of an earlier run in one scope, before the rows are known.
    pub(crate) fn restore(&mut self, scope: Scope, list: List<HostKey<T::Key>>) {
        match scope == self.scope {
            true => {
                self.list = list;
                // The next update builds the rows again.
                self.sources = (Vec::new(), false);
            }
            false => drop(self.other_scopes.insert(scope, list)),
        }
    }

    pub(crate) fn sort(&self) -> Sort {
        self.list.sort()
    }
}

impl<T: Row> HostList<T>
where
    World: Facts<HostRow<T>>,
{
    /// Rebuilds the rows if the scope or a list of a shown host has changed; returns whether it has.
    pub(crate) fn update(&mut self, world: &World) -> bool {
        let scope = world.scope();
        let is_same_scope = scope == self.scope;
        if !is_same_scope {
            let list = self.other_scopes.remove(&scope).unwrap_or_default();
            let before = std::mem::replace(&mut self.list, list);
            self.list.adopt_order(&before);
            let old_scope = std::mem::replace(&mut self.scope, scope);
            self.other_scopes.insert(old_scope, before);
        }
        let sources: Vec<Arc<[T]>> = world
            .shown_hosts()
            .map(|host| (self.items)(host).clone())
            .collect();
        let is_complete = world.shown_hosts().all(|host| host.last_scan.is_some());
        let (built_from, was_complete) = &self.sources;
        let is_same = built_from.len() == sources.len()
            && built_from
                .iter()
                .zip(&sources)
                .all(|(a, b)| Arc::ptr_eq(a, b));
        let facts_version = std::mem::replace(&mut self.facts_version, world.facts_version());
        if is_same_scope && is_same && *was_complete == is_complete {
            if facts_version != self.facts_version && self.list.query().has_facts() {
                self.list.apply_filter(&self.rows, world);
            }
            return false;
        }
        let host_rows = |(host, items): (&HostView, &Arc<[T]>)| -> Vec<HostRow<T>> {
            let row = |(item, value): (usize, &T)| HostRow {
                key: (value.key().clone(), host.name.clone()),
                items: items.clone(),
                item,
            };
            items.iter().enumerate().map(row).collect()
        };
        self.rows = world
            .shown_hosts()
            .zip(&sources)
            .flat_map(host_rows)
            .collect();
        if sources.len() > 1 {
            self.rows.sort_by(|one, other| one.key.cmp(&other.key));
        }
        self.sources = (sources, is_complete);
        match is_complete {
            true => self.list.update_with(&self.rows, world),
            // Keeps the selection and marks of an earlier run until the first scan.
            false => self.list.update_partial(&self.rows, world),
        }
        true
    }

    pub(crate) fn apply(&mut self, change: Change, world: &World) {
        self.list.apply_with(&self.rows, change, world);
    }
}
