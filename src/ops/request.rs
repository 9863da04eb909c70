//! The snapshot that a create or push is asked for.

use snapdeck_bucket::Bucket;
use snapdeck_model::{Error, Kind, Result, SnapshotName};

use crate::pin::refuse_pinned_object;

/// Name and options of a new object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Name of the object.
    pub name: SnapshotName,
    /// Whether an existing object of that name may be replaced.
    pub overwrite: bool,
    /// Whether the whole image is rewritten, without deleted data.
    pub compact: bool,
}

impl SnapshotRequest {
    /// Returns the request for an object of that name.
    pub fn new(name: &SnapshotName, overwrite: bool, compact: bool) -> Self {
        Self {
            name: name.clone(),
            overwrite,
            compact,
        }
    }

    /// Fails if the bucket has the object, or UEFI variables that the new one would be taken to own, and they may not be
    /// replaced or are pinned, or if it has another program's object in the place of the manifest.
    ///
    /// Saves an hour of converting for nothing; the bucket checks again when the upload completes.
    pub(crate) async fn refuse_existing(&self, bucket: &Bucket) -> Result<()> {
        for store in [bucket, &bucket.variables()] {
            let Some(object) = store.head(&self.name).await? else {
                continue;
            };
            if self.overwrite {
                refuse_pinned_object(bucket, &self.name, "overwrite").await?;
            } else {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("{} already exists in {}", object.key, bucket.location()),
                )
                .hint("choose another name, or pass --overwrite to replace it"));
            }
        }
        bucket.refuse_foreign_manifest(&self.name).await
    }
}
