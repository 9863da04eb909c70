//! Adopt an object that another program uploaded: it is read once, and its digests are recorded in the bucket.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use snapdeck_bucket::Bucket;
use snapdeck_model::{
    BlockSet, ContentProof, Digest, Error, Kind, Manifest, Outcome, Phase, Result, SnapshotName,
    block_count,
};

use crate::context::Context;
use crate::hash_blocks::hash_block_data;
use crate::remote_object::RemoteObject;
use crate::standalone_image::header_facts;

/// Records the digests of an object that has no manifest, or one whose kind of proof the settings do not trust. The object
/// is downloaded and not kept.
///
/// # Errors
/// `NotFound`; `Damaged` if it is not a standalone qcow2 image, or a push of it was interrupted; `Conflict` if it is
/// replaced meanwhile, or another program's object is in the place of the manifest; those of the bucket.
pub async fn adopt_object(bucket: &Bucket, name: &SnapshotName, ctx: &Context) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let source = RemoteObject::find(bucket, name, ctx).await?;
    source.refuse_incomplete()?;
    let object = &source.object;
    let outcome = |hashed_bytes, changed| Outcome::Adopted {
        snapshot_name: name.clone(),
        host: None,
        size_bytes: object.size_bytes,
        hashed_bytes,
        changed,
    };
    if let Some(manifest) = &source.manifest
        && (manifest.proof).is_none_or(|proof| bucket.trusted_checksums().accepts(proof))
        && manifest.claimed.is_none()
    {
        return Ok(outcome(0, false));
    }
    bucket.refuse_foreign_manifest(name).await?;
    if (object.etag.as_deref()).is_none_or(|etag| etag.is_empty() || etag.starts_with("W/")) {
        return Err(
            Error::new(Kind::Failed, format!("cannot adopt {}", object.key))
                .with_cause("the store gives it no strong entity tag, which a manifest needs"),
        );
    }
    let (digests, virtual_size) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
    let hash = |block: u64, data: Bytes| {
        let (digests, virtual_size) = (&digests, &virtual_size);
        async move {
            if block == 0 {
                let facts = header_facts(&data).map_err(|reason| {
                    Error::new(Kind::Damaged, format!("cannot adopt {}", object.key))
                        .with_cause(reason)
                        .hint("only standalone qcow2 images can be snapshots")
                })?;
                let mut size = virtual_size.lock().unwrap_or_else(PoisonError::into_inner);
                *size = Some(facts.virtual_size);
            }
            let digest = hash_block_data(data).await?;
            let mut digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
            digests.insert(block, digest);
            Ok(())
        }
    };
    let all = BlockSet::all(object.size_bytes);
    bucket
        .download(object, &all, hash, &ctx.progress, &ctx.cancel)
        .await?;
    let digests: BTreeMap<u64, Digest> =
        digests.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !digests
        .keys()
        .copied()
        .eq(0..block_count(object.size_bytes))
    {
        return Err(Error::new(
            Kind::Failed,
            format!("cannot read all blocks of {}", object.key),
        ));
    }
    ctx.enter_phase(Phase::Checking)?;
    let blocks = digests.into_values().collect();
    // Of a manifest by another proof, all but its digests stays.
    let new = || Manifest::new(name.clone(), object.size_bytes, Vec::new());
    let mut manifest = source.manifest.clone().unwrap_or_else(new);
    manifest.blocks = blocks;
    manifest.virtual_size = virtual_size
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    manifest.etag = object.etag.clone();
    manifest.proof = Some(ContentProof::Read);
    manifest.claimed = None;
    bucket.write_manifest(&manifest).await?;
    ctx.info(format!("recorded the digests of {}", object.key));
    Ok(outcome(object.size_bytes, true))
}
