//! Locks that jobs of any snapdeck process hold on a host. They are read from the lock files and the kernel's list of locks,
//! and not acquired. The kernel does not list locks from other machines that share a directory.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;

use crate::fs::open_no_follow;
use snapdeck_model::{HostLock, LockedResource, SnapshotName, printable_within};

/// More locks of a directory are not read.
pub(crate) const MAX_LOCKS: usize = 64;
/// Maximum length of the kernel's list of locks that is read.
const MAX_LIST_BYTES: u64 = 1 << 20;
/// Maximum length of the text of a lock file that is read.
const MAX_TEXT_BYTES: u64 = 500;
/// Maximum length of a shown text, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// Returns what the lock file of this name locks; `None` if it is not one.
pub(crate) fn parse_lock_name(name: &str) -> Option<LockedResource> {
    let name = name.strip_prefix('.')?;
    if let Some(id) = name.strip_suffix(".sandbox.lock") {
        return Some(LockedResource::Sandbox(id.parse().ok()?));
    }
    let name = name.strip_suffix(".qcow2.lock")?;
    Some(LockedResource::Snapshot(SnapshotName::from_flat(name)?))
}

/// Parses a lock from the name of its file, the time of its last write in seconds, and its text: `JOB, by HOLDER`.
pub(crate) fn parse_lock(name: &str, seconds: Option<i64>, text: &[u8]) -> Option<HostLock> {
    let resource = parse_lock_name(name)?;
    let text = String::from_utf8_lossy(text);
    let line = text.lines().next().unwrap_or_default();
    let (job, holder) = line.rsplit_once(", by ").unwrap_or((line, ""));
    Some(HostLock {
        resource,
        job: printable_within(job, MAX_SHOWN_CHARS),
        holder: printable_within(holder, MAX_SHOWN_CHARS),
        since: seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()),
    })
}

/// Returns the held locks among files of this machine. Blocks.
pub(crate) fn read_local(dir: &Path, names: &[String]) -> Vec<HostLock> {
    if names.is_empty() {
        return Vec::new();
    }
    let mut list = String::new();
    if let Ok(file) = std::fs::File::open("/proc/locks") {
        // What is not UTF-8 in it is not a lock.
        let _ = file.take(MAX_LIST_BYTES).read_to_string(&mut list);
    }
    let names = names.iter().take(MAX_LOCKS);
    names
        .filter_map(|name| read_one(&dir.join(name), name, &list))
        .collect()
}

fn read_one(path: &Path, name: &str, list: &str) -> Option<HostLock> {
    let flags = nix::libc::O_NONBLOCK;
    let file = open_no_follow(OpenOptions::new().read(true).custom_flags(flags), path).ok()?;
    let metadata = file.metadata().ok()?;
    if !is_held(list, metadata.ino()) {
        return None;
    }
    let mut text = Vec::new();
    file.take(MAX_TEXT_BYTES).read_to_end(&mut text).ok()?;
    parse_lock(name, Some(metadata.mtime()), &text)
}

/// Looks for a lock of an inode (proc_locks(5)). The device is not compared: that of the list is not the one of stat(2) on
/// some file systems, such as Btrfs.
fn is_held(list: &str, inode: u64) -> bool {
    let field = format!(":{inode}");
    list.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.nth(1) == Some("FLOCK") && words.nth(3).is_some_and(|file| file.ends_with(&field))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_text_names_job_and_holder() {
        let text = "pull base → beta, by anna on desk, process 4711\nmore".as_bytes();
        let lock = parse_lock(".base.qcow2.lock", Some(1_700_000_000), text).unwrap();
        assert_eq!(
            lock.resource,
            LockedResource::Snapshot("base".parse().unwrap())
        );
        assert_eq!(lock.job, "pull base → beta");
        assert_eq!(lock.holder, "anna on desk, process 4711");
        assert_eq!(lock.since.unwrap().as_second(), 1_700_000_000);
        let lock = parse_lock(".acme@base.qcow2.lock", None, b"pull").unwrap();
        assert_eq!(
            lock.resource,
            LockedResource::Snapshot("acme/base".parse().unwrap())
        );
        let lock = parse_lock(".web.sandbox.lock", None, b"\x1b[2Jx").unwrap();
        assert_eq!(
            lock.resource,
            LockedResource::Sandbox("web".parse().unwrap())
        );
        assert!(!lock.job.contains('\x1b') && lock.holder.is_empty());
        for name in ["base.qcow2.lock", ".x.lock", ".-.qcow2.lock", "."] {
            assert_eq!(parse_lock(name, None, b"a"), None, "{name}");
        }
    }

    #[test]
    fn only_a_file_that_is_locked_is_a_held_lock() {
        let dir = tempfile::tempdir().unwrap();
        let name = ".base.qcow2.lock".to_owned();
        std::fs::write(dir.path().join(&name), "push base, by b on c, process 1\n").unwrap();
        let names = [name.clone()];
        assert_eq!(read_local(dir.path(), &names), []);
        let file = std::fs::File::open(dir.path().join(&name)).unwrap();
        file.lock().unwrap();
        let locks = read_local(dir.path(), &names);
        assert_eq!(locks[0].job, "push base");
        assert!(file.try_lock().is_ok(), "it was not taken");
    }

    #[test]
    fn the_list_of_the_kernel_is_read_by_type_and_inode() {
        let list = "1: POSIX  ADVISORY  WRITE 1 fe:00:11 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 2 fe:00:22 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 3 fe:00:33 0 EOF\n";
        let held: Vec<u64> = [11, 22, 2, 33]
            .into_iter()
            .filter(|inode| is_held(list, *inode))
            .collect();
        assert_eq!(held, [22]);
    }

    #[test]
    fn fuzz_lock() {
        snapdeck_fuzz::FuzzTarget::new("text of a lock")
            .seed("pull base, by anna on desk, process 4711\n")
            .run(|text| {
                if let Some(lock) = parse_lock(".a.qcow2.lock", Some(1), text) {
                    assert!(!lock.job.contains(char::is_control));
                    assert!(!lock.holder.contains(char::is_control));
                }
            });
    }
}
