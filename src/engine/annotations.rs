//! Annotations (note, labels, pin) of snapshots, on a host and in the bucket.

use super::state::Engine;
use snapdeck_model::{
    Annotations, AnnotationsPatch, Error, HostName, Kind, Object, Result, SnapshotName,
};

impl Engine {
    /// Returns the annotations of a snapshot: on `host`, if given, and in the bucket, if requested.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn annotations(
        &self,
        host: Option<&HostName>,
        bucket: bool,
        name: &SnapshotName,
    ) -> Result<(Option<Annotations>, Option<Annotations>)> {
        let on_host = match host {
            Some(host) => self.host(host)?.snapshots().annotations(name).await?,
            None => None,
        };
        let in_bucket = match bucket {
            true => self.inner.bucket.annotations(name).await?,
            false => None,
        };
        Ok((on_host, in_bucket))
    }

    /// Changes the annotations of a snapshot on a host.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while the snapshot is locked, or if its manifest is not one of snapdeck;
    /// `Unreachable`.
    pub async fn annotate_snapshot(
        &self,
        host: &HostName,
        name: &SnapshotName,
        patch: &AnnotationsPatch,
    ) -> Result<Annotations> {
        self.host(host)?.snapshots().annotate(name, patch).await
    }

    /// Changes the annotations of an object.
    ///
    /// # Errors
    /// `Conflict` if its manifest is not one of snapdeck; those of the bucket.
    pub async fn annotate_object(
        &self,
        object: &Object,
        patch: &AnnotationsPatch,
    ) -> Result<Annotations> {
        self.inner.bucket.annotate(object, patch).await
    }

    /// Changes the annotations of a snapshot on a host, if given, and in the bucket, if requested.
    ///
    /// # Errors
    /// As [`Engine::annotate_snapshot`] and [`Engine::annotate_object`]; `NotFound` if the bucket has no such object.
    pub async fn annotate(
        &self,
        host: Option<&HostName>,
        bucket: bool,
        name: &SnapshotName,
        patch: &AnnotationsPatch,
    ) -> Result<()> {
        if let Some(host) = host {
            self.annotate_snapshot(host, name, patch).await?;
        }
        if bucket {
            let not_found = || Error::new(Kind::NotFound, format!("object {name} not found"));
            let object = self.object(name).await?.ok_or_else(not_found)?;
            self.annotate_object(&object, patch).await?;
        }
        Ok(())
    }
}
