//! Settings of a sandbox's definition: name, autostart, CPUs and memory.

use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys::{
    VIR_DOMAIN_MEM_CONFIG, VIR_DOMAIN_MEM_MAXIMUM, VIR_DOMAIN_VCPU_CONFIG, VIR_DOMAIN_VCPU_MAXIMUM,
};

use super::{CALL_TIMEOUT, Sandboxes};
use snapdeck_model::{Result, SandboxId};

/// CPUs and memory of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MachineSize {
    /// CPUs at the start.
    cpus: u32,
    /// CPUs that can be plugged in.
    max_cpus: u32,
    /// Memory at the start (`<currentMemory>`).
    memory_kib: u64,
    /// `<memory>`.
    max_memory_kib: u64,
}

impl MachineSize {
    fn read(domain: &Domain) -> Result<Self, VirtError> {
        let info = domain.info()?;
        Ok(Self {
            cpus: domain.vcpus_flags(VIR_DOMAIN_VCPU_CONFIG)?,
            max_cpus: domain.vcpus_flags(VIR_DOMAIN_VCPU_CONFIG | VIR_DOMAIN_VCPU_MAXIMUM)?,
            memory_kib: info.memory,
            max_memory_kib: info.max_mem,
        })
    }

    /// Changes what differs from `old`. A lower maximum lowers the value at the start, too.
    fn write(self, domain: &Domain, old: Self) -> Result<(), VirtError> {
        if (self.cpus, self.max_cpus) != (old.cpus, old.max_cpus) {
            let max = VIR_DOMAIN_VCPU_CONFIG | VIR_DOMAIN_VCPU_MAXIMUM;
            domain.set_vcpus_flags(self.max_cpus, max)?;
            domain.set_vcpus_flags(self.cpus, VIR_DOMAIN_VCPU_CONFIG)?;
        }
        if (self.memory_kib, self.max_memory_kib) != (old.memory_kib, old.max_memory_kib) {
            let max = VIR_DOMAIN_MEM_CONFIG | VIR_DOMAIN_MEM_MAXIMUM;
            domain.set_memory_flags(self.max_memory_kib, max)?;
            domain.set_memory_flags(self.memory_kib, VIR_DOMAIN_MEM_CONFIG)?;
        }
        Ok(())
    }
}

impl Sandboxes<'_> {
    /// Returns whether the sandbox starts with its host.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn autostart(self, id: &SandboxId) -> Result<bool> {
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, |domain| domain.autostart()))
            .await
    }

    /// Chooses whether the sandbox starts with its host.
    ///
    /// # Errors
    /// `Failed` with libvirt's message; as [`Sandboxes::autostart`].
    pub async fn set_autostart(self, id: &SandboxId, enabled: bool) -> Result<()> {
        self.call_domain(id, "set autostart of", CALL_TIMEOUT, move |domain| {
            domain.set_autostart(enabled)
        })
        .await
    }

    /// Gives the domain of a sandbox that is shut off another name. Its files keep theirs.
    ///
    /// # Errors
    /// `Failed` with libvirt's message, for example if a domain has the name; as [`Sandboxes::autostart`].
    pub async fn rename(self, id: &SandboxId, new_id: &SandboxId) -> Result<()> {
        let name = new_id.clone();
        self.call_domain(id, "rename", CALL_TIMEOUT, move |domain| {
            domain.rename(name.as_str(), 0)
        })
        .await
    }

    /// Changes CPUs and memory in the definition of a sandbox that is shut off; `None` keeps them. Returns whether anything
    /// changed.
    ///
    /// # Errors
    /// `Failed` with libvirt's message, for example if the definition has a CPU topology or NUMA nodes that do not fit: it is
    /// as before then; as [`Sandboxes::autostart`].
    pub async fn set_size(
        self,
        id: &SandboxId,
        cpus: Option<u32>,
        memory_bytes: Option<u64>,
    ) -> Result<bool> {
        let set = move |domain: &Domain| {
            let old = MachineSize::read(domain)?;
            let mut new = old;
            if let Some(cpus) = cpus {
                (new.cpus, new.max_cpus) = (cpus, cpus);
            }
            if let Some(bytes) = memory_bytes {
                let kib = bytes.div_ceil(1024);
                (new.memory_kib, new.max_memory_kib) = (kib, kib);
            }
            let written = new.write(domain, old);
            if written.is_err() {
                // Both values or neither.
                let now = MachineSize::read(domain)?;
                if let Err(error) = old.write(domain, now) {
                    tracing::warn!("{}", error.message());
                }
            }
            written.map(|()| new != old)
        };
        self.call_domain(id, "change CPUs and memory of", CALL_TIMEOUT, set)
            .await
    }
}
