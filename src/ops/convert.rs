//! Converts a sandbox's disk to a standalone temporary file on its host, and uploads that.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use humansize::{BINARY, format_size};

use snapdeck_host::Watchdog;
use snapdeck_model::{
    BufferPool, Consistency, Error, Kind, Method, Object, Phase, Result, SandboxState,
    TransferStats,
};

use crate::block_digests::BlockDigests;
use crate::consistency_mode::ConsistencyMode;
use crate::job::SnapshotJob;
use crate::publish_object::publish_object;
use crate::retry::{ReadRetries, resume_error, resume_with_retries, resumed_by_other_error};
use crate::uploaded_image::UploadedImage;
use crate::variables;

/// Converts the disk of `source` and uploads it.
///
/// When this returns, with or without an error, the temporary directory is removed and the guest runs again if it ran
/// before. If it cannot return, the watchdog on the host does both.
pub(crate) async fn convert_and_upload(
    job: SnapshotJob<'_>,
    mode: ConsistencyMode,
) -> Result<UploadedImage> {
    let mut retries = ReadRetries::new();
    let image = loop {
        match convert_to_temp_dir(job, mode).await {
            // The watchdog has removed what was read across the lost connection.
            Err(error) if retries.should_retry(&error, job.ctx) => {}
            result => break result?,
        }
    };
    let result = upload(job, &image).await;
    let pause_duration = image.pause_duration;
    image.remove(job).await;
    let (object, digests, variables) = result?;
    Ok(UploadedImage {
        transfer: TransferStats {
            method: Method::Convert,
            uploaded_bytes: object.size_bytes,
            copied_bytes: 0,
            saved_bytes: 0,
        },
        digests: digests.all(object.size_bytes),
        has_claimed_digests: false,
        object,
        variables,
        pause_duration,
        consistency: match mode {
            ConsistencyMode::Live => Consistency::LiveUnsafe,
            ConsistencyMode::PauseGuest => Consistency::CrashConsistent,
            ConsistencyMode::AlreadyQuiet => job.source.consistency(),
        },
        virtual_size: job.source.virtual_size(),
        state: None,
    })
}

/// A converted disk on its host, removed by a watchdog if the connection is lost.
struct ConvertedImage {
    dir: String,
    image_path: String,
    /// The UEFI variables at the same point in time.
    variables: OnceLock<Bytes>,
    watchdog: Watchdog,
    pause_duration: Option<Duration>,
}

impl ConvertedImage {
    async fn remove(self, job: SnapshotJob<'_>) {
        let (dir, ctx) = (&self.dir, job.ctx);
        ctx.progress.enter(Phase::CleaningUp, 0);
        match job.host.scratch_dirs().remove(dir).await {
            // A watchdog that was killed meanwhile has nothing left to do: the job has not failed.
            Ok(()) => {
                if let Err(error) = self.watchdog.release().await {
                    ctx.warn(error.to_string());
                }
            }
            // The watchdog keeps trying.
            Err(error) => ctx.warn(format!("{error}; remove {dir} by hand")),
        }
    }
}

/// Converts the disk of `source` into a new directory, which is removed on an error.
async fn convert_to_temp_dir(
    job: SnapshotJob<'_>,
    mode: ConsistencyMode,
) -> Result<ConvertedImage> {
    let (host, name) = (job.host, &job.request.name);
    let dir = host.scratch_dirs().make_temp().await?;
    let watchdog = match host.watchdogs().spawn_for_dir(&dir).await {
        Ok(watchdog) => watchdog,
        Err(error) => {
            host.scratch_dirs().remove(&dir).await?;
            return Err(error);
        }
    };
    let mut image = ConvertedImage {
        image_path: format!("{dir}/{}.qcow2", name.last_part()),
        variables: OnceLock::new(),
        dir,
        watchdog,
        pause_duration: None,
    };
    match convert(job, mode, &image).await {
        Ok(pause_duration) => {
            image.pause_duration = pause_duration;
            Ok(image)
        }
        Err(error) => {
            image.remove(job).await;
            Err(error)
        }
    }
}

/// Writes the converted disk and the variables; returns how long it paused the guest, if it did.
async fn convert(
    job: SnapshotJob<'_>,
    mode: ConsistencyMode,
    image: &ConvertedImage,
) -> Result<Option<Duration>> {
    let (host, source, ctx) = (job.host, job.source, job.ctx);
    let id = &source.id;
    ctx.enter_phase(Phase::Checking)?;
    // Only the disk of an active sandbox, whose locks QEMU holds, is read without locks. The disk of a stopped one is
    // read under qemu-img's own locks, so that the sandbox cannot be started meanwhile.
    let is_shared = source.state.is_active();
    let needed_bytes = host
        .images()
        .measure(&source.images, is_shared, &ctx.cancel)
        .await?;
    let free_bytes = host.fs().free_bytes(&image.dir).await?;
    if needed_bytes > free_bytes {
        return Err(Error::new(
            Kind::NoSpace,
            format!("cannot convert the disk of {id} on host {}", host.name()),
        )
        .with_cause(format!(
            "it may take {}, {} has {} free",
            format_size(needed_bytes, BINARY),
            host.settings().temp_dir,
            format_size(free_bytes, BINARY)
        ))
        .hint("free space there, or set temp_dir of the host to a larger disk"));
    }
    ctx.check_cancelled()?;
    let copy = |required_state: Option<SandboxState>| async move {
        source.check_same_disk(host).await?;
        let stamps = source.stamps(host).await?;
        let (from, to, progress) = (&source.images, &image.image_path, &ctx.progress);
        host.images()
            .convert(from, to, is_shared, needed_bytes, progress, &ctx.cancel)
            .await?;
        if let Some(path) = &source.variables {
            let bytes = variables::read_variables(host, path).await?;
            // Set once: a conversion is not repeated into the same directory.
            let _ = image.variables.set(bytes);
        }
        match required_state {
            Some(state) => source.check_unchanged(host, state, &stamps).await,
            None => source.check_base_unchanged(host, &stamps).await,
        }
    };
    match mode {
        ConsistencyMode::AlreadyQuiet => return copy(Some(source.state)).await.map(|()| None),
        ConsistencyMode::Live => return copy(None).await.map(|()| None),
        ConsistencyMode::PauseGuest => {}
    }

    let note_dir = host.scratch_dirs().make_pause(id).await?;
    let remove_note = async || {
        if let Err(error) = host.scratch_dirs().remove(&note_dir).await {
            ctx.warn(error.to_string());
        }
    };
    let watchdog = match host.watchdogs().spawn_for_pause(id, &note_dir).await {
        Ok(watchdog) => watchdog,
        Err(error) => {
            remove_note().await;
            return Err(error);
        }
    };
    ctx.progress.enter(Phase::Pausing, 0);
    if let Some(watchdog) = &watchdog {
        // If it fails, the watchdog removes the directory.
        watchdog.mark_pausing().await?;
    }
    let paused_at = Instant::now();
    let suspended = host.sandboxes().suspend_running(id).await;
    let converted = match &suspended {
        Ok(()) => {
            if let Some(watchdog) = &watchdog {
                watchdog.mark_paused();
            }
            ctx.info(format!("paused {id}"));
            copy(Some(SandboxState::Paused)).await
        }
        Err(error) => Err(error.clone()),
    };
    // Another client has paused or stopped it before, or resumed it meanwhile: it is left so.
    let left_alone = match (&suspended, &watchdog) {
        (Err(error), _) => error.kind() == Kind::Conflict,
        (Ok(()), Some(watchdog)) => watchdog.has_guest_run().await,
        (Ok(()), None) => false,
    };
    let converted = match left_alone && suspended.is_ok() {
        true => converted.and(Err(resumed_by_other_error(host, source))),
        false => converted,
    };
    // Do not return before the guest runs again or resuming it is left to the watchdog.
    let resumed = match left_alone {
        true => Ok(()),
        false => resume_with_retries(host, id).await,
    };
    let pause_duration = paused_at.elapsed();
    match resumed {
        Ok(()) => {
            if !left_alone {
                ctx.info(format!(
                    "{id} resumed after {} ms",
                    pause_duration.as_millis()
                ));
            }
            if let Some(watchdog) = watchdog
                && let Err(error) = watchdog.release().await
            {
                ctx.warn(error.to_string());
            }
            remove_note().await;
        }
        Err(error) => {
            // A watchdog that is dropped without being released keeps trying.
            drop(watchdog);
            let error = resume_error(error, host, source);
            ctx.warn(error.to_string());
            return Err(converted.err().unwrap_or(error));
        }
    }
    converted.map(|()| Some(pause_duration))
}

/// Uploads the image; returns its variables, too.
async fn upload(
    job: SnapshotJob<'_>,
    image: &ConvertedImage,
) -> Result<(Object, BlockDigests, Option<Bytes>)> {
    let (host, request, ctx) = (job.host, job.request, job.ctx);
    ctx.check_cancelled()?;
    let reader = &host.fs().open_reader(&image.image_path).await?;
    let variables = match image.variables.get() {
        Some(bytes) => Some(variables::decode(bytes.clone(), job.source)?),
        None => None,
    };
    let digests = BlockDigests::default();
    let (digests_ref, buffers) = (&digests, &BufferPool::default());
    let read = move |offset, length| async move {
        let bytes = reader.read_at(buffers, offset, length).await?;
        digests_ref.hash(offset, bytes.clone()).await?;
        Ok(bytes)
    };
    let (name, size, overwrite) = (&request.name, reader.size_bytes(), request.overwrite);
    let bucket = job
        .bucket
        .with_parts(variables::snapshot_parts(variables.as_ref()));
    let multipart = bucket
        .begin_upload(name, size, overwrite, &ctx.progress, &ctx.cancel)
        .await?;
    if let Err(error) = multipart.upload_all(read).await {
        multipart.abort().await;
        return Err(error);
    }
    let object = Box::pin(publish_object(job, multipart, variables.as_ref())).await?;
    Ok((object, digests, variables))
}
