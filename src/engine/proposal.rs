//! The proposed name of a new snapshot, and the proposed id of a new sandbox.

use std::collections::HashSet;

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
        let snapshots = self.hosts.iter().flat_map(|host| host.snapshots.iter());
        let objects = self.bucket.objects.iter().map(|object| &object.name);
        let jobs = self.jobs.iter().filter(|job| !job.state.is_finished());
        let taken: HashSet<&SnapshotName> = snapshots
            .map(|snapshot| &snapshot.name)
            .chain(objects)
            .chain(jobs.filter_map(|job| job.operation.snapshot()))
            .collect();
        let is_free = |name: &SnapshotName| !taken.contains(name);
        snapdeck_model::propose_snapshot_name(base, sandbox, Zoned::now().date(), is_free)
    }

    /// Returns an id for a new sandbox of `host` on `base`, as far as the view shows free.
    pub fn propose_sandbox_id(&self, host: &HostName, base: &SnapshotName) -> Option<SandboxId> {
        let taken = self.sandbox_ids(host);
        snapdeck_model::propose_sandbox_id(base, |id| !taken.contains(id))
    }

    /// Returns an id for a clone of `sandbox`, as far as the view shows free.
    pub fn propose_clone_id(&self, host: &HostName, sandbox: &SandboxId) -> Option<SandboxId> {
        let taken = self.sandbox_ids(host);
        snapdeck_model::propose_clone_id(sandbox, |id| !taken.contains(id))
    }

    /// Returns the ids of a host's sandboxes, and those that jobs give to new ones.
    fn sandbox_ids(&self, host: &HostName) -> HashSet<&SandboxId> {
        let sandboxes = self
            .host(host)
            .into_iter()
            .flat_map(|host| host.sandboxes.iter());
        let jobs = self.jobs.iter().filter(|job| !job.state.is_finished());
        let operations = jobs.map(|job| &job.operation);
        let new = operations.flat_map(|operation| [operation.sandbox(), operation.new_id()]);
        sandboxes
            .map(|sandbox| &sandbox.id)
            .chain(new.flatten())
            .collect()
    }
}
