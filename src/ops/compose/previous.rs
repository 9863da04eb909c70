//! The image that was uploaded last of the sandbox: the next one is composed on it, and only what changed is sent.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Digest, Manifest, Result};
use snapdeck_qcow2::ComposedImage;

use super::base_proof::BaseProof;
use crate::push_cache::{PushCache, content_digest};
use crate::sandbox_disk::SandboxDisk;

/// The object that was uploaded last, and its state.
pub(super) struct Previous {
    pub proof: BaseProof,
    pub image: ComposedImage,
    /// Digests of the overlay's blocks at that time, if known.
    pub overlay: Option<Vec<Digest>>,
}

/// Returns the object that was uploaded last of the sandbox, or why nothing can be composed on it; `None` if none was.
///
/// `base` is the manifest of the sandbox's base, which the object must have been composed from.
///
/// # Errors
/// Those of the store.
pub(super) async fn find_previous(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    base: &Manifest,
    cache: &PushCache,
) -> Result<Option<Result<Previous, String>>> {
    let Some(pushed) = cache.read(host.name(), &source.facts.uuid).await else {
        return Ok(None);
    };
    let name = &pushed.manifest.name;
    if pushed.location != bucket.location() {
        return Ok(Some(Err(format!("{name} is in {}", pushed.location))));
    }
    if pushed.base != content_digest(base) {
        return Ok(Some(Err(format!("{name} was based on another image"))));
    }
    let Some(object) = bucket.inspect(name).await? else {
        return Ok(Some(Err(format!(
            "{name} is no longer in {}",
            bucket.location()
        ))));
    };
    if let Some(problem) = &object.problem {
        return Ok(Some(Err(format!(
            "{} cannot be used: {problem}",
            object.key
        ))));
    }
    if !pushed.manifest.matches_object(&object) {
        return Ok(Some(Err(format!("{} was replaced", object.key))));
    }
    let proof = BaseProof {
        object,
        is_claimed: pushed.manifest.claimed.is_some(),
        blocks: pushed.manifest.blocks,
        reason: "it is the last push of this sandbox",
    };
    Ok(Some(Ok(Previous {
        proof,
        image: pushed.image,
        overlay: pushed.overlay,
    })))
}
