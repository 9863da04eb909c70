//! Where a snapshot that a host is to receive is looked up: in the bucket for a pull, on another host for a copy.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{ExpectedVariables, Manifest, Object, Result, SnapshotName};

use crate::context::Context;
use crate::image_source::{ImageSource, SourceFile};
use crate::local_snapshot::LocalSnapshot;
use crate::remote_object::RemoteObject;
use crate::variables::{SourceVariables, snapshot_parts};
use crate::verify::find_image;

/// The place of the snapshot.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    Bucket(&'a Bucket),
    Host(&'a Host),
}

/// A snapshot that was found, and the source of its blocks.
pub(crate) struct FoundImage {
    pub image: Arc<RemoteObject>,
    pub source: ImageSource,
    /// Those of a host's snapshot.
    variables: Option<Bytes>,
}

impl Origin<'_> {
    /// Returns the word for what is done with its bytes.
    pub(crate) fn gerund(self) -> &'static str {
        match self {
            Self::Bucket(_) => "downloading",
            Self::Host(_) => "copying",
        }
    }

    /// Finds the snapshot; one of a host is checked, and hashed if its blocks are not known.
    ///
    /// # Errors
    /// `NotFound`; `Damaged`; those of bucket or host.
    pub(crate) async fn find(self, name: &SnapshotName, ctx: &Context) -> Result<FoundImage> {
        let host = match self {
            Self::Bucket(bucket) => {
                let image = RemoteObject::find(bucket, name, ctx).await?;
                return Ok(FoundImage {
                    image: Arc::new(image.without_claimed_digests(ctx)),
                    source: ImageSource::Bucket(bucket.clone()),
                    variables: None,
                });
            }
            Self::Host(host) => host,
        };
        let mut snapshot = LocalSnapshot::find(host, name, "copy", ctx).await?;
        snapshot.hash_blocks(ctx).await?;
        let variables = snapshot_parts(snapshot.variables.as_ref()).variables;
        let manifest = snapshot.manifest.take();
        let image = of_host(host, name, snapshot.size_bytes(), manifest, Some(variables));
        Ok(FoundImage {
            image: Arc::new(image),
            source: ImageSource::Snapshot(Arc::new(SourceFile {
                host: host.clone(),
                stamp: snapshot.file.stamp,
                path: snapshot.path,
            })),
            variables: snapshot.variables,
        })
    }

    /// Looks the snapshot up without reading it: its length, and its manifest if that is known to be true.
    ///
    /// # Errors
    /// As [`Origin::find`].
    pub(crate) async fn look_up(self, name: &SnapshotName, ctx: &Context) -> Result<RemoteObject> {
        match self {
            Self::Bucket(bucket) => {
                let object = RemoteObject::find(bucket, name, ctx).await?;
                Ok(object.without_claimed_digests(ctx))
            }
            Self::Host(host) => {
                let file = find_image(host, name).await?;
                let manifest = host.snapshots().manifest(name).await?;
                Ok(of_host(host, name, file.size_bytes, manifest, None))
            }
        }
    }

    /// Returns the UEFI variables of a snapshot that was found.
    ///
    /// # Errors
    /// `Damaged` if they are missing or are others; those of the bucket.
    pub(crate) async fn variables(
        self,
        found: &FoundImage,
        ctx: &Context,
    ) -> Result<SourceVariables> {
        match (self, &found.variables) {
            (Self::Bucket(bucket), _) => SourceVariables::fetch(bucket, &found.image, ctx).await,
            (Self::Host(_), None) => Ok(SourceVariables::Absent),
            (Self::Host(_), Some(bytes)) => {
                Ok(SourceVariables::of_snapshot(&found.image, bytes.clone()))
            }
        }
    }
}

/// Describes a snapshot of a host as an image that can be received.
fn of_host(
    host: &Host,
    name: &SnapshotName,
    size_bytes: u64,
    manifest: Option<Manifest>,
    variables: Option<ExpectedVariables>,
) -> RemoteObject {
    let manifest = manifest.map(|mut manifest| {
        manifest.variables = variables.or(manifest.variables);
        // Of the object, a host has only its word.
        manifest.etag = None;
        manifest.upload_tag = None;
        // Nor of the future, in which it would be the newest for a prune.
        manifest.created = manifest.created.min(Some(Timestamp::now()));
        manifest
    });
    RemoteObject {
        verb: "copy",
        object: Object {
            name: name.clone(),
            key: format!("{} on host {}", host.snapshot_path(name), host.name()),
            size_bytes,
            modified: None,
            etag: None,
            problem: None,
        },
        manifest,
        annotations: None,
        parts: None,
    }
}
