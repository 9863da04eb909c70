//! Metadata of a host's files for a scan: read on this machine, or prefetched from another.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::disk_space::DiskSpace;
use crate::fs::open_no_follow;
use crate::held_locks;
use crate::image_file::{self, ImageFile};
use jiff::Timestamp;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Damage, HostLock, PartialPull, SnapshotName, printable};

/// A directory with more files is not listed.
pub(crate) const MAX_FILES: usize = 100_000;

/// Shorter files are not images (the script of a remote host has the same limit).
const MIN_IMAGE_BYTES: u64 = 16;

/// More partial files of a directory are not listed.
pub(crate) const MAX_PARTIALS: usize = 1000;

/// Maximum length of a damage record that is read.
const MAX_DAMAGE_FILE_BYTES: u64 = 64 << 10;
/// Length of all damage records of a directory that are read. Who may write to the directory may also remove them.
const MAX_DAMAGE_BYTES: usize = 8 << 20;
const MAX_PROBLEM_CHARS: usize = 500;

/// The images of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DirListing {
    /// Without symbolic links, so that each file has one path.
    pub dir: PathBuf,
    /// Whether the directory exists.
    pub is_present: bool,
    /// Paths of `*.qcow2`.
    pub images: Vec<PathBuf>,
    /// Paths of all other files, but those that snapdeck itself writes: some may be images.
    pub others: Vec<PathBuf>,
    /// Directories of organizations whose images are unknown, and the cause.
    pub unlisted: Vec<String>,
    /// Damage records by path of the image.
    pub damages: Vec<(PathBuf, Damage)>,
    /// Locks that are held in it.
    pub locks: Vec<HostLock>,
    /// Partial files of pulls, by name.
    pub partials: Vec<PartialPull>,
    /// Space of its file system, if it exists.
    pub space: Option<DiskSpace>,
}

impl DirListing {
    /// Adds a file by its path in the directory: its name, or `ORG/NAME` in that of an organization.
    pub(crate) fn add_file(&mut self, name: &Path) {
        let text = name.to_string_lossy();
        if text.ends_with(".qcow2") {
            self.images.push(self.dir.join(name));
        } else if !is_own_file(&text) {
            self.others.push(self.dir.join(name));
        }
    }

    /// Adds the directory of an organization that cannot be listed.
    pub(crate) fn add_unlisted(&mut self, organization: &str, cause: &str) {
        let dir = self.dir.join(printable(organization));
        self.unlisted.push(format!(
            "images in {} ({})",
            dir.display(),
            printable(cause)
        ));
    }
}

/// Returns whether snapdeck writes the file of this name, and no guest uses it.
fn is_own_file(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    const SUFFIXES: [&str; 4] = [".lock", ".qcow2.partial", ".partial.mark", ".qcow2.damaged"];
    name.starts_with('.') && SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Parses the damage record in the file `name`; `None` if it is not one. Returns the path of its image, too.
pub(crate) fn parse_damage(dir: &Path, name: &str, json: &[u8]) -> Option<(PathBuf, Damage)> {
    let name = name.strip_prefix('.')?.strip_suffix(".qcow2.damaged")?;
    let image = SnapshotName::from_flat(name)?.file_name();
    let mut damage: Damage = serde_json::from_slice(json).ok()?;
    damage.problem = damage.problem.chars().take(MAX_PROBLEM_CHARS).collect();
    Some((dir.join(image), damage))
}

/// Lists the snapshots directory of this machine, and the directories of organizations in it, as far as these can be listed. Blocks.
///
/// # Errors
/// As [`list_images`].
pub(crate) fn list_snapshots(settings: &HostSettings) -> io::Result<DirListing> {
    let path = &*settings.snapshots_dir;
    let mut listing = list_images(path)?;
    let organizations = settings.organizations.iter();
    for organization in organizations.filter(|name| settings.is_organization(name)) {
        let names = match list_organization(&listing.dir, organization) {
            Ok(names) => names,
            // What is not a directory has no snapshots.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(nix::libc::ENOENT | nix::libc::ENOTDIR | nix::libc::ELOOP)
                ) =>
            {
                continue;
            }
            Err(error) => {
                listing.add_unlisted(organization, &error.to_string());
                continue;
            }
        };
        names
            .iter()
            .for_each(|name| listing.add_file(&Path::new(organization).join(name)));
    }
    Ok(listing)
}

/// Returns the names of the files of a directory, never through a link.
fn list_organization(dir: &Path, name: &str) -> io::Result<Vec<OsString>> {
    let flags = nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
    let mut options = OpenOptions::new();
    let opened = options
        .read(true)
        .custom_flags(flags)
        .open(dir.join(name))?;
    let mut names = Vec::new();
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    for (index, entry) in entries.enumerate() {
        if index == MAX_FILES {
            let message = format!("it has more than {MAX_FILES} files");
            return Err(io::Error::other(message));
        }
        let entry = entry?;
        let metadata = entry.metadata().ok();
        if may_be_image(&entry.file_name(), metadata.as_ref()) {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

/// Returns whether a file is to be listed. Where it cannot be examined, it is reported later.
fn may_be_image(name: &OsStr, metadata: Option<&Metadata>) -> bool {
    metadata.is_none_or(|metadata| {
        !metadata.is_dir() && (!metadata.is_file() || metadata.len() >= MIN_IMAGE_BYTES)
    }) || name.as_bytes().ends_with(b".qcow2")
}

/// Lists the images of a directory of this machine. Blocks.
///
/// # Errors
/// An I/O error if the directory exists but cannot be listed.
pub(crate) fn list_images(path: &str) -> io::Result<DirListing> {
    let with_path = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    let mut listing = DirListing {
        dir: path.into(),
        ..DirListing::default()
    };
    let dir = match std::fs::canonicalize(path) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
        Err(error) => return Err(with_path(error)),
    };
    (listing.dir, listing.is_present) = (dir.clone(), true);
    listing.space = DiskSpace::read_local(&dir);
    let (mut lock_names, mut damage_bytes) = (Vec::new(), 0);
    for (index, entry) in std::fs::read_dir(&dir).map_err(with_path)?.enumerate() {
        if index == MAX_FILES {
            let message = format!("it has more than {MAX_FILES} files");
            return Err(with_path(io::Error::other(message)));
        }
        let file = entry.map_err(with_path)?.path();
        let name = file.file_name().unwrap_or_default();
        let metadata = file.symlink_metadata().ok();
        if may_be_image(name, metadata.as_ref()) {
            listing.add_file(Path::new(name));
        }
        if let Some(name) = name.to_str()
            && held_locks::parse_lock_name(name).is_some()
        {
            lock_names.push(name.to_owned());
        }
        if let Some(name) = name.to_str()
            && metadata.as_ref().is_some_and(Metadata::is_dir)
        {
            listing.partials.extend(read_partial(&file, name));
        }
        if let Some(name) = name.to_str()
            && name.ends_with(".qcow2.damaged")
            && metadata.is_some_and(|metadata| is_damage_record(&metadata))
            && damage_bytes < MAX_DAMAGE_BYTES
            // One that cannot be read, or was removed meanwhile, is ignored.
            && let Some(json) = read_damage(&file)
        {
            damage_bytes += json.len();
            listing.damages.extend(parse_damage(&dir, name, &json));
        }
    }
    listing.locks = held_locks::read_local(&dir, &lock_names);
    listing.partials.truncate(MAX_PARTIALS);
    Ok(listing)
}

/// Returns whether a file may be a damage record: a short one with one name.
fn is_damage_record(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.nlink() == 1 && metadata.len() < MAX_DAMAGE_FILE_BYTES
}

/// Returns the partial file in the directory `name` of a pull, if it is one.
fn read_partial(dir: &Path, name: &str) -> Option<PartialPull> {
    let snapshot = name.strip_prefix('.')?.strip_suffix(".qcow2.pull")?;
    let name = SnapshotName::from_flat(snapshot)?;
    let metadata = std::fs::symlink_metadata(dir.join("partial")).ok()?;
    metadata.is_file().then(|| PartialPull {
        name,
        allocated_bytes: metadata.blocks().saturating_mul(512),
        modified: Timestamp::from_second(metadata.mtime()).ok(),
    })
}

/// Parses a partial file of a remote host: its path in the snapshots directory, and its blocks of 512 bytes and time.
pub(crate) fn parse_partial(path: &str, text: &[u8]) -> Option<PartialPull> {
    let name = path
        .strip_prefix('.')?
        .strip_suffix(".qcow2.pull/partial")?;
    let (blocks, seconds) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some(PartialPull {
        name: SnapshotName::from_flat(name)?,
        allocated_bytes: blocks.parse::<u64>().ok()?.saturating_mul(512),
        modified: Timestamp::from_second(seconds.parse().ok()?).ok(),
    })
}

/// Reads a damage record; never the target of a link.
fn read_damage(path: &Path) -> Option<Vec<u8>> {
    let file = open_no_follow(OpenOptions::new().read(true), path).ok()?;
    let mut json = Vec::new();
    file.take(MAX_DAMAGE_FILE_BYTES)
        .read_to_end(&mut json)
        .ok()?;
    Some(json)
}

/// Source of file metadata.
pub(crate) enum FileMetadataSource {
    /// The file system of this machine.
    Local,
    /// Metadata from another machine. Paths that were not fetched are collected, so that the caller can fetch them and
    /// scan again.
    Prefetched {
        /// Canonical path and metadata by path.
        metadata: HashMap<PathBuf, (PathBuf, io::Result<ImageFile>)>,
        /// Requested paths that were not fetched.
        missing: BTreeSet<PathBuf>,
    },
}

/// Returns the canonical path of the part that exists, with the rest as it is.
fn canonicalize_existing(path: &Path) -> PathBuf {
    let canonical = path.ancestors().find_map(|existing| {
        let canonical = std::fs::canonicalize(existing).ok()?;
        let rest = path.strip_prefix(existing).ok()?;
        Some(match rest.as_os_str().is_empty() {
            true => canonical,
            false => canonical.join(rest),
        })
    });
    canonical.unwrap_or_else(|| path.to_owned())
}

impl FileMetadataSource {
    /// Returns the canonical path, as far as the file exists.
    pub(crate) fn canonicalize(&mut self, path: &Path) -> PathBuf {
        #[cfg(test)]
        tests::count_read();
        match self {
            Self::Local => canonicalize_existing(path),
            Self::Prefetched { metadata, missing } => match metadata.get(path) {
                Some((canonical, _)) => canonical.clone(),
                None => {
                    missing.insert(path.to_owned());
                    path.to_owned()
                }
            },
        }
    }

    /// Returns the metadata of the file at a canonical path.
    pub(crate) fn stat(&mut self, file: &Path) -> io::Result<ImageFile> {
        #[cfg(test)]
        tests::count_read();
        match self {
            Self::Local => image_file::inspect(file),
            Self::Prefetched { metadata, missing } => match metadata.get(file) {
                Some((_, Ok(image))) => Ok(image.clone()),
                Some((_, Err(error))) => Err(copy_error(error)),
                None => {
                    missing.insert(file.to_owned());
                    Err(io::ErrorKind::NotFound.into())
                }
            },
        }
    }

    /// Whether the file was fetched.
    pub(crate) fn has_metadata(&self, path: &Path) -> bool {
        matches!(self, Self::Prefetched { metadata, .. } if metadata.contains_key(path))
    }
}

/// [`io::Error`] is not `Clone`.
pub(super) fn copy_error(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    thread_local! {
        static READS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count_read() {
        READS.set(READS.get() + 1);
    }

    /// Returns how many paths this thread has resolved and files it has inspected.
    pub(in crate::inventory) fn reads() -> usize {
        READS.get()
    }
}
