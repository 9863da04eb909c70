//! Executes commands: in the engine, in the terminal, or in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::app::{LineageQuery, READ_ONLY};
use super::clipboard::copy_to_tmux;
use super::command::Command;
use super::custom::CommandRun;
use super::dialog::{DialogAnswer, SettingsWritten};
use super::facts::AnnotationsQuery;
use super::osc;
use super::pages::tree::TreeInputs;
use super::picture::EncodedImage;
use super::programs::shell_command;
use super::queries::{apply_prune, remove_partials};
use super::run::{Exit, ExitMode, Screen, env_var};
use super::session;
use super::terminal::Terminal;
use super::viewer;
use snapdeck_engine::{AnnotationList, CachedInventory, Engine, Parents, ScreenKey, VncTunnel};
use snapdeck_model::settings::NotificationMethod;
use snapdeck_model::{Error, HostName, Kind, Lineage, Operation, PrunePlan, SandboxId};
use snapdeck_settings::write_settings_file;

/// Limit of the wait for SIGCONT. It passes only if no shell has stopped this process.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) enum TaskResult {
    Picture(Option<EncodedImage>),
    Thumbnails(Vec<(ScreenKey, EncodedImage)>),
    SavedInventory(Option<CachedInventory>),
    /// `None`: the query was cancelled.
    Lineage(LineageQuery, Option<snapdeck_model::Result<Box<Lineage>>>),
    /// `None`: the query was cancelled.
    Dialog(Option<DialogAnswer>),
    Parents(TreeInputs, Parents),
    /// `None`: the query was cancelled.
    Annotations(Option<(AnnotationsQuery, AnnotationList)>),
    /// The plan with the candidates that jobs are to remove, and why others were skipped.
    PruneApplied(snapdeck_model::Result<(PrunePlan, Vec<String>)>),
    /// The message for success, and the result.
    Annotated(String, snapdeck_model::Result<()>),
    /// The command that attaches to a serial console.
    Serial {
        host: HostName,
        sandbox: SandboxId,
        argv: snapdeck_model::Result<Vec<String>>,
    },
    /// Commands of the operator, each with the UUID that it needs.
    Commands(snapdeck_model::Result<Vec<(CommandRun, String)>>),
    /// The name of a command in the background, and why it failed.
    CommandEnded(&'static str, Result<(), String>),
    /// The text, and whether tmux has it; else it goes to the terminal.
    Copied(String, bool),
    Viewer {
        /// The address of the screen.
        tunnel: snapdeck_model::Result<Arc<VncTunnel>>,
        /// Whether tmux has the address; else it goes to the terminal.
        in_tmux: bool,
        /// Start a viewer.
        open: bool,
    },
}

/// The next step of the event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoopControl {
    Continue,
    Suspend,
    /// Run the programs that are to have the terminal.
    Foreground,
    Exit(ExitMode),
}

impl Screen {
    pub(crate) fn execute(&mut self, command: Command, engine: &Engine) -> LoopControl {
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
                | Command::Shell(_)
                | Command::SerialOpen(..)
                | Command::SerialInput(_)
                | Command::RemovePartials(_)
                | Command::RunChecks
                | Command::WriteSettings { .. }
        );
        let changes = changes
            || matches!(&command, Command::Run(runs) if runs.iter().any(|run| run.is_mutating));
        if changes && self.app.options().read_only {
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
                    self.show_error(&error);
                }
            }
            Command::Retry(id, operation) => {
                // If the operation is refused the failed job stays, with its error.
                if self.submit(engine, vec![operation]) {
                    engine.dismiss(id);
                }
            }
            Command::Shift(id, by) => engine.shift(id, by),
            Command::ResumeInterrupted(ids) => {
                for (title, result) in engine.resume_interrupted(&ids) {
                    if let Err(error) = result {
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
                let message = match change.set_pinned {
                    Some(true) => format!("pinned {name}"),
                    Some(false) => format!("unpinned {name}"),
                    None => format!("saved the note on {name}"),
                };
                self.tasks.spawn(async move {
                    let result = engine.annotate(host.as_ref(), bucket, &name, &change).await;
                    TaskResult::Annotated(message, result)
                });
            }
            Command::Prune(request, plan) => {
                let engine = engine.clone();
                self.app.show_notice("checking again…", false);
                self.tasks.spawn(async move {
                    TaskResult::PruneApplied(apply_prune(&engine, &request, plan).await)
                });
            }
            Command::RemovePartials(partials) => {
                let engine = engine.clone();
                self.tasks.spawn(async move {
                    TaskResult::PruneApplied(Box::pin(remove_partials(&engine, partials)).await)
                });
            }
            Command::Refresh => engine.refresh(),
            Command::Copy(text) => {
                self.tasks.spawn(async move {
                    let in_tmux = copy_to_tmux(&text, env_var("TMUX").as_deref()).await;
                    TaskResult::Copied(text, in_tmux)
                });
            }
            Command::Viewer {
                host,
                sandbox,
                open,
            } => {
                let engine = engine.clone();
                self.app.show_notice("locating the VNC server…", false);
                self.tasks.spawn(async move {
                    let sudo_uid = env_var("SUDO_UID").and_then(|uid| uid.parse().ok());
                    let tunnel = engine.open_screen(&host, &sandbox, sudo_uid).await;
                    let in_tmux = match &tunnel {
                        Ok(tunnel) => copy_to_tmux(&tunnel.url(), env_var("TMUX").as_deref()).await,
                        Err(_) => false,
                    };
                    TaskResult::Viewer {
                        tunnel,
                        in_tmux,
                        open,
                    }
                });
            }
            Command::Shell(host) => match shell_command(engine, &host) {
                Ok(command) => self.foreground.push_back(command),
                Err(error) => self.show_error(&error),
            },
            Command::SerialOpen(host, sandbox) => {
                let engine = engine.clone();
                self.tasks.spawn(async move {
                    let argv = Box::pin(engine.serial_console_argv(&host, &sandbox)).await;
                    TaskResult::Serial {
                        host,
                        sandbox,
                        argv,
                    }
                });
            }
            Command::SerialInput(bytes) => {
                if self
                    .serial
                    .as_ref()
                    .is_some_and(|serial| !serial.send(bytes))
                {
                    self.app
                        .show_notice("the guest does not read its input", true);
                }
            }
            Command::Run(runs) => self.start_commands(runs, engine),
            Command::SerialClose => self.serial = None,
            Command::SaveBookmarks(bookmarks) => {
                let saved = self.state_dir.as_deref();
                let saved = saved.map(|dir| session::save_bookmarks(dir, &bookmarks));
                if let Some(Err(error)) = saved {
                    let failed = Error::new(Kind::Failed, "cannot save the bookmarks");
                    self.show_error(&failed.with_cause(error));
                }
            }
            Command::RunChecks => engine.run_all_health_checks(),
            Command::WriteSettings { path, text } => match write_settings_file(&path, &text) {
                Ok(()) => {
                    tracing::info!("wrote {}", path.display());
                    self.app.open(Box::new(SettingsWritten::new(path)));
                }
                Err(error) => self.show_error(&error),
            },
            Command::Restart => {
                self.exit = Exit::Restart;
                return LoopControl::Exit(ExitMode::Cancel);
            }
            Command::Suspend => return LoopControl::Suspend,
            Command::Quit => return LoopControl::Exit(ExitMode::Cancel),
            Command::Leave => return LoopControl::Exit(ExitMode::Leave),
        }
        match self.foreground.is_empty() {
            false => LoopControl::Foreground,
            true => LoopControl::Continue,
        }
    }

    /// Logs an error and shows it.
    pub(crate) fn show_error(&mut self, error: &snapdeck_model::Error) {
        tracing::error!("{error}");
        self.app.show_notice(error.to_string(), true);
    }

    /// Sends `text` to the terminal unless tmux has it; returns what became of it. Whether a terminal accepts it is unknown.
    fn copy(&self, terminal: &mut Terminal, text: &str, in_tmux: bool) -> &'static str {
        if in_tmux {
            return "copied to the tmux buffer";
        }
        let sequence = osc::clipboard(text, env_var("TMUX").is_some());
        match sequence.is_some_and(|sequence| terminal.send(&sequence).is_ok()) {
            true => "sent to the terminal",
            false => "not copied: too long",
        }
    }

    /// Encodes the pending picture in the background, once.
    pub(crate) fn prepare_picture(&mut self) {
        let pending = self.app.pending_picture();
        let Some((picture, room)) = pending
            .filter(|(picture, room)| self.last_picture != Some((picture.fingerprint, *room)))
        else {
            return;
        };
        self.last_picture = Some((picture.fingerprint, room));
        let canvas = self.app.canvas();
        self.tasks
            .spawn_blocking(move || TaskResult::Picture(canvas.encode(&picture, room)));
    }

    /// Encodes the pending thumbnails in the background, one batch at a time.
    pub(crate) fn prepare_thumbnails(&mut self) {
        if self.is_encoding_thumbnails {
            return;
        }
        let pending = self.app.pending_thumbnails();
        if pending.is_empty() {
            return;
        }
        self.is_encoding_thumbnails = true;
        let canvas = self.app.canvas().without_pixels();
        self.tasks.spawn_blocking(move || {
            let encoded = pending
                .into_iter()
                .filter_map(|(key, picture, room)| Some((key, canvas.encode(&picture, room)?)));
            TaskResult::Thumbnails(encoded.collect())
        });
    }

    pub(crate) fn on_task_result(
        &mut self,
        result: TaskResult,
        terminal: &mut Terminal,
        engine: &Engine,
    ) {
        let (tunnel, in_tmux, open) = match result {
            TaskResult::Picture(picture) => return self.app.on_picture(picture),
            TaskResult::Thumbnails(thumbnails) => {
                self.is_encoding_thumbnails = false;
                return self.app.on_thumbnails(thumbnails);
            }
            TaskResult::SavedInventory(inventory) => {
                return inventory
                    .into_iter()
                    .for_each(|inventory| engine.restore_inventory(inventory));
            }
            other @ (TaskResult::Lineage(..)
            | TaskResult::Dialog(..)
            | TaskResult::Parents(..)
            | TaskResult::Annotations(_)
            | TaskResult::PruneApplied(..)
            | TaskResult::Annotated(..)) => return self.on_query_result(other, engine),
            TaskResult::Serial {
                host,
                sandbox,
                argv,
            } => {
                let opened = argv.and_then(|argv| self.open_serial(&argv, host, sandbox));
                return opened.unwrap_or_else(|error| self.show_error(&error));
            }
            TaskResult::Commands(Ok(runs)) => return self.run_commands(&runs),
            TaskResult::Commands(Err(error)) => return self.show_error(&error),
            TaskResult::CommandEnded(name, Ok(())) => {
                tracing::info!("{name} finished");
                return self.app.show_notice(format!("{name} finished"), false);
            }
            TaskResult::CommandEnded(name, Err(error)) => {
                tracing::error!("{name}: {error}");
                return self.app.show_notice(format!("{name}: {error}"), true);
            }
            TaskResult::Viewer {
                tunnel: Err(error), ..
            } => return self.show_error(&error),
            TaskResult::Copied(text, in_tmux) => {
                let result = self.copy(terminal, &text, in_tmux);
                let message = match text.lines().count() {
                    1 => format!("{text}: {result}"),
                    lines => format!("{lines} lines: {result}"),
                };
                self.app.show_notice(message, false);
                return;
            }
            TaskResult::Viewer {
                tunnel: Ok(tunnel),
                in_tmux,
                open,
            } => (tunnel, in_tmux, open),
        };
        let url = tunnel.url();
        let result = self.copy(terminal, &url, in_tmux);
        let mut message = format!("{url}: {result}");
        if tunnel.is_tunnel() {
            message.push_str("; the tunnel serves only this user and closes after the viewer");
        }
        let configured = engine.settings().console.viewer.as_deref();
        let viewer = open.then(|| {
            viewer::command(configured, &url, env_var).and_then(|argv| {
                viewer::start(&argv, move || tunnel.close_after_viewer())?;
                Ok(argv.join(" "))
            })
        });
        let (message, is_error) = match viewer {
            None => (message, false),
            Some(Ok(command)) => (format!("started {command}; {message}"), false),
            Some(Err(error)) => (format!("{error}; {message}"), true),
        };
        self.app.show_notice(message, is_error);
    }

    /// Submits operations; shows and logs those that the engine refuses. Returns whether all were accepted.
    pub(crate) fn submit(&mut self, engine: &Engine, operations: Vec<Operation>) -> bool {
        let titles: Vec<String> = operations
            .iter()
            .map(snapdeck_engine::operation_title)
            .collect();
        let mut refused = 0;
        for (title, result) in titles.iter().zip(engine.submit_all(operations)) {
            let Err(error) = result else { continue };
            tracing::error!("{title}: {error}");
            refused += 1;
            let message = match refused {
                1 => error.to_string(),
                count => format!("{count} jobs were rejected, see the log: {error}"),
            };
            self.app.show_notice(message, true);
        }
        refused == 0
    }

    /// Sends the pending notifications: as the bell, or as a desktop notification (OSC 9).
    pub(crate) fn send_notifications(
        &mut self,
        terminal: &mut Terminal,
        method: NotificationMethod,
    ) {
        let message = self.app.take_notifications().join("; ");
        let in_tmux = env_var("TMUX").is_some();
        if message.is_empty() {
            return;
        }
        let sequence = match method {
            NotificationMethod::Off => return,
            NotificationMethod::Bell => osc::bell(),
            NotificationMethod::Notification => osc::notification(&message, in_tmux),
        };
        // The next frame reports a write error.
        let _ = terminal.send(&sequence);
    }

    /// Releases the terminal and stops this process group, as ctrl-z does; returns once the shell continues it.
    pub(crate) async fn suspend(
        &mut self,
        terminal: &mut Terminal,
        continued: &mut tokio::signal::unix::Signal,
    ) -> std::io::Result<()> {
        use nix::sys::signal::{Signal, kill};
        terminal.leave();
        // The kernel does not stop an orphaned process group, which no shell could continue: then the wait times out.
        kill(nix::unistd::Pid::from_raw(0), Signal::SIGTSTP)?;
        let _ = timeout(STOP_TIMEOUT, continued.recv()).await;
        terminal.reenter()
    }
}
