//! Directories that several hosts share: the users of a file on one host are its users on all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::ChainWalker;
use super::directory_id;
use super::scan::HostInventory;
use super::users::{FileKey, FileUsers, is_image};
use snapdeck_model::HostName;

/// Identity of a directory, the same on all hosts that share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DirectoryId {
    /// Random text in the file in the directory.
    pub id: String,
    /// Inode of that file: a copy has another one.
    pub inode: u64,
}

/// The directories of a host that have an id: those of the settings, and those of all files that its domains use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directories {
    /// The directory of the snapshots, without symbolic links.
    pub snapshots: PathBuf,
    /// The directory of the overlays, without symbolic links.
    pub sandboxes: PathBuf,
    /// Those of the two that exist.
    existing: Vec<PathBuf>,
    ids: BTreeMap<PathBuf, DirectoryId>,
}

impl Directories {
    /// Reads the ids of the directories of the settings, and of the files in `users`.
    pub(super) fn read(
        [(snapshots, has_snapshots), (sandboxes, has_sandboxes)]: [(&Path, bool); 2],
        users: &FileUsers,
        walker: &mut ChainWalker<'_>,
    ) -> Self {
        let used: BTreeSet<&Path> = users.paths().filter_map(Path::parent).collect();
        let all = [snapshots, sandboxes].into_iter();
        let mut ids = BTreeMap::new();
        for dir in all.chain(used) {
            let file = walker.canonicalize(&dir.join(directory_id::FILE_NAME));
            let Ok(file) = walker.stat(&file) else {
                continue;
            };
            if let Some(id) = &file.directory_id {
                let (id, inode) = (id.clone(), file.stamp.inode);
                ids.insert(dir.to_owned(), DirectoryId { id, inode });
            }
        }
        let existing = [(snapshots, has_snapshots), (sandboxes, has_sandboxes)];
        let existing = existing.into_iter().filter(|(_, exists)| *exists);
        Self {
            existing: existing.map(|(dir, _)| dir.to_owned()).collect(),
            snapshots: snapshots.to_owned(),
            sandboxes: sandboxes.to_owned(),
            ids,
        }
    }

    /// Returns the ids of all directories.
    pub fn ids(&self) -> BTreeSet<DirectoryId> {
        self.ids.values().cloned().collect()
    }

    /// Returns the first directory of the settings that exists and has no valid id.
    pub fn without_id(&self) -> Option<&Path> {
        let mut existing = self.existing.iter();
        let dir = existing.find(|dir| self.id(dir).is_none());
        dir.map(PathBuf::as_path)
    }

    /// Returns the id of a directory.
    pub fn id(&self, dir: &Path) -> Option<&DirectoryId> {
        self.ids.get(dir)
    }

    /// Returns the directory of the settings that has one of `ids`.
    pub fn find_shared(&self, ids: &BTreeSet<DirectoryId>) -> Option<&Path> {
        let mut own = self.own();
        own.find(|dir| self.id(dir).is_some_and(|id| ids.contains(id)))
    }

    /// Returns the directories of the settings.
    pub fn own(&self) -> impl Iterator<Item = &Path> {
        [&*self.snapshots, &*self.sandboxes].into_iter()
    }
}

impl HostInventory {
    /// Adds the users of files in shared directories on the host `other`. With `is_same_libvirt` its domains are those of
    /// this host.
    pub fn add_users_of(&mut self, other: &HostName, theirs: &Self, is_same_libvirt: bool) {
        let ids = theirs.directories.ids();
        let shared: Vec<(PathBuf, DirectoryId)> = self
            .directories
            .own()
            .filter_map(|dir| Some((dir.to_owned(), self.directories.id(dir)?.clone())))
            .filter(|(_, id)| ids.contains(id))
            .collect();
        for (dir, id) in &shared {
            let their_dirs = theirs.directories.ids.iter();
            for (their_dir, _) in their_dirs.filter(|(_, their_id)| *their_id == id) {
                for (name, users) in theirs.users.in_directory(their_dir) {
                    let users = users.iter().filter(|user| match is_image(user) {
                        // An image in a shared directory is found on this host, too; one in a directory of it may not be.
                        true => !theirs.is_in_any(Path::new(user), &shared),
                        false => !is_same_libvirt,
                    });
                    let users: Vec<String> = users
                        .map(|user| {
                            let label = format!("{user} on host {other}");
                            let mut sandboxes = theirs.sandboxes.iter();
                            let sandbox = sandboxes.find(|sandbox| sandbox.id.as_str() == user);
                            if let Some(sandbox) = sandbox {
                                self.user_states.insert(label.clone(), sandbox.state);
                            }
                            label
                        })
                        .collect();
                    self.add_users(&dir.join(name), &users);
                }
            }
        }
        let snapshots = |(dir, _): &(PathBuf, DirectoryId)| *dir == self.directories.snapshots;
        if shared.iter().any(snapshots) {
            let on_other = |text: &String| format!("{text} on host {other}");
            self.unresolved_chains
                .extend(theirs.unresolved_chains.iter().map(on_other));
        }
        if !shared.is_empty() {
            self.unreadable_images.extend(
                theirs
                    .unreadable_images
                    .iter()
                    .map(|path| format!("{path} on host {other}")),
            );
        }
    }

    fn is_in_any(&self, path: &Path, shared: &[(PathBuf, DirectoryId)]) -> bool {
        let id = path.parent().and_then(|dir| self.directories.id(dir));
        id.is_some_and(|id| shared.iter().any(|(_, shared)| shared == id))
    }

    /// Adds users of a file in one of the two directories.
    fn add_users(&mut self, path: &Path, users: &[String]) {
        let file = FileKey {
            path: path.to_owned(),
            id: None,
        };
        for user in users {
            self.users.insert(&file, user);
        }
        let mut snapshots = self.snapshots.iter_mut();
        if let Some(snapshot) = snapshots.find(|snapshot| Path::new(&snapshot.path) == path) {
            snapshot.dependents.extend_from_slice(users);
        }
        if path.parent() == Some(&*self.directories.sandboxes)
            && let Some(id) = super::scan::overlay_id(path)
            && !users.is_empty()
        {
            self.overlay_users
                .entry(id)
                .or_default()
                .extend_from_slice(users);
        }
    }
}
