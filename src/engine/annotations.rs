//! Notes, labels and pins of snapshots, on a host and in the bucket.

use super::state::Engine;
use snapdeck_model::{
    Annotations, AnnotationsPatch, Error, HostName, Kind, Object, Result, SnapshotName,
};

impl Engine {
    /// What is said of a snapshot: on the host where one is given, and in the bucket where that is asked for.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn annotations(
        &self,
        host: Option<&HostName>,
        bucket: bool,
        name: &SnapshotName,
    ) -> Result<(Option<Annotations>, Option<Annotations>)> {
        let here = match host {
            Some(host) => self.host(host)?.annotations(name).await?,
            None => None,
        };
        let there = match bucket {
            true => self.inner.bucket.annotations(name).await?,
            false => None,
        };
        Ok((here, there))
    }

    /// Changes what is said of a snapshot on a host.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` while somebody works on it, or where what lies beside it is no manifest; `Unreachable`.
    pub async fn annotate_snapshot(
        &self,
        host: &HostName,
        name: &SnapshotName,
        change: &AnnotationsPatch,
    ) -> Result<Annotations> {
        self.host(host)?.annotate_snapshot(name, change).await
    }

    /// Changes what is said of an object.
    ///
    /// # Errors
    /// As the store fails to answer; `Unsupported` where what lies beside the object is no manifest.
    pub async fn annotate_object(
        &self,
        object: &Object,
        change: &AnnotationsPatch,
    ) -> Result<Annotations> {
        self.inner.bucket.annotate(object, change).await
    }

    /// Changes what is said of a snapshot on a host, and in the bucket.
    ///
    /// # Errors
    /// As [`Engine::annotate_snapshot`] and [`Engine::annotate_object`]; `NotFound` where the bucket has no such object.
    pub async fn annotate(
        &self,
        host: Option<&HostName>,
        bucket: bool,
        name: &SnapshotName,
        change: &AnnotationsPatch,
    ) -> Result<()> {
        if let Some(host) = host {
            self.annotate_snapshot(host, name, change).await?;
        }
        if bucket {
            let gone = || Error::new(Kind::NotFound, format!("object {name} not found"));
            let object = self.object(name).await?.ok_or_else(gone)?;
            self.annotate_object(&object, change).await?;
        }
        Ok(())
    }
}
