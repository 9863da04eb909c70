//! Old versions that a bucket keeps of what was deleted.

use super::Bucket;
use super::keys::{VARIABLES_SUFFIX, snapshot_name, variables_owner};
use snapdeck_model::{Result, SnapshotName};

/// Old versions that were deleted, and those that were not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreedVersions {
    /// Versions deleted.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Why others were kept, a line each.
    pub kept: Vec<String>,
}

impl Bucket {
    /// Returns whether the bucket keeps old versions of what is deleted; `None` if the store does not say it.
    ///
    /// # Errors
    /// `InvalidInput` without a bucket.
    pub async fn keeps_versions(&self) -> Result<Option<bool>> {
        Ok(self.store().await?.keeps_versions().await.ok())
    }

    /// Returns whether old versions of what is removed are deleted, too, by the settings.
    pub fn deletes_versions(&self) -> bool {
        self.lazy_client.settings().storage.deletes_versions
    }

    /// Deletes the old versions of a snapshot's image, manifest and UEFI variables that the bucket keeps after their deletion.
    ///
    /// # Errors
    /// Those of the listing.
    pub async fn delete_versions(&self, name: &SnapshotName) -> Result<FreedVersions> {
        let store = self.store().await?;
        let mut freed = FreedVersions::default();
        // Another client may have uploaded it since.
        if self.head(name).await?.is_some() {
            return Ok(freed);
        }
        let prefix = &self.lazy_client.settings().prefix;
        let (image, manifest) = (self.key(name), self.manifest_key(name));
        let is_of =
            |key: &str| key == image || key == manifest || is_variables_key(prefix, key, name);
        let versions = store
            .old_versions(&format!("{prefix}{name}"), is_of)
            .await?;
        for version in versions {
            match store.delete_old_version(&version).await {
                Ok(()) => {
                    freed.count += 1;
                    freed.bytes += version.size_bytes;
                }
                Err(failed) => {
                    let address = store.address(&version.key);
                    freed.kept.push(match store.version_lock(&version).await {
                        Some(lock) => format!("an old version of {address} is locked: {lock}"),
                        None => failed.error.to_string(),
                    });
                }
            }
        }
        Ok(freed)
    }
}

fn is_variables_key(prefix: &str, key: &str, name: &SnapshotName) -> bool {
    let named = snapshot_name(prefix, key, &[VARIABLES_SUFFIX]);
    named.or_else(|| variables_owner(prefix, key)).as_ref() == Some(name)
}
