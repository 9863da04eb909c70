//! The loop: waits for keys, views, log lines and, only while something moves, for time.

use std::future::{pending, ready};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use color_eyre::Result;
use color_eyre::eyre::{WrapErr, eyre};
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use ratatui::layout::Size;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::app::{App, Command};
use super::dialog::{Dialog, Left, Pair};
use super::draw::draw;
use super::format;
use super::kin::Asked;
use super::log;
use super::picture::{Canvas, Encoded};
use super::terminal::{Terminal, report_panics};
use super::tree::Mark;
use super::viewer;
use crate::engine::{Engine, Link, Parents, Pruning};
use crate::model::{self, Lineage, Operation, PrunePlan, PullCost};

/// Between two frames of gauges.
const FRAME: Duration = Duration::from_millis(100);
/// Between two frames that no key asked for.
const PAUSE: Duration = Duration::from_millis(33);
/// Events taken before a frame is drawn in between.
const BURST: usize = 256;
/// A selection that moves on sooner is not asked about.
const SETTLE: Duration = Duration::from_millis(200);
/// What is left of a minute is waited for before ages are drawn anew.
const MINUTE: Duration = Duration::from_secs(60);
/// The engine bounds its own end; past this the console does not wait for it.
const LONGEST_END: Duration = Duration::from_secs(120);

/// How long jobs that are left to the next start may take to clean up.
const LEAVING: Duration = Duration::from_secs(30);

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
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
    let mut app = App::new(engine.view(), options.banner, Instant::now());
    let wish = engine.settings().console.picture;
    app.canvas = Canvas::find(wish, variable, cell_pixels());
    let sandbox = &engine.settings().sandbox;
    app.defaults = (sandbox.cpus, sandbox.memory_bytes);
    app.has_journal = engine.has_journal();
    let mut screen = Screen {
        app,
        drawn: Instant::now(),
        due: None,
        tasks: JoinSet::new(),
        tried: None,
        asking: None,
        costing: None,
        rooting: None,
    };
    screen.draw(&mut terminal)?;
    engine.follow();
    engine.find_left();
    screen.app.take_view(engine.view(), Instant::now());
    if !screen.app.view.left.is_empty() {
        screen.app.layers.push(Dialog::Left(Left).into());
    }
    screen.draw(&mut terminal)?;
    let ended = screen.live(&mut terminal, &engine, &lines, signals).await;
    // Where the terminal is gone nobody can be asked either.
    let ending = match &ended {
        Ok(ending) => *ending,
        Err(_) if engine.has_journal() => Ending::Leave,
        Err(_) => Ending::Cancel,
    };
    let cleaned = screen.end(&mut terminal, &engine, ending).await;
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
    /// What is being waited for while the console lives on.
    tasks: JoinSet<Done>,
    /// The picture that was last given to be made ready, and for which place.
    tried: Option<(u64, Size)>,
    /// What is being asked about the selected snapshot; no more, once this is dropped.
    asking: Option<(Asked, DropGuard)>,
    /// The pull whose cost is being asked for; no more, once this is dropped.
    costing: Option<(Pair, DropGuard)>,
    /// The lists whose parents are being asked for.
    rooting: Option<Mark>,
}

/// What a task came to.
enum Done {
    Picture(Option<Encoded>),
    /// `None`: it was not waited for.
    Kin(Asked, Option<model::Result<Box<Lineage>>>),
    /// `None`: it was not waited for.
    Cost(Pair, Option<model::Result<PullCost>>),
    /// What was made from what.
    Parents(Mark, Parents),
    /// What a rule lets go.
    Prunable(Pruning, model::Result<PrunePlan>),
    /// What became of what it lets go, but for the jobs.
    Pruned(model::Result<(PrunePlan, Vec<String>)>),
    /// What was said of a snapshot.
    Said(String, model::Result<()>),
    Viewer {
        url: model::Result<(String, bool)>,
        open: bool,
    },
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
    ) -> Result<Ending> {
        let mut views = engine.watch();
        let mut lives = engine.live();
        let mut events = EventStream::new();
        loop {
            engine.look_at(self.app.look());
            self.prepare_picture();
            self.ask(engine);
            self.ask_cost(engine);
            self.ask_parents(engine);
            let due = self.due;
            tokio::select! {
                biased;
                // Nobody is there to be asked: nothing is lost.
                () = signals.any() => return Ok(match engine.has_journal() {
                    true => Ending::Leave,
                    false => Ending::Cancel,
                }),
                event = events.next() => {
                    let first = event.ok_or_else(|| eyre!("the terminal is gone"))?;
                    if let Some(end) = self.take(first?, engine) {
                        return Ok(end);
                    }
                    for _ in 0..BURST {
                        let Some(more) = at_hand(&mut events).await else { break };
                        if let Some(end) = self.take(more?, engine) {
                            return Ok(end);
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
                changed = lives.changed() => {
                    changed.wrap_err("the engine has ended")?;
                    self.app.take_live(lives.borrow_and_update().clone());
                    self.soon();
                }
                Some(done) = self.tasks.join_next() => {
                    self.finish(done.wrap_err("a task of the console crashed")?, terminal, engine);
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

    /// Takes an event; tells whether it is the end, and which.
    fn take(&mut self, event: Event, engine: &Engine) -> Option<Ending> {
        let mut end = None;
        for command in self.app.event(event) {
            match command {
                Command::Submit(operation) => {
                    self.submit(engine, vec![operation]);
                }
                Command::SubmitAll(operations) => {
                    self.submit(engine, operations);
                }
                Command::Chain(operations) => {
                    if let Err(error) = engine.submit_chain(operations) {
                        tracing::error!("{error}");
                        self.app.tell(error.to_string(), true);
                    }
                }
                Command::Retry(id, operation) => {
                    // Refused, the one that failed stays to tell why it had.
                    if self.submit(engine, vec![operation]) {
                        engine.dismiss(id);
                    }
                }
                Command::Shift(id, by) => engine.shift(id, by),
                Command::ResumeLeft(ids) => {
                    for (title, taken) in engine.resume_left(&ids) {
                        if let Err(error) = taken {
                            tracing::error!("{title}: {error}");
                            self.app.tell(error.to_string(), true);
                        }
                    }
                }
                Command::ForgetLeft(ids) => engine.forget_left(&ids),
                Command::Cancel(id) => engine.cancel(id),
                Command::Dismiss(id) => engine.dismiss(id),
                Command::Say {
                    host,
                    bucket,
                    name,
                    change,
                } => {
                    let engine = engine.clone();
                    let told = match change.pin {
                        Some(true) => format!("{name} is pinned"),
                        Some(false) => format!("{name} is no longer pinned"),
                        None => format!("the note on {name} is kept"),
                    };
                    self.tasks.spawn(async move {
                        let said = engine.remark(host.as_ref(), bucket, &name, &change).await;
                        Done::Said(told, said)
                    });
                }
                Command::FindPrunable(pruning) => {
                    let engine = engine.clone();
                    self.tasks.spawn(async move {
                        let plan = engine.prune_plan(&pruning).await;
                        Done::Prunable(pruning, plan)
                    });
                }
                Command::Prune(pruning, plan) => {
                    let engine = engine.clone();
                    self.app.tell("looking again at what goes…", false);
                    self.tasks
                        .spawn(async move { Done::Pruned(prune(&engine, &pruning, plan).await) });
                }
                Command::Refresh => engine.refresh(),
                Command::Viewer {
                    host,
                    sandbox,
                    open,
                } => {
                    let engine = engine.clone();
                    self.app.tell("looking for its VNC server…", false);
                    self.tasks.spawn(async move {
                        let url = engine.viewer_url(&host, &sandbox).await;
                        Done::Viewer { url, open }
                    });
                }
                Command::Examine => engine.examine_all(),
                Command::Quit => end = Some(Ending::Cancel),
                Command::Leave => end = Some(Ending::Leave),
            }
        }
        end
    }

    /// Gives a new picture to be made ready, one at a time.
    fn prepare_picture(&mut self) {
        let wanted = self.app.unready_picture();
        let Some((picture, room)) = wanted.filter(|(picture, room)| {
            let tried = Some((picture.mark, *room));
            self.tried != tried
        }) else {
            return;
        };
        self.tried = Some((picture.mark, room));
        let canvas = self.app.canvas;
        self.tasks
            .spawn_blocking(move || Done::Picture(canvas.encode(&picture, room)));
    }

    /// Asks about the selected snapshot, once it stays selected.
    fn ask(&mut self, engine: &Engine) {
        let Some(wanted) = self.app.unanswered() else {
            self.asking = None;
            return;
        };
        if self
            .asking
            .as_ref()
            .is_some_and(|(asked, _)| *asked == wanted)
        {
            return;
        }
        let stop = CancellationToken::new();
        self.asking = Some((wanted.clone(), stop.clone().drop_guard()));
        let engine = engine.clone();
        self.tasks.spawn(async move {
            let answer = async {
                sleep(SETTLE).await;
                let found = engine.lineage(wanted.host.as_ref(), &wanted.name).await;
                found.map(Box::new)
            };
            let answer = stop.run_until_cancelled(answer).await;
            Done::Kin(wanted, answer)
        });
    }

    /// Asks what a pull that is being asked about would bring.
    fn ask_cost(&mut self, engine: &Engine) {
        let Some(wanted) = self.app.uncosted() else {
            self.costing = None;
            return;
        };
        if self
            .costing
            .as_ref()
            .is_some_and(|(pair, _)| *pair == wanted)
        {
            return;
        }
        let stop = CancellationToken::new();
        self.costing = Some((wanted.clone(), stop.clone().drop_guard()));
        let engine = engine.clone();
        self.tasks.spawn(async move {
            let answer = engine.pull_cost(&wanted.0, &wanted.1);
            let answer = stop.run_until_cancelled(answer).await;
            Done::Cost(wanted, answer)
        });
    }

    /// Asks what was made from what, while the tree is open; one answer at a time.
    fn ask_parents(&mut self, engine: &Engine) {
        if let (Some(mark), None) = (self.app.unrooted(), &self.rooting) {
            self.rooting = Some(mark.clone());
            let engine = engine.clone();
            self.tasks
                .spawn(async move { Done::Parents(mark, engine.parents().await) });
        }
    }

    fn finish(&mut self, done: Done, terminal: &mut Terminal, engine: &Engine) {
        match done {
            Done::Picture(picture) => self.app.take_picture(picture),
            Done::Kin(_, None) => {}
            Done::Kin(asked, Some(found)) => {
                let found = found.map_err(|error| error.to_string());
                self.app.take_kin(asked, found.map(|found| *found));
            }
            Done::Parents(mark, parents) => {
                self.rooting = None;
                self.app.take_parents(mark, parents);
            }
            Done::Cost(_, None) => {}
            Done::Cost(pair, Some(cost)) => {
                if let Some(Dialog::Pull(pull)) = self.app.dialog() {
                    pull.take_cost(pair, cost.map_err(|error| error.to_string()));
                }
            }
            Done::Prunable(pruning, plan) => {
                if let Some(Dialog::Prune(dialog)) = self.app.dialog() {
                    dialog.take(&pruning, plan);
                }
            }
            Done::Pruned(Ok((plan, stayed))) => {
                let stayed = match stayed.as_slice() {
                    [] => String::new(),
                    [one] => format!("; {one}"),
                    many => format!("; {} things stay, see the log", many.len()),
                };
                let jobs = plan.operations();
                let left = format::count(plan.leftovers.len(), "leftover");
                let told = match (jobs.len(), plan.leftovers.len()) {
                    (0, _) => format!("{left} removed{stayed}"),
                    (jobs, 0) => format!("{} begun{stayed}", format::count(jobs, "removal")),
                    (jobs, _) => format!(
                        "{} begun, {left} removed{stayed}",
                        format::count(jobs, "removal")
                    ),
                };
                self.app.tell(told, !stayed.is_empty());
                self.submit(engine, jobs);
                engine.refresh();
            }
            Done::Pruned(Err(error)) => {
                tracing::error!("{error}");
                self.app.tell(error.to_string(), true);
            }
            Done::Said(told, Ok(())) => {
                self.app.said += 1;
                self.app.tell(told, false);
            }
            Done::Said(_, Err(error)) => {
                // One of two places may have it.
                self.app.said += 1;
                tracing::error!("{error}");
                self.app.tell(error.to_string(), true);
            }
            Done::Viewer {
                url: Err(error), ..
            } => {
                tracing::error!("{error}");
                self.app.tell(error.to_string(), true);
            }
            Done::Viewer {
                url: Ok((url, forwarded)),
                open,
            } => {
                let copied = terminal.send(&viewer::copy(&url, variable("TMUX").is_some()));
                let mut told = match copied {
                    Ok(()) => format!("{url} is on the clipboard"),
                    Err(_) => url.clone(),
                };
                if forwarded {
                    told.push_str("; it leads through SSH until snapdeck ends");
                }
                let wish = engine.settings().console.viewer.as_deref();
                let opened = open.then(|| {
                    viewer::command(wish, &url, variable).and_then(|argv| {
                        viewer::start(&argv)?;
                        Ok(argv.join(" "))
                    })
                });
                match opened {
                    None => self.app.tell(told, false),
                    Some(Ok(command)) => self.app.tell(format!("started {command}; {told}"), false),
                    Some(Err(why)) => self.app.tell(format!("{why}; {told}"), true),
                }
            }
        }
    }

    /// Gives operations to the engine; what it refuses is told, and stands in the log. Were all taken on?
    fn submit(&mut self, engine: &Engine, operations: Vec<Operation>) -> bool {
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
        refused == 0
    }

    /// Shows the clean-up until the engine has ended.
    async fn end(
        &mut self,
        terminal: &mut Terminal,
        engine: &Engine,
        ending: Ending,
    ) -> Result<()> {
        self.app.ending = true;
        self.app.layers.clear();
        // The terminal may be what ended us: the clean-up goes on without it.
        let _ = self.draw(terminal);
        let mut views = engine.watch();
        let shutdown = timeout(LONGEST_END, async {
            match ending {
                Ending::Cancel => engine.shutdown().await,
                Ending::Leave => engine.suspend(LEAVING).await,
            }
        });
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

/// Looks again at what a rule let go, and removes what was left behind; the rest of what still goes is for jobs. Returns
/// what goes, and what does not after all.
async fn prune(
    engine: &Engine,
    pruning: &Pruning,
    plan: PrunePlan,
) -> model::Result<(PrunePlan, Vec<String>)> {
    let before = plan.held.len();
    let mut plan = engine.prune_again(pruning, plan).await?;
    let held = plan.held.iter().skip(before);
    let mut stayed: Vec<String> = held
        .map(|one| format!("{} stays: {}", one.name, one.held.join("; ")))
        .collect();
    let mut removed = Vec::new();
    for leftover in plan.leftovers {
        match engine.remove_leftover(&leftover).await {
            Ok(true) => removed.push(leftover),
            Ok(false) => stayed.push(format!("{} stays: it is in use again", leftover.path)),
            Err(error) => stayed.push(error.to_string()),
        }
    }
    plan.leftovers = removed;
    stayed.iter().for_each(|line| tracing::warn!("{line}"));
    Ok((plan, stayed))
}

fn variable(name: &str) -> Option<String> {
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
