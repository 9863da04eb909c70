//! Records of what this snapdeck creates on hosts and in stores. Leftovers of an interrupted job are removed without
//! asking only if they are in these records: a name proves nothing.
//!
//! ```text
//! STATE/owned/ID.json    one created directory, file or upload; written before it is created, removed with it
//! STATE/installation     the random id of this installation
//! ```
//! A directory or file has a random id inside (an [`OwnerMark`]) that its record has, too. An upload has the id that the
//! store gave it.

mod mark;
mod private;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use mark::{MAX_MARK_BYTES, OwnerMark, describe_self, random_id};
pub use private::{append_private_file, create_private_dir, is_private, open_private_file};

/// Records older than this are dropped: what they name was removed by a watchdog, or needs a decision.
const MAX_RECORD_AGE: SignedDuration = SignedDuration::from_hours(90 * 24);
const MAX_RECORD_BYTES: u64 = 16 * 1024;
/// Records that are read at most.
const MAX_RECORDS: usize = 10_000;

/// A created directory, file or upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// URI of the host, or location of the bucket.
    location: String,
    /// Path or key.
    path: String,
    /// The id in its [`OwnerMark`], or the id of the upload.
    id: String,
    created: Timestamp,
}

/// The records of one state directory; clones share them.
///
/// Without a state directory they are kept in memory: this process cleans up after itself, and later ones ask.
#[derive(Debug, Clone, Default)]
pub struct OwnershipRecords {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    dir: Option<PathBuf>,
    installation: OnceLock<String>,
    /// By the name of the record's file.
    memory: Mutex<BTreeMap<String, Record>>,
}

impl OwnershipRecords {
    /// Returns records that end with this process.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Returns the records in a state directory, which need not exist, and drops those that are too old.
    pub fn open(state: &Path) -> Self {
        let records = Self {
            inner: Arc::new(Inner {
                dir: Some(state.join("owned")),
                ..Inner::default()
            }),
        };
        let now = Timestamp::now();
        for (path, record) in records.read_all() {
            if now.duration_since(record.created) > MAX_RECORD_AGE {
                let _ = fs::remove_file(path);
            }
        }
        records
    }

    /// Returns the random id of the installation that has this state directory; without a writable one, that of this process.
    pub fn installation(&self) -> &str {
        self.inner.installation.get_or_init(|| {
            let state = self.inner.dir.as_deref().and_then(Path::parent);
            let id = state.map(|state| read_or_create_id(&state.join("installation")));
            match id {
                Some(Ok(id)) => id,
                _ => random_id(),
            }
        })
    }

    /// Records that something with this `id` is about to be created.
    ///
    /// Without a writable state directory only this process knows it.
    pub fn record(&self, location: &str, path: &str, id: &str) {
        let record = Record {
            location: location.to_owned(),
            path: path.to_owned(),
            id: id.to_owned(),
            created: Timestamp::now(),
        };
        let name = random_id();
        if let Some(dir) = &self.inner.dir
            && let Err(error) = write(dir, &name, &record)
        {
            tracing::warn!(
                "cannot record {path} in {}: {error}; if snapdeck is killed, it is not cleaned up by itself",
                dir.display()
            );
        }
        self.memory().insert(name, record);
    }

    /// Returns whether it is recorded under exactly this location, path and id.
    pub fn contains(&self, location: &str, path: &str, id: &str) -> bool {
        let is_same = |record: &Record| {
            !id.is_empty()
                && (&*record.location, &*record.path, &*record.id) == (location, path, id)
        };
        self.memory().values().any(is_same)
            || self.read_all().iter().any(|(_, record)| is_same(record))
    }

    /// Returns the id that is recorded for a location and path; the newest, if there are several.
    pub fn find_id(&self, location: &str, path: &str) -> Option<String> {
        let in_memory: Vec<Record> = self.memory().values().cloned().collect();
        let on_disk = self.read_all().into_iter().map(|(_, record)| record);
        let all = in_memory.into_iter().chain(on_disk);
        let same = all.filter(|record| (&*record.location, &*record.path) == (location, path));
        same.max_by_key(|record| record.created)
            .map(|record| record.id)
    }

    /// Removes the record of something that no longer exists.
    pub fn remove(&self, location: &str, path: &str, id: &str) {
        let is_same = |record: &Record| {
            (&*record.location, &*record.path, &*record.id) == (location, path, id)
        };
        let mut names = Vec::new();
        self.memory().retain(|name, record| {
            let keep = !is_same(record);
            if !keep {
                names.push(name.clone());
            }
            keep
        });
        let Some(dir) = &self.inner.dir else { return };
        let mut paths: Vec<PathBuf> = names.iter().map(|name| record_path(dir, name)).collect();
        if paths.is_empty() {
            // One of an earlier process.
            let all = self.read_all().into_iter();
            paths.extend(
                all.filter(|(_, record)| is_same(record))
                    .map(|(path, _)| path),
            );
        }
        for path in paths {
            // A record of nothing does no harm.
            let _ = fs::remove_file(path);
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Record>> {
        let memory = &self.inner.memory;
        memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self) -> Vec<(PathBuf, Record)> {
        let Some(Ok(entries)) = self.inner.dir.as_ref().map(fs::read_dir) else {
            return Vec::new();
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let json = paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "json"));
        json.take(MAX_RECORDS)
            .filter_map(|path| {
                let mut text = Vec::new();
                let file = open_private_file(&path).ok()?;
                file.take(MAX_RECORD_BYTES).read_to_end(&mut text).ok()?;
                Some((path, serde_json::from_slice(&text).ok()?))
            })
            .collect()
    }
}

fn record_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.json"))
}

fn write(dir: &Path, name: &str, record: &Record) -> io::Result<()> {
    create_private_dir(dir)?;
    // A private file: a half-written record would prove nothing, and another user must not add one.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.persist(record_path(dir, name))
        .map_err(|error| error.error)?;
    Ok(())
}

fn read_or_create_id(path: &Path) -> io::Result<String> {
    match read_id(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        id => return id,
    }
    let state = path.parent().unwrap_or(path);
    create_private_dir(state)?;
    let mut file = tempfile::NamedTempFile::new_in(state)?;
    file.write_all(random_id().as_bytes())?;
    file.as_file().sync_all()?;
    // Another process may have created it.
    let _ = file.persist_noclobber(path);
    read_id(path)
}

fn read_id(path: &Path) -> io::Result<String> {
    let mut id = String::new();
    open_private_file(path)?
        .take(MAX_MARK_BYTES)
        .read_to_string(&mut id)?;
    match id.is_empty() {
        true => Err(io::ErrorKind::InvalidData.into()),
        false => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_later_process_knows_what_is_recorded_until_it_is_removed() {
        let state = tempfile::tempdir().unwrap();
        let records = OwnershipRecords::open(state.path());
        records.record("qemu:///system", "/s/.a.1.backup", "0a");
        let later = OwnershipRecords::open(state.path());
        assert!(later.contains("qemu:///system", "/s/.a.1.backup", "0a"));
        assert_eq!(
            later.find_id("qemu:///system", "/s/.a.1.backup").as_deref(),
            Some("0a")
        );
        for (location, path, id) in [
            ("qemu+ssh://other/system", "/s/.a.1.backup", "0a"),
            ("qemu:///system", "/s/.a.2.backup", "0a"),
            ("qemu:///system", "/s/.a.1.backup", "0b"),
            ("qemu:///system", "/s/.a.1.backup", ""),
        ] {
            assert!(
                !later.contains(location, path, id),
                "{location} {path} {id}"
            );
        }
        later.remove("qemu:///system", "/s/.a.1.backup", "0a");
        let last = OwnershipRecords::open(state.path());
        assert!(!last.contains("qemu:///system", "/s/.a.1.backup", "0a"));
    }

    #[test]
    fn without_a_state_directory_only_this_process_knows() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("file");
        fs::write(&file, "").unwrap();
        for records in [OwnershipRecords::in_memory(), OwnershipRecords::open(&file)] {
            records.record("s3://b", "k", "1");
            assert!(records.clone().contains("s3://b", "k", "1"));
            records.remove("s3://b", "k", "1");
            assert!(!records.contains("s3://b", "k", "1"));
        }
    }

    #[test]
    fn an_installation_keeps_its_id() {
        let (state, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = |state: &Path| OwnershipRecords::open(state).installation().to_owned();
        let own = id(state.path());
        assert_eq!(id(state.path()), own);
        assert_ne!(id(other.path()), own);
        assert_ne!(OwnershipRecords::in_memory().installation(), own);
        // One that another user could have written is not its own.
        fs::remove_file(other.path().join("installation")).unwrap();
        std::os::unix::fs::symlink(
            state.path().join("installation"),
            other.path().join("installation"),
        )
        .unwrap();
        assert_ne!(id(other.path()), own);
    }

    #[test]
    fn old_and_damaged_records_do_not_count() {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("owned");
        let record = Record {
            location: "l".into(),
            path: "p".into(),
            id: "i".into(),
            created: Timestamp::now() - SignedDuration::from_hours(91 * 24),
        };
        write(&dir, "old", &record).unwrap();
        fs::write(dir.join("bad.json"), "{").unwrap();
        assert!(!OwnershipRecords::open(state.path()).contains("l", "p", "i"));
        assert!(!record_path(&dir, "old").exists());
    }
}
