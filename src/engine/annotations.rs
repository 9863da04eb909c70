//! Annotations (note, labels, pin) of snapshots, on a host and in the bucket.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::state::Engine;
use super::view::Link;
use snapdeck_model::{
    Annotations, AnnotationsPatch, Error, HostName, Kind, Object, Result, SnapshotName,
};

/// Limit of the annotations read of one place.
const MAX_ANNOTATION_READS: usize = 500;
const MAX_PARALLEL_READS: usize = 4;

/// The annotations of many snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotationList {
    /// By host, `None` for the bucket, and name. A snapshot that was read and has none has an empty entry.
    pub entries: BTreeMap<(Option<HostName>, SnapshotName), Annotations>,
    /// Number of snapshots whose annotations were not read.
    pub unread_count: usize,
}

impl Engine {
    /// Returns the annotations of the snapshots of the view on `hosts` and, if requested, in the bucket: of the first 500
    /// in each place. Those of an unreachable place, and those that cannot be read, are left out.
    pub async fn list_annotations(&self, hosts: &[HostName], bucket: bool) -> AnnotationList {
        let view = self.view();
        let mut list = AnnotationList::default();
        for name in hosts {
            let snapshots = match view.host(name) {
                Some(host) => host.snapshots.iter().map(|snapshot| snapshot.name.clone()),
                None => continue,
            };
            let is_up = view.host(name).is_some_and(|host| host.link == Link::Up);
            self.read_annotations(Some(name), snapshots.collect(), is_up, &mut list)
                .await;
        }
        if bucket {
            let objects = view.bucket.objects.iter().map(|object| object.name.clone());
            let is_up = view.bucket.link == Link::Up;
            self.read_annotations(None, objects.collect(), is_up, &mut list)
                .await;
        }
        list
    }

    async fn read_annotations(
        &self,
        host: Option<&HostName>,
        mut names: Vec<SnapshotName>,
        is_up: bool,
        list: &mut AnnotationList,
    ) {
        let limit = if is_up { MAX_ANNOTATION_READS } else { 0 };
        list.unread_count += names.len().saturating_sub(limit);
        names.truncate(limit);
        let reads: Vec<_> = names
            .into_iter()
            .map(|name| async move {
                let read = self.annotations(host, host.is_none(), &name).await;
                (name, read)
            })
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(MAX_PARALLEL_READS);
        while let Some((name, read)) = reads.next().await {
            match read {
                Ok((on_host, in_bucket)) => {
                    let annotations = on_host.or(in_bucket).unwrap_or_default();
                    list.entries.insert((host.cloned(), name), annotations);
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    list.unread_count += 1;
                }
            }
        }
    }

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

    /// Changes the annotations of a snapshot on a host, or in the bucket (`None`), and returns them; an empty patch only reads.
    /// `None` if the snapshot is not there.
    ///
    /// # Errors
    /// As [`Engine::annotate_snapshot`] and [`Engine::annotate_object`], but not `NotFound`.
    pub async fn annotate_if_present(
        &self,
        host: Option<&HostName>,
        name: &SnapshotName,
        patch: &AnnotationsPatch,
    ) -> Result<Option<Annotations>> {
        let Some(host) = host else {
            let Some(object) = self.object(name).await? else {
                return Ok(None);
            };
            if !patch.is_empty() {
                return self.annotate_object(&object, patch).await.map(Some);
            }
            let (_, annotations) = self.annotations(None, true, name).await?;
            return Ok(Some(annotations.unwrap_or_default()));
        };
        if !patch.is_empty() {
            return match self.annotate_snapshot(host, name, patch).await {
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                annotations => annotations.map(Some),
            };
        }
        if self.snapshot(host, name).await?.is_none() {
            return Ok(None);
        }
        let (annotations, _) = self.annotations(Some(host), false, name).await?;
        Ok(Some(annotations.unwrap_or_default()))
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
