//! Flattening a sandbox's disk into a temporary file on its host, and sending that to the bucket.

use std::time::{Duration, Instant};

use bytes::Bytes;

use snapdeck_bucket::Bucket;
use snapdeck_host::{Host, Watchdog};
use snapdeck_model::{
    BufferPool, Consistency, Error, Kind, Method, Object, Phase, Result, SandboxId, SandboxState,
    SnapshotName, TransferStats,
};

use super::block_digests::BlockDigests;
use super::create_object::{SnapshotRequest, UploadedImage};
use super::sandbox_disk::SandboxDisk;
use super::{Context, variables};

/// How often and how long resuming a sandbox is tried before it is left to the guard.
const MAX_RESUME_ATTEMPTS: u32 = 5;
/// How often a disk is read anew because the host went away in the middle.
pub(super) const MAX_READ_ATTEMPTS: u32 = 3;

/// How the guest is kept from writing while its disk is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConsistencyMode {
    /// It stands still already; a write by anybody fails the operation.
    AlreadyQuiet,
    /// We pause it and let it go on afterwards, whatever happens.
    PauseGuest,
    /// Nothing keeps it: best effort (spec, "Warning: Live Mode Consistency").
    Live,
}

/// Flattens `source` and uploads it as `wish` says. The temporary directory is gone and the guest runs
/// again (if it ran before) when this returns, with or without an error; if it cannot return, the
/// guard on the host does both.
pub(super) async fn convert_and_upload(
    host: &Host,
    bucket: &Bucket,
    source: &SandboxDisk,
    stillness: ConsistencyMode,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<UploadedImage> {
    let mut tries = 1;
    let staged = loop {
        match convert_to_temp_dir(host, source, stillness, &wish.name, ctx).await {
            // What was read while the host went away may be torn, and its guard has thrown it away.
            Err(error)
                if is_host_unreachable(&error)
                    && tries < MAX_READ_ATTEMPTS
                    && !ctx.cancel.is_cancelled() =>
            {
                ctx.warn(format!("{error}; reading the disk again from the start"));
                tries += 1;
            }
            staged => break staged?,
        }
    };
    let uploaded = upload(host, bucket, &staged, wish, ctx).await;
    let paused = staged.pause_duration;
    staged.remove(host, ctx).await;
    let (object, digests, variables) = uploaded?;
    Ok(UploadedImage {
        transfer: TransferStats {
            method: Method::Convert,
            uploaded_bytes: object.size_bytes,
            copied_bytes: 0,
            saved_bytes: 0,
        },
        digests: digests.all(object.size_bytes),
        object,
        variables,
        pause_duration: paused,
        consistency: match stillness {
            ConsistencyMode::Live => Consistency::LiveUnsafe,
            ConsistencyMode::PauseGuest => Consistency::CrashConsistent,
            ConsistencyMode::AlreadyQuiet => source.consistency(),
        },
        virtual_size: source
            .chain
            .first()
            .and_then(|link| link.facts.as_ref())
            .map(|facts| facts.virtual_size),
    })
}

/// Did the host go away, rather than refuse?
pub(super) fn is_host_unreachable(error: &Error) -> bool {
    error.kind() == Kind::Unreachable && error.is_retryable()
}

/// A flattened disk on its host, under guard.
struct ConvertedImage {
    dir: String,
    image_path: String,
    /// A copy of the UEFI variables, of the same moment.
    variables: Option<String>,
    watchdog: Watchdog,
    /// How long the guest was paused by us.
    pause_duration: Option<Duration>,
}

impl ConvertedImage {
    async fn remove(self, host: &Host, ctx: &Context) {
        ctx.progress.enter(Phase::CleaningUp, 0);
        let dir = &self.dir;
        match host.fs().remove_temp_dir(dir).await {
            // A guard that was killed meanwhile has nothing left to do: that is no failure of the job.
            Ok(()) => {
                if let Err(error) = self.watchdog.release().await {
                    ctx.warn(error.to_string());
                }
            }
            // The guard goes on trying.
            Err(error) => ctx.warn(format!("{error}; remove {dir} by hand")),
        }
    }
}

/// Flattens `source` into a fresh directory; on an error that is gone.
async fn convert_to_temp_dir(
    host: &Host,
    source: &SandboxDisk,
    stillness: ConsistencyMode,
    name: &SnapshotName,
    ctx: &Context,
) -> Result<ConvertedImage> {
    let dir = host.fs().make_temp_dir().await?;
    let guard = match host.watchdogs().spawn_for_dir(&dir).await {
        Ok(guard) => guard,
        Err(error) => {
            host.fs().remove_temp_dir(&dir).await?;
            return Err(error);
        }
    };
    let mut staged = ConvertedImage {
        image_path: format!("{dir}/{}", name.file_name()),
        variables: source
            .variables
            .as_ref()
            .map(|_| format!("{dir}/{}", name.variables_file_name())),
        dir,
        watchdog: guard,
        pause_duration: None,
    };
    match convert(host, source, stillness, &staged, ctx).await {
        Ok(paused) => {
            staged.pause_duration = paused;
            Ok(staged)
        }
        Err(error) => {
            staged.remove(host, ctx).await;
            Err(error)
        }
    }
}

/// Writes the flattened disk and the variables; returns how long the guest was paused by us.
async fn convert(
    host: &Host,
    source: &SandboxDisk,
    stillness: ConsistencyMode,
    staged: &ConvertedImage,
    ctx: &Context,
) -> Result<Option<Duration>> {
    let ConvertedImage {
        dir,
        image_path: flat,
        ..
    } = staged;
    ctx.enter_phase(Phase::Checking)?;
    // QEMU holds the locks of an active sandbox's disk: only then is it read without them. A stopped
    // one is read under qemu's own locks, so that nobody can start it meanwhile.
    let shared = source.state.is_active();
    let needed = host.images().measure(&source.disk_path, shared).await?;
    let free = host.fs().free_bytes(dir).await?;
    if needed > free {
        return Err(Error::new(
            Kind::NoSpace,
            format!(
                "the converted disk of {} may take {needed} bytes, {} on host {} has {free}",
                source.id,
                host.settings().temp_dir,
                host.name()
            ),
        )
        .hint("free space there, or set temp_dir of the host to a larger disk"));
    }
    ctx.check_cancelled()?;
    let copy = |still: Option<SandboxState>| async move {
        let before = source.stamps(host).await?;
        let (progress, cancel) = (&ctx.progress, &ctx.cancel);
        host.images()
            .convert(&source.disk_path, flat, shared, needed, progress, cancel)
            .await?;
        if let (Some(from), Some(to)) = (&source.variables, &staged.variables) {
            host.fs().create_exclusive(to).await?;
            host.fs().copy_file(from, to).await?;
        }
        match still {
            Some(state) => source.check_unchanged(host, state, &before).await,
            None => Ok(()),
        }
    };
    if stillness != ConsistencyMode::PauseGuest {
        let still = (stillness == ConsistencyMode::AlreadyQuiet).then_some(source.state);
        copy(still).await?;
        return Ok(None);
    }

    let guard = host.watchdogs().spawn_for_pause(&source.id, dir).await?;
    ctx.progress.enter(Phase::Pausing, 0);
    let since = Instant::now();
    let converted = async {
        host.sandboxes().suspend(&source.id).await?;
        ctx.info(format!("paused {}", source.id));
        copy(Some(SandboxState::Paused)).await
    }
    .await;
    // From here on nothing may return before the guest runs again or the guard has been left to it.
    let resumed = resume_with_retries(host, &source.id).await;
    let paused = since.elapsed();
    match resumed {
        Ok(()) => {
            ctx.info(format!(
                "{} resumed after {} ms",
                source.id,
                paused.as_millis()
            ));
            if let Some(guard) = guard
                && let Err(error) = guard.release().await
            {
                ctx.warn(error.to_string());
            }
        }
        Err(error) => {
            // Dropped without a release, the guard goes on trying on its own.
            drop(guard);
            let id = &source.id;
            let error = error
                .context(format!(
                    "cannot resume sandbox {id} on host {}",
                    host.name()
                ))
                .hint(format!(
                    "the watchdog on the host keeps trying; otherwise run `virsh resume {id}` there"
                ));
            ctx.warn(error.to_string());
            return Err(converted.err().unwrap_or(error));
        }
    }
    converted.map(|()| Some(paused))
}

/// Resumes the sandbox, unless it is no longer paused; tried a few times.
pub(super) async fn resume_with_retries(host: &Host, id: &SandboxId) -> Result<()> {
    let mut tries = 0;
    loop {
        let error = match host.sandboxes().resume(id).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Gone, stopped or resumed by another hand: there is nothing to resume any more.
        match host.sandboxes().state(id).await {
            Ok(SandboxState::Paused) => {}
            Ok(_) => return Ok(()),
            Err(gone) if gone.kind() == Kind::NotFound => return Ok(()),
            Err(_) => {}
        }
        tries += 1;
        if tries == MAX_RESUME_ATTEMPTS {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Uploads the image, then its variables.
async fn upload(
    host: &Host,
    bucket: &Bucket,
    staged: &ConvertedImage,
    wish: &SnapshotRequest,
    ctx: &Context,
) -> Result<(Object, BlockDigests, Option<Bytes>)> {
    ctx.check_cancelled()?;
    let reader = host.fs().open_reader(&staged.image_path).await?;
    let size = reader.size_bytes();
    let variables = match &staged.variables {
        Some(path) => Some(variables::read_variables(host, path).await?),
        None => None,
    };
    let digests = BlockDigests::default();
    let buffers = &BufferPool::default();
    let (reader, hashed) = (&reader, &digests);
    let read = move |offset, length| async move {
        let bytes = reader.read_at(buffers, offset, length).await?;
        hashed.hash(offset, bytes.clone()).await?;
        Ok(bytes)
    };
    let (name, overwrite) = (&wish.name, wish.overwrite);
    let object = bucket
        .upload(name, size, read, overwrite, &ctx.progress, &ctx.cancel)
        .await?;
    Ok((object, digests, variables))
}
