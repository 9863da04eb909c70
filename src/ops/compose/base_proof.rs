//! Proves that the bucket has the base's bytes. Only proven bytes are copied: a wrong guess would be a corrupt disk.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{BlockSet, Digest, FileStamp, Manifest, Object, Result};

use super::disk_chain::DiskChain;
use crate::context::Context;
use crate::hash_blocks::hash_local_blocks;
use crate::remote_object::is_unchanged;
use crate::sandbox_disk::SandboxDisk;

/// An object with exactly the bytes of the base's file.
pub(super) struct BaseProof {
    pub object: Object,
    /// Digests of its blocks.
    pub blocks: Vec<Digest>,
    pub reason: &'static str,
}

/// Returns the manifest of the base's file, or why the file's content is not known.
///
/// The file has the content of its manifest if its stamp is the recorded one, else if its blocks are: they are hashed
/// with `ctx`, and the new stamp is recorded.
///
/// # Errors
/// Those of the host.
pub(super) async fn known_base(
    host: &Host,
    source: &SandboxDisk,
    chain: &DiskChain,
    ctx: Option<&Context>,
) -> Result<Result<Manifest, String>> {
    let Some(name) = source.base() else {
        return Ok(Err(format!("it is not a snapshot of host {}", host.name())));
    };
    let manifest = host.snapshots().recorded_manifest(name).await?;
    let stamp = chain.base_stamp();
    let damage = host.snapshots().damage(name).await?;
    let is_usable = |local: &Manifest, stamp: FileStamp| {
        local.size_bytes == stamp.size_bytes
            && local.file.is_some()
            && !damage.as_ref().is_some_and(|damage| damage.is_of(stamp))
    };
    let Some((local, stamp)) = manifest
        .zip(stamp)
        .filter(|(local, stamp)| is_usable(local, *stamp))
    else {
        return Ok(Err(format!(
            "{name} has no manifest of its own on host {}, so its blocks are unknown",
            host.name()
        )));
    };
    if !local.matches_file(stamp)
        && let Some(reason) = hash_again(host, &local, stamp, ctx).await?
    {
        return Ok(Err(reason));
    }
    Ok(Ok(local))
}

/// Returns the object that has the bytes of a base with the manifest `local`, or why that is not proven.
///
/// It has them if its own manifest has the same digests, or if it has no manifest and its strong entity tag is that of the
/// object the base was downloaded from.
///
/// # Errors
/// Those of the store.
pub(super) async fn prove_base(
    bucket: &Bucket,
    local: &Manifest,
) -> Result<Result<BaseProof, String>> {
    let name = &local.name;
    let Some(object) = bucket.inspect(name).await? else {
        return Ok(Err(format!("{name} is not in {}", bucket.location())));
    };
    if let Some(problem) = &object.problem {
        return Ok(Err(format!("{} cannot be used: {problem}", object.key)));
    }
    let reason = match bucket.manifest(&object).await? {
        Some(remote) if remote.has_same_content(local) => "its manifest has the same digests",
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
        blocks: local.blocks.clone(),
        reason,
    }))
}

/// Hashes a base whose file was changed since its manifest was written: its content, or only its owner. Returns why it
/// is not proven to be unchanged, if it is not.
async fn hash_again(
    host: &Host,
    local: &Manifest,
    stamp: FileStamp,
    ctx: Option<&Context>,
) -> Result<Option<String>> {
    let (name, path) = (&local.name, host.snapshot_path(&local.name));
    let Some(ctx) = ctx else {
        return Ok(Some(format!(
            "the file of {name} was changed: the push hashes it first"
        )));
    };
    ctx.info(format!(
        "{path} was changed since it was verified: hashing it"
    ));
    let all = BlockSet::all(local.size_bytes);
    let digests = hash_local_blocks(host, &path, &all, ctx).await?;
    let current = host.fs().image_file(&path).await?;
    let is_unchanged = current.is_some_and(|current| current.stamp == stamp)
        && digests.into_values().eq(local.blocks.iter().copied());
    if !is_unchanged {
        return Ok(Some(format!(
            "the blocks of {name} on host {} are not those of its manifest",
            host.name()
        )));
    }
    let mut manifest = local.clone();
    manifest.file = Some(stamp);
    host.snapshots().write_manifest(manifest).await?;
    Ok(None)
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
