//! Follows the backing chains of images, and records their users.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::file_source::FileMetadataSource;
use super::references::{Reference, Target, resolve};
use super::scan::HostInventory;
use super::users::{FileKey, is_image};
use crate::domain_files::DomainFile;
use crate::image_file::{FileId, ImageFile};
use snapdeck_model::{ChainLink, SnapshotName};

/// Maximum length of a backing chain; libvirt's limit is 200, too.
pub(super) const MAX_CHAIN: usize = 200;
/// Images of all chains of a scan, each counted once for every user: QEMU's user can create any number of images on one chain.
const MAX_LINKS: usize = 200_000;

/// Follows chains, with each path resolved and the metadata of each file read once: many chains have the same files.
pub(super) struct ChainWalker<'a> {
    source: &'a mut FileMetadataSource,
    /// By path as it is given.
    canonical_paths: HashMap<PathBuf, PathBuf>,
    /// By canonical path; the error is empty for a file that does not exist.
    stat_cache: HashMap<PathBuf, Result<ImageFile, StatError>>,
    /// Reported problems, each once.
    reported: BTreeSet<String>,
    /// Images followed so far.
    links: usize,
}

/// Returns the name of the snapshot with a canonical path.
pub(super) type NameOf<'a> = dyn Fn(&Path) -> Option<SnapshotName> + 'a;

/// Why the metadata of a file cannot be read.
#[derive(Debug, Clone)]
pub(super) struct StatError {
    pub kind: io::ErrorKind,
    pub message: String,
}

impl StatError {
    pub(super) fn is_missing(&self) -> bool {
        self.kind == io::ErrorKind::NotFound
    }
}

/// The first image of a chain.
pub(super) struct Head<'a> {
    pub path: &'a Path,
    pub format: Option<&'a str>,
    /// Whether it is certainly an image: one that cannot be read is a problem then.
    pub is_image: bool,
}

impl<'a> Head<'a> {
    /// Returns a file of a domain.
    pub(super) fn of_domain(file: &'a DomainFile, is_image: bool) -> Self {
        Self {
            path: Path::new(&file.path),
            format: file.format.as_deref(),
            is_image,
        }
    }

    /// Returns a file of a directory.
    pub(super) fn in_directory(path: &'a Path) -> Self {
        Self {
            path,
            format: None,
            is_image: true,
        }
    }
}

impl<'a> ChainWalker<'a> {
    pub(super) fn new(source: &'a mut FileMetadataSource) -> Self {
        Self {
            source,
            canonical_paths: HashMap::new(),
            stat_cache: HashMap::new(),
            reported: BTreeSet::new(),
            links: 0,
        }
    }

    /// Returns the canonical path, as far as the file exists.
    pub(super) fn canonicalize(&mut self, path: &Path) -> PathBuf {
        if let Some(canonical) = self.canonical_paths.get(path) {
            return canonical.clone();
        }
        let canonical = self.source.canonicalize(path);
        self.canonical_paths
            .insert(path.to_owned(), canonical.clone());
        canonical
    }

    /// Returns the metadata of the file at a canonical path.
    pub(super) fn stat(&mut self, file: &Path) -> &Result<ImageFile, StatError> {
        let source = &mut *self.source;
        self.stat_cache.entry(file.to_owned()).or_insert_with(|| {
            source.stat(file).map_err(|error| StatError {
                kind: error.kind(),
                message: error.to_string(),
            })
        })
    }

    /// Returns the key of the file at `path`.
    pub(super) fn key(&mut self, path: &Path) -> FileKey {
        let path = self.canonicalize(path);
        let id = self.stat(&path).as_ref().ok().map(ImageFile::id);
        FileKey { path, id }
    }

    /// Follows a chain to its end, and the files that its images need besides, and records `user` for every file.
    pub(super) fn follow(
        &mut self,
        head: &Head<'_>,
        user: &str,
        name_of: &NameOf<'_>,
        inventory: &mut HostInventory,
    ) -> Vec<ChainLink> {
        let mut walk = Walk {
            walker: self,
            inventory,
            user,
            others: Vec::new(),
        };
        let chain = walk.follow(head, name_of);
        let mut followed = BTreeSet::new();
        while let Some(path) = walk.others.pop() {
            if followed.len() == MAX_CHAIN {
                walk.report_unresolved(&path, "it needs too many files");
                break;
            }
            if followed.insert(path.clone()) {
                walk.follow(&Head::in_directory(&path), name_of);
            }
        }
        chain
    }
}

/// The files of a chain, each with the names by which it is known.
#[derive(Default)]
struct KnownFiles {
    paths: HashSet<PathBuf>,
    ids: HashSet<FileId>,
}

impl KnownFiles {
    /// Returns whether the file was not known.
    fn insert(&mut self, file: &FileKey) -> bool {
        let has_new_path = self.paths.insert(file.path.clone());
        let has_new_id = file.id.is_none_or(|id| self.ids.insert(id));
        has_new_path && has_new_id
    }
}

struct Walk<'w, 'a> {
    walker: &'w mut ChainWalker<'a>,
    inventory: &'w mut HostInventory,
    user: &'w str,
    /// Further files that the images of the chain need.
    others: Vec<PathBuf>,
}

impl Walk<'_, '_> {
    fn follow(&mut self, head: &Head<'_>, name_of: &NameOf<'_>) -> Vec<ChainLink> {
        let mut chain = Vec::new();
        let mut files: Vec<FileKey> = Vec::new();
        let mut known = KnownFiles::default();
        let mut path = head.path.to_owned();
        loop {
            let file = self.walker.key(&path);
            if !known.insert(&file) {
                self.report_loop(&files, &path);
                // No program can open an image of a loop: one without a domain uses no other.
                if files.first().is_some_and(|first| first.is_same(&file)) && is_image(self.user) {
                    files.truncate(1);
                }
                break;
            }
            if self.walker.links == MAX_LINKS {
                let text =
                    format!("some images (more than {MAX_LINKS} images in all backing chains)");
                if self.walker.reported.insert(text.clone()) {
                    self.inventory.unresolved_chains.push(text);
                }
                break;
            }
            self.walker.links += 1;
            if files.len() == MAX_CHAIN {
                self.report_unresolved(&path, "its backing chain has more than 200 images");
                break;
            }
            let image = self.walker.stat(&file.path).clone();
            // libvirt does not probe a raw disk: the guest could write a header to it.
            let is_raw = files.is_empty() && head.format == Some("raw");
            let facts = match &image {
                Ok(image) if !is_raw => image.facts.as_ref().ok().cloned(),
                _ => None,
            };
            let snapshot = name_of(&file.path);
            let is_snapshot = snapshot.is_some();
            chain.push(ChainLink {
                path: path.to_string_lossy().into_owned(),
                snapshot,
                size_bytes: image.as_ref().ok().map(|image| image.allocated_bytes),
                facts: facts.clone(),
            });
            if file.path != path {
                // A shared directory is known by the path that it has on each host.
                let path = path.clone();
                let given = FileKey { path, id: None };
                self.inventory.users.insert(&given, self.user);
            }
            files.push(file);
            match &image {
                Ok(image) if !is_raw => self.add_other_references(image, &path, is_snapshot),
                Err(error) if head.is_image && !error.is_missing() => {
                    self.report_unresolved(&path, &error.message);
                    if error.kind == io::ErrorKind::PermissionDenied {
                        let unreadable = path.to_string_lossy().into_owned();
                        self.inventory.unreadable_images.insert(unreadable);
                    }
                }
                _ => {}
            }
            let Some(backing) = facts.and_then(|facts| facts.backing_file) else {
                break;
            };
            let Reference {
                target,
                others,
                is_complete,
            } = resolve(&path, &backing);
            self.others.extend(others);
            if !is_complete {
                self.report_unresolved(&path, "cannot parse the name of its backing file");
            }
            match target {
                Target::File(next) => path = next,
                Target::Unknown => break,
                Target::Remote => {
                    chain.push(ChainLink {
                        path: backing,
                        snapshot: None,
                        size_bytes: None,
                        facts: None,
                    });
                    break;
                }
            }
        }
        for file in &files {
            self.inventory.users.insert(file, self.user);
        }
        chain
    }

    /// Adds the files that an image needs besides its backing file. A snapshot needs none: one with an unknown header is
    /// damaged.
    fn add_other_references(&mut self, image: &ImageFile, path: &Path, is_snapshot: bool) {
        let references = &image.other_references;
        if let Some(reason) = references.unknown.filter(|_| !is_snapshot) {
            self.report_unresolved(path, reason);
        }
        let Some(name) = &references.data_file else {
            return;
        };
        let data_file = resolve(path, name);
        self.others.extend(data_file.others);
        match data_file.target {
            Target::File(file) => self.others.push(file),
            Target::Remote => {}
            Target::Unknown => {
                self.report_unresolved(path, "cannot parse the name of its data file");
            }
        }
    }

    fn report_unresolved(&mut self, path: &Path, reason: &str) {
        let text = format!("{} ({}: {reason})", self.user, path.display());
        if self.walker.reported.insert(text.clone()) {
            self.inventory.unresolved_chains.push(text);
        }
    }

    fn report_loop(&mut self, files: &[FileKey], next: &Path) {
        let first = files.first().map(|file| file.path.display().to_string());
        let text = format!(
            "{} ({}: its backing chain does not end, {} is in it twice)",
            self.user,
            first.unwrap_or_default(),
            next.display()
        );
        if self.walker.reported.insert(text.clone()) {
            self.inventory.endless_chains.push(text);
        }
    }
}
