//! Sandboxes of a host: their states, and the calls that define, start and stop them.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as VirtError;

mod facts;
mod firmware;
mod guest;
mod identity;
mod quiesce;
mod screenshot;
mod settings;
mod stats;
mod vnc_tunnel;

use crate::domain::{self, DomainSummary};
use crate::inventory::scan::Scope;
use crate::{CALL_TIMEOUT, Host};
pub(crate) use facts::boot_rank;
pub use facts::{DomainDisk, DomainFacts};
pub(crate) use firmware::LIBVIRT_NVRAM_DIR;
pub use firmware::SandboxFirmware;
pub use quiesce::FsState;
pub use screenshot::Thumbnail;
pub use vnc_tunnel::VncTunnel;

use snapdeck_model::{Error, Kind, Phase, ProgressCell, Result, Sandbox, SandboxId, SandboxState};

/// libvirt probes QEMU before it defines the first guest of a host, which takes seconds on a busy machine.
const DEFINE_TIMEOUT: Duration = Duration::from_secs(120);
/// As above, and a saved guest is read from the disk.
const START_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const FORCE_OFF_TIMEOUT: Duration = Duration::from_secs(120);
/// libvirt waits 5 s for a guest agent that does not answer, then presses the power button.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// A guest's memory is written to the disk.
const SAVE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
const SAVE_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The sandboxes of a host: their libvirt domains and guests.
#[derive(Clone, Copy)]
pub struct Sandboxes<'a> {
    host: &'a Host,
    uuid: Option<&'a str>,
}

impl<'a> Sandboxes<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host, uuid: None }
    }

    /// Returns the same sandboxes, whose calls act on the domain with that UUID, whatever has the name by then.
    pub fn with_uuid(self, uuid: &'a str) -> Self {
        Self {
            uuid: Some(uuid),
            ..self
        }
    }
}

impl Sandboxes<'_> {
    /// Returns one sandbox with its chain. Much cheaper than a scan of the host.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if the domain of that name is not a sandbox; `Unreachable`.
    pub async fn get(self, id: &SandboxId) -> Result<Sandbox> {
        let inventory = self.host.inventory();
        let scan = || async {
            let domains = [self.summarize(id).await?].into();
            inventory.scan_with_domains(domains, Scope::Chains).await
        };
        let scanned = self.host.retry_policy.call(scan).await?;
        let sandbox = scanned.sandboxes.into_iter().next();
        sandbox.ok_or_else(|| self.foreign_domain_error(id))
    }

    /// Returns whether libvirt is starting the sandbox, also for a client that was killed meanwhile.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn is_starting_up(self, id: &SandboxId) -> Result<bool> {
        let read = |domain: &Domain| domain::is_starting_up(domain);
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, read))
            .await
    }

    /// Returns the state of one sandbox, as [`Sandboxes::get`] without its chain.
    ///
    /// # Errors
    /// As [`Sandboxes::get`].
    pub async fn owned_state(self, id: &SandboxId) -> Result<SandboxState> {
        let domain = self.host.retry_policy.call(|| self.summarize(id)).await?;
        let disks = domain.files.disks.iter().map(|disk| disk.path.as_str());
        let paths: Vec<&str> = [&*self.host.settings.sandboxes_dir]
            .into_iter()
            .chain(disks)
            .collect();
        let canonical = self.host.fs().canonicalize(&paths).await?;
        let is_sandbox = canonical.split_first().is_some_and(|(dir, disks)| {
            disks
                .iter()
                .any(|disk| disk.parent() == Some(dir.as_path()))
        });
        match is_sandbox {
            true => Ok(domain.state),
            false => Err(self.foreign_domain_error(id)),
        }
    }

    async fn summarize(self, id: &SandboxId) -> Result<DomainSummary> {
        self.call_domain(id, "inspect", CALL_TIMEOUT, domain::summarize)
            .await
            .map_err(|error| match error.kind() {
                Kind::NotFound => self.not_found_error(id),
                _ => error,
            })
    }

    /// Returns the error for a sandbox that does not exist.
    pub fn not_found_error(self, id: &SandboxId) -> Error {
        Error::new(
            Kind::NotFound,
            format!("sandbox {id} not found on host {}", self.host.name()),
        )
        .hint("list sandboxes with `snapdeck sandboxes`")
    }

    /// Returns the error for a domain that is not a sandbox.
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

    /// Returns the state of a domain.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn state(self, id: &SandboxId) -> Result<SandboxState> {
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, domain::state))
            .await
    }

    /// Pauses a guest. When this returns, its pending writes have reached the disk's file.
    ///
    /// # Errors
    /// `Conflict` if its state does not allow it; `NotFound`; `Unreachable`.
    pub async fn suspend(self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "pause", CALL_TIMEOUT, |domain| domain.suspend())
            .await
    }

    /// Resumes a paused guest.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn resume(self, id: &SandboxId) -> Result<()> {
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "resume", CALL_TIMEOUT, |domain| domain.resume()))
            .await
    }

    /// Wakes a suspended guest (ACPI S3).
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn wake(self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "wake", CALL_TIMEOUT, |domain| {
            domain.pm_wakeup(0).map(|_| ())
        })
        .await
    }

    /// Returns the domain XML of a sandbox as libvirt has it now, without passwords. Its texts may be those of others.
    ///
    /// # Errors
    /// As [`Sandboxes::get`]; `Failed` if it is longer than 4 MiB.
    pub async fn domain_xml(self, id: &SandboxId) -> Result<String> {
        self.read_xml(id, 0).await
    }

    /// As [`Sandboxes::domain_xml`], as it is from the next start on.
    pub async fn inactive_xml(self, id: &SandboxId) -> Result<String> {
        self.read_xml(id, virt_sys::VIR_DOMAIN_XML_INACTIVE).await
    }

    async fn read_xml(self, id: &SandboxId, flags: u32) -> Result<String> {
        self.owned_state(id).await?;
        let read = move |domain: &Domain| domain.xml_desc(flags);
        let xml = self
            .host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, read))
            .await?;
        match xml.len() > crate::xml::MAX_BYTES {
            true => {
                let summary = format!(
                    "cannot show the domain XML of {id} on host {}",
                    self.host.name()
                );
                Err(Error::new(Kind::Failed, summary).with_cause("it is longer than 4 MiB"))
            }
            false => Ok(xml),
        }
    }

    /// Returns the UUID of the domain of a sandbox.
    ///
    /// # Errors
    /// As [`Sandboxes::get`].
    pub async fn domain_uuid(self, id: &SandboxId) -> Result<String> {
        self.owned_state(id).await?;
        let read = |domain: &Domain| domain.uuid();
        let uuid = self
            .host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, read))
            .await?;
        Ok(uuid.to_string())
    }

    /// Returns the persistent definition of a domain, with its passwords: it is for another definition, not for a log.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn definition(self, id: &SandboxId) -> Result<String> {
        let flags = virt_sys::VIR_DOMAIN_XML_INACTIVE | virt_sys::VIR_DOMAIN_XML_SECURE;
        let read = move |domain: &Domain| domain.xml_desc(flags);
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, read))
            .await
    }

    /// Defines a domain, shut off. If `xml` has no uuid, an existing domain of that name is not changed.
    ///
    /// # Errors
    /// `Failed` with libvirt's message if it rejects the XML; `Unreachable`.
    pub async fn define(self, xml: String) -> Result<()> {
        self.host
            .libvirt
            .call("define a sandbox", DEFINE_TIMEOUT, move |connect| {
                connect.define_domain_xml(&xml).map(|_| ())
            })
            .await
    }

    /// Undefines a domain that is shut off, and removes its UEFI variables, saved state and TPM state, but not its disks.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn undefine(self, id: &SandboxId) -> Result<()> {
        self.undefine_with(id, virt_sys::VIR_DOMAIN_UNDEFINE_NVRAM)
            .await
    }

    /// As [`Sandboxes::undefine`], but keeps the UEFI variables: another domain refers to them.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn undefine_without_variables(self, id: &SandboxId) -> Result<()> {
        self.undefine_with(id, virt_sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
            .await
    }

    async fn undefine_with(self, id: &SandboxId, nvram_flag: u32) -> Result<()> {
        let flags = virt_sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | virt_sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | virt_sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | nvram_flag;
        self.call_domain(id, "destroy", FORCE_OFF_TIMEOUT, move |domain| {
            domain.undefine_flags(flags)
        })
        .await
    }

    /// Starts a guest that is shut off, from its saved state if it has one.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn start(self, id: &SandboxId) -> Result<()> {
        self.call_domain_long(id, "start", START_TIMEOUT, |domain| {
            domain.create().map(|_| ())
        })
        .await
    }

    /// Requests a shutdown from the guest agent, or by the power button (ACPI) if it does not answer. Does not wait for the
    /// shutdown.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn shut_down(self, id: &SandboxId) -> Result<()> {
        self.call_domain_long(id, "stop", SHUTDOWN_TIMEOUT, |domain| {
            domain.shutdown().map(|_| ())
        })
        .await
    }

    /// Resets the machine, as its reset button. Its process stays.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn reset(self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "reset", FORCE_OFF_TIMEOUT, |domain| domain.reset())
            .await
    }

    /// Ends the guest's process at once.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`].
    pub async fn force_off(self, id: &SandboxId) -> Result<()> {
        self.call_domain(id, "force off", FORCE_OFF_TIMEOUT, |domain| {
            domain.destroy()
        })
        .await
    }

    /// Writes a guest's memory to the disk and ends its process (managed save). If cancelled, the guest continues to run.
    ///
    /// # Errors
    /// As [`Sandboxes::suspend`]; `Cancelled`.
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
        let mut is_aborted = false;
        loop {
            tokio::select! {
                result = &mut saving => return match result {
                    Err(_) if is_aborted => Err(Error::cancelled(format!("saving {id}"))),
                    result => result,
                },
                () = cancel.cancelled(), if !is_aborted => {
                    is_aborted = true;
                    // The save may have just ended.
                    if let Err(error) = self.call_domain(id, "stop saving", CALL_TIMEOUT, snapdeck_libvirt::abort_job).await {
                        tracing::debug!("{error}");
                    }
                }
                () = sleep(SAVE_POLL_INTERVAL) => {
                    let job = self.call_domain(id, "inspect", CALL_TIMEOUT, |domain| domain.job_info()).await;
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
    /// As [`Sandboxes::suspend`].
    pub async fn discard_saved_state(self, id: &SandboxId) -> Result<()> {
        self.call_domain(
            id,
            "discard the saved state of",
            FORCE_OFF_TIMEOUT,
            |domain| domain.managed_save_remove(0).map(|_| ()),
        )
        .await
    }

    pub(crate) async fn call_domain<T: Send + 'static>(
        self,
        id: &SandboxId,
        verb: &str,
        deadline: Duration,
        call: impl FnOnce(&Domain) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T> {
        let call = lookup_and_call(id, self.uuid, call);
        let action = format!("{verb} sandbox {id}");
        self.host.libvirt.call(action, deadline, call).await
    }

    /// As [`Sandboxes::call_domain`], for long calls: other calls do not wait for it.
    pub(super) async fn call_domain_long<T: Send + 'static>(
        self,
        id: &SandboxId,
        verb: &str,
        deadline: Duration,
        call: impl FnOnce(&Domain) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T> {
        let call = lookup_and_call(id, self.uuid, call);
        let action = format!("{verb} sandbox {id}");
        self.host.libvirt.call_long(action, deadline, call).await
    }
}

fn lookup_and_call<T>(
    id: &SandboxId,
    uuid: Option<&str>,
    call: impl FnOnce(&Domain) -> Result<T, VirtError> + Send + 'static,
) -> impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static {
    let (name, uuid) = (id.clone(), uuid.map(str::to_owned));
    move |connect| {
        let domain = match &uuid {
            Some(uuid) => connect.lookup_domain_by_uuid_string(uuid),
            None => connect.lookup_domain_by_name(name.as_str()),
        };
        call(&domain?)
    }
}
