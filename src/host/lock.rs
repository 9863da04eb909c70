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
use super::command::{Input, Place, Running, text};
use super::fs::{HostFs, system_error};
use snapdeck_model::{Error, Kind, Result, SandboxId, SnapshotName};

const SCRIPT: &str = include_str!("lock.sh");
/// For taking and giving back.
const CALL: Duration = Duration::from_secs(20);
/// How often a holder there is shown that we are; it gives up after 20 s without.
const BEAT: Duration = Duration::from_secs(5);
/// How often a lock that was lost with the connection is asked for again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long our own holder there may not know yet that we lost it.
const OURS: Duration = Duration::from_secs(24);
/// Longest text of a lock, in bytes.
const TEXT: u64 = 500;

/// A lock that is wanted.
#[derive(Debug, Clone)]
pub struct Want {
    /// What it is for, in words the operator reads.
    what: String,
    path: String,
    exclusive: bool,
}

/// Locks that are held until this is dropped or given back.
pub struct Lock(Holder);

enum Holder {
    Here(Vec<Held>),
    There(oneshot::Sender<oneshot::Sender<()>>),
}

impl Host {
    /// The lock of a sandbox.
    pub fn lock_of_sandbox(&self, id: &SandboxId) -> Want {
        Want {
            what: format!("sandbox {id} on host {}", self.name()),
            path: format!("{}/.{id}.sandbox.lock", self.settings.sandboxes_dir),
            exclusive: true,
        }
    }

    /// The lock of a snapshot: for one who writes it, or for many who only need it to stay.
    pub fn lock_of_snapshot(&self, name: &SnapshotName, exclusive: bool) -> Want {
        Want {
            what: format!("snapshot {name} on host {}", self.name()),
            path: format!("{}/.{}.lock", self.settings.snapshots_dir, name.file_name()),
            exclusive,
        }
    }

    /// Takes locks, two at most, all or none, for `work`. One that is lost with the connection to the host is taken
    /// again; `lost` fires where somebody else has it by then.
    ///
    /// # Errors
    /// `Refused`, saying who has it; the system's; `Unreachable`.
    pub async fn lock(
        &self,
        wants: Vec<Want>,
        work: &str,
        lost: CancellationToken,
    ) -> Result<Lock> {
        let who = format!("{work}, {}", ourselves());
        match &self.files {
            HostFs::Local(files) => {
                let taken = files
                    .run("take a lock".into(), CALL, move || here(&wants, &who))
                    .await?;
                taken.map(|held| Lock(Holder::Here(held)))
            }
            HostFs::Remote(_) => {
                let taking = Taking {
                    place: self.place.clone(),
                    wants,
                    who,
                };
                let post = self.patience.call(|| taking.until_not_ours()).await?;
                let (release, released) = oneshot::channel();
                tokio::spawn(keep(taking, post, released, lost));
                Ok(Lock(Holder::There(release)))
            }
        }
    }
}

impl Lock {
    /// Gives the locks back; they are free when this returns.
    pub async fn release(self) {
        match self.0 {
            Holder::Here(held) => drop(held),
            Holder::There(release) => {
                let (done, is_done) = oneshot::channel();
                if release.send(done).is_ok() {
                    let _ = timeout(CALL, is_done).await;
                }
            }
        }
    }
}

/// Who we are, for those who find the lock taken.
fn ourselves() -> String {
    let user = User::from_uid(geteuid()).ok().flatten();
    let user = user.map_or_else(|| geteuid().to_string(), |user| user.name);
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "by {user} on {}, process {}",
        machine.trim(),
        std::process::id()
    )
}

fn taken(want: &Want, holder: &str) -> Error {
    let holder: String = holder
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    let what = format!("another snapdeck works on {}", want.what);
    let error = Error::new(Kind::Conflict, what).hint("wait until it is over");
    match holder.is_empty() {
        true => error,
        false => error.with_cause(holder),
    }
}

/// A lock on this machine.
struct Held {
    path: PathBuf,
    file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever has it for himself alone is the last one, and removes it.
        if self.file.try_lock().is_ok() && is_at(&self.file, &self.path).unwrap_or(false) {
            // One that stays is taken and removed by the next.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn here(wants: &[Want], who: &str) -> io::Result<Result<Vec<Held>>> {
    let mut all = Vec::new();
    for want in wants {
        match take(want, who)? {
            Ok(held) => all.extend(held),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(all))
}

/// `None` where the directory does not exist: what is not there has no writers.
fn take(want: &Want, who: &str) -> io::Result<Result<Option<Held>>> {
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
        let locked = match want.exclusive {
            true => file.try_lock(),
            false => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = Vec::new();
                file.take(TEXT).read_to_end(&mut holder)?;
                return Ok(Err(taken(want, &String::from_utf8_lossy(&holder))));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its last holder may have removed it between our opening and the lock.
        if is_at(&file, &path)? {
            // A full disk must not keep anybody from removing things: the text is for people only.
            let _ = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{who}"));
            return Ok(Ok(Some(Held { path, file })));
        }
    }
}

/// What is taken on another machine.
struct Taking {
    place: Place,
    wants: Vec<Want>,
    who: String,
}

/// A holder there.
struct Post {
    running: Running,
    line: ChildStdin,
}

/// Why there is none.
enum Refusal {
    Taken(Error, String),
    Other(Error),
}

impl Taking {
    /// Takes the locks. One that we have ourselves is still held by somebody who does not know yet that he lost us.
    async fn until_not_ours(&self) -> Result<Post> {
        let since = Instant::now();
        loop {
            match self.take().await {
                Ok(post) => return Ok(post),
                Err(Refusal::Taken(_, holder)) if holder == self.who && since.elapsed() < OURS => {
                    sleep(AGAIN).await;
                }
                Err(Refusal::Taken(error, _) | Refusal::Other(error)) => return Err(error),
            }
        }
    }

    async fn take(&self) -> Result<Post, Refusal> {
        let other = Refusal::Other;
        let what = format!("cannot take a lock on host {}", self.place.host());
        let failed = || Error::new(Kind::Failed, &*what);
        let mut argv = vec!["sh", "-c", SCRIPT, "snapdeck", &self.who];
        for want in &self.wants {
            argv.push(if want.exclusive {
                "exclusive"
            } else {
                "shared"
            });
            argv.push(&want.path);
        }
        let mut running = self.place.start(&argv, Input::Piped).await.map_err(other)?;
        let stderr = running.stderr();
        let (Some(line), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(other(failed()));
        };
        let mut said = String::new();
        let mut stdout = BufReader::new(stdout);
        match timeout(CALL, stdout.read_line(&mut said)).await {
            Ok(Ok(_)) if said.trim() == "held" => Ok(Post { running, line }),
            Ok(Ok(_)) if said.starts_with("taken") => {
                let holder = said.trim_start_matches("taken").trim().to_owned();
                let want = self.wants.iter().find(|want| want.exclusive);
                let error = want
                    .or(self.wants.first())
                    .map_or_else(failed, |want| taken(want, &holder));
                Err(Refusal::Taken(error, holder))
            }
            Ok(Ok(_)) => {
                drop(line);
                let ended = async { tokio::join!(text(stderr), self.place.wait(&mut running)) };
                Err(other(match timeout(CALL, ended).await {
                    // The connection may have gone, which says so itself.
                    Ok((_, Err(lost))) => lost,
                    Ok((said, Ok(_))) => system_error(what, &said),
                    Err(_) => failed().with_cause("it did not end"),
                }))
            }
            Ok(Err(error)) => Err(other(failed().with_cause(error))),
            Err(_) => Err(other(
                Error::new(Kind::Unreachable, what)
                    .with_cause(format!("no answer for {} s", CALL.as_secs()))
                    .retryable(),
            )),
        }
    }
}

/// Keeps the locks until they are given back, or the one who took them is gone.
async fn keep(
    taking: Taking,
    post: Post,
    mut released: oneshot::Receiver<oneshot::Sender<()>>,
    lost: CancellationToken,
) {
    let mut post = Some(post);
    let mut beat = interval(BEAT);
    loop {
        tokio::select! {
            done = &mut released => {
                if let Some(Post { mut running, line }) = post {
                    drop(line);
                    let _ = timeout(CALL, running.ended()).await;
                }
                if let Ok(done) = done {
                    let _ = done.send(());
                }
                return;
            }
            _ = beat.tick() => {}
        }
        let alive = match &mut post {
            Some(post) => post.line.write_all(b".").await.is_ok(),
            None => false,
        };
        if alive {
            continue;
        }
        post = None;
        match taking.take().await {
            Ok(taken) => post = Some(taken),
            Err(Refusal::Taken(_, holder)) if holder != taking.who => {
                tracing::warn!("a lock was lost with the connection, and is taken now: {holder}");
                return lost.cancel();
            }
            Err(_) => beat.reset_after(AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Command, Stdio};

    fn want(dir: &Path, exclusive: bool) -> Want {
        Want {
            what: "snapshot base on host alpha".into(),
            path: dir.join(".base.qcow2.lock").to_str().unwrap().into(),
            exclusive,
        }
    }

    fn take_here(want: &Want, who: &str) -> Result<Vec<Held>> {
        here(std::slice::from_ref(want), who).unwrap()
    }

    #[test]
    fn one_writer_or_many_readers_and_the_last_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (write, read) = (want(dir.path(), true), want(dir.path(), false));
        let writer = take_here(&write, "pull base, by me").unwrap();
        for other in [&write, &read] {
            let error = take_here(other, "me, too").err().unwrap();
            assert_eq!(error.kind(), Kind::Conflict);
            assert!(
                error
                    .to_string()
                    .contains("snapshot base on host alpha: pull base, by me")
            );
        }
        drop(writer);
        let readers = [
            take_here(&read, "a").unwrap(),
            take_here(&read, "b").unwrap(),
        ];
        let [first, second] = readers;
        drop(first);
        assert!(take_here(&write, "c").is_err(), "one reader is left");
        drop(second);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        assert!(take_here(&write, "c").is_ok());
    }

    #[test]
    fn a_missing_directory_needs_no_lock() {
        let missing = want(Path::new("/nonexistent"), true);
        assert!(take_here(&missing, "a").unwrap().is_empty());
    }

    #[test]
    fn its_script_and_this_machine_hold_each_other_off() {
        let dir = tempfile::tempdir().unwrap();
        let write = want(dir.path(), true);
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
        let ours = take_here(&write, "pull base, by me").unwrap();
        let mut theirs = script("shared");
        assert_eq!(first_line(&mut theirs), "taken pull base, by me\n");
        theirs.wait().unwrap();
        drop(ours);
        let mut theirs = script("exclusive");
        assert_eq!(first_line(&mut theirs), "held\n");
        let error = take_here(&write, "me").err().unwrap();
        assert!(error.to_string().contains("push a, by you"), "{error}");
        drop(theirs.stdin.take());
        theirs.wait().unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}
