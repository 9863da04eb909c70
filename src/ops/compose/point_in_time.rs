//! One moment of a running sandbox's disk, kept while its guest goes on.
//!
//! ```text
//! guest    ──runs──┤ freeze ┤──┤ stands still ┤──┤ thaw ├──runs────────────────
//! we                             overlay's tables      clusters, by the backup's
//!                                backup begins         socket ... end the backup
//! ```
//!
//! The backup shows the disk flat, so the tables are read while nobody writes them: they tell what is the overlay's.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use snapdeck_host::{Backup, Export, FileReader, Host, PreopenedFile};
use snapdeck_model::{BufferPool, Consistency, Error, Kind, Method, Phase, Result};
use snapdeck_qcow2::{ReadRequest, Tables};

use super::ComposeAbort;
use super::disk_chain::read_tables;
use crate::convert::resume_with_retries;
use crate::sandbox_disk::SandboxDisk;
use crate::{Context, variables};

/// For all that is done while the guest stands still, copying apart: what takes longer is given up.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(8);
/// For all of that with file systems at rest: Windows lets them go on by itself after 10 s.
const MAX_FREEZE_DURATION: Duration = Duration::from_secs(9);
/// How often the disk is flushed before its guest is paused, as long as that takes longer than this.
const MAX_FLUSHES: u32 = 3;
const QUICK_FLUSH: Duration = Duration::from_millis(200);
/// How often an agent is told to let file systems go on before that is left to the guard.
const MAX_THAW_ATTEMPTS: u32 = 3;

/// The disk as it was, and what keeps it.
pub(super) struct PointInTime {
    backup: Backup,
    overlay: OverlaySource,
    pub pause_duration: Duration,
    pub consistency: Consistency,
    pub variables: Option<Bytes>,
}

/// The overlay.
enum OverlaySource {
    /// Its tables, and the disk.
    Export {
        tables: Tables,
        export: Export,
    },
    Copy(FileReader),
}

/// What was taken while the guest stood still.
struct CapturedDisk {
    /// Of the overlay, where that is not copied.
    tables: Option<Tables>,
    /// Path of the overlay's copy.
    copy: Option<String>,
    variables: Option<Bytes>,
}

/// Bytes for the composer.
pub(super) enum ClusterData {
    /// Of the layer's file.
    Host(Bytes),
    /// Of the disk.
    Guest(Bytes),
}

/// How the overlay is taken.
enum CaptureMethod {
    /// With the guest's name of the disk.
    Backup { target: String },
    /// Does the copy have to share the overlay's extents, because there is no room for more?
    Copy { shared: bool },
}

/// Files that stand open before the guest is paused.
struct PreopenedDisk {
    /// Where it is not copied.
    overlay: Option<PreopenedFile>,
    variables: Option<PreopenedFile>,
}

impl PreopenedDisk {
    async fn open(host: &Host, source: &SandboxDisk, plan: &CaptureMethod) -> Self {
        let overlay = async {
            match plan {
                CaptureMethod::Backup { .. } => Some(host.fs().preopen(&source.disk_path).await),
                CaptureMethod::Copy { .. } => None,
            }
        };
        let variables = async {
            match &source.variables {
                Some(path) => Some(host.fs().preopen(path).await),
                None => None,
            }
        };
        let (overlay, variables) = tokio::join!(Box::pin(overlay), Box::pin(variables));
        Self { overlay, variables }
    }
}

impl PointInTime {
    /// Pauses the guest, takes the moment by `method`, and lets it go on. Whatever happens, the guest runs when this
    /// returns, or the guard on its host lets it go on.
    ///
    /// # Errors
    /// [`ComposeAbort::MethodUnavailable`] where the host cannot do it that way. Nothing is left then.
    pub(super) async fn capture(
        host: &Host,
        source: &SandboxDisk,
        method: Method,
        ctx: &Context,
    ) -> Result<Self, ComposeAbort> {
        let plan = match method {
            Method::Backup => match host
                .backups()
                .support(&source.id, &source.disk_path)
                .await?
            {
                Ok(target) => CaptureMethod::Backup { target },
                Err(why) => return Err(ComposeAbort::MethodUnavailable(why)),
            },
            _ => {
                let free = host.fs().free_bytes(&host.settings().sandboxes_dir).await?;
                let file = host.fs().image_file(&source.disk_path).await?;
                let wanted = file.map_or(u64::MAX, |file| file.allocated_bytes);
                CaptureMethod::Copy {
                    shared: wanted > free,
                }
            }
        };
        let thaw = match plan {
            // Copying may take longer than a guest can be kept from writing.
            CaptureMethod::Copy { .. } => false,
            CaptureMethod::Backup { .. } => host.sandboxes().has_agent(&source.id).await?,
        };
        ctx.check_cancelled()?;
        let scratch = match plan {
            CaptureMethod::Backup { .. } => source.virtual_size(),
            CaptureMethod::Copy { .. } => None,
        };
        let prepared = host.backups().prepare(&source.id, thaw, scratch);
        let backup = match Box::pin(prepared).await {
            Ok(backup) => backup,
            Err(error) if error.kind() == Kind::Unreachable && error.is_retryable() => {
                return Err(error.into());
            }
            Err(error) => return Err(ComposeAbort::MethodUnavailable(error.to_string())),
        };
        match Box::pin(freeze_and_capture(host, source, &backup, &plan, thaw, ctx)).await {
            Ok(held) => Ok(Self {
                backup,
                overlay: held.overlay,
                pause_duration: held.pause_duration,
                consistency: held.consistency,
                variables: held.variables,
            }),
            Err(CaptureError::GuestRunning(broken)) => {
                end_backup(backup, ctx).await;
                Err(broken)
            }
            // Dropped without being cleared, the guard goes on trying.
            Err(CaptureError::GuestMaybePaused(error)) => {
                ctx.warn(error.to_string());
                Err(error.into())
            }
        }
    }

    /// Its tables of the overlay, where the overlay itself cannot be read.
    pub(super) fn tables(&self) -> Option<&Tables> {
        match &self.overlay {
            OverlaySource::Export { tables, .. } => Some(tables),
            OverlaySource::Copy(_) => None,
        }
    }

    /// The overlay's copy, where there is one.
    pub(super) fn copy(&self) -> Option<&FileReader> {
        match &self.overlay {
            OverlaySource::Export { .. } => None,
            OverlaySource::Copy(reader) => Some(reader),
        }
    }

    /// Reads what the composer wants of the overlay.
    pub(super) async fn read(
        &self,
        buffers: &BufferPool,
        read: &ReadRequest,
    ) -> Result<ClusterData> {
        match &self.overlay {
            OverlaySource::Export { export, .. } => {
                let bytes = export.read(buffers, &read.guest_ranges()).await?;
                Ok(ClusterData::Guest(bytes))
            }
            // Some MiB at most.
            OverlaySource::Copy(reader) => reader
                .read_at(buffers, read.host_range().start, read.host_bytes() as usize)
                .await
                .map(ClusterData::Host),
        }
    }

    /// Returns when it is lost, saying why.
    pub(super) async fn backup_error(&self) -> Error {
        match &self.overlay {
            OverlaySource::Export { .. } => self.backup.wait_for_failure().await,
            OverlaySource::Copy(_) => std::future::pending().await,
        }
    }

    /// Why it is really lost, where reading failed with `error`.
    pub(super) async fn explain(&self, error: Error) -> Error {
        match (&self.overlay, error.kind()) {
            (OverlaySource::Export { .. }, Kind::Unreachable) => {
                self.backup.diagnose().await.unwrap_or(error)
            }
            _ => error,
        }
    }

    /// Lets go of it; nothing stays of it on the host.
    pub(super) async fn end(self, ctx: &Context) {
        let Self {
            backup,
            overlay: top,
            ..
        } = self;
        drop(top);
        end_backup(backup, ctx).await;
    }
}

async fn end_backup(backup: Backup, ctx: &Context) {
    ctx.progress.enter(Phase::CleaningUp, 0);
    let dir = backup.dir().to_owned();
    // The guard goes on trying, and the next start.
    if let Err(error) = backup.clear().await {
        ctx.warn(format!("{error}; the watchdog removes {dir}"));
    }
}

/// What was taken.
struct FrozenGuest {
    overlay: OverlaySource,
    pause_duration: Duration,
    consistency: Consistency,
    variables: Option<Bytes>,
}

/// Why nothing was.
enum CaptureError {
    GuestRunning(ComposeAbort),
    /// The guest may stand still yet.
    GuestMaybePaused(Error),
}

impl<E: Into<ComposeAbort>> From<E> for CaptureError {
    fn from(error: E) -> Self {
        Self::GuestRunning(error.into())
    }
}

async fn freeze_and_capture(
    host: &Host,
    source: &SandboxDisk,
    backup: &Backup,
    plan: &CaptureMethod,
    thaw: bool,
    ctx: &Context,
) -> Result<FrozenGuest, CaptureError> {
    let id = &source.id;
    let opened = PreopenedDisk::open(host, source, plan).await;
    flush_overlay(host, source, ctx).await?;
    let frozen = thaw && freeze_file_systems(host, source, ctx).await;
    let at_rest = Instant::now();
    ctx.progress.enter(Phase::Pausing, 0);
    let since = Instant::now();
    let suspended = host.sandboxes().suspend_running(id).await;
    tracing::debug!("{id} paused after {:?}", since.elapsed());
    let caught = match &suspended {
        Ok(()) => Box::pin(capture_disk(host, source, backup, plan, opened, ctx)).await,
        Err(error) => Err(error.clone().into()),
    };
    tracing::debug!("disk state captured after {:?}", since.elapsed());
    // From here on nothing may return before the guest runs again or the guard has been left to it.
    let resumed = match suspended {
        // Somebody else has paused it, and it is his.
        Err(error) if error.kind() == Kind::Conflict => Err(ResumeError::OtherClient(error)),
        _ => resume_guest(host, source).await,
    };
    let paused = since.elapsed();
    if let Err(ResumeError::Failed(error)) = resumed {
        return Err(CaptureError::GuestMaybePaused(error));
    }
    backup.mark_running();
    let was_at_rest = match thaw {
        true => release_guest(host, source, backup, ctx)
            .await
            .map_err(CaptureError::GuestMaybePaused)?,
        false => false,
    };
    let taken_in_time = at_rest.elapsed() < MAX_FREEZE_DURATION;
    if let Err(ResumeError::OtherClient(why)) = resumed {
        // What was taken may be of two moments.
        caught?;
        return Err(why.into());
    }
    let milliseconds = paused.as_millis();
    ctx.info(format!("{id} resumed after {milliseconds} ms"));
    let caught = caught?;
    ctx.check_cancelled()?;
    let top = match (plan, caught.tables, &caught.copy) {
        (CaptureMethod::Backup { target }, Some(tables), _) => {
            let export = backup.open(target).await;
            let export =
                export.map_err(|error| ComposeAbort::MethodUnavailable(error.to_string()))?;
            OverlaySource::Export { tables, export }
        }
        (_, _, Some(path)) => OverlaySource::Copy(host.fs().open_reader(path).await?),
        _ => return Err(super::broken_plan_error("no overlay was taken").into()),
    };
    let consistency = match frozen && was_at_rest && taken_in_time {
        true => Consistency::Quiesced,
        false => Consistency::CrashConsistent,
    };
    if frozen && consistency != Consistency::Quiesced {
        ctx.warn(format!(
            "the file systems of {id} were thawed early by the guest: the snapshot is crash-consistent"
        ));
    }
    Ok(FrozenGuest {
        overlay: top,
        pause_duration: paused,
        consistency,
        variables: caught.variables,
    })
}

/// QEMU flushes the disk when it stops the guest: what the guest and others on its file system wrote minutes ago is not
/// to be waited for then. A flush that took long has let more come up behind it.
async fn flush_overlay(host: &Host, source: &SandboxDisk, ctx: &Context) -> Result<()> {
    for _ in 0..MAX_FLUSHES {
        let since = Instant::now();
        if let Err(error) = host.fs().flush_file(&source.disk_path, &ctx.cancel).await {
            ctx.check_cancelled()?;
            tracing::debug!("{error}");
            break;
        }
        if since.elapsed() < QUICK_FLUSH {
            break;
        }
    }
    Ok(())
}

/// What has to happen while the guest stands still.
async fn capture_disk(
    host: &Host,
    source: &SandboxDisk,
    backup: &Backup,
    plan: &CaptureMethod,
    opened: PreopenedDisk,
    ctx: &Context,
) -> Result<CapturedDisk, ComposeAbort> {
    let PreopenedDisk { overlay, variables } = opened;
    let variables = async {
        match (variables, &source.variables) {
            (Some(ahead), Some(path)) => Ok(Some(
                variables::read_whole_file(&ahead.into_reader().await?, path).await?,
            )),
            _ => Ok::<_, ComposeAbort>(None),
        }
    };
    let unfit = |error: Error| match error.kind() {
        Kind::Cancelled => ComposeAbort::Failed(error),
        Kind::Unreachable if host.is_remote() => ComposeAbort::Failed(error),
        _ => ComposeAbort::MethodUnavailable(error.to_string()),
    };
    match plan {
        CaptureMethod::Backup { target } => {
            let tables = async {
                match overlay {
                    Some(ahead) => {
                        read_tables(&BufferPool::default(), &ahead.into_reader().await?).await
                    }
                    None => Err(super::broken_plan_error("no overlay").into()),
                }
            };
            let begin = async { backup.begin(target).await.map_err(unfit) };
            let all = async { tokio::try_join!(Box::pin(tables), Box::pin(variables), begin) };
            let late = |_| {
                ComposeAbort::MethodUnavailable(
                    "it took too long while the guest was paused".into(),
                )
            };
            let (tables, variables, ()) = timeout(CAPTURE_TIMEOUT, all).await.map_err(late)??;
            Ok(CapturedDisk {
                tables: Some(tables),
                copy: None,
                variables,
            })
        }
        CaptureMethod::Copy { shared } => {
            let copy = async {
                let copied = backup.copy(&source.disk_path, *shared, &ctx.cancel).await;
                copied.map_err(unfit)
            };
            let (copy, variables) = tokio::try_join!(Box::pin(copy), Box::pin(variables))?;
            Ok(CapturedDisk {
                tables: None,
                copy: Some(copy),
                variables,
            })
        }
    }
}

/// Why it was not us who let the guest go on.
enum ResumeError {
    /// Somebody else had, or had paused it.
    OtherClient(Error),
    /// It may stand still yet.
    Failed(Error),
}

async fn resume_guest(host: &Host, source: &SandboxDisk) -> Result<(), ResumeError> {
    let id = &source.id;
    let Err(error) = host.sandboxes().resume_paused(id).await else {
        return Ok(());
    };
    let what = format!("cannot resume sandbox {id} on host {}", host.name());
    match resume_with_retries(host, id).await {
        Ok(()) => {
            let error = Error::new(Kind::Unreachable, what).with_cause(error);
            Err(ResumeError::OtherClient(error.retryable()))
        }
        Err(error) => Err(ResumeError::Failed(error.context(what).hint(format!(
            "the watchdog on the host keeps trying; otherwise run `virsh resume {id}` there"
        )))),
    }
}

/// Brings the guest's file systems to rest; are they?
async fn freeze_file_systems(host: &Host, source: &SandboxDisk, ctx: &Context) -> bool {
    match host.sandboxes().freeze(&source.id).await {
        Ok(count) => {
            ctx.info(format!("froze {count} file systems of {}", source.id));
            count > 0
        }
        Err(error) => {
            ctx.warn(format!("{error}; the snapshot will be crash-consistent"));
            false
        }
    }
}

/// Lets the guest's file systems go on; were they at rest until now?
async fn release_guest(
    host: &Host,
    source: &SandboxDisk,
    backup: &Backup,
    ctx: &Context,
) -> Result<bool> {
    let mut tries = 1;
    loop {
        match host.sandboxes().thaw(&source.id).await {
            Ok(count) => {
                backup.mark_thawed();
                return Ok(count > 0);
            }
            Err(error) if tries == MAX_THAW_ATTEMPTS => {
                return Err(error
                    .hint("the watchdog on the host keeps trying; Windows thaws them by itself"));
            }
            Err(error) => ctx.warn(error.to_string()),
        }
        tries += 1;
    }
}
