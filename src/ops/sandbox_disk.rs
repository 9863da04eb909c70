//! The sandbox whose disk becomes an object, and whether it stood still meanwhile.

use futures_util::future::try_join_all;

use snapdeck_host::Host;
use snapdeck_model::{
    ChainLink, Consistency, Error, FileStamp, Kind, Result, SandboxId, SandboxState, SnapshotName,
};

/// A sandbox as an operation found it.
pub(super) struct SandboxDisk {
    pub id: SandboxId,
    pub state: SandboxState,
    pub disk_path: String,
    /// The disk and what stands behind it, overlay first.
    pub chain: Vec<ChainLink>,
    /// Path of its UEFI variables, where it has any.
    pub variables: Option<String>,
}

/// The files of a chain as they were before they were read, in the chain's order.
#[derive(PartialEq, Eq)]
pub(super) struct ChainStamps(pub Vec<Option<FileStamp>>);

impl SandboxDisk {
    /// Bytes of the disk as its guest sees it, where they are known.
    pub(crate) fn virtual_size(&self) -> Option<u64> {
        let facts = self.chain.first()?.facts.as_ref()?;
        Some(facts.virtual_size)
    }

    /// Looks the sandbox up, now.
    pub(crate) async fn find(host: &Host, id: &SandboxId) -> Result<Self> {
        let sandbox = host.sandboxes().get(id).await?;
        let disk = sandbox.disk().map(str::to_owned).ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                format!("sandbox {id} on host {} has no disk", host.name()),
            )
        })?;
        Ok(Self {
            id: sandbox.id,
            state: sandbox.state,
            disk_path: disk,
            chain: sandbox.chain,
            // libvirt makes them at the first start.
            variables: match sandbox.variables {
                Some(path) if host.fs().has_file(&path).await? => Some(path),
                _ => None,
            },
        })
    }

    /// The snapshot at the end of its chain.
    pub(crate) fn base(&self) -> Option<&SnapshotName> {
        self.chain.last()?.snapshot.as_ref()
    }

    /// Looks at every file of the chain; `None` for what is no file of the host.
    ///
    /// # Errors
    /// `NotFound` where the disk itself is missing; the system's.
    pub(crate) async fn stamps(&self, host: &Host) -> Result<ChainStamps> {
        let looks = self.chain.iter().map(|link| async {
            match link.size_bytes {
                Some(_) => host.fs().image_file(&link.path).await,
                None => Ok(None),
            }
        });
        let files = try_join_all(looks).await?;
        let stamps: Vec<Option<FileStamp>> = files
            .into_iter()
            .map(|file| file.map(|file| file.stamp))
            .collect();
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

    /// How sound the file systems on its disk are while it stands still.
    pub(crate) fn consistency(&self) -> Consistency {
        match self.state {
            SandboxState::ShutOff => Consistency::CleanShutdown,
            _ => Consistency::CrashConsistent,
        }
    }

    /// Fails where a file of its chain below the overlay was written since `before`.
    pub(crate) async fn check_base_unchanged(
        &self,
        host: &Host,
        before: &ChainStamps,
    ) -> Result<()> {
        let now = self.stamps(host).await?;
        if now.0.get(1..) == before.0.get(1..) {
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

    /// Fails where the sandbox left `state`, or a file of its chain was written since `before`: what was read of them
    /// may be torn.
    ///
    /// This is what protects a reader that holds none of QEMU's locks: nobody is kept from starting the sandbox, but
    /// then nothing of it is published.
    pub(crate) async fn check_unchanged(
        &self,
        host: &Host,
        state: SandboxState,
        before: &ChainStamps,
    ) -> Result<()> {
        let now = host.sandboxes().state(&self.id).await?;
        // A managed save leaves the disk alone, so stopped and saved are one here.
        let stopped = |state| matches!(state, SandboxState::ShutOff | SandboxState::Saved);
        let same_state = now == state || stopped(now) && stopped(state);
        if same_state && self.stamps(host).await? == *before {
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
            now.as_str()
        ))
        .hint("retry while it is neither started nor resumed")
        .retryable())
    }
}
