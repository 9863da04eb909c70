//! QEMU's own backup of a running sandbox's disk, in pull mode (libvirt, virDomainBackupBegin): from the moment it begins,
//! a socket on the host shows the disk as it is then, and goes on showing it while the guest writes. What the guest
//! overwrites is kept in a scratch file beside the socket.
//!
//! ```text
//! SANDBOXES_DIR/.ID.XXXXXX.backup/    QEMU's, and gone with the backup
//!                                 nbd      the socket
//!                                 scratch  what was overwritten; made before the guest is paused, else by libvirt
//!                                 overlay  instead of both: a copy of the overlay
//!                                 paused   the sandbox may be paused by us (the guard's)
//! ```

mod stale;
mod support;

use std::ffi::CString;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use virt::domain::Domain;
use virt::error::Error as VirtError;

use super::domain;
use super::domain_xml::escape_xml;
use super::watchdog::Watchdog;
use super::{CALL_TIMEOUT, Host, image};
use snapdeck_model::{BufferPool, Error, Kind, Result, SandboxId};
use snapdeck_nbd::Nbd;

pub use stale::StaleBackup;
use stale::{END_POLL_INTERVAL, is_paused_on_io_error};

/// For beginning one, while the guest stands still: what takes longer is not worth it.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long libvirt may take to learn that a guest went off.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// How often it is looked after.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// For connecting to the socket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For copying an overlay while its guest stands still.
const COPY_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Longest path of a socket (unix(7), less its final zero).
const MAX_SOCKET_PATH: usize = 107;

/// A backup of a sandbox's disk, or a copy of its overlay: its directory, and the guard over both. Dropped without
/// [`Backup::clear`], the guard takes everything back.
pub struct Backup {
    host: Host,
    id: SandboxId,
    dir: String,
    watchdog: Option<Watchdog>,
    /// Has the scratch file been made?
    has_scratch: bool,
}

/// The disk of a sandbox as it was when its backup began.
pub struct Export {
    error_context: String,
    nbd: Nbd,
}

/// How a guest is, and the backup of its disk.
enum BackupState {
    Active,
    /// QEMU stopped it: there was no room for a write, or for what it overwrites.
    OutOfSpace,
    ShutDown,
    /// The backup is over.
    Ended,
}

impl Host {
    /// Makes the directory of a backup and posts a guard over it and the coming pause, with `thaw` one that lets the
    /// file systems go on, too. `scratch_bytes`: the disk's, where what the guest overwrites is to be kept; made now, the
    /// file for it is not waited for while the guest stands still.
    ///
    /// # Errors
    /// The system's; `Failed` where no guard comes up. Nothing is left then.
    pub async fn prepare_backup(
        &self,
        id: &SandboxId,
        thaw: bool,
        scratch_bytes: Option<u64>,
    ) -> Result<Backup> {
        let (under, owner) = (&self.settings.sandboxes_dir, &self.settings.owner);
        let dir = self.fs.make_backup_dir(under, id.as_str(), owner).await?;
        let guard = match self.spawn_backup_watchdog(id, &dir, thaw).await {
            Ok(guard) => guard,
            Err(error) => {
                self.fs.remove_temp_dir(&dir).await?;
                return Err(error);
            }
        };
        let mut backup = Backup {
            host: self.clone(),
            id: id.clone(),
            dir,
            watchdog: guard,
            has_scratch: false,
        };
        if let Some(bytes) = scratch_bytes {
            let scratch = backup.scratch();
            match image::make_scratch(&self.runner, &scratch, bytes, owner).await {
                Ok(()) => backup.has_scratch = true,
                Err(error) => {
                    tracing::debug!("{error}");
                    // libvirt makes it then, and takes no file that is there for its own.
                    self.fs.remove_file(&scratch).await?;
                }
            }
        }
        Ok(backup)
    }
}

impl Backup {
    /// Where its files are.
    pub fn dir(&self) -> &str {
        &self.dir
    }

    fn name(&self) -> &str {
        self.dir
            .rsplit_once('/')
            .map_or(&self.dir, |(_, name)| name)
    }

    fn socket(&self) -> String {
        format!("{}/nbd", self.dir)
    }

    fn scratch(&self) -> String {
        format!("{}/scratch", self.dir)
    }

    /// Begins it: from now on the disk `target` can be seen as it is now.
    ///
    /// # Errors
    /// `Failed` with libvirt's words; `Unreachable` where it takes too long: it may come true later then.
    pub async fn begin(&self, target: &str) -> Result<()> {
        let (id, socket) = (&self.id, self.socket());
        let what = || {
            format!(
                "cannot begin a backup of sandbox {id} on host {}",
                self.host.name()
            )
        };
        if socket.len() > MAX_SOCKET_PATH {
            return Err(Error::new(Kind::Failed, what())
                .with_cause(format!("the path {socket} is too long for a socket")));
        }
        let [socket, scratch, target] = [&*socket, &self.scratch(), target].map(escape_xml);
        let xml = format!(
            "<domainbackup mode='pull'><server transport='unix' socket='{socket}'/><disks>\
             <disk name='{target}' backup='yes' type='file' exportname='{target}'><driver type='qcow2'/>\
             <scratch file='{scratch}'/></disk></disks></domainbackup>"
        );
        let xml = CString::new(xml)
            .map_err(|error| Error::new(Kind::Failed, what()).with_cause(error))?;
        let has_scratch = self.has_scratch;
        let begin =
            move |domain: &Domain| snapdeck_libvirt::begin_backup(domain, &xml, has_scratch);
        self.host
            .call_domain(id, "begin a backup of", BEGIN_TIMEOUT, begin)
            .await
    }

    /// Copies the file of an overlay, whose guest stands still, into the directory, by sharing its extents where the file
    /// system can, and only so where `shared`; returns its path.
    ///
    /// # Errors
    /// `Failed` with cp's words; `NoSpace`; `Cancelled`.
    pub async fn copy(
        &self,
        overlay: &str,
        shared: bool,
        cancel: &CancellationToken,
    ) -> Result<String> {
        let copy = format!("{}/overlay", self.dir);
        let reflink = if shared {
            "--reflink=always"
        } else {
            "--reflink=auto"
        };
        let argv = ["cp", reflink, "--sparse=auto", "--", overlay, &copy];
        let said = self.host.runner.run(&argv, COPY_TIMEOUT, cancel).await?;
        match said.status.success() {
            true => Ok(copy),
            false => {
                let what = format!("cannot copy {overlay} on host {}", self.host.name());
                Err(super::fs::system_error(what, &said.stderr))
            }
        }
    }

    /// Connects to what it shows.
    ///
    /// # Errors
    /// `Failed` where we may not; `Unreachable`.
    pub async fn open(&self, target: &str) -> Result<Export> {
        let host = &self.host;
        let what = format!(
            "cannot read the disk of sandbox {} on host {}",
            self.id,
            host.name()
        );
        let socket = self.socket();
        let opened = match host.runner.ssh() {
            None => match UnixStream::connect(&socket).await {
                Ok(stream) => Nbd::open(stream, target, CONNECT_TIMEOUT).await,
                Err(error) => Err(error),
            },
            Some(ssh) => {
                let master = ssh.acquire_master().await?;
                let forward = master.forward_socket(&socket).await?;
                let opened = match UnixStream::connect(&forward.local_path).await {
                    Ok(stream) => Nbd::open(stream, target, CONNECT_TIMEOUT).await,
                    Err(error) => Err(error),
                };
                // What is connected stays so.
                master.close_forward(&forward).await;
                opened
            }
        };
        match opened {
            Ok(nbd) => Ok(Export {
                error_context: what,
                nbd,
            }),
            Err(error) => Err(Error::new(Kind::Failed, what).with_cause(error)),
        }
    }

    /// Lets the guard know that the sandbox runs again.
    pub fn mark_running(&self) {
        if let Some(guard) = &self.watchdog {
            guard.mark_running();
        }
    }

    /// Lets the guard know that the sandbox's file systems go on.
    pub fn mark_thawed(&self) {
        if let Some(guard) = &self.watchdog {
            guard.mark_thawed();
        }
    }

    /// Returns when it is not to be relied on any more, saying why. A libvirt that does not answer is no reason: QEMU
    /// does.
    pub async fn wait_for_failure(&self) -> Error {
        loop {
            sleep(POLL_INTERVAL).await;
            if let Some(error) = self.diagnose().await {
                return error;
            }
        }
    }

    /// What is wrong with it, as far as libvirt knows.
    pub async fn diagnose(&self) -> Option<Error> {
        let deadline = Instant::now() + SHUTDOWN_GRACE;
        let health = loop {
            let name = format!("/{}/", self.name());
            let look = move |domain: &Domain| backup_state(domain, &name);
            match self
                .host
                .call_domain(&self.id, "look at", CALL_TIMEOUT, look)
                .await
            {
                // A guest that goes off takes its backup along a moment before libvirt says that it is off.
                Ok(BackupState::Ended) if Instant::now() < deadline => {
                    sleep(END_POLL_INTERVAL).await
                }
                Ok(health) => break health,
                Err(error) if error.kind() == Kind::NotFound => break BackupState::ShutDown,
                Err(error) => {
                    tracing::debug!("{error}");
                    return None;
                }
            }
        };
        let (id, host) = (&self.id, self.host.name());
        let dir = &self.host.settings.sandboxes_dir;
        let broken = |kind, why: &str| {
            Error::new(
                kind,
                format!("cannot read the disk of sandbox {id} on host {host}"),
            )
            .with_cause(why)
        };
        match health {
            BackupState::Active => None,
            BackupState::OutOfSpace => Some(
                broken(
                    Kind::NoSpace,
                    "no space left for data that its guest overwrites meanwhile",
                )
                .hint(format!("free space in {dir} there")),
            ),
            BackupState::ShutDown => Some(
                broken(
                    Kind::Conflict,
                    "it was shut down while its disk was read; nothing was uploaded",
                )
                .hint("retry: it is shut off now"),
            ),
            // The guard there ends it when the line is lost.
            BackupState::Ended if self.host.runner.ssh().is_some() => {
                Some(broken(Kind::Unreachable, "its backup was ended").retryable())
            }
            BackupState::Ended => Some(
                broken(Kind::Failed, "its backup job was ended by another client")
                    .hint("try again"),
            ),
        }
    }

    /// Ends it, and removes its files.
    ///
    /// # Errors
    /// What could not be done. The guard goes on trying.
    pub async fn clear(self) -> Result<()> {
        self.host.end_backup(&self.id, self.name()).await?;
        self.host.fs.remove_temp_dir(&self.dir).await?;
        match self.watchdog {
            Some(guard) => guard.release().await,
            None => Ok(()),
        }
    }
}

impl Export {
    /// Reads ranges of the disk, one after the other, to some of `buffers`.
    ///
    /// # Errors
    /// `Unreachable` where the way to it broke; `Failed` else.
    pub async fn read(&self, buffers: &BufferPool, ranges: &[Range<u64>]) -> Result<Bytes> {
        let read = |range: &Range<u64>| {
            // A few MiB.
            let length = (range.end - range.start) as usize;
            self.nbd.read(buffers, range.start, length)
        };
        let mut pieces = try_join_all(ranges.iter().map(read))
            .await
            .map_err(|error| {
                Error::new(Kind::Unreachable, &*self.error_context)
                    .with_cause(error)
                    .retryable()
            })?;
        if pieces.len() == 1 {
            return Ok(pieces.swap_remove(0));
        }
        let mut all = BytesMut::new();
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        Ok(all.freeze())
    }
}

fn backup_state(domain: &Domain, name: &str) -> Result<BackupState, VirtError> {
    if !domain::state(domain)?.is_active() {
        return Ok(BackupState::ShutDown);
    }
    if is_paused_on_io_error(domain)? {
        return Ok(BackupState::OutOfSpace);
    }
    match snapdeck_libvirt::backup_xml(domain)? {
        Some(xml) if xml.contains(name) => Ok(BackupState::Active),
        _ => Ok(BackupState::Ended),
    }
}
