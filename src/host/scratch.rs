//! Directories of jobs on a host: temporary ones in `temp_dir`, those of backups in `sandboxes_dir`.
//!
//! Each has a file with an [`OwnerMark`], whose id is recorded before the directory is created. Only directories with such
//! an id are removed: an operator's directory may have any name.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Host;
use super::command::Output;
use super::fs::{TEMP_DIR_HINT, suggest_other_id, system_error};
use super::supervisor::Limits;
use snapdeck_model::{Kind, Result, SandboxId};
use snapdeck_ownership::{OwnerMark, random_id};

pub(super) const SCRIPT: &str = concat!(
    include_str!("open_file.sh"),
    include_str!("private_dir.sh"),
    include_str!("owned.sh")
);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For removing a directory with a large file.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// For writing the tables of an empty image.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
/// For copying a large overlay without reflinks to a slow disk.
const COPY_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// For writing the cached data of such a copy to the disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Most output of the script: some ten thousand directories.
const MAX_OUTPUT_BYTES: usize = 4 << 20;
/// Hexadecimal digits of a name; the path of a socket below is limited to 107 bytes.
const NAME_DIGITS: usize = 8;

/// End of the name of a directory in which that of an organization is created.
pub(super) const ORGANIZATION_SUFFIX: &str = ".org";

/// A directory with the mark of a snapdeck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MarkedDir {
    pub name: String,
    /// `None`: its creation was interrupted.
    pub mark: Option<OwnerMark>,
}

/// The directories of jobs on a host.
#[derive(Clone, Copy)]
pub struct ScratchDirs<'a> {
    host: &'a Host,
}

impl<'a> ScratchDirs<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl ScratchDirs<'_> {
    /// Creates a private directory (0700) in the host's `temp_dir` and returns its path.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn make_temp(self) -> Result<String> {
        let parent = &self.host.settings.temp_dir;
        self.make(parent, &format!("snapdeck-{}", random_name()), "")
            .await
            .map_err(|error| error.hint(TEMP_DIR_HINT))
    }

    /// Creates a directory in `sandboxes_dir` for a backup of the sandbox `id`; returns its path.
    ///
    /// Only this user changes what is in it, except in the directory `run`, where QEMU creates its socket.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn make_backup(self, id: &SandboxId) -> Result<String> {
        let (parent, owner) = (&self.host.settings.sandboxes_dir, &self.host.settings.owner);
        self.make(parent, &format!(".{id}.{}.backup", random_name()), owner)
            .await
    }

    /// Creates the empty overlay `target`, in `sandboxes_dir`, on the snapshot `base` with a disk of `size_bytes`.
    ///
    /// It is made in a private directory: nothing is opened by a name that another user can give to another file.
    ///
    /// # Errors
    /// `Conflict` if a file or link has the name; `Failed` with qemu-img's message; `NoSpace`; `Unreachable`.
    pub async fn make_overlay(
        self,
        id: &SandboxId,
        base: &str,
        target: &str,
        size_bytes: u64,
    ) -> Result<()> {
        let dir = self.make_private(id).await?;
        let (owner, size) = (&self.host.settings.owner, size_bytes.to_string());
        let action = format!("create {target}");
        let args = [&**owner, base, &*size];
        let create = async {
            let made = self
                .run_in(&action, "make_overlay", &dir, &args, CREATE_TIMEOUT)
                .await?;
            self.publish(&action, &dir, target, &made).await
        };
        let made = create.await;
        self.remove_or_warn(&dir).await;
        made
    }

    /// Copies the overlay `source` into a private directory in `sandboxes_dir`, by a reflink if possible, and returns that
    /// directory, which [`ScratchDirs::publish_copy`] and then [`ScratchDirs::remove`] take. The copy ends with this process.
    ///
    /// # Errors
    /// `Failed` with cp's message; `NoSpace`; `Cancelled`; `Unreachable`. The directory is removed then.
    pub async fn copy_overlay(
        self,
        id: &SandboxId,
        source: &str,
        cancel: &CancellationToken,
    ) -> Result<String> {
        let dir = self.make_private(id).await?;
        let (argv, _) = self.copy_argv(&dir, source, false);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let limits = Limits {
            cpu_time: COPY_TIMEOUT,
            images: None,
        };
        let runner = &self.host.runner;
        let copied = match runner
            .run_limited(&argv, limits, COPY_TIMEOUT, cancel)
            .await
        {
            Ok(output) if output.status.success() => return Ok(dir),
            Ok(output) => {
                let summary = format!("cannot copy {source} on host {}", self.host.name());
                system_error(summary, &output.stderr)
            }
            Err(error) => error,
        };
        self.remove_or_warn(&dir).await;
        Err(copied)
    }

    /// Gives the copy in `dir` the name `target`, in `sandboxes_dir`, and the owner and mode of an overlay.
    ///
    /// # Errors
    /// As [`ScratchDirs::make_overlay`].
    pub async fn publish_copy(self, dir: &str, target: &str) -> Result<()> {
        let (action, owner) = (format!("create {target}"), &*self.host.settings.owner);
        let made = self
            .run_in(&action, "finish_copy", dir, &[owner], FLUSH_TIMEOUT)
            .await?;
        self.publish(&action, dir, target, &made).await
    }

    /// Gives the overlay in `dir`, whose identity the script has printed, the name `target`.
    async fn publish(self, action: &str, dir: &str, target: &str, made: &Output) -> Result<()> {
        // Recorded first: from then on it is known not to be a file of another program.
        let identity = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let created = self.host.created_files();
        created.record_identity(target, &identity);
        let published = self
            .run_in(action, "publish_overlay", dir, &[target], CREATE_TIMEOUT)
            .await;
        if published
            .as_ref()
            .is_err_and(|error| error.kind() == Kind::Conflict)
        {
            created.forget(target);
        }
        published.map(|_| ()).map_err(suggest_other_id)
    }

    /// Creates the directory of an organization in the snapshots directory, with the owner and mode of that, unless it exists.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub(super) async fn make_organization(self, organization: &str) -> Result<()> {
        let parent = &*self.host.settings.snapshots_dir;
        let name = format!(".{organization}.{}{ORGANIZATION_SUFFIX}", random_name());
        let dir = self.make(parent, &name, "").await?;
        let action = format!("create {parent}/{organization}");
        let verb = "make_organization";
        let made = self
            .run_in(&action, verb, &dir, &[organization], CALL_TIMEOUT)
            .await;
        self.remove_or_warn(&dir).await;
        made.map(|_| ())
    }

    /// Checks the directory of an organization; returns whether it exists.
    ///
    /// # Errors
    /// `Conflict` if it is a link, on another file system, another user's, or another directory of the settings; an I/O error;
    /// `Unreachable`.
    pub(super) async fn check_organization(self, organization: &str) -> Result<bool> {
        let settings = &self.host.settings;
        let dir = &*settings.snapshots_dir;
        let others = [
            &*settings.sandboxes_dir,
            &*settings.nvram_dir,
            &*settings.temp_dir,
        ];
        let args = [&[dir, organization][..], &others].concat();
        let action = format!("use {dir}/{organization}");
        let output = self
            .run(&action, "check_organization", &args, CALL_TIMEOUT)
            .await?;
        Ok(!output.stdout.starts_with(b"missing"))
    }

    async fn remove_or_warn(self, dir: &str) {
        if let Err(error) = self.remove(dir).await {
            // The next start removes it.
            tracing::warn!("{error}");
        }
    }

    /// Creates an empty image in the directory of a backup, for QEMU to write to; returns its path.
    ///
    /// # Errors
    /// As [`ScratchDirs::make_overlay`].
    pub(crate) async fn make_scratch(self, dir: &str, size_bytes: u64) -> Result<String> {
        let path = scratch_path(dir);
        let (owner, size) = (&self.host.settings.owner, size_bytes.to_string());
        let args = [&**owner, &*size];
        self.run_in(
            &format!("create {path}"),
            "make_scratch",
            dir,
            &args,
            CREATE_TIMEOUT,
        )
        .await?;
        Ok(path)
    }

    /// Returns inode and time of birth of a file, which a later file of its name does not have; `None` for anything but a
    /// regular file.
    ///
    /// # Errors
    /// `Unreachable`.
    pub(crate) async fn birth(self, path: &str) -> Result<Option<String>> {
        let action = format!("inspect {path}");
        let output = self.run(&action, "birth", &[path], CALL_TIMEOUT).await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((!text.is_empty()).then_some(text))
    }

    /// Runs a verb in a directory that this process has created.
    async fn run_in(
        self,
        action: &str,
        verb: &str,
        dir: &str,
        args: &[&str],
        limit: Duration,
    ) -> Result<Output> {
        let id = self.host.records.find_id(self.host.location(), dir);
        let id = id.unwrap_or_default();
        let args = [&[dir, &*id], args].concat();
        self.run(action, verb, &args, limit).await
    }

    /// Returns the command that copies `overlay` into the directory of a backup, and the path of the copy.
    pub(crate) fn copy_argv(
        self,
        dir: &str,
        overlay: &str,
        reflink_only: bool,
    ) -> (Vec<String>, String) {
        let id = self.host.records.find_id(self.host.location(), dir);
        let id = id.unwrap_or_default();
        let reflink = if reflink_only { "always" } else { "auto" };
        let owner = &*self.host.settings.owner;
        let words = [
            "sh",
            "-c",
            SCRIPT,
            "snapdeck",
            "copy_overlay",
            dir,
            &*id,
            owner,
            overlay,
            reflink,
        ];
        let argv = words.into_iter().map(str::to_owned).collect();
        (argv, format!("{dir}/overlay"))
    }

    /// Creates a directory in `sandboxes_dir` for the note of a pause of the sandbox `id`; returns its path. Named as that of
    /// a backup: if the watchdog is killed, too, it is found as one and the sandbox is resumed
    /// ([`Backups::remove_stale`](crate::Backups::remove_stale)).
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn make_pause(self, id: &SandboxId) -> Result<String> {
        self.make_private(id).await
    }

    /// Creates a directory in `sandboxes_dir` that only this user can change. Named as that of a backup, it is found and
    /// removed by the next operation on the sandbox if snapdeck is killed.
    async fn make_private(self, id: &SandboxId) -> Result<String> {
        let parent = &self.host.settings.sandboxes_dir;
        self.make(parent, &format!(".{id}.{}.backup", random_name()), "")
            .await
    }

    async fn make(self, parent: &str, name: &str, owner: &str) -> Result<String> {
        let (path, mark) = (format!("{parent}/{name}"), OwnerMark::new());
        let location = self.host.location();
        self.host.records.record(location, &path, &mark.id);
        let action = format!("create a directory in {parent}");
        let args = [&*path, owner, &mark.to_text()];
        match self.run(&action, "make", &args, CALL_TIMEOUT).await {
            Ok(_) => Ok(path),
            Err(error) => {
                // If the response was lost, it may exist.
                if error.kind() != Kind::Unreachable {
                    self.host.records.remove(location, &path, &mark.id);
                }
                Err(error)
            }
        }
    }

    /// Returns all directories of backups that have a mark, and private ones that have nothing.
    ///
    /// # Errors
    /// `Unreachable`.
    pub(crate) async fn backups(self) -> Result<Vec<MarkedDir>> {
        let parent = &*self.host.settings.sandboxes_dir;
        let action = format!("list {parent}");
        let output = self
            .run(&action, "list_backups", &[parent], CALL_TIMEOUT)
            .await?;
        let mut fields = output.stdout.split(|byte| *byte == 0);
        let mut dirs = Vec::new();
        while let [Some(name), Some(mark)] = std::array::from_fn(|_| fields.next()) {
            let Ok(name) = String::from_utf8(name.to_vec()) else {
                continue;
            };
            match OwnerMark::parse(mark) {
                None if !mark.is_empty() => {}
                mark => dirs.push(MarkedDir { name, mark }),
            }
        }
        Ok(dirs)
    }

    /// Removes a directory of this snapdeck, or of an earlier process of it, and its content; a missing one is fine.
    ///
    /// # Errors
    /// `Failed` for any other directory; an I/O error; `Unreachable`.
    pub async fn remove(self, path: &str) -> Result<()> {
        let location = self.host.location();
        // Without a record only a missing directory is fine.
        let id = self
            .host
            .records
            .find_id(location, path)
            .unwrap_or_default();
        self.remove_marked(path, &id).await?;
        self.host.records.remove(location, path, &id);
        Ok(())
    }

    /// Removes the directory whose mark has this id.
    ///
    /// # Errors
    /// As [`ScratchDirs::remove`].
    pub(crate) async fn remove_marked(self, path: &str, id: &str) -> Result<()> {
        let action = format!("remove {path}");
        self.run(&action, "remove", &[path, id], REMOVE_TIMEOUT)
            .await
            .map(|_| ())
    }

    async fn run(self, action: &str, verb: &str, args: &[&str], limit: Duration) -> Result<Output> {
        let argv = [&["sh", "-c", SCRIPT, "snapdeck", verb], args].concat();
        let never = CancellationToken::new();
        let runner = &self.host.runner;
        let run = || runner.run_raw(&argv, MAX_OUTPUT_BYTES, limit, &never);
        // A command on this machine does not show that its libvirt can be reached.
        let output = match self.host.is_remote() {
            true => self.host.retry_policy.call(run).await?,
            false => run().await?,
        };
        match output.status.success() {
            true => Ok(output),
            false => {
                let summary = format!("cannot {action} on host {}", self.host.name());
                Err(system_error(summary, &output.stderr))
            }
        }
    }
}

/// Returns the path of the scratch file in the directory of a backup.
pub(crate) fn scratch_path(dir: &str) -> String {
    format!("{dir}/scratch")
}

fn random_name() -> String {
    random_id().chars().take(NAME_DIGITS).collect()
}
