//! Locks on a host, by which the jobs of several snapdeck processes exclude each other.
//!
//! A lock is a hidden file beside the locked one. It is held with flock(2), which the kernel releases when the holder
//! exits for any reason; its text names the holder. It is respected on every machine that shares the directory.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::command::{CommandRunner, Input, RunningCommand, read_text};
use super::fs::{HostFiles, end_unattended, is_only_name, open_no_follow, system_error};
use snapdeck_model::{Error, Kind, Result, SandboxId, SnapshotName};
use snapdeck_ownership::describe_self;

const SCRIPT: &str = concat!(
    include_str!("open_file.sh"),
    include_str!("private_dir.sh"),
    include_str!("lock_file.sh"),
    include_str!("lock.sh")
);
/// For acquiring or releasing locks.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of its reply, which names the holder of a lock.
const MAX_REPLY_BYTES: u64 = 64 * 1024;
/// The holder on a remote host exits after 20 s without a byte.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Between attempts to acquire a lock that was lost with the connection.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Between attempts to acquire a lock that another process holds.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);
/// Limit of the wait for another process. Its jobs end by themselves, but a pull may take hours; no client waits longer.
const WAIT_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Wait for a lock of a lost connection, whose holder exits after 20 s.
const STALE_HOLDER_TIMEOUT: Duration = Duration::from_secs(24);
/// Attempts to open a lock file that its last holder removes meanwhile.
const MAX_LOCK_ATTEMPTS: u32 = 100;
/// In the text of the lock file of a download that the host continues by itself (`fs/remote.sh`, `stand_by`).
const UNATTENDED: &str = ", unattended until ";
/// For the end of such a download.
const UNATTENDED_END: Duration = Duration::from_secs(10);
/// Between attempts to acquire its lock.
const UNATTENDED_END_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum length of the text of a lock file.
const MAX_HOLDER_BYTES: u64 = 500;

/// A request for one lock.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// The locked object, such as "snapshot base on host alpha".
    description: String,
    path: String,
    is_exclusive: bool,
    /// Why nothing can have that name.
    refusal: Option<Error>,
    may_wait: bool,
    may_take_over: bool,
    /// The snapshot that it locks, if any.
    snapshot: Option<SnapshotName>,
}

impl LockRequest {
    /// Returns this exclusive request for a job that continues, or removes, what a download of the same user of the host has brought
    /// that runs there unattended: that is ended.
    pub fn taking_over(self) -> Self {
        Self {
            may_take_over: true,
            ..self
        }
    }

    /// Returns the mode for the script.
    fn mode(&self) -> &'static str {
        match (self.is_exclusive, self.may_take_over) {
            (false, _) => "shared",
            (true, false) => "exclusive",
            (true, true) => "takeover",
        }
    }

    /// Returns this request with a wait for the process that holds the lock; see [`Locks::acquire_or_wait`].
    pub fn waiting(self) -> Self {
        Self {
            may_wait: true,
            ..self
        }
    }
}

/// Locks held until they are released or this is dropped.
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
    /// Returns the request for the exclusive lock of a sandbox.
    pub fn sandbox(self, id: &SandboxId) -> LockRequest {
        LockRequest {
            description: format!("sandbox {id} on host {}", self.host.name()),
            path: format!("{}/.{id}.sandbox.lock", self.host.settings.sandboxes_dir),
            is_exclusive: true,
            may_wait: false,
            may_take_over: false,
            snapshot: None,
            refusal: None,
        }
    }

    /// Returns the request for the lock of a snapshot: exclusive to write or remove it, shared to keep it in place.
    pub fn snapshot(self, name: &SnapshotName, exclusive: bool) -> LockRequest {
        LockRequest {
            description: format!("snapshot {name} on host {}", self.host.name()),
            path: format!(
                "{}/{}",
                self.host.settings.snapshots_dir,
                name.lock_file_name()
            ),
            is_exclusive: exclusive,
            may_wait: false,
            may_take_over: false,
            snapshot: Some(name.clone()),
            refusal: self.host.check_organization(name).err(),
        }
    }

    /// Acquires one or two locks, all or none. `job_title` is shown to a conflicting process.
    ///
    /// Locks lost with the connection to the host are acquired again; `lost` is cancelled if another process got one.
    ///
    /// # Errors
    /// `Conflict` with the holder; `InvalidInput` for a snapshot in the place of another directory; an I/O error; `Unreachable`.
    pub async fn acquire(
        self,
        requests: Vec<LockRequest>,
        job_title: &str,
        lost: CancellationToken,
    ) -> Result<LockGuard> {
        self.acquire_or_wait(requests, job_title, lost, |_| {})
            .await
    }

    /// As [`Locks::acquire`], but waits for the holder of a lock whose request says so, at most a day; drop the future to
    /// give up. `on_wait` is called once, with the holder. No lock is held meanwhile.
    ///
    /// # Errors
    /// As [`Locks::acquire`].
    pub async fn acquire_or_wait(
        self,
        requests: Vec<LockRequest>,
        job_title: &str,
        lost: CancellationToken,
        on_wait: impl Fn(&str),
    ) -> Result<LockGuard> {
        if let Some(refusal) = requests.iter().find_map(|request| request.refusal.clone()) {
            return Err(refusal);
        }
        let holder = format!("{job_title}, by {}", describe_self());
        let (started_at, mut is_waiting) = (Instant::now(), false);
        loop {
            let conflict = match self.try_acquire(&requests, &holder, &lost).await? {
                Ok(guard) => return Ok(guard),
                Err(conflict) => conflict,
            };
            let may_wait = conflict.request.may_wait && started_at.elapsed() < WAIT_LIMIT;
            if !may_wait {
                return Err(conflict.into_error());
            }
            if !is_waiting {
                is_waiting = true;
                on_wait(conflict.holder());
            }
            sleep(WAIT_INTERVAL).await;
        }
    }

    async fn try_acquire(
        self,
        requests: &[LockRequest],
        holder: &str,
        lost: &CancellationToken,
    ) -> Result<Result<LockGuard, LockConflict>> {
        let (requests, holder) = (requests.to_vec(), holder.to_owned());
        match &self.host.files {
            HostFiles::Local(fs) => {
                let acquired = fs.run("acquire a lock".into(), LOCK_TIMEOUT, move || {
                    acquire_local(&requests, &holder)
                });
                let acquired = acquired.await?;
                Ok(acquired.map(|locks| LockGuard(LockHolder::Local(locks))))
            }
            HostFiles::Remote(_) => {
                let lock = RemoteLock {
                    runner: self.host.runner.clone(),
                    requests,
                    holder,
                };
                let process = match self.host.retry_policy.call(|| lock.acquire()).await? {
                    Ok(process) => process,
                    Err(conflict) => return Ok(Err(conflict)),
                };
                let (release, released) = oneshot::channel();
                tokio::spawn(maintain(lock, process, released, lost.clone()));
                Ok(Ok(LockGuard(LockHolder::Remote(release))))
            }
        }
    }
}

impl LockGuard {
    /// Releases the locks; they are free when this returns.
    pub async fn release(self) {
        match self.0 {
            LockHolder::Local(locks) => drop(locks),
            LockHolder::Remote(release) => {
                let (done, released) = oneshot::channel();
                if release.send(done).is_ok() {
                    let _ = timeout(LOCK_TIMEOUT, released).await;
                }
            }
        }
    }
}

/// A lock that another process holds.
#[derive(Debug)]
struct LockConflict {
    request: LockRequest,
    /// Text of the lock file.
    holder: String,
}

impl LockConflict {
    /// Returns the job that holds it, and by whom; empty if unknown.
    fn holder(&self) -> &str {
        self.holder.lines().next().unwrap_or_default()
    }

    fn into_error(self) -> Error {
        let summary = format!(
            "another snapdeck process is working on {}",
            self.request.description
        );
        let hint = match &self.request.snapshot {
            Some(name) if self.holder().contains(UNATTENDED) => format!(
                "wait until then, or end it as the user of the host that has started it: `snapdeck prune --partial {name} --foreign`"
            ),
            _ => "wait until it has finished".to_owned(),
        };
        let error = Error::new(Kind::Conflict, summary).hint(hint);
        match self.holder() {
            "" => error,
            holder => error.with_cause(holder),
        }
    }
}

struct LocalLock {
    path: PathBuf,
    file: File,
}

impl Drop for LocalLock {
    fn drop(&mut self) {
        // The last holder, which gets the lock exclusively, removes the file.
        if self.file.try_lock().is_ok() && is_only_name(&self.file, &self.path).unwrap_or(false) {
            // If this fails, the next holder removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn acquire_local(
    requests: &[LockRequest],
    holder: &str,
) -> io::Result<Result<Vec<LocalLock>, LockConflict>> {
    let mut locks = Vec::new();
    for request in requests {
        match lock_file(request, holder)? {
            Ok(lock) => locks.extend(lock),
            Err(conflict) => return Ok(Err(conflict)),
        }
    }
    Ok(Ok(locks))
}

/// Returns `None` if the directory does not exist: files in it have no writers.
fn lock_file(
    request: &LockRequest,
    holder: &str,
) -> io::Result<Result<Option<LocalLock>, LockConflict>> {
    let path = PathBuf::from(&request.path);
    for _ in 0..MAX_LOCK_ATTEMPTS {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = match open_no_follow(options.mode(0o600), &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("{}: {error}", request.path),
                ));
            }
        };
        let mut locked = try_lock(&file, request);
        if request.may_take_over
            && matches!(locked, Err(TryLockError::WouldBlock))
            && end_unattended(&pull_dir_path(&path))
        {
            let started_at = Instant::now();
            while matches!(locked, Err(TryLockError::WouldBlock))
                && started_at.elapsed() < UNATTENDED_END
            {
                std::thread::sleep(UNATTENDED_END_INTERVAL);
                locked = try_lock(&file, request);
            }
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = Vec::new();
                file.take(MAX_HOLDER_BYTES).read_to_end(&mut text)?;
                return Ok(Err(LockConflict {
                    request: request.clone(),
                    holder: String::from_utf8_lossy(&text).into_owned(),
                }));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Between open and lock, its last holder may have removed it. A file with another name is not a lock.
        if is_only_name(&file, &path)? {
            // With any umask, and also of a file that another user has created.
            let _ = file.set_permissions(Permissions::from_mode(lock_mode(&path)));
            // Errors are ignored, since a full disk must not prevent removals: the text is for operators only.
            let _ = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{holder}"));
            return Ok(Ok(Some(LocalLock { path, file })));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!(
            "{} is replaced again and again, or has other names",
            request.path
        ),
    ))
}

fn try_lock(file: &File, request: &LockRequest) -> std::result::Result<(), TryLockError> {
    match request.is_exclusive {
        true => file.try_lock(),
        false => file.try_lock_shared(),
    }
}

/// Returns the directory of the pull of the snapshot with this lock file.
fn pull_dir_path(lock_path: &Path) -> PathBuf {
    lock_path.with_extension("pull")
}

/// Returns the mode of a lock file. Who can read it can lock it: other users get access only if they can write to its
/// directory, and so are operators, too.
fn lock_mode(path: &Path) -> u32 {
    let dir = path.parent().and_then(|dir| dir.metadata().ok());
    match dir.is_some_and(|dir| dir.permissions().mode() & 0o022 != 0) {
        true => 0o644,
        false => 0o600,
    }
}

struct RemoteLock {
    runner: CommandRunner,
    requests: Vec<LockRequest>,
    holder: String,
}

/// The process on a remote host that holds the locks.
struct LockProcess {
    command: RunningCommand,
    stdin: ChildStdin,
}

enum LockError {
    Conflict(LockConflict),
    Other(Error),
}

impl RemoteLock {
    /// Acquires the locks. One that this process holds already belongs to a lost connection and is waited for.
    async fn acquire(&self) -> Result<Result<LockProcess, LockConflict>> {
        let started_at = Instant::now();
        loop {
            match self.try_acquire().await {
                Ok(process) => return Ok(Ok(process)),
                Err(LockError::Conflict(conflict))
                    if conflict.holder == self.holder
                        && started_at.elapsed() < STALE_HOLDER_TIMEOUT =>
                {
                    sleep(RETRY_INTERVAL).await;
                }
                Err(LockError::Conflict(conflict)) => return Ok(Err(conflict)),
                Err(LockError::Other(error)) => return Err(error),
            }
        }
    }

    async fn try_acquire(&self) -> Result<LockProcess, LockError> {
        let summary = format!("cannot acquire a lock on host {}", self.runner.host());
        let failed = || Error::new(Kind::Failed, &*summary);
        let mut argv = vec!["sh", "-c", SCRIPT, "snapdeck", &self.holder];
        for request in &self.requests {
            argv.push(request.mode());
            argv.push(&request.path);
        }
        let mut command = self
            .runner
            .start(&argv, Input::Piped)
            .await
            .map_err(LockError::Other)?;
        let stderr = command.stderr();
        let (Some(stdin), Some(stdout)) = (command.stdin(), command.stdout()) else {
            return Err(LockError::Other(failed()));
        };
        let mut reply = String::new();
        let mut stdout = BufReader::new(stdout.take(MAX_REPLY_BYTES));
        let error = match timeout(LOCK_TIMEOUT, stdout.read_line(&mut reply)).await {
            Ok(Ok(_)) if reply.trim() == "acquired" => return Ok(LockProcess { command, stdin }),
            Ok(Ok(_)) if reply.starts_with("conflict") => {
                return Err(match parse_conflict(&reply, &self.requests) {
                    Some(conflict) => LockError::Conflict(conflict),
                    None => LockError::Other(failed().with_cause(reply.trim())),
                });
            }
            Ok(Ok(_)) => {
                drop(stdin);
                let exit =
                    async { tokio::join!(read_text(stderr), self.runner.wait(&mut command)) };
                match timeout(LOCK_TIMEOUT, exit).await {
                    Ok((_, Err(lost))) => lost,
                    Ok((message, Ok(_))) => system_error(summary, &message),
                    Err(_) => failed().with_cause("its process does not exit"),
                }
            }
            Ok(Err(error)) => failed().with_cause(error),
            Err(_) => Error::new(Kind::Unreachable, summary)
                .with_cause(format!("no answer for {} s", LOCK_TIMEOUT.as_secs()))
                .retryable(),
        };
        Err(LockError::Other(error))
    }
}

/// Parses `conflict NUMBER HOLDER`; requests are numbered from 1.
fn parse_conflict(reply: &str, requests: &[LockRequest]) -> Option<LockConflict> {
    let reply = reply.strip_prefix("conflict ")?;
    let (number, holder) = reply.split_once(' ')?;
    let index = number.parse::<usize>().ok()?.checked_sub(1)?;
    Some(LockConflict {
        request: requests.get(index)?.clone(),
        holder: holder.trim().to_owned(),
    })
}

/// Keeps the locks until they are released or the guard is dropped.
async fn maintain(
    lock: RemoteLock,
    process: LockProcess,
    mut released: oneshot::Receiver<oneshot::Sender<()>>,
    lost: CancellationToken,
) {
    let mut process = Some(process);
    let mut heartbeat = interval(HEARTBEAT_INTERVAL);
    loop {
        tokio::select! {
            done = &mut released => {
                if let Some(LockProcess { mut command, stdin }) = process {
                    drop(stdin);
                    let _ = timeout(LOCK_TIMEOUT, command.wait_status()).await;
                }
                if let Ok(done) = done {
                    let _ = done.send(());
                }
                return;
            }
            _ = heartbeat.tick() => {}
        }
        if let Some(process) = &mut process
            && process.stdin.write_all(b".").await.is_ok()
        {
            continue;
        }
        process = None;
        match lock.try_acquire().await {
            Ok(acquired) => process = Some(acquired),
            Err(LockError::Conflict(conflict)) if conflict.holder != lock.holder => {
                let holder = conflict.holder();
                tracing::warn!("a lock was lost with the connection; its new holder: {holder}");
                return lost.cancel();
            }
            Err(_) => heartbeat.reset_after(RETRY_INTERVAL),
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
            may_wait: false,
            may_take_over: false,
            snapshot: Some("base".parse().unwrap()),
            refusal: None,
        }
    }

    fn acquire_one(request: &LockRequest, holder: &str) -> Result<Vec<LocalLock>> {
        let acquired = acquire_local(std::slice::from_ref(request), holder).unwrap();
        acquired.map_err(LockConflict::into_error)
    }

    #[test]
    fn one_writer_or_many_readers_hold_it_and_the_last_one_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (write, read) = (request(dir.path(), true), request(dir.path(), false));
        let writer = acquire_one(&write, "pull base, by a").unwrap();
        for other in [&write, &read] {
            let error = acquire_one(other, "push base, by b").err().unwrap();
            assert_eq!(error.kind(), Kind::Conflict);
            assert!(
                error
                    .to_string()
                    .contains("snapshot base on host alpha: pull base, by a")
            );
        }
        drop(writer);
        let readers = [
            acquire_one(&read, "a").unwrap(),
            acquire_one(&read, "b").unwrap(),
        ];
        let [first, second] = readers;
        drop(first);
        assert!(
            acquire_one(&write, "c").is_err(),
            "the second reader holds it"
        );
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
    fn a_conflict_names_the_request() {
        let dir = tempfile::tempdir().unwrap();
        let mut requests = vec![request(dir.path(), true), request(dir.path(), false)];
        requests[1].description = "snapshot app on host alpha".into();
        let conflict = parse_conflict("conflict 2 pull app, by a\n", &requests).unwrap();
        assert_eq!(conflict.holder(), "pull app, by a");
        assert_eq!(conflict.request.description, requests[1].description);
        assert_eq!(
            parse_conflict("conflict 1 \n", &requests).unwrap().holder(),
            ""
        );
        for reply in [
            "conflict 3 a\n",
            "conflict 0 a\n",
            "conflict a\n",
            "conflict",
        ] {
            assert!(parse_conflict(reply, &requests).is_none(), "{reply}");
        }
    }

    /// Holds the shared lock as an unattended download does: until its file is removed.
    fn hold_unattended(dir: &Path) -> std::thread::JoinHandle<()> {
        let pull = dir.join(".base.qcow2.pull");
        let mark = snapdeck_ownership::OwnerMark::new().to_text();
        std::fs::create_dir(&pull).unwrap();
        std::fs::set_permissions(&pull, Permissions::from_mode(0o700)).unwrap();
        std::fs::write(pull.join(".snapdeck-owner"), mark).unwrap();
        let file = pull.join("unattended");
        std::fs::write(&file, "").unwrap();
        let text = "pull base → alpha, unattended until 2026-01-02 03:04 UTC, 5 % done, by a";
        let lock = acquire_one(&request(dir, false), text).unwrap();
        std::thread::spawn(move || {
            while file.exists() {
                std::thread::sleep(UNATTENDED_END_INTERVAL);
            }
            drop(lock);
            std::fs::remove_dir_all(pull).unwrap();
        })
    }

    #[test]
    fn only_a_request_that_takes_over_ends_an_unattended_download() {
        let dir = tempfile::tempdir().unwrap();
        let write = request(dir.path(), true);
        let take_over = write.clone().taking_over();
        let download = hold_unattended(dir.path());
        let error = acquire_one(&write, "remove base, by b").err().unwrap();
        assert!(error.message().contains("5 % done, by a"), "{error}");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains("prune --partial base --foreign"), "{hint}");
        drop(acquire_one(&take_over, "pull base, by b").unwrap());
        download.join().unwrap();

        let download = hold_unattended(dir.path());
        let script = |request: &LockRequest| {
            let mut command = Command::new("sh");
            let words = ["pull base, by b", request.mode(), &request.path];
            command.args(["-c", SCRIPT, "snapdeck"]).args(words);
            let output = command.stdin(Stdio::null()).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(script(&write).contains("conflict 1 pull base → alpha, unattended"));
        assert_eq!(script(&take_over), "acquired\n");
        download.join().unwrap();
    }

    #[test]
    fn the_script_and_this_process_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let write = request(dir.path(), true);
        let script = |mode: &str| {
            let mut command = Command::new("sh");
            command.args([
                "-c",
                SCRIPT,
                "snapdeck",
                "push base, by b",
                mode,
                &write.path,
            ]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().unwrap()
        };
        let first_line = |child: &mut std::process::Child| {
            let mut line = String::new();
            let stdout = child.stdout.take().unwrap();
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).unwrap();
            line
        };
        let own = acquire_one(&write, "pull base, by a").unwrap();
        let mut other = script("shared");
        assert_eq!(first_line(&mut other), "conflict 1 pull base, by a\n");
        other.wait().unwrap();
        drop(own);
        let mut other = script("exclusive");
        assert_eq!(first_line(&mut other), "acquired\n");
        let error = acquire_one(&write, "c").err().unwrap();
        assert!(error.to_string().contains("push base, by b"), "{error}");
        drop(other.stdin.take());
        other.wait().unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}
