//! Brings an object to a host: under a hidden name until it is proven, then under its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};

use snapdeck_bucket::Bucket;
use snapdeck_host::{BlockCopy, Content, CopySource, FileWriter, Host, ImageFile, StoredManifest};
use snapdeck_model::{
    BlockSet, Digest, Error, Kind, Manifest, Object, Phase, Result, SnapshotName, order_by_ancestry,
};

use crate::block_plan::{BlockPlan, plan_blocks};
use crate::context::Context;
use crate::fetch::{FetchHandle, RemoteObject};
use crate::hash_blocks::hash_local_blocks;
use crate::transfer::{TransferError, TransferPlan, TransferProgress, run_transfer};
use crate::variables::FetchedVariables;

/// Manifests of a host that are read at once.
const MAX_MANIFEST_READS: usize = 4;

/// What stands under the snapshot's name before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExistingCopy {
    Absent,
    /// A snapshot that is to be replaced.
    Valid,
    /// One that is damaged, whose good blocks may serve.
    Damaged,
}

/// The object of that name and its manifest.
///
/// # Errors
/// `NotFound`; the bucket's.
pub(crate) async fn find_object(
    bucket: &Bucket,
    name: &SnapshotName,
    ctx: &Context,
) -> Result<RemoteObject> {
    let object = bucket.head(name).await?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!(
                "snapshot not found in store: {name} is not in {}",
                bucket.location()
            ),
        )
        .hint("list objects with `snapdeck objects`")
    })?;
    let manifest = match bucket.manifest(&object).await {
        Ok(manifest) => manifest,
        // All works without, and slower.
        Err(error) => {
            ctx.info(format!("{error}; continuing without its manifest"));
            None
        }
    };
    // It may have one of remarks alone.
    let remarks = match manifest {
        Some(_) => None,
        None => bucket.annotations(name).await.unwrap_or_else(|error| {
            ctx.info(error.to_string());
            None
        }),
    };
    Ok(RemoteObject {
        object,
        manifest,
        annotations: remarks,
    })
}

/// Brings `source` to its place on `host`. What an earlier pull of the same object left is taken up, what other snapshots
/// of the host have is copied, the rest is fetched. `beside` are the variables that go with it, and whether they may
/// replace others.
///
/// # Errors
/// As of a pull. What is under the final name stays as it is then; what was fetched stays where it can be taken up.
pub(crate) async fn install_snapshot(
    host: &Host,
    bucket: &Bucket,
    source: &Arc<RemoteObject>,
    before: ExistingCopy,
    beside: Option<(&FetchedVariables, bool)>,
    share: FetchHandle,
    ctx: &Context,
) -> Result<TransferProgress> {
    let object = &source.object;
    let partial = host.partial_path(&object.name);
    ctx.check_cancelled()?;
    // Fails where another process writes this very file, which is then not ours to remove.
    let writer = host
        .fs()
        .open_writer(&partial, &content_id(bucket, object))
        .await
        .map_err(|error| match (error.kind(), error.hint_text()) {
            (Kind::Failed, None) => error.hint("check snapshots_dir of the host in the settings"),
            _ => error,
        })?;
    let mut received = TransferProgress::empty(object.size_bytes);
    let landed = async {
        let work = prepare(host, source, before, &writer, ctx).await?;
        run_transfer(share, bucket, source, &writer, work, &mut received, ctx).await?;
        validate_image(host, object, &writer, &received, ctx).await?;
        ctx.enter_phase(Phase::Publishing)?;
        let path = host.snapshot_path(&object.name);
        let new = match beside {
            Some((variables, replace)) => variables.publish(host, &object.name, replace).await?,
            None => None,
        };
        let landed = writer
            .rename_into_place(&path, before != ExistingCopy::Absent)
            .await;
        if let (Err(_), Some(new)) = (&landed, new) {
            // What failed is told; with the image out of reach, this is too.
            let _ = host.fs().remove_file(&new).await;
        }
        Ok(landed?)
    }
    .await;
    if let Err(broke) = landed {
        ctx.progress.enter(Phase::CleaningUp, 0);
        keep_or_discard_partial(host, bucket, source, &writer, &received, &broke, ctx).await;
        return Err(broke.error);
    }
    write_local_manifest(host, source, &received, ctx).await;
    Ok(received)
}

fn content_id(bucket: &Bucket, object: &Object) -> Content {
    // Only a strong entity tag says that two parts are of one and the same object (RFC 9110, section 8.8.1).
    let tag = object.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
    Content {
        version: tag.map(|tag| format!("{}/{} {tag}", bucket.location(), object.key)),
        size_bytes: object.size_bytes,
    }
}

/// Finds out what is there and what is to be done, and whether there is room for it.
async fn prepare(
    host: &Host,
    source: &RemoteObject,
    before: ExistingCopy,
    writer: &FileWriter,
    ctx: &Context,
) -> Result<TransferPlan> {
    let object = &source.object;
    let recorded = revalidate_partial(host, source, writer, ctx).await?;
    let work = plan_transfer(host, source, &recorded, before, ctx).await;
    let missing = work.to_fetch.bytes();
    let dir = &host.settings().snapshots_dir;
    let free = host.fs().free_bytes(dir).await?;
    if missing > free {
        return Err(Error::new(
            Kind::NoSpace,
            format!(
                "{} needs {missing} more bytes, {dir} on host {} has {free} free",
                object.name,
                host.name()
            ),
        )
        .hint("remove unneeded snapshots"));
    }
    Ok(work)
}

/// What an earlier pull left, proven again where the host was started since.
async fn revalidate_partial(
    host: &Host,
    source: &RemoteObject,
    writer: &FileWriter,
    ctx: &Context,
) -> Result<BTreeMap<u64, Digest>> {
    let recorded = writer.resume_state();
    if recorded.is_same_boot || recorded.blocks.is_empty() {
        return Ok(recorded.blocks.clone());
    }
    ctx.info(format!(
        "host {} rebooted since an earlier pull: checking the partial file",
        host.name()
    ));
    let object = &source.object;
    let blocks = BlockSet::from_predicate(object.size_bytes, |block| {
        recorded.blocks.contains_key(&block)
    });
    let mut found = hash_local_blocks(host, &host.partial_path(&object.name), &blocks, ctx).await?;
    found.retain(|block, digest| recorded.blocks.get(block) == Some(digest));
    writer.reset_records(&found).await?;
    Ok(found)
}

/// Plans by the manifests of the host's snapshots.
pub(crate) async fn plan_transfer(
    host: &Host,
    source: &RemoteObject,
    recorded: &BTreeMap<u64, Digest>,
    before: ExistingCopy,
    ctx: &Context,
) -> TransferPlan {
    let object = &source.object;
    let mut origins = Vec::new();
    if let Some(manifest) = &source.manifest {
        origins = match find_copy_sources(host, manifest).await {
            Ok(origins) => origins,
            Err(error) => {
                ctx.info(format!("{error}; not copying blocks from other snapshots"));
                Vec::new()
            }
        };
        if before == ExistingCopy::Damaged {
            // Whatever it is: what is good in it is what it is to be.
            let path = host.snapshot_path(&object.name);
            origins.push((CopySource { path, stamp: None }, manifest.clone()));
        }
    }
    let wanted = source.manifest.as_ref().map(|manifest| &*manifest.blocks);
    let manifests: Vec<&Manifest> = origins.iter().map(|(_, manifest)| manifest).collect();
    let BlockPlan {
        present: here,
        copies,
        to_fetch: fetch,
    } = plan_blocks(object.size_bytes, wanted, recorded, &manifests);
    if !here.is_empty() {
        ctx.info(format!(
            "resuming: {} of {} bytes are on host {} from an earlier pull",
            here.bytes(),
            object.size_bytes,
            host.name()
        ));
    }
    let origins = origins.into_iter().map(|(origin, _)| origin);
    let copies: Vec<(CopySource, Vec<BlockCopy>)> = origins
        .zip(copies)
        .filter(|(_, pieces)| !pieces.is_empty())
        .collect();
    for (origin, pieces) in &copies {
        let bytes: u64 = pieces.iter().map(|piece| piece.size_bytes).sum();
        ctx.info(format!("{} has {bytes} bytes of it", origin.path));
    }
    let digest = |block| Some((block, *recorded.get(&block)?));
    TransferPlan {
        present: here.iter().filter_map(digest).collect(),
        copies,
        to_fetch: fetch,
    }
}

/// The host's snapshots that have manifests, in the order in which they give blocks.
async fn find_copy_sources(host: &Host, wanted: &Manifest) -> Result<Vec<(CopySource, Manifest)>> {
    let names = host.snapshots().names().await?;
    let kept: Vec<Option<(SnapshotName, StoredManifest)>> = futures_util::stream::iter(names)
        .map(|name| {
            let read = async move {
                match host.snapshots().stored_manifest(&name).await {
                    Ok(kept) => kept.map(|kept| (name, kept)),
                    Err(error) => {
                        tracing::debug!("{error}");
                        None
                    }
                }
            };
            read.boxed()
        })
        .buffered(MAX_MANIFEST_READS)
        .collect()
        .await;
    let kept = kept.into_iter().flatten().collect();
    let ordered = order_by_ancestry(wanted, kept, |kept: &StoredManifest| &kept.manifest);
    Ok(ordered
        .into_iter()
        .map(
            |(
                name,
                StoredManifest {
                    manifest,
                    is_verified: is_proven,
                },
            )| {
                let origin = CopySource {
                    path: host.snapshot_path(&name),
                    stamp: manifest.file.filter(|_| is_proven),
                };
                (origin, manifest)
            },
        )
        .collect())
}

/// Proves the image under its hidden name.
async fn validate_image(
    host: &Host,
    object: &Object,
    writer: &FileWriter,
    received: &TransferProgress,
    ctx: &Context,
) -> Result<()> {
    ctx.enter_phase(Phase::Verifying)?;
    writer.finish().await?;
    let partial = host.partial_path(&object.name);
    let file = host.fs().image_file(&partial).await?.ok_or_else(|| {
        Error::new(
            Kind::Failed,
            format!("{partial} disappeared on host {}", host.name()),
        )
    })?;
    // The header comes first: nothing may open an image that names other files (CVE-2024-32498).
    let proven = match refuse_unusable(&file, &object.key) {
        Ok(()) => host.images().check(&partial, &ctx.cancel).await,
        Err(error) => Err(error),
    };
    match proven {
        Ok(warning) => {
            if let Some(warning) = warning {
                ctx.warn(warning);
            }
            Ok(())
        }
        Err(error) if error.kind() == Kind::Damaged && received.resumed_bytes > 0 => {
            Err(error
                .hint("pull it again: the partial file is removed, so everything is downloaded"))
        }
        Err(error) => Err(error),
    }
}

/// Refuses what may not be a snapshot: no qcow2, or an image that needs another file.
pub(crate) fn refuse_unusable(file: &ImageFile, what: &str) -> Result<()> {
    let unfit = |why: String| {
        Err(Error::new(
            Kind::Damaged,
            format!("{what} cannot be used as a snapshot"),
        )
        .with_cause(why)
        .hint("only standalone qcow2 images can; inspect it with `qemu-img info`"))
    };
    match &file.facts {
        Err(why) => unfit(why.clone()),
        Ok(facts) => match &facts.backing_file {
            Some(backing) => unfit(format!("it has the backing file {backing:?}")),
            None if facts.has_external_data_file => unfit("it has an external data file".into()),
            None => Ok(()),
        },
    }
}

/// Keeps what was fetched where the next pull can take it up, and removes it where it cannot.
async fn keep_or_discard_partial(
    host: &Host,
    bucket: &Bucket,
    source: &RemoteObject,
    writer: &FileWriter,
    received: &TransferProgress,
    broke: &TransferError,
    ctx: &Context,
) {
    let object = &source.object;
    let partial = host.partial_path(&object.name);
    // What an earlier pull left is no less there where this one did not come so far as to look.
    let earlier = writer.resume_state().blocks.keys();
    let earlier: u64 = earlier.map(|block| source.block_bytes(*block)).sum();
    let bytes = received.done_bytes().max(earlier);
    let keeps = bytes > 0
        && content_id(bucket, object).version.is_some()
        && match broke.error.kind() {
            Kind::Damaged | Kind::NotFound => false,
            // Perhaps because it is another object now.
            Kind::Failed => match bucket.head(&object.name).await {
                Ok(now) => now.is_some_and(|now| {
                    now.etag == object.etag && now.size_bytes == object.size_bytes
                }),
                Err(_) => true,
            },
            _ => true,
        };
    let discarded = match keeps || broke.is_host_unreachable {
        true => Err(None),
        false => writer.discard().await.map_err(Some),
    };
    match discarded {
        Ok(()) => {}
        Err(Some(left)) if left.kind() != Kind::Unreachable => {
            ctx.warn(format!("{left}; remove {partial} by hand"));
        }
        Err(_) => ctx.warn(format!(
            "keeping {bytes} of {} bytes in {partial} on host {} for the next pull",
            object.size_bytes,
            host.name()
        )),
    }
}

/// Puts the manifest beside the snapshot that has just landed. Without one the snapshot is as good, and only what is
/// made from it takes longer.
pub(crate) async fn write_local_manifest(
    host: &Host,
    source: &RemoteObject,
    received: &TransferProgress,
    ctx: &Context,
) {
    let object = &source.object;
    let kept = async {
        host.snapshots().record_damage(&object.name, None).await?;
        let Some(blocks) = received.digests() else {
            return Ok(());
        };
        if let Some(file) = host
            .fs()
            .image_file(&host.snapshot_path(&object.name))
            .await?
        {
            let blank = || Manifest::new(object.name.clone(), object.size_bytes, blocks);
            let mut manifest = source.manifest.clone().unwrap_or_else(blank);
            manifest.etag = object.etag.clone();
            manifest.virtual_size = file.facts.ok().map(|facts| facts.virtual_size);
            manifest.file = Some(file.stamp);
            if let Some(remarks) = &source.annotations {
                manifest = manifest.with_existing_annotations(remarks.clone());
            }
            host.snapshots().write_manifest(manifest).await?;
        }
        Ok::<(), Error>(())
    };
    if let Err(error) = kept.await {
        ctx.warn(format!("{error}; {} has no manifest", object.name));
    }
}
