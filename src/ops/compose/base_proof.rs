//! Proves that the bucket has the base's bytes. Only proven bytes are copied: a wrong guess would be a corrupt disk.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Digest, Object, Result};

use super::disk_chain::DiskChain;
use crate::remote_object::is_unchanged;
use crate::sandbox_disk::SandboxDisk;

/// An object with exactly the bytes of the base's file.
pub(super) struct BaseProof {
    pub object: Object,
    /// Digests of its blocks.
    pub blocks: Vec<Digest>,
    pub reason: &'static str,
}

/// Returns the object that has the base's bytes, or why that is not proven.
///
/// The base's file has the content of its manifest if its stamp is the recorded one. The object has the same content
/// if its own manifest has the same digests, or if it has no manifest and its strong entity tag is that of the object
/// the base was downloaded from.
///
/// # Errors
/// Those of host and store.
pub(super) async fn prove_base(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    chain: &DiskChain,
) -> Result<Result<BaseProof, String>> {
    let Some(name) = source.base() else {
        return Ok(Err(format!("it is not a snapshot of host {}", host.name())));
    };
    let manifest = host.snapshots().manifest(name).await?;
    let stamp = chain.base_stamp();
    let Some(local) = manifest.filter(|local| stamp.is_some_and(|stamp| local.matches_file(stamp)))
    else {
        return Ok(Err(format!(
            "{name} has no manifest of its own on host {}, so its blocks are unknown",
            host.name()
        )));
    };
    let Some(object) = bucket.inspect(name).await? else {
        return Ok(Err(format!("{name} is not in {}", bucket.location())));
    };
    if let Some(problem) = &object.problem {
        return Ok(Err(format!("{} cannot be used: {problem}", object.key)));
    }
    let reason = match bucket.manifest(&object).await? {
        Some(remote) if remote.has_same_content(&local) => "its manifest has the same digests",
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
        reason,
    }))
}

impl BaseProof {
    /// Returns whether the object is still the same; some stores ignore a condition on the source of a copy.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn is_still_valid(&self, bucket: &Bucket) -> Result<bool> {
        is_unchanged(bucket, &self.object).await
    }
}
