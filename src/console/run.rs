//! The event loop. It wakes for keys, views and log lines, and regularly only while something on the screen changes
//! with time.

use std::collections::VecDeque;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use color_eyre::Result;
use color_eyre::eyre::{WrapErr, eyre};
use crossterm::event::Event;
use ratatui::layout::Size;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::DropGuard;

use super::actions::Pane;
use super::app::{App, AppOptions, LineageQuery};
use super::background::{self, BackgroundProbe, ProbeResult};
use super::commands::{LoopControl, TaskResult};
use super::custom::{self, CustomCommand};
use super::dialog::{DialogQuery, InterruptedJobsDialog};
use super::draw::draw;
use super::events::Events;
use super::facts::AnnotationsQuery;
use super::foreground::{ForegroundCommand, ForegroundEnd};
use super::keymap::Keymap;
use super::osc;
use super::pages::tree::TreeInputs;
use super::picture::Canvas;
use super::serial::SerialSession;
use super::session::{self, Session};
use super::signals::{SignalEvent, Signals};
use super::terminal::{Terminal, report_panics};
use super::theme::{Appearance, THEMES, Theme};
use super::{logging, lookup};
use snapdeck_engine::{Engine, Link, Suspension};
use snapdeck_model::settings::{ConsoleSettings, PictureStyle};
use snapdeck_model::{Error, Kind};
use snapdeck_settings::{Setup, read_file};

/// Interval between frames while jobs are active.
const FRAME: Duration = Duration::from_millis(100);
/// Minimum interval between frames that no key has caused.
const MIN_DRAW_INTERVAL: Duration = Duration::from_millis(33);
/// Number of events handled before a frame is drawn.
const BURST: usize = 256;
/// Delay of queries about the selection.
pub(crate) const SELECTION_DEBOUNCE: Duration = Duration::from_millis(200);
/// Interval at which ages are redrawn.
const MINUTE: Duration = Duration::from_secs(60);
/// Interval at which the age of the guest's picture is redrawn.
const PICTURE_AGE_STEP: Duration = Duration::from_secs(5);
/// Safety limit of the wait for the engine, which limits its own shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(120);
/// Limit of the cleanup of jobs that can be resumed at the next start.
const SUSPEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Treatment of running jobs on exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitMode {
    Cancel,
    /// Stop the jobs; the operator decides on them at the next start.
    Leave,
    /// Stop the jobs: pulls and pushes of new snapshots stay in the journal, others are cancelled.
    Unattended,
}

/// Options of the console.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// File to which log lines are appended. Panic reports are written to its directory.
    pub log_file: Option<PathBuf>,
    /// Directory of `session.json` and `inventory.json`; `None`: they are not written.
    pub state_dir: Option<PathBuf>,
    /// Directory of `keymap.toml` and `themes`.
    pub config_dir: Option<PathBuf>,
    /// Disable all actions that change hosts or the bucket.
    pub read_only: bool,
    /// Draw plain text: no borders, no graphs, ASCII signs.
    pub plain: bool,
    /// Text in the header, `demo` for instance.
    pub banner: Option<String>,
    /// The setup, which is possible while there is no settings file.
    pub setup: Option<Setup>,
    /// Open the setup if the console was not run before.
    pub offers_setup: bool,
}

/// The reason why the console has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The operator quit, or a signal ended it.
    Quit,
    /// New settings were written: the program is to be started again.
    Restart,
}

/// Runs the console until the operator quits or a signal ends it, then shuts down the engine.
///
/// It starts the engine's watch of hosts and bucket, and draws before any host has responded.
///
/// # Errors
/// If the terminal or the log file cannot be used; `InvalidInput` for an invalid keymap or theme.
pub async fn run(engine: Engine, options: Options) -> Result<Exit> {
    let log_lines = logging::start(
        options.log_file.as_deref(),
        env_var("SNAPDECK_LOG").as_deref(),
    )?;
    let settings = engine.settings().console.clone();
    let keys = keys(options.config_dir.as_deref())?;
    let theme = theme(&settings, options.config_dir.as_deref())?;
    report_panics(options.log_file.as_deref());
    let signals = Signals::new()?;
    let mut terminal =
        Terminal::open(settings.mouse_enabled).wrap_err("the console needs a terminal")?;
    let sandbox = &engine.settings().sandbox;
    let app_options = AppOptions {
        read_only: options.read_only,
        banner: options.banner,
        notify_after: settings.notification_threshold,
        has_journal: engine.has_journal(),
        defaults: (sandbox.cpus, sandbox.memory_bytes),
        setup: options.setup.map(Arc::new),
    };
    let ascii_only = settings.ascii_only || !is_utf8_locale(env_var);
    let mut app = App::new(engine.view(), app_options, Instant::now());
    app.set_keymap(keys.keymap);
    app.set_custom_commands(keys.commands);
    app.set_columns(&settings.columns);
    app.set_appearance(Appearance {
        theme: theme.unwrap_or_else(|| default_theme(background::is_light_in_env(env_var))),
        plain: options.plain,
        ascii: ascii_only,
    });
    let picture = match options.plain || ascii_only {
        true => PictureStyle::Off,
        false => settings.picture,
    };
    app.set_canvas(Canvas::detect(picture, env_var, cell_pixels()));
    let state_dir = options.state_dir.as_deref();
    app.set_bookmarks(state_dir.map(session::load_bookmarks).unwrap_or_default());
    let session = state_dir.and_then(session::load);
    let offers_setup = options.offers_setup && !options.read_only && session.is_none();
    if let Some(session) = session {
        session.restore(&mut app);
    }
    for key in &keys.reassigned {
        tracing::warn!("{key}");
    }
    if let [first, rest @ ..] = keys.reassigned.as_slice() {
        let more = match rest.len() {
            0 => String::new(),
            count => format!(", and {count} more, see the log"),
        };
        app.show_notice(format!("{first}{more}"), false);
    }
    let mut screen = Screen {
        app,
        background_probe: BackgroundProbe::default(),
        last_draw: Instant::now(),
        next_draw: None,
        tasks: JoinSet::new(),
        last_picture: None,
        is_encoding_thumbnails: false,
        state_dir: options.state_dir.clone(),
        foreground: VecDeque::new(),
        serial: None,
        serial_changed: Arc::default(),
        annotations_query_task: None,
        lineage_query_task: None,
        dialog_query_task: None,
        parents_query_inputs: None,
        exit: Exit::Quit,
    };
    screen.draw(&mut terminal)?;
    if theme.is_none() && background::can_query(env_var) {
        terminal.send(&osc::background_query())?;
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
    if !screen.app.view().interrupted_jobs.is_empty() {
        screen.app.open(Box::new(InterruptedJobsDialog));
    }
    if offers_setup {
        screen.app.open_setup();
    }
    screen.draw(&mut terminal)?;
    let result = screen
        .run_loop(&mut terminal, &engine, &log_lines, signals)
        .await;
    if let Some(dir) = state_dir
        && let Err(error) = session::save(dir, &Session::from_app(&screen.app), &engine.inventory())
    {
        tracing::warn!("cannot save the session in {}: {error}", dir.display());
    }
    let exit_mode = match &result {
        Ok(exit_mode) => *exit_mode,
        Err(_) => unattended_exit_mode(&engine),
    };
    let shutdown = screen.shut_down(&mut terminal, &engine, exit_mode).await;
    drop(terminal);
    result.and(shutdown).map(|()| screen.exit)
}

/// Returns the exit mode if the operator cannot be asked.
fn unattended_exit_mode(engine: &Engine) -> ExitMode {
    match engine.has_journal() {
        true => ExitMode::Unattended,
        false => ExitMode::Cancel,
    }
}

/// The keys, and the commands that the operator has bound to some of them.
struct Keys {
    keymap: Keymap,
    commands: Vec<CustomCommand>,
    /// The default keys that now do something else, with the name of the file.
    reassigned: Vec<String>,
}

/// Reads the user's `keymap.toml` and `commands.toml`, if any. See [`Keymap::read`] and [`custom::read`].
fn keys(dir: Option<&Path>) -> snapdeck_model::Result<Keys> {
    let mut keys = Keys {
        keymap: Keymap::default(),
        commands: Vec::new(),
        reassigned: Vec::new(),
    };
    let Some(dir) = dir else { return Ok(keys) };
    let label = |file: &str, reassigned: Vec<String>| -> Vec<String> {
        let texts = reassigned.into_iter();
        texts.map(|text| format!("{file}: {text}")).collect()
    };
    let path = dir.join("keymap.toml");
    if let Some(text) = read_file("cannot read the keymap", &path, false)? {
        let (keymap, reassigned) = Keymap::read(&text, &path)?;
        keys.keymap = keymap;
        keys.reassigned = label("keymap.toml", reassigned);
    }
    let path = dir.join("commands.toml");
    if let Some(text) = read_file("cannot read the commands", &path, false)? {
        let (commands, reassigned) = custom::read(&text, &path, &mut keys.keymap)?;
        keys.commands = commands;
        keys.reassigned.extend(label("commands.toml", reassigned));
    }
    Ok(keys)
}

/// Returns the configured theme; `None` for `auto`. `NO_COLOR` selects `mono` for `auto`.
fn theme(settings: &ConsoleSettings, dir: Option<&Path>) -> snapdeck_model::Result<Option<Theme>> {
    let no_colors = env_var("NO_COLOR").is_some_and(|value| !value.is_empty());
    let name = match &settings.theme {
        Some(name) => name.as_str(),
        None if no_colors => "mono",
        None => return Ok(None),
    };
    let path = dir.map(|dir| dir.join("themes").join(format!("{name}.toml")));
    let text = path
        .as_deref()
        .map(|path| read_file("cannot read the theme", path, false));
    match (text.transpose()?.flatten(), path) {
        (Some(text), Some(path)) => Theme::read(&text, &path).map(Some),
        _ => match Theme::named(name) {
            Some(theme) => Ok(Some(theme)),
            None => {
                let names: Vec<&str> = THEMES.iter().map(|(name, _)| *name).collect();
                let error = Error::new(Kind::InvalidInput, format!("unknown theme {name:?}"));
                Err(error.hint(format!(
                    "set [console] theme to auto, {}, or create themes/{name}.toml beside config.toml",
                    names.join(", ")
                )))
            }
        },
    }
}

fn default_theme(is_light: bool) -> Theme {
    let name = if is_light { "light" } else { "dark" };
    Theme::named(name).unwrap_or_default()
}

/// The console with its background tasks.
pub(crate) struct Screen {
    pub app: App,
    background_probe: BackgroundProbe,
    last_draw: Instant,
    next_draw: Option<Instant>,
    pub tasks: JoinSet<TaskResult>,
    /// The picture that was encoded last, and the size of its area in cells.
    pub last_picture: Option<(u64, Size)>,
    /// Thumbnails are being encoded.
    pub is_encoding_thumbnails: bool,
    /// Directory of the bookmarks.
    pub state_dir: Option<PathBuf>,
    /// The programs that are to have the terminal, one after the other.
    pub foreground: VecDeque<ForegroundCommand>,
    /// The open serial console.
    pub serial: Option<SerialSession>,
    /// Notified of output of the serial console.
    pub serial_changed: Arc<Notify>,
    /// The last query of annotations for a filter; cancelled when the guard is dropped.
    pub annotations_query_task: Option<(AnnotationsQuery, DropGuard)>,
    /// The last lineage query; cancelled when the guard is dropped.
    pub lineage_query_task: Option<(LineageQuery, DropGuard)>,
    /// The last query of a dialog; cancelled when the guard is dropped.
    pub dialog_query_task: Option<(DialogQuery, DropGuard)>,
    /// The inputs of the running query of parents.
    pub parents_query_inputs: Option<TreeInputs>,
    pub exit: Exit,
}

impl Screen {
    fn draw(&mut self, terminal: &mut Terminal) -> Result<()> {
        let now = Instant::now();
        self.app.sample_rates(now);
        let mut build_time = Duration::ZERO;
        let areas = terminal.draw(|frame| {
            let start = Instant::now();
            let areas = draw(&self.app, frame, now);
            build_time = start.elapsed();
            areas
        })?;
        tracing::trace!("a frame was built in {} us", build_time.as_micros());
        if self.app.after_draw(areas.unwrap_or_default()) {
            self.next_draw = Some(now);
            self.last_draw = now;
            return Ok(());
        }
        self.last_draw = now;
        self.next_draw = self.next_draw_time(now);
        Ok(())
    }

    /// Returns when the next frame is due because of time alone: progress of active jobs, ages of unreachable hosts.
    fn next_draw_time(&self, now: Instant) -> Option<Instant> {
        if self.app.has_active_jobs() {
            return Some(now + FRAME);
        }
        let view = self.app.view();
        let hosts = view.hosts.iter().map(|host| {
            let since = self.app.world().link_since(&host.name);
            (&host.link, host.last_scan.or(since))
        });
        let links = hosts.chain([(&view.bucket.link, view.bucket.last_listing)]);
        let times = links
            .filter(|(link, time)| lookup::is_stale(link, *time) || **link == Link::Connecting)
            .filter_map(|(_, time)| time);
        let next_minute = |time: Instant| {
            let age = now.saturating_duration_since(time);
            now + MINUTE.saturating_sub(Duration::from_secs(age.as_secs() % 60))
        };
        // Finished jobs have ages there, too.
        let is_jobs_page = self.app.list() == Pane::JobsPage;
        let jobs = is_jobs_page.then_some(now + MINUTE);
        // Each sample draws a frame; without samples the picture grows old.
        let picture = self.app.shows_picture().then_some(now + PICTURE_AGE_STEP);
        times.map(next_minute).chain(jobs).chain(picture).min()
    }

    /// Schedules a frame soon; changes until then are drawn in one frame.
    fn schedule_draw(&mut self) {
        let soon = Instant::now().max(self.last_draw + MIN_DRAW_INTERVAL);
        self.next_draw = Some(self.next_draw.map_or(soon, |due| due.min(soon)));
    }

    async fn run_loop(
        &mut self,
        terminal: &mut Terminal,
        engine: &Engine,
        log_lines: &Arc<Notify>,
        mut signals: Signals,
    ) -> Result<ExitMode> {
        let mut views = engine.watch();
        let mut metrics = engine.metrics();
        let mut loads = engine.host_loads();
        engine.watch_host_load(true);
        let mut screens = engine.screens();
        let mut history = engine.history();
        self.app.on_history(history.borrow_and_update().clone());
        let mut events = Events::listen().wrap_err("cannot read from the terminal")?;
        let notify = engine.settings().console.notification;
        let serial_changed = self.serial_changed.clone();
        loop {
            if !self.foreground.is_empty() {
                match events.stop() {
                    true => {
                        let end = self.run_all_in_foreground(terminal, &mut signals).await?;
                        if end == ForegroundEnd::Terminated {
                            return Ok(unattended_exit_mode(engine));
                        }
                    }
                    false => {
                        self.foreground.clear();
                        let message = "cannot release the terminal: it is still being read";
                        self.app.show_notice(message, true);
                    }
                }
                events = Events::listen().wrap_err("cannot read from the terminal")?;
                self.draw(terminal)?;
            }
            engine.watch_sandbox(self.app.watch_target());
            engine.watch_screens(self.app.visible_screens());
            self.prepare_picture();
            self.prepare_thumbnails();
            self.query_lineage(engine);
            self.query_annotations(engine);
            self.query_dialog(engine);
            self.query_parents(engine);
            let due = self.next_draw;
            tokio::select! {
                biased;
                signal = signals.next_signal() => match signal {
                    SignalEvent::Terminate => return Ok(unattended_exit_mode(engine)),
                    // Another program may have used the terminal meanwhile.
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
                    let first = event.ok_or_else(|| eyre!("cannot read from the terminal: it was closed"))?;
                    let mut next = self.on_event(first?, engine);
                    for _ in 0..BURST {
                        if next != LoopControl::Continue {
                            break;
                        }
                        let Some(more) = events.try_next() else { break };
                        next = self.on_event(more?, engine);
                    }
                    match next {
                        LoopControl::Exit(exit_mode) => return Ok(exit_mode),
                        LoopControl::Suspend => self.suspend(terminal, &mut signals.sigcont).await?,
                        LoopControl::Foreground | LoopControl::Continue => {}
                    }
                    // Many events would make this branch always the first ready one.
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
                changed = metrics.changed() => {
                    changed.wrap_err("the engine has ended")?;
                    self.app.on_metrics(metrics.borrow_and_update().clone());
                    self.schedule_draw();
                }
                changed = screens.changed() => {
                    changed.wrap_err("the engine has ended")?;
                    self.app.on_screens(screens.borrow_and_update().clone());
                    self.schedule_draw();
                }
                changed = history.changed() => {
                    changed.wrap_err("the engine has ended")?;
                    self.app.on_history(history.borrow_and_update().clone());
                    self.schedule_draw();
                }
                changed = loads.changed() => {
                    changed.wrap_err("the engine has ended")?;
                    self.app.on_loads(loads.borrow_and_update().clone());
                    self.schedule_draw();
                }
                Some(result) = self.tasks.join_next() => {
                    let result = result.wrap_err("a task of the console crashed")?;
                    self.on_task_result(result, terminal, engine);
                    self.schedule_draw();
                }
                () = serial_changed.notified() => self.schedule_draw(),
                () = log_lines.notified() => {
                    tui_logger::move_events();
                    if self.app.is_log_visible() {
                        self.schedule_draw();
                    }
                }
            }
        }
    }

    fn on_event(&mut self, event: Event, engine: &Engine) -> LoopControl {
        let events = match self.background_probe.on_event(event) {
            ProbeResult::Events(events) => events,
            ProbeResult::Incomplete => return LoopControl::Continue,
            ProbeResult::IsLight(is_light) => {
                self.app.set_theme(default_theme(is_light));
                return LoopControl::Continue;
            }
        };
        for event in events {
            for command in self.app.on_event(event) {
                match self.execute(command, engine) {
                    LoopControl::Continue => {}
                    next => return next,
                }
            }
        }
        LoopControl::Continue
    }

    /// Shuts down the engine, and shows the cleanup of its jobs meanwhile.
    async fn shut_down(
        &mut self,
        terminal: &mut Terminal,
        engine: &Engine,
        exit_mode: ExitMode,
    ) -> Result<()> {
        self.app.start_shutdown();
        // Jobs clean up even if the terminal was closed.
        let _ = self.draw(terminal);
        let mut views = engine.watch();
        let shutdown = timeout(SHUTDOWN_TIMEOUT, async {
            match exit_mode {
                ExitMode::Cancel => engine.shutdown().await,
                ExitMode::Leave => engine.suspend(SUSPEND_TIMEOUT, Suspension::All).await,
                ExitMode::Unattended => {
                    engine
                        .suspend(SUSPEND_TIMEOUT, Suspension::Unattended)
                        .await;
                }
            }
        });
        tokio::pin!(shutdown);
        loop {
            let due = self.next_draw;
            tokio::select! {
                result = &mut shutdown => {
                    return result.wrap_err("jobs did not clean up in time; see the log");
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

/// Returns whether the terminal's characters are those of UTF-8, by the locale (locale(7)). Without any of its variables
/// that is unknown, and terminals without UTF-8 are rare.
fn is_utf8_locale(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Returns an environment variable if it is Unicode.
#[expect(
    clippy::disallowed_methods,
    reason = "a front end: TERM, COLORTERM and TMUX describe the terminal"
)]
pub(crate) fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns width and height of a cell in pixels, if the terminal reports them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_of_the_locale_decides_on_utf8() {
        let is_utf8 = |variables: &[(&str, &str)]| {
            is_utf8_locale(|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        for variables in [
            &[][..],
            &[("LANG", "C.UTF-8")],
            &[("LC_ALL", "de_DE.utf8"), ("LANG", "C")],
            &[("LC_ALL", ""), ("LC_CTYPE", "en_US.UTF-8"), ("LANG", "C")],
        ] {
            assert!(is_utf8(variables), "{variables:?}");
        }
        for variables in [
            &[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")][..],
            &[("LANG", "POSIX")],
            &[("LC_CTYPE", "de_DE.ISO-8859-1"), ("LANG", "C.UTF-8")],
        ] {
            assert!(!is_utf8(variables), "{variables:?}");
        }
    }
}
