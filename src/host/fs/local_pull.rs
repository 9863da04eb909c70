//! The private directory of a pull on this machine, used by its descriptor.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{getegid, geteuid};

use super::checked_open::{open_no_follow, open_own};
use super::local::{FileOwner, sync_dir};
use super::local_handles::{in_use_error, lock_file};
use super::pinned::PinnedPath;
use super::pull_dir::{FILE_NAME, PullDir, PullDirRecords, foreign, unmarked_error};
use super::resume_log::{Content, MAX_LOG_BYTES, ResumeLog, ResumeState};
use snapdeck_model::settings::HostSettings;
use snapdeck_ownership::{MAX_MARK_BYTES, OwnerMark};

/// A file whose content differs after every boot (proc(5)).
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";
/// The file with the mark of the snapdeck that created the directory, and its name while it is written.
const MARK_NAME: &str = ".snapdeck-owner";
const NEW_MARK_NAME: &str = ".snapdeck-owner.new";
/// A download of the host itself for another machine, which is gone, ends without this file (remote.sh, `stand_by`).
const UNATTENDED_NAME: &str = "unattended";
/// For the end of such a download.
const UNATTENDED_END: Duration = Duration::from_secs(5);

/// An open directory that only this user can change.
#[derive(Clone)]
pub(super) struct LocalPullDir {
    handle: Arc<File>,
    path: PathBuf,
}

impl LocalPullDir {
    /// Creates the directory with the mark `new`, or opens an existing one; returns the mark that it has.
    ///
    /// One without a mark is used if it is empty: its creation was interrupted.
    ///
    /// # Errors
    /// `ResourceBusy` if snapdeck did not create it; an I/O error.
    pub(super) fn create(path: &Path, new: &OwnerMark) -> io::Result<(Self, OwnerMark)> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let dir = Self::open(path)?;
        let is_private = dir.is_private()?;
        if !is_private {
            return Err(foreign(format!(
                "{} belongs to another user, or is not private",
                path.display()
            )));
        }
        if let Some(mark) = dir.read_mark()? {
            return Ok((dir, mark));
        }
        if dir.names()?.iter().any(|name| name != NEW_MARK_NAME) {
            return Err(unmarked_error(&path.display().to_string()));
        }
        if let Err(error) = dir.write_mark(new) {
            let _ = std::fs::remove_file(dir.entry(NEW_MARK_NAME));
            let _ = dir.remove_name();
            return Err(error);
        }
        Ok((dir, new.clone()))
    }

    /// Opens the directory itself, never the target of a link.
    fn open(path: &Path) -> io::Result<Self> {
        let flags = nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let handle = opened.map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ENOTDIR | nix::libc::ELOOP) => {
                foreign(format!("{} is not a directory", path.display()))
            }
            _ => error,
        })?;
        Ok(Self {
            handle: Arc::new(handle),
            path: path.to_owned(),
        })
    }

    /// Returns the path of an entry, by the descriptor of the directory.
    pub(super) fn entry(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd()))
    }

    pub(super) fn file(&self) -> PathBuf {
        self.entry(FILE_NAME)
    }

    fn log(&self) -> PathBuf {
        PathBuf::from(ResumeLog::path(&self.file().to_string_lossy()))
    }

    /// Returns the path of a file beside the directory.
    fn sibling(&self, path: &Path) -> io::Result<PathBuf> {
        match path.file_name() {
            Some(name) if path.parent() == self.path.parent() => Ok(self.entry("..").join(name)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("it is not beside {}", self.path.display()),
            )),
        }
    }

    /// Returns the file `path`, beside the directory or in that of an organization beside it.
    pub(super) fn target(&self, settings: &HostSettings, path: &Path) -> io::Result<PinnedPath> {
        let split = path
            .to_str()
            .and_then(|path| settings.split_organization(path));
        match split {
            Some((organization, name)) if path.ancestors().nth(2) == self.path.parent() => {
                PinnedPath::in_organization(&self.entry(".."), organization, name, path)
            }
            _ => Ok(PinnedPath::plain(self.sibling(path)?)),
        }
    }

    /// Returns device and inode, as stat(1) prints them with `%d:%i`.
    pub(super) fn identity(&self) -> io::Result<String> {
        let metadata = self.handle.metadata()?;
        Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
    }

    fn is_private(&self) -> io::Result<bool> {
        let metadata = self.handle.metadata()?;
        // In a directory with the setgid bit it has that, too.
        let mode = metadata.mode() & 0o5777;
        Ok(metadata.uid() == geteuid().as_raw() && mode == 0o700)
    }

    fn names(&self) -> io::Result<Vec<std::ffi::OsString>> {
        let entries = std::fs::read_dir(self.entry("."))?;
        entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }

    /// Returns its mark; `None` without one.
    fn read_mark(&self) -> io::Result<Option<OwnerMark>> {
        let file = match open_no_follow(OpenOptions::new().read(true), &self.entry(MARK_NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        // One more byte shows that it is longer.
        file.take(MAX_MARK_BYTES + 1).read_to_end(&mut text)?;
        let mark = OwnerMark::parse(&text);
        mark.map(Some)
            .ok_or_else(|| unmarked_error(&self.path.display().to_string()))
    }

    fn write_mark(&self, mark: &OwnerMark) -> io::Result<()> {
        let new = self.entry(NEW_MARK_NAME);
        ignore_missing(std::fs::remove_file(&new))?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(mark.to_text().as_bytes())?;
        // On the disk first: after a failure of the file system an empty mark would prove nothing.
        file.sync_all()?;
        std::fs::rename(&new, self.entry(MARK_NAME))?;
        self.handle.sync_all()
    }

    /// Removes the directory and all that a pull has put there; the mark last, so that it can be repeated.
    ///
    /// # Errors
    /// `ResourceBusy` if it has other files, or another one has its name; an I/O error.
    pub(super) fn remove(&self) -> io::Result<()> {
        let names = [UNATTENDED_NAME, NEW_MARK_NAME].map(|name| self.entry(name));
        for path in names.into_iter().chain([self.file(), self.log()]) {
            ignore_missing(std::fs::remove_file(path))?;
        }
        if self.names()?.iter().any(|name| name != MARK_NAME) {
            let path = self.path.display();
            return Err(foreign(format!(
                "{path} has files that snapdeck did not create"
            )));
        }
        self.check_name()?;
        ignore_missing(std::fs::remove_file(self.entry(MARK_NAME)))?;
        self.remove_name()
    }

    fn check_name(&self) -> io::Result<()> {
        let named = std::fs::symlink_metadata(self.sibling(&self.path)?)?;
        let open = self.handle.metadata()?;
        if (open.dev(), open.ino()) != (named.dev(), named.ino()) {
            let path = self.path.display();
            return Err(foreign(format!(
                "another directory has the name {path} now"
            )));
        }
        Ok(())
    }

    /// Removes the empty directory if it still has its name.
    fn remove_name(&self) -> io::Result<()> {
        self.check_name()?;
        // Afterwards its own descriptor does not lead there.
        let parent = File::open(self.entry(".."))?;
        std::fs::remove_dir(self.sibling(&self.path)?)?;
        parent.sync_all()
    }
}

/// Ends the download that continues unattended in the directory of a pull of this user; returns whether there is one.
pub(crate) fn end_unattended(path: &Path) -> bool {
    let Ok(dir) = LocalPullDir::open(path) else {
        return false;
    };
    dir.is_private().unwrap_or(false)
        && dir.read_mark().is_ok_and(|mark| mark.is_some())
        && std::fs::remove_file(dir.entry(UNATTENDED_NAME)).is_ok()
}

/// Removes the directory of a pull that has nothing to resume: no file, or one that has its final name, too.
///
/// An empty one without a mark is removed if it is recorded.
pub(super) fn remove_finished(path: &Path, records: &PullDirRecords) -> io::Result<()> {
    let dir = match LocalPullDir::open(path) {
        Ok(dir) if dir.is_private()? => dir,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Of another program.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(error) => return Err(error),
    };
    match dir.read_mark() {
        Ok(Some(mark)) => {
            let file = std::fs::symlink_metadata(dir.file());
            if file.is_ok_and(|file| file.nlink() == 1) {
                return Ok(());
            }
            dir.remove()?;
            records.forget(&mark.id);
        }
        Ok(None) if records.has_any() && dir.names()?.is_empty() => {
            dir.remove_name()?;
            records.forget_all();
        }
        Ok(None) | Err(_) => {}
    }
    Ok(())
}

/// The file of a pull, open and locked.
pub(super) struct OpenPull {
    pub dir: LocalPullDir,
    pub pull_dir: PullDir,
    pub file: File,
    pub resume_state: ResumeState,
    pub log: ResumeLog,
    pub log_file: File,
}

/// Opens or creates the directory of a pull, its file of mode 0600, which is locked, and the resume log.
///
/// # Errors
/// As [`HostFs::open_writer`](super::HostFs::open_writer).
pub(super) fn open_pull(
    path: &Path,
    owner_name: &str,
    content: Content,
    records: &PullDirRecords,
) -> io::Result<OpenPull> {
    let owner = FileOwner::resolve(owner_name)?;
    let claimed = records.claim();
    let (dir, found) =
        LocalPullDir::create(path, &claimed).inspect_err(|_| records.forget(&claimed.id))?;
    let pull_dir = records.entered(&claimed, found, dir.identity()?);
    open_file(&dir, &owner, owner_name, content, &pull_dir)
        .map(|(file, resume_state, log, log_file)| OpenPull {
            dir: dir.clone(),
            pull_dir,
            file,
            resume_state,
            log,
            log_file,
        })
        .map_err(|error| {
            // A new one has nothing to resume.
            let _ = remove_finished(path, records);
            explain_entry(error, &dir)
        })
}

/// Names the directory by its path, not by its descriptor.
fn explain_entry(error: io::Error, dir: &LocalPullDir) -> io::Error {
    let descriptor = format!("/proc/self/fd/{}", dir.handle.as_raw_fd());
    let text = error.to_string();
    match error.raw_os_error().is_none() && text.contains(&descriptor) {
        true => {
            let path = dir.path.display().to_string();
            io::Error::new(error.kind(), text.replace(&descriptor, &path))
        }
        false => error,
    }
}

/// An existing file is locked before anything in the directory changes: two processes never write, validate or rename one
/// file at a time.
fn open_file(
    dir: &LocalPullDir,
    owner: &FileOwner,
    owner_name: &str,
    content: Content,
    pull_dir: &PullDir,
) -> io::Result<(File, ResumeState, ResumeLog, File)> {
    let (path, log_path) = (dir.file(), dir.log());
    // Locked until it is open: no program that downloads to it for an earlier pull still runs then (remote.sh, lock_dir).
    let mut options = OpenOptions::new();
    let mark_file = open_no_follow(options.read(true).write(true), &dir.entry(MARK_NAME))?;
    let started = Instant::now();
    let is_unattended = std::fs::remove_file(dir.entry(UNATTENDED_NAME)).is_ok();
    while is_unattended && started.elapsed() < UNATTENDED_END && lock_file(&mark_file).is_err() {
        sleep(Duration::from_millis(50));
    }
    lock_file(&mark_file)?;
    // Without a boot ID, recorded blocks are verified before use.
    let boot_id = std::fs::read_to_string(BOOT_ID_PATH).unwrap_or_default();
    let log = ResumeLog {
        boot_id: boot_id.trim().to_owned(),
        content,
        owner: None,
    };
    let is_missing = matches!(
        std::fs::symlink_metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound
    );
    if is_missing {
        let text = read_log(&log_path, owner_name)?;
        pull_dir.check_content(&text, false, &log.content)?;
        let log_file = append_header(dir, owner_name, &log)?;
        let file = create_file(&path)?;
        // A wrong owner fails here rather than after an hour of writing.
        if let Err(error) = owner.apply(&file) {
            std::fs::remove_file(&path)?;
            std::fs::remove_file(&log_path)?;
            return Err(error);
        }
        keep(&file)?;
        file.set_len(log.content.size_bytes)?;
        return Ok((file, ResumeState::default(), log, log_file));
    }
    let mut options = OpenOptions::new();
    let file = open_own(options.read(true).write(true), &path, owner_name)?;
    lock_partial(&file, &path)?;
    let text = read_log(&log_path, owner_name)?;
    pull_dir.check_content(&text, true, &log.content)?;
    owner.apply(&file)?;
    keep(&file)?;
    let resume_state = log.parse(&text, file.metadata()?.len());
    if resume_state.blocks.is_empty() {
        let log_file = append_header(dir, owner_name, &log)?;
        file.set_len(0)?;
        file.set_len(log.content.size_bytes)?;
        return Ok((file, resume_state, log, log_file));
    }
    let mut log_file = open_own(OpenOptions::new().append(true), &log_path, owner_name)?;
    // Ends a truncated record.
    log_file.write_all(b"\n")?;
    Ok((file, resume_state, log, log_file))
}

/// Makes it a file of this user until it gets its name: another process of the owner could open it by that of qemu-img, which runs
/// with other rights.
fn keep(file: &File) -> io::Result<()> {
    fchown(file, Some(geteuid().as_raw()), Some(getegid().as_raw()))?;
    file.set_permissions(Permissions::from_mode(0o644))
}

fn create_file(path: &Path) -> io::Result<File> {
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
fn append_header(dir: &LocalPullDir, owner: &str, log: &ResumeLog) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.append(true).create(true).mode(0o600);
    let mut file = open_own(options, &dir.log(), owner)?;
    // The newline ends a truncated record.
    let text = format!("\n{}", log.header(&BTreeMap::new()));
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    sync_dir(&dir.entry("."))?;
    Ok(file)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
