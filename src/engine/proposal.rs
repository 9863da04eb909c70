//! The proposed name of a new snapshot.

use jiff::Zoned;

use super::view::View;
use snapdeck_model::{HostName, SandboxId, SnapshotName};

impl View {
    /// Returns a name for a snapshot of `sandbox`: the next version of the snapshot that it is based on, else the sandbox
    /// with today's date. As far as the view shows, it is free on all hosts, in the bucket and in jobs. `None` if ten thousand
    /// such names are taken.
    pub fn propose_snapshot_name(
        &self,
        host: &HostName,
        sandbox: &SandboxId,
    ) -> Option<SnapshotName> {
        let sandboxes = self.host(host).map(|host| &host.sandboxes);
        let base = sandboxes
            .and_then(|sandboxes| sandboxes.iter().find(|known| known.id == *sandbox)?.base());
        let is_free = |name: &SnapshotName| {
            let mut hosts = self.hosts.iter();
            let mut jobs = self.jobs.iter().filter(|job| !job.state.is_finished());
            !hosts.any(|host| host.snapshots.iter().any(|known| known.name == *name))
                && !self.bucket.objects.iter().any(|known| known.name == *name)
                && !jobs.any(|job| job.operation.snapshot() == Some(name))
        };
        snapdeck_model::propose_snapshot_name(base, sandbox, Zoned::now().date(), is_free)
    }
}
