//! The journal: operations that were submitted and have not finished, recorded in the state directory, so that the next
//! start can resume them.
//!
//! ```text
//! STATE/journal/SESSION/lock          held (flock) by its process
//!                       7.json        job 7 of that process; removed when the job finishes
//!                       left-2.json   entry of an earlier process, until it is resumed or discarded
//! ```
//! It survives the end of the process, not of the machine: nothing is synced to disk.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::job_target::JobTarget;
use super::view::{InterruptedId, JobId};
use snapdeck_model::settings::Settings;
use snapdeck_model::{Error, HostName, Kind, Operation, Result};
use snapdeck_ownership::{create_private_dir, is_private, open_private_file, random_id};

/// Older entries are reported and dropped: no client waits for their result.
const MAX_ENTRY_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Crashes after which only an operator resumes a job: what a store or a host sends may be the cause.
const MAX_CRASHES: u32 = 2;
const MAX_ENTRY_BYTES: u64 = 64 * 1024;
const MAX_ENTRIES: usize = 1000;
const LOCK_FILE: &str = "lock";

/// The journal session of this process.
pub(super) struct Journal {
    root: PathBuf,
    dir: PathBuf,
    claimed_count: AtomicU64,
    /// Held while an entry is replaced or removed, so that a removed one does not come back.
    changes: Mutex<()>,
    _lock: File,
}

/// A submitted operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalEntry {
    pub operation: Operation,
    /// Time of the first request.
    #[serde(rename = "taken")]
    pub requested_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// Target of the operation; `None`: unknown, or an entry of an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<JobTarget>,
    /// Whether the job had begun to run.
    #[serde(rename = "begun", default, skip_serializing_if = "std::ops::Not::not")]
    pub has_begun: bool,
    /// Number of processes that have ended in the middle of the job without stopping it in order.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes: u32,
    /// URI of the host and location of the bucket in the settings: under other settings names mean other things.
    uri: Option<String>,
    bucket: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference.
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Position in a chain of operations, each of which starts when the previous one finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chain {
    /// Unique among the chains of all processes.
    name: String,
    #[serde(rename = "link")]
    index: usize,
}

impl JournalEntry {
    pub(crate) fn in_chain(self, name: String, index: usize) -> Self {
        Self {
            chain: Some(Chain { name, index }),
            ..self
        }
    }

    pub(crate) fn chain_name(&self) -> Option<&str> {
        self.chain.as_ref().map(|chain| &*chain.name)
    }

    /// Returns a sort key: oldest first, the entries of a chain together.
    pub(crate) fn order(&self) -> (Timestamp, Option<(&str, usize)>) {
        let chain = self.chain.as_ref();
        (
            self.requested_at,
            chain.map(|chain| (&*chain.name, chain.index)),
        )
    }

    pub(crate) fn new(
        operation: Operation,
        requested_at: Timestamp,
        settings: &Settings,
        bucket_location: &str,
    ) -> Self {
        Self {
            uri: uri_of(&operation, settings),
            bucket: bucket_location.to_owned(),
            chain: None,
            target: None,
            has_begun: false,
            crashes: 0,
            operation,
            requested_at,
        }
    }

    /// Records that the job begins: until it ends or is stopped in order, the end of the process counts as a crash.
    pub(crate) fn begin(&mut self) {
        self.has_begun = true;
        self.crashes = self.crashes.saturating_add(1);
    }

    /// Records that the job is stopped in order, to be resumed by the next process.
    pub(crate) fn suspend(&mut self) {
        self.crashes = self.crashes.saturating_sub(1);
    }

    /// Returns whether processes have crashed so often in it that it may be the cause.
    pub(crate) fn has_crashed_repeatedly(&self) -> bool {
        self.crashes >= MAX_CRASHES
    }

    /// Returns whether the next start may resume it without a confirmation.
    pub(crate) fn resumes_unattended(&self) -> bool {
        let target = self.target.as_ref();
        !self.is_expired()
            && !self.has_crashed_repeatedly()
            && target.is_some_and(|target| target.resumes_unattended(&self.operation))
    }

    /// Returns whether its names mean the same host and bucket under these settings.
    pub(crate) fn matches(&self, settings: &Settings, bucket_location: &str) -> bool {
        self.uri == uri_of(&self.operation, settings) && self.bucket == bucket_location
    }

    pub(crate) fn is_expired(&self) -> bool {
        Timestamp::now().duration_since(self.requested_at) > MAX_ENTRY_AGE
    }
}

fn uri_of(operation: &Operation, settings: &Settings) -> Option<String> {
    let uri = |host: &HostName| {
        let mut hosts = settings.hosts.iter();
        let host = hosts.find(|settings| settings.name == *host)?;
        Some(host.uri.clone())
    };
    let target = uri(operation.host()?)?;
    match operation.source_host() {
        // Unknown in a process that serves another host: the stamp of the file is compared in any case.
        Some(source) => Some(format!("{} {target}", uri(source).unwrap_or_default())),
        None => Some(target),
    }
}

impl Journal {
    /// Opens a new session under `state`.
    ///
    /// # Errors
    /// `Failed` if `state` cannot be written.
    pub(crate) fn open(state: &Path) -> Result<Self> {
        let root = state.join("journal");
        let open = || -> io::Result<Self> {
            prepare_root(&root)?;
            // Hidden until it is locked, so that no other process takes it for an orphan.
            let temp_dir = tempfile::Builder::new().prefix(".").tempdir_in(&root)?;
            let lock = File::create_new(temp_dir.path().join(LOCK_FILE))?;
            lock.lock()?;
            let hidden = temp_dir.keep();
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
                changes: Mutex::default(),
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

    /// Records an operation when it is submitted.
    ///
    /// # Errors
    /// I/O errors; the operation may start nevertheless.
    pub(crate) fn record(&self, id: JobId, entry: &JournalEntry) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer(&mut file, entry)?;
        file.persist(self.path(id)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Replaces the entry of a job, unless it was removed.
    pub(crate) fn update(&self, id: JobId, entry: &JournalEntry) {
        let _changes = self.lock_changes();
        if self.path(id).exists()
            && let Err(error) = self.record(id, entry)
        {
            tracing::warn!("cannot update job {} in the journal: {error}", id.0);
        }
    }

    /// Returns the entry of a job; `None` if it was removed.
    pub(crate) fn entry(&self, id: JobId) -> Option<JournalEntry> {
        let path = self.path(id);
        path.exists().then(|| read_entry(&path))?
    }

    pub(crate) fn remove(&self, id: JobId) {
        let _changes = self.lock_changes();
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove job {} from the journal: {error}", id.0);
            }
            _ => {}
        }
    }

    fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a unique name for the chain that starts with a job.
    pub(crate) fn chain_name(&self, first: JobId) -> String {
        let session = self.dir.file_name().unwrap_or_default();
        format!("{}/{}", session.to_string_lossy(), first.0)
    }

    /// Moves the entries of ended processes that match `is_ours` into this session; returns them with their new paths.
    /// They stay in the journal until [`Journal::remove_entry`].
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
            for (path, entry) in read_entries(&dir)
                .into_iter()
                .filter(|(_, entry)| is_ours(entry))
            {
                let number = self.claimed_count.fetch_add(1, Ordering::Relaxed);
                let claimed = self.dir.join(format!("left-{number}.json"));
                match fs::rename(&path, &claimed) {
                    Ok(()) => found.push((claimed, entry)),
                    Err(error) => tracing::warn!("cannot claim {}: {error}", path.display()),
                }
            }
            remove_if_empty(&dir);
            drop(lock);
        }
        found
    }

    /// Removes a claimed entry.
    pub(crate) fn remove_entry(path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// The entries of an interrupted job or chain.
pub(super) struct InterruptedEntry {
    pub id: InterruptedId,
    pub requested_at: Timestamp,
    pub entries: Vec<(PathBuf, JournalEntry)>,
}

impl InterruptedEntry {
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let entries = self.entries.iter();
        entries.map(|(_, entry)| entry.operation.clone()).collect()
    }

    pub(crate) fn remove(&self) {
        for (path, _) in &self.entries {
            Journal::remove_entry(path);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        remove_if_empty(&self.dir);
    }
}

/// Creates the directory of all sessions, mode 0700. One that other users could write to is set aside: they may have put
/// jobs there that this user would do.
fn prepare_root(root: &Path) -> io::Result<()> {
    create_private_dir(root)?;
    let metadata = fs::symlink_metadata(root)?;
    if !is_private(&metadata) || !metadata.is_dir() {
        let aside = root.with_file_name(format!("journal.untrusted-{}", random_id()));
        fs::rename(root, &aside)?;
        tracing::warn!(
            "other users could write to {}: its jobs are not resumed, it is now {}",
            root.display(),
            aside.display()
        );
        create_private_dir(root)?;
    }
    // One of an earlier version may be readable.
    fs::set_permissions(root, fs::Permissions::from_mode(0o700))
}

/// Locks the session of an ended process; `None` if the process is running.
fn lock_orphan(dir: &Path) -> io::Result<Option<File>> {
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() || !is_private(&metadata) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "another user may have written it",
        ));
    }
    let lock = match open_private_file(&dir.join(LOCK_FILE)) {
        Ok(lock) => lock,
        // Another process has removed it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Reads the entries of a session; other files are skipped.
fn read_entries(dir: &Path) -> Vec<(PathBuf, JournalEntry)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let json = paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    json.take(MAX_ENTRIES)
        .filter_map(|path| Some((path.clone(), read_entry(&path)?)))
        .collect()
}

/// Reads an entry; one that cannot be read is reported.
fn read_entry(path: &Path) -> Option<JournalEntry> {
    let mut text = Vec::new();
    let read =
        open_private_file(path).and_then(|file| file.take(MAX_ENTRY_BYTES).read_to_end(&mut text));
    let entry = match read {
        Ok(_) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    entry
        .map_err(|error| tracing::warn!("cannot read {}: {error}", path.display()))
        .ok()
}

/// Removes a session without entries.
fn remove_if_empty(dir: &Path) {
    let is_empty = fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK_FILE))
    });
    if is_empty {
        // On an error the next start removes it.
        let _ = fs::remove_file(dir.join(LOCK_FILE));
        let _ = fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(name: &str) -> JournalEntry {
        let operation = Operation::Pull {
            host: "local".parse().unwrap(),
            name: name.parse().unwrap(),
            overwrite: false,
        };
        JournalEntry {
            operation,
            requested_at: Timestamp::now(),
            chain: None,
            target: None,
            has_begun: false,
            crashes: 0,
            uri: Some("qemu:///system".into()),
            bucket: "s3://b/".into(),
        }
    }

    fn leave_orphans(state: &Path, entries: &[JournalEntry]) {
        let journal = Journal::open(state).unwrap();
        for (id, entry) in (1..).zip(entries) {
            journal.record(JobId(id), entry).unwrap();
        }
        let Journal { dir, .. } = &journal;
        assert!(dir.join("1.json").exists());
    }

    fn claim(journal: &Journal) -> Vec<(PathBuf, JournalEntry)> {
        let ours = entry("any");
        let is_ours =
            |entry: &JournalEntry| (&entry.uri, &entry.bucket) == (&ours.uri, &ours.bucket);
        let mut found = journal.claim_orphans(is_ours);
        found.sort_by(|(_, a), (_, b)| a.order().cmp(&b.order()));
        found
    }

    fn titles(entries: &[(PathBuf, JournalEntry)]) -> Vec<String> {
        let entries = entries.iter();
        entries
            .map(|(_, entry)| crate::operation_title(&entry.operation))
            .collect()
    }

    #[test]
    fn orphans_are_claimed_by_one_process_until_they_are_removed() {
        let state = tempfile::tempdir().unwrap();
        leave_orphans(state.path(), &[entry("a"), entry("b")]);
        let journal = Journal::open(state.path()).unwrap();
        journal.record(JobId(1), &entry("c")).unwrap();
        let other = Journal::open(state.path()).unwrap();
        // Not c: its process is running.
        let found = claim(&other);
        assert_eq!(titles(&found), ["pull a → local", "pull b → local"]);
        assert!(claim(&journal).is_empty());
        // They were not removed, and the next process claims them.
        drop(other);
        let other = Journal::open(state.path()).unwrap();
        let found = claim(&other);
        assert_eq!(titles(&found), ["pull a → local", "pull b → local"]);
        found
            .iter()
            .for_each(|(path, _)| Journal::remove_entry(path));
        journal.remove(JobId(1));
        drop(journal);
        assert!(claim(&other).is_empty());
        drop(other);
        assert_eq!(
            fs::read_dir(state.path().join("journal")).unwrap().count(),
            0
        );
    }

    #[test]
    fn jobs_that_another_user_could_have_put_there_are_not_resumed() {
        use std::os::unix::fs::symlink;
        let state = tempfile::tempdir().unwrap();
        let root = state.path().join("journal");
        leave_orphans(state.path(), &[entry("a")]);
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        let journal = Journal::open(state.path()).unwrap();
        assert!(claim(&journal).is_empty());
        let mode = fs::metadata(&root).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let kept = fs::read_dir(state.path()).unwrap().flatten();
        let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains("untrusted"));
        assert_eq!(kept.count(), 1);
        // Nor are entries that are links, or can be written by others.
        leave_orphans(state.path(), &[entry("b"), entry("c"), entry("d")]);
        let sessions = fs::read_dir(&root).unwrap().flatten();
        let session = sessions.map(|session| session.path());
        let session = session.filter(|path| *path != journal.dir).last().unwrap();
        let aside = state.path().join("aside.json");
        fs::rename(session.join("1.json"), &aside).unwrap();
        symlink(&aside, session.join("1.json")).unwrap();
        let shared = fs::Permissions::from_mode(0o666);
        fs::set_permissions(session.join("2.json"), shared).unwrap();
        assert_eq!(titles(&claim(&journal)), ["pull d → local"]);
    }

    #[test]
    fn chains_are_sorted_together_and_entries_for_other_hosts_stay() {
        let state = tempfile::tempdir().unwrap();
        let mut foreign = entry("foreign");
        foreign.uri = Some("qemu+ssh://elsewhere/system".into());
        let mut all = [entry("b2"), foreign, entry("a"), entry("b1"), entry("c")];
        let at = Timestamp::now();
        all.iter_mut().for_each(|entry| entry.requested_at = at);
        all[0] = all[0].clone().in_chain("x/1".into(), 1);
        all[3] = all[3].clone().in_chain("x/1".into(), 0);
        all[4].requested_at = at - SignedDuration::from_hours(25);
        leave_orphans(state.path(), &all);
        let journal = Journal::open(state.path()).unwrap();
        let found = claim(&journal);
        let expected = ["c", "a", "b1", "b2"].map(|name| format!("pull {name} → local"));
        assert_eq!(titles(&found), expected);
        let expired: Vec<bool> = found.iter().map(|(_, entry)| entry.is_expired()).collect();
        assert_eq!(expired, [true, false, false, false]);
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
            "the lock and the foreign entry"
        );
    }

    #[test]
    fn crashes_are_counted_until_a_job_is_stopped_in_order() {
        let mut entry = entry("a");
        for crashes in 0..MAX_CRASHES {
            assert_eq!(entry.crashes, crashes);
            assert!(!entry.has_crashed_repeatedly());
            entry.begin();
            entry.suspend();
            entry.begin();
        }
        assert!(entry.has_crashed_repeatedly());
        // Entries of earlier versions have no count.
        let mut json = serde_json::to_value(&entry).unwrap();
        json.as_object_mut().unwrap().remove("crashes");
        let old: JournalEntry = serde_json::from_value(json).unwrap();
        assert_eq!(old.crashes, 0);
    }

    #[test]
    fn fuzz_journal_entry() {
        let mut entry = entry("a").in_chain("c".into(), 1);
        entry.begin();
        snapdeck_fuzz::FuzzTarget::new("journal entry")
            .seed(serde_json::to_vec(&entry).unwrap())
            .memory(1 << 20, 64)
            .run(|json| {
                let Ok(mut entry) = serde_json::from_slice::<JournalEntry>(json) else {
                    return;
                };
                let again = serde_json::to_vec(&entry).unwrap();
                assert!(serde_json::from_slice::<JournalEntry>(&again).is_ok());
                entry.begin();
                entry.resumes_unattended();
                crate::operation_title(&entry.operation);
            });
    }
}
