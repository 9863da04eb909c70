//! Captures the disk of a running sandbox at one point in time.
//!
//! ```text
//! guest     ──runs──┤ freeze ┤──┤    paused     ┤──┤ thaw ├──runs──────────────
//! snapdeck                         read tables              read clusters from
//!                                  begin backup             the export, end backup
//! ```
//!
//! The backup job exports the disk without its layers. The overlay's L1 and L2 tables, which map its clusters, are
//! therefore read during the pause, while nothing writes to them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use snapdeck_host::{Backup, FsState, Host, PreopenedFile};
use snapdeck_model::{BufferPool, Consistency, Error, Kind, Method, Phase, Result};
use snapdeck_qcow2::{TableBudget, Tables};

use super::abort::{ComposeAbort, internal_error};
use super::layer::read_tables;
use super::point_in_time::{CapturedDisk, OverlaySource, PointInTime, end_backup};
use crate::job::SnapshotJob;
use crate::retry::{resume_error, resume_with_retries, resumed_by_other_error};
use crate::sandbox_disk::SandboxDisk;
use crate::variables;

/// Limit of everything during the pause except copying.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(8);
/// Limit of the time with frozen file systems: Windows thaws them by itself after 10 s.
const MAX_FREEZE_DURATION: Duration = Duration::from_secs(9);
/// Flushes of the disk before the pause; fewer as soon as one is quick.
const MAX_FLUSHES: u32 = 3;
const QUICK_FLUSH: Duration = Duration::from_millis(200);
/// Attempts to thaw file systems before that is left to the watchdog.
const MAX_THAW_ATTEMPTS: u32 = 3;

/// Pauses the guest, captures its disk by `method` and resumes it.
///
/// The guest runs when this returns, or the watchdog on its host resumes it.
///
/// # Errors
/// [`ComposeAbort::MethodUnavailable`] if the host cannot do it by that method. Nothing is left behind then.
pub(super) async fn capture(
    job: SnapshotJob<'_>,
    method: Method,
) -> Result<PointInTime, ComposeAbort> {
    let (host, source, ctx) = (job.host, job.source, job.ctx);
    let method = match method {
        Method::Backup => match host
            .backups()
            .support(&source.id, &source.disk_path)
            .await?
        {
            Ok(target) => CaptureMethod::Backup { target },
            Err(reason) => return Err(ComposeAbort::MethodUnavailable(reason)),
        },
        _ => {
            let free_bytes = host.fs().free_bytes(&host.settings().sandboxes_dir).await?;
            let file = host.fs().image_file(&source.disk_path).await?;
            let needed_bytes = file.map_or(u64::MAX, |file| file.allocated_bytes);
            CaptureMethod::Copy {
                must_share_extents: needed_bytes > free_bytes,
            }
        }
    };
    let can_freeze = match method {
        // Copying may take longer than file systems stay frozen.
        CaptureMethod::Copy { .. } => false,
        CaptureMethod::Backup { .. } => host.sandboxes().has_agent(&source.id).await?,
    };
    ctx.check_cancelled()?;
    let scratch_bytes = match method {
        CaptureMethod::Backup { .. } => source.virtual_size(),
        CaptureMethod::Copy { .. } => None,
    };
    let preparation = host.backups().prepare(&source.id, scratch_bytes);
    let backup = match Box::pin(preparation).await {
        Ok(backup) => backup,
        Err(error) if error.kind() == Kind::Unreachable && error.is_retryable() => {
            return Err(error.into());
        }
        Err(error) => return Err(ComposeAbort::MethodUnavailable(error.to_string())),
    };
    let disk = freeze_and_capture(job, &backup, &method, can_freeze);
    match Box::pin(disk).await {
        Ok(disk) => Ok(PointInTime { backup, disk }),
        Err(CaptureError::GuestRunning(abort)) => {
            end_backup(backup, ctx).await;
            Err(abort)
        }
        // The watchdog of a backup that is dropped without being cleared keeps trying.
        Err(CaptureError::GuestMaybePaused(error)) => {
            ctx.warn(error.to_string());
            Err(error.into())
        }
    }
}

enum CaptureMethod {
    /// Begins a backup job of the disk with this target name.
    Backup { target: String },
    /// Copies the overlay; a copy that does not fit on the disk must share the overlay's extents.
    Copy { must_share_extents: bool },
}

/// A captured overlay, before it is opened.
enum CapturedOverlay<'a> {
    Backup {
        target: &'a str,
        tables: Box<Tables>,
    },
    Copy {
        path: String,
    },
}

enum CaptureError {
    GuestRunning(ComposeAbort),
    GuestMaybePaused(Error),
}

impl<E: Into<ComposeAbort>> From<E> for CaptureError {
    fn from(error: E) -> Self {
        Self::GuestRunning(error.into())
    }
}

/// Files that are opened before the guest is paused.
struct PreopenedDisk {
    /// Only for a backup job.
    overlay: Option<PreopenedFile>,
    variables: Option<PreopenedFile>,
}

async fn preopen_disk(job: SnapshotJob<'_>, method: &CaptureMethod) -> PreopenedDisk {
    let preopen = async |path: Option<&String>| match path {
        Some(path) => Some(job.host.fs().preopen(path).await),
        None => None,
    };
    let is_backup = matches!(method, CaptureMethod::Backup { .. });
    let overlay = is_backup.then_some(&job.source.disk_path);
    let (overlay, variables) = tokio::join!(
        Box::pin(preopen(overlay)),
        Box::pin(preopen(job.source.variables.as_ref()))
    );
    PreopenedDisk { overlay, variables }
}

async fn freeze_and_capture(
    job: SnapshotJob<'_>,
    backup: &Backup,
    method: &CaptureMethod,
    can_freeze: bool,
) -> Result<CapturedDisk, CaptureError> {
    let (host, source, ctx) = (job.host, job.source, job.ctx);
    let id = &source.id;
    let files = preopen_disk(job, method).await;
    flush_overlay(job).await?;
    let freeze = match can_freeze {
        true => freeze_file_systems(job, backup).await?,
        false => Freeze::None,
    };
    let frozen_at = Instant::now();
    ctx.progress.enter(Phase::Pausing, 0);
    if let Err(error) = backup.mark_pausing().await {
        // The watchdog is lost, and thaws them, too.
        thaw_file_systems(job, backup, freeze).await?;
        return Err(error.into());
    }
    let paused_at = Instant::now();
    let suspended = host.sandboxes().suspend_running(id).await;
    tracing::debug!("{id} paused after {:?}", paused_at.elapsed());
    let captured = match &suspended {
        Ok(()) => {
            backup.mark_paused();
            Box::pin(capture_disk(job, backup, method, files)).await
        }
        Err(error) => Err(error.clone().into()),
    };
    tracing::debug!("disk state captured after {:?}", paused_at.elapsed());
    // Do not return before the guest runs again or resuming it is left to the watchdog.
    let resumed = match suspended {
        // Another client paused the guest; leave it paused.
        Err(error) if error.kind() == Kind::Conflict => Err(ResumeError::OtherClient(error)),
        _ if matches!(method, CaptureMethod::Copy { .. }) && backup.has_guest_run().await => Err(
            ResumeError::OtherClient(resumed_by_other_error(host, source)),
        ),
        _ => resume_guest(host, source).await,
    };
    let pause_duration = paused_at.elapsed();
    if let Err(ResumeError::Failed(error)) = resumed {
        return Err(CaptureError::GuestMaybePaused(error));
    }
    backup.mark_running();
    let was_still_frozen = thaw_file_systems(job, backup, freeze)
        .await
        .map_err(CaptureError::GuestMaybePaused)?;
    let is_in_time = frozen_at.elapsed() < MAX_FREEZE_DURATION;
    if let Err(ResumeError::OtherClient(error)) = resumed {
        // The guest may have run during the capture.
        captured?;
        return Err(error.into());
    }
    ctx.info(format!(
        "{id} resumed after {} ms",
        pause_duration.as_millis()
    ));
    let (overlay, variables) = captured?;
    ctx.check_cancelled()?;
    let overlay = match overlay {
        CapturedOverlay::Backup { target, tables } => {
            let export = backup.open(target).await;
            let export =
                export.map_err(|error| ComposeAbort::MethodUnavailable(error.to_string()))?;
            OverlaySource::Export { tables, export }
        }
        CapturedOverlay::Copy { path } => OverlaySource::Copy(host.fs().open_reader(&path).await?),
    };
    let is_frozen = freeze == Freeze::Done;
    let consistency = match is_frozen && was_still_frozen && is_in_time {
        true => Consistency::Quiesced,
        false => Consistency::CrashConsistent,
    };
    if is_frozen && consistency != Consistency::Quiesced {
        ctx.warn(format!(
            "the file systems of {id} were thawed early by the guest: the snapshot is crash-consistent"
        ));
    }
    Ok(CapturedDisk {
        overlay,
        pause_duration,
        consistency,
        variables,
    })
}

/// Flushes the disk, so that QEMU, which flushes it when it stops the guest, has little left to write during the pause.
///
/// Repeated after a slow flush, because more data has collected behind it.
async fn flush_overlay(job: SnapshotJob<'_>) -> Result<()> {
    let (host, ctx) = (job.host, job.ctx);
    for _ in 0..MAX_FLUSHES {
        let start = Instant::now();
        if let Err(error) = host
            .fs()
            .flush_file(&job.source.disk_path, &ctx.cancel)
            .await
        {
            ctx.check_cancelled()?;
            tracing::debug!("{error}");
            break;
        }
        if start.elapsed() < QUICK_FLUSH {
            break;
        }
    }
    Ok(())
}

/// Captures the overlay and the UEFI variables of the paused guest.
async fn capture_disk<'a>(
    job: SnapshotJob<'_>,
    backup: &Backup,
    method: &'a CaptureMethod,
    files: PreopenedDisk,
) -> Result<(CapturedOverlay<'a>, Option<Bytes>), ComposeAbort> {
    let (host, source, ctx) = (job.host, job.source, job.ctx);
    let PreopenedDisk { overlay, variables } = files;
    let variables = async {
        match (variables, &source.variables) {
            (Some(file), Some(path)) => Ok(Some(
                variables::read_whole_file(&file.into_reader().await?, path).await?,
            )),
            _ => Ok::<_, ComposeAbort>(None),
        }
    };
    let into_abort = |error: Error| match error.kind() {
        Kind::Cancelled => ComposeAbort::Failed(error),
        Kind::Unreachable if host.is_remote() => ComposeAbort::Failed(error),
        _ => ComposeAbort::MethodUnavailable(error.to_string()),
    };
    match method {
        CaptureMethod::Backup { target } => {
            let tables = async {
                match overlay {
                    Some(file) => {
                        let (buffers, budget) = (BufferPool::default(), TableBudget::default());
                        read_tables(&buffers, &budget, &file.into_reader().await?).await
                    }
                    None => Err(internal_error("no overlay").into()),
                }
            };
            let begin = async { backup.begin(target).await.map_err(into_abort) };
            let all = async { tokio::try_join!(Box::pin(tables), Box::pin(variables), begin) };
            let (tables, variables, ()) = timeout(CAPTURE_TIMEOUT, all).await.map_err(|_| {
                ComposeAbort::MethodUnavailable(
                    "it took too long while the guest was paused".into(),
                )
            })??;
            let tables = Box::new(tables);
            Ok((CapturedOverlay::Backup { target, tables }, variables))
        }
        CaptureMethod::Copy { must_share_extents } => {
            let copy = async {
                let path = &source.disk_path;
                let copy = backup.copy(path, *must_share_extents, &ctx.cancel).await;
                copy.map_err(into_abort)
            };
            let (path, variables) = tokio::try_join!(Box::pin(copy), Box::pin(variables))?;
            Ok((CapturedOverlay::Copy { path }, variables))
        }
    }
}

enum ResumeError {
    /// Another client has paused or resumed the guest.
    OtherClient(Error),
    /// The guest may still be paused.
    Failed(Error),
}

async fn resume_guest(host: &Host, source: &SandboxDisk) -> Result<(), ResumeError> {
    let id = &source.id;
    let Err(error) = host.sandboxes().resume_paused(id).await else {
        return Ok(());
    };
    match resume_with_retries(host, id).await {
        Ok(()) => {
            let summary = format!("cannot resume sandbox {id} on host {}", host.name());
            let error = Error::new(Kind::Unreachable, summary).with_cause(error);
            Err(ResumeError::OtherClient(error.retryable()))
        }
        Err(error) => Err(ResumeError::Failed(resume_error(error, host, source))),
    }
}

/// Freeze of a guest's file systems by this job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freeze {
    /// It was not tried, or the agent has refused it.
    None,
    /// At least one is frozen.
    Done,
    /// The agent has not answered: it may freeze them later.
    Unknown,
}

/// Freezes the guest's file systems, unless another client has: then their thaw is left to that.
async fn freeze_file_systems(job: SnapshotJob<'_>, backup: &Backup) -> Result<Freeze> {
    let (host, source, ctx) = (job.host, job.source, job.ctx);
    let (id, uuid) = (&source.id, &source.facts.uuid);
    let reason = match host.sandboxes().fs_state(uuid).await? {
        FsState::Thawed => None,
        FsState::Frozen => Some("another client has frozen the file systems of"),
        FsState::Unknown => {
            Some("the guest agent does not tell whether file systems are frozen in")
        }
    };
    if let Some(reason) = reason {
        ctx.warn(format!(
            "{reason} {id}; the snapshot will be crash-consistent"
        ));
        return Ok(Freeze::None);
    }
    backup.mark_freezing().await?;
    match host.sandboxes().freeze(id).await {
        Ok(count) => {
            ctx.info(format!("froze {count} file systems of {id}"));
            Ok(match count {
                0 => Freeze::None,
                _ => Freeze::Done,
            })
        }
        Err(error) => {
            ctx.warn(format!("{error}; the snapshot will be crash-consistent"));
            match host.sandboxes().fs_state(uuid).await {
                Ok(FsState::Thawed) => {
                    backup.mark_thawed();
                    Ok(Freeze::None)
                }
                _ => Ok(Freeze::Unknown),
            }
        }
    }
}

/// Thaws the guest's file systems if this job has frozen them; returns whether any was still frozen.
async fn thaw_file_systems(job: SnapshotJob<'_>, backup: &Backup, freeze: Freeze) -> Result<bool> {
    let (host, source, ctx) = (job.host, job.source, job.ctx);
    if freeze == Freeze::None {
        return Ok(false);
    }
    let mut attempts = 1;
    loop {
        match host.sandboxes().thaw(&source.id).await {
            Ok(count) => {
                backup.mark_thawed();
                return Ok(count > 0);
            }
            Err(error) if attempts == MAX_THAW_ATTEMPTS => {
                return Err(error
                    .hint("the watchdog on the host keeps trying; Windows thaws them by itself"));
            }
            Err(error) => ctx.warn(error.to_string()),
        }
        attempts += 1;
    }
}
