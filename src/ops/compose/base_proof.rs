//! Proves that the bucket has the base's bytes. Only proven bytes are copied: a wrong guess would be a corrupt disk.

use humansize::{BINARY, format_size};

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{
    BlockSet, ContentProof, Digest, FileStamp, Kind, Manifest, Object, Phase, Result, SnapshotName,
};

use super::disk_chain::DiskChain;
use crate::adopt::{adopt_unlocked_file, wait_for_clock};
use crate::context::Context;
use crate::hash_blocks::hash_local_blocks;
use crate::object_proof::{ObjectProof, adopt_proven, prove_object};
use crate::remote_object::is_unchanged;
use crate::sandbox_disk::SandboxDisk;

/// An object with exactly the bytes of the base's file.
pub(super) struct BaseProof {
    pub object: Object,
    /// Digests of its blocks.
    pub blocks: Vec<Digest>,
    /// Whether these are only the word of the host.
    pub is_claimed: bool,
    pub reason: &'static str,
}

/// Returns the manifest of the base's file, with the stamp that the file has now, or why the file's content is not known.
///
/// A base without a manifest is adopted first, with `ctx`. The file has the content of its manifest if its stamp is the
/// recorded one, else if its blocks are: they are hashed with `ctx`, and the new stamp is recorded.
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
    let Some(stamp) = chain.base_stamp() else {
        return Ok(Err(format!("{name} is not on host {}", host.name())));
    };
    let mut local = match Box::pin(find_digests(host, name, stamp, ctx)).await? {
        Ok(local) => local,
        Err(reason) => return Ok(Err(reason)),
    };
    if !local.matches_file(stamp) {
        if let Some(reason) = hash_again(host, &local, stamp, ctx).await? {
            return Ok(Err(reason));
        }
        local.file = Some(stamp);
    }
    Ok(Ok(local))
}

/// Returns the object that has the bytes of a base with the manifest `local`, or why that is not proven.
///
/// The object has the same content if its own manifest has the same digests, or if it has no manifest and its strong entity
/// tag is that of the object the base was downloaded from, or the store's checksums of it are those of the base's file, which
/// `ctx` computes. The object itself is never read.
///
/// # Errors
/// Those of host and store.
pub(super) async fn prove_base(
    host: &Host,
    bucket: &Bucket,
    local: &Manifest,
    ctx: Option<&Context>,
) -> Result<Result<BaseProof, String>> {
    let name = &local.name;
    let Some(object) = bucket.inspect(name).await? else {
        return Ok(Err(format!("{name} is not in {}", bucket.location())));
    };
    if let Some(problem) = &object.problem {
        return Ok(Err(format!("{} cannot be used: {problem}", object.key)));
    }
    let remote = bucket.manifest(&object).await?;
    let mut is_claimed = remote
        .as_ref()
        .is_none_or(|remote| remote.claimed.is_some());
    let known = match &remote {
        Some(remote) if !remote.has_same_content(local) => {
            return Ok(Err(format!(
                "the manifest of {} has other digests",
                object.key
            )));
        }
        Some(remote)
            if is_trusted(bucket, remote)
                && (remote.claimed.as_ref()).is_none_or(|claim| *claim == host.claim()) =>
        {
            Some("its manifest has the same digests")
        }
        None if local.matches_object(&object) => Some("the base was downloaded from it"),
        _ if object.size_bytes != local.size_bytes => {
            return Ok(Err(format!("{} is a different image", object.key)));
        }
        // The store's checksums may show it.
        _ => None,
    };
    let reason = match (known, ctx) {
        (Some(reason), _) => reason,
        (None, None) => {
            return Ok(Err(format!(
                "{} has no manifest: the push compares its checksums with {name} first",
                object.key
            )));
        }
        (None, Some(ctx)) => {
            // The manifest of a push says more than that of an adoption.
            let may_adopt = remote.is_none_or(|remote| remote.proof.is_some());
            let proving = prove_by_checksums(host, bucket, (&object, may_adopt), local, ctx);
            match Box::pin(proving).await? {
                Ok((reason, proof)) => {
                    is_claimed = !proof.has_digests;
                    reason
                }
                Err(reason) => return Ok(Err(reason)),
            }
        }
    };
    Ok(Ok(BaseProof {
        object,
        blocks: local.blocks.clone(),
        is_claimed,
        reason,
    }))
}

/// Returns whether the settings trust the digests in an object's manifest.
pub(crate) fn is_trusted(bucket: &Bucket, manifest: &Manifest) -> bool {
    (manifest.proof).is_none_or(|proof| bucket.trusted_checksums().accepts(proof))
}

/// Compares the store's checksums of `object` with those of the base's file, whose stamp is recorded in `local`; writes the
/// object's manifest. Returns why it is proven, or why not.
async fn prove_by_checksums(
    host: &Host,
    bucket: &Bucket,
    (object, may_adopt): (&Object, bool),
    local: &Manifest,
    ctx: &Context,
) -> Result<Result<(&'static str, ObjectProof), String>> {
    let proof = match Box::pin(prove_object(host, bucket, object, local, ctx)).await {
        // The file of the base, or the object, was changed meanwhile.
        Err(error) if error.kind() == Kind::Conflict => return Ok(Err(error.message())),
        Err(error) => return Err(error),
        Ok(Ok(proof)) => proof,
        Ok(Err(unproven)) => {
            if unproven.is_compared {
                // Not compared again by each push.
                let mut manifest = local.clone();
                manifest.different_object = object.etag.clone();
                if let Err(error) = host.snapshots().write_manifest(manifest).await {
                    ctx.warn(error.message());
                }
            }
            return Ok(Err(unproven.reason));
        }
    };
    ctx.enter_phase(Phase::Checking)?;
    let name = &local.name;
    let current = host.fs().image_file(&host.snapshot_path(name)).await?;
    if current.is_none_or(|current| !local.matches_file(current.stamp)) {
        return Ok(Err(format!(
            "{name} on host {} was changed meanwhile",
            host.name()
        )));
    }
    if may_adopt {
        adopt_proven(host, bucket, object, local, proof, ctx).await?;
    }
    let reason = match proof.kind {
        ContentProof::Sha256 => "its SHA-256 in the store is that of the base",
        ContentProof::Crc64Nvme => "its CRC64NVME in the store is that of the base",
        ContentProof::Md5 => "its MD5 in the store is that of the base",
        ContentProof::Read => "its blocks are those of the base",
    };
    Ok(Ok((reason, proof)))
}

/// Returns the manifest of the base's file, which may have been changed since; without one it is adopted. Returns why its
/// blocks are unknown, if they are.
async fn find_digests(
    host: &Host,
    name: &SnapshotName,
    stamp: FileStamp,
    ctx: Option<&Context>,
) -> Result<Result<Manifest, String>> {
    let snapshots = host.snapshots();
    if let Some(damage) = snapshots.damage(name).await?
        && damage.is_of(stamp)
    {
        let problem = damage.problem;
        return Ok(Err(format!(
            "{name} on host {} is damaged: {problem}",
            host.name()
        )));
    }
    let recorded = snapshots.recorded_manifest(name).await?;
    let is_usable = |manifest: &Manifest| {
        // An adopted image that was written since is another one.
        let is_other = manifest.proof.is_some() && !manifest.is_of_file(stamp);
        manifest.size_bytes == stamp.size_bytes && manifest.file.is_some() && !is_other
    };
    if let Some(manifest) = recorded.filter(is_usable) {
        return Ok(Ok(manifest));
    }
    if let Some(path) = snapshots.foreign_manifest(name).await? {
        return Ok(Err(format!(
            "{path} on host {} is not a manifest of snapdeck",
            host.name()
        )));
    }
    let Some(ctx) = ctx else {
        return Ok(Err(format!(
            "{name} has no manifest of its own on host {}: the push hashes it first, {}",
            host.name(),
            format_size(stamp.size_bytes, BINARY)
        )));
    };
    let adopted = match Box::pin(adopt_unlocked_file(host, name, ctx)).await {
        Ok(adopted) => adopted,
        Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::Unreachable) => {
            return Err(error);
        }
        // The push works without its digests.
        Err(error) => return Ok(Err(error.message())),
    };
    ctx.enter_phase(Phase::Checking)?;
    match adopted.manifest.matches_file(stamp) {
        true => Ok(Ok(adopted.manifest)),
        false => Ok(Err(format!(
            "{name} on host {} was changed meanwhile",
            host.name()
        ))),
    }
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
    wait_for_clock(stamp, ctx).await?;
    let all = BlockSet::all(local.size_bytes);
    let hashing = hash_local_blocks(host, (&path, Some(stamp)), &all, ctx);
    let digests = match hashing.await {
        // The push works without the base.
        Err(error) if error.kind() == Kind::Conflict => return Ok(Some(error.message())),
        digests => digests?,
    };
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
