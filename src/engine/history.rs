//! The last finished jobs of all snapdeck processes of this user, in the state directory.
//!
//! ```text
//! STATE/history.jsonl    one line of JSON for each job, oldest first; mode 0600
//!       history.lock     held (flock) by the process that writes
//! ```
//! Lines are appended; when the file gets long, its last entries replace it. Lines that are damaged are skipped. Nothing is
//! synced to disk: a lost line harms nothing.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::state::{Engine, Inner};
use super::wording::{operation_title, pause_summary};
use snapdeck_model::{Kind, Operation, Outcome, Result, printable_within};
use snapdeck_ownership::{append_private_file, create_private_dir, open_private_file};

const FILE: &str = "history.jsonl";
const LOCK_FILE: &str = "history.lock";
/// Entries that are shown, and that are kept when the file is shortened.
const MAX_ENTRIES: usize = 500;
/// A longer file is shortened.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Longer texts are cut, in characters.
const MAX_TEXT_CHARS: usize = 500;
/// Wait for another process that writes, and between two attempts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Title in one line: `push config-vm → myapp-v1.1`.
    pub title: String,
    /// Name of the operation, such as `push`.
    pub operation: String,
    /// Host, if any.
    pub host: Option<String>,
    /// Start time; `None`: it was cancelled in the queue.
    pub started_at: Option<Timestamp>,
    /// End time.
    pub ended_at: Timestamp,
    /// Result.
    pub result: JobResult,
    /// Details of the result, or the error, in one line; may be empty.
    pub summary: String,
    /// Bytes uploaded or downloaded, if it finished and is of a kind that moves bytes.
    pub moved_bytes: Option<u64>,
}

/// Result of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// Successfully.
    Finished,
    /// With an error.
    Failed,
    /// Cancelled.
    Cancelled,
}

impl HistoryEntry {
    /// Returns the entry of a job that is being started; [`HistoryEntry::end`] completes it.
    pub(super) fn start(operation: &Operation) -> Self {
        Self {
            title: operation_title(operation),
            operation: operation.verb().to_owned(),
            host: operation.host().map(ToString::to_string),
            started_at: None,
            ended_at: Timestamp::now(),
            result: JobResult::Cancelled,
            summary: String::new(),
            moved_bytes: None,
        }
    }

    pub(super) fn end(mut self, result: &Result<Outcome>) -> Self {
        self.ended_at = Timestamp::now();
        (self.result, self.summary) = match result {
            Ok(outcome) => (JobResult::Finished, summary(outcome)),
            Err(error) if error.kind() == Kind::Cancelled => (JobResult::Cancelled, String::new()),
            Err(error) => (JobResult::Failed, error.to_string()),
        };
        self.moved_bytes = result.as_ref().ok().and_then(moved_bytes);
        self.printable()
    }

    /// Cuts and escapes the texts.
    fn printable(mut self) -> Self {
        for text in [&mut self.title, &mut self.operation, &mut self.summary] {
            *text = printable_within(text, MAX_TEXT_CHARS);
        }
        let host = self.host.take();
        self.host = host.map(|host| printable_within(&host, MAX_TEXT_CHARS));
        self
    }
}

/// Returns what an operator would ask after a job beyond its title.
fn summary(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Created {
            transfer,
            paused_ms,
            ..
        } => pause_summary(transfer, *paused_ms)
            .unwrap_or_else(|| transfer.method.as_str().to_owned()),
        Outcome::Pushed { transfer, .. } => transfer.method.as_str().to_owned(),
        Outcome::Pulled { differs: true, .. } | Outcome::Copied { differs: true, .. } => {
            "kept another image".to_owned()
        }
        Outcome::Pulled { skipped: true, .. } | Outcome::Copied { skipped: true, .. } => {
            "already present".to_owned()
        }
        Outcome::Pulled { repaired: true, .. } | Outcome::Copied { repaired: true, .. } => {
            "replaced a damaged copy".to_owned()
        }
        Outcome::Pulled { .. }
        | Outcome::Copied { .. }
        | Outcome::Uploaded { .. }
        | Outcome::Removed { .. }
        | Outcome::SandboxConfigured { .. }
        | Outcome::SandboxRenamed { .. } => String::new(),
        Outcome::Verified {
            repaired_blocks,
            has_manifest,
            ..
        } => match (repaired_blocks.len(), has_manifest) {
            (0, true) => "intact".to_owned(),
            (0, false) => "structure intact, no manifest".to_owned(),
            (1, _) => "repaired 1 block".to_owned(),
            (count, _) => format!("repaired {count} blocks"),
        },
        Outcome::Adopted { changed: true, .. } => "digests recorded".to_owned(),
        Outcome::Adopted { changed: false, .. } => "already has a manifest".to_owned(),
        Outcome::SandboxCreated { sandbox, .. } => sandbox.state.as_str().to_owned(),
        Outcome::SandboxChanged { state, changed, .. } => {
            let state = state.map_or("destroyed", |state| state.as_str());
            match changed {
                true => state.to_owned(),
                false => format!("already {state}"),
            }
        }
    }
}

fn moved_bytes(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Created { transfer, .. } | Outcome::Pushed { transfer, .. } => {
            Some(transfer.uploaded_bytes)
        }
        Outcome::Uploaded { uploaded_bytes, .. } => Some(*uploaded_bytes),
        Outcome::Pulled { fetched_bytes, .. }
        | Outcome::Copied { fetched_bytes, .. }
        | Outcome::Verified { fetched_bytes, .. } => Some(*fetched_bytes),
        _ => None,
    }
}

/// The history of an engine.
pub(super) struct History {
    /// `None`: only the jobs of this process are known.
    dir: Option<PathBuf>,
    entries: watch::Sender<Arc<[HistoryEntry]>>,
    /// Whether the entries of other processes are read.
    is_followed: AtomicBool,
    /// State of the file when it was last read or written. The lock is held meanwhile.
    known: Mutex<Option<FileState>>,
}

/// Inode and length: they differ after any change by another process.
type FileState = (u64, u64);

impl Engine {
    /// Returns a receiver of the last finished jobs, at most 500, oldest first: those of all processes that use this state
    /// directory once [`Engine::follow`] was called, else those of this process.
    pub fn history(&self) -> watch::Receiver<Arc<[HistoryEntry]>> {
        self.inner.history.entries.subscribe()
    }

    /// Reads the jobs that other processes have finished. Returns at once; cheap if there are none. It also happens when a
    /// job of this process ends.
    pub fn reload_history(&self) {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.history.reload());
    }
}

/// Adds a finished job. It is in the file when this returns, unless that takes too long.
pub(super) async fn add(inner: &Arc<Inner>, entry: HistoryEntry) {
    let inner = inner.clone();
    let add = tokio::task::spawn_blocking(move || inner.history.add(entry));
    let _ = tokio::time::timeout(LOCK_TIMEOUT * 2, add).await;
}

impl History {
    /// Returns the history in the directory `state`, which need not exist. Reads nothing.
    pub(super) fn new(state: Option<&Path>) -> Self {
        Self {
            dir: state.map(Path::to_owned),
            entries: watch::Sender::new(Arc::default()),
            is_followed: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    pub(super) fn follow(&self) {
        self.is_followed.store(true, Relaxed);
        self.reload();
    }

    fn reload(&self) {
        let Some(dir) = &self.dir else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_if_changed(dir, &mut known);
    }

    fn read_if_changed(&self, dir: &Path, known: &mut Option<FileState>) {
        let path = dir.join(FILE);
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match open_private_file(&path).and_then(|file| Ok((file_state(&file)?, file))) {
            Ok((state, _)) if *known == Some(state) => {}
            Ok((state, mut file)) => match read_entries(&mut file) {
                Ok(entries) => {
                    *known = Some(state);
                    self.publish(entries.into());
                }
                Err(error) => report(&path, &error),
            },
            Err(error) if is_missing(&error) => {}
            Err(error) => report(&path, &error),
        }
    }

    fn add(&self, entry: HistoryEntry) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &self.dir {
            match append(dir, &entry) {
                Ok((before, after)) => {
                    if self.is_followed.load(Relaxed) && *known != Some(before) {
                        return self.read_if_changed(dir, &mut known);
                    }
                    *known = Some(after);
                }
                Err(error) => report(&dir.join(FILE), &error),
            }
        }
        let old = self.entries.borrow().clone();
        let surplus = (old.len() + 1).saturating_sub(MAX_ENTRIES);
        self.publish(old[surplus..].iter().cloned().chain([entry]).collect());
    }

    fn publish(&self, entries: Arc<[HistoryEntry]>) {
        self.entries.send_replace(entries);
    }
}

fn report(path: &Path, error: &io::Error) {
    tracing::info!("the job history {} is not used: {error}", path.display());
}

fn file_state(file: &File) -> io::Result<FileState> {
    let metadata = file.metadata()?;
    Ok((metadata.ino(), metadata.len()))
}

/// Appends an entry; returns the state of the file before and after.
fn append(dir: &Path, entry: &HistoryEntry) -> io::Result<(FileState, FileState)> {
    create_private_dir(dir)?;
    let _lock = lock(dir)?;
    let path = dir.join(FILE);
    let mut file = append_private_file(&path)?;
    let before = file_state(&file)?;
    if before.1 > MAX_FILE_BYTES {
        shorten(dir, &mut file)?;
        file = append_private_file(&path)?;
    }
    let mut line = Vec::new();
    // A line that a killed process has left incomplete must not swallow this one.
    if !ends_with_newline(&mut file)? {
        line.push(b'\n');
    }
    serde_json::to_writer(&mut line, entry)?;
    line.push(b'\n');
    file.write_all(&line)?;
    Ok((before, file_state(&file)?))
}

fn lock(dir: &Path) -> io::Result<File> {
    let file = append_private_file(&dir.join(LOCK_FILE))?;
    let started_at = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started_at.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(LOCK_RETRY_INTERVAL);
            }
            Err(TryLockError::WouldBlock) => {
                let text = "another snapdeck process keeps it locked";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Replaces the file by its last entries.
fn shorten(dir: &Path, file: &mut File) -> io::Result<()> {
    let mut text = Vec::new();
    for entry in read_entries(file)? {
        serde_json::to_writer(&mut text, &entry)?;
        text.push(b'\n');
    }
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    new.write_all(&text)?;
    new.persist(dir.join(FILE)).map_err(|error| error.error)?;
    Ok(())
}

/// Reads the last entries; a line that is not one is skipped.
fn read_entries(file: &mut File) -> io::Result<Vec<HistoryEntry>> {
    // Entries appended to a file of the maximum length are shorter than this.
    let limit = MAX_FILE_BYTES * 2;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text)?;
    Ok(parse_entries(&text))
}

fn parse_entries(text: &[u8]) -> Vec<HistoryEntry> {
    let mut entries = VecDeque::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(entry) = serde_json::from_slice::<HistoryEntry>(line) else {
            continue;
        };
        if entries.len() == MAX_ENTRIES {
            entries.pop_front();
        }
        entries.push_back(entry.printable());
    }
    entries.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use snapdeck_model::{Error, SandboxVerb};

    fn entry(number: usize) -> HistoryEntry {
        let operation = Operation::Sandbox {
            host: "alpha".parse().unwrap(),
            id: format!("box-{number}").parse().unwrap(),
            verb: SandboxVerb::Start,
        };
        let error = Error::new(Kind::Failed, "no\u{1b}[2J answer\nfrom it");
        HistoryEntry::start(&operation).end(&Err(error))
    }

    fn titles(entries: &[HistoryEntry]) -> Vec<&str> {
        entries.iter().map(|entry| &*entry.title).collect()
    }

    fn read(dir: &Path) -> Arc<[HistoryEntry]> {
        let history = History::new(Some(dir));
        history.follow();
        history.entries.borrow().clone()
    }

    #[test]
    fn finished_jobs_survive_and_their_texts_are_printable() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert_eq!(read(&state).len(), 0);
        let history = History::new(Some(&state));
        history.add(entry(1));
        history.add(entry(2));
        let entries = read(&state);
        assert_eq!(titles(&entries), ["start box-1", "start box-2"]);
        assert_eq!(entries[0].result, JobResult::Failed);
        assert!(entries[0].summary.starts_with("no\\u{1b}[2J answer"));
        assert!(!entries[0].summary.contains(char::is_control));
        let mode = |name: &str| {
            let metadata = fs::metadata(state.join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode("."), mode(FILE)), (0o700, 0o600));
        // Another process reads them, and both see the jobs of both.
        let other = History::new(Some(&state));
        other.follow();
        other.add(entry(3));
        history.follow();
        history.add(entry(4));
        assert_eq!(history.entries.borrow().len(), 4);
        other.reload();
        assert_eq!(titles(&other.entries.borrow())[3], "start box-4");
    }

    #[test]
    fn damaged_lines_are_skipped_and_an_incomplete_one_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(Some(dir.path()));
        history.add(entry(1));
        let path = dir.path().join(FILE);
        let line = fs::read(&path).unwrap();
        fs::write(
            &path,
            [&line[..], b"{}\n\xff\0\n", &line[..line.len() / 2]].concat(),
        )
        .unwrap();
        history.add(entry(2));
        assert_eq!(titles(&read(dir.path())), ["start box-1", "start box-2"]);
        fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
        history.add(entry(3));
        assert_eq!(titles(&read(dir.path())), ["start box-3"]);
        assert!(fs::metadata(&path).unwrap().len() < 1000, "it is shortened");
    }

    #[test]
    fn a_file_of_others_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join(FILE)).unwrap();
        let history = History::new(Some(dir.path()));
        history.add(entry(1));
        assert_eq!(history.entries.borrow().len(), 1, "it is known meanwhile");
        assert_eq!(read(dir.path()).len(), 0);
        assert_eq!(fs::read(target).unwrap(), b"precious");
    }

    #[test]
    fn several_processes_lose_nothing_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let dir = dir.path();
                scope.spawn(move || {
                    let history = History::new(Some(dir));
                    (0..40).for_each(|number| history.add(entry(writer * 100 + number)));
                });
            }
        });
        assert_eq!(read(dir.path()).len(), 320);
        let long = HistoryEntry {
            summary: "x".repeat(MAX_TEXT_CHARS),
            ..entry(0)
        };
        let history = History::new(Some(dir.path()));
        history.follow();
        for _ in 0..2000 {
            history.add(long.clone());
        }
        assert_eq!(history.entries.borrow().len(), MAX_ENTRIES);
        assert_eq!(read(dir.path()).len(), MAX_ENTRIES);
        let length = fs::metadata(dir.path().join(FILE)).unwrap().len();
        assert!(length < MAX_FILE_BYTES + 10_000, "{length}");
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 2, "no temporary file is left");
    }

    #[test]
    fn fuzz_history() {
        let mut line = serde_json::to_vec(&entry(1)).unwrap();
        line.push(b'\n');
        snapdeck_fuzz::FuzzTarget::new("job history")
            .seed(line)
            .run(|text| {
                for entry in parse_entries(text) {
                    assert!(!entry.title.contains(char::is_control));
                    assert!(!entry.summary.contains(char::is_control));
                }
            });
    }
}
