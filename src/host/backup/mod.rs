//! Backup jobs of running sandboxes, in pull mode (libvirt, virDomainBackupBegin): an NBD socket on the host exports the
//! disk as it was at the start of the job. Data that the guest overwrites meanwhile is kept in a scratch file.
//!
//! ```text
//! SANDBOXES_DIR/.ID.XXXXXXXX.backup/  removed with the backup
//!                                 run/nbd  the socket, in a directory of QEMU's user, the only one that it can change
//!                                 scratch  overwritten data, a file of QEMU's user
//!                                 overlay  instead of both: a copy of the overlay
//!                                 paused   snapdeck may have paused the sandbox (written by the watchdog): UUID of its
//!                                          domain, process ID, start and CPU time of its QEMU
//! ```

mod stale;
mod support;

use std::ffi::CString;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use virt::domain::Domain;
use virt::error::Error as VirtError;

use super::command::CommandRunner;
use super::domain;
use super::domain_xml::escape_xml;
use super::scratch::scratch_path;
use super::watchdog::Watchdog;
use super::{CALL_TIMEOUT, Host};
use snapdeck_model::{BufferPool, Error, Kind, Result, SandboxId};
use snapdeck_nbd::Nbd;

use stale::END_POLL_INTERVAL;
pub use stale::StaleBackup;
pub(crate) use support::offers_backup;

/// For virDomainBackupBegin, during which the guest is paused.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// For libvirt to notice that a guest has shut down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a read of a few MiB, from a host whose disk may be busy.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// For copying an overlay while its guest is paused.
const COPY_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Maximum length of the path of a socket in bytes (unix(7), without the final NUL).
const MAX_SOCKET_PATH: usize = 107;

/// A backup of a sandbox's disk, or a copy of its overlay: its directory and watchdog. If it is dropped without
/// [`Backup::clear`], the watchdog removes everything.
pub struct Backup {
    host: Host,
    id: SandboxId,
    dir: String,
    watchdog: Option<Watchdog>,
    /// Whether the scratch file exists.
    has_scratch: bool,
}

/// The disk of a sandbox as it was when its backup job began.
pub struct Export {
    error_context: String,
    nbd: Nbd,
    runner: CommandRunner,
}

enum BackupState {
    Active,
    /// QEMU paused the guest: no space for a write or for the scratch file.
    OutOfSpace,
    ShutDown,
    /// The guest is active without the job.
    Ended,
}

/// The backup jobs of a host.
#[derive(Clone, Copy)]
pub struct Backups<'a> {
    host: &'a Host,
}

impl<'a> Backups<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl Backups<'_> {
    /// Creates the directory of a backup and starts a watchdog for it and for the pause. With `scratch_bytes`, the size
    /// of the disk, the scratch file is created now, so that the paused guest need not wait for it.
    ///
    /// # Errors
    /// An I/O error; `Failed` if the watchdog does not start. No files are left on the host then.
    pub async fn prepare(self, id: &SandboxId, scratch_bytes: Option<u64>) -> Result<Backup> {
        let dir = self.host.scratch_dirs().make_backup(id).await?;
        let watchdog = match self.host.watchdogs().spawn_for_backup(id, &dir).await {
            Ok(watchdog) => watchdog,
            Err(error) => {
                self.host.scratch_dirs().remove(&dir).await?;
                return Err(error);
            }
        };
        let mut backup = Backup {
            host: self.host.clone(),
            id: id.clone(),
            dir,
            watchdog,
            has_scratch: false,
        };
        if let Some(bytes) = scratch_bytes {
            match self
                .host
                .scratch_dirs()
                .make_scratch(&backup.dir, bytes)
                .await
            {
                Ok(_) => backup.has_scratch = true,
                Err(error) => {
                    tracing::debug!("{error}");
                    // libvirt creates it then, and fails if the file exists.
                    let scratch = scratch_path(&backup.dir);
                    self.host.fs().remove_file(&scratch).await?;
                }
            }
        }
        Ok(backup)
    }
}

impl Backup {
    /// Returns the directory of its files.
    pub fn dir(&self) -> &str {
        &self.dir
    }

    fn name(&self) -> &str {
        stale::dir_name(&self.dir)
    }

    fn socket(&self) -> String {
        format!("{}/run/nbd", self.dir)
    }

    /// Begins the backup job, which exports the disk `target` as it is now.
    ///
    /// # Errors
    /// `Failed` with libvirt's message; `Unreachable` if it takes too long: the job may begin later then.
    pub async fn begin(&self, target: &str) -> Result<()> {
        let (id, socket) = (&self.id, self.socket());
        let summary = || {
            format!(
                "cannot begin a backup of sandbox {id} on host {}",
                self.host.name()
            )
        };
        if socket.len() > MAX_SOCKET_PATH {
            return Err(Error::new(Kind::Failed, summary()).with_cause(format!(
                "the path {socket} is longer than a socket's may be ({MAX_SOCKET_PATH} bytes)"
            )));
        }
        let [socket, scratch, target] =
            [&*socket, &scratch_path(&self.dir), target].map(escape_xml);
        let xml = format!(
            "<domainbackup mode='pull'><server transport='unix' socket='{socket}'/><disks>\
             <disk name='{target}' backup='yes' type='file' exportname='{target}'><driver type='qcow2'/>\
             <scratch file='{scratch}'/></disk></disks></domainbackup>"
        );
        let xml = CString::new(xml)
            .map_err(|error| Error::new(Kind::Failed, summary()).with_cause(error))?;
        let has_scratch = self.has_scratch;
        let begin =
            move |domain: &Domain| snapdeck_libvirt::begin_backup(domain, &xml, has_scratch);
        self.host
            .sandboxes()
            .call_domain(id, "begin a backup of", BEGIN_TIMEOUT, begin)
            .await
    }

    /// Copies an overlay, whose guest is paused, into the directory and returns the path of the copy. It is a reflink if
    /// the file system supports reflinks; with `reflink_only` it fails otherwise.
    ///
    /// # Errors
    /// `Failed` with cp's message; `NoSpace`; `Cancelled`.
    pub async fn copy(
        &self,
        overlay: &str,
        reflink_only: bool,
        cancel: &CancellationToken,
    ) -> Result<String> {
        let dirs = self.host.scratch_dirs();
        let (argv, copy) = dirs.copy_argv(&self.dir, overlay, reflink_only);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let output = self.host.runner.run(&argv, COPY_TIMEOUT, cancel).await?;
        match output.status.success() {
            true => Ok(copy),
            false => {
                let summary = format!("cannot copy {overlay} on host {}", self.host.name());
                Err(super::fs::system_error(summary, &output.stderr))
            }
        }
    }

    /// Connects to the export of the job.
    ///
    /// # Errors
    /// `Failed` with the message of an I/O error; `Unreachable`.
    pub async fn open(&self, target: &str) -> Result<Export> {
        let host = &self.host;
        let summary = format!(
            "cannot read the disk of sandbox {} on host {}",
            self.id,
            host.name()
        );
        let socket = self.socket();
        let connect = async |path: PathBuf| {
            let stream = UnixStream::connect(path).await?;
            Nbd::open(stream, target, CONNECT_TIMEOUT).await
        };
        let opened = match host.runner.ssh() {
            None => connect(socket.into()).await,
            Some(ssh) => {
                let master = ssh.acquire_master().await?;
                let forward = master.forward_socket(&socket).await?;
                let opened = connect(forward.local_path.clone()).await;
                // The open connection stays.
                master.close_forward(&forward).await;
                opened
            }
        };
        match opened {
            Ok(nbd) => Ok(Export {
                error_context: summary,
                nbd,
                runner: host.runner.clone(),
            }),
            Err(error) => Err(Error::new(Kind::Failed, summary).with_cause(error)),
        }
    }

    /// Makes the watchdog thaw the file systems if snapdeck is killed.
    ///
    /// # Errors
    /// As [`Watchdog::mark_freezing`].
    pub async fn mark_freezing(&self) -> Result<()> {
        match &self.watchdog {
            Some(watchdog) => watchdog.mark_freezing().await,
            None => Ok(()),
        }
    }

    /// Makes the watchdog resume the sandbox if snapdeck is killed.
    ///
    /// # Errors
    /// As [`Watchdog::mark_pausing`].
    pub async fn mark_pausing(&self) -> Result<()> {
        match &self.watchdog {
            Some(watchdog) => watchdog.mark_pausing().await,
            None => Ok(()),
        }
    }

    /// Notifies the watchdog that the sandbox is paused.
    pub fn mark_paused(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.mark_paused();
        }
    }

    /// Returns whether the guest has run since [`Backup::mark_paused`].
    pub async fn has_guest_run(&self) -> bool {
        match &self.watchdog {
            Some(watchdog) => watchdog.has_guest_run().await,
            None => false,
        }
    }

    /// Notifies the watchdog that the sandbox runs again.
    pub fn mark_running(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.mark_running();
        }
    }

    /// Notifies the watchdog that the sandbox's file systems are thawed.
    pub fn mark_thawed(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.mark_thawed();
        }
    }

    /// Waits until the job has failed and returns why. A libvirt that does not answer is not a failure: QEMU still
    /// serves the export.
    pub async fn wait_for_failure(&self) -> Error {
        loop {
            sleep(POLL_INTERVAL).await;
            if let Some(error) = self.diagnose().await {
                return error;
            }
        }
    }

    /// Returns why the job has failed, if libvirt reports it.
    pub async fn diagnose(&self) -> Option<Error> {
        let deadline = Instant::now() + SHUTDOWN_GRACE;
        let state = loop {
            let name = format!("/{}/", self.name());
            let query = move |domain: &Domain| backup_state(domain, &name);
            match self
                .host
                .sandboxes()
                .call_domain(&self.id, "inspect", CALL_TIMEOUT, query)
                .await
            {
                // When a guest shuts down, its job ends shortly before libvirt reports it as shut off.
                Ok(BackupState::Ended) if Instant::now() < deadline => {
                    sleep(END_POLL_INTERVAL).await
                }
                Ok(state) => break state,
                Err(error) if error.kind() == Kind::NotFound => break BackupState::ShutDown,
                Err(error) => {
                    tracing::debug!("{error}");
                    return None;
                }
            }
        };
        let (id, host) = (&self.id, self.host.name());
        let dir = &self.host.settings.sandboxes_dir;
        let failed = |kind, reason: &str| {
            Error::new(
                kind,
                format!("cannot read the disk of sandbox {id} on host {host}"),
            )
            .with_cause(reason)
        };
        match state {
            BackupState::Active => None,
            BackupState::OutOfSpace => Some(
                failed(
                    Kind::NoSpace,
                    "no space left for data that its guest overwrites meanwhile",
                )
                .hint(format!("free space in {dir} on host {host}")),
            ),
            BackupState::ShutDown => Some(
                failed(
                    Kind::Conflict,
                    "it was shut down while its disk was read; nothing was uploaded",
                )
                .hint("create the snapshot again: it is shut off now"),
            ),
            // The watchdog aborts it when the connection is lost.
            BackupState::Ended if self.host.runner.ssh().is_some() => {
                Some(failed(Kind::Unreachable, "its backup job was aborted").retryable())
            }
            BackupState::Ended => Some(
                failed(Kind::Failed, "its backup job was aborted by another client")
                    .hint("try again"),
            ),
        }
    }

    /// Ends the job and removes its files.
    ///
    /// # Errors
    /// The first step that failed. The watchdog retries then.
    pub async fn clear(self) -> Result<()> {
        self.host
            .backups()
            .end_backup(&self.id, self.name())
            .await?;
        self.host.scratch_dirs().remove(&self.dir).await?;
        match self.watchdog {
            Some(watchdog) => watchdog.release().await,
            None => Ok(()),
        }
    }
}

impl Export {
    /// Reads ranges of the disk into `buffers` and returns them joined.
    ///
    /// # Errors
    /// `Unreachable`, also if QEMU reports an error.
    pub async fn read(&self, buffers: &BufferPool, ranges: &[Range<u64>]) -> Result<Bytes> {
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        self.runner.limit_rate(bytes).await;
        let read = |range: &Range<u64>| {
            // At most a few MiB.
            let length = (range.end - range.start) as usize;
            self.nbd.read(buffers, range.start, length)
        };
        let read_all = timeout(READ_TIMEOUT, try_join_all(ranges.iter().map(read)));
        let mut parts = read_all
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| {
                Error::new(Kind::Unreachable, &*self.error_context)
                    .with_cause(error)
                    .retryable()
            })?;
        match parts.len() {
            1 => Ok(parts.swap_remove(0)),
            _ => Ok(parts.concat().into()),
        }
    }
}

fn backup_state(domain: &Domain, name: &str) -> Result<BackupState, VirtError> {
    if !domain::state(domain)?.is_active() {
        return Ok(BackupState::ShutDown);
    }
    if domain::is_paused_on_io_error(domain)? {
        return Ok(BackupState::OutOfSpace);
    }
    match snapdeck_libvirt::backup_xml(domain)? {
        Some(xml) if xml.contains(name) => Ok(BackupState::Active),
        _ => Ok(BackupState::Ended),
    }
}
