//! Verify: all blocks of a snapshot or an object are read and compared with its manifest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use snapdeck_bucket::Bucket;
use snapdeck_host::{Host, ImageFile, StoredManifest};
use snapdeck_model::{
    BlockSet, Damage, Digest, Error, FileStamp, Kind, Manifest, Outcome, Phase, Result,
    SnapshotName,
};

use crate::adopt::{adopt_file, wait_for_clock};
use crate::context::Context;
use crate::dependents::has_dependent_images;
use crate::fetch::FetchHandle;
use crate::hash_blocks::{bad_blocks_text, hash_block_data, hash_local_blocks};
use crate::image_source::ImageSource;
use crate::install::install_snapshot;
use crate::job::PullJob;
use crate::remote_object::RemoteObject;
use crate::repair::repair_in_place;
use crate::replace::{ExistingCopy, is_same_image};
use crate::standalone_image::{header_facts, refuse_unusable};
use crate::variables::{SourceVariables, find_local_problem};
use crate::variables_change::VariablesChange;

/// Verifies a snapshot on its host, and repairs it with `repair`.
///
/// A snapshot without a manifest is compared with that of the object of the same name and length; without either, only
/// its structure is checked, and it is adopted. Damage is recorded beside the snapshot until it is repaired.
///
/// # Errors
/// `Damaged`, which names the bad blocks, unless they were repaired; `NotFound` without such a snapshot; with `repair`
/// `Conflict` if sandboxes that are not stopped are based on it, or the object is another image.
pub async fn verify_snapshot(
    host: &Host,
    bucket: &Bucket,
    name: &SnapshotName,
    repair: bool,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let path = host.snapshot_path(name);
    let file = find_image(host, name).await?;
    let outcome = |has_manifest, repaired_blocks, fetched_bytes, size_bytes| Outcome::Verified {
        snapshot_name: name.clone(),
        host: Some(host.name().clone()),
        size_bytes,
        has_manifest,
        repaired_blocks,
        fetched_bytes,
    };
    let Some((stored, is_own)) = find_manifest(host, bucket, name, &file, ctx).await? else {
        ctx.warn(format!(
            "{name} on host {} has no manifest: only its structure is checked",
            host.name()
        ));
        ctx.enter_phase(Phase::Verifying)?;
        refuse_unusable(&file, &path)?;
        if let Some(warning) = host
            .images()
            .check(&path, file.allocated_bytes, &ctx.cancel)
            .await?
        {
            ctx.warn(warning);
        }
        // From now on its blocks can be checked.
        match Box::pin(adopt_file(host, name, ctx)).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::Unreachable) => {
                return Err(error);
            }
            Err(error) => ctx.warn(format!("{}; it still has no manifest", error.message())),
        }
        return Ok(outcome(false, Vec::new(), 0, file.size_bytes));
    };
    let StoredManifest {
        mut manifest,
        is_verified,
    } = stored;
    wait_for_clock(file.stamp, ctx).await?;
    let all = BlockSet::all(manifest.size_bytes);
    let mut good = hash_local_blocks(host, (&path, Some(file.stamp)), &all, ctx).await?;
    if find_image(host, name).await?.stamp != file.stamp {
        return Err(Error::new(
            Kind::Failed,
            format!("{path} on host {} changed while it was read", host.name()),
        )
        .hint("retry while nothing writes to it"));
    }
    good.retain(|block, digest| manifest.blocks.get(*block as usize) == Some(digest));
    let bad = BlockSet::from_predicate(manifest.size_bytes, |block| !good.contains_key(&block));
    if bad.is_empty() && file.size_bytes == manifest.size_bytes {
        // The object has the same bytes: its image was damaged before it was pushed.
        refuse_unusable(&file, &path)?;
        if let Some(problem) = find_local_problem(host, name, manifest.variables).await? {
            return Err(Error::new(
                Kind::Damaged,
                format!("{name} on host {} is damaged", host.name()),
            )
            .with_cause(problem)
            .hint(format!("run `snapdeck pull {name}` to complete it")));
        }
        if !is_verified {
            manifest.file = Some(file.stamp);
            if !is_own {
                // Its blocks were read.
                manifest.proof = None;
            }
            match host.snapshots().write_manifest(manifest).await {
                // Another program's file is in its place.
                Err(error) if error.kind() == Kind::Conflict => ctx.warn(error.to_string()),
                written => written?,
            }
        }
        host.snapshots().record_damage(name, None).await?;
        return Ok(outcome(true, Vec::new(), 0, file.size_bytes));
    }
    if !is_own {
        return Err(unproven_error(host, bucket, name, &bad));
    }
    let problem = describe_damage(&bad, file.size_bytes);
    let damage = Damage {
        file: file.stamp,
        replacement: None,
        is_repairing: false,
        problem: problem.clone(),
    };
    host.snapshots().record_damage(name, Some(&damage)).await?;
    let error = Error::new(
        Kind::Damaged,
        format!("{name} on host {} is damaged", host.name()),
    )
    .with_cause(problem);
    if !repair {
        return Err(error.hint(format!(
            "run `snapdeck verify {name} --repair` to download them again"
        )));
    }
    ctx.warn(error.message());
    let fetched_bytes = repair_snapshot(host, bucket, &manifest, file.stamp, good, ctx).await?;
    let repaired_blocks = bad.iter().collect();
    Ok(outcome(
        true,
        repaired_blocks,
        fetched_bytes,
        manifest.size_bytes,
    ))
}

/// Returns the file of a snapshot.
///
/// # Errors
/// `NotFound`; those of the host.
pub(crate) async fn find_image(host: &Host, name: &SnapshotName) -> Result<ImageFile> {
    let file = host.fs().image_file(&host.snapshot_path(name)).await?;
    file.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("{name} is not on host {}", host.name()),
        )
        .hint("list snapshots with `snapdeck snapshots`")
    })
}

/// Returns the manifest beside the file, and true; else that of the object if it has the same length, and false.
async fn find_manifest(
    host: &Host,
    bucket: &Bucket,
    name: &SnapshotName,
    file: &ImageFile,
    ctx: &Context,
) -> Result<Option<(StoredManifest, bool)>> {
    let stored = host.snapshots().stored_manifest(name).await?;
    if stored.is_some() || !bucket.is_configured() {
        return Ok(stored.map(|stored| (stored, true)));
    }
    let manifest = match RemoteObject::find(bucket, name, ctx).await {
        Ok(source) => source.manifest,
        Err(error) => {
            ctx.info(error.to_string());
            None
        }
    };
    // Digests that are the word of a host say nothing of the object, whose entity tag the manifest beside the file would have.
    let manifest = manifest
        .filter(|manifest| manifest.size_bytes == file.size_bytes && manifest.claimed.is_none());
    let unverified = |manifest| StoredManifest {
        manifest,
        is_verified: false,
    };
    Ok(manifest.map(|manifest| (unverified(manifest), false)))
}

/// Fails because the snapshot, which has no manifest of its own, is not the object: nothing shows which of both is wrong.
fn unproven_error(host: &Host, bucket: &Bucket, name: &SnapshotName, bad: &BlockSet) -> Error {
    Error::new(
        Kind::Conflict,
        format!("cannot verify {name} on host {}", host.name()),
    )
    .with_cause(format!(
        "it has no manifest of its own and differs from {}: it is damaged or another image ({})",
        bucket.key(name),
        bad_blocks_text(bad)
    ))
    .hint("run `snapdeck pull --overwrite` to replace it with the object")
}

/// Describes bad blocks, and a length that is not that of the manifest.
fn describe_damage(bad: &BlockSet, size_bytes: u64) -> String {
    let mut problems = Vec::new();
    if size_bytes != bad.size_bytes() {
        // Exact, since a few bytes may make the difference.
        problems.push(format!(
            "it has {size_bytes} bytes, its manifest says {}",
            bad.size_bytes()
        ));
    }
    if !bad.is_empty() {
        problems.push(bad_blocks_text(bad));
    }
    problems.join("; ")
}

/// Repairs a damaged snapshot; returns how many bytes were downloaded.
async fn repair_snapshot(
    host: &Host,
    bucket: &Bucket,
    manifest: &Manifest,
    file: FileStamp,
    good: BTreeMap<u64, Digest>,
    ctx: &Context,
) -> Result<u64> {
    let name = &manifest.name;
    let source = RemoteObject::find(bucket, name, ctx).await?;
    source.refuse_incomplete()?;
    let source = Arc::new(source.with_digests_of(Some(manifest)));
    if !is_same_image(manifest, &source) {
        return Err(Error::new(
            Kind::Conflict,
            format!("cannot repair {name} on host {}", host.name()),
        )
        .with_cause(format!(
            "{} has no manifest or is a different image",
            source.object.key
        ))
        .hint("run `snapdeck pull --overwrite` to replace the snapshot with it"));
    }
    let inventory = ctx.sharing.scan(host).await?;
    let existing = ExistingCopy::DamagedSameImage(file);
    existing.refuse_if_in_use(host, &inventory, name)?;
    let job = PullJob {
        host,
        from: &ImageSource::Bucket(bucket.clone()),
        source: &source,
        overwrite: false,
        ctx,
    };
    let handle = FetchHandle::single();
    let variables = (&VariablesChange::Keep, manifest.variables);
    let can_repair_in_place = has_dependent_images(&inventory, name)
        && source.manifest.is_some()
        && file.size_bytes == manifest.size_bytes;
    let progress = match can_repair_in_place {
        true => repair_in_place(job, file, Some(good), manifest.variables, handle).await?,
        false => install_snapshot(job, existing, variables, handle).await?,
    };
    Ok(progress.fetched_bytes)
}

/// Verifies an object: downloads it and keeps nothing.
///
/// # Errors
/// `Damaged`, which names the bad blocks; `NotFound`; those of the bucket.
pub async fn verify_object(bucket: &Bucket, name: &SnapshotName, ctx: &Context) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let source = RemoteObject::find(bucket, name, ctx).await?;
    source.refuse_incomplete()?;
    // Compares them with their digest.
    SourceVariables::fetch(bucket, &source, ctx).await?;
    let size_bytes = source.object.size_bytes;
    let has_manifest = source.manifest.is_some();
    if !has_manifest {
        ctx.warn(format!(
            "{} has no manifest: it is read, but its blocks cannot be checked; `snapdeck adopt {name} --bucket` records \
             them",
            source.object.key
        ));
    }
    let mut bad = BlockSet::all(size_bytes);
    let header = Mutex::new(Ok(()));
    // A bad block is downloaded once more: the download may have damaged it.
    for _ in 0..2 {
        bad = find_bad_blocks(bucket, &source, &bad, &header, ctx).await?;
        if bad.is_empty() {
            let header = header.into_inner().unwrap_or_else(PoisonError::into_inner);
            header.map_err(|reason| {
                Error::new(Kind::Damaged, format!("{} is damaged", source.object.key))
                    .with_cause(reason)
                    .hint("push it again from a sound disk")
            })?;
            return Ok(Outcome::Verified {
                snapshot_name: name.clone(),
                host: None,
                size_bytes,
                has_manifest,
                repaired_blocks: Vec::new(),
                fetched_bytes: size_bytes,
            });
        }
    }
    Err(
        Error::new(Kind::Damaged, format!("{} is damaged", source.object.key))
            .with_cause(bad_blocks_text(&bad))
            .hint("push it again from a host that has it"),
    )
}

/// Downloads `blocks` and returns those that do not match the manifest; `header` becomes the check of the image's header.
async fn find_bad_blocks(
    bucket: &Bucket,
    source: &RemoteObject,
    blocks: &BlockSet,
    header: &Mutex<Result<(), String>>,
    ctx: &Context,
) -> Result<BlockSet> {
    let bad = Mutex::new(BlockSet::none(source.object.size_bytes));
    let check = |block: u64, data: Bytes| {
        let (expected, bad) = (source.digest(block), &bad);
        async move {
            if block == 0 {
                *header.lock().unwrap_or_else(PoisonError::into_inner) =
                    header_facts(&data).map(|_| ());
            }
            let digest = hash_block_data(data).await?;
            if expected.is_some_and(|expected| expected != digest) {
                bad.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(block);
            }
            Ok(())
        }
    };
    bucket
        .download(&source.object, blocks, check, &ctx.progress, &ctx.cancel)
        .await?;
    Ok(bad.into_inner().unwrap_or_else(PoisonError::into_inner))
}
