//! Old versions that a bucket keeps of what was deleted.

use tokio_util::sync::CancellationToken;

use super::Bucket;
use snapdeck_model::{Error, Result, SnapshotName};

/// Old versions that were deleted, and one that was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreedVersions {
    /// Versions deleted.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Why the first one that was kept, and with it the older ones, were not deleted.
    pub kept: Option<String>,
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

    /// Deletes the old versions of a snapshot's image that the bucket keeps after its deletion.
    ///
    /// Those of an object that is not deleted stay. No marker of a deletion is deleted: an old version would be the object then.
    ///
    /// # Errors
    /// Those of the listing; `Cancelled`.
    pub async fn delete_versions(
        &self,
        name: &SnapshotName,
        cancel: &CancellationToken,
    ) -> Result<FreedVersions> {
        let store = self.store().await?;
        let mut freed = FreedVersions::default();
        let key = self.key(name);
        let listed = cancel.run_until_cancelled(store.old_versions(&key));
        let versions = listed
            .await
            .ok_or_else(|| Error::cancelled("the listing"))?;
        for version in versions? {
            let deleted = cancel.run_until_cancelled(store.delete_old_version(&version));
            match deleted
                .await
                .ok_or_else(|| Error::cancelled("the removal"))?
            {
                Ok(()) => {
                    freed.count += 1;
                    freed.bytes += version.size_bytes;
                }
                Err(failed) => {
                    let address = store.address(&version.key);
                    freed.kept = Some(match store.version_lock(&version).await {
                        Some(lock) => format!("an old version of {address} is locked: {lock}"),
                        None => format!(
                            "{}; check that the key pair has s3:DeleteObjectVersion",
                            failed.error
                        ),
                    });
                    break;
                }
            }
        }
        Ok(freed)
    }
}
