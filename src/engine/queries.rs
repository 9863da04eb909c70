//! Reads from the hosts and the bucket that bypass the view.

use std::pin::pin;

use futures_util::TryStreamExt;

use super::inventory;
use super::state::Engine;
use snapdeck_host::HostInventory;
use snapdeck_model::{
    Error, ForeignDomain, HostName, Kind, Object, PartialPull, PushPlan, Result, Sandbox,
    SandboxId, Snapshot, SnapshotName, escape_json, escape_unprintable_lines,
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
        let cache = &inner.push_cache;
        snapdeck_ops::plan_push(host, bucket, sandbox, &request, zstd, cache, stop).await
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

    /// Returns the domain XML of a sandbox as libvirt has it now, without passwords, its unprintable characters escaped.
    ///
    /// # Errors
    /// As [`Engine::sandbox`].
    pub async fn domain_xml(&self, host: &HostName, id: &SandboxId) -> Result<String> {
        let xml = self.host(host)?.sandboxes().domain_xml(id).await?;
        Ok(escape_unprintable_lines(&xml).into_owned())
    }

    /// Returns the manifest of a snapshot on a host, or of an object in the bucket, as indented JSON, its unprintable
    /// characters escaped. That of a snapshot is returned even if the image was changed since.
    ///
    /// # Errors
    /// `NotFound` if the snapshot does not exist or has no valid manifest; `Unreachable`; those of the bucket.
    pub async fn manifest_text(
        &self,
        host: Option<&HostName>,
        name: &SnapshotName,
    ) -> Result<String> {
        let bucket = &self.inner.bucket;
        let (place, found) = match host {
            Some(host) => {
                let stored = self.host(host)?.snapshots().stored_manifest(name).await?;
                (
                    format!("on host {host}"),
                    stored.map(|stored| stored.manifest),
                )
            }
            None => {
                let found = match bucket.head(name).await? {
                    Some(object) => bucket.manifest(&object).await?,
                    None => None,
                };
                (format!("in {}", bucket.location()), found)
            }
        };
        let manifest = found.ok_or_else(|| {
            let summary = format!("manifest of {name} not found {place}");
            Error::new(Kind::NotFound, summary)
                .hint("pull or push the snapshot again with --overwrite to create it")
        })?;
        let text = serde_json::to_string_pretty(&manifest).map_err(|error| {
            let summary = format!("cannot show the manifest of {name}");
            Error::new(Kind::Failed, summary).with_cause(error)
        })?;
        Ok(escape_json(&text).into_owned())
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

    /// Returns the partial files of pulls on a host, those of running pulls included.
    ///
    /// # Errors
    /// As [`Engine::sandboxes`].
    pub async fn partial_pulls(&self, host: &HostName) -> Result<Vec<PartialPull>> {
        Ok(self.scan(host).await?.partials)
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

    /// Returns all objects of the bucket; warns of folders of organizations that may not be listed.
    ///
    /// # Errors
    /// Those of the bucket.
    pub async fn objects(&self) -> Result<Vec<Object>> {
        let (objects, denied) = self.list_objects().await?;
        for error in denied {
            tracing::warn!("{error}");
        }
        Ok(objects)
    }

    /// Returns all objects of the bucket, and why folders of organizations are left out.
    pub(super) async fn list_objects(&self) -> Result<(Vec<Object>, Vec<Error>)> {
        let mut pages = pin!(self.inner.bucket.list());
        let (mut objects, mut denied) = (Vec::new(), Vec::new());
        while let Some(page) = pages.try_next().await? {
            objects.extend(page.objects);
            denied.extend(page.denied);
        }
        Ok((objects, denied))
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
