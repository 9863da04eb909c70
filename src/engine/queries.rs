//! Reads from the hosts and the bucket, without the view.

use futures_util::TryStreamExt;

use super::inventory;
use super::state::Engine;
use snapdeck_host::HostInventory;
use snapdeck_model::{
    ForeignDomain, HostName, Object, PushPlan, Result, Sandbox, SandboxId, Snapshot, SnapshotName,
};
use snapdeck_ops::SnapshotRequest;

impl Engine {
    /// What a push would do, found out now; moves nothing.
    ///
    /// # Errors
    /// As a push: `Unsupported` where the sandbox is neither stopped nor paused; `NotFound`; `Unreachable`.
    pub async fn plan_push(
        &self,
        host: &HostName,
        sandbox: &SandboxId,
        name: &SnapshotName,
        compact: bool,
    ) -> Result<PushPlan> {
        let inner = &self.inner;
        let wish = SnapshotRequest::new(name, false, compact);
        let zstd = inner.settings.push.zstd_enabled;
        snapdeck_ops::plan_push(self.host(host)?, &inner.bucket, sandbox, &wish, zstd).await
    }

    /// Sandboxes of a host, asked now.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host, `Unreachable` where it does not answer.
    pub async fn sandboxes(&self, host: &HostName) -> Result<Vec<Sandbox>> {
        Ok(self.scan(host).await?.sandboxes)
    }

    /// One sandbox of a host, asked now.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`]; `NotFound`; `Unsupported` where a guest of that name is no sandbox of ours.
    pub async fn sandbox(&self, host: &HostName, id: &SandboxId) -> Result<Sandbox> {
        self.host(host)?.sandbox(id).await
    }

    /// All guests of a host, asked now: sandboxes, and those that are none of ours.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn guests(&self, host: &HostName) -> Result<(Vec<Sandbox>, Vec<ForeignDomain>)> {
        let survey = self.scan(host).await?;
        Ok((survey.sandboxes, survey.foreign_domains))
    }

    /// Snapshots of a host, asked now.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn snapshots(&self, host: &HostName) -> Result<Vec<Snapshot>> {
        Ok(self.scan(host).await?.snapshots)
    }

    /// One snapshot of a host, asked now.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn snapshot(&self, host: &HostName, name: &SnapshotName) -> Result<Option<Snapshot>> {
        let snapshots = self.snapshots(host).await?;
        Ok(snapshots
            .into_iter()
            .find(|snapshot| snapshot.name == *name))
    }

    /// All objects, asked now.
    ///
    /// # Errors
    /// As the bucket's listing fails.
    pub async fn objects(&self) -> Result<Vec<Object>> {
        self.inner.bucket.list().try_concat().await
    }

    /// One object, asked now; `None` where the bucket has no such object.
    ///
    /// # Errors
    /// As the bucket fails to answer.
    pub async fn object(&self, name: &SnapshotName) -> Result<Option<Object>> {
        self.inner.bucket.head(name).await
    }

    async fn scan(&self, host: &HostName) -> Result<HostInventory> {
        let survey = self.host(host)?.scan().await?;
        for warning in inventory::warnings(&survey) {
            tracing::warn!("{warning}");
        }
        Ok(survey)
    }
}
