//! A small process on the host that outlives us: what must not stay behind is taken back even when we are
//! killed in the middle, or lose the host.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::command::{Input, Place, Running};
use snapdeck_model::{Error, Kind, Result, SandboxId};

const SCRIPT: &str = include_str!("guard.sh");
/// For the guard's start and its end.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a guard there is shown that we are, and after how much silence it takes us for gone. A link can
/// die without either end noticing.
const BEAT: Duration = Duration::from_secs(4);
const SILENCE: Duration = Duration::from_secs(15);
/// The same while a sandbox may be paused: it is to run again within 5 s of our end.
const BEAT_PAUSED: Duration = Duration::from_secs(1);
const SILENCE_PAUSED: Duration = Duration::from_secs(4);
/// How often a new guard is tried to be posted after one was lost.
const AGAIN: Duration = Duration::from_secs(2);
/// Words of the script's.
const RUNNING: &str = "running";
const THAWED: &str = "thawed";

/// What a guard is over.
#[derive(Clone)]
pub(crate) struct Duty {
    /// A directory made by `make_temp_dir` or `make_backup_dir`.
    pub dir: String,
    /// The sandbox about to be paused. Such a guard leaves the directory to another, unless it is a backup's.
    pub pause: Option<Pause>,
    /// How long a lost guard leaves the directory to the next one. Only a remote host can be lost.
    pub grace: Duration,
}

/// A pause that is guarded.
#[derive(Clone)]
pub(crate) struct Pause {
    /// The sandbox's libvirt as the host itself names it.
    pub uri: String,
    pub id: SandboxId,
    /// Its disk is backed up into the directory.
    pub backup: bool,
    /// Its file systems are brought to rest before.
    pub thaw: bool,
}

/// A guard at its post. Dropped without [`Guard::release`], it does what it is there for.
pub struct Guard {
    place: Place,
    orders: UnboundedSender<Order>,
}

enum Order {
    /// A word for the script.
    Say(&'static str),
    Release(oneshot::Sender<Result<(), String>>),
}

struct Post {
    running: Running,
    line: ChildStdin,
}

impl Guard {
    /// Posts a guard.
    ///
    /// # Errors
    /// `Failed` where it does not come up: nothing may be paused then; `Unreachable`.
    pub(super) async fn post(place: &Place, duty: Duty) -> Result<Self> {
        let post = Post::take_up(place, &duty).await?;
        let (orders, taken) = unbounded_channel();
        tokio::spawn(stand(place.clone(), duty, post, taken));
        Ok(Self {
            place: place.clone(),
            orders,
        })
    }

    /// Lets it know that the sandbox runs again: whoever pauses it from now on is not us.
    pub fn is_running(&self) {
        // Where it is gone there is nothing to be known.
        let _ = self.orders.send(Order::Say(RUNNING));
    }

    /// Lets it know that the sandbox's file systems go on.
    pub fn is_thawed(&self) {
        let _ = self.orders.send(Order::Say(THAWED));
    }

    /// Lets the guard go, its work not needed.
    ///
    /// # Errors
    /// `Failed` where it was gone already or does not end, and that is not the connection's fault.
    pub async fn release(self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let gone = || "it is gone".to_owned();
        let released = match self.orders.send(Order::Release(answer)) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        };
        released.map_err(|cause| {
            Error::new(
                Kind::Failed,
                format!("cannot release the guard on host {}", self.place.host()),
            )
            .with_cause(cause)
        })
    }
}

/// Keeps the guard at its post until it is released or dropped.
async fn stand(place: Place, duty: Duty, post: Post, mut orders: UnboundedReceiver<Order>) {
    let mut post = Some(post);
    let mut pace = match duty.pause {
        Some(_) => BEAT_PAUSED,
        None => BEAT,
    };
    let mut beat = Instant::now();
    let remote = place.ssh().is_some();
    loop {
        let word = tokio::select! {
            order = orders.recv() => match order {
                // Dropped: the guard sees the end of its stdin, and acts.
                None => return,
                Some(Order::Say(word)) => word,
                Some(Order::Release(answer)) => {
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
            pace = BEAT;
        }
        beat = Instant::now() + pace;
        let line = format!("{word}\n");
        let alive = match &mut post {
            Some(post) => post.line.write_all(line.as_bytes()).await.is_ok(),
            None => false,
        };
        if alive {
            continue;
        }
        post = None;
        // A pause it was over is over; a directory is taken into care again.
        if duty.pause.is_none() {
            post = Post::take_up(&place, &duty).await.ok();
            if post.is_none() {
                beat = Instant::now() + AGAIN;
            }
        }
    }
}

impl Pause {
    fn more(&self) -> &'static str {
        match (self.backup, self.thaw) {
            (true, true) => "backup thaw",
            (true, false) => "backup",
            (false, _) => "",
        }
    }
}

impl Post {
    async fn take_up(place: &Place, duty: &Duty) -> Result<Self> {
        let failed = || {
            Error::new(
                Kind::Failed,
                format!(
                    "cannot post a guard for {} on host {}",
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
            Some(pause) => (&*pause.uri, pause.id.as_str(), pause.more()),
            None => ("", "", ""),
        };
        let (silence, later, grace) = match (place.ssh(), &duty.pause) {
            (Some(_), Some(_)) => (SILENCE_PAUSED, SILENCE, duty.grace),
            (Some(_), None) => (SILENCE, SILENCE, duty.grace),
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
        match timeout(DEADLINE, up).await {
            Ok(Ok(_)) if said.trim() == "ready" => Ok(Self { running, line }),
            Ok(Ok(_)) if said.trim() == "virsh" => Err(failed()
                .with_cause("virsh is not installed")
                .hint("install libvirt-clients there: without it nobody could let the sandbox go on if snapdeck were killed")),
            Ok(Ok(_)) => {
                drop(line);
                // The connection may have gone, which says so itself.
                let ended = timeout(DEADLINE, place.wait(&mut running)).await;
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
            self.line.write_all(b"release\n").await?;
            self.running.ended().await
        };
        match timeout(DEADLINE, ended).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("it ended early ({status})")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not end".into()),
        }
    }
}
