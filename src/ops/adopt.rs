//! Adopt: the digests of an image that snapdeck did not write are recorded in a manifest, so that its bytes are known.

use humansize::{BINARY, format_size};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use snapdeck_host::{Host, ImageFile};
use snapdeck_model::{
    BlockSet, ContentProof, Digest, Error, FileStamp, Kind, Manifest, Outcome, Phase, Result,
    SnapshotName, block_count,
};

use crate::context::Context;
use crate::hash_blocks::{HashedBlocks, hash_unknown_blocks};
use crate::standalone_image::refuse_unusable;

/// A snapshot of a host whose digests are recorded.
pub(crate) struct AdoptedFile {
    pub manifest: Manifest,
    /// Bytes that were read.
    pub hashed_bytes: u64,
    /// Whether the manifest was written.
    pub is_new: bool,
}

/// Records the digests of a host's snapshot that has no manifest.
///
/// # Errors
/// Those of [`adopt_file`].
pub async fn adopt_snapshot(host: &Host, name: &SnapshotName, ctx: &Context) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let adopted = adopt_file(host, name, ctx).await?;
    Ok(Outcome::Adopted {
        snapshot_name: name.clone(),
        host: Some(host.name().clone()),
        size_bytes: adopted.manifest.size_bytes,
        hashed_bytes: adopted.hashed_bytes,
        changed: adopted.is_new,
    })
}

/// As [`adopt_file`], for a job that does not hold the lock of the snapshot.
///
/// # Errors
/// As [`adopt_file`]; `Conflict` if another job writes the snapshot.
pub(crate) async fn adopt_unlocked_file(
    host: &Host,
    name: &SnapshotName,
    ctx: &Context,
) -> Result<AdoptedFile> {
    let (locks, lost) = (host.locks(), CancellationToken::new());
    let requests = vec![locks.snapshot(name, false)];
    let title = format!("adopt {name}");
    let guard = locks.acquire(requests, &title, lost.clone()).await?;
    let adopted = tokio::select! {
        adopted = Box::pin(adopt_file(host, name, ctx)) => adopted,
        () = lost.cancelled() => Err(adopt_error(host, name, Kind::Conflict)
            .with_cause("another process has locked it while the connection was lost")
            .hint("try again")),
    };
    guard.release().await;
    adopted
}

/// Records the digests of a host's snapshot that has no manifest, or whose manifest is of an earlier state of the file.
///
/// The file is read on the host, without its holes. Annotations are kept. The digests of a manifest that a push or pull has
/// written are never replaced by others: they show damage. The caller holds the snapshot's lock.
///
/// # Errors
/// `NotFound` without such a snapshot; `Damaged` for an image that is not sound, or is not that of its manifest;
/// `Conflict` if a process has it open for writing, it changes meanwhile, or another program's file is in the place of
/// the manifest; `Cancelled`; those of the host. Nothing is written then.
pub(crate) async fn adopt_file(
    host: &Host,
    name: &SnapshotName,
    ctx: &Context,
) -> Result<AdoptedFile> {
    let path = host.snapshot_path(name);
    let file = find_image(host, name).await?;
    refuse_damaged(host, name, &file).await?;
    let snapshots = host.snapshots();
    snapshots.refuse_foreign_manifest(name).await?;
    let recorded = snapshots.recorded_manifest(name).await?;
    if let Some(manifest) = &recorded
        && manifest.matches_file(file.stamp)
    {
        return Ok(AdoptedFile {
            manifest: manifest.clone(),
            hashed_bytes: 0,
            is_new: false,
        });
    }
    // An adopted image that was written since is adopted again.
    let expected =
        recorded.filter(|manifest| manifest.proof.is_none() || manifest.is_of_file(file.stamp));
    if let Some(expected) = &expected
        && expected.size_bytes != file.size_bytes
    {
        return Err(other_image_error(host, name));
    }
    let summary = adopt_summary(host, name);
    let refuse_writers = async || {
        let images = host.images();
        images.refuse_other_writers(&[&path], None, &summary).await
    };
    ctx.until_cancelled(refuse_writers()).await?;
    wait_for_clock(file.stamp, ctx).await?;
    ctx.until_cancelled(refuse_changed(host, name, file.stamp))
        .await?;
    ctx.info(format!(
        "hashing {path}, {}: its digests are unknown",
        format_size(file.size_bytes, BINARY)
    ));
    let (blocks, hashed_bytes) = hash_image(host, &path, &file, ctx).await?;
    ctx.check_cancelled()?;
    refuse_writers().await?;
    refuse_changed(host, name, file.stamp).await?;
    let manifest = match expected {
        Some(expected) if expected.blocks != blocks => return Err(other_image_error(host, name)),
        Some(mut expected) => {
            expected.file = Some(file.stamp);
            expected
        }
        None => new_manifest(name, &file, blocks),
    };
    snapshots.write_manifest(manifest.clone()).await?;
    ctx.info(format!(
        "recorded the digests of {name} on host {}, {} read",
        host.name(),
        format_size(hashed_bytes, BINARY)
    ));
    Ok(AdoptedFile {
        manifest,
        hashed_bytes,
        is_new: true,
    })
}

fn new_manifest(name: &SnapshotName, file: &ImageFile, blocks: Vec<Digest>) -> Manifest {
    let mut manifest = Manifest::new(name.clone(), file.size_bytes, blocks);
    manifest.virtual_size = file.facts.as_ref().ok().map(|facts| facts.virtual_size);
    manifest.file = Some(file.stamp);
    manifest.proof = Some(ContentProof::Read);
    manifest
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

async fn refuse_damaged(host: &Host, name: &SnapshotName, file: &ImageFile) -> Result<()> {
    refuse_unusable(file, &host.snapshot_path(name))?;
    match host.snapshots().damage(name).await? {
        Some(damage) if damage.is_of(file.stamp) => Err(adopt_error(host, name, Kind::Damaged)
            .with_cause(damage.problem)
            .hint(format!("run `snapdeck verify {name} --repair`"))),
        _ => Ok(()),
    }
}

async fn refuse_changed(host: &Host, name: &SnapshotName, stamp: FileStamp) -> Result<()> {
    let current = host.fs().image_file(&host.snapshot_path(name)).await?;
    match current.is_some_and(|current| current.stamp == stamp) {
        true => Ok(()),
        false => Err(adopt_error(host, name, Kind::Conflict)
            .with_cause("it was changed while it was read")
            .hint("retry while nothing writes to it")),
    }
}

/// Waits until every later write of the file with this stamp gives it another one.
///
/// # Errors
/// `Cancelled`.
pub(crate) async fn wait_for_clock(stamp: FileStamp, ctx: &Context) -> Result<()> {
    let waiting = async {
        sleep(stamp.clock_step()).await;
        Ok(())
    };
    ctx.until_cancelled(waiting).await
}

/// Returns the digests of all blocks, and how many bytes were read for them.
async fn hash_image(
    host: &Host,
    path: &str,
    file: &ImageFile,
    ctx: &Context,
) -> Result<(Vec<Digest>, u64)> {
    let size_bytes = file.size_bytes;
    let all = BlockSet::all(size_bytes);
    let HashedBlocks {
        digests,
        read_bytes,
    } = hash_unknown_blocks(host, (path, Some(file.stamp)), &all, ctx).await?;
    if !digests.keys().copied().eq(0..block_count(size_bytes)) {
        return Err(Error::new(
            Kind::Failed,
            format!("cannot read all of {path} on host {}", host.name()),
        )
        .hint("check the host's disk"));
    }
    Ok((digests.into_values().collect(), read_bytes))
}

fn other_image_error(host: &Host, name: &SnapshotName) -> Error {
    adopt_error(host, name, Kind::Damaged)
        .with_cause(format!(
            "the blocks of {name} on host {} are not those of its manifest",
            host.name()
        ))
        .hint(format!(
            "run `snapdeck verify {name} --repair`; if it was changed on purpose, move {} away",
            name.manifest_file_name()
        ))
}

fn adopt_summary(host: &Host, name: &SnapshotName) -> String {
    format!("cannot adopt {name} on host {}", host.name())
}

fn adopt_error(host: &Host, name: &SnapshotName, kind: Kind) -> Error {
    Error::new(kind, adopt_summary(host, name))
}
