//! The identity of a sandbox: its id may mean another domain, or its domain may have other files, a moment later.

use virt::domain::Domain;

use super::Sandboxes;
use crate::CALL_TIMEOUT;
use crate::domain;
use snapdeck_model::{DiskIdentity, Kind, Result, SandboxId, SandboxIdentity};

/// Disks of a domain that are read at most.
const MAX_DISKS: usize = 64;

impl Sandboxes<'_> {
    /// Returns the identity of a sandbox, or of the overlay that an incomplete one left; `None` if there is neither.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn identity(self, id: &SandboxId) -> Result<Option<SandboxIdentity>> {
        let read = |domain: &Domain| {
            let uuid = domain.uuid()?.to_string();
            Ok((uuid, domain::summarize(domain)?))
        };
        let call = || self.call_domain(id, "inspect", CALL_TIMEOUT, read);
        let (uuid, is_active, paths) = match self.host.retry_policy.call(call).await {
            Ok((uuid, domain)) => {
                let disks = domain.files.disks.into_iter().take(MAX_DISKS);
                let paths = disks.map(|disk| disk.path).collect();
                (Some(uuid), domain.state.is_active(), paths)
            }
            Err(error) if error.kind() == Kind::NotFound => {
                (None, false, vec![self.host.disk_path(id)])
            }
            Err(error) => return Err(error),
        };
        let mut disks = Vec::new();
        for path in paths {
            let file = self.host.fs().image_file(&path).await?;
            let file = file.map(|file| file.stamp);
            disks.push(DiskIdentity { path, file });
        }
        let exists = uuid.is_some() || disks.iter().any(|disk| disk.file.is_some());
        Ok(exists.then_some(SandboxIdentity {
            uuid,
            is_active,
            disks,
        }))
    }
}
