//! Logging to the log pane (tui-logger) and to a file.

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use color_eyre::Result;
use color_eyre::eyre::WrapErr;
use snapdeck_model::printable;
use tokio::sync::Notify;
use tracing::field::Field;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{self, FormatFields, Writer};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};
use tui_logger::{LevelFilter, TuiTracingSubscriberLayer};

/// Lines kept for the pane. The demo's S3 server is left out: its clients log the same errors with more context.
const PANE_FILTER: &str = "warn,snapdeck=debug,s3s=off,s3s_fs=off";
/// Lines written to the file unless `SNAPDECK_LOG` is set.
const FILE_FILTER: &str = "warn,snapdeck=info,s3s=off,s3s_fs=off";

/// Wakes the event loop when there are new lines, once for all of them.
struct WakeLayer(Arc<Notify>);

impl<S: Subscriber> Layer<S> for WakeLayer {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.0.notify_one();
    }
}

/// Starts logging to the pane and to `file`, which is appended to.
///
/// `directives` select the lines of the file, as in `env_logger`: `snapdeck=debug`, for instance. The returned value is
/// notified when there are lines to [`tui_logger::move_events`]. `tui_logger::init_logger` is not used: it starts a
/// thread that wakes 98 times a second.
pub(crate) fn start(file: Option<&Path>, directives: Option<&str>) -> Result<Arc<Notify>> {
    static STARTED: OnceLock<Arc<Notify>> = OnceLock::new();
    if let Some(notify) = STARTED.get() {
        return Ok(notify.clone());
    }
    let notify = Arc::new(Notify::new());
    tui_logger::set_default_level(LevelFilter::Debug);
    let file_filter = EnvFilter::try_new(directives.unwrap_or(FILE_FILTER)).wrap_err(
        "cannot parse SNAPDECK_LOG: it must be a list of levels, such as warn,snapdeck=debug",
    )?;
    let file = file.map(open).transpose()?;
    let file = file.map(|file| {
        let plain = fmt::layer()
            .fmt_fields(log_fields())
            .with_ansi(false)
            .with_writer(Mutex::new(file));
        plain.with_filter(file_filter)
    });
    let pane = TuiTracingSubscriberLayer.and_then(WakeLayer(notify.clone()));
    tracing_subscriber::registry()
        .with(pane.with_filter(EnvFilter::new(PANE_FILTER)))
        .with(file)
        .try_init()
        .wrap_err("cannot start logging")?;
    Ok(STARTED.get_or_init(|| notify).clone())
}

/// Returns a formatter of log lines that makes their texts printable: each event is one line, and has no sequences for a
/// terminal but those of the level's colour.
pub fn log_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    let write = |out: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let text = printable(&format!("{value:?}"));
        match field.name() {
            "message" => write!(out, "{text}"),
            name => write!(out, "{name}={text}"),
        }
    };
    format::debug_fn(write).delimited(" ")
}

fn open(path: &Path) -> Result<std::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .wrap_err_with(|| format!("cannot create the log directory {}", parent.display()))?;
    }
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(path);
    file.wrap_err_with(|| format!("cannot write the log file {}", path.display()))
}
