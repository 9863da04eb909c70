//! What is said of a host's snapshots, in the manifests beside them.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Host;
use snapdeck_model::{
    Annotations, AnnotationsPatch, Error, Kind, MAX_MANIFEST_BYTES, Result, SnapshotName,
};

impl Host {
    /// What is said of a snapshot in the manifest beside it, whatever image that is of; `None` where there is no
    /// manifest.
    ///
    /// # Errors
    /// The system's; `Unreachable`.
    pub async fn annotations(&self, name: &SnapshotName) -> Result<Option<Annotations>> {
        let json = self.manifest_json(name).await?;
        Ok(json.and_then(|json| Annotations::from_manifest_json(&json).ok()))
    }

    /// Changes what is said of a snapshot; where it has no manifest, one of remarks alone is made.
    ///
    /// # Errors
    /// `NotFound` where there is no such snapshot; `Unsupported` where what lies beside it is no manifest, or somebody
    /// works on the snapshot; the system's; `Unreachable`.
    pub async fn annotate_snapshot(
        &self,
        name: &SnapshotName,
        change: &AnnotationsPatch,
    ) -> Result<Annotations> {
        let wants = vec![self.snapshot_lock(name, true)];
        // It is written within one call: there is nothing to stop when the lock is lost.
        let lost = CancellationToken::new();
        let lock = self.lock(wants, &format!("note {name}"), lost).await?;
        let made = self.annotate_locked(name, change).await;
        lock.release().await;
        made
    }

    async fn annotate_locked(
        &self,
        name: &SnapshotName,
        change: &AnnotationsPatch,
    ) -> Result<Annotations> {
        let Some(file) = self.image_file(&self.snapshot_path(name)).await? else {
            let what = format!("snapshot {name} not found on host {}", self.name());
            return Err(Error::new(Kind::NotFound, what));
        };
        let json = self.manifest_json(name).await?;
        let stamp = serde_json::to_value(file.stamp).map_err(|error| {
            Error::new(
                Kind::Failed,
                format!("cannot write the annotations of {name}"),
            )
            .with_cause(error)
        })?;
        let image = || {
            let size = Value::from(file.stamp.size_bytes);
            [("sizeBytes", size), ("file", stamp)]
                .map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect()
        };
        let (json, remarks) = change.apply(json.as_deref(), name, image)?;
        self.fs
            .write_file(&self.manifest_path(name), &self.settings.owner, json)
            .await?;
        Ok(remarks)
    }

    async fn manifest_json(&self, name: &SnapshotName) -> Result<Option<Vec<u8>>> {
        let path = self.manifest_path(name);
        self.fs.read_file(&path, MAX_MANIFEST_BYTES).await
    }
}
