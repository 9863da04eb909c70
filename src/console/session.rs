//! Saves the session (current list, selections, marks, sort orders, filters) and the last inventory for the next run.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::actions::{LISTS, PAGES, Pane};
use super::app::App;
use super::bookmarks::Bookmarks;
use super::columns::{Column, Row};
use super::host_list::{HostKey, HostList};
use super::list::{List, Sort};
use super::world::Scope;
use snapdeck_engine::CachedInventory;
use snapdeck_model::{HostName, SandboxId, SnapshotName};

const BOOKMARKS: &str = "bookmarks.json";
const SESSION: &str = "session.json";
const INVENTORY: &str = "inventory.json";
/// Largest file that is read, in bytes: enough for some 100,000 objects.
const MAX_FILE_BYTES: u64 = 256 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Session {
    /// The list or page that was open, by its title.
    list: String,
    host: Option<HostName>,
    #[serde(alias = "together")]
    all_hosts: bool,
    sorts: BTreeMap<String, SavedSort>,
    /// The columns that were chosen for a list, by its title.
    columns: BTreeMap<String, Vec<String>>,
    /// The lists that are grouped by family, by their titles.
    grouped: Vec<String>,
    sandboxes: Vec<SavedScope<SandboxId>>,
    snapshots: Vec<SavedScope<SnapshotName>>,
    objects: SavedList<SnapshotName>,
}

/// A list of one host, or of all hosts.
#[derive(Debug, Serialize, Deserialize)]
struct SavedScope<K> {
    host: Scope,
    #[serde(flatten)]
    list: SavedList<HostKey<K>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedSort {
    field: String,
    #[serde(alias = "falling")]
    descending: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedList<K> {
    selected: Option<K>,
    marks: Vec<K>,
    filter: String,
}

impl<K> Default for SavedList<K> {
    fn default() -> Self {
        Self {
            selected: None,
            marks: Vec::new(),
            filter: String::new(),
        }
    }
}

impl<K: Clone + Ord + Hash> SavedList<K> {
    fn from_list(list: &List<K>) -> Self {
        let mut marks: Vec<K> = list.marks().cloned().collect();
        marks.sort();
        Self {
            selected: list.selected().cloned(),
            marks,
            filter: list.filter().to_owned(),
        }
    }

    fn restore_into(self, list: &mut List<K>) {
        list.restore(self.selected, self.marks, self.filter);
    }
}

fn saved_scopes<T: Row>(list: &HostList<T>) -> Vec<SavedScope<T::Key>> {
    let states = list.states().map(|(scope, list)| SavedScope {
        host: scope.clone(),
        list: SavedList::from_list(list),
    });
    states.collect()
}

fn restore_scopes<T: Row>(
    list: &mut HostList<T>,
    saved: Vec<SavedScope<T::Key>>,
    order: (Sort, bool),
) {
    for SavedScope { host, list: saved } in saved {
        let mut restored = List::new(order.0, order.1);
        saved.restore_into(&mut restored);
        list.restore(host, restored);
    }
}

impl Session {
    pub(crate) fn from_app(app: &App) -> Self {
        let lists = &app.pages().lists;
        let sorts = LISTS.iter().filter_map(|pane| {
            let sort = app.sort(*pane)?;
            let saved = SavedSort {
                field: sort.column.name().to_owned(),
                descending: sort.descending,
            };
            Some((pane.name().to_owned(), saved))
        });
        let columns = LISTS.iter().filter_map(|pane| {
            let headers = lists.columns(*pane).headers()?.into_iter();
            let headers = headers.map(str::to_owned).collect();
            Some((pane.name().to_owned(), headers))
        });
        let is_grouped = |pane: &Pane| match pane {
            Pane::Snapshots => lists.snapshots.list().is_grouped(),
            Pane::Bucket => lists.objects.is_grouped(),
            _ => false,
        };
        let grouped = LISTS.into_iter().filter(is_grouped);
        let grouped = grouped.map(|pane| pane.name().to_owned());
        Self {
            list: app.list().name().to_owned(),
            host: app.world().current_host().cloned(),
            all_hosts: app.world().shows_all_hosts(),
            sorts: sorts.collect(),
            columns: columns.collect(),
            grouped: grouped.collect(),
            sandboxes: saved_scopes(&lists.sandboxes),
            snapshots: saved_scopes(&lists.snapshots),
            objects: SavedList::from_list(&lists.objects),
        }
    }

    /// Restores the session at the start. Hosts that are no longer in the settings are skipped.
    pub(crate) fn restore(self, app: &mut App) {
        let sort = |pane: Pane| {
            let saved = self.sorts.get(pane.name());
            let sort = saved.and_then(|saved| {
                Some(Sort {
                    column: Column::from_name(&saved.field)?,
                    descending: saved.descending,
                })
            });
            sort.unwrap_or_default()
        };
        let is_grouped = |pane: Pane| self.grouped.iter().any(|name| name == pane.name());
        let mut objects = List::new(sort(Pane::Bucket), is_grouped(Pane::Bucket));
        self.objects.restore_into(&mut objects);
        let (sandboxes, snapshots) = (sort(Pane::Sandboxes), sort(Pane::Snapshots));
        app.restore_lists(|lists| {
            restore_scopes(&mut lists.sandboxes, self.sandboxes, (sandboxes, false));
            let order = (snapshots, is_grouped(Pane::Snapshots));
            restore_scopes(&mut lists.snapshots, self.snapshots, order);
            lists.objects = objects;
            for pane in LISTS {
                if let Some(headers) = self.columns.get(pane.name()) {
                    lists.set_columns(pane, lists.columns(pane).with(headers));
                }
            }
        });
        if let Some(host) = self.host {
            app.set_scope(Some(host));
        }
        if self.all_hosts {
            app.set_scope(None);
        }
        let panes = LISTS.into_iter().chain(PAGES);
        if let Some(pane) = panes.into_iter().find(|pane| pane.name() == self.list) {
            app.focus_on(pane);
        }
    }
}

/// Returns the session of an earlier run; `None` if there is none or it cannot be read.
pub(crate) fn load(dir: &Path) -> Option<Session> {
    read(&dir.join(SESSION))
}

/// Returns the inventory of an earlier run. Slow: 100,000 objects are some 20 MiB.
pub(crate) fn load_inventory(dir: &Path) -> Option<CachedInventory> {
    read(&dir.join(INVENTORY))
}

/// Returns the saved bookmarks; none if there are none or they cannot be read.
pub(crate) fn load_bookmarks(dir: &Path) -> Bookmarks {
    read(&dir.join(BOOKMARKS)).unwrap_or_default()
}

/// Saves the bookmarks.
///
/// # Errors
/// An I/O error. The previous file is kept then.
pub(crate) fn save_bookmarks(dir: &Path, bookmarks: &Bookmarks) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    write(dir, BOOKMARKS, bookmarks)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = std::fs::File::open(path).ok()?;
    match serde_json::from_reader(BufReader::new(file.take(MAX_FILE_BYTES))) {
        Ok(content) => Some(content),
        Err(error) => {
            tracing::warn!("cannot read {}, ignoring it: {error}", path.display());
            None
        }
    }
}

/// Saves both for the next run.
///
/// # Errors
/// An I/O error. The previous file is kept then.
pub(crate) fn save(dir: &Path, session: &Session, inventory: &CachedInventory) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    write(dir, SESSION, session)?;
    write(dir, INVENTORY, inventory)
}

fn write(dir: &Path, name: &str, content: &impl Serialize) -> io::Result<()> {
    let file = tempfile::NamedTempFile::new_in(dir)?;
    let mut writer = BufWriter::new(&file);
    serde_json::to_writer(&mut writer, content)?;
    writer.flush()?;
    drop(writer);
    file.persist(dir.join(name))?;
    Ok(())
}
