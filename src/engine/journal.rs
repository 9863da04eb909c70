//! The journal: operations that were taken on and are not over, noted in the state directory, so that the next
//! start takes up what this process left.
//!
//! ```text
//! STATE/journal/SESSION/lock     held (flock) by its process as long as that lives
//!                       7.json   job 7 of that process; gone when the job is over
//! ```
//! It outlives the process, not the machine: nothing is brought to the disk by force.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::view::JobId;
use crate::model::settings::Settings;
use crate::model::{Error, Kind, Operation, Result};

/// What is older is told, and not done any more: whoever asked for it has long asked somebody else.
const AGE: SignedDuration = SignedDuration::from_hours(24);
/// Longest note, in bytes, and notes of one session that are looked at.
const NOTE: u64 = 64 * 1024;
const NOTES: usize = 1000;
const LOCK: &str = "lock";

/// This process's session.
pub(super) struct Journal {
    root: PathBuf,
    dir: PathBuf,
    _lock: File,
}

/// An operation that was taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub operation: Operation,
    /// When it was first asked for.
    pub taken: Timestamp,
    /// The host's URI and the bucket, as the settings had them: the names of others' mean other things.
    uri: Option<String>,
    bucket: String,
}

impl Note {
    /// Of an operation under `settings`, on a bucket at `location`.
    pub fn new(
        operation: Operation,
        taken: Timestamp,
        settings: &Settings,
        location: &str,
    ) -> Self {
        Self {
            uri: uri_of(&operation, settings),
            bucket: location.to_owned(),
            operation,
            taken,
        }
    }

    /// Does it speak of what these settings speak of?
    pub fn is_of(&self, settings: &Settings, location: &str) -> bool {
        self.uri == uri_of(&self.operation, settings) && self.bucket == location
    }

    fn is_old(&self) -> bool {
        Timestamp::now().duration_since(self.taken) > AGE
    }
}

fn uri_of(operation: &Operation, settings: &Settings) -> Option<String> {
    let host = operation.host()?;
    let mut hosts = settings.hosts.iter();
    hosts
        .find(|known| known.name == *host)
        .map(|known| known.uri.clone())
}

impl Journal {
    /// Opens a session of its own under `state`.
    ///
    /// # Errors
    /// `Failed` where it cannot be written there.
    pub fn open(state: &Path) -> Result<Self> {
        let root = state.join("journal");
        let open = || -> io::Result<Self> {
            fs::create_dir_all(&root)?;
            // Hidden until it is locked: nobody may take it for one that was left.
            let made = tempfile::Builder::new().prefix(".").tempdir_in(&root)?;
            let lock = File::create_new(made.path().join(LOCK))?;
            lock.lock()?;
            let hidden = made.keep();
            let name = hidden.file_name().unwrap_or_default().to_string_lossy();
            let dir = root.join(format!(
                "{}-{}",
                std::process::id(),
                name.trim_start_matches('.')
            ));
            fs::rename(&hidden, &dir)?;
            Ok(Self {
                dir,
                _lock: lock,
                root: root.clone(),
            })
        };
        open().map_err(|error| {
            Error::new(
                Kind::Failed,
                format!("cannot keep a journal in {}", root.display()),
            )
            .because(error)
            .hint("it needs a directory it may write to; XDG_STATE_HOME names another")
        })
    }

    fn path(&self, id: JobId) -> PathBuf {
        self.dir.join(format!("{}.json", id.0))
    }

    /// Notes an operation before it begins.
    ///
    /// # Errors
    /// The system's; the operation may begin nevertheless.
    pub fn note(&self, id: JobId, note: &Note) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer(&mut file, note)?;
        file.persist(self.path(id)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Strikes a job that is over.
    pub fn strike(&self, id: JobId) {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot strike job {} from the journal: {error}", id.0);
            }
            _ => {}
        }
    }

    /// Gives `take` what processes that are gone have left and `is_ours` holds of, oldest first; each is struck
    /// there once it was taken.
    pub fn take_over(&self, is_ours: impl Fn(&Note) -> bool, mut take: impl FnMut(Note)) {
        let Ok(sessions) = fs::read_dir(&self.root) else {
            return;
        };
        let mut held = Vec::new();
        let mut found = Vec::new();
        for dir in sessions.flatten().map(|entry| entry.path()) {
            let hidden = dir
                .file_name()
                .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden || dir == self.dir {
                continue;
            }
            match lock_left(&dir) {
                Ok(Some(lock)) => held.push((dir.clone(), lock)),
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!("cannot look at {}: {error}", dir.display());
                    continue;
                }
            }
            found.extend(notes(&dir));
        }
        found.sort_by_key(|(_, note)| note.taken);
        for (path, note) in found {
            if !is_ours(&note) {
                continue;
            }
            let title = note.operation.title();
            match note.is_old() {
                true => tracing::warn!(
                    "{title} was asked for {} and not finished: it is too old to go on",
                    note.taken
                ),
                false => take(note),
            }
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!("cannot strike {}: {error}", path.display());
            }
        }
        for (dir, lock) in held {
            clear(&dir);
            drop(lock);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        clear(&self.dir);
    }
}

/// The lock of a session whose process is gone; `None` while that lives.
fn lock_left(dir: &Path) -> io::Result<Option<File>> {
    let lock = match File::open(dir.join(LOCK)) {
        Ok(lock) => lock,
        // Somebody else has cleared it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The notes of a session. What is none of ours stays.
fn notes(dir: &Path) -> Vec<(PathBuf, Note)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let notes = paths.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let read = |path: PathBuf| {
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(NOTE).read_to_end(&mut text));
        let note = match read {
            Ok(_) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        note.map_err(|error| tracing::warn!("cannot read {}: {error}", path.display()))
            .ok()
            .map(|note| (path, note))
    };
    notes.take(NOTES).filter_map(read).collect()
}

/// Removes a session that has no notes.
fn clear(dir: &Path) {
    let is_empty = fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))
    });
    if is_empty {
        // One that stays is cleared by the next start.
        let _ = fs::remove_file(dir.join(LOCK));
        let _ = fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn note(name: &str) -> Note {
        let operation = Operation::Pull {
            host: "local".parse().unwrap(),
            name: name.parse().unwrap(),
            overwrite: false,
        };
        Note {
            operation,
            taken: Timestamp::now(),
            uri: Some("qemu:///system".into()),
            bucket: "s3://b/".into(),
        }
    }

    /// A session whose process is gone.
    fn left(state: &Path, notes: &[Note]) {
        let journal = Journal::open(state).unwrap();
        for (id, note) in (1..).zip(notes) {
            journal.note(JobId(id), note).unwrap();
        }
        let Journal { dir, .. } = &journal;
        assert!(dir.join("1.json").exists());
    }

    fn taken(journal: &Journal) -> Vec<Note> {
        let mut notes = Vec::new();
        let ours = note("any");
        let is_ours = |note: &Note| (&note.uri, &note.bucket) == (&ours.uri, &ours.bucket);
        journal.take_over(is_ours, |note| notes.push(note));
        notes
    }

    #[test]
    fn what_was_left_is_taken_up_once_and_what_is_over_is_not() {
        let state = tempfile::tempdir().unwrap();
        left(state.path(), &[note("a"), note("b")]);
        let journal = Journal::open(state.path()).unwrap();
        journal.note(JobId(1), &note("c")).unwrap();
        let other = Journal::open(state.path()).unwrap();
        let names = |notes: Vec<Note>| -> Vec<String> {
            notes.iter().map(|note| note.operation.title()).collect()
        };
        // Not c: its process lives.
        assert_eq!(names(taken(&other)), ["pull a → local", "pull b → local"]);
        assert!(taken(&journal).is_empty());
        journal.strike(JobId(1));
        drop(journal);
        assert!(taken(&other).is_empty());
        drop(other);
        assert_eq!(
            fs::read_dir(state.path().join("journal")).unwrap().count(),
            0
        );
    }

    #[test]
    fn what_is_old_is_dropped_and_what_others_mean_is_left_to_them() {
        let state = tempfile::tempdir().unwrap();
        let mut old = note("old");
        old.taken = Timestamp::now() - SignedDuration::from_hours(25);
        let mut others = note("others");
        others.uri = Some("qemu+ssh://elsewhere/system".into());
        left(state.path(), &[old, others, note("ours")]);
        let journal = Journal::open(state.path()).unwrap();
        let taken = taken(&journal);
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert_eq!(
            taken[0],
            Note {
                taken: taken[0].taken,
                ..note("ours")
            }
        );
        drop(journal);
        let sessions: Vec<_> = fs::read_dir(state.path().join("journal"))
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(sessions.len(), 1);
        assert_eq!(
            fs::read_dir(sessions[0].path()).unwrap().count(),
            2,
            "the lock and a note"
        );
    }
}
