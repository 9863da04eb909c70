//! The sandbox whose disk becomes an object, and the checks that its disk did not change meanwhile.

use futures_util::future::try_join_all;

use snapdeck_host::{Host, SandboxFirmware};
use snapdeck_model::{
    ChainLink, Consistency, Error, FileStamp, Kind, Result, SandboxId, SandboxState, SnapshotName,
};

use crate::context::Context;

/// State and disk of a sandbox when an operation began.
pub(crate) struct SandboxDisk {
    pub id: SandboxId,
    pub state: SandboxState,
    pub disk_path: String,
    /// The disk and its backing files, overlay first.
    pub chain: Vec<ChainLink>,
    pub firmware: SandboxFirmware,
    /// Path of its UEFI variables, if it has any.
    pub variables: Option<String>,
}

/// Stamps of a chain's files, in the chain's order; `None` for a file that does not exist.
#[derive(PartialEq, Eq)]
pub(crate) struct ChainStamps(pub Vec<Option<FileStamp>>);

impl SandboxDisk {
    /// Looks up the sandbox.
    pub(crate) async fn find(host: &Host, id: &SandboxId) -> Result<Self> {
        let sandbox = host.sandboxes().get(id).await?;
        let disk_path = sandbox.disk().map(str::to_owned).ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                format!("sandbox {id} on host {} has no disk", host.name()),
            )
        })?;
        let is_corrupt = |link: &&ChainLink| link.facts.as_ref().is_some_and(|facts| facts.corrupt);
        if let Some(link) = sandbox.chain.iter().find(is_corrupt) {
            let what = format!("cannot read the disk of {id} on host {}", host.name());
            return Err(Error::new(Kind::Damaged, what)
                .with_cause(format!("{} is marked corrupt", link.path))
                .hint("run `qemu-img check -r all` on a copy of it"));
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
        let firmware = host.sandboxes().firmware(id).await?;
        Ok(Self {
            id: sandbox.id,
            state: sandbox.state,
            disk_path,
            chain: sandbox.chain,
            // libvirt creates the file at the first start.
            variables: match &firmware.variables {
                Some(path) if host.fs().has_file(path).await? => Some(path.clone()),
                _ => None,
            },
            firmware,
        })
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
        .hint("stop or pause it first, or use create, which pauses it for you"))
    }

    /// Warns that data in the guest's memory is not on its disk.
    pub(crate) fn warn_of_memory(&self, ctx: &Context) {
        let id = &self.id;
        match self.state {
            SandboxState::Saved => ctx.warn(format!(
                "{id} is saved: its memory is not in the snapshot, whose disk is as after a power cut"
            )),
            SandboxState::Paused => ctx.info(format!(
                "{id} is paused: data that its guest has not written to disk is not in the snapshot"
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

    /// Returns the consistency of its file systems while its guest is not running.
    pub(crate) fn consistency(&self) -> Consistency {
        match self.state {
            SandboxState::ShutOff => Consistency::CleanShutdown,
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
    /// This protects a reader that holds none of QEMU's locks: the sandbox can be started during the read, but then
    /// nothing of it is published.
    pub(crate) async fn check_unchanged(
        &self,
        host: &Host,
        state: SandboxState,
        before: &ChainStamps,
    ) -> Result<()> {
        let current = host.sandboxes().state(&self.id).await?;
        // A managed save does not write to the disk, so shut off and saved are the same here.
        let is_stopped = |state| matches!(state, SandboxState::ShutOff | SandboxState::Saved);
        let is_same_state = current == state || is_stopped(current) && is_stopped(state);
        if is_same_state && self.stamps(host).await? == *before {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "sandbox {} on host {} changed while its disk was read",
                self.id,
                host.name()
            ),
        )
        .with_cause(format!(
            "it was {} and is now {}; nothing was uploaded",
            state.label(),
            current.as_str()
        ))
        .hint("retry while it is neither started nor resumed")
        .retryable())
    }
}
