//! Readers and writers of this machine's files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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
use super::checked_open::{is_only_name, open_own, open_regular};
use super::local::{CALL_TIMEOUT, FileOwner, LocalFs, sync_parent_dir};
use super::partial_owner::PartialOwner;
use super::resume_log::{Content, MAX_LOG_BYTES, ResumeLog, ResumeState};
use super::{HostFs, ReadFile, WriteFile};
use crate::image_file::file_stamp;
use snapdeck_libvirt::begin_sync;
use snapdeck_model::{BufferPool, Digest, FileStamp, Result};

/// For flushing gigabytes to the disk.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A file whose content differs after every boot (proc(5)).
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// A file open for reads.
pub(super) struct LocalReader {
    fs: LocalFs,
    path: Arc<str>,
    file: Arc<File>,
    size_bytes: u64,
}

impl LocalReader {
    pub(super) async fn open(fs: &LocalFs, path: &str) -> Result<Self> {
        let (name, owner) = (PathBuf::from(path), fs.settings.owner.clone());
        let opened = fs.run(format!("open {path}"), CALL_TIMEOUT, move || {
            let file = open_regular(&name, &owner)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        let (file, size_bytes) = opened.await?;
        Ok(Self {
            fs: fs.clone(),
            path: path.into(),
            file: Arc::new(file),
            size_bytes,
        })
    }
}

#[async_trait]
impl ReadFile for LocalReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
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

/// A file open for writes, locked until it is dropped.
pub(super) struct LocalWriter {
    fs: LocalFs,
    path: Arc<str>,
    file: Arc<File>,
    resume_state: ResumeState,
    /// `None` for the repair of a file that has its final name.
    resume_log: Option<(ResumeLog, Arc<File>)>,
    partial_owner: Option<PartialOwner>,
    /// The kernel serialises the writes to a file: a thread that waits there spins, a task that waits here does not.
    write_lock: Mutex<()>,
}

impl LocalWriter {
    /// Creates or resumes a file, as [`HostFs::open_writer`].
    pub(super) async fn create(
        fs: &LocalFs,
        path: &str,
        owner: String,
        content: Content,
    ) -> Result<Self> {
        let (name, log_path) = (PathBuf::from(path), PathBuf::from(ResumeLog::path(path)));
        let partial = PartialOwner::new(&fs.records, &fs.settings, path);
        let partial_owner = partial.clone();
        let opened = fs.run(format!("create {path}"), CALL_TIMEOUT, move || {
            open_partial(&name, &log_path, &owner, content, &partial)
        });
        let (file, resume_state, log, log_file) = opened.await?;
        let resume_log = Some((log, Arc::new(log_file)));
        Ok(Self {
            partial_owner: Some(partial_owner),
            ..Self::new(fs, path, file, resume_state, resume_log)
        })
    }

    /// Opens a file as [`HostFs::open_for_repair`].
    pub(super) async fn open_for_repair(fs: &LocalFs, path: &str) -> Result<Self> {
        let (name, owner) = (PathBuf::from(path), fs.settings.owner.clone());
        let opened = fs.run(format!("open {path}"), CALL_TIMEOUT, move || {
            let file = open_own(OpenOptions::new().read(true).write(true), &name, &owner)?;
            lock_file(&file)?;
            lock_as_qemu(&file)?;
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
        resume_log: Option<(ResumeLog, Arc<File>)>,
    ) -> Self {
        Self {
            fs: fs.clone(),
            path: path.into(),
            file: Arc::new(file),
            resume_state,
            resume_log,
            partial_owner: None,
            write_lock: Mutex::default(),
        }
    }

    async fn append_to_log(&self, entry: impl FnOnce(&ResumeLog) -> String) -> Result<()> {
        let Some((log, file)) = &self.resume_log else {
            return Ok(());
        };
        let (entry, file) = (entry(log), file.clone());
        let action = format!("write {}", ResumeLog::path(&self.path));
        self.fs
            .run(action, CALL_TIMEOUT, move || {
                (&*file).write_all(entry.as_bytes())
            })
            .await
    }

    /// Removes the resume log, after its file was removed or renamed: a partial file without a log is not snapdeck's.
    async fn remove_log(&self) -> Result<()> {
        self.fs.remove_file(&ResumeLog::path(&self.path)).await?;
        if let (Some(partial), Some((log, _))) = (&self.partial_owner, &self.resume_log) {
            partial.forget(log.owner.as_ref());
        }
        Ok(())
    }
}

#[async_trait]
impl WriteFile for LocalWriter {
    fn resume_state(&self) -> &ResumeState {
        &self.resume_state
    }

    async fn record(&self, block: u64, digest: &Digest) -> Result<()> {
        self.append_to_log(|_| ResumeLog::record(block, digest))
            .await
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

    async fn discard(&self) -> Result<()> {
        self.fs.remove_file(&self.path).await?;
        self.remove_log().await
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

    async fn rename_into_place(&self, path: &str, replaced: Option<FileStamp>) -> Result<()> {
        let file = self.file.clone();
        let (from, to) = (PathBuf::from(&*self.path), PathBuf::from(path));
        let action = format!("rename {} to {path}", self.path);
        self.fs
            .run(action, CALL_TIMEOUT, move || {
                file.set_permissions(Permissions::from_mode(0o644))?;
                file.sync_all()?;
                rename(&from, &to, replaced)?;
                if !is_only_name(&file, &to)? {
                    return Err(io::Error::new(
                        io::ErrorKind::ResourceBusy,
                        "another process has replaced the partial file",
                    ));
                }
                sync_parent_dir(&to)
            })
            .await?;
        // It is published: a log without its partial file is harmless.
        if let Err(error) = self.remove_log().await {
            tracing::warn!("{error}");
        }
        Ok(())
    }
}

type OpenPartial = (File, ResumeState, ResumeLog, File);

/// Opens or creates a partial file of mode 0600, which is locked, and its resume log.
///
/// An existing file is locked before anything in the directory changes: two processes never write, validate or rename
/// one partial file at a time. The log of a new one is written first: without a log a file is not snapdeck's.
fn open_partial(
    path: &Path,
    log_path: &Path,
    owner_name: &str,
    content: Content,
    partial: &PartialOwner,
) -> io::Result<OpenPartial> {
    let owner = FileOwner::resolve(owner_name)?;
    // Without a boot ID, recorded blocks are verified before use.
    let boot_id = std::fs::read_to_string(BOOT_ID_PATH).unwrap_or_default();
    let mut log = ResumeLog {
        boot_id: boot_id.trim().to_owned(),
        content,
        owner: None,
    };
    let is_missing = matches!(
        std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound
    );
    if is_missing {
        let text = read_log(log_path, owner_name)?;
        log.owner = Some(partial.claim_new(&text)?);
        let log_file = append_header(log_path, owner_name, &log)?;
        let file = create_partial(path).inspect_err(|_| partial.forget(log.owner.as_ref()))?;
        // A wrong owner fails here rather than after an hour of writing.
        if let Err(error) = owner.apply(&file) {
            std::fs::remove_file(path)?;
            std::fs::remove_file(log_path)?;
            partial.forget(log.owner.as_ref());
            return Err(error);
        }
        file.set_len(log.content.size_bytes)?;
        return Ok((file, ResumeState::default(), log, log_file));
    }
    let file = open_own(OpenOptions::new().read(true).write(true), path, owner_name)?;
    lock_partial(&file, path)?;
    let text = read_log(log_path, owner_name)?;
    log.owner = partial.check_existing(&text, &log.content)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    owner.apply(&file)?;
    let resume_state = log.parse(&text, file.metadata()?.len());
    if resume_state.blocks.is_empty() {
        let log_file = append_header(log_path, owner_name, &log)?;
        file.set_len(0)?;
        file.set_len(log.content.size_bytes)?;
        return Ok((file, resume_state, log, log_file));
    }
    let mut log_file = open_own(OpenOptions::new().append(true), log_path, owner_name)?;
    // Ends a truncated record.
    log_file.write_all(b"\n")?;
    Ok((file, resume_state, log, log_file))
}

fn create_partial(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => in_use_error(),
            _ => error,
        })?;
    lock_partial(&file, path)?;
    Ok(file)
}

fn lock_partial(file: &File, path: &Path) -> io::Result<()> {
    lock_file(file)?;
    let identity = |data: std::fs::Metadata| (data.dev(), data.ino());
    // Between open and lock, its last writer may have renamed it into place: then it is a finished snapshot.
    let current = std::fs::symlink_metadata(path).map(identity).ok();
    match current == Some(identity(file.metadata()?)) {
        true => Ok(()),
        false => Err(in_use_error()),
    }
}

/// Returns the text of a resume log; empty if it does not exist.
fn read_log(path: &Path, owner: &str) -> io::Result<Vec<u8>> {
    let file = match open_own(OpenOptions::new().read(true), path, owner) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_LOG_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// Begins a log, or adds a header that discards all records before it.
fn append_header(path: &Path, owner: &str, log: &ResumeLog) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.append(true).create(true).mode(0o600);
    let mut file = open_own(options, path, owner)?;
    // The newline ends a truncated record.
    let text = format!("\n{}", log.header(&BTreeMap::new()));
    file.write_all(text.as_bytes())?;
    // Before the partial file: one whose log a power failure has emptied would not be known as snapdeck's.
    file.sync_all()?;
    sync_parent_dir(path)?;
    Ok(file)
}

fn lock_file(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => in_use_error(),
        TryLockError::Error(error) => error,
    })
}

fn in_use_error() -> io::Error {
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

/// Renames a file over the one with the stamp `replaced`; without one, never over an existing file.
fn rename(from: &Path, to: &Path, replaced: Option<FileStamp>) -> io::Result<()> {
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
