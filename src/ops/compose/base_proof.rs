//! Does the bucket hold the base's bytes? Only what is proven is copied: a wrong guess would be a wrong disk.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Digest, Object, Result};

use super::disk_chain::DiskChain;
use crate::sandbox_disk::SandboxDisk;

/// An object with the very bytes of the base's file.
pub(super) struct BaseProof {
    pub object: Object,
    /// Digests of its blocks.
    pub blocks: Vec<Digest>,
    /// In words.
    pub reason: &'static str,
}

/// Looks for the object; in words why there is none that is proven.
///
/// The base's file is what its manifest says while its stamp is the recorded one. The object has these bytes where it
/// is the one they were fetched from, by its strong entity tag, or where its own manifest has the same digests; and
/// not where that has others.
///
/// # Errors
/// The host's and the store's.
pub(super) async fn prove_base(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    layers: &DiskChain,
) -> Result<Result<BaseProof, String>> {
    let Some(name) = source.base() else {
        return Ok(Err(format!("it is not a snapshot of host {}", host.name())));
    };
    let local = host.snapshots().manifest(name).await?;
    let Some(local) = local.filter(|local| {
        layers
            .base_stamp()
            .is_some_and(|stamp| local.matches_file(stamp))
    }) else {
        return Ok(Err(format!(
            "{name} has no manifest of its own on host {}, so its blocks are unknown",
            host.name()
        )));
    };
    let Some(object) = bucket.head(name).await? else {
        return Ok(Err(format!("{name} is not in {}", bucket.location())));
    };
    let theirs = bucket.manifest(&object).await?;
    let why = match theirs {
        Some(theirs) if theirs.has_same_content(&local) => "its manifest has the same digests",
        Some(_) => {
            return Ok(Err(format!(
                "the manifest of {} has other digests",
                object.key
            )));
        }
        None if local.matches_object(&object) => "the base was downloaded from it",
        None => return Ok(Err(format!("{} is a different image", object.key))),
    };
    Ok(Ok(BaseProof {
        object,
        blocks: local.blocks,
        reason: why,
    }))
}

impl BaseProof {
    /// Is the object still the same? Not every store heeds a condition on what it copies.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn is_still_valid(&self, bucket: &Bucket) -> Result<bool> {
        let now = bucket.head(&self.object.name).await?;
        Ok(now.is_some_and(|now| {
            now.etag == self.object.etag && now.size_bytes == self.object.size_bytes
        }))
    }
}
