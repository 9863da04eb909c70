//! What the state asks for is done: by the engine, by the terminal, or by a task of its own.

use std::time::Duration;

use tokio::time::timeout;

use super::app::Command;
use super::dialog::PullTarget;
use super::lineage::LineageQuery;
use super::perform::READ_ONLY;
use super::picture::EncodedImage;
use super::queries::apply_prune;
use super::run::{ExitMode, Screen, env_var};
use super::terminal::Terminal;
use super::tree::TreeInputs;
use super::viewer;
use snapdeck_engine::{CachedInventory, Engine, Parents, PruneRequest};
use snapdeck_model::settings::NotificationMethod;
use snapdeck_model::{Lineage, Operation, PrunePlan, PullCost};

/// A shell that wants us stopped has done it by then; else there is none that could continue us.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// What a task came to.
pub(crate) enum TaskResult {
    /// A picture that is ready.
    Picture(Option<EncodedImage>),
    /// What an earlier run saw.
    SavedInventory(Option<CachedInventory>),
    /// What is known of a snapshot's relatives.
    /// `None`: it was not waited for.
    Lineage(LineageQuery, Option<snapdeck_model::Result<Box<Lineage>>>),
    /// What a pull would bring; `None`: it was not waited for.
    PullCost(PullTarget, Option<snapdeck_model::Result<PullCost>>),
    /// What was made from what.
    Parents(TreeInputs, Parents),
    /// What a rule lets go.
    PrunePlan(PruneRequest, snapdeck_model::Result<PrunePlan>),
    /// What became of what it lets go, but for the jobs.
    PruneApplied(snapdeck_model::Result<(PrunePlan, Vec<String>)>),
    /// What was said of a snapshot.
    Annotated(String, snapdeck_model::Result<()>),
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
pub(crate) enum LoopControl {
    /// Nothing new.
    Continue,
    /// The shell is to have the terminal.
    Suspend,
    /// The end.
    Exit(ExitMode),
}

impl Screen {
    /// Does a command.
    pub(crate) fn execute(
        &mut self,
        command: Command,
        terminal: &mut Terminal,
        engine: &Engine,
    ) -> LoopControl {
        let changes = matches!(
            command,
            Command::Submit(_)
                | Command::SubmitAll(_)
                | Command::Chain(_)
                | Command::Cancel(_)
                | Command::Retry(..)
                | Command::Shift(..)
                | Command::ResumeInterrupted(_)
                | Command::DiscardInterrupted(_)
                | Command::Annotate { .. }
                | Command::Prune(..)
                | Command::RunChecks
        );
        if changes && self.app.read_only {
            self.app.show_notice(READ_ONLY, true);
            return LoopControl::Continue;
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
                    self.app.show_notice(error.to_string(), true);
                }
            }
            Command::Retry(id, operation) => {
                // Refused, the one that failed stays to tell why it had.
                if self.submit(engine, vec![operation]) {
                    engine.dismiss(id);
                }
            }
            Command::Shift(id, by) => engine.shift(id, by),
            Command::ResumeInterrupted(ids) => {
                for (title, taken) in engine.resume_interrupted(&ids) {
                    if let Err(error) = taken {
                        tracing::error!("{title}: {error}");
                        self.app.show_notice(error.to_string(), true);
                    }
                }
            }
            Command::DiscardInterrupted(ids) => engine.discard_interrupted(&ids),
            Command::Cancel(id) => engine.cancel(id),
            Command::Dismiss(id) => engine.dismiss(id),
            Command::Annotate {
                host,
                bucket,
                name,
                change,
            } => {
                let engine = engine.clone();
                let told = match change.set_pinned {
                    Some(true) => format!("{name} is pinned"),
                    Some(false) => format!("{name} is no longer pinned"),
                    None => format!("saved the note on {name}"),
                };
                self.tasks.spawn(async move {
                    let said = engine.annotate(host.as_ref(), bucket, &name, &change).await;
                    TaskResult::Annotated(told, said)
                });
            }
            Command::FindPrunable(pruning) => {
                let engine = engine.clone();
                self.tasks.spawn(async move {
                    let plan = engine.prune_plan(&pruning).await;
                    TaskResult::PrunePlan(pruning, plan)
                });
            }
            Command::Prune(pruning, plan) => {
                let engine = engine.clone();
                self.app.show_notice("checking again…", false);
                self.tasks.spawn(async move {
                    TaskResult::PruneApplied(apply_prune(&engine, &pruning, plan).await)
                });
            }
            Command::Refresh => engine.refresh(),
            Command::Copy(text) => {
                let lines = text.lines().count();
                let told = match (self.copy(terminal, &text), lines) {
                    (false, _) => "the terminal did not accept the text".to_owned(),
                    (true, 1) => format!("copied {text}"),
                    (true, lines) => format!("copied {lines} names, one per line"),
                };
                self.app.show_notice(told, false);
            }
            Command::Viewer {
                host,
                sandbox,
                open,
            } => {
                let engine = engine.clone();
                self.app.show_notice("locating the VNC server…", false);
                self.tasks.spawn(async move {
                    let url = engine.viewer_url(&host, &sandbox).await;
                    TaskResult::Viewer { url, open }
                });
            }
            Command::RunChecks => engine.run_all_health_checks(),
            Command::Suspend => return LoopControl::Suspend,
            Command::Quit => return LoopControl::Exit(ExitMode::Cancel),
            Command::Leave => return LoopControl::Exit(ExitMode::Leave),
        }
        LoopControl::Continue
    }

    fn copy(&self, terminal: &mut Terminal, text: &str) -> bool {
        let sequence = viewer::clipboard_sequence(text, env_var("TMUX").is_some());
        terminal.send(&sequence).is_ok()
    }

    /// Gives a new picture to be made ready, one at a time.
    pub(crate) fn prepare_picture(&mut self) {
        let wanted = self.app.pending_picture();
        let Some((picture, room)) = wanted.filter(|(picture, room)| {
            let tried = Some((picture.fingerprint, *room));
            self.last_picture != tried
        }) else {
            return;
        };
        self.last_picture = Some((picture.fingerprint, room));
        let canvas = self.app.canvas;
        self.tasks
            .spawn_blocking(move || TaskResult::Picture(canvas.encode(&picture, room)));
    }

    /// Takes up what a task came to.
    pub(crate) fn on_task_result(
        &mut self,
        done: TaskResult,
        terminal: &mut Terminal,
        engine: &Engine,
    ) {
        let (url, forwarded, open) = match done {
            TaskResult::Picture(picture) => return self.app.on_picture(picture),
            TaskResult::SavedInventory(known) => {
                return known
                    .into_iter()
                    .for_each(|known| engine.restore_inventory(known));
            }
            other @ (TaskResult::Lineage(..)
            | TaskResult::PullCost(..)
            | TaskResult::Parents(..)
            | TaskResult::PrunePlan(..)
            | TaskResult::PruneApplied(..)
            | TaskResult::Annotated(..)) => return self.on_answer(other, engine),
            TaskResult::Viewer {
                url: Err(error), ..
            } => {
                tracing::error!("{error}");
                return self.app.show_notice(error.to_string(), true);
            }
            TaskResult::Viewer {
                url: Ok((url, forwarded)),
                open,
            } => (url, forwarded, open),
        };
        let mut told = match self.copy(terminal, &url) {
            true => format!("copied {url}"),
            false => url.clone(),
        };
        if forwarded {
            told.push_str("; the SSH tunnel stays open until snapdeck exits");
        }
        let wish = engine.settings().console.viewer.as_deref();
        let opened = open.then(|| {
            viewer::command(wish, &url, env_var).and_then(|argv| {
                viewer::start(&argv)?;
                Ok(argv.join(" "))
            })
        });
        match opened {
            None => self.app.show_notice(told, false),
            Some(Ok(command)) => self
                .app
                .show_notice(format!("started {command}; {told}"), false),
            Some(Err(why)) => self.app.show_notice(format!("{why}; {told}"), true),
        }
    }

    /// Gives operations to the engine; what it refuses is told, and stands in the log. Were all taken on?
    pub(crate) fn submit(&mut self, engine: &Engine, operations: Vec<Operation>) -> bool {
        let titles: Vec<String> = operations
            .iter()
            .map(snapdeck_engine::operation_title)
            .collect();
        let mut refused = 0;
        for (title, taken) in titles.iter().zip(engine.submit_all(operations)) {
            let Err(error) = taken else { continue };
            tracing::error!("{title}: {error}");
            refused += 1;
            match refused {
                1 => self.app.show_notice(error.to_string(), true),
                many => self
                    .app
                    .show_notice(format!("{many} were refused, see the log: {error}"), true),
            }
        }
        refused == 0
    }

    /// Rings for what has come about.
    pub(crate) fn send_notifications(&mut self, terminal: &mut Terminal, how: NotificationMethod) {
        let news = std::mem::take(&mut self.app.notifications).join("; ");
        if news.is_empty() {
            return;
        }
        let sequence = match how {
            NotificationMethod::Off => return,
            NotificationMethod::Bell => "\x07".to_owned(),
            NotificationMethod::Notification => {
                let text: String = news.chars().filter(|c| !c.is_control()).collect();
                let told = format!("\x1b]9;{text}\x1b\\");
                format!(
                    "{}\x07",
                    viewer::wrap_for_tmux(&told, env_var("TMUX").is_some())
                )
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
        let _ = timeout(STOP_TIMEOUT, continued.recv()).await;
        terminal.reenter()
    }
}
