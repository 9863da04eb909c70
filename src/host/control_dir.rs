//! Directories for the control sockets of ssh. One that a killed snapdeck has left is removed when the next one is created.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

const PREFIX: &str = "snapdeck-ssh-";
/// A file in each directory, which its process keeps locked, and what is in it.
const LOCK_FILE: &str = "snapdeck.lock";
const LOCK_TEXT: &[u8] = b"directory of snapdeck for control sockets of ssh\n";
/// Entries of the parent that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Bytes of the directory in which a connection's private one is created.
const MAX_SOCKET_PARENT: usize = 40;

/// A directory of mode 0700, removed on drop.
pub(super) struct ControlDir {
    dir: TempDir,
    /// Locked until this process ends.
    _lock: File,
}

impl ControlDir {
    /// Creates one in `parent`, and removes those that no process has locked.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        remove_stale(parent);
        // The lock comes before the text: without the text a directory is never removed as a stale one.
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let mut lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(dir.path().join(LOCK_FILE))?;
        lock.try_lock()?;
        lock.write_all(LOCK_TEXT)?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the directories of processes that have ended. What cannot be read or removed stays.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        if !entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
        {
            continue;
        }
        // Held until the directory is removed.
        if let Ok(Some(_lock)) = lock_stale(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Locks the directory of a process that has ended; `None` if it is not one.
fn lock_stale(dir: &Path) -> io::Result<Option<File>> {
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(None);
    }
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(dir.join(LOCK_FILE))?;
    if !file.metadata()?.is_file() || file.try_lock().is_err() {
        return Ok(None);
    }
    let mut text = Vec::new();
    (&mut file)
        .take(LOCK_TEXT.len() as u64 + 1)
        .read_to_end(&mut text)?;
    Ok((text == LOCK_TEXT).then_some(file))
}

/// Returns the directory for sockets: the one for temporary files, or /tmp if a socket's path were too long (unix(7):
/// 107 bytes, of which ssh and this module append up to 66) or had characters that ssh or a URI treat specially.
pub(super) fn socket_parent() -> PathBuf {
    let dir = tempfile::env::temp_dir();
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"/._-".contains(&c);
    let bytes = dir.as_os_str().as_encoded_bytes();
    match bytes.len() <= MAX_SOCKET_PARENT && bytes.iter().copied().all(is_plain) {
        true => dir,
        false => "/tmp".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_directories_of_ended_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let used = ControlDir::create(parent.path()).unwrap();
        let foreign = parent.path().join("snapdeck-ssh-mine");
        let stale = parent.path().join("snapdeck-ssh-stale");
        for (dir, text) in [(&foreign, &b"mine"[..]), (&stale, LOCK_TEXT)] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join(LOCK_FILE), text).unwrap();
            fs::write(dir.join("socket"), "").unwrap();
        }
        let other = ControlDir::create(parent.path()).unwrap();
        assert!(used.path().is_dir() && other.path().is_dir() && foreign.join("socket").exists());
        assert!(!stale.exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }
}
