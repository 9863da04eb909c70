//! How a survey sees a host's files: directly, or by what was fetched of them before.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::image_file::{self, ImageFile};
use snapdeck_model::Damage;

/// Files of a directory that are looked at.
const MAX_FILES: usize = 100_000;

/// Longest note of damage that is read, in bytes.
const MAX_DAMAGE_FILE_BYTES: u64 = 64 << 10;

/// The images of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirListing {
    /// The directory, links resolved, so that files are known by one name.
    pub dir: PathBuf,
    /// Is it there?
    pub is_present: bool,
    /// Paths of what ends in `.qcow2`.
    pub images: Vec<PathBuf>,
    /// What was noted to be wrong with them.
    pub damages: Vec<(PathBuf, Damage)>,
}

/// The image that a note of damage is about, by the note's name, and what it says; `None` for what is none.
pub(crate) fn parse_damage(dir: &Path, name: &str, json: &[u8]) -> Option<(PathBuf, Damage)> {
    let image = name.strip_prefix('.')?.strip_suffix(".damaged")?;
    Some((dir.join(image), serde_json::from_slice(json).ok()?))
}

/// Lists the images of a directory of this machine. Blocks.
///
/// # Errors
/// The system's, where it is there but cannot be listed.
pub(crate) fn list_images(path: &str) -> io::Result<DirListing> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    let missing = |dir| DirListing {
        dir,
        is_present: false,
        images: Vec::new(),
        damages: Vec::new(),
    };
    let dir = match std::fs::canonicalize(path) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(missing(path.into())),
        Err(error) => return Err(named(error)),
    };
    let (mut images, mut damages) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(&dir).map_err(named)?.take(MAX_FILES) {
        let file = entry.map_err(named)?.path();
        if file.extension().is_some_and(|ending| ending == "qcow2") {
            images.push(file);
        } else if let Some(name) = file.file_name().and_then(OsStr::to_str)
            && name.ends_with(".qcow2.damaged")
            && file.symlink_metadata().is_ok_and(|seen| seen.is_file() && seen.len() < MAX_DAMAGE_FILE_BYTES)
            // One that went away, or cannot be read, says nothing.
            && let Ok(json) = std::fs::read(&file)
        {
            damages.extend(parse_damage(&dir, name, &json));
        }
    }
    Ok(DirListing {
        dir,
        is_present: true,
        images,
        damages,
    })
}

/// What is known of files.
pub(crate) enum FileMetadataSource {
    /// They are on this machine.
    Local,
    /// They were fetched; what is asked for and was not is noted, so that it can be fetched and the survey
    /// taken again.
    Prefetched {
        /// Where each path really is, and what was seen there.
        metadata: HashMap<PathBuf, (PathBuf, io::Result<ImageFile>)>,
        /// Asked for in vain.
        missing: BTreeSet<PathBuf>,
    },
}

impl FileMetadataSource {
    /// The file by its one name: links resolved, as far as it is there.
    pub(crate) fn canonicalize(&mut self, path: &Path) -> PathBuf {
        match self {
            Self::Local => std::fs::canonicalize(path).unwrap_or_else(|_| {
                match (path.parent(), path.file_name()) {
                    (Some(dir), Some(name)) => std::fs::canonicalize(dir)
                        .map_or_else(|_| path.into(), |dir| dir.join(name)),
                    _ => path.into(),
                }
            }),
            Self::Prefetched {
                metadata: seen,
                missing: missed,
            } => match seen.get(path) {
                Some((real, _)) => real.clone(),
                None => {
                    missed.insert(path.to_owned());
                    path.to_owned()
                }
            },
        }
    }

    /// What a file is, by its one name.
    pub(crate) fn stat(&mut self, file: &Path) -> io::Result<ImageFile> {
        match self {
            Self::Local => image_file::inspect(file),
            Self::Prefetched {
                metadata: seen,
                missing: missed,
            } => match seen.get(file) {
                Some((_, Ok(seen))) => Ok(seen.clone()),
                Some((_, Err(error))) => Err(io::Error::new(error.kind(), error.to_string())),
                None => {
                    missed.insert(file.to_owned());
                    Err(io::ErrorKind::NotFound.into())
                }
            },
        }
    }

    /// Was the file seen?
    pub(crate) fn has_metadata(&self, path: &Path) -> bool {
        matches!(self, Self::Prefetched { metadata: seen, .. } if seen.contains_key(path))
    }
}
