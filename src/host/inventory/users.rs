//! The users of files: domains, and images without a domain.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::image_file::FileId;

/// Users of files by path and by device and inode: a file has many paths.
///
/// A user is the name of a domain, or the path of an image without a domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FileUsers {
    by_path: BTreeMap<PathBuf, BTreeSet<String>>,
    by_id: BTreeMap<FileId, BTreeSet<String>>,
}

/// A file by its canonical path, and by device and inode if it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileKey {
    pub path: PathBuf,
    pub id: Option<FileId>,
}

impl FileKey {
    /// Returns whether both are one file.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.path == other.path || self.id.is_some() && self.id == other.id
    }
}

impl FileUsers {
    pub(super) fn insert(&mut self, file: &FileKey, user: &str) {
        let by_path = self.by_path.entry(file.path.clone()).or_default();
        by_path.insert(user.to_owned());
        if let Some(id) = file.id {
            self.by_id.entry(id).or_default().insert(user.to_owned());
        }
    }

    /// Returns the paths of all used files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.by_path.keys().map(PathBuf::as_path)
    }

    /// Returns the users of a file.
    pub(crate) fn get(&self, file: &FileKey) -> BTreeSet<&str> {
        let by_path = self.by_path.get(&file.path);
        let by_id = file.id.and_then(|id| self.by_id.get(&id));
        let users = by_path.into_iter().chain(by_id).flatten();
        users.map(String::as_str).collect()
    }

    /// Returns the users of the files of a directory and of those one level deeper, by their path in it.
    pub(super) fn in_directory<'a>(
        &'a self,
        dir: &'a Path,
    ) -> impl Iterator<Item = (&'a str, &'a BTreeSet<String>)> {
        self.by_path.iter().filter_map(move |(path, users)| {
            let name = path.strip_prefix(dir).ok()?.to_str()?;
            (name.matches('/').count() < 2).then_some((name, users))
        })
    }
}

/// Returns whether a user is an image without a domain.
pub(super) fn is_image(user: &str) -> bool {
    user.starts_with('/')
}
