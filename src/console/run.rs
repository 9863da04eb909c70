//! The loop: waits for keys, views, log lines and, only while something moves, for time.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use color_eyre::Result;
use color_eyre::eyre::{WrapErr, eyre};
use crossterm::event::Event;
use ratatui::layout::Size;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::DropGuard;

use super::app::App;
use super::background::{self, BackgroundProbe, ProbeResult};
use super::commands::{LoopControl, TaskResult};
use super::dialog::{Dialog, InterruptedJobsDialog, PullTarget};
use super::draw::draw;
use super::events::Events;
use super::keymap::Keymap;
use super::lineage::LineageQuery;
use super::picture::Canvas;
use super::session::{self, Session};
use super::terminal::{Terminal, report_panics};
use super::theme::{THEMES, Theme};
use super::tree::TreeInputs;
use super::{logging, lookup};
use snapdeck_engine::{Engine, Link};
use snapdeck_model::settings::{ConsoleSettings, PictureStyle};
use snapdeck_model::{Error, Kind};
use snapdeck_settings::read_file;

/// Between two frames of gauges.
const FRAME: Duration = Duration::from_millis(100);
/// Between two frames that no key asked for.
const MIN_DRAW_INTERVAL: Duration = Duration::from_millis(33);
/// Events taken before a frame is drawn in between.
const BURST: usize = 256;
/// A selection that moves on sooner is not asked about.
pub(crate) const SELECTION_DEBOUNCE: Duration = Duration::from_millis(200);
/// What is left of a minute is waited for before ages are drawn anew.
const MINUTE: Duration = Duration::from_secs(60);
/// The engine bounds its own end; past this the console does not wait for it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(120);

/// How long jobs that are left to the next start may take to clean up.
const SUSPEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitMode {
    /// What runs is cancelled.
    Cancel,
    /// What runs is left to the next start.
    Leave,
}

/// How the console is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the log's lines are appended, and in whose directory a panic's report is written.
    pub log_file: Option<PathBuf>,
    /// Where `session.json` and `inventory.json` are kept for the next run; `None`: nothing is kept.
    pub state_dir: Option<PathBuf>,
    /// Where the user's `keymap.toml` and `themes` are.
    pub config_dir: Option<PathBuf>,
    /// Nothing outside the console is changed.
    pub read_only: bool,
    /// Lines of plain text: no borders, no graphs, ASCII signs.
    pub plain: bool,
    /// Shown in the header: what sort of world this is, `demo` for instance.
    pub banner: Option<String>,
}

/// Shows `engine` on the terminal until the operator leaves, or the process is told to end; then ends
/// the engine. Draws before any host answers. The engine is told to follow its hosts and bucket.
///
/// # Errors
/// Where the terminal or the log file cannot be used; `InvalidInput` for keys or a theme that cannot be meant.
pub async fn run(engine: Engine, options: Options) -> Result<()> {
    let lines = logging::start(
        options.log_file.as_deref(),
        env_var("SNAPDECK_LOG").as_deref(),
    )?;
    let wishes = engine.settings().console.clone();
    let (keymap, conflicts) = keymap(options.config_dir.as_deref())?;
    let theme = theme(&wishes, options.config_dir.as_deref())?;
    report_panics(options.log_file.as_deref());
    let signals = Signals::new()?;
    let mut terminal =
        Terminal::open(wishes.mouse_enabled).wrap_err("the console needs a terminal")?;
    let mut app = App::new(engine.view(), options.banner, Instant::now());
    app.keymap = keymap;
    app.theme = theme.unwrap_or_else(|| default_theme(background::is_light_in_env(env_var)));
    (app.read_only, app.plain) = (options.read_only, options.plain);
    app.ascii = wishes.ascii_only;
    app.notify_after = wishes.notification_threshold;
    let picture = match options.plain || wishes.ascii_only {
        true => PictureStyle::Off,
        false => wishes.picture,
    };
    app.canvas = Canvas::detect(picture, env_var, cell_pixels());
    let sandbox = &engine.settings().sandbox;
    app.defaults = (sandbox.cpus, sandbox.memory_bytes);
    app.has_journal = engine.has_journal();
    let state_dir = options.state_dir.as_deref();
    if let Some(session) = state_dir.and_then(session::load) {
        session.restore(&mut app);
    }
    for conflict in &conflicts {
        tracing::warn!("keymap.toml: {conflict}");
    }
    if let [first, rest @ ..] = conflicts.as_slice() {
        let more = match rest.len() {
            0 => String::new(),
            more => format!(", and {more} more, see the log"),
        };
        app.show_notice(format!("keymap.toml: {first}{more}"), false);
    }
    let mut screen = Screen {
        app,
        background_probe: BackgroundProbe::default(),
        last_draw: Instant::now(),
        next_draw: None,
        tasks: JoinSet::new(),
        last_picture: None,
        lineage_query_task: None,
        cost_query_task: None,
        parents_query_inputs: None,
    };
    screen.draw(&mut terminal)?;
    if theme.is_none() && background::can_query(env_var) {
        terminal.send(background::BACKGROUND_QUERY)?;
        screen.background_probe.mark_query_sent();
    }
    if let Some(dir) = options.state_dir.clone() {
        screen
            .tasks
            .spawn_blocking(move || TaskResult::SavedInventory(session::load_inventory(&dir)));
    }
    engine.follow();
    engine.load_interrupted();
    screen.app.on_view(engine.view(), Instant::now());
    if !screen.app.view.interrupted_jobs.is_empty() {
        screen
            .app
            .layers
            .push(Dialog::InterruptedJobs(InterruptedJobsDialog).into());
    }
    screen.draw(&mut terminal)?;
    let ended = screen
        .run_loop(&mut terminal, &engine, &lines, signals)
        .await;
    if let Some(dir) = state_dir
        && let Err(error) = session::save(dir, &Session::from_app(&screen.app), &engine.inventory())
    {
        tracing::warn!("cannot keep the session in {}: {error}", dir.display());
    }
    // Where the terminal is gone nobody can be asked either.
    let ending = match &ended {
        Ok(ending) => *ending,
        Err(_) if engine.has_journal() => ExitMode::Leave,
        Err(_) => ExitMode::Cancel,
    };
    let cleaned = screen.shut_down(&mut terminal, &engine, ending).await;
    drop(terminal);
    ended.and(cleaned)
}

/// The keys: the table's, and the user's from `keymap.toml`; with them what those took from the table's.
fn keymap(dir: Option<&Path>) -> snapdeck_model::Result<(Keymap, Vec<String>)> {
    let Some(path) = dir.map(|dir| dir.join("keymap.toml")) else {
        return Ok((Keymap::default(), Vec::new()));
    };
    match read_file("cannot read keys", &path, false)? {
        Some(text) => Keymap::read(&text, &path),
        None => Ok((Keymap::default(), Vec::new())),
    }
}

/// The theme that is wished for; `None`: as the background is. `NO_COLOR` wishes for none with colours.
fn theme(wishes: &ConsoleSettings, dir: Option<&Path>) -> snapdeck_model::Result<Option<Theme>> {
    let no_colors = env_var("NO_COLOR").is_some_and(|value| !value.is_empty());
    let name = match &wishes.theme {
        Some(name) => name.as_str(),
        None if no_colors => "mono",
        None => return Ok(None),
    };
    let path = dir.map(|dir| dir.join("themes").join(format!("{name}.toml")));
    let own = path
        .as_deref()
        .map(|path| read_file("cannot read the theme", path, false));
    match (own.transpose()?.flatten(), path) {
        (Some(text), Some(path)) => Theme::read(&text, &path).map(Some),
        _ => match Theme::named(name) {
            Some(theme) => Ok(Some(theme)),
            None => {
                let known: Vec<&str> = THEMES.iter().map(|(name, _)| *name).collect();
                let error = Error::new(Kind::InvalidInput, format!("no theme {name:?}"));
                Err(error.hint(format!(
                    "[console] theme is auto, {}, or a file themes/{name}.toml beside config.toml",
                    known.join(", ")
                )))
            }
        },
    }
}

fn default_theme(is_light: bool) -> Theme {
    let name = if is_light { "light" } else { "dark" };
    Theme::named(name).unwrap_or_default()
}

/// The signals that end the console as quitting does, the one by which a shell continues it, and the one that tells of
/// another size.
struct Signals {
    sigterm: Signal,
    sighup: Signal,
    sigcont: Signal,
    sigwinch: Signal,
}

/// What a signal means.
enum SignalEvent {
    Terminate,
    Continue,
    Resize,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            sigterm: signal(SignalKind::terminate())?,
            sighup: signal(SignalKind::hangup())?,
            sigcont: signal(SignalKind::from_raw(nix::libc::SIGCONT))?,
            sigwinch: signal(SignalKind::window_change())?,
        })
    }

    /// Waits for one.
    async fn next_signal(&mut self) -> SignalEvent {
        tokio::select! {
            _ = self.sigterm.recv() => SignalEvent::Terminate,
            _ = self.sighup.recv() => SignalEvent::Terminate,
            _ = self.sigcont.recv() => SignalEvent::Continue,
            _ = self.sigwinch.recv() => SignalEvent::Resize,
        }
    }
}

/// The state, and when it is to be drawn.
pub(crate) struct Screen {
    /// The state.
    pub app: App,
    /// Finds what the terminal says of its background.
    background_probe: BackgroundProbe,
    last_draw: Instant,
    /// When the next frame is to be drawn, where one is.
    next_draw: Option<Instant>,
    /// What is being waited for while the console lives on.
    pub tasks: JoinSet<TaskResult>,
    /// The picture that was last given to be made ready, and for which place.
    pub last_picture: Option<(u64, Size)>,
    /// What is being asked about the selected snapshot; no more, once this is dropped.
    pub lineage_query_task: Option<(LineageQuery, DropGuard)>,
    /// The pull whose cost is being asked for; no more, once this is dropped.
    pub cost_query_task: Option<(PullTarget, DropGuard)>,
    /// The lists whose parents are being asked for.
    pub parents_query_inputs: Option<TreeInputs>,
}

impl Screen {
    fn draw(&mut self, terminal: &mut Terminal) -> Result<()> {
        let now = Instant::now();
        let view = self.app.view.clone();
        self.app.rates.sample(&view, now);
        let mut built = Duration::ZERO;
        let areas = terminal.draw(|frame| {
            let since = Instant::now();
            let areas = draw(&self.app, frame, now);
            built = since.elapsed();
            areas
        })?;
        tracing::trace!("a frame was built in {} us", built.as_micros());
        self.app.after_draw(areas.unwrap_or_default());
        self.last_draw = now;
        self.next_draw = self.next_draw_time(now);
        Ok(())
    }

    /// When time alone changes the picture: gauges of running jobs, ages of what is away.
    fn next_draw_time(&self, now: Instant) -> Option<Instant> {
        if self.app.has_active_jobs() {
            return Some(now + FRAME);
        }
        let view = &self.app.view;
        let hosts = view.hosts.iter().map(|host| {
            let lists = self.app.hosts.get(&host.name);
            let since = lists.and_then(|lists| Some(lists.link_since?.1));
            (&host.link, host.last_scan.or(since))
        });
        let links = hosts.chain([(&view.bucket.link, view.bucket.last_listing)]);
        let seen = links
            .filter(|(link, seen)| lookup::is_stale(link, *seen) || **link == Link::Connecting)
            .filter_map(|(_, seen)| seen);
        let turn = |seen: Instant| {
            let age = now.saturating_duration_since(seen);
            now + MINUTE.saturating_sub(Duration::from_secs(age.as_secs() % 60))
        };
        seen.map(turn).min()
    }

    /// Asks for a frame soon; many changes at once are one frame.
    fn schedule_draw(&mut self) {
        let soon = Instant::now().max(self.last_draw + MIN_DRAW_INTERVAL);
        self.next_draw = Some(self.next_draw.map_or(soon, |due| due.min(soon)));
    }

    async fn run_loop(
        &mut self,
        terminal: &mut Terminal,
        engine: &Engine,
        lines: &Arc<Notify>,
        mut signals: Signals,
    ) -> Result<ExitMode> {
        let mut views = engine.watch();
        let mut lives = engine.metrics();
        let mut events = Events::listen().wrap_err("cannot listen to the terminal")?;
        let notify = engine.settings().console.notification;
        loop {
            engine.watch_sandbox(self.app.watch_target());
            self.prepare_picture();
            self.query_lineage(engine);
            self.query_pull_cost(engine);
            self.query_parents(engine);
            let due = self.next_draw;
            tokio::select! {
                biased;
                told = signals.next_signal() => match told {
                    // Nobody is there to be asked: nothing is lost.
                    SignalEvent::Terminate => return Ok(match engine.has_journal() {
                        true => ExitMode::Leave,
                        false => ExitMode::Cancel,
                    }),
                    // Whoever stopped us may have used the terminal.
                    SignalEvent::Continue => {
                        terminal.reenter()?;
                        self.draw(terminal)?;
                    }
                    SignalEvent::Resize => {
                        terminal.fit()?;
                        self.draw(terminal)?;
                    }
                },
                event = events.next() => {
                    let first = event.ok_or_else(|| eyre!("the terminal is gone"))?;
                    let mut next = self.on_event(first?, terminal, engine);
                    for _ in 0..BURST {
                        if next != LoopControl::Continue {
                            break;
                        }
                        let Some(more) = events.try_next() else { break };
                        next = self.on_event(more?, terminal, engine);
                    }
                    match next {
                        LoopControl::Exit(ending) => return Ok(ending),
                        LoopControl::Suspend => self.suspend(terminal, &mut signals.sigcont).await?,
                        LoopControl::Continue => {}
                    }
                    // Under a flood of events this branch is always the first that is ready.
                    if views.has_changed().wrap_err("the engine has ended")? {
                        let view = views.borrow_and_update().clone();
                        self.app.on_view(view, Instant::now());
                    }
                    self.draw(terminal)?;
                    self.send_notifications(terminal, notify);
                }
                () = wait_until(due) => self.draw(terminal)?,
                changed = views.changed() => {
                    changed.wrap_err("the engine has ended")?;
                    let view = views.borrow_and_update().clone();
                    self.app.on_view(view, Instant::now());
                    self.send_notifications(terminal, notify);
                    self.schedule_draw();
                }
                changed = lives.changed() => {
                    changed.wrap_err("the engine has ended")?;
                    self.app.on_metrics(lives.borrow_and_update().clone());
                    self.schedule_draw();
                }
                Some(done) = self.tasks.join_next() => {
                    self.on_task_result(done.wrap_err("a task of the console crashed")?, terminal, engine);
                    self.schedule_draw();
                }
                () = lines.notified() => {
                    tui_logger::move_events();
                    if self.app.is_log_visible() {
                        self.schedule_draw();
                    }
                }
            }
        }
    }

    /// Takes an event; tells what is next.
    fn on_event(&mut self, event: Event, terminal: &mut Terminal, engine: &Engine) -> LoopControl {
        let events = match self.background_probe.on_event(event) {
            ProbeResult::Events(events) => events,
            ProbeResult::Incomplete => return LoopControl::Continue,
            ProbeResult::IsLight(is_light) => {
                self.app.theme = default_theme(is_light);
                return LoopControl::Continue;
            }
        };
        for event in events {
            for command in self.app.on_event(event) {
                match self.execute(command, terminal, engine) {
                    LoopControl::Continue => {}
                    next => return next,
                }
            }
        }
        LoopControl::Continue
    }

    /// Shows the clean-up until the engine has ended.
    async fn shut_down(
        &mut self,
        terminal: &mut Terminal,
        engine: &Engine,
        ending: ExitMode,
    ) -> Result<()> {
        self.app.is_shutting_down = true;
        self.app.layers.clear();
        // The terminal may be what ended us: the clean-up goes on without it.
        let _ = self.draw(terminal);
        let mut views = engine.watch();
        let shutdown = timeout(SHUTDOWN_TIMEOUT, async {
            match ending {
                ExitMode::Cancel => engine.shutdown().await,
                ExitMode::Leave => engine.suspend(SUSPEND_TIMEOUT).await,
            }
        });
        tokio::pin!(shutdown);
        loop {
            let due = self.next_draw;
            tokio::select! {
                ended = &mut shutdown => {
                    return ended.wrap_err("jobs did not end in time; see the log");
                }
                () = wait_until(due) => {
                    let _ = terminal.fit();
                    let _ = self.draw(terminal);
                }
                Ok(()) = views.changed() => {
                    let view = views.borrow_and_update().clone();
                    self.app.on_view(view, Instant::now());
                    self.schedule_draw();
                }
            }
        }
    }
}

/// An environment variable, where it is Unicode.
#[expect(
    clippy::disallowed_methods,
    reason = "a front end: TERM, COLORTERM and TMUX say what the terminal can do"
)]
pub(crate) fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Width and height of a cell in pixels, where the terminal tells.
fn cell_pixels() -> Option<(u16, u16)> {
    let size = crossterm::terminal::window_size().ok()?;
    Some((
        size.width.checked_div(size.columns)?,
        size.height.checked_div(size.rows)?,
    ))
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}
