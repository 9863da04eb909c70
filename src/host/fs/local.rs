//! The file system of this machine.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::statvfs::statvfs;
use nix::unistd::{Group, User};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::blocks::{BlockCopy, BlockSender};
use super::checked_open::{is_own, open_trusted};
use super::errors::{explain, suggest_other_id};
use super::local_handles::{LocalReader, LocalWriter};
use super::local_pull;
use super::pinned::{PinnedPath, open_pinned};
use super::pull_dir::PullDirRecords;
use super::resume_log::Content;
use super::{Checksum, FileReader, FileWriter, HostAnswer, HostFiles, HostFs, PreopenedFile};
use crate::blocking_pool::{BlockingPool, Timeout};
use crate::image_file::{self, ImageFile};
use crate::inventory::file_source::FileMetadataSource;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{BlockSet, Error, FileStamp, Kind, PresignedRequest, ProgressCell, Result};
use snapdeck_ownership::OwnershipRecords;

/// Concurrent file calls on one host.
const MAX_CONCURRENT_CALLS: usize = 16;
/// For calls on names and for blocks of a few MiB.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct LocalFs {
    pub(super) settings: Arc<HostSettings>,
    pub(super) records: OwnershipRecords,
    pool: BlockingPool,
}

impl LocalFs {
    pub(crate) fn new(settings: Arc<HostSettings>, records: OwnershipRecords) -> Self {
        Self {
            settings,
            records,
            pool: BlockingPool::new(MAX_CONCURRENT_CALLS),
        }
    }

    /// Runs a blocking `call`; `action` completes "cannot ... on host NAME".
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        action: String,
        deadline: Duration,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let summary = format!("cannot {action} on host {}", self.settings.name);
        match self.pool.run(deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(explain(summary, &error)),
            Err(Timeout) => Err(Error::new(Kind::Unreachable, summary)
                .with_cause(format!("no answer for {} s", deadline.as_secs()))
                .hint("check whether the file system there hangs")
                .retryable()),
        }
    }

    /// Runs a blocking `call` on the file `path`, with a name of it on which no link leads elsewhere.
    async fn run_pinned<T: Send + 'static>(
        &self,
        action: String,
        path: &str,
        call: impl FnOnce(&Path, &HostSettings) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (path, settings) = (PathBuf::from(path), self.settings.clone());
        self.run(action, CALL_TIMEOUT, move || {
            let pinned = PinnedPath::open(&settings, &path)?;
            call(&pinned, &settings).map_err(|error| pinned.explain(error))
        })
        .await
    }
}

#[async_trait]
impl HostFs for LocalFs {
    async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        let (file, settings) = (PathBuf::from(path), self.settings.clone());
        self.run(format!("read {path}"), CALL_TIMEOUT, move || {
            let pinned = PinnedPath::open(&settings, &file);
            match pinned.and_then(|pinned| image_file::inspect(&pinned)) {
                Ok(image) => Ok(Some(image)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn open_reader(&self, path: &str) -> Result<FileReader> {
        Ok(Box::new(LocalReader::open(self, path).await?))
    }

    async fn preopen(&self, path: &str) -> PreopenedFile {
        PreopenedFile::new(HostFiles::Local(self.clone()), path, None)
    }

    async fn open_writer(&self, dir: &str, content: &Content) -> Result<FileWriter> {
        let writer = LocalWriter::create(self, dir, content.clone()).await?;
        Ok(Box::new(writer))
    }

    async fn open_for_repair(&self, path: &str, stamp: FileStamp) -> Result<FileWriter> {
        let writer = LocalWriter::open_for_repair(self, path, stamp).await?;
        Ok(Box::new(writer))
    }

    async fn hash_blocks(
        &self,
        path: &str,
        stamp: Option<FileStamp>,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.hash(path, stamp, blocks, results, cancel).await
    }

    async fn part_checksums(
        &self,
        file: (&str, Option<FileStamp>),
        checksum: Checksum,
        lengths: &[u64],
        progress: &Arc<ProgressCell>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Vec<u8>>> {
        self.checksums(file, checksum, lengths, progress, cancel)
            .await
    }

    async fn hole_blocks(&self, path: &str, stamp: Option<FileStamp>) -> Result<BlockSet> {
        self.find_holes(path, stamp).await
    }

    async fn remove_files(&self, paths: &[&str]) -> Result<bool> {
        let files: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        let (action, settings) = (
            format!("remove {}", paths.join(", ")),
            self.settings.clone(),
        );
        self.run(action, CALL_TIMEOUT, move || {
            let mut existed = None;
            for file in &files {
                let is_removed = match PinnedPath::open(&settings, file) {
                    Ok(pinned) => {
                        let is_removed = ignore_not_found(std::fs::remove_file(&*pinned))?;
                        sync_parent_dir(&pinned)?;
                        is_removed
                    }
                    // Files in a missing directory do not exist.
                    Err(error) => ignore_not_found(Err(error))?,
                };
                existed.get_or_insert(is_removed);
            }
            Ok(existed.unwrap_or(false))
        })
        .await
    }

    async fn remove_finished(&self, dir: &str) -> Result<()> {
        let path = PathBuf::from(dir);
        let records = PullDirRecords::new(&self.records, &self.settings, dir);
        self.run(format!("remove {dir}"), CALL_TIMEOUT, move || {
            local_pull::remove_finished(&path, &records)
        })
        .await
    }

    async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let (file, settings) = (path.to_owned(), self.settings.clone());
        self.run(format!("read {path}"), CALL_TIMEOUT, move || {
            read_start(open_pinned(&settings, &file), limit)
        })
        .await
    }

    async fn read_own_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let (file, settings) = (path.to_owned(), self.settings.clone());
        self.run(format!("read {path}"), CALL_TIMEOUT, move || {
            let opened = open_pinned(&settings, &file);
            match &opened {
                Ok(file) if !is_own(&file.metadata()?) => Ok(None),
                _ => read_start(opened, limit),
            }
        })
        .await
    }

    async fn read_trusted(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let file = PathBuf::from(path);
        self.run(format!("read {path}"), CALL_TIMEOUT, move || {
            read_start(open_trusted(&file), limit)
        })
        .await
    }

    async fn write_file(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        let action = format!("write {path}");
        self.run_pinned(action, path, move |file, _| {
            let new = new_file(file, None, &bytes)?;
            new.persist(file).map_err(|error| error.error)?;
            sync_parent_dir(file)
        })
        .await
    }

    async fn create_file(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        let action = format!("create {path}");
        self.run_pinned(action, path, move |file, _| {
            let dir = file.parent().unwrap_or(Path::new("/"));
            if file.symlink_metadata().is_ok() || !dir.exists() {
                return Ok(());
            }
            match new_file(file, None, &bytes)?.persist_noclobber(file) {
                Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(error.error)
                }
                // Another process has created it.
                Err(_) => Ok(()),
                Ok(_) => sync_parent_dir(file),
            }
        })
        .await
    }

    async fn create_new(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        let action = format!("create {path}");
        self.run_pinned(action, path, move |file, settings| {
            let new = new_file(file, Some(&FileOwner::resolve(&settings.owner)?), &bytes)?;
            new.persist_noclobber(file).map_err(|error| error.error)?;
            sync_parent_dir(file)
        })
        .await
        .map_err(suggest_other_id)
    }

    async fn flush_file(&self, path: &str, cancel: &CancellationToken) -> Result<()> {
        let (file, settings) = (path.to_owned(), self.settings.clone());
        let flush = self.run(format!("flush {path}"), FLUSH_TIMEOUT, move || {
            open_pinned(&settings, &file)?.sync_data()
        });
        tokio::select! {
            flushed = flush => flushed,
            () = cancel.cancelled() => Err(Error::cancelled(format!("flushing {path}"))),
        }
    }

    async fn free_bytes(&self, dir: &str) -> Result<u64> {
        let path = PathBuf::from(dir);
        let action = format!("read the free space of {dir}");
        self.run(action, CALL_TIMEOUT, move || {
            let stat = statvfs(&path)?;
            Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
        })
        .await
    }

    async fn try_request(&self, _request: &PresignedRequest) -> Result<Option<HostAnswer>> {
        Ok(None)
    }

    async fn canonicalize(&self, paths: &[&str]) -> Result<Vec<PathBuf>> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        self.run("read file metadata".into(), CALL_TIMEOUT, move || {
            Ok(paths
                .iter()
                .map(|path| FileMetadataSource::Local.canonicalize(path))
                .collect())
        })
        .await
    }
}

/// Reads the first `limit` bytes of a file; `None` if it does not exist.
/// Returns the first `limit` bytes of an opened file; `None` if it does not exist.
fn read_start(opened: io::Result<File>, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Creates a file beside `path`, mode 0644, which is removed on drop unless it gets that name. Owner and mode are set by its
/// descriptor: another file may get its name meanwhile.
fn new_file(path: &Path, owner: Option<&FileOwner>, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::Builder::new().prefix(".").tempfile_in(dir)?;
    new.write_all(bytes)?;
    if let Some(owner) = owner {
        owner.apply(new.as_file())?;
    }
    new.as_file()
        .set_permissions(Permissions::from_mode(0o644))?;
    new.as_file().sync_all()?;
    Ok(new)
}

/// Returns `false` for `NotFound`.
fn ignore_not_found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn sync_parent_dir(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The `owner` of a host's settings.
pub(super) struct FileOwner {
    name: String,
    uid: u32,
    gid: u32,
}

impl FileOwner {
    /// Looks up `user:group`, by names or numbers.
    pub(super) fn resolve(owner: &str) -> io::Result<Self> {
        let unknown = |kind: &str, name: &str| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("no {kind} {name:?}; check owner of the host in the settings"),
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
        Ok(Self {
            name: owner.to_owned(),
            uid,
            gid,
        })
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Makes it the owner of `file`.
    pub(super) fn apply(&self, file: &File) -> io::Result<()> {
        std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid)).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot change its owner to {}: {error}", self.name),
            )
        })
    }
}
