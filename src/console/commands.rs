//! What the state asks for is done: by the engine, by the terminal, or by a task of its own.

use std::time::Duration;

use tokio::time::timeout;

use super::app::Command;
use super::asking::prune;
use super::dialog::Pair;
use super::kin::Asked;
use super::perform::READ_ONLY;
use super::picture::Encoded;
use super::run::{Ending, Screen, variable};
use super::terminal::Terminal;
use super::tree::Mark;
use super::viewer;
use snapdeck_engine::{Engine, Inventory, Parents, Pruning};
use snapdeck_model::settings::Notify;
use snapdeck_model::{Lineage, Operation, PrunePlan, PullCost};

/// A shell that wants us stopped has done it by then; else there is none that could continue us.
const STOPPED: Duration = Duration::from_millis(500);

/// What a task came to.
pub(crate) enum Done {
    /// A picture that is ready.
    Picture(Option<Encoded>),
    /// What an earlier run saw.
    Recalled(Option<Inventory>),
    /// What is known of a snapshot's relatives.
    /// `None`: it was not waited for.
    Kin(Asked, Option<snapdeck_model::Result<Box<Lineage>>>),
    /// What a pull would bring; `None`: it was not waited for.
    Cost(Pair, Option<snapdeck_model::Result<PullCost>>),
    /// What was made from what.
    Parents(Mark, Parents),
    /// What a rule lets go.
    Prunable(Pruning, snapdeck_model::Result<PrunePlan>),
    /// What became of what it lets go, but for the jobs.
    Pruned(snapdeck_model::Result<(PrunePlan, Vec<String>)>),
    /// What was said of a snapshot.
    Said(String, snapdeck_model::Result<()>),
    /// Where a sandbox's VNC server is, and whether through SSH.
    Viewer {
        /// Its URL.
        url: snapdeck_model::Result<(String, bool)>,
        /// Shall a viewer be opened?
        open: bool,
    },
}

/// What is next after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing new.
    Stay,
    /// The shell is to have the terminal.
    Suspend,
    /// The end.
    End(Ending),
}

impl Screen {
    /// Does a command.
    pub(crate) fn act(
        &mut self,
        command: Command,
        terminal: &mut Terminal,
        engine: &Engine,
    ) -> Next {
        let changes = matches!(
            command,
            Command::Submit(_)
                | Command::SubmitAll(_)
                | Command::Chain(_)
                | Command::Cancel(_)
                | Command::Retry(..)
                | Command::Shift(..)
                | Command::ResumeLeft(_)
                | Command::ForgetLeft(_)
                | Command::Say { .. }
                | Command::Prune(..)
                | Command::Examine
        );
        if changes && self.app.read_only {
            self.app.tell(READ_ONLY, true);
            return Next::Stay;
        }
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
            Command::Copy(text) => {
                let lines = text.lines().count();
                let told = match (self.copy(terminal, &text), lines) {
                    (false, _) => "the terminal took nothing".to_owned(),
                    (true, 1) => format!("{text} is on the clipboard"),
                    (true, lines) => format!("{lines} names are on the clipboard, a line each"),
                };
                self.app.tell(told, false);
            }
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
            Command::Suspend => return Next::Suspend,
            Command::Quit => return Next::End(Ending::Cancel),
            Command::Leave => return Next::End(Ending::Leave),
        }
        Next::Stay
    }

    fn copy(&self, terminal: &mut Terminal, text: &str) -> bool {
        let sequence = viewer::copy(text, variable("TMUX").is_some());
        terminal.send(&sequence).is_ok()
    }

    /// Gives a new picture to be made ready, one at a time.
    pub(crate) fn prepare_picture(&mut self) {
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

    /// Takes up what a task came to.
    pub(crate) fn finish(&mut self, done: Done, terminal: &mut Terminal, engine: &Engine) {
        let (url, forwarded, open) = match done {
            Done::Picture(picture) => return self.app.take_picture(picture),
            Done::Recalled(known) => {
                return known.into_iter().for_each(|known| engine.recall(known));
            }
            other @ (Done::Kin(..)
            | Done::Cost(..)
            | Done::Parents(..)
            | Done::Prunable(..)
            | Done::Pruned(..)
            | Done::Said(..)) => return self.take_answer(other, engine),
            Done::Viewer {
                url: Err(error), ..
            } => {
                tracing::error!("{error}");
                return self.app.tell(error.to_string(), true);
            }
            Done::Viewer {
                url: Ok((url, forwarded)),
                open,
            } => (url, forwarded, open),
        };
        let mut told = match self.copy(terminal, &url) {
            true => format!("{url} is on the clipboard"),
            false => url.clone(),
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

    /// Gives operations to the engine; what it refuses is told, and stands in the log. Were all taken on?
    pub(crate) fn submit(&mut self, engine: &Engine, operations: Vec<Operation>) -> bool {
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

    /// Rings for what has come about.
    pub(crate) fn ring(&mut self, terminal: &mut Terminal, how: Notify) {
        let news = std::mem::take(&mut self.app.news).join("; ");
        if news.is_empty() {
            return;
        }
        let sequence = match how {
            Notify::Off => return,
            Notify::Bell => "\x07".to_owned(),
            Notify::Notification => {
                let text: String = news.chars().filter(|c| !c.is_control()).collect();
                let told = format!("\x1b]9;{text}\x1b\\");
                format!("{}\x07", viewer::through(&told, variable("TMUX").is_some()))
            }
        };
        // A terminal that is gone is found out by the next frame.
        let _ = terminal.send(&sequence);
    }

    /// Gives the terminal to the shell and stops all processes of ours in its job, as it would do itself; comes back
    /// once it continues them.
    pub(crate) async fn suspend(
        &mut self,
        terminal: &mut Terminal,
        continued: &mut tokio::signal::unix::Signal,
    ) -> std::io::Result<()> {
        use nix::sys::signal::{Signal, kill};
        terminal.leave();
        // Where no shell could continue us, the kernel does not stop us: then this is over after a moment.
        kill(nix::unistd::Pid::from_raw(0), Signal::SIGTSTP)?;
        let _ = timeout(STOPPED, continued.recv()).await;
        terminal.again()
    }
}
