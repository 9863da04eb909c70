//! Upload: a snapshot that a host has becomes an object of the same name.
//!
//! The bytes are sent as they are: parts that the bucket provably has are copied by the store, blocks of zeros are not read.
//! Nothing is published unless the file is the same before and after, and each block has the digest of its manifest.

use std::collections::{BTreeMap, HashSet};

use humansize::{BINARY, format_size};
use jiff::Timestamp;

use snapdeck_bucket::{Bucket, MultipartObject, PartSources, UploadSource, UploadStart, part_size};
use snapdeck_host::Host;
use snapdeck_model::{
    AnnotationsPatch, BLOCK_BYTES, Digest, Error, ExpectedVariables, Kind, Manifest, Object,
    Outcome, Phase, Result, SnapshotName,
};

use crate::adopt::wait_for_clock;
use crate::block_index::BlockIndex;
use crate::context::Context;
use crate::create_object::write_object_manifest;
use crate::direct_upload::DirectUpload;
use crate::local_snapshot::LocalSnapshot;
use crate::publish_object::publish_image;
use crate::request::SnapshotRequest;
use crate::send_parts::{PartSender, SentParts};
use crate::transfer_plan::find_copy_sources;
use crate::variables::snapshot_parts;

/// Uploads the snapshot `name` of `host` with its UEFI variables, lineage and annotations.
///
/// # Errors
/// `NotFound` without such a snapshot; `Conflict` if the object exists and may not be overwritten, or is pinned, if a
/// process writes the file, or it changes meanwhile; `Damaged` if it is not a sound standalone image, or not what its
/// manifest says; those of host and bucket. The object of that name is unchanged then, unless the error says otherwise.
pub async fn upload_snapshot(
    host: &Host,
    bucket: &Bucket,
    name: &SnapshotName,
    overwrite: bool,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let request = SnapshotRequest::new(name, overwrite, false);
    let check = async {
        request.refuse_existing(bucket).await?;
        LocalSnapshot::find(host, name, "upload", ctx).await
    };
    let mut source = ctx.until_cancelled(Box::pin(check)).await?;
    refuse_missing_variables(bucket, &source, &request).await?;
    let related = related_names(host, name, source.manifest.as_ref()).await;
    let stored = BlockIndex::read(host, bucket, (&related, source.digests()), ctx);
    let stored = Box::pin(stored).await?;
    let is_sparse = source.file.allocated_bytes + BLOCK_BYTES < source.size_bytes();
    if !stored.is_empty() || is_sparse {
        // On the host, where it costs less than sending what need not be sent.
        source.hash_blocks(ctx).await?;
    }
    if source.manifest.is_none() {
        // Only the stamp shows a change.
        wait_for_clock(source.file.stamp, ctx).await?;
    }
    ctx.check_cancelled()?;

    let send = send(host, bucket, &mut source, &request, &stored, ctx);
    let (object, sent) = Box::pin(send).await?;
    let size = |bytes| format_size(bytes, BINARY);
    ctx.info(match sent.copied_bytes {
        0 => format!("{} uploaded", size(sent.uploaded_bytes)),
        copied => format!(
            "{} uploaded, {} copied in the store",
            size(sent.uploaded_bytes),
            size(copied)
        ),
    });
    let mut manifest = match source.manifest.take() {
        Some(manifest) => manifest,
        None => source.new_manifest(sent.digests),
    };
    let facts = source.file.facts.as_ref().ok();
    manifest.virtual_size = facts.map(|facts| facts.virtual_size);
    manifest.variables = Some(snapshot_parts(source.variables.as_ref()).variables);
    manifest.etag = object.etag.clone();
    // A host's word: one of the future would be the newest for every prune.
    manifest.created = manifest.created.min(Some(Timestamp::now()));
    manifest.different_object = None;
    manifest.file = None;
    // Its blocks were read, or copied from an object with the same digests.
    let proof = manifest.proof.take();
    manifest.claimed = sent.is_claimed.then(|| host.claim());
    write_object_manifest(bucket, &object, &manifest, "upload").await?;
    if manifest.pinned {
        // A manifest alone pins nothing: pins belong to their place.
        let pin = AnnotationsPatch::with_pinned(true);
        if let Err(error) = bucket.annotate(&object, &pin).await {
            ctx.warn(format!("{error}; {} is not pinned", object.key));
        }
    }
    manifest.file = Some(source.file.stamp);
    manifest.proof = proof;
    manifest.claimed = None;
    // The snapshot is complete without it.
    if let Err(error) = host.snapshots().write_manifest(manifest).await {
        ctx.warn(error.to_string());
    }
    Ok(Outcome::Uploaded {
        snapshot_name: name.clone(),
        snapshot_path: object.key,
        size_bytes: object.size_bytes,
        host: host.name().clone(),
        uploaded_bytes: sent.uploaded_bytes,
        copied_bytes: sent.copied_bytes,
    })
}

/// Returns the names of the snapshots that most likely have blocks of the snapshot `name`: itself, its parents, and the other
/// snapshots of the host that have some, closest relatives first.
async fn related_names(
    host: &Host,
    name: &SnapshotName,
    manifest: Option<&Manifest>,
) -> Vec<SnapshotName> {
    let mut names = vec![name.clone()];
    let Some(manifest) = manifest else {
        return names;
    };
    names.extend(manifest.parent.as_ref().map(|parent| parent.name.clone()));
    let blocks: HashSet<&Digest> = manifest.blocks.iter().collect();
    // Without them more is sent.
    let others = find_copy_sources(host, manifest).await.unwrap_or_default();
    for (_, other) in others {
        if !names.contains(&other.name) && other.blocks.iter().any(|block| blocks.contains(block)) {
            names.push(other.name);
        }
    }
    names
}

/// Sends the image and publishes it.
async fn send(
    host: &Host,
    bucket: &Bucket,
    source: &mut LocalSnapshot<'_>,
    request: &SnapshotRequest,
    stored: &BlockIndex,
    ctx: &Context,
) -> Result<(Object, SentParts)> {
    let size_bytes = source.size_bytes();
    let new_bucket = bucket.with_parts(snapshot_parts(source.variables.as_ref()));
    let copies = match source.digests() {
        Some(digests) => stored.find_parts(digests, size_bytes, part_size(size_bytes)),
        None => BTreeMap::new(),
    };
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for part in copies.values() {
        *counts.entry(part.object).or_default() += 1;
    }
    for (number, count) in counts {
        if let Some(object) = stored.object(number) {
            let key = &object.key;
            ctx.info(format!("copying {count} parts of {key} in the store"));
        }
    }
    let reader = host.fs().open_reader(&source.path).await?;
    if !reader.is_of(&source.file) {
        // Another file had its name just now, and may give it back.
        return Err(source.changed_error(&source.path));
    }
    if reader.size_bytes() != size_bytes {
        // The stamp says so, too.
        source.check_unchanged(&[], ctx).await?;
    }
    let (name, overwrite) = (&request.name, request.overwrite);
    let (progress, cancel) = (&ctx.progress, &ctx.cancel);
    let is_direct =
        DirectUpload::is_possible(host, &reader) && !DirectUpload::is_known_to_fail(host, ctx);
    let sources = match copies.is_empty() {
        _ if is_direct => PartSources::Host,
        true => PartSources::Sent,
        false => PartSources::Copied,
    };
    let options = (overwrite, sources);
    let upload_source = UploadSource {
        host: host.name().clone(),
        path: source.path.clone(),
        stamp: source.file.stamp,
    };
    let multipart =
        new_bucket.continue_multipart(name, size_bytes, options, upload_source, progress, cancel);
    let multipart = Box::pin(multipart).await?;
    log_start(&multipart, size_bytes, ctx);
    let result = async {
        let direct = is_direct.then(|| DirectUpload::new(host, &multipart, ctx));
        let reader = (reader, direct);
        let sender = PartSender::new(bucket, &multipart, reader, source, stored, copies);
        let sent = multipart.run_with_progress(sender.send()).await?;
        source.check_unchanged(&sent.digests, ctx).await?;
        source.refuse_bad_blocks(&sent.digests)?;
        Ok::<_, Error>(sent)
    };
    let sent = match Box::pin(result).await {
        Ok(sent) => sent,
        Err(error) => {
            if multipart.keep_or_abort(&error).await {
                ctx.warn(
                    "the store keeps the sent parts: upload it again within 7 days to continue",
                );
            }
            return Err(error);
        }
    };
    if let Some(reason) = multipart.copy_error() {
        ctx.info(format!("uploaded what the store did not copy: {reason}"));
    }
    let variables = source.variables.as_ref();
    let publish = publish_image(bucket, request, ctx, multipart, variables);
    let object = Box::pin(publish).await?;
    Ok((object, sent))
}

/// Logs what is left of an interrupted upload.
fn log_start(multipart: &MultipartObject<'_>, size_bytes: u64, ctx: &Context) {
    match multipart.start() {
        UploadStart::New => {}
        UploadStart::Continued(kept) => {
            let count = size_bytes.div_ceil(multipart.part_bytes());
            let (kept, key) = (kept.len(), multipart.key());
            ctx.info(format!(
                "continuing an upload of {key}: {kept} of {count} parts are there"
            ));
        }
        UploadStart::Restarted(reason) => ctx.info(format!(
            "removed an interrupted upload of {}: {reason}; uploading all parts",
            multipart.key()
        )),
    }
}

/// Fails if the object that is overwritten has UEFI variables, and the snapshot has none although nothing says that it needs
/// none: a snapshot that booted would be replaced by one that does not.
///
/// # Errors
/// `Conflict`; those of the bucket.
async fn refuse_missing_variables(
    bucket: &Bucket,
    source: &LocalSnapshot<'_>,
    request: &SnapshotRequest,
) -> Result<()> {
    let manifest = source.manifest.as_ref();
    let is_known = manifest.is_some_and(|manifest| manifest.variables.is_some());
    if !request.overwrite || is_known || source.variables.is_some() {
        return Ok(());
    }
    let Some(replaced) = bucket.find(&request.name).await? else {
        return Ok(());
    };
    let has_variables = match replaced.parts {
        Some(parts) => parts.variables != ExpectedVariables::Absent,
        None => bucket.variables().head(&request.name).await?.is_some(),
    };
    if !has_variables {
        return Ok(());
    }
    Err(Error::new(
        Kind::Conflict,
        format!("cannot overwrite {}", replaced.object.key),
    )
    .with_cause(format!(
        "it has UEFI variables, and {} has none",
        source.path
    ))
    .hint("put its UEFI variables beside the snapshot, or remove the object first"))
}
