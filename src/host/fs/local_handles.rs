//! Readers and writers of this machine's files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, RenameFlags, fcntl, renameat2};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::blocks::{BlockCopy, BlockSender, CopySource};
use super::checked_open::{check_stamp, is_only_name, open_own};
use super::local::{CALL_TIMEOUT, FileOwner, LocalFs, sync_parent_dir};
use super::local_pull::{LocalPullDir, OpenPull, open_pull};
use super::pinned::{PinnedPath, open_pinned};
use super::pull_dir::{FILE_NAME, PullDir, PullDirRecords};
use super::resume_log::{Content, ResumeLog, ResumeState};
use super::{ReadFile, Standby, WriteFile};
use crate::image_file::{self, FileId, ImageFile, file_stamp};
use snapdeck_libvirt::{FileLease, begin_sync};
use snapdeck_model::{
    BlockSet, BufferPool, Digest, Error, FileStamp, Kind, PresignedRequest, Result,
};

/// For flushing gigabytes to the disk.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A file open for reads.
pub(super) struct LocalReader {
    fs: LocalFs,
    path: Arc<str>,
    file: Arc<File>,
    id: FileId,
    size_bytes: u64,
}

impl LocalReader {
    pub(super) async fn open(fs: &LocalFs, path: &str) -> Result<Self> {
        let (name, settings) = (path.to_owned(), fs.settings.clone());
        let opened = fs.run(format!("open {path}"), CALL_TIMEOUT, move || {
            let file = open_pinned(&settings, &name)?;
            let metadata = file.metadata()?;
            Ok((file, (metadata.dev(), metadata.ino()), metadata.len()))
        });
        let (file, id, size_bytes) = opened.await?;
        Ok(Self {
            fs: fs.clone(),
            path: path.into(),
            file: Arc::new(file),
            id,
            size_bytes,
        })
    }
}

#[async_trait]
impl ReadFile for LocalReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn is_of(&self, file: &ImageFile) -> bool {
        file.id() == self.id
    }

    async fn read_at(&self, buffers: &BufferPool, offset: u64, length: usize) -> Result<Bytes> {
        let (file, buffers) = (self.file.clone(), buffers.clone());
        self.fs
            .run(format!("read {}", self.path), CALL_TIMEOUT, move || {
                let mut bytes = buffers.acquire(length);
                bytes.resize(length, 0);
                file.read_exact_at(&mut bytes, offset)?;
                Ok(buffers.share(bytes))
            })
            .await
    }
}

/// The directory of a pull and its resume log.
struct Pull {
    dir: LocalPullDir,
    pull_dir: PullDir,
    log: ResumeLog,
    log_file: Arc<File>,
}

/// A file open for writes, locked until it is dropped.
pub(super) struct LocalWriter {
    fs: LocalFs,
    path: Arc<str>,
    file: Arc<File>,
    resume_state: ResumeState,
    /// `None` for the repair of a file that has its final name.
    pull: Option<Pull>,
    /// The kernel serialises the writes to a file: a thread that waits there spins, a task that waits here does not.
    write_lock: Mutex<()>,
}

impl LocalWriter {
    /// Creates or resumes the file of a pull, as [`HostFs::open_writer`].
    pub(super) async fn create(fs: &LocalFs, dir: &str, content: Content) -> Result<Self> {
        let (name, owner) = (PathBuf::from(dir), fs.settings.owner.clone());
        let records = PullDirRecords::new(&fs.records, &fs.settings, dir);
        let opened = fs.run(format!("create {dir}"), CALL_TIMEOUT, move || {
            open_pull(&name, &owner, content, &records)
        });
        let OpenPull {
            dir: open_dir,
            pull_dir,
            file,
            resume_state,
            log,
            log_file,
        } = opened.await?;
        let pull = Pull {
            dir: open_dir,
            pull_dir,
            log,
            log_file: Arc::new(log_file),
        };
        let path = format!("{dir}/{FILE_NAME}");
        Ok(Self::new(fs, &path, file, resume_state, Some(pull)))
    }

    /// Opens a file as [`HostFs::open_for_repair`].
    pub(super) async fn open_for_repair(
        fs: &LocalFs,
        path: &str,
        stamp: FileStamp,
    ) -> Result<Self> {
        let (name, settings) = (PathBuf::from(path), fs.settings.clone());
        let opened = fs.run(format!("open {path}"), CALL_TIMEOUT, move || {
            let pinned = PinnedPath::open(&settings, &name)?;
            let mut options = OpenOptions::new();
            let file = open_own(options.read(true).write(true), &pinned, &settings.owner)
                .map_err(|error| pinned.explain(error))?;
            lock_file(&file)?;
            lock_as_qemu(&file)?;
            check_stamp(&file, Some(stamp))?;
            Ok(file)
        });
        let file = opened.await?;
        Ok(Self::new(fs, path, file, ResumeState::default(), None))
    }

    fn new(
        fs: &LocalFs,
        path: &str,
        file: File,
        resume_state: ResumeState,
        pull: Option<Pull>,
    ) -> Self {
        Self {
            fs: fs.clone(),
            path: path.into(),
            file: Arc::new(file),
            resume_state,
            pull,
            write_lock: Mutex::default(),
        }
    }

    async fn append_to_log(&self, entry: impl FnOnce(&ResumeLog) -> String) -> Result<()> {
        let Some(pull) = &self.pull else {
            return Ok(());
        };
        let (entry, file) = (entry(&pull.log), pull.log_file.clone());
        let action = format!("write {}", ResumeLog::path(&self.path));
        self.fs
            .run(action, CALL_TIMEOUT, move || {
                (&*file).write_all(entry.as_bytes())
            })
            .await
    }

    /// Removes the directory of the pull.
    async fn remove_dir(&self) -> Result<()> {
        let Some(pull) = &self.pull else {
            return Ok(());
        };
        let dir = pull.dir.clone();
        let action = format!("remove {}", pull.pull_dir.path());
        self.fs
            .run(action, CALL_TIMEOUT, move || dir.remove())
            .await?;
        pull.pull_dir.forget();
        Ok(())
    }
}

#[async_trait]
impl WriteFile for LocalWriter {
    fn resume_state(&self) -> &ResumeState {
        &self.resume_state
    }

    async fn record(&self, blocks: &[(u64, Digest)]) -> Result<()> {
        self.append_to_log(|_| ResumeLog::records(blocks)).await
    }

    async fn reset_records(&self, blocks: &BTreeMap<u64, Digest>) -> Result<()> {
        self.append_to_log(|log| log.header(blocks)).await
    }

    async fn share(&self, _source: &CopySource) -> Result<bool> {
        Ok(false)
    }

    async fn copy(
        &self,
        source: &CopySource,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let file = self.file.clone();
        self.fs
            .copy_blocks(source, file, blocks, results, cancel)
            .await
    }

    fn can_download(&self) -> bool {
        // This machine is the host.
        false
    }

    async fn download(
        &self,
        _request: &PresignedRequest,
        _blocks: &[BlockCopy],
        _results: &BlockSender,
        _cancel: &CancellationToken,
    ) -> Result<()> {
        let summary = format!("cannot download to {}", self.path);
        Err(Error::new(Kind::Failed, summary).with_cause("it is on this machine"))
    }

    async fn start_standby(
        &self,
        _request: &PresignedRequest,
        _unattended: Duration,
        _job: &str,
    ) -> Result<Standby> {
        let summary = format!("cannot start a process for {}", self.path);
        Err(Error::new(Kind::Failed, summary).with_cause("it is on this machine"))
    }

    async fn recorded_blocks(&self) -> Result<BTreeMap<u64, Digest>> {
        Ok(self.resume_state.blocks.clone())
    }

    async fn image_file(&self) -> Result<ImageFile> {
        let file = self.file.clone();
        let action = format!("read {}", self.path);
        self.fs
            .run(action, CALL_TIMEOUT, move || {
                let open = format!("/proc/self/fd/{}", file.as_raw_fd());
                image_file::inspect(Path::new(&open))
            })
            .await
    }

    async fn hash_blocks(
        &self,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let file = self.file.clone();
        self.fs
            .hash_file(&self.path, file, blocks, results, cancel)
            .await
    }

    async fn hole_blocks(&self) -> Result<BlockSet> {
        let file = self.file.clone();
        self.fs
            .find_holes_of(&self.path, None, move || Ok(file))
            .await
    }

    fn pull_dir(&self) -> Option<&PullDir> {
        self.pull.as_ref().map(|pull| &pull.pull_dir)
    }

    async fn discard(&self) -> Result<()> {
        self.remove_dir().await
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        let file = self.file.clone();
        let _lock = self.write_lock.lock().await;
        self.fs
            .run(format!("write {}", self.path), CALL_TIMEOUT, move || {
                file.write_all_at(&data, offset)?;
                // Keeps the disk busy during the transfer instead of only in `finish`.
                begin_sync(&file, offset, data.len() as u64);
                Ok(())
            })
            .await
    }

    async fn finish(&self) -> Result<()> {
        let file = self.file.clone();
        let synced = self
            .fs
            .run(format!("write {}", self.path), SYNC_TIMEOUT, move || {
                file.sync_all()
            })
            .await;
        if synced.is_err() {
            // What the kernel could not write it may have dropped, and reads as written until then (fsync(2)).
            let _ = self.reset_records(&BTreeMap::new()).await;
        }
        synced
    }

    async fn rename_into_place(
        &self,
        path: &str,
        replaced: Option<FileStamp>,
    ) -> Result<Option<FileStamp>> {
        let action = format!("rename {} to {path}", self.path);
        let dir = self.pull.as_ref().map(|pull| pull.dir.clone());
        let (file, owner) = (self.file.clone(), self.fs.settings.owner.clone());
        let prepare = move || {
            FileOwner::resolve(&owner)?.apply(&file)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.sync_all()
        };
        self.fs.run(action.clone(), SYNC_TIMEOUT, prepare).await?;
        // Cancelled when this future ends: a thread runs on after its deadline, when the lock may be gone.
        let ended = CancellationToken::new();
        let _end = ended.clone().drop_guard();
        let (file, target) = (self.file.clone(), PathBuf::from(path));
        let settings = self.fs.settings.clone();
        let stamp = self
            .fs
            .run(action, CALL_TIMEOUT, move || {
                let dir = dir.ok_or(io::ErrorKind::InvalidInput)?;
                let to = dir.target(&settings, &target)?;
                // Its owner may be QEMU's user, which can open it once it has its name.
                let lease = FileLease::take(&file);
                rename(&dir.file(), &to, replaced, &ended)?;
                if !is_only_name(&file, &to)? {
                    return Err(io::Error::new(
                        io::ErrorKind::ResourceBusy,
                        "another process has replaced the file",
                    ));
                }
                let stamp = file_stamp(&file.metadata()?);
                let is_certain = lease.is_some_and(|lease| {
                    // A write within the same step of the clock would not show in the stamp.
                    std::thread::sleep(stamp.clock_step());
                    lease.is_unbroken()
                });
                sync_parent_dir(&to)?;
                Ok(is_certain.then_some(stamp))
            })
            .await?;
        // It is published: the next pull removes the directory.
        if let Err(error) = self.remove_dir().await {
            tracing::warn!("{error}");
        }
        Ok(stamp)
    }
}

pub(super) fn lock_file(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => in_use_error(),
        TryLockError::Error(error) => error,
    })
}

pub(super) fn in_use_error() -> io::Error {
    io::Error::new(
        io::ErrorKind::WouldBlock,
        "another process is writing it, or just finished",
    )
}

/// Locks an image as a QEMU that writes it and allows neither another writer nor a reader that needs it unchanged.
///
/// The bytes are those of QEMU, block/file-posix.c, `RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE`; the permission to
/// write is the second bit.
///
/// # Errors
/// `WouldBlock` if a QEMU has it open.
fn lock_as_qemu(file: &File) -> io::Result<()> {
    let byte = |kind: i32, start| nix::libc::flock {
        l_type: kind as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    };
    for (own, conflicting) in [(101, 201), (201, 101)] {
        fcntl(file, FcntlArg::F_OFD_SETLK(&byte(nix::libc::F_RDLCK, own)))?;
        let mut lock = byte(nix::libc::F_WRLCK, conflicting);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        if i32::from(lock.l_type) != nix::libc::F_UNLCK {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "QEMU has it open",
            ));
        }
    }
    Ok(())
}

/// Renames a file over the one with the stamp `replaced`; without one, never over an existing file. Not after `ended`.
fn rename(
    from: &Path,
    to: &Path,
    replaced: Option<FileStamp>,
    ended: &CancellationToken,
) -> io::Result<()> {
    if ended.is_cancelled() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let Some(replaced) = replaced {
        if file_stamp(&std::fs::symlink_metadata(to)?) != replaced {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the file of that name was changed meanwhile",
            ));
        }
        return std::fs::rename(from, to);
    }
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A file system without this flag (NFS): a link does not replace a file either.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_gets_no_name_after_its_writer_has_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        std::fs::write(&from, "new").unwrap();
        let ended = CancellationToken::new();
        ended.cancel();
        let error = rename(&from, &to, None, &ended).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(from.exists() && !to.exists());
        rename(&from, &to, None, &CancellationToken::new()).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
    }
}
