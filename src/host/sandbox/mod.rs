//! Sandboxes of a host: looked at, made, run, ended.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use virt::connect::Connect;
use virt::domain::Domain;

mod guest;
mod quiesce;
mod screenshot;
mod stats;
mod vnc_tunnel;

use crate::inventory::scan::Scope;
use crate::{CALL_TIMEOUT, Host, domain};
pub use vnc_tunnel::VncTunnel;

use snapdeck_model::{Error, Kind, Phase, ProgressCell, Result, Sandbox, SandboxId, SandboxState};

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

/// The sandboxes of a host: their libvirt domains and guests.
#[derive(Clone, Copy)]
pub struct Sandboxes<'a> {
    host: &'a Host,
}

impl<'a> Sandboxes<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl Sandboxes<'_> {
    /// One sandbox with its chain, asked now. Much less work than a [`Host::survey`].
    ///
    /// # Errors
    /// `NotFound` where there is none; `Unsupported` where there is a guest of that name that is none of ours;
    /// `Unreachable`.
    pub async fn get(self, id: &SandboxId) -> Result<Sandbox> {
        let survey = self
            .host
            .retry_policy
            .call(|| async {
                let facts = self
                    .call_domain(id, "look at", CALL_TIMEOUT, domain::summarize)
                    .await?;
                self.host
                    .inventory()
                    .scan_with_domains([facts].into(), Scope::Chains)
                    .await
            })
            .await
            .map_err(|error| match error.kind() {
                Kind::NotFound => self.not_found_error(id),
                _ => error,
            })?;
        let found = survey.sandboxes.into_iter().next();
        found.ok_or_else(|| self.foreign_domain_error(id))
    }

    /// State of one sandbox of ours, asked now: less work still.
    ///
    /// # Errors
    /// As [`Host::sandbox`].
    pub async fn owned_state(self, id: &SandboxId) -> Result<SandboxState> {
        let look = || self.call_domain(id, "look at", CALL_TIMEOUT, domain::summarize);
        let facts = self.host.retry_policy.call(look).await;
        let facts = facts.map_err(|error| match error.kind() {
            Kind::NotFound => self.not_found_error(id),
            _ => error,
        })?;
        let disks = facts.disks.iter().map(|disk| disk.path.as_str());
        let paths: Vec<&str> = [&*self.host.settings.sandboxes_dir]
            .into_iter()
            .chain(disks)
            .collect();
        let real = self.host.fs().canonicalize(&paths).await?;
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
    pub fn not_found_error(self, id: &SandboxId) -> Error {
        Error::new(
            Kind::NotFound,
            format!("sandbox {id} not found on host {}", self.host.name()),
        )
        .hint("list sandboxes with `snapdeck sandboxes`")
    }

    /// There is a guest of that name, and it is no sandbox.
    pub fn foreign_domain_error(self, id: &SandboxId) -> Error {
        Error::new(
            Kind::Conflict,
            format!(
                "{id} on host {} is not a sandbox of snapdeck",
                self.host.name()
            ),
        )
        .with_cause(format!(
            "none of its disks is in {}",
            self.host.settings.sandboxes_dir
        ))
        .hint("snapdeck does not touch other domains")
    }

    /// State of one sandbox, asked now.
    ///
    /// # Errors
    /// `NotFound` where there is no such domain; `Unreachable`.
    pub async fn state(self, id: &SandboxId) -> Result<SandboxState> {
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "look at", CALL_TIMEOUT, domain::state))
            .await
    }

    /// Stops the guest's CPUs; its pending writes have reached the disk's file when this returns.
    ///
    /// # Errors
    /// `Unsupported` where it does not run; `NotFound`; `Unreachable`.
    pub async fn suspend(self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "pause", CALL_TIMEOUT, |domain| domain.suspend())
            .await
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn resume(self, id: &SandboxId) -> Result<()> {
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "resume", CALL_TIMEOUT, |domain| domain.resume()))
            .await
    }

    /// Wakes a sleeping guest (ACPI S3).
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn wake(self, id: &SandboxId) -> Result<()> {
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
    pub async fn define(self, xml: String) -> Result<()> {
        self.host
            .libvirt
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
    pub async fn undefine(self, id: &SandboxId) -> Result<()> {
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
    pub async fn start(self, id: &SandboxId) -> Result<()> {
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
    pub async fn shut_down(self, id: &SandboxId) -> Result<()> {
        self.call_domain_long(id, "stop", SHUTDOWN_TIMEOUT, |domain| {
            domain.shutdown().map(|_| ())
        })
        .await
    }

    /// Ends a guest's process at once.
    ///
    /// # Errors
    /// As [`Host::suspend`].
    pub async fn force_off(self, id: &SandboxId) -> Result<()> {
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
        self,
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
    pub async fn discard_saved_state(self, id: &SandboxId) -> Result<()> {
        self.call_domain(
            id,
            "discard the saved state of",
            FORCE_OFF_TIMEOUT,
            |domain| domain.managed_save_remove(0).map(|_| ()),
        )
        .await
    }

    pub(super) async fn call_domain<T: Send + 'static>(
        self,
        id: &SandboxId,
        verb: &str,
        deadline: Duration,
        call: impl FnOnce(&Domain) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        let call = lookup_and_call(id, call);
        let what = format!("{verb} sandbox {id}");
        self.host.libvirt.call(what, deadline, call).await
    }

    /// As [`Host::on`], for what takes long: it holds up no other call.
    pub(super) async fn call_domain_long<T: Send + 'static>(
        self,
        id: &SandboxId,
        verb: &str,
        deadline: Duration,
        call: impl FnOnce(&Domain) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        let call = lookup_and_call(id, call);
        let what = format!("{verb} sandbox {id}");
        self.host.libvirt.call_long(what, deadline, call).await
    }
}

fn lookup_and_call<T>(
    id: &SandboxId,
    call: impl FnOnce(&Domain) -> Result<T, virt::error::Error> + Send + 'static,
) -> impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static {
    let name = id.clone();
    move |connect| call(&connect.lookup_domain_by_name(name.as_str())?)
}
