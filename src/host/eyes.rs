//! How a survey sees a host's files: directly, or by what was fetched of them before.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::image_file::{self, ImageFile};
use snapdeck_model::Damage;

/// Files of a directory that are looked at.
const MAX_FILES: usize = 100_000;

/// Longest note of damage that is read, in bytes.
const MAX_NOTE: u64 = 64 << 10;

/// The images of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The directory, links resolved, so that files are known by one name.
    pub dir: PathBuf,
    /// Is it there?
    pub there: bool,
    /// Paths of what ends in `.qcow2`.
    pub images: Vec<PathBuf>,
    /// What was noted to be wrong with them.
    pub damages: Vec<(PathBuf, Damage)>,
}

/// The image that a note of damage is about, by the note's name, and what it says; `None` for what is none.
pub(crate) fn damage(dir: &Path, name: &str, json: &[u8]) -> Option<(PathBuf, Damage)> {
    let image = name.strip_prefix('.')?.strip_suffix(".damaged")?;
    Some((dir.join(image), serde_json::from_slice(json).ok()?))
}

/// Lists the images of a directory of this machine. Blocks.
///
/// # Errors
/// The system's, where it is there but cannot be listed.
pub(crate) fn list(path: &str) -> io::Result<Listed> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    let missing = |dir| Listed {
        dir,
        there: false,
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
            && file.symlink_metadata().is_ok_and(|seen| seen.is_file() && seen.len() < MAX_NOTE)
            // One that went away, or cannot be read, says nothing.
            && let Ok(json) = std::fs::read(&file)
        {
            damages.extend(damage(&dir, name, &json));
        }
    }
    Ok(Listed {
        dir,
        there: true,
        images,
        damages,
    })
}

/// What is known of files.
pub(crate) enum Eyes {
    /// They are on this machine.
    Here,
    /// They were fetched; what is asked for and was not is noted, so that it can be fetched and the survey
    /// taken again.
    Fetched {
        /// Where each path really is, and what was seen there.
        seen: HashMap<PathBuf, (PathBuf, io::Result<ImageFile>)>,
        /// Asked for in vain.
        missed: BTreeSet<PathBuf>,
    },
}

impl Eyes {
    /// The file by its one name: links resolved, as far as it is there.
    pub(crate) fn canonical(&mut self, path: &Path) -> PathBuf {
        match self {
            Self::Here => std::fs::canonicalize(path).unwrap_or_else(|_| {
                match (path.parent(), path.file_name()) {
                    (Some(dir), Some(name)) => std::fs::canonicalize(dir)
                        .map_or_else(|_| path.into(), |dir| dir.join(name)),
                    _ => path.into(),
                }
            }),
            Self::Fetched { seen, missed } => match seen.get(path) {
                Some((real, _)) => real.clone(),
                None => {
                    missed.insert(path.to_owned());
                    path.to_owned()
                }
            },
        }
    }

    /// What a file is, by its one name.
    pub(crate) fn look(&mut self, file: &Path) -> io::Result<ImageFile> {
        match self {
            Self::Here => image_file::look(file),
            Self::Fetched { seen, missed } => match seen.get(file) {
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
    pub(crate) fn has_seen(&self, path: &Path) -> bool {
        matches!(self, Self::Fetched { seen, .. } if seen.contains_key(path))
    }
}
