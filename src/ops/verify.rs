//! Verify: a snapshot or an object is read again, and every block of it is checked against its manifest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use snapdeck_bucket::Bucket;
use snapdeck_host::{Host, ImageFile, StoredManifest, hash_block};
use snapdeck_model::{
    BlockSet, Damage, Digest, Error, Kind, Manifest, Outcome, Phase, Result, SandboxState,
    SnapshotName, block_count,
};

use crate::context::Context;
use crate::dependents;
use crate::fetch::{FetchHandle, RemoteObject};
use crate::hash_blocks::hash_local_blocks;
use crate::install::{ExistingCopy, find_object, install_snapshot, refuse_unusable};
use crate::repair::{has_dependent_images, repair_in_place};

/// Verifies a snapshot, on its host. One without a manifest of its own is held against that of the object of its name
/// and length; without either its structure alone is checked. What is bad is noted beside it until it is good again;
/// with `repair` it is made good.
///
/// # Errors
/// `Damaged`, naming the bad blocks, unless they were repaired; `NotFound` where there is no such snapshot; with
/// `repair` `Unsupported` where sandboxes that are not stopped stand on it, or the object is another image.
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
    let outcome = |by_manifest, repaired_blocks, fetched_bytes, size_bytes| Outcome::Verified {
        snapshot_name: name.clone(),
        host: Some(host.name().clone()),
        size_bytes,
        has_manifest: by_manifest,
        repaired_blocks,
        fetched_bytes,
    };
    let kept = host.snapshots().stored_manifest(name).await?;
    let Some(StoredManifest {
        manifest,
        is_verified: is_proven,
    }) = find_manifest(bucket, name, &file, kept, ctx).await
    else {
        ctx.warn(format!(
            "{name} on host {} has no manifest: only its structure is checked",
            host.name()
        ));
        ctx.enter_phase(Phase::Verifying)?;
        let checked = match refuse_unusable(&file, &path) {
            Ok(()) => host.images().check(&path, &ctx.cancel).await,
            Err(error) => Err(error),
        };
        if let Some(warning) = checked? {
            ctx.warn(warning);
        }
        return Ok(outcome(false, Vec::new(), 0, file.size_bytes));
    };
    let all = BlockSet::all(manifest.size_bytes);
    let mut good = hash_local_blocks(host, &path, &all, ctx).await?;
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
        if !is_proven {
            let mut proven = manifest;
            proven.file = Some(file.stamp);
            host.snapshots().write_manifest(proven).await?;
        }
        host.snapshots().record_damage(name, None).await?;
        return Ok(outcome(true, Vec::new(), 0, file.size_bytes));
    }
    let what = describe_damage(&bad, manifest.size_bytes, file.size_bytes);
    let damage = Damage {
        file: file.stamp,
        problem: what.clone(),
    };
    host.snapshots().record_damage(name, Some(&damage)).await?;
    let damaged = Error::new(
        Kind::Damaged,
        format!("{name} on host {} is damaged", host.name()),
    )
    .with_cause(what);
    if !repair {
        return Err(damaged.hint(format!(
            "run `snapdeck verify {name} --repair` to download them again"
        )));
    }
    ctx.warn(damaged.message());
    let (blocks, fetched) =
        repair_blocks(host, bucket, &manifest, file.size_bytes, good, ctx).await?;
    Ok(outcome(true, blocks, fetched, manifest.size_bytes))
}

async fn find_image(host: &Host, name: &SnapshotName) -> Result<ImageFile> {
    let file = host.fs().image_file(&host.snapshot_path(name)).await?;
    file.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("{name} is not on host {}", host.name()),
        )
        .hint("list snapshots with `snapdeck snapshots`")
    })
}

/// The manifest beside the file, else the one of the object, if that may be of the file.
async fn find_manifest(
    bucket: &Bucket,
    name: &SnapshotName,
    file: &ImageFile,
    kept: Option<StoredManifest>,
    ctx: &Context,
) -> Option<StoredManifest> {
    if kept.is_some() || !bucket.is_configured() {
        return kept;
    }
    match find_object(bucket, name, ctx).await {
        Ok(source) => Some(StoredManifest {
            manifest: source
                .manifest
                .filter(|manifest| manifest.size_bytes == file.size_bytes)?,
            is_verified: false,
        }),
        Err(error) => {
            ctx.info(error.to_string());
            None
        }
    }
}

fn describe_damage(bad: &BlockSet, wanted_bytes: u64, size_bytes: u64) -> String {
    let mut wrong = Vec::new();
    if size_bytes != wanted_bytes {
        wrong.push(format!(
            "it has {size_bytes} bytes, its manifest says {wanted_bytes}"
        ));
    }
    if !bad.is_empty() {
        wrong.push(format!(
            "{} of its {} blocks of 8 MiB do not match its manifest: {bad}",
            bad.len(),
            block_count(wanted_bytes)
        ));
    }
    wrong.join("; ")
}

/// Makes a damaged snapshot good; returns the blocks that were bad, and how many bytes were fetched.
async fn repair_blocks(
    host: &Host,
    bucket: &Bucket,
    manifest: &Manifest,
    size_bytes: u64,
    good: BTreeMap<u64, Digest>,
    ctx: &Context,
) -> Result<(Vec<u64>, u64)> {
    let name = &manifest.name;
    let source = Arc::new(find_object(bucket, name, ctx).await?);
    let is_same = |theirs: &Manifest| theirs.has_same_content(manifest);
    if !source.manifest.as_ref().is_some_and(is_same) {
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
    let survey = host.inventory().scan().await?;
    dependents::refuse_if_in_use(host, &survey, name, "repair", |state| {
        state != SandboxState::ShutOff
    })?;
    let bad = BlockSet::from_predicate(manifest.size_bytes, |block| !good.contains_key(&block));
    let share = FetchHandle::single();
    let received = match has_dependent_images(&survey, name) && size_bytes == manifest.size_bytes {
        true => {
            repair_in_place(host, bucket, &source, Some(good), share, ctx)
                .await?
                .0
        }
        false => {
            install_snapshot(
                host,
                bucket,
                &source,
                ExistingCopy::Damaged,
                None,
                share,
                ctx,
            )
            .await?
        }
    };
    Ok((bad.iter().collect(), received.fetched_bytes))
}

/// Verifies an object: fetches it and keeps nothing.
///
/// # Errors
/// `Damaged`, naming the bad blocks; `NotFound`; the bucket's.
pub async fn verify_object(bucket: &Bucket, name: &SnapshotName, ctx: &Context) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let source = find_object(bucket, name, ctx).await?;
    let size_bytes = source.object.size_bytes;
    let by_manifest = source.manifest.is_some();
    if !by_manifest {
        ctx.warn(format!(
            "{} has no manifest: it is read, but its blocks cannot be checked",
            source.object.key
        ));
    }
    let mut bad = BlockSet::all(size_bytes);
    // A bad block is read once more: it may have gone bad on its way.
    for _ in 0..2 {
        bad = find_bad_blocks(bucket, &source, &bad, ctx).await?;
        if bad.is_empty() {
            return Ok(Outcome::Verified {
                snapshot_name: name.clone(),
                host: None,
                size_bytes,
                has_manifest: by_manifest,
                repaired_blocks: Vec::new(),
                fetched_bytes: size_bytes,
            });
        }
    }
    Err(
        Error::new(Kind::Damaged, format!("{} is damaged", source.object.key))
            .with_cause(describe_damage(&bad, size_bytes, size_bytes))
            .hint("push it again from a host that has it"),
    )
}

/// Which of `blocks` are not what they are to be.
async fn find_bad_blocks(
    bucket: &Bucket,
    source: &RemoteObject,
    blocks: &BlockSet,
    ctx: &Context,
) -> Result<BlockSet> {
    let bad = Mutex::new(BlockSet::none(source.object.size_bytes));
    let check = |block: u64, data: Bytes| {
        let (wanted, bad) = (source.digest(block), &bad);
        async move {
            let hashed = tokio::task::spawn_blocking(move || hash_block(&data)).await;
            let is = hashed.map_err(|crash| {
                Error::new(Kind::Failed, "cannot hash a block").with_cause(crash)
            })?;
            if wanted.is_some_and(|wanted| wanted != is) {
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
