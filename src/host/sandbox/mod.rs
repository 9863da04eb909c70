//! Sandboxes of a host: looked at, made, run, ended.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use virt::connect::Connect;
use virt::domain::Domain;

mod quiesce;

use crate::inventory::scan::Scope;
use crate::{CALL_TIMEOUT, Host, domain, image};
use snapdeck_model::{
    Error, Kind, Phase, ProgressCell, Result, Sandbox, SandboxId, SandboxState, SnapshotName,
};

/// For defining a guest: the first one on a host waits until QEMU's capabilities are probed, seconds on a busy machine.
const DEFINE_TIMEOUT: Duration = Duration::from_secs(120);
/// For starting a guest: the first one on a host waits until QEMU's capabilities are probed, and a saved one is
/// read from the disk.
const START_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// For cutting a guest's power.
const FORCE_OFF_TIMEOUT: Duration = Duration::from_secs(120);
/// A guest agent that does not answer has 5 s, by libvirt; then the power button is pressed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// For writing a guest's memory to the disk.
const SAVE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How often a save is asked how far it is.
const SAVE_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// For bringing a disk's bytes to the host's.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

impl Host {
    /// Path of a sandbox's overlay.
    pub fn disk_path(&self, id: &SandboxId) -> String {
        format!("{}/{}", self.settings.sandboxes_dir, id.disk_file_name())
    }

    /// Path of a sandbox's UEFI variables.
    pub fn variables_path(&self, id: &SandboxId) -> String {
        format!("{}/{}", self.settings.nvram_dir, id.variables_file_name())
    }

    /// Path of a snapshot's own UEFI variables.
    pub fn snapshot_variables_path(&self, name: &SnapshotName) -> String {
        format!(
            "{}/{}",
            self.settings.snapshots_dir,
            name.variables_file_name()
        )
    }

    /// One sandbox with its chain, asked now. Much less work than a [`Host::survey`].
    ///
    /// # Errors
    /// `NotFound` where there is none; `Unsupported` where there is a guest of that name that is none of ours;
    /// `Unreachable`.
    pub async fn sandbox(&self, id: &SandboxId) -> Result<Sandbox> {
        let survey = self
            .retry_policy
            .call(|| async {
                let facts = self
                    .call_domain(id, "look at", CALL_TIMEOUT, domain::summarize)
                    .await?;
                self.scan_with_domains([facts].into(), Scope::Chains).await
            })
            .await
            .map_err(|error| match error.kind() {
                Kind::NotFound => self.sandbox_not_found(id),
                _ => error,
            })?;
        let found = survey.sandboxes.into_iter().next();
        found.ok_or_else(|| self.foreign_domain_error(id))
    }

    /// State of one sandbox of ours, asked now: less work still.
    ///
    /// # Errors
    /// As [`Host::sandbox`].
    pub async fn owned_sandbox_state(&self, id: &SandboxId) -> Result<SandboxState> {
        let look = || self.call_domain(id, "look at", CALL_TIMEOUT, domain::summarize);
        let facts = self.retry_policy.call(look).await;
        let facts = facts.map_err(|error| match error.kind() {
            Kind::NotFound => self.sandbox_not_found(id),
            _ => error,
        })?;
        let disks = facts.disks.iter().map(|disk| disk.path.as_str());
        let paths: Vec<&str> = [&*self.settings.sandboxes_dir]
            .into_iter()
            .chain(disks)
            .collect();
        let real = self.fs.canonicalize(&paths).await?;
        let ours = real.split_first().is_some_and(|(dir, disks)| {
            disks
                .iter()
                .any(|disk| disk.parent() == Some(dir.as_path()))
        });
        match ours {
            true => Ok(facts.state),
            false => Err(self.foreign_domain_error(id)),
        }
    }

    /// There is no sandbox of that id.
    pub fn sandbox_not_found(&self, id: &SandboxId) -> Error {
        Error::new(
            Kind::NotFound,
            format!("sandbox {id} not found on host {}", self.name()),
        )
        .hint("list sandboxes with `snapdeck sandboxes`")
    }

    /// There is a guest of that name, and it is no sandbox.
    pub fn foreign_domain_error(&self, id: &SandboxId) -> Error {
        Error::new(
            Kind::Conflict,
            format!("{id} on host {} is not a sandbox of snapdeck", self.name()),
        )
        .with_cause(format!(
            "none of its disks is in {}",
            self.settings.sandboxes_dir
        ))
        .hint("snapdeck does not touch other domains")
    }

    /// State of one sandbox, asked now.
    ///
    /// # Errors
    /// `NotFound` where there is no such domain; `Unreachable`.
    pub async fn sandbox_state(&self, id: &SandboxId) -> Result<SandboxState> {
        self.retry_policy
            .call(|| self.call_domain(id, "look at", CALL_TIMEOUT, domain::state))
            .await
    }

    /// Stops the guest's CPUs; its pending writes have reached the disk's file when this returns.
    ///
    /// # Errors
    /// `Unsupported` where it does not run; `NotFound`; `Unreachable`.
    pub async fn suspend(&self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "pause", CALL_TIMEOUT, |domain| domain.suspend())
            .await
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn resume(&self, id: &SandboxId) -> Result<()> {
        self.retry_policy
            .call(|| self.call_domain(id, "resume", CALL_TIMEOUT, |domain| domain.resume()))
            .await
    }

    /// Wakes a sleeping guest (ACPI S3).
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn wake(&self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "wake", CALL_TIMEOUT, |domain| {
            domain.pm_wakeup(0).map(|_| ())
        })
        .await
    }

    /// Makes a domain known to libvirt, shut off. One of that name that is there already is left as it is, as
    /// long as `xml` has no uuid.
    ///
    /// # Errors
    /// `Failed` with libvirt's words where the XML is not to its liking; `Unreachable`.
    pub async fn define(&self, xml: String) -> Result<()> {
        self.libvirt
            .call("define a sandbox", DEFINE_TIMEOUT, move |connect| {
                connect.define_domain_xml(&xml).map(|_| ())
            })
            .await
    }

    /// Makes libvirt forget a domain that is shut off, and removes its UEFI variables, its saved state and its TPM.
    /// Its disks stay.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn undefine(&self, id: &SandboxId) -> Result<()> {
        let flags = virt_sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | virt_sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | virt_sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | virt_sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        self.call_domain(id, "destroy", FORCE_OFF_TIMEOUT, move |domain| {
            domain.undefine_flags(flags)
        })
        .await
    }

    /// Starts a shut off guest, from its saved state where it has one.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn start(&self, id: &SandboxId) -> Result<()> {
        self.call_domain_long(id, "start", START_TIMEOUT, |domain| {
            domain.create().map(|_| ())
        })
        .await
    }

    /// Asks a guest to shut down: by its agent where that answers, else by the power button (ACPI). Returns when
    /// it was asked.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn shut_down(&self, id: &SandboxId) -> Result<()> {
        self.call_domain_long(id, "stop", SHUTDOWN_TIMEOUT, |domain| {
            domain.shutdown().map(|_| ())
        })
        .await
    }

    /// Ends a guest's process at once.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn force_off(&self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "force off", FORCE_OFF_TIMEOUT, |domain| {
            domain.destroy()
        })
        .await
    }

    /// Writes a guest's memory to the disk and ends its process (managed save). Cancelled, it goes on as before.
    ///
    /// # Errors
    /// As [`Host::suspend`]; `Cancelled`.
    pub async fn save(
        &self,
        id: &SandboxId,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()> {
        progress.enter(Phase::Saving, 0);
        let save = |domain: &Domain| domain.managed_save(0).map(|_| ());
        let saving = self.call_domain_long(id, "save", SAVE_TIMEOUT, save);
        tokio::pin!(saving);
        let mut aborted = false;
        loop {
            tokio::select! {
                saved = &mut saving => return match saved {
                    Err(_) if aborted => Err(Error::cancelled(format!("saving {id}"))),
                    saved => saved,
                },
                () = cancel.cancelled(), if !aborted => {
                    aborted = true;
                    // One that is just ending has nothing to abort any more.
                    if let Err(error) = self.call_domain(id, "stop saving", CALL_TIMEOUT, snapdeck_libvirt::abort_job).await {
                        tracing::debug!("{error}");
                    }
                }
                () = sleep(SAVE_POLL_INTERVAL) => {
                    let job = self.call_domain(id, "look at", CALL_TIMEOUT, |domain| domain.job_info()).await;
                    if let Ok(job) = job
                        && let (Some(done), Some(total @ 1..)) = (job.data_processed, job.data_total)
                    {
                        progress.enter(Phase::Saving, total);
                        progress.set_done(done);
                    }
                }
            }
        }
    }

    /// Removes a guest's saved state.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn discard_saved_state(&self, id: &SandboxId) -> Result<()> {
        self.call_domain(
            id,
            "discard the saved state of",
            FORCE_OFF_TIMEOUT,
            |domain| domain.managed_save_remove(0).map(|_| ()),
        )
        .await
    }

    /// Creates an empty file of the host's `owner`, mode 0644, that was not there before.
    ///
    /// # Errors
    /// `Unsupported` where there is one; the system's.
    pub async fn create_exclusive(&self, path: &str) -> Result<()> {
        self.fs.create_exclusive(path, &self.settings.owner).await
    }

    /// Copies the bytes of one file into another that is there, whose owner and mode stay.
    ///
    /// # Errors
    /// The system's.
    pub async fn copy_file(&self, from: &str, to: &str) -> Result<()> {
        self.fs.copy(from, to).await
    }

    /// Brings what was written to a file to the host's disk (sync(1)).
    ///
    /// # Errors
    /// `Failed` with sync's words; `Unreachable` where that takes longer than half a minute.
    pub async fn flush_file(&self, path: &str, cancel: &CancellationToken) -> Result<()> {
        let said = self
            .runner
            .run(&["sync", "--data", "--", path], FLUSH_TIMEOUT, cancel)
            .await?;
        match said.status.success() {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Failed,
                format!("cannot flush {path} on host {}", self.name()),
            )
            .with_cause(said.stderr.trim())),
        }
    }

    /// Makes the file `overlay`, which is there, an empty overlay on `base`, both qcow2; `size_bytes` where its disk
    /// is not to be as large as the base's.
    ///
    /// # Errors
    /// `Failed` with qemu-img's words; `NoSpace`.
    pub async fn make_overlay(
        &self,
        base: &str,
        overlay: &str,
        size_bytes: Option<u64>,
    ) -> Result<()> {
        self.retry_policy
            .call(|| image::make_overlay(&self.runner, base, overlay, size_bytes))
            .await
    }

    pub(super) async fn call_domain<T: Send + 'static>(
        &self,
        id: &SandboxId,
        verb: &str,
        deadline: Duration,
        call: impl FnOnce(&Domain) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        let call = lookup_and_call(id, call);
        let what = format!("{verb} sandbox {id}");
        self.libvirt.call(what, deadline, call).await
    }

    /// As [`Host::on`], for what takes long: it holds up no other call.
    pub(super) async fn call_domain_long<T: Send + 'static>(
        &self,
        id: &SandboxId,
        verb: &str,
        deadline: Duration,
        call: impl FnOnce(&Domain) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        let call = lookup_and_call(id, call);
        let what = format!("{verb} sandbox {id}");
        self.libvirt.call_long(what, deadline, call).await
    }
}

fn lookup_and_call<T>(
    id: &SandboxId,
    call: impl FnOnce(&Domain) -> Result<T, virt::error::Error> + Send + 'static,
) -> impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static {
    let name = id.clone();
    move |connect| call(&connect.lookup_domain_by_name(name.as_str())?)
}
