//! Locks on a host: what keeps the jobs of several snapdecks apart. A lock is a hidden file beside what it is for, held
//! by flock(2), so that it goes with its holder, however that ends; its text says who that is. Whoever reaches the
//! directory, by whatever path or from whatever machine, meets it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::command::{CommandRunner, Input, RunningCommand, read_text};
use super::fs::{HostFiles, system_error};
use snapdeck_model::{Error, Kind, Result, SandboxId, SnapshotName};

const SCRIPT: &str = include_str!("lock.sh");
/// For taking and giving back.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a holder there is shown that we are; it gives up after 20 s without.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a lock that was lost with the connection is asked for again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long our own holder there may not know yet that we lost it.
const STALE_HOLDER_TIMEOUT: Duration = Duration::from_secs(24);
/// Longest text of a lock, in bytes.
const MAX_HOLDER_BYTES: u64 = 500;

/// A lock that is wanted.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// What it is for, in words the operator reads.
    description: String,
    path: String,
    is_exclusive: bool,
}

/// Locks that are held until this is dropped or given back.
pub struct LockGuard(LockHolder);

enum LockHolder {
    Local(Vec<LocalLock>),
    Remote(oneshot::Sender<oneshot::Sender<()>>),
}

/// The locks of a host.
#[derive(Clone, Copy)]
pub struct Locks<'a> {
    host: &'a Host,
}

impl<'a> Locks<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl Locks<'_> {
    /// The lock of a sandbox.
    pub fn sandbox(self, id: &SandboxId) -> LockRequest {
        LockRequest {
            description: format!("sandbox {id} on host {}", self.host.name()),
            path: format!("{}/.{id}.sandbox.lock", self.host.settings.sandboxes_dir),
            is_exclusive: true,
        }
    }

    /// The lock of a snapshot: for one who writes it, or for many who only need it to stay.
    pub fn snapshot(self, name: &SnapshotName, exclusive: bool) -> LockRequest {
        LockRequest {
            description: format!("snapshot {name} on host {}", self.host.name()),
            path: format!(
                "{}/.{}.lock",
                self.host.settings.snapshots_dir,
                name.file_name()
            ),
            is_exclusive: exclusive,
        }
    }

    /// Takes locks, two at most, all or none, for `work`. One that is lost with the connection to the host is taken
    /// again; `lost` fires where somebody else has it by then.
    ///
    /// # Errors
    /// `Unsupported`, saying who has it; the system's; `Unreachable`.
    pub async fn acquire(
        self,
        wants: Vec<LockRequest>,
        work: &str,
        lost: CancellationToken,
    ) -> Result<LockGuard> {
        let who = format!("{work}, {}", describe_self());
        match &self.host.files {
            HostFiles::Local(files) => {
                let taken = files
                    .run("take a lock".into(), LOCK_TIMEOUT, move || {
                        acquire_local(&wants, &who)
                    })
                    .await?;
                taken.map(|held| LockGuard(LockHolder::Local(held)))
            }
            HostFiles::Remote(_) => {
                let taking = RemoteLock {
                    runner: self.host.runner.clone(),
                    requests: wants,
                    holder: who,
                };
                let post = self.host.retry_policy.call(|| taking.acquire()).await?;
                let (release, released) = oneshot::channel();
                tokio::spawn(maintain(taking, post, released, lost));
                Ok(LockGuard(LockHolder::Remote(release)))
            }
        }
    }
}

impl LockGuard {
    /// Gives the locks back; they are free when this returns.
    pub async fn release(self) {
        match self.0 {
            LockHolder::Local(held) => drop(held),
            LockHolder::Remote(release) => {
                let (done, is_done) = oneshot::channel();
                if release.send(done).is_ok() {
                    let _ = timeout(LOCK_TIMEOUT, is_done).await;
                }
            }
        }
    }
}

/// Who we are, for those who find the lock taken.
fn describe_self() -> String {
    let user = User::from_uid(geteuid()).ok().flatten();
    let user = user.map_or_else(|| geteuid().to_string(), |user| user.name);
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "by {user} on {}, process {}",
        machine.trim(),
        std::process::id()
    )
}

fn conflict_error(want: &LockRequest, holder: &str) -> Error {
    let holder: String = holder
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    let what = format!(
        "another snapdeck process is working on {}",
        want.description
    );
    let error = Error::new(Kind::Conflict, what).hint("wait until it is over");
    match holder.is_empty() {
        true => error,
        false => error.with_cause(holder),
    }
}

/// A lock on this machine.
struct LocalLock {
    path: PathBuf,
    file: File,
}

impl Drop for LocalLock {
    fn drop(&mut self) {
        // Whoever has it for himself alone is the last one, and removes it.
        if self.file.try_lock().is_ok() && is_same_file(&self.file, &self.path).unwrap_or(false) {
            // One that stays is taken and removed by the next.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn acquire_local(wants: &[LockRequest], who: &str) -> io::Result<Result<Vec<LocalLock>>> {
    let mut all = Vec::new();
    for want in wants {
        match lock_file(want, who)? {
            Ok(held) => all.extend(held),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(all))
}

/// `None` where the directory does not exist: what is not there has no writers.
fn lock_file(want: &LockRequest, who: &str) -> io::Result<Result<Option<LocalLock>>> {
    let path = PathBuf::from(&want.path);
    loop {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("{}: {error}", want.path),
                ));
            }
        };
        let locked = match want.is_exclusive {
            true => file.try_lock(),
            false => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = Vec::new();
                file.take(MAX_HOLDER_BYTES).read_to_end(&mut holder)?;
                return Ok(Err(conflict_error(want, &String::from_utf8_lossy(&holder))));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its last holder may have removed it between our opening and the lock.
        if is_same_file(&file, &path)? {
            // A full disk must not keep anybody from removing things: the text is for people only.
            let _ = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{who}"));
            return Ok(Ok(Some(LocalLock { path, file })));
        }
    }
}

/// What is taken on another machine.
struct RemoteLock {
    runner: CommandRunner,
    requests: Vec<LockRequest>,
    holder: String,
}

/// A holder there.
struct LockProcess {
    command: RunningCommand,
    stdin: ChildStdin,
}

/// Why there is none.
enum LockError {
    Contended(Error, String),
    Other(Error),
}

impl RemoteLock {
    /// Takes the locks. One that we have ourselves is still held by somebody who does not know yet that he lost us.
    async fn acquire(&self) -> Result<LockProcess> {
        let since = Instant::now();
        loop {
            match self.try_acquire().await {
                Ok(post) => return Ok(post),
                Err(LockError::Contended(_, holder))
                    if holder == self.holder && since.elapsed() < STALE_HOLDER_TIMEOUT =>
                {
                    sleep(RETRY_INTERVAL).await;
                }
                Err(LockError::Contended(error, _) | LockError::Other(error)) => return Err(error),
            }
        }
    }

    async fn try_acquire(&self) -> Result<LockProcess, LockError> {
        let other = LockError::Other;
        let what = format!("cannot acquire a lock on host {}", self.runner.host());
        let failed = || Error::new(Kind::Failed, &*what);
        let mut argv = vec!["sh", "-c", SCRIPT, "snapdeck", &self.holder];
        for want in &self.requests {
            argv.push(if want.is_exclusive {
                "exclusive"
            } else {
                "shared"
            });
            argv.push(&want.path);
        }
        let mut running = self
            .runner
            .start(&argv, Input::Piped)
            .await
            .map_err(other)?;
        let stderr = running.stderr();
        let (Some(line), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(other(failed()));
        };
        let mut said = String::new();
        let mut stdout = BufReader::new(stdout);
        match timeout(LOCK_TIMEOUT, stdout.read_line(&mut said)).await {
            Ok(Ok(_)) if said.trim() == "held" => Ok(LockProcess {
                command: running,
                stdin: line,
            }),
            Ok(Ok(_)) if said.starts_with("taken") => {
                let holder = said.trim_start_matches("taken").trim().to_owned();
                let want = self.requests.iter().find(|want| want.is_exclusive);
                let error = want
                    .or(self.requests.first())
                    .map_or_else(failed, |want| conflict_error(want, &holder));
                Err(LockError::Contended(error, holder))
            }
            Ok(Ok(_)) => {
                drop(line);
                let ended =
                    async { tokio::join!(read_text(stderr), self.runner.wait(&mut running)) };
                Err(other(match timeout(LOCK_TIMEOUT, ended).await {
                    // The connection may have gone, which says so itself.
                    Ok((_, Err(lost))) => lost,
                    Ok((said, Ok(_))) => system_error(what, &said),
                    Err(_) => failed().with_cause("it did not end"),
                }))
            }
            Ok(Err(error)) => Err(other(failed().with_cause(error))),
            Err(_) => Err(other(
                Error::new(Kind::Unreachable, what)
                    .with_cause(format!("no answer for {} s", LOCK_TIMEOUT.as_secs()))
                    .retryable(),
            )),
        }
    }
}

/// Keeps the locks until they are given back, or the one who took them is gone.
async fn maintain(
    taking: RemoteLock,
    post: LockProcess,
    mut released: oneshot::Receiver<oneshot::Sender<()>>,
    lost: CancellationToken,
) {
    let mut post = Some(post);
    let mut beat = interval(HEARTBEAT_INTERVAL);
    loop {
        tokio::select! {
            done = &mut released => {
                if let Some(LockProcess { command: mut running, stdin: line }) = post {
                    drop(line);
                    let _ = timeout(LOCK_TIMEOUT, running.wait_status()).await;
                }
                if let Ok(done) = done {
                    let _ = done.send(());
                }
                return;
            }
            _ = beat.tick() => {}
        }
        let alive = match &mut post {
            Some(post) => post.stdin.write_all(b".").await.is_ok(),
            None => false,
        };
        if alive {
            continue;
        }
        post = None;
        match taking.try_acquire().await {
            Ok(taken) => post = Some(taken),
            Err(LockError::Contended(_, holder)) if holder != taking.holder => {
                tracing::warn!("a lock was lost with the connection and is now held {holder}");
                return lost.cancel();
            }
            Err(_) => beat.reset_after(RETRY_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Command, Stdio};

    fn request(dir: &Path, exclusive: bool) -> LockRequest {
        LockRequest {
            description: "snapshot base on host alpha".into(),
            path: dir.join(".base.qcow2.lock").to_str().unwrap().into(),
            is_exclusive: exclusive,
        }
    }

    fn acquire_one(want: &LockRequest, who: &str) -> Result<Vec<LocalLock>> {
        acquire_local(std::slice::from_ref(want), who).unwrap()
    }

    #[test]
    fn one_writer_or_many_readers_and_the_last_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (write, read) = (request(dir.path(), true), request(dir.path(), false));
        let writer = acquire_one(&write, "pull base, by me").unwrap();
        for other in [&write, &read] {
            let error = acquire_one(other, "me, too").err().unwrap();
            assert_eq!(error.kind(), Kind::Conflict);
            assert!(
                error
                    .to_string()
                    .contains("snapshot base on host alpha: pull base, by me")
            );
        }
        drop(writer);
        let readers = [
            acquire_one(&read, "a").unwrap(),
            acquire_one(&read, "b").unwrap(),
        ];
        let [first, second] = readers;
        drop(first);
        assert!(acquire_one(&write, "c").is_err(), "one reader is left");
        drop(second);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        assert!(acquire_one(&write, "c").is_ok());
    }

    #[test]
    fn a_missing_directory_needs_no_lock() {
        let missing = request(Path::new("/nonexistent"), true);
        assert!(acquire_one(&missing, "a").unwrap().is_empty());
    }

    #[test]
    fn its_script_and_this_machine_hold_each_other_off() {
        let dir = tempfile::tempdir().unwrap();
        let write = request(dir.path(), true);
        let script = |mode: &str| {
            let mut command = Command::new("sh");
            command.args([
                "-c",
                SCRIPT,
                "snapdeck",
                "push a, by you",
                mode,
                &write.path,
            ]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().unwrap()
        };
        let first_line = |child: &mut std::process::Child| {
            let mut said = String::new();
            let stdout = child.stdout.take().unwrap();
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut said).unwrap();
            said
        };
        let ours = acquire_one(&write, "pull base, by me").unwrap();
        let mut theirs = script("shared");
        assert_eq!(first_line(&mut theirs), "taken pull base, by me\n");
        theirs.wait().unwrap();
        drop(ours);
        let mut theirs = script("exclusive");
        assert_eq!(first_line(&mut theirs), "held\n");
        let error = acquire_one(&write, "me").err().unwrap();
        assert!(error.to_string().contains("push a, by you"), "{error}");
        drop(theirs.stdin.take());
        theirs.wait().unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}
