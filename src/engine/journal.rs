//! The journal: operations that were taken on and are not over, noted in the state directory, so that the next
//! start takes up what this process left.
//!
//! ```text
//! STATE/journal/SESSION/lock     held (flock) by its process as long as that lives
//!                       7.json   job 7 of that process; gone when the job is over
//!                       left-2.json   what an earlier process had left, until somebody decides what becomes of it
//! ```
//! It outlives the process, not the machine: nothing is brought to the disk by force.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::view::{InterruptedId, JobId};
use snapdeck_model::settings::Settings;
use snapdeck_model::{Error, Kind, Operation, Result};

/// What is older is told, and not done any more: whoever asked for it has long asked somebody else.
const MAX_ENTRY_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Longest note, in bytes, and notes of one session that are looked at.
const MAX_ENTRY_BYTES: u64 = 64 * 1024;
const MAX_ENTRIES: usize = 1000;
const LOCK_FILE: &str = "lock";

/// This process's session.
pub(super) struct Journal {
    root: PathBuf,
    dir: PathBuf,
    /// Notes of others that were adopted.
    claimed_count: AtomicU64,
    _lock: File,
}

/// An operation that was taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalEntry {
    pub operation: Operation,
    /// When it was first asked for.
    #[serde(rename = "taken")]
    pub requested_at: Timestamp,
    /// The chain it is a link of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// The host's URI and the bucket, as the settings had them: the names of others' mean other things.
    uri: Option<String>,
    bucket: String,
}

/// One of several operations of which each begins when the one before has ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chain {
    /// Tells the chain from all others, of whatever process.
    name: String,
    /// Its place in it.
    #[serde(rename = "link")]
    index: usize,
}

impl JournalEntry {
    /// The same as a link of a chain.
    pub(crate) fn in_chain(self, name: String, link: usize) -> Self {
        Self {
            chain: Some(Chain { name, index: link }),
            ..self
        }
    }

    /// The name of its chain.
    pub(crate) fn chain_name(&self) -> Option<&str> {
        self.chain.as_ref().map(|chain| &*chain.name)
    }

    /// By this they are brought into their order: by age, and the links of a chain together.
    pub(crate) fn order(&self) -> (Timestamp, Option<(&str, usize)>) {
        let chain = self.chain.as_ref();
        (
            self.requested_at,
            chain.map(|chain| (&*chain.name, chain.index)),
        )
    }

    /// Of an operation under `settings`, on a bucket at `location`.
    pub(crate) fn new(
        operation: Operation,
        taken: Timestamp,
        settings: &Settings,
        location: &str,
    ) -> Self {
        Self {
            uri: uri_of(&operation, settings),
            bucket: location.to_owned(),
            chain: None,
            operation,
            requested_at: taken,
        }
    }

    /// Does it speak of what these settings speak of?
    pub(crate) fn is_of(&self, settings: &Settings, location: &str) -> bool {
        self.uri == uri_of(&self.operation, settings) && self.bucket == location
    }

    /// Was it asked for so long ago that nobody waits for it?
    pub(crate) fn is_old(&self) -> bool {
        Timestamp::now().duration_since(self.requested_at) > MAX_ENTRY_AGE
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
    pub(crate) fn open(state: &Path) -> Result<Self> {
        let root = state.join("journal");
        let open = || -> io::Result<Self> {
            fs::create_dir_all(&root)?;
            // Hidden until it is locked: nobody may take it for one that was left.
            let made = tempfile::Builder::new().prefix(".").tempdir_in(&root)?;
            let lock = File::create_new(made.path().join(LOCK_FILE))?;
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
                claimed_count: AtomicU64::new(0),
                _lock: lock,
                root: root.clone(),
            })
        };
        open().map_err(|error| {
            Error::new(
                Kind::Failed,
                format!("cannot open the journal in {}", root.display()),
            )
            .with_cause(error)
            .hint("it needs a writable directory; set XDG_STATE_HOME to choose another")
        })
    }

    fn path(&self, id: JobId) -> PathBuf {
        self.dir.join(format!("{}.json", id.0))
    }

    /// Notes an operation before it begins.
    ///
    /// # Errors
    /// The system's; the operation may begin nevertheless.
    pub(crate) fn record(&self, id: JobId, note: &JournalEntry) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer(&mut file, note)?;
        file.persist(self.path(id)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Strikes a job that is over.
    pub(crate) fn remove(&self, id: JobId) {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove job {} from the journal: {error}", id.0);
            }
            _ => {}
        }
    }

    /// A name for a chain that begins with that job, which no other one has or had.
    pub(crate) fn chain_name(&self, first: JobId) -> String {
        let session = self.dir.file_name().unwrap_or_default();
        format!("{}/{}", session.to_string_lossy(), first.0)
    }

    /// Moves what processes that are gone have left, and `is_ours` holds of, into this session; returns each with
    /// where it is now. It stays there, also past our end, until it is struck by [`Journal::remove_entry`].
    pub(crate) fn claim_orphans(
        &self,
        is_ours: impl Fn(&JournalEntry) -> bool,
    ) -> Vec<(PathBuf, JournalEntry)> {
        let Ok(sessions) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for dir in sessions.flatten().map(|entry| entry.path()) {
            let hidden = dir
                .file_name()
                .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden || dir == self.dir {
                continue;
            }
            let lock = match lock_orphan(&dir) {
                Ok(Some(lock)) => lock,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!("cannot read {}: {error}", dir.display());
                    continue;
                }
            };
            for (path, note) in read_entries(&dir)
                .into_iter()
                .filter(|(_, note)| is_ours(note))
            {
                let number = self.claimed_count.fetch_add(1, Ordering::Relaxed);
                let here = self.dir.join(format!("left-{number}.json"));
                match fs::rename(&path, &here) {
                    Ok(()) => found.push((here, note)),
                    Err(error) => tracing::warn!("cannot claim {}: {error}", path.display()),
                }
            }
            remove_dir(&dir);
            drop(lock);
        }
        found
    }

    /// Strikes what was adopted.
    pub(crate) fn remove_entry(path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// Something that was left, and its notes.
pub(super) struct InterruptedEntry {
    pub id: InterruptedId,
    pub requested_at: Timestamp,
    pub entries: Vec<(PathBuf, JournalEntry)>,
}

impl InterruptedEntry {
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let notes = self.entries.iter();
        notes.map(|(_, note)| note.operation.clone()).collect()
    }

    pub(crate) fn remove(&self) {
        for (path, _) in &self.entries {
            Journal::remove_entry(path);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        remove_dir(&self.dir);
    }
}

/// The lock of a session whose process is gone; `None` while that lives.
fn lock_orphan(dir: &Path) -> io::Result<Option<File>> {
    let lock = match File::open(dir.join(LOCK_FILE)) {
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
fn read_entries(dir: &Path) -> Vec<(PathBuf, JournalEntry)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let notes = paths.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let read = |path: PathBuf| {
        let mut text = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(MAX_ENTRY_BYTES).read_to_end(&mut text));
        let note = match read {
            Ok(_) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        note.map_err(|error| tracing::warn!("cannot read {}: {error}", path.display()))
            .ok()
            .map(|note| (path, note))
    };
    notes.take(MAX_ENTRIES).filter_map(read).collect()
}

/// Removes a session that has no notes.
fn remove_dir(dir: &Path) {
    let is_empty = fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK_FILE))
    });
    if is_empty {
        // One that stays is cleared by the next start.
        let _ = fs::remove_file(dir.join(LOCK_FILE));
        let _ = fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn note(name: &str) -> JournalEntry {
        let operation = Operation::Pull {
            host: "local".parse().unwrap(),
            name: name.parse().unwrap(),
            overwrite: false,
        };
        JournalEntry {
            operation,
            requested_at: Timestamp::now(),
            chain: None,
            uri: Some("qemu:///system".into()),
            bucket: "s3://b/".into(),
        }
    }

    /// A session whose process is gone.
    fn left(state: &Path, notes: &[JournalEntry]) {
        let journal = Journal::open(state).unwrap();
        for (id, note) in (1..).zip(notes) {
            journal.record(JobId(id), note).unwrap();
        }
        let Journal { dir, .. } = &journal;
        assert!(dir.join("1.json").exists());
    }

    fn adopted(journal: &Journal) -> Vec<(PathBuf, JournalEntry)> {
        let ours = note("any");
        let is_ours = |note: &JournalEntry| (&note.uri, &note.bucket) == (&ours.uri, &ours.bucket);
        let mut found = journal.claim_orphans(is_ours);
        found.sort_by(|(_, a), (_, b)| a.order().cmp(&b.order()));
        found
    }

    fn titles(notes: &[(PathBuf, JournalEntry)]) -> Vec<String> {
        let notes = notes.iter();
        notes
            .map(|(_, note)| crate::operation_title(&note.operation))
            .collect()
    }

    #[test]
    fn what_was_left_is_adopted_once_and_what_is_over_is_not() {
        let state = tempfile::tempdir().unwrap();
        left(state.path(), &[note("a"), note("b")]);
        let journal = Journal::open(state.path()).unwrap();
        journal.record(JobId(1), &note("c")).unwrap();
        let other = Journal::open(state.path()).unwrap();
        // Not c: its process lives.
        let found = adopted(&other);
        assert_eq!(titles(&found), ["pull a → local", "pull b → local"]);
        assert!(adopted(&journal).is_empty());
        // Nobody decided, and the next one finds it again.
        drop(other);
        let other = Journal::open(state.path()).unwrap();
        let found = adopted(&other);
        assert_eq!(titles(&found), ["pull a → local", "pull b → local"]);
        found
            .iter()
            .for_each(|(path, _)| Journal::remove_entry(path));
        journal.remove(JobId(1));
        drop(journal);
        assert!(adopted(&other).is_empty());
        drop(other);
        assert_eq!(
            fs::read_dir(state.path().join("journal")).unwrap().count(),
            0
        );
    }

    #[test]
    fn the_links_of_a_chain_come_together_and_what_others_mean_is_left_to_them() {
        let state = tempfile::tempdir().unwrap();
        let mut others = note("others");
        others.uri = Some("qemu+ssh://elsewhere/system".into());
        let mut all = [note("b2"), others, note("a"), note("b1"), note("c")];
        let at = Timestamp::now();
        all.iter_mut().for_each(|note| note.requested_at = at);
        all[0] = all[0].clone().in_chain("x/1".into(), 1);
        all[3] = all[3].clone().in_chain("x/1".into(), 0);
        all[4].requested_at = at - SignedDuration::from_hours(25);
        left(state.path(), &all);
        let journal = Journal::open(state.path()).unwrap();
        let found = adopted(&journal);
        let expected = ["c", "a", "b1", "b2"].map(|name| format!("pull {name} → local"));
        assert_eq!(titles(&found), expected);
        let old: Vec<bool> = found.iter().map(|(_, note)| note.is_old()).collect();
        assert_eq!(old, [true, false, false, false]);
        found
            .iter()
            .for_each(|(path, _)| Journal::remove_entry(path));
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
