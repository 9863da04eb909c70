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

use std::ffi::CString;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use roxmltree::Document;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use virt::connect::Connect;
use virt::domain::{
    Domain, DomainPausedReason, DomainState, DomainStateReason, DomainStateReasonEnum,
};
use virt::error::Error as VirtError;

use super::blueprint::escaped;
use super::domain::{self, child};
use super::guard::Guard;
use super::nbd::Nbd;
use super::{CALL, Host, ffi, image};
use crate::model::{AgentChannel, Buffers, Error, Kind, Result, SandboxId, SandboxState};

/// For beginning one, while the guest stands still: what takes longer is not worth it.
const BEGIN: Duration = Duration::from_secs(5);
/// For what libvirt tells after it has probed QEMU's capabilities.
const PROBED: Duration = Duration::from_secs(120);
/// For the end of one, and how often that is looked for.
const END: Duration = Duration::from_secs(20);
const LOOK_END: Duration = Duration::from_millis(50);
/// How long libvirt may take to learn that a guest went off.
const ENDING: Duration = Duration::from_secs(3);
/// How often it is looked after.
const LOOK: Duration = Duration::from_millis(500);
/// For an answer of a guest's agent. Windows lets its file systems go on by itself after 10 s.
const AGENT: Duration = Duration::from_secs(10);
/// For connecting to the socket.
const OPEN: Duration = Duration::from_secs(10);
/// For copying an overlay while its guest stands still.
const COPY: Duration = Duration::from_secs(10 * 60);
/// Longest path of a socket (unix(7), less its final zero).
const SOCKET_PATH: usize = 107;

/// A backup of a sandbox's disk, or a copy of its overlay: its directory, and the guard over both. Dropped without
/// [`Backup::clear`], the guard takes everything back.
pub struct Backup {
    host: Host,
    id: SandboxId,
    dir: String,
    guard: Option<Guard>,
    /// Has the scratch file been made?
    has_scratch: bool,
}

/// What an earlier snapdeck left of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The sandbox whose disk it was.
    pub id: SandboxId,
    /// Its directory.
    pub dir: String,
}

impl Left {
    /// Of a directory's name.
    fn of(sandboxes_dir: &str, name: &str) -> Option<Self> {
        let (id, _) = name
            .strip_prefix('.')?
            .strip_suffix(".backup")?
            .rsplit_once('.')?;
        Some(Self {
            id: id.parse().ok()?,
            dir: format!("{sandboxes_dir}/{name}"),
        })
    }

    fn name(&self) -> &str {
        self.dir
            .rsplit_once('/')
            .map_or(&self.dir, |(_, name)| name)
    }
}

/// The disk of a sandbox as it was when its backup began.
pub struct Export {
    what: String,
    nbd: Nbd,
}

/// How a guest is, and the backup of its disk.
enum Health {
    Well,
    /// QEMU stopped it: there was no room for a write, or for what it overwrites.
    Stopped,
    ShutDown,
    /// The backup is over.
    Ended,
}

impl Host {
    /// The name of `disk` as the sandbox's guest has it, where this host can back it up; else why it cannot.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn can_back_up(&self, id: &SandboxId, disk: &str) -> Result<Result<String, String>> {
        let look = |domain: &Domain| {
            let is_busy = domain.job_info()?.r#type != virt_sys::VIR_DOMAIN_JOB_NONE as i32;
            Ok((domain.xml_desc(0)?, is_busy))
        };
        let (xml, is_busy) = self.on(id, "look at", CALL, look).await?;
        if is_busy {
            // libvirt would wait for its end, with the guest standing still.
            return Ok(Err("libvirt has another job on it".into()));
        }
        let Some(facts) = Facts::read(&xml, disk) else {
            return Ok(Err(format!("libvirt does not tell of a disk {disk}")));
        };
        let target = facts.target;
        let ask = move |connect: &Connect| {
            let (emulator, arch) = (facts.emulator.as_deref(), facts.arch.as_deref());
            let (machine, kind) = (facts.machine.as_deref(), facts.kind.as_deref());
            connect.domain_capabilities(emulator, arch, machine, kind, 0)
        };
        let told = self
            .libvirt
            .call("ask what its QEMU can do", PROBED, ask)
            .await;
        match told {
            Ok(capabilities) if offers_backup(&capabilities) => Ok(Ok(target)),
            Ok(_) => Ok(Err(
                "its libvirt or QEMU has no backup jobs (libvirt 7.2 and QEMU 4.2 have)".into(),
            )),
            Err(error) if error.kind() == Kind::Unreachable => Err(error),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Has its QEMU backups of running sandboxes, as far as libvirt knows?
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn has_backups(&self) -> Result<bool> {
        let ask = |connect: &Connect| connect.domain_capabilities(None, None, None, None, 0);
        let told = self.libvirt.call("ask what its QEMU can do", PROBED, ask);
        Ok(offers_backup(&told.await?))
    }

    /// Has the sandbox a guest agent that listens?
    ///
    /// # Errors
    /// As [`Host::reach`].
    pub async fn has_agent(&self, id: &SandboxId) -> Result<bool> {
        Ok(self.reach(id).await?.agent == AgentChannel::Open)
    }

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
        let dir = self
            .files
            .make_backup_dir(under, id.as_str(), owner)
            .await?;
        let guard = match self.guard_backup(id, &dir, thaw).await {
            Ok(guard) => guard,
            Err(error) => {
                self.files.remove_temp_dir(&dir).await?;
                return Err(error);
            }
        };
        let mut backup = Backup {
            host: self.clone(),
            id: id.clone(),
            dir,
            guard,
            has_scratch: false,
        };
        if let Some(bytes) = scratch_bytes {
            let scratch = backup.scratch();
            match image::make_scratch(&self.place, &scratch, bytes, owner).await {
                Ok(()) => backup.has_scratch = true,
                Err(error) => {
                    tracing::debug!("{error}");
                    // libvirt makes it then, and takes no file that is there for its own.
                    self.files.remove_file(&scratch).await?;
                }
            }
        }
        Ok(backup)
    }

    /// As [`Host::suspend`], unless somebody else has stopped it already.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn suspend_running(&self, id: &SandboxId) -> Result<()> {
        let suspend = |domain: &Domain| match domain::state(domain)? {
            SandboxState::Running => domain.suspend().map(|_| true),
            _ => Ok(false),
        };
        match self.on(id, "pause", CALL, suspend).await? {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Refused,
                format!("cannot pause sandbox {id} on host {}", self.name()),
            )
            .because("it does not run any more")),
        }
    }

    /// As [`Host::resume`], in one try: it fails where somebody else has let the sandbox go on.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn resume_paused(&self, id: &SandboxId) -> Result<()> {
        self.on(id, "resume", CALL, |domain| domain.resume()).await
    }

    /// Has the guest's agent bring its file systems to rest; returns how many.
    ///
    /// # Errors
    /// `Failed` where it cannot, or does not answer; it may come true later then.
    pub async fn freeze(&self, id: &SandboxId) -> Result<u32> {
        self.on_long(id, "freeze the file systems of", AGENT, ffi::freeze)
            .await
    }

    /// Has the guest's agent let its file systems go on; returns how many were at rest.
    ///
    /// # Errors
    /// As [`Host::freeze`].
    pub async fn thaw(&self, id: &SandboxId) -> Result<u32> {
        self.on_long(id, "thaw the file systems of", AGENT, ffi::thaw)
            .await
    }

    /// What earlier snapdecks left of backups, or another one is at now: take the sandbox's lock before you touch it.
    ///
    /// # Errors
    /// `Unreachable` where the directory may not be listed.
    pub async fn left_backups(&self) -> Result<Vec<Left>> {
        let under = &self.settings.sandboxes_dir;
        let names = self.files.backup_dirs(under).await?;
        Ok(names
            .iter()
            .filter_map(|name| Left::of(under, name))
            .collect())
    }

    /// Ends a backup that was left, lets the sandbox go on if that was left undone, and removes the directory; in words
    /// what there was.
    ///
    /// # Errors
    /// `Failed` where it does not end; `Unreachable`.
    pub async fn clear_left(&self, left: &Left) -> Result<String> {
        let is_paused = self.has_file(&format!("{}/paused", left.dir)).await?;
        if is_paused && let Ok(SandboxState::Paused) = self.sandbox_state(&left.id).await {
            self.resume(&left.id).await?;
        }
        let ended = self.end_backup(&left.id, left.name()).await?;
        self.files.remove_temp_dir(&left.dir).await?;
        let job = if ended { "its backup job, and " } else { "" };
        Ok(format!(
            "removed what an earlier snapdeck left of sandbox {}: {job}{}",
            left.id, left.dir
        ))
    }

    /// Ends the backup whose files are in the directory of that name; was there one?
    async fn end_backup(&self, id: &SandboxId, dir_name: &str) -> Result<bool> {
        let since = Instant::now();
        let mut was_there = false;
        loop {
            let name = format!("/{dir_name}/");
            let end = move |domain: &Domain| {
                if !domain::state(domain)?.is_active() {
                    return Ok(false);
                }
                let is_ours = ffi::backup(domain)?.is_some_and(|xml| xml.contains(&name));
                if is_ours && let Err(error) = ffi::abort_job(domain) {
                    // It may be ending already: that is seen when it is looked for again.
                    tracing::debug!("a backup was told to end: {}", error.message());
                }
                Ok(is_ours)
            };
            let ended = self
                .patience
                .call(|| self.on(id, "end the backup of", CALL, end.clone()))
                .await;
            match ended {
                Ok(true) => was_there = true,
                Ok(false) => break,
                Err(error) if error.kind() == Kind::NotFound => break,
                // It was just ending by itself.
                Err(error) if error.kind() == Kind::Unreachable || since.elapsed() > END => {
                    return Err(error);
                }
                Err(_) => {}
            }
            if since.elapsed() > END {
                return Err(Error::new(
                    Kind::Failed,
                    format!(
                        "the backup of sandbox {id} on host {} does not end",
                        self.name()
                    ),
                )
                .hint(format!("run `virsh domjobabort {id}` there")));
            }
            sleep(LOOK_END).await;
        }
        // QEMU stops a guest for which there was no room.
        let go_on = |domain: &Domain| match is_stopped(domain)? {
            true => domain.resume(),
            false => Ok(()),
        };
        match self.on(id, "resume", CALL, go_on).await {
            Err(error) if error.kind() == Kind::Unreachable => Err(error),
            _ => Ok(was_there),
        }
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
        if socket.len() > SOCKET_PATH {
            return Err(Error::new(Kind::Failed, what())
                .because(format!("the path {socket} is too long for a socket")));
        }
        let [socket, scratch, target] = [&*socket, &self.scratch(), target].map(escaped);
        let xml = format!(
            "<domainbackup mode='pull'><server transport='unix' socket='{socket}'/><disks>\
             <disk name='{target}' backup='yes' type='file' exportname='{target}'><driver type='qcow2'/>\
             <scratch file='{scratch}'/></disk></disks></domainbackup>"
        );
        let xml =
            CString::new(xml).map_err(|error| Error::new(Kind::Failed, what()).because(error))?;
        let has_scratch = self.has_scratch;
        let begin = move |domain: &Domain| ffi::begin_backup(domain, &xml, has_scratch);
        self.host.on(id, "begin a backup of", BEGIN, begin).await
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
        let said = self.host.place.run(&argv, COPY, cancel).await?;
        match said.status.success() {
            true => Ok(copy),
            false => {
                let what = format!("cannot copy {overlay} on host {}", self.host.name());
                Err(super::files::system_error(what, &said.stderr))
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
        let opened = match host.place.ssh() {
            None => match UnixStream::connect(&socket).await {
                Ok(stream) => Nbd::open(stream, target, OPEN).await,
                Err(error) => Err(error),
            },
            Some(ssh) => {
                let master = ssh.master().await?;
                let forward = master.forward(&socket).await?;
                let opened = match UnixStream::connect(&forward.here).await {
                    Ok(stream) => Nbd::open(stream, target, OPEN).await,
                    Err(error) => Err(error),
                };
                // What is connected stays so.
                master.unforward(&forward).await;
                opened
            }
        };
        match opened {
            Ok(nbd) => Ok(Export { what, nbd }),
            Err(error) => Err(Error::new(Kind::Failed, what).because(error)),
        }
    }

    /// Lets the guard know that the sandbox runs again.
    pub fn is_running(&self) {
        if let Some(guard) = &self.guard {
            guard.is_running();
        }
    }

    /// Lets the guard know that the sandbox's file systems go on.
    pub fn is_thawed(&self) {
        if let Some(guard) = &self.guard {
            guard.is_thawed();
        }
    }

    /// Returns when it is not to be relied on any more, saying why. A libvirt that does not answer is no reason: QEMU
    /// does.
    pub async fn trouble(&self) -> Error {
        loop {
            sleep(LOOK).await;
            if let Some(error) = self.diagnose().await {
                return error;
            }
        }
    }

    /// What is wrong with it, as far as libvirt knows.
    pub async fn diagnose(&self) -> Option<Error> {
        let deadline = Instant::now() + ENDING;
        let health = loop {
            let name = format!("/{}/", self.name());
            let look = move |domain: &Domain| health(domain, &name);
            match self.host.on(&self.id, "look at", CALL, look).await {
                // A guest that goes off takes its backup along a moment before libvirt says that it is off.
                Ok(Health::Ended) if Instant::now() < deadline => sleep(LOOK_END).await,
                Ok(health) => break health,
                Err(error) if error.kind() == Kind::NotFound => break Health::ShutDown,
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
            .because(why)
        };
        match health {
            Health::Well => None,
            Health::Stopped => Some(
                broken(
                    Kind::NoSpace,
                    "there was no room for what its guest writes meanwhile",
                )
                .hint(format!("free space in {dir} there")),
            ),
            Health::ShutDown => Some(
                broken(
                    Kind::Refused,
                    "it was shut down while its disk was read; nothing was uploaded",
                )
                .hint("try again: it stands still now"),
            ),
            // The guard there ends it when the line is lost.
            Health::Ended if self.host.place.ssh().is_some() => {
                Some(broken(Kind::Unreachable, "its backup was ended").worth_retrying())
            }
            Health::Ended => Some(
                broken(Kind::Failed, "its backup was ended by somebody else").hint("try again"),
            ),
        }
    }

    /// Ends it, and removes its files.
    ///
    /// # Errors
    /// What could not be done. The guard goes on trying.
    pub async fn clear(self) -> Result<()> {
        self.host.end_backup(&self.id, self.name()).await?;
        self.host.files.remove_temp_dir(&self.dir).await?;
        match self.guard {
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
    pub async fn read(&self, buffers: &Buffers, ranges: &[Range<u64>]) -> Result<Bytes> {
        let read = |range: &Range<u64>| {
            // A few MiB.
            let length = (range.end - range.start) as usize;
            self.nbd.read(buffers, range.start, length)
        };
        let mut pieces = try_join_all(ranges.iter().map(read))
            .await
            .map_err(|error| {
                Error::new(Kind::Unreachable, &*self.what)
                    .because(error)
                    .worth_retrying()
            })?;
        if pieces.len() == 1 {
            return Ok(pieces.swap_remove(0));
        }
        let mut all = BytesMut::new();
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        Ok(all.freeze())
    }
}

fn health(domain: &Domain, name: &str) -> Result<Health, VirtError> {
    if !domain::state(domain)?.is_active() {
        return Ok(Health::ShutDown);
    }
    if is_stopped(domain)? {
        return Ok(Health::Stopped);
    }
    match ffi::backup(domain)? {
        Some(xml) if xml.contains(name) => Ok(Health::Well),
        _ => Ok(Health::Ended),
    }
}

/// Has QEMU stopped the guest because a write of its failed?
fn is_stopped(domain: &Domain) -> Result<bool, VirtError> {
    if !domain.info()?.state.is(DomainState::Paused) {
        return Ok(false);
    }
    let (_, reason) = domain.state()?;
    Ok(matches!(
        reason,
        DomainStateReasonEnum::Known(DomainStateReason::Paused(paused))
            if paused.is(DomainPausedReason::IOError)
    ))
}

/// What a domain's XML says of a disk and of its QEMU.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    target: String,
    kind: Option<String>,
    emulator: Option<String>,
    arch: Option<String>,
    machine: Option<String>,
}

impl Facts {
    fn read(xml: &str, disk: &str) -> Option<Self> {
        let document = Document::parse(xml).ok()?;
        let root = document.root_element();
        let devices = child(root, "devices")?;
        let target = devices
            .children()
            .filter(|node| node.has_tag_name("disk"))
            .find(|node| {
                let source = child(*node, "source");
                source.is_some_and(|source| {
                    source.attribute("file").or(source.attribute("dev")) == Some(disk)
                })
            })
            .and_then(|node| child(node, "target"))?
            .attribute("dev")?;
        let os = child(root, "os").and_then(|os| child(os, "type"));
        let of = |name| os.and_then(|os| os.attribute(name)).map(str::to_owned);
        Some(Self {
            target: target.to_owned(),
            kind: root.attribute("type").map(str::to_owned),
            emulator: child(devices, "emulator")
                .and_then(|emulator| emulator.text())
                .map(str::to_owned),
            arch: of("arch"),
            machine: of("machine"),
        })
    }
}

/// `<backup supported='yes'/>` among the features (libvirt, "Domain capabilities").
fn offers_backup(capabilities: &str) -> bool {
    let Ok(document) = Document::parse(capabilities) else {
        return false;
    };
    child(document.root_element(), "features")
        .and_then(|features| child(features, "backup"))
        .is_some_and(|backup| backup.attribute("supported") == Some("yes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_tells_whose_it_is() {
        let of = |name| Left::of("/s", name).map(|left| (left.id.to_string(), left.dir));
        assert_eq!(
            of(".a.b-c.Xy12.backup"),
            Some(("a.b-c".into(), "/s/.a.b-c.Xy12.backup".into()))
        );
        for other in [
            "a.Xy12.backup",
            ".a.backup",
            ".a.sandbox.lock",
            ".a;b.Xy12.backup",
            ".backup",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn finds_the_disk_among_others() {
        let xml = "<domain type='kvm'><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><devices>\
             <emulator>/usr/bin/qemu</emulator>\
             <disk device='cdrom'><source file='/iso'/><target dev='sda'/></disk>\
             <disk><source file='/s/a&amp;b.qcow2'/><target dev='vdb'/></disk></devices></domain>";
        let facts = Facts::read(xml, "/s/a&b.qcow2").unwrap();
        assert_eq!(facts.target, "vdb");
        assert_eq!(facts.emulator.as_deref(), Some("/usr/bin/qemu"));
        assert_eq!(
            (facts.kind.as_deref(), facts.machine.as_deref()),
            (Some("kvm"), Some("pc-q35-7.2"))
        );
        assert_eq!(Facts::read(xml, "/s/other.qcow2"), None);
    }

    #[test]
    fn reads_whether_there_are_backups() {
        let told = |backup| {
            format!("<domainCapabilities><features>{backup}</features></domainCapabilities>")
        };
        assert!(offers_backup(&told(
            "<gic supported='no'/><backup supported='yes'/>"
        )));
        for no in ["<backup supported='no'/>", "<gic supported='yes'/>"] {
            assert!(!offers_backup(&told(no)), "{no}");
        }
        assert!(!offers_backup("no xml"));
    }
}
