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

use super::Break;
use super::layers::read_tables;
use crate::flatten::resume;
use crate::source::Source;
use crate::{Context, variables};

/// For all that is done while the guest stands still, copying apart: what takes longer is given up.
const STILL: Duration = Duration::from_secs(8);
/// For all of that with file systems at rest: Windows lets them go on by itself after 10 s.
const AT_REST: Duration = Duration::from_secs(9);
/// How often the disk is flushed before its guest is paused, as long as that takes longer than this.
const FLUSHES: u32 = 3;
const QUICK_FLUSH: Duration = Duration::from_millis(200);
/// How often an agent is told to let file systems go on before that is left to the guard.
const THAW_TRIES: u32 = 3;

/// The disk as it was, and what keeps it.
pub(super) struct Moment {
    backup: Backup,
    top: Top,
    pub paused: Duration,
    pub consistency: Consistency,
    pub variables: Option<Bytes>,
}

/// The overlay.
enum Top {
    /// Its tables, and the disk.
    Export {
        tables: Tables,
        export: Export,
    },
    Copy(FileReader),
}

/// What was taken while the guest stood still.
struct Caught {
    /// Of the overlay, where that is not copied.
    tables: Option<Tables>,
    /// Path of the overlay's copy.
    copy: Option<String>,
    variables: Option<Bytes>,
}

/// Bytes for the composer.
pub(super) enum Taken {
    /// Of the layer's file.
    Host(Bytes),
    /// Of the disk.
    Guest(Bytes),
}

/// How the overlay is taken.
enum Plan {
    /// With the guest's name of the disk.
    Backup { target: String },
    /// Does the copy have to share the overlay's extents, because there is no room for more?
    Copy { shared: bool },
}

/// Files that stand open before the guest is paused.
struct Opened {
    /// Where it is not copied.
    overlay: Option<PreopenedFile>,
    variables: Option<PreopenedFile>,
}

impl Opened {
    async fn ahead(host: &Host, source: &Source, plan: &Plan) -> Self {
        let overlay = async {
            match plan {
                Plan::Backup { .. } => Some(host.preopen(&source.disk).await),
                Plan::Copy { .. } => None,
            }
        };
        let variables = async {
            match &source.variables {
                Some(path) => Some(host.preopen(path).await),
                None => None,
            }
        };
        let (overlay, variables) = tokio::join!(Box::pin(overlay), Box::pin(variables));
        Self { overlay, variables }
    }
}

impl Moment {
    /// Pauses the guest, takes the moment by `method`, and lets it go on. Whatever happens, the guest runs when this
    /// returns, or the guard on its host lets it go on.
    ///
    /// # Errors
    /// [`Break::Unfit`] where the host cannot do it that way. Nothing is left then.
    pub(super) async fn take(
        host: &Host,
        source: &Source,
        method: Method,
        ctx: &Context,
    ) -> Result<Self, Break> {
        let plan = match method {
            Method::Backup => match host.backup_support(&source.id, &source.disk).await? {
                Ok(target) => Plan::Backup { target },
                Err(why) => return Err(Break::Unfit(why)),
            },
            _ => {
                let free = host.free_bytes(&host.settings().sandboxes_dir).await?;
                let file = host.image_file(&source.disk).await?;
                let wanted = file.map_or(u64::MAX, |file| file.allocated_bytes);
                Plan::Copy {
                    shared: wanted > free,
                }
            }
        };
        let thaw = match plan {
            // Copying may take longer than a guest can be kept from writing.
            Plan::Copy { .. } => false,
            Plan::Backup { .. } => host.has_agent(&source.id).await?,
        };
        ctx.go_on()?;
        let scratch = match plan {
            Plan::Backup { .. } => source.virtual_size(),
            Plan::Copy { .. } => None,
        };
        let prepared = host.prepare_backup(&source.id, thaw, scratch);
        let backup = match Box::pin(prepared).await {
            Ok(backup) => backup,
            Err(error) if error.kind() == Kind::Unreachable && error.is_retryable() => {
                return Err(error.into());
            }
            Err(error) => return Err(Break::Unfit(error.to_string())),
        };
        match Box::pin(hold(host, source, &backup, &plan, thaw, ctx)).await {
            Ok(held) => Ok(Self {
                backup,
                top: held.top,
                paused: held.paused,
                consistency: held.consistency,
                variables: held.variables,
            }),
            Err(Fell::Clear(broken)) => {
                clear(backup, ctx).await;
                Err(broken)
            }
            // Dropped without being cleared, the guard goes on trying.
            Err(Fell::Leave(error)) => {
                ctx.warn(error.to_string());
                Err(error.into())
            }
        }
    }

    /// Its tables of the overlay, where the overlay itself cannot be read.
    pub(super) fn tables(&self) -> Option<&Tables> {
        match &self.top {
            Top::Export { tables, .. } => Some(tables),
            Top::Copy(_) => None,
        }
    }

    /// The overlay's copy, where there is one.
    pub(super) fn copy(&self) -> Option<&FileReader> {
        match &self.top {
            Top::Export { .. } => None,
            Top::Copy(reader) => Some(reader),
        }
    }

    /// Reads what the composer wants of the overlay.
    pub(super) async fn read(&self, buffers: &BufferPool, read: &ReadRequest) -> Result<Taken> {
        match &self.top {
            Top::Export { export, .. } => {
                let bytes = export.read(buffers, &read.guest_ranges()).await?;
                Ok(Taken::Guest(bytes))
            }
            // Some MiB at most.
            Top::Copy(reader) => reader
                .read_at(buffers, read.host_range().start, read.host_bytes() as usize)
                .await
                .map(Taken::Host),
        }
    }

    /// Returns when it is lost, saying why.
    pub(super) async fn trouble(&self) -> Error {
        match &self.top {
            Top::Export { .. } => self.backup.wait_for_failure().await,
            Top::Copy(_) => std::future::pending().await,
        }
    }

    /// Why it is really lost, where reading failed with `error`.
    pub(super) async fn explain(&self, error: Error) -> Error {
        match (&self.top, error.kind()) {
            (Top::Export { .. }, Kind::Unreachable) => {
                self.backup.diagnose().await.unwrap_or(error)
            }
            _ => error,
        }
    }

    /// Lets go of it; nothing stays of it on the host.
    pub(super) async fn clear(self, ctx: &Context) {
        let Self { backup, top, .. } = self;
        drop(top);
        clear(backup, ctx).await;
    }
}

async fn clear(backup: Backup, ctx: &Context) {
    ctx.progress.enter(Phase::CleaningUp, 0);
    let dir = backup.dir().to_owned();
    // The guard goes on trying, and the next start.
    if let Err(error) = backup.clear().await {
        ctx.warn(format!("{error}; {dir} is left to the guard"));
    }
}

/// What was taken.
struct Held {
    top: Top,
    paused: Duration,
    consistency: Consistency,
    variables: Option<Bytes>,
}

/// Why nothing was.
enum Fell {
    Clear(Break),
    /// The guest may stand still yet.
    Leave(Error),
}

impl<E: Into<Break>> From<E> for Fell {
    fn from(error: E) -> Self {
        Self::Clear(error.into())
    }
}

async fn hold(
    host: &Host,
    source: &Source,
    backup: &Backup,
    plan: &Plan,
    thaw: bool,
    ctx: &Context,
) -> Result<Held, Fell> {
    let id = &source.id;
    let opened = Opened::ahead(host, source, plan).await;
    flush(host, source, ctx).await?;
    let frozen = thaw && freeze(host, source, ctx).await;
    let at_rest = Instant::now();
    ctx.progress.enter(Phase::Pausing, 0);
    let since = Instant::now();
    let suspended = host.suspend_running(id).await;
    tracing::debug!("{id} stands still after {:?}", since.elapsed());
    let caught = match &suspended {
        Ok(()) => Box::pin(catch(host, source, backup, plan, opened, ctx)).await,
        Err(error) => Err(error.clone().into()),
    };
    tracing::debug!("what it takes was taken after {:?}", since.elapsed());
    // From here on nothing may return before the guest runs again or the guard has been left to it.
    let resumed = match suspended {
        // Somebody else has paused it, and it is his.
        Err(error) if error.kind() == Kind::Conflict => Err(Resumed::By(error)),
        _ => go_on(host, source).await,
    };
    let paused = since.elapsed();
    if let Err(Resumed::Not(error)) = resumed {
        return Err(Fell::Leave(error));
    }
    backup.mark_running();
    let was_at_rest = match thaw {
        true => release(host, source, backup, ctx)
            .await
            .map_err(Fell::Leave)?,
        false => false,
    };
    let taken_in_time = at_rest.elapsed() < AT_REST;
    if let Err(Resumed::By(why)) = resumed {
        // What was taken may be of two moments.
        caught?;
        return Err(why.into());
    }
    let milliseconds = paused.as_millis();
    ctx.info(format!("{id} runs again after {milliseconds} ms"));
    let caught = caught?;
    ctx.go_on()?;
    let top = match (plan, caught.tables, &caught.copy) {
        (Plan::Backup { target }, Some(tables), _) => {
            let export = backup.open(target).await;
            let export = export.map_err(|error| Break::Unfit(error.to_string()))?;
            Top::Export { tables, export }
        }
        (_, _, Some(path)) => Top::Copy(host.open_reader(path).await?),
        _ => return Err(super::broken("no overlay was taken").into()),
    };
    let consistency = match frozen && was_at_rest && taken_in_time {
        true => Consistency::Quiesced,
        false => Consistency::CrashConsistent,
    };
    if frozen && consistency != Consistency::Quiesced {
        ctx.warn(format!(
            "the file systems of {id} had gone on by themselves: the snapshot is crash-consistent"
        ));
    }
    Ok(Held {
        top,
        paused,
        consistency,
        variables: caught.variables,
    })
}

/// QEMU flushes the disk when it stops the guest: what the guest and others on its file system wrote minutes ago is not
/// to be waited for then. A flush that took long has let more come up behind it.
async fn flush(host: &Host, source: &Source, ctx: &Context) -> Result<()> {
    for _ in 0..FLUSHES {
        let since = Instant::now();
        if let Err(error) = host.flush_file(&source.disk, &ctx.cancel).await {
            ctx.go_on()?;
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
async fn catch(
    host: &Host,
    source: &Source,
    backup: &Backup,
    plan: &Plan,
    opened: Opened,
    ctx: &Context,
) -> Result<Caught, Break> {
    let Opened { overlay, variables } = opened;
    let variables = async {
        match (variables, &source.variables) {
            (Some(ahead), Some(path)) => Ok(Some(
                variables::read_all(&ahead.into_reader().await?, path).await?,
            )),
            _ => Ok::<_, Break>(None),
        }
    };
    let unfit = |error: Error| match error.kind() {
        Kind::Cancelled => Break::Failed(error),
        Kind::Unreachable if host.is_remote() => Break::Failed(error),
        _ => Break::Unfit(error.to_string()),
    };
    match plan {
        Plan::Backup { target } => {
            let tables = async {
                match overlay {
                    Some(ahead) => {
                        read_tables(&BufferPool::default(), &ahead.into_reader().await?).await
                    }
                    None => Err(super::broken("no overlay").into()),
                }
            };
            let begin = async { backup.begin(target).await.map_err(unfit) };
            let all = async { tokio::try_join!(Box::pin(tables), Box::pin(variables), begin) };
            let late = |_| Break::Unfit("it took too long while the guest stood still".into());
            let (tables, variables, ()) = timeout(STILL, all).await.map_err(late)??;
            Ok(Caught {
                tables: Some(tables),
                copy: None,
                variables,
            })
        }
        Plan::Copy { shared } => {
            let copy = async {
                let copied = backup.copy(&source.disk, *shared, &ctx.cancel).await;
                copied.map_err(unfit)
            };
            let (copy, variables) = tokio::try_join!(Box::pin(copy), Box::pin(variables))?;
            Ok(Caught {
                tables: None,
                copy: Some(copy),
                variables,
            })
        }
    }
}

/// Why it was not us who let the guest go on.
enum Resumed {
    /// Somebody else had, or had paused it.
    By(Error),
    /// It may stand still yet.
    Not(Error),
}

async fn go_on(host: &Host, source: &Source) -> Result<(), Resumed> {
    let id = &source.id;
    let Err(error) = host.resume_paused(id).await else {
        return Ok(());
    };
    let what = format!("cannot resume sandbox {id} on host {}", host.name());
    match resume(host, id).await {
        Ok(()) => {
            let error = Error::new(Kind::Unreachable, what).with_cause(error);
            Err(Resumed::By(error.retryable()))
        }
        Err(error) => Err(Resumed::Not(error.context(what).hint(format!(
            "a guard on the host goes on trying; else run `virsh resume {id}` there"
        )))),
    }
}

/// Brings the guest's file systems to rest; are they?
async fn freeze(host: &Host, source: &Source, ctx: &Context) -> bool {
    match host.freeze(&source.id).await {
        Ok(count) => {
            ctx.info(format!("{count} file systems of {} are at rest", source.id));
            count > 0
        }
        Err(error) => {
            ctx.warn(format!("{error}; the snapshot will be crash-consistent"));
            false
        }
    }
}

/// Lets the guest's file systems go on; were they at rest until now?
async fn release(host: &Host, source: &Source, backup: &Backup, ctx: &Context) -> Result<bool> {
    let mut tries = 1;
    loop {
        match host.thaw(&source.id).await {
            Ok(count) => {
                backup.mark_thawed();
                return Ok(count > 0);
            }
            Err(error) if tries == THAW_TRIES => {
                return Err(error.hint(
                    "a guard on the host goes on trying; Windows lets them go on by itself",
                ));
            }
            Err(error) => ctx.warn(error.to_string()),
        }
        tries += 1;
    }
}
