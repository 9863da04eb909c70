//! The sandbox whose disk becomes an object, and the checks that its disk did not change meanwhile.

use futures_util::future::try_join_all;

use snapdeck_host::{
    DomainDisk, DomainFacts, Host, ImageChain, ImageFile, ImageHold, SandboxFirmware,
};
use snapdeck_model::{
    ChainLink, Consistency, Error, FileStamp, Kind, Result, SandboxId, SandboxState, SnapshotName,
};

use crate::context::Context;
use crate::image_chain::image_chain;

/// State and disk of a sandbox when an operation began.
pub(crate) struct SandboxDisk {
    pub id: SandboxId,
    pub state: SandboxState,
    pub disk_path: String,
    /// The disk and its backing files, overlay first.
    pub chain: Vec<ChainLink>,
    /// The same for QEMU's programs.
    pub images: ImageChain,
    pub firmware: SandboxFirmware,
    /// Path of its UEFI variables, if it has any.
    pub variables: Option<String>,
    /// Identity of its domain, and why that is shut off.
    pub facts: DomainFacts,
    /// Keeps writers away while it is read; only for a sandbox without a QEMU process, whose locks do that otherwise.
    hold: Option<ImageHold>,
}

/// Stamps of a chain's files, in the chain's order; `None` for a file that does not exist.
#[derive(PartialEq, Eq)]
pub(crate) struct ChainStamps(pub Vec<Option<FileStamp>>);

impl SandboxDisk {
    /// Looks up the sandbox.
    pub(crate) async fn find(host: &Host, id: &SandboxId) -> Result<Self> {
        let sandbox = host.sandboxes().get(id).await?;
        let facts = host.sandboxes().facts(id).await?;
        let disk_path = sandbox.disk().map(str::to_owned).ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                format!("sandbox {id} on host {} has no disk", host.name()),
            )
        })?;
        // Before any program opens it: a chain that leads back into itself has no end.
        let last = sandbox.chain.last().filter(|link| {
            let facts = link.facts.as_ref();
            facts.is_some_and(|facts| facts.backing_file.is_some())
        });
        if let Some(last) = last {
            let what = format!("cannot read the disk of {id} on host {}", host.name());
            return Err(Error::new(Kind::Damaged, what)
                .with_cause(format!(
                    "its backing chain does not end, or cannot be followed beyond {}",
                    last.path
                ))
                .hint("look at it with `snapdeck doctor`"));
        }
        // A raw disk, into which its guest may have written the header of an image, is not one.
        let is_not_image = |link: &&ChainLink| link.facts.is_none() && link.size_bytes.is_some();
        if let Some(link) = sandbox.chain.first().filter(is_not_image) {
            let file = host.fs().image_file(&link.path).await?;
            let what = format!("cannot read the disk of {id} on host {}", host.name());
            return Err(match file.map(|file| file.facts) {
                Some(Err(reason)) => Error::new(Kind::Damaged, what).with_cause(format!(
                    "{} is not a valid qcow2 image: {reason}",
                    link.path
                )),
                _ => Error::new(Kind::Conflict, what)
                    .with_cause(format!("it is raw, and {} is read as bytes", link.path))
                    .hint("convert it with `qemu-img convert -f raw -O qcow2`"),
            });
        }
        let images = image_chain(host, id, &sandbox.chain).await?;
        let firmware = host.sandboxes().firmware(id).await?;
        let disk = Self {
            id: sandbox.id,
            state: sandbox.state,
            disk_path,
            chain: sandbox.chain,
            images,
            // libvirt creates the file at the first start.
            variables: match &firmware.variables {
                Some(path) if host.fs().has_file(path).await? => Some(path.clone()),
                _ => None,
            },
            firmware,
            facts,
            hold: None,
        };
        if disk.facts.state != disk.state {
            return Err(disk.changed_error(host, disk.facts.state));
        }
        let has_volume = disk.facts.disks.iter().any(DomainDisk::is_volume);
        if disk.own_disks().next().is_none() && !has_volume {
            return Err(disk.other_disk_error(host));
        }
        disk.refuse_other_chain(host).await?;
        let is_corrupt = |link: &&ChainLink| link.facts.as_ref().is_some_and(|facts| facts.corrupt);
        if let Some(link) = disk.chain.iter().find(is_corrupt) {
            let what = format!("cannot read the disk of {id} on host {}", host.name());
            return Err(Error::new(Kind::Damaged, what)
                .with_cause(format!("{} is marked corrupt", link.path))
                .hint("run `qemu-img check -r all` on a copy of it"));
        }
        Ok(disk)
    }

    /// Fails if the definition names other backing files than the headers: QEMU opens those, snapdeck reads these.
    async fn refuse_other_chain(&self, host: &Host) -> Result<()> {
        let named = self.facts.backing_files.get(&self.disk_path);
        let mut headers = self.chain.iter().skip(1);
        for named in named.into_iter().flatten() {
            let header = headers.next().map(|link| link.path.as_str());
            let is_same = match (named.as_deref(), header) {
                (None, None) => true,
                (Some(named), Some(header)) if named == header => true,
                (Some(named), Some(header)) => {
                    let named = host.fs().image_file(named).await?;
                    let header = host.fs().image_file(header).await?;
                    let id = |file: &ImageFile| (file.device, file.stamp.inode);
                    named.is_some() && named.as_ref().map(id) == header.as_ref().map(id)
                }
                _ => false,
            };
            if !is_same {
                let or_none = |path: Option<&str>| path.unwrap_or("no backing file").to_owned();
                let (named, header) = (or_none(named.as_deref()), or_none(header));
                let what = format!(
                    "cannot read the disk of {} on host {}",
                    self.id,
                    host.name()
                );
                return Err(Error::new(Kind::Conflict, what)
                    .with_cause(format!(
                        "its definition has {named} in the backing chain where the headers of its images have {header}"
                    ))
                    .hint("remove <backingStore> with `virsh edit`, or correct the image with `qemu-img rebase`"));
            }
        }
        Ok(())
    }

    /// Keeps other processes from writing the disk until [`SandboxDisk::release`], or fails if one already does.
    ///
    /// The QEMU of an active sandbox holds its own locks; any other process that has the disk open for writing is
    /// looked for. Without a QEMU process, this one opens the disk as a reader that allows no writer: the sandbox cannot
    /// be started meanwhile.
    ///
    /// # Errors
    /// `Conflict`, which names the writers; `Unreachable`.
    pub(crate) async fn protect(self, host: &Host) -> Result<Self> {
        self.refuse_other_writers(host).await?;
        if self.state.is_active() || self.chain.first().is_none_or(|link| link.facts.is_none()) {
            return Ok(self);
        }
        let hold = host.images().hold(&self.images).await.map_err(|error| {
            error.context(format!(
                "cannot keep the disk of {} on host {} unchanged while it is read",
                self.id,
                host.name()
            ))
        })?;
        // It may have been started, written and stopped before.
        let current = Self::find(host, &self.id).await;
        match current {
            Ok(current) if current.disk_path == self.disk_path && !current.state.is_active() => {
                Ok(Self {
                    hold: Some(hold),
                    ..current
                })
            }
            Ok(current) => {
                hold.release().await;
                Err(self.changed_error(host, current.state))
            }
            Err(error) => {
                hold.release().await;
                Err(error)
            }
        }
    }

    /// Ends what [`SandboxDisk::protect`] began.
    pub(crate) async fn release(self) {
        if let Some(hold) = self.hold {
            hold.release().await;
        }
    }

    /// Fails if a process other than the sandbox's own QEMU has a file of the chain open for writing.
    pub(crate) async fn refuse_other_writers(&self, host: &Host) -> Result<()> {
        let is_file = |link: &&ChainLink| link.path.starts_with('/');
        let files: Vec<&str> = self
            .chain
            .iter()
            .filter(is_file)
            .map(|link| link.path.as_str())
            .collect();
        let owner = self.state.is_active().then_some(self.facts.uuid.as_str());
        let summary = format!(
            "cannot read the disk of {} on host {}",
            self.id,
            host.name()
        );
        host.images()
            .refuse_other_writers(&files, owner, &summary)
            .await
    }

    /// Fails unless the disk that the domain uses now is this one: an external snapshot gives it another.
    pub(crate) async fn check_same_disk(&self, host: &Host) -> Result<()> {
        let facts = host.sandboxes().facts(&self.id).await?;
        self.compare_disks(host, &facts)
    }

    fn compare_disks(&self, host: &Host, current: &DomainFacts) -> Result<()> {
        let mut own = self.own_disks().peekable();
        let is_same = match own.peek() {
            Some(_) => own.all(|disk| current.disks.contains(disk)),
            // A volume, whose path the definition does not have.
            None => self.facts.disks == current.disks,
        };
        if is_same && current.uuid == self.facts.uuid {
            return Ok(());
        }
        Err(self.other_disk_error(host))
    }

    /// Returns the disks of its domain with the path of this one.
    fn own_disks(&self) -> impl Iterator<Item = &DomainDisk> {
        let disks = self.facts.disks.iter();
        disks.filter(|disk| disk.path == self.disk_path)
    }

    /// Returns the error for a domain that uses another disk now.
    pub(crate) fn other_disk_error(&self, host: &Host) -> Error {
        let (id, host) = (&self.id, host.name());
        Error::new(
            Kind::Conflict,
            format!("cannot read the disk of {id} on host {host}"),
        )
        .with_cause(format!(
            "its domain no longer uses {}, for example because of an external snapshot",
            self.disk_path
        ))
        .hint("create the snapshot again")
    }

    /// Looks up the sandbox, which must not be running.
    pub(crate) async fn find_pushable(host: &Host, id: &SandboxId) -> Result<Self> {
        let source = Self::find(host, id).await?;
        if source.state.is_quiescent() {
            return Ok(source);
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "cannot push {id} on host {}: sandbox must be stopped or paused",
                host.name()
            ),
        )
        .with_cause(format!("it is {}", source.state.label()))
        .hint(match source.state {
            SandboxState::Running => {
                "stop or pause it first, or use create, which pauses it for you"
            }
            SandboxState::Suspended => {
                "stop it, or resume and pause it first; or use create, which takes it as it is"
            }
            _ => "force it off first, or use create, which takes it as it is",
        }))
    }

    /// Warns of what is not in the snapshot: data in the guest's memory, and other disks.
    pub(crate) fn warn_of_missing_data(&self, ctx: &Context) {
        let id = &self.id;
        let disks = self.facts.disks.iter();
        let others = disks.filter(|disk| disk.path != self.disk_path && !disk.is_volume());
        let others: Vec<String> = others
            .map(|disk| format!("{} ({})", disk.path, disk.target))
            .collect();
        if !others.is_empty() {
            ctx.warn(format!(
                "{id} has {} disks: only {} is in the snapshot, not {}",
                others.len() + 1,
                self.disk_path,
                others.join(", ")
            ));
        }
        match self.state {
            SandboxState::Saved => ctx.warn(format!(
                "{id} is saved: its memory is not in the snapshot, whose disk is as after a power cut"
            )),
            SandboxState::Paused | SandboxState::Suspended => ctx.info(format!(
                "{id} is {}: data that its guest has not written to disk is not in the snapshot",
                self.state.label()
            )),
            SandboxState::Crashed => {
                ctx.warn(format!("{id} has crashed: its disk may need a repair"));
            }
            _ => {}
        }
    }

    /// Warns that the state of its TPM stays on the host.
    pub(crate) fn warn_of_tpm(&self, ctx: &Context) {
        if self.firmware.has_tpm {
            ctx.warn(format!(
                "the TPM state of {} is not in the snapshot: secrets that are sealed to it (BitLocker) are lost without it",
                self.id
            ));
        }
    }

    /// Returns the size in bytes of the disk as its guest sees it, if known.
    pub(crate) fn virtual_size(&self) -> Option<u64> {
        let facts = self.chain.first()?.facts.as_ref()?;
        Some(facts.virtual_size)
    }

    /// Returns the snapshot at the end of its chain.
    pub(crate) fn base(&self) -> Option<&SnapshotName> {
        self.chain.last()?.snapshot.as_ref()
    }

    /// Returns the stamps of the chain's files.
    ///
    /// # Errors
    /// `NotFound` if the disk itself does not exist; an I/O error.
    pub(crate) async fn stamps(&self, host: &Host) -> Result<ChainStamps> {
        let stamps = self.chain.iter().map(|link| async {
            let file = match link.size_bytes {
                Some(_) => host.fs().image_file(&link.path).await?,
                None => None,
            };
            Ok::<_, Error>(file.map(|file| file.stamp))
        });
        let stamps: Vec<Option<FileStamp>> = try_join_all(stamps).await?;
        if stamps.first().is_none_or(Option::is_none) {
            return Err(Error::new(
                Kind::NotFound,
                format!(
                    "disk {} of {} does not exist on host {}",
                    self.disk_path,
                    self.id,
                    host.name()
                ),
            ));
        }
        Ok(ChainStamps(stamps))
    }

    /// Returns the consistency of its file systems while its guest is not running: clean only if libvirt knows that the
    /// guest was shut down, not forced off, crashed, or defined without ever having run.
    pub(crate) fn consistency(&self) -> Consistency {
        match self.state {
            SandboxState::ShutOff if self.facts.was_shut_down => Consistency::CleanShutdown,
            _ => Consistency::CrashConsistent,
        }
    }

    /// Fails if a file below the overlay was written since `before`.
    pub(crate) async fn check_base_unchanged(
        &self,
        host: &Host,
        before: &ChainStamps,
    ) -> Result<()> {
        let current = self.stamps(host).await?;
        if current.0.get(1..) == before.0.get(1..) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "the base of sandbox {} on host {} changed while its disk was read",
                self.id,
                host.name()
            ),
        )
        .with_cause("nothing was uploaded"))
    }

    /// Fails if the sandbox left `state` or a file of its chain was written since `before`: what was read may be torn.
    ///
    /// [`SandboxDisk::protect`] keeps QEMU from writing it; this also finds writes by programs that know no locks, and a
    /// guest that was resumed.
    pub(crate) async fn check_unchanged(
        &self,
        host: &Host,
        state: SandboxState,
        before: &ChainStamps,
    ) -> Result<()> {
        if let Some(hold) = &self.hold {
            hold.check()?;
        }
        let current = host.sandboxes().facts(&self.id).await?;
        self.compare_disks(host, &current)?;
        let current = current.state;
        // A managed save does not write to the disk, so shut off and saved are the same here.
        let is_stopped = |state| matches!(state, SandboxState::ShutOff | SandboxState::Saved);
        let is_same_state = current == state || is_stopped(current) && is_stopped(state);
        if is_same_state && self.stamps(host).await? == *before {
            return Ok(());
        }
        Err(self.changed_error(host, current))
    }

    fn changed_error(&self, host: &Host, now: SandboxState) -> Error {
        Error::new(
            Kind::Conflict,
            format!(
                "sandbox {} on host {} changed while its disk was read",
                self.id,
                host.name()
            ),
        )
        .with_cause(format!(
            "it was {} and is now {}; nothing was uploaded",
            self.state.label(),
            now.label()
        ))
        .hint("retry while it is neither started nor resumed")
        .retryable()
    }
}
