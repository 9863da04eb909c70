//! Files of this machine: read and written at offsets, made under names that no finished file has, and landed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, RenameFlags, fcntl, renameat2};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Group, User};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::blocks::{BlockCopy, BlockSender, CopySource};
use super::errors::{TEMP_DIR_HINT, explain, suggest_other_id};
use super::resume_log::{Content, MAX_LOG_BYTES, ResumeLog, ResumeState};
use super::{FileReader, FileWriter, HostFiles, HostFs, PreopenedFile, ReadFile, WriteFile};
use crate::blocking_pool::{BlockingPool, Timeout};
use crate::image_file::{self, ImageFile};
use crate::inventory::file_source::FileMetadataSource;
use snapdeck_libvirt::begin_sync;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{BufferPool, Digest, Error, Kind, Result};

/// File calls under way at once on one host.
const MAX_CONCURRENT_CALLS: usize = 16;
/// For calls on names and for blocks of a few MiB.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// For bringing gigabytes to the disk.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// For flushing the data of one file.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// What the private directories under a host's `temp_dir` begin with.
const TEMP_PREFIX: &str = "snapdeck-";
/// What the hidden directories of backups end with.
const BACKUP_SUFFIX: &str = ".backup";
/// Differs after every start of the host (proc(5)).
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The files of this machine.
#[derive(Clone)]
pub(crate) struct LocalFs {
    settings: Arc<HostSettings>,
    pool: BlockingPool,
}

impl LocalFs {
    pub(crate) fn new(settings: Arc<HostSettings>) -> Self {
        Self {
            settings,
            pool: BlockingPool::new(MAX_CONCURRENT_CALLS),
        }
    }

    /// Runs a blocking `call`; `what` completes "cannot ... on host NAME".
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: String,
        deadline: Duration,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let what = format!("cannot {what} on host {}", self.settings.name);
        match self.pool.run(deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(explain(what, &error)),
            Err(Timeout) => Err(Error::new(Kind::Unreachable, what)
                .with_cause(format!("no answer for {} s", deadline.as_secs()))
                .hint("check whether the file system there hangs")
                .retryable()),
        }
    }
}

#[async_trait]
impl HostFs for LocalFs {
    async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        let file = PathBuf::from(path);
        self.run(
            format!("read {path}"),
            CALL_TIMEOUT,
            move || match image_file::inspect(&file) {
                Ok(seen) => Ok(Some(seen)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        )
        .await
    }

    async fn open_reader(&self, path: &str) -> Result<FileReader> {
        let name = PathBuf::from(path);
        let (file, size_bytes) = self
            .run(format!("open {path}"), CALL_TIMEOUT, move || {
                let file = File::open(name)?;
                let size = file.metadata()?.len();
                Ok((file, size))
            })
            .await?;
        Ok(Box::new(LocalReader {
            files: self.clone(),
            path: path.into(),
            file: Arc::new(file),
            size_bytes,
        }))
    }

    async fn preopen(&self, path: &str) -> PreopenedFile {
        PreopenedFile::new(HostFiles::Local(self.clone()), path, None)
    }

    async fn open_writer(&self, path: &str, content: &Content) -> Result<FileWriter> {
        let (name, owner) = (PathBuf::from(path), self.settings.owner.clone());
        let (marks, whole) = (ResumeLog::path(path), content.clone());
        let opened = self.run(format!("create {path}"), CALL_TIMEOUT, move || {
            let file = create(&name, &owner)?;
            // Without one, nothing is settled.
            let boot_id = std::fs::read_to_string(BOOT_ID_PATH).unwrap_or_default();
            let mark = ResumeLog {
                boot_id: boot_id.trim().to_owned(),
                content: whole,
            };
            let text = read_prefix(Path::new(&marks), MAX_LOG_BYTES)?.unwrap_or_default();
            let recorded = mark.parse(&text, file.metadata()?.len());
            if recorded.blocks.is_empty() {
                ignore_not_found(std::fs::remove_file(&marks))?;
                file.set_len(0)?;
                file.set_len(mark.content.size_bytes)?;
            }
            let options = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .clone();
            let mut marks = options.open(marks)?;
            if recorded.blocks.is_empty() {
                marks.write_all(mark.header(&BTreeMap::new()).as_bytes())?;
            } else {
                // Behind a record that was cut off.
                marks.write_all(b"\n")?;
            }
            Ok((file, recorded, mark, marks))
        });
        let (file, recorded, mark, marks) = opened.await?;
        Ok(Box::new(LocalWriter {
            files: self.clone(),
            path: path.into(),
            file: Arc::new(file),
            resume_state: recorded,
            resume_log: Some((mark, Arc::new(marks))),
            write_lock: Mutex::default(),
        }))
    }

    async fn open_for_repair(&self, path: &str) -> Result<FileWriter> {
        let name = PathBuf::from(path);
        let opened = self.run(format!("open {path}"), CALL_TIMEOUT, move || {
            let file = OpenOptions::new().read(true).write(true).open(name)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use_error()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            lock_as_qemu(&file)?;
            Ok(file)
        });
        Ok(Box::new(LocalWriter {
            file: Arc::new(opened.await?),
            files: self.clone(),
            path: path.into(),
            resume_state: ResumeState::default(),
            resume_log: None,
            write_lock: Mutex::default(),
        }))
    }

    async fn hash_blocks(
        &self,
        path: &str,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.hash(path, blocks, results, cancel).await
    }

    async fn make_temp_dir(&self) -> Result<String> {
        let under = &self.settings.temp_dir;
        let parent = PathBuf::from(under);
        let made = self
            .run(
                format!("make a directory in {under}"),
                CALL_TIMEOUT,
                move || -> io::Result<PathBuf> {
                    let dir = tempfile::Builder::new()
                        .prefix(TEMP_PREFIX)
                        .permissions(std::fs::Permissions::from_mode(0o700))
                        .tempdir_in(parent)?;
                    Ok(dir.keep())
                },
            )
            .await;
        let made = made.map_err(|error| error.hint(TEMP_DIR_HINT))?;
        made.into_os_string().into_string().map_err(|dir| {
            Error::new(
                Kind::InvalidInput,
                format!(
                    "temp_dir of host {} is not valid UTF-8: {}",
                    self.settings.name,
                    dir.display()
                ),
            )
        })
    }

    async fn make_backup_dir(&self, id: &str) -> Result<String> {
        let under = &self.settings.sandboxes_dir;
        let (parent, owner) = (PathBuf::from(under), self.settings.owner.clone());
        let prefix = format!(".{id}.");
        let made = self.run(
            format!("make a directory in {under}"),
            CALL_TIMEOUT,
            move || {
                let (uid, gid) = resolve_owner(&owner)?;
                let dir = tempfile::Builder::new()
                    .prefix(&prefix)
                    .suffix(BACKUP_SUFFIX)
                    .permissions(std::fs::Permissions::from_mode(0o700))
                    .tempdir_in(parent)?;
                change_owner(&File::open(dir.path())?, &owner, uid, gid)?;
                let name = dir.keep();
                let name = name.file_name().unwrap_or_default().to_string_lossy();
                Ok(name.into_owned())
            },
        );
        Ok(format!("{under}/{}", made.await?))
    }

    async fn backup_dirs(&self) -> Result<Vec<String>> {
        let under = &self.settings.sandboxes_dir;
        let dir = PathBuf::from(under);
        self.run(format!("list {under}"), CALL_TIMEOUT, move || {
            let entries = match std::fs::read_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let names = entries.flatten().map(|entry| entry.file_name());
            let names = names.filter_map(|name| name.into_string().ok());
            Ok(names.filter(|name| is_backup_dir(name)).collect())
        })
        .await
    }

    async fn remove_temp_dir(&self, path: &str) -> Result<()> {
        let dir = PathBuf::from(path);
        self.run(format!("remove {path}"), CALL_TIMEOUT, move || {
            let ours = dir.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with(TEMP_PREFIX) || is_backup_dir(&name)
            });
            if !ours {
                return Err(io::Error::other("it is not a directory of snapdeck"));
            }
            ignore_not_found(std::fs::remove_dir_all(dir)).map(|_| ())
        })
        .await
    }

    async fn remove_file(&self, path: &str) -> Result<bool> {
        let file = PathBuf::from(path);
        self.run(format!("remove {path}"), CALL_TIMEOUT, move || {
            let removed = ignore_not_found(std::fs::remove_file(&file))?;
            sync_parent_dir(&file)?;
            Ok(removed)
        })
        .await
    }

    async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let file = PathBuf::from(path);
        self.run(format!("read {path}"), CALL_TIMEOUT, move || {
            read_prefix(&file, limit)
        })
        .await
    }

    async fn write_file(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        let (file, owner) = (PathBuf::from(path), self.settings.owner.clone());
        self.run(format!("write {path}"), CALL_TIMEOUT, move || {
            let (uid, gid) = resolve_owner(&owner)?;
            let dir = file.parent().unwrap_or(Path::new("/"));
            let mut new = tempfile::Builder::new().prefix(".").tempfile_in(dir)?;
            new.write_all(&bytes)?;
            std::os::unix::fs::fchown(&new, Some(uid), Some(gid))?;
            new.as_file()
                .set_permissions(std::fs::Permissions::from_mode(0o644))?;
            new.as_file().sync_all()?;
            new.persist(&file).map_err(|error| error.error)?;
            sync_parent_dir(&file)
        })
        .await
    }

    async fn create_exclusive(&self, path: &str) -> Result<()> {
        let (file, owner) = (PathBuf::from(path), self.settings.owner.clone());
        self.run(format!("create {path}"), CALL_TIMEOUT, move || {
            let (uid, gid) = resolve_owner(&owner)?;
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&file)?;
            let given = made
                .set_permissions(std::fs::Permissions::from_mode(0o644))
                .and_then(|()| change_owner(&made, &owner, uid, gid))
                .and_then(|()| sync_parent_dir(&file));
            given.inspect_err(|_| {
                // It is ours, and of no use to anybody.
                let _ = std::fs::remove_file(&file);
            })
        })
        .await
        .map_err(suggest_other_id)
    }

    async fn copy_file(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (PathBuf::from(from), PathBuf::from(to));
        self.run(format!("copy {from} to {to}"), CALL_TIMEOUT, move || {
            let mut source = File::open(source)?;
            let mut target = OpenOptions::new().write(true).truncate(true).open(target)?;
            io::copy(&mut source, &mut target)?;
            target.sync_all()
        })
        .await
    }

    async fn flush_file(&self, path: &str, cancel: &CancellationToken) -> Result<()> {
        let file = PathBuf::from(path);
        let flush = self.run(format!("flush {path}"), FLUSH_TIMEOUT, move || {
            File::open(file)?.sync_data()
        });
        tokio::select! {
            flushed = flush => flushed,
            () = cancel.cancelled() => Err(Error::cancelled(format!("flushing {path}"))),
        }
    }

    async fn free_bytes(&self, dir: &str) -> Result<u64> {
        let path = PathBuf::from(dir);
        self.run(format!("look at {dir}"), CALL_TIMEOUT, move || {
            let there = statvfs(&path)?;
            Ok(there
                .blocks_available()
                .saturating_mul(there.fragment_size()))
        })
        .await
    }

    async fn canonicalize(&self, paths: &[&str]) -> Result<Vec<PathBuf>> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        self.run("look at files".into(), CALL_TIMEOUT, move || {
            Ok(paths
                .iter()
                .map(|path| FileMetadataSource::Local.canonicalize(path))
                .collect())
        })
        .await
    }
}

fn is_backup_dir(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(BACKUP_SUFFIX)
}

/// A file for us alone. Its lock is taken before anything in the directory changes, and is held until
/// the writer is dropped: two processes never write, prove or land one partial file at a time.
fn create(path: &Path, owner: &str) -> io::Result<File> {
    let (uid, gid) = resolve_owner(owner)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use_error()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Between the opening and the lock its last writer may have landed it: then it bears a final name now,
    // and is not ours to write.
    if std::fs::metadata(path).map(|now| now.ino()).ok() != Some(file.metadata()?.ino()) {
        return Err(in_use_error());
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    // Now rather than after an hour of writing.
    if let Err(error) = change_owner(&file, owner, uid, gid) {
        std::fs::remove_file(path)?;
        return Err(error);
    }
    Ok(file)
}

/// The first `limit` bytes of a file; `None` where there is none.
fn read_prefix(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Takes the locks by which QEMU tells others that it writes an image, and bears no other writer and no reader that
/// wants it to stay as it is (QEMU, block/file-posix.c, `RAW_LOCK_PERM_BASE`, `RAW_LOCK_SHARED_BASE`; the permission to
/// write is the second bit).
///
/// # Errors
/// `WouldBlock` where one has it open.
fn lock_as_qemu(file: &File) -> io::Result<()> {
    let byte = |kind: i32, start| nix::libc::flock {
        l_type: kind as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    };
    for (ours, others) in [(101, 201), (201, 101)] {
        fcntl(file, FcntlArg::F_OFD_SETLK(&byte(nix::libc::F_RDLCK, ours)))?;
        let mut held = byte(nix::libc::F_WRLCK, others);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut held))?;
        if i32::from(held.l_type) != nix::libc::F_UNLCK {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "a QEMU has it open",
            ));
        }
    }
    Ok(())
}

fn change_owner(file: &File, owner: &str, uid: u32, gid: u32) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(uid), Some(gid)).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot change its owner to {owner}: {error}"),
        )
    })
}

fn in_use_error() -> io::Error {
    io::Error::new(
        io::ErrorKind::WouldBlock,
        "another process is writing it, or just finished",
    )
}

/// `user:group`, names or numbers, as ids.
fn resolve_owner(owner: &str) -> io::Result<(u32, u32)> {
    let unknown = |what: &str, name: &str| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no {what} {name:?}; check owner of the host in the settings"),
        )
    };
    let (user, group) = owner
        .split_once(':')
        .ok_or_else(|| unknown("user:group", owner))?;
    let uid = match user.parse() {
        Ok(uid) => uid,
        Err(_) => User::from_name(user)?
            .ok_or_else(|| unknown("user", user))?
            .uid
            .as_raw(),
    };
    let gid = match group.parse() {
        Ok(gid) => gid,
        Err(_) => Group::from_name(group)?
            .ok_or_else(|| unknown("group", group))?
            .gid
            .as_raw(),
    };
    Ok((uid, gid))
}

/// Did it happen, rather than having nothing to happen to?
fn ignore_not_found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync_parent_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Renames; with `replace` false never over an existing file.
fn rename(from: &Path, to: &Path, replace: bool) -> io::Result<()> {
    if replace {
        return std::fs::rename(from, to);
    }
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A file system that cannot (NFS): a link refuses an existing name just as safely.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

/// Reads a file of the host at offsets.
struct LocalReader {
    files: LocalFs,
    path: Arc<str>,
    file: Arc<File>,
    size_bytes: u64,
}

#[async_trait]
impl ReadFile for LocalReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn read_at(&self, buffers: &BufferPool, offset: u64, length: usize) -> Result<Bytes> {
        let (file, buffers) = (self.file.clone(), buffers.clone());
        self.files
            .run(format!("read {}", self.path), CALL_TIMEOUT, move || {
                let mut bytes = buffers.acquire(length);
                bytes.resize(length, 0);
                file.read_exact_at(&mut bytes, offset)?;
                Ok(buffers.share(bytes))
            })
            .await
    }
}

/// Writes a file of the host at offsets, in any order. Nobody else's [`Writer`] opens the same file
/// until this one is dropped.
struct LocalWriter {
    files: LocalFs,
    path: Arc<str>,
    file: Arc<File>,
    resume_state: ResumeState,
    /// `None` for a file that bears its final name.
    resume_log: Option<(ResumeLog, Arc<File>)>,
    /// The kernel takes the writes to a file one by one: who waits for it spins, who waits here does not.
    write_lock: Mutex<()>,
}

impl LocalWriter {
    async fn append_to_log(&self, entry: impl FnOnce(&ResumeLog) -> String) -> Result<()> {
        let Some((mark, file)) = &self.resume_log else {
            return Ok(());
        };
        let (entry, file) = (entry(mark), file.clone());
        let what = format!("write {}", ResumeLog::path(&self.path));
        self.files
            .run(what, CALL_TIMEOUT, move || {
                (&*file).write_all(entry.as_bytes())
            })
            .await
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
        self.append_to_log(|mark| mark.header(blocks)).await
    }

    async fn share(&self, _source: &CopySource) -> Result<bool> {
        // Extents are shared block by block.
        Ok(false)
    }

    async fn copy(
        &self,
        origin: &CopySource,
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let file = self.file.clone();
        self.files
            .copy_blocks(origin, file, pieces, told, cancel)
            .await
    }

    async fn discard(&self) -> Result<()> {
        self.files.remove_file(&ResumeLog::path(&self.path)).await?;
        self.files.remove_file(&self.path).await.map(|_| ())
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        let file = self.file.clone();
        let _turn = self.write_lock.lock().await;
        self.files
            .run(format!("write {}", self.path), CALL_TIMEOUT, move || {
                file.write_all_at(&data, offset)?;
                // The disk works while more comes, not only at the end.
                begin_sync(&file, offset, data.len() as u64);
                Ok(())
            })
            .await
    }

    async fn finish(&self) -> Result<()> {
        let file = self.file.clone();
        self.files
            .run(format!("write {}", self.path), SYNC_TIMEOUT, move || {
                file.sync_all()
            })
            .await
    }

    async fn rename_into_place(&self, path: &str, replace: bool) -> Result<()> {
        let (file, from, to) = (
            self.file.clone(),
            PathBuf::from(&*self.path),
            PathBuf::from(path),
        );
        self.files.remove_file(&ResumeLog::path(&self.path)).await?;
        self.files
            .run(format!("name {path}"), CALL_TIMEOUT, move || {
                file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
                file.sync_all()?;
                rename(&from, &to, replace)?;
                sync_parent_dir(&to)
            })
            .await
    }
}
