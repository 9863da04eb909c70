//! Where the log goes: to tui-logger's buffer, to a file, and a nudge to the loop that draws.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use color_eyre::Result;
use color_eyre::eyre::WrapErr;
use tokio::sync::Notify;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};
use tui_logger::{LevelFilter, TuiTracingSubscriberLayer};

/// What is kept for the pane; the pane itself shows information and above unless told otherwise. The demo's S3 server
/// tells what it answers, which whoever asked tells better.
const PANE_FILTER: &str = "warn,snapdeck=debug,s3s=off,s3s_fs=off";
/// What goes to the file, where nothing else is wished for.
const FILE_FILTER: &str = "warn,snapdeck=info,s3s=off,s3s_fs=off";

/// Wakes the loop when there is a new line; many lines before it looks are one wake.
struct WakeLayer(Arc<Notify>);

impl<S: Subscriber> Layer<S> for WakeLayer {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.0.notify_one();
    }
}

/// Sends what is traced from now on to the pane and, appended, to `file`. What comes back is notified
/// when there are lines to [`tui_logger::move_events`]. `wished` is what goes to the file, as `env_logger` has it:
/// `snapdeck=debug`, for instance.
///
/// `tui_logger::init_logger` is not for us: it starts a thread that wakes 98 times a second for ever.
pub(crate) fn start(file: Option<&Path>, wished: Option<&str>) -> Result<Arc<Notify>> {
    static STARTED: OnceLock<Arc<Notify>> = OnceLock::new();
    if let Some(notify) = STARTED.get() {
        return Ok(notify.clone());
    }
    let notify = Arc::new(Notify::new());
    tui_logger::set_default_level(LevelFilter::Debug);
    let written = EnvFilter::try_new(wished.unwrap_or(FILE_FILTER))
        .wrap_err("SNAPDECK_LOG is not understood; it is a list such as warn,snapdeck=debug")?;
    let file = file.map(open).transpose()?;
    let file = file.map(|file| {
        let plain = fmt::layer().with_ansi(false).with_writer(Mutex::new(file));
        plain.with_filter(written)
    });
    let pane = TuiTracingSubscriberLayer.and_then(WakeLayer(notify.clone()));
    tracing_subscriber::registry()
        .with(pane.with_filter(EnvFilter::new(PANE_FILTER)))
        .with(file)
        .try_init()
        .wrap_err("cannot start logging")?;
    Ok(STARTED.get_or_init(|| notify).clone())
}

fn open(path: &Path) -> Result<std::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .wrap_err_with(|| format!("cannot make the log's directory {}", parent.display()))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.wrap_err_with(|| format!("cannot write the log file {}", path.display()))
}
