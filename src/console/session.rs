//! Saves the session (current list, selections, marks, sort orders, filters) and the last inventory for the next run.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::actions::{LISTS, Pane};
use super::all_hosts::HostKey;
use super::app::{App, HostLists};
use super::columns::Column;
use super::list::{List, Sort};
use super::lookup;
use snapdeck_engine::CachedInventory;
use snapdeck_model::{HostName, SandboxId, SnapshotName};

const SESSION: &str = "session.json";
const INVENTORY: &str = "inventory.json";
/// Largest file that is read, in bytes: enough for some 100,000 objects.
const MAX_FILE_BYTES: u64 = 256 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Session {
    list: String,
    host: Option<HostName>,
    #[serde(alias = "together")]
    all_hosts: bool,
    sorts: BTreeMap<String, SavedSort>,
    hosts: BTreeMap<HostName, SavedHost>,
    all_sandboxes: SavedList<HostKey<SandboxId>>,
    all_snapshots: SavedList<HostKey<SnapshotName>>,
    objects: SavedList<SnapshotName>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedSort {
    field: String,
    #[serde(alias = "falling")]
    descending: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SavedHost {
    sandboxes: SavedList<SandboxId>,
    snapshots: SavedList<SnapshotName>,
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

impl Session {
    pub(crate) fn from_app(app: &App) -> Self {
        let sorts = app.sorts.iter().map(|(pane, sort)| {
            let saved = SavedSort {
                field: sort.column.name().to_owned(),
                descending: sort.descending,
            };
            (pane.name().to_owned(), saved)
        });
        let hosts = app.hosts.iter().map(|(name, lists)| {
            let saved = SavedHost {
                sandboxes: SavedList::from_list(&lists.sandboxes),
                snapshots: SavedList::from_list(&lists.snapshots),
            };
            (name.clone(), saved)
        });
        let list = match app.list {
            Pane::Matrix => app.matrix.opened_from,
            list => list,
        };
        Self {
            list: list.name().to_owned(),
            host: app.host.clone(),
            all_hosts: app.all_hosts.is_shown,
            sorts: sorts.collect(),
            hosts: hosts.collect(),
            all_sandboxes: SavedList::from_list(&app.all_hosts.sandboxes),
            all_snapshots: SavedList::from_list(&app.all_hosts.snapshots),
            objects: SavedList::from_list(&app.objects),
        }
    }

    /// Restores the session at the start. Hosts that are no longer in the settings are skipped.
    pub(crate) fn restore(self, app: &mut App) {
        let pane = |name: &str| LISTS.iter().copied().find(|pane| pane.name() == name);
        let sort = |(name, saved): (String, SavedSort)| {
            let sort = Sort {
                column: Column::from_name(&saved.field)?,
                descending: saved.descending,
            };
            Some((pane(&name)?, sort))
        };
        let sorts: HashMap<Pane, Sort> = self.sorts.into_iter().filter_map(sort).collect();
        for (name, saved) in self.hosts {
            if lookup::host(&app.view, &name).is_some() {
                let mut lists = HostLists::with_sorts(&sorts);
                saved.sandboxes.restore_into(&mut lists.sandboxes);
                saved.snapshots.restore_into(&mut lists.snapshots);
                app.hosts.insert(name, lists);
            }
        }
        let sort = |pane| sorts.get(&pane).copied().unwrap_or_default();
        app.all_hosts.sandboxes = List::with_sort(sort(Pane::Sandboxes));
        app.all_hosts.snapshots = List::with_sort(sort(Pane::Snapshots));
        app.objects = List::with_sort(sort(Pane::Bucket));
        self.all_sandboxes
            .restore_into(&mut app.all_hosts.sandboxes);
        self.all_snapshots
            .restore_into(&mut app.all_hosts.snapshots);
        self.objects.restore_into(&mut app.objects);
        app.sorts = sorts;
        let exists = |name: &HostName| lookup::host(&app.view, name).is_some();
        if let Some(host) = self.host.filter(exists) {
            app.host = Some(host);
        }
        app.all_hosts.is_shown = self.all_hosts && app.view.hosts.len() > 1;
        if let Some(pane) = pane(&self.list) {
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
