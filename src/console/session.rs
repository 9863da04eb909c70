//! From one run to the next: what was shown, chosen, sorted and filtered, and the inventory as it was seen last.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::actions::{LISTS, Pane};
use super::app::{App, HostLists};
use super::fields::Field;
use super::list::{List, Sort};
use super::together::On;
use super::world;
use snapdeck_engine::Inventory;
use snapdeck_model::{HostName, SandboxId, SnapshotName};

const SESSION: &str = "session.json";
const INVENTORY: &str = "inventory.json";
/// Longest file that is read, in bytes: some hundred thousand objects.
const LONGEST: u64 = 256 << 20;

/// What the operator left.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Session {
    list: String,
    host: Option<HostName>,
    together: bool,
    sorts: BTreeMap<String, SavedSort>,
    hosts: BTreeMap<HostName, SavedHost>,
    all_sandboxes: SavedList<On<SandboxId>>,
    all_snapshots: SavedList<On<SnapshotName>>,
    objects: SavedList<SnapshotName>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedSort {
    field: String,
    falling: bool,
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
    fn of(list: &List<K>) -> Self {
        let mut marks: Vec<K> = list.marks().cloned().collect();
        marks.sort();
        Self {
            selected: list.selected().cloned(),
            marks,
            filter: list.filter().to_owned(),
        }
    }

    fn give(self, list: &mut List<K>) {
        list.recall(self.selected, self.marks, self.filter);
    }
}

impl Session {
    /// What there is to keep.
    pub(crate) fn of(app: &App) -> Self {
        let sorts = app.sorts.iter().map(|(pane, sort)| {
            let saved = SavedSort {
                field: sort.field.name().to_owned(),
                falling: sort.falling,
            };
            (pane.name().to_owned(), saved)
        });
        let hosts = app.hosts.iter().map(|(name, lists)| {
            let saved = SavedHost {
                sandboxes: SavedList::of(&lists.sandboxes),
                snapshots: SavedList::of(&lists.snapshots),
            };
            (name.clone(), saved)
        });
        let list = match app.list {
            Pane::Matrix => app.matrix.back,
            list => list,
        };
        Self {
            list: list.name().to_owned(),
            host: app.host.clone(),
            together: app.together.shown,
            sorts: sorts.collect(),
            hosts: hosts.collect(),
            all_sandboxes: SavedList::of(&app.together.sandboxes),
            all_snapshots: SavedList::of(&app.together.snapshots),
            objects: SavedList::of(&app.objects),
        }
    }

    /// Puts it into a console that has just begun. What is no longer in the settings is left out.
    pub(crate) fn restore(self, app: &mut App) {
        let pane = |name: &str| LISTS.iter().copied().find(|pane| pane.name() == name);
        let sort = |(name, saved): (String, SavedSort)| {
            let field = Field::named(&saved.field)?;
            let falling = saved.falling;
            Some((pane(&name)?, Sort { field, falling }))
        };
        let sorts: HashMap<Pane, Sort> = self.sorts.into_iter().filter_map(sort).collect();
        for (name, saved) in self.hosts {
            if world::host(&app.view, &name).is_some() {
                let mut lists = HostLists::sorted(&sorts);
                saved.sandboxes.give(&mut lists.sandboxes);
                saved.snapshots.give(&mut lists.snapshots);
                app.hosts.insert(name, lists);
            }
        }
        let of = |pane| sorts.get(&pane).copied().unwrap_or_default();
        app.together.sandboxes = List::sorted(of(Pane::Sandboxes));
        app.together.snapshots = List::sorted(of(Pane::Snapshots));
        app.objects = List::sorted(of(Pane::Bucket));
        self.all_sandboxes.give(&mut app.together.sandboxes);
        self.all_snapshots.give(&mut app.together.snapshots);
        self.objects.give(&mut app.objects);
        app.sorts = sorts;
        let known = |name: &HostName| world::host(&app.view, name).is_some();
        if let Some(host) = self.host.filter(known) {
            app.host = Some(host);
        }
        app.together.shown = self.together && app.view.hosts.len() > 1;
        if let Some(pane) = pane(&self.list) {
            app.focus_on(pane);
        }
    }
}

/// The session of an earlier run; `None` where there is none that can be read: it is no great loss.
pub(crate) fn load(dir: &Path) -> Option<Session> {
    read(&dir.join(SESSION))
}

/// The inventory of an earlier run. May take a while: a hundred thousand objects are some 20 MiB.
pub(crate) fn load_inventory(dir: &Path) -> Option<Inventory> {
    read(&dir.join(INVENTORY))
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = std::fs::File::open(path).ok()?;
    match serde_json::from_reader(BufReader::new(file.take(LONGEST))) {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::warn!("cannot read {}, it is left out: {error}", path.display());
            None
        }
    }
}

/// Keeps both for the next run.
///
/// # Errors
/// What kept a file from being written; the one from before is there still.
pub(crate) fn save(dir: &Path, session: &Session, inventory: &Inventory) -> io::Result<()> {
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
