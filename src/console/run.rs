//! The loop: waits for keys, views, log lines and, only while something moves, for time.

use std::future::{pending, ready};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use color_eyre::Result;
use color_eyre::eyre::{WrapErr, eyre};
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::app::{App, Command};
use super::draw::draw;
use super::log;
use super::terminal::{Terminal, report_panics};
use crate::engine::{Engine, Link};
use crate::model::Operation;

/// Between two frames of gauges.
const FRAME: Duration = Duration::from_millis(100);
/// Between two frames that no key asked for.
const PAUSE: Duration = Duration::from_millis(33);
/// Events taken before a frame is drawn in between.
const BURST: usize = 256;
/// What is left of a minute is waited for before ages are drawn anew.
const MINUTE: Duration = Duration::from_secs(60);
/// The engine bounds its own end; past this the console does not wait for it.
const LONGEST_END: Duration = Duration::from_secs(120);

/// How the console is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the log's lines are appended, and in whose directory a panic's report is written.
    pub log_file: Option<PathBuf>,
    /// Shown in the header: what sort of world this is, `demo` for instance.
    pub banner: Option<String>,
}

/// Shows `engine` on the terminal until the operator leaves, or the process is told to end; then ends
/// the engine. Draws before any host answers. The engine is told to follow its hosts and bucket.
///
/// # Errors
/// Where the terminal or the log file cannot be used.
pub async fn run(engine: Engine, options: Options) -> Result<()> {
    let lines = log::start(options.log_file.as_deref())?;
    report_panics(options.log_file.as_deref());
    let signals = Signals::new()?;
    let mut terminal =
        Terminal::take(engine.settings().console.mouse).wrap_err("the console needs a terminal")?;
    let app = App::new(engine.view(), options.banner, Instant::now());
    let mut screen = Screen {
        app,
        drawn: Instant::now(),
        due: None,
    };
    screen.draw(&mut terminal)?;
    engine.follow();
    let ended = screen.live(&mut terminal, &engine, &lines, signals).await;
    let cleaned = screen.end(&mut terminal, &engine).await;
    drop(terminal);
    ended.and(cleaned)
}

/// The signals that end the console as quitting does.
struct Signals {
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// The state, and when it is to be drawn.
struct Screen {
    app: App,
    drawn: Instant,
    /// When the next frame is to be drawn, where one is.
    due: Option<Instant>,
}

impl Screen {
    fn draw(&mut self, terminal: &mut Terminal) -> Result<()> {
        let now = Instant::now();
        let view = self.app.view.clone();
        self.app.meters.sample(&view, now);
        let areas = terminal.draw(|frame| draw(&self.app, frame, now))?;
        self.app.settle(areas.unwrap_or_default());
        self.drawn = now;
        self.due = self.next(now);
        Ok(())
    }

    /// When time alone changes the picture: gauges of running jobs, ages of what is away.
    fn next(&self, now: Instant) -> Option<Instant> {
        if self.app.is_moving() {
            return Some(now + FRAME);
        }
        let view = &self.app.view;
        let hosts = view.hosts.iter().map(|host| {
            let lists = self.app.hosts.get(&host.name);
            let since = lists.and_then(|lists| Some(lists.since?.1));
            (&host.link, host.seen.or(since))
        });
        let links = hosts.chain([(&view.bucket.link, view.bucket.seen)]);
        let seen = links
            .filter(|(link, _)| matches!(link, Link::Down(_) | Link::Opening))
            .filter_map(|(_, seen)| seen);
        let turn = |seen: Instant| {
            let age = now.saturating_duration_since(seen);
            now + MINUTE.saturating_sub(Duration::from_secs(age.as_secs() % 60))
        };
        seen.map(turn).min()
    }

    /// Asks for a frame soon; many changes at once are one frame.
    fn soon(&mut self) {
        let soon = Instant::now().max(self.drawn + PAUSE);
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    async fn live(
        &mut self,
        terminal: &mut Terminal,
        engine: &Engine,
        lines: &Arc<Notify>,
        mut signals: Signals,
    ) -> Result<()> {
        let mut views = engine.watch();
        let mut events = EventStream::new();
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                () = signals.any() => return Ok(()),
                event = events.next() => {
                    let first = event.ok_or_else(|| eyre!("the terminal is gone"))?;
                    if self.take(first?, engine) {
                        return Ok(());
                    }
                    for _ in 0..BURST {
                        let Some(more) = at_hand(&mut events).await else { break };
                        if self.take(more?, engine) {
                            return Ok(());
                        }
                    }
                    // Under a flood of events this branch is always the first that is ready.
                    if views.has_changed().wrap_err("the engine has ended")? {
                        let view = views.borrow_and_update().clone();
                        self.app.take_view(view, Instant::now());
                    }
                    self.draw(terminal)?;
                }
                () = at(due) => self.draw(terminal)?,
                changed = views.changed() => {
                    changed.wrap_err("the engine has ended")?;
                    let view = views.borrow_and_update().clone();
                    self.app.take_view(view, Instant::now());
                    self.soon();
                }
                () = lines.notified() => {
                    tui_logger::move_events();
                    if self.app.shows_log() {
                        self.soon();
                    }
                }
            }
        }
    }

    /// Takes an event; tells whether it is the end.
    fn take(&mut self, event: Event, engine: &Engine) -> bool {
        let mut end = false;
        for command in self.app.event(event) {
            match command {
                Command::Submit(operation) => self.submit(engine, vec![operation]),
                Command::SubmitAll(operations) => self.submit(engine, operations),
                Command::Cancel(id) => engine.cancel(id),
                Command::Dismiss(id) => engine.dismiss(id),
                Command::Refresh => engine.refresh(),
                Command::Examine => engine.examine_all(),
                Command::Quit => end = true,
            }
        }
        end
    }

    /// Gives operations to the engine; what it refuses is told, and stands in the log.
    fn submit(&mut self, engine: &Engine, operations: Vec<Operation>) {
        let titles: Vec<String> = operations.iter().map(Operation::title).collect();
        let mut refused = 0;
        for (title, taken) in titles.iter().zip(engine.submit_all(operations)) {
            let Err(error) = taken else { continue };
            tracing::error!("{title}: {error}");
            refused += 1;
            match refused {
                1 => self.app.tell(error.to_string(), true),
                many => self
                    .app
                    .tell(format!("{many} were refused, see the log: {error}"), true),
            }
        }
    }

    /// Shows the clean-up until the engine has ended.
    async fn end(&mut self, terminal: &mut Terminal, engine: &Engine) -> Result<()> {
        self.app.ending = true;
        self.app.layers.clear();
        // The terminal may be what ended us: the clean-up goes on without it.
        let _ = self.draw(terminal);
        let mut views = engine.watch();
        let shutdown = timeout(LONGEST_END, engine.shutdown());
        tokio::pin!(shutdown);
        loop {
            let due = self.due;
            tokio::select! {
                ended = &mut shutdown => {
                    return ended.wrap_err("jobs did not end in time; see the log");
                }
                () = at(due) => {
                    let _ = self.draw(terminal);
                }
                Ok(()) = views.changed() => {
                    let view = views.borrow_and_update().clone();
                    self.app.take_view(view, Instant::now());
                    self.soon();
                }
            }
        }
    }
}

/// The next event, where there is one now. Not `now_or_never`: the stream keeps the waker of the poll
/// that found nothing, and with that one's it would never wake us again.
async fn at_hand(events: &mut EventStream) -> Option<std::io::Result<Event>> {
    tokio::select! {
        biased;
        event = events.next() => event,
        () = ready(()) => None,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}
