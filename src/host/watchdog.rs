//! A small process on the host that outlives us: what must not stay behind is taken back even when we are
//! killed in the middle, or lose the host.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::command::{CommandRunner, Input, RunningCommand};
use snapdeck_model::{Error, Kind, Result, SandboxId};

const SCRIPT: &str = include_str!("watchdog.sh");
/// For the guard's start and its end.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a guard there is shown that we are, and after how much silence it takes us for gone. A link can
/// die without either end noticing.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(4);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);
/// The same while a sandbox may be paused: it is to run again within 5 s of our end.
const HEARTBEAT_INTERVAL_PAUSED: Duration = Duration::from_secs(1);
const HEARTBEAT_TIMEOUT_PAUSED: Duration = Duration::from_secs(4);
/// How often a new guard is tried to be posted after one was lost.
const RESPAWN_INTERVAL: Duration = Duration::from_secs(2);
/// Words of the script's.
const RUNNING: &str = "running";
const THAWED: &str = "thawed";

/// What a guard is over.
#[derive(Clone)]
pub(crate) struct WatchdogConfig {
    /// A directory made by `make_temp_dir` or `make_backup_dir`.
    pub dir: String,
    /// The sandbox about to be paused. Such a guard leaves the directory to another, unless it is a backup's.
    pub pause: Option<GuardedPause>,
    /// How long a lost guard leaves the directory to the next one. Only a remote host can be lost.
    pub grace: Duration,
}

/// A pause that is guarded.
#[derive(Clone)]
pub(crate) struct GuardedPause {
    /// The sandbox's libvirt as the host itself names it.
    pub uri: String,
    pub id: SandboxId,
    /// Its disk is backed up into the directory.
    pub is_backup: bool,
    /// Its file systems are brought to rest before.
    pub has_frozen_fs: bool,
}

/// A guard at its post. Dropped without [`Guard::release`], it does what it is there for.
pub struct Watchdog {
    runner: CommandRunner,
    commands: UnboundedSender<WatchdogCommand>,
}

enum WatchdogCommand {
    /// A word for the script.
    WriteLine(&'static str),
    Release(oneshot::Sender<Result<(), String>>),
}

struct WatchdogProcess {
    command: RunningCommand,
    stdin: ChildStdin,
}

impl Watchdog {
    /// Posts a guard.
    ///
    /// # Errors
    /// `Failed` where it does not come up: nothing may be paused then; `Unreachable`.
    pub(super) async fn spawn(place: &CommandRunner, duty: WatchdogConfig) -> Result<Self> {
        let post = WatchdogProcess::start(place, &duty).await?;
        let (orders, taken) = unbounded_channel();
        tokio::spawn(supervise(place.clone(), duty, post, taken));
        Ok(Self {
            runner: place.clone(),
            commands: orders,
        })
    }

    /// Lets it know that the sandbox runs again: whoever pauses it from now on is not us.
    pub fn mark_running(&self) {
        // Where it is gone there is nothing to be known.
        let _ = self.commands.send(WatchdogCommand::WriteLine(RUNNING));
    }

    /// Lets it know that the sandbox's file systems go on.
    pub fn mark_thawed(&self) {
        let _ = self.commands.send(WatchdogCommand::WriteLine(THAWED));
    }

    /// Lets the guard go, its work not needed.
    ///
    /// # Errors
    /// `Failed` where it was gone already or does not end, and that is not the connection's fault.
    pub async fn release(self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let gone = || "it is gone".to_owned();
        let released = match self.commands.send(WatchdogCommand::Release(answer)) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        };
        released.map_err(|cause| {
            Error::new(
                Kind::Failed,
                format!("cannot release the watchdog on host {}", self.runner.host()),
            )
            .with_cause(cause)
        })
    }
}

/// Keeps the guard at its post until it is released or dropped.
async fn supervise(
    place: CommandRunner,
    duty: WatchdogConfig,
    post: WatchdogProcess,
    mut orders: UnboundedReceiver<WatchdogCommand>,
) {
    let mut post = Some(post);
    let mut pace = match duty.pause {
        Some(_) => HEARTBEAT_INTERVAL_PAUSED,
        None => HEARTBEAT_INTERVAL,
    };
    let mut beat = Instant::now();
    let remote = place.ssh().is_some();
    loop {
        let word = tokio::select! {
            order = orders.recv() => match order {
                // Dropped: the guard sees the end of its stdin, and acts.
                None => return,
                Some(WatchdogCommand::WriteLine(word)) => word,
                Some(WatchdogCommand::Release(answer)) => {
                    let ended = match post {
                        // One that was lost with the connection does by itself what is left to do.
                        Some(post) if remote => post.release().await.or_else(|why| {
                            tracing::debug!("guard of {}: {why}", duty.dir);
                            Ok(())
                        }),
                        Some(post) => post.release().await,
                        None => Ok(()),
                    };
                    let _ = answer.send(ended);
                    return;
                }
            },
            () = sleep_until(beat), if remote => "alive",
        };
        if word == RUNNING {
            pace = HEARTBEAT_INTERVAL;
        }
        beat = Instant::now() + pace;
        let line = format!("{word}\n");
        let alive = match &mut post {
            Some(post) => post.stdin.write_all(line.as_bytes()).await.is_ok(),
            None => false,
        };
        if alive {
            continue;
        }
        post = None;
        // A pause it was over is over; a directory is taken into care again.
        if duty.pause.is_none() {
            post = WatchdogProcess::start(&place, &duty).await.ok();
            if post.is_none() {
                beat = Instant::now() + RESPAWN_INTERVAL;
            }
        }
    }
}

impl GuardedPause {
    fn script_flags(&self) -> &'static str {
        match (self.is_backup, self.has_frozen_fs) {
            (true, true) => "backup thaw",
            (true, false) => "backup",
            (false, _) => "",
        }
    }
}

impl WatchdogProcess {
    async fn start(place: &CommandRunner, duty: &WatchdogConfig) -> Result<Self> {
        let failed = || {
            Error::new(
                Kind::Failed,
                format!(
                    "cannot start a watchdog for {} on host {}",
                    duty.dir,
                    place.host()
                ),
            )
        };
        let mut running = place
            .start(&["sh", "-c", SCRIPT, "snapdeck-guard"], Input::Piped)
            .await?;
        let (Some(mut line), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(failed());
        };
        let (uri, id, more) = match &duty.pause {
            Some(pause) => (&*pause.uri, pause.id.as_str(), pause.script_flags()),
            None => ("", "", ""),
        };
        let (silence, later, grace) = match (place.ssh(), &duty.pause) {
            (Some(_), Some(_)) => (HEARTBEAT_TIMEOUT_PAUSED, HEARTBEAT_TIMEOUT, duty.grace),
            (Some(_), None) => (HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT, duty.grace),
            (None, _) => Default::default(),
        };
        let [silence, later, grace] = [silence, later, grace].map(|time| time.as_secs());
        let dir = &duty.dir;
        let orders = format!("{dir}\n{uri}\n{id}\n{more}\n{silence}\n{later}\n{grace}\n");
        let mut said = String::new();
        let up = async {
            line.write_all(orders.as_bytes()).await?;
            BufReader::new(stdout).read_line(&mut said).await
        };
        match timeout(START_STOP_TIMEOUT, up).await {
            Ok(Ok(_)) if said.trim() == "ready" => Ok(Self { command: running, stdin: line }),
            Ok(Ok(_)) if said.trim() == "virsh" => Err(failed()
                .with_cause("virsh is not installed")
                .hint("install libvirt-clients there: without virsh the watchdog could not resume the sandbox if snapdeck were killed")),
            Ok(Ok(_)) => {
                drop(line);
                // The connection may have gone, which says so itself.
                let ended = timeout(START_STOP_TIMEOUT, place.wait(&mut running)).await;
                Err(match ended {
                    Ok(Err(lost)) => lost,
                    _ => failed().with_cause("it ended at once"),
                })
            }
            Ok(Err(error)) => Err(failed().with_cause(error)),
            Err(_) => Err(failed().with_cause("it did not come up")),
        }
    }

    async fn release(mut self) -> Result<(), String> {
        let ended = async {
            self.stdin.write_all(b"release\n").await?;
            self.command.wait_status().await
        };
        match timeout(START_STOP_TIMEOUT, ended).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("it exited early ({status})")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not end".into()),
        }
    }
}
