//! Reads from the hosts and the bucket that bypass the view.

use futures_util::TryStreamExt;

use super::inventory;
use super::state::Engine;
use snapdeck_host::HostInventory;
use snapdeck_model::{
    ForeignDomain, HostName, Object, PushPlan, Result, Sandbox, SandboxId, Snapshot, SnapshotName,
};
use snapdeck_ops::SnapshotRequest;

impl Engine {
    /// Returns what a push would do. Uploads nothing.
    ///
    /// # Errors
    /// `Conflict` if the sandbox is neither stopped nor paused; `NotFound`; `Unreachable`; `Cancelled` when the engine stops.
    pub async fn plan_push(
        &self,
        host: &HostName,
        sandbox: &SandboxId,
        name: &SnapshotName,
        compact: bool,
    ) -> Result<PushPlan> {
        let inner = &self.inner;
        let request = SnapshotRequest::new(name, false, compact);
        let zstd = inner.settings.push.zstd_enabled;
        let (host, bucket, stop) = (self.host(host)?, &inner.bucket, &inner.stop);
        snapdeck_ops::plan_push(host, bucket, sandbox, &request, zstd, stop).await
    }

    /// Returns the sandboxes of a host.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host; `Unreachable`.
    pub async fn sandboxes(&self, host: &HostName) -> Result<Vec<Sandbox>> {
        Ok(self.scan(host).await?.sandboxes)
    }

    /// Returns a sandbox of a host.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`]; `NotFound`; `Conflict` if a domain of that name is not a sandbox.
    pub async fn sandbox(&self, host: &HostName, id: &SandboxId) -> Result<Sandbox> {
        self.host(host)?.sandboxes().get(id).await
    }

    /// Returns the sandboxes of a host and its other domains.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn guests(&self, host: &HostName) -> Result<(Vec<Sandbox>, Vec<ForeignDomain>)> {
        let inventory = self.scan(host).await?;
        Ok((inventory.sandboxes, inventory.foreign_domains))
    }

    /// Returns the snapshots of a host.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn snapshots(&self, host: &HostName) -> Result<Vec<Snapshot>> {
        Ok(self.scan(host).await?.snapshots)
    }

    /// Returns a snapshot of a host; `None` if it has none of that name.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn snapshot(&self, host: &HostName, name: &SnapshotName) -> Result<Option<Snapshot>> {
        let snapshots = self.snapshots(host).await?;
        Ok(snapshots
            .into_iter()
            .find(|snapshot| snapshot.name == *name))
    }

    /// Returns all objects of the bucket.
    ///
    /// # Errors
    /// Those of the bucket.
    pub async fn objects(&self) -> Result<Vec<Object>> {
        self.inner.bucket.list().try_concat().await
    }

    /// Returns an object of the bucket; `None` if it has none of that name.
    ///
    /// # Errors
    /// Those of the bucket.
    pub async fn object(&self, name: &SnapshotName) -> Result<Option<Object>> {
        self.inner.bucket.inspect(name).await
    }

    async fn scan(&self, host: &HostName) -> Result<HostInventory> {
        let inventory = self.host(host)?.inventory().scan().await?;
        for warning in inventory::warnings(&inventory) {
            tracing::warn!("{warning}");
        }
        Ok(inventory)
    }
}
