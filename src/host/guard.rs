//! A small process on the host that outlives us: what must not stay behind is taken back even when we are
//! killed in the middle, or lose the host.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};

use super::command::{Input, Place, Running};
use crate::model::{Error, Kind, Result, SandboxId};

const SCRIPT: &str = include_str!("guard.sh");
/// For the guard's start and its end.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a guard there is shown that we are, and after how much silence it takes us for gone. A link can
/// die without either end noticing.
const BEAT: Duration = Duration::from_secs(4);
const SILENCE: Duration = Duration::from_secs(15);
/// How often a new guard is tried to be posted after one was lost.
const AGAIN: Duration = Duration::from_secs(2);

/// What a guard is over.
#[derive(Clone)]
pub struct Duty {
    /// A directory made by `make_temp_dir`.
    pub dir: String,
    /// The sandbox about to be paused, and its libvirt as the host itself names it. Such a guard leaves the
    /// directory to another.
    pub pause: Option<(String, SandboxId)>,
    /// How long a lost guard leaves the directory to the next one. Only a remote host can be lost.
    pub grace: Duration,
}

/// A guard at its post. Dropped without [`Guard::release`], it does what it is there for.
pub struct Guard {
    place: Place,
    release: oneshot::Sender<oneshot::Sender<Result<(), String>>>,
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
        let (release, released) = oneshot::channel();
        tokio::spawn(stand(place.clone(), duty, post, released));
        Ok(Self {
            place: place.clone(),
            release,
        })
    }

    /// Lets the guard go, its work not needed.
    ///
    /// # Errors
    /// `Failed` where it was gone already or does not end, and that is not the connection's fault.
    pub async fn release(self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let gone = || "it is gone".to_owned();
        let released = match self.release.send(answer) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        };
        released.map_err(|cause| {
            Error::new(
                Kind::Failed,
                format!("cannot release the guard on host {}", self.place.host()),
            )
            .because(cause)
        })
    }
}

/// Keeps the guard at its post until it is released or dropped.
async fn stand(
    place: Place,
    duty: Duty,
    post: Post,
    mut released: oneshot::Receiver<oneshot::Sender<Result<(), String>>>,
) {
    let mut post = Some(post);
    let mut beat = interval(BEAT);
    let remote = place.ssh().is_some();
    loop {
        tokio::select! {
            answer = &mut released => {
                // Dropped: the guard sees the end of its stdin, and acts.
                let Ok(answer) = answer else { return };
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
            _ = beat.tick(), if remote => {}
        }
        let alive = match &mut post {
            Some(post) => post.line.write_all(b"alive\n").await.is_ok(),
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
                beat.reset_after(AGAIN);
            }
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
        let (uri, id) = duty
            .pause
            .as_ref()
            .map_or(("", ""), |(uri, id)| (uri, id.as_str()));
        let (silence, grace) = match place.ssh() {
            Some(_) => (SILENCE.as_secs(), duty.grace.as_secs()),
            None => (0, 0),
        };
        let orders = format!("{}\n{uri}\n{id}\n{silence}\n{grace}\n", duty.dir);
        let mut said = String::new();
        let up = async {
            line.write_all(orders.as_bytes()).await?;
            BufReader::new(stdout).read_line(&mut said).await
        };
        match timeout(DEADLINE, up).await {
            Ok(Ok(_)) if said.trim() == "ready" => Ok(Self { running, line }),
            Ok(Ok(_)) if said.trim() == "virsh" => Err(failed()
                .because("virsh is not installed")
                .hint("install libvirt-clients there: without it nobody could let the sandbox go on if snapdeck were killed")),
            Ok(Ok(_)) => {
                drop(line);
                // The connection may have gone, which says so itself.
                let ended = timeout(DEADLINE, place.wait(&mut running)).await;
                Err(match ended {
                    Ok(Err(lost)) => lost,
                    _ => failed().because("it ended at once"),
                })
            }
            Ok(Err(error)) => Err(failed().because(error)),
            Err(_) => Err(failed().because("it did not come up")),
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
