//! An object of the bucket, and what is known of its content.

use snapdeck_bucket::Bucket;
use snapdeck_model::{
    Annotations, Digest, Error, Kind, Manifest, Object, Result, SnapshotName, block_bytes,
};

use crate::context::Context;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RemoteObject {
    pub object: Object,
    pub manifest: Option<Manifest>,
    /// Annotations of an object without a manifest.
    pub annotations: Option<Annotations>,
}

impl RemoteObject {
    /// Looks up the object and its manifest.
    ///
    /// # Errors
    /// `NotFound`; those of the bucket.
    pub(crate) async fn find(bucket: &Bucket, name: &SnapshotName, ctx: &Context) -> Result<Self> {
        let object = bucket.head(name).await?.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!(
                    "snapshot not found in store: {name} is not in {}",
                    bucket.location()
                ),
            )
            .hint("list objects with `snapdeck objects`")
        })?;
        // Without a manifest everything works, but slower.
        let manifest = bucket.manifest(&object).await.unwrap_or_else(|error| {
            ctx.info(format!("{error}; continuing without its manifest"));
            None
        });
        let annotations = match manifest {
            Some(_) => None,
            None => bucket.annotations(name).await.unwrap_or_else(|error| {
                ctx.info(error.to_string());
                None
            }),
        };
        Ok(Self {
            object,
            manifest,
            annotations,
        })
    }

    /// Returns the digest that a block must have, if known.
    pub(crate) fn digest(&self, block: u64) -> Option<Digest> {
        let blocks = &self.manifest.as_ref()?.blocks;
        blocks.get(usize::try_from(block).ok()?).copied()
    }

    /// Returns the length of a block in bytes.
    pub(crate) fn block_bytes(&self, block: u64) -> u64 {
        block_bytes(block, self.object.size_bytes)
    }
}

/// Returns whether the bucket still has this very object.
///
/// # Errors
/// Those of the bucket.
pub(crate) async fn is_unchanged(bucket: &Bucket, object: &Object) -> Result<bool> {
    let current = bucket.head(&object.name).await?;
    Ok(current.is_some_and(|current| {
        current.etag == object.etag && current.size_bytes == object.size_bytes
    }))
}
