//! Users of image files, and holds that keep writers away from a disk.
//!
//! The last guard before a file is replaced, repaired or removed: it asks the kernel, not libvirt or the scan. QEMU locks
//! bytes of each image that it has open, backing files included.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use super::command::{BoundedLines, CommandRunner, Input, RunningCommand, bounded_lines};
use super::fs::system_error;
use super::image::{ImageChain, Images};
use snapdeck_model::{Error, Kind, Result, printable_within};

const SCRIPT: &str = concat!(
    include_str!("least_rights.sh"),
    include_str!("open_file.sh"),
    include_str!("image_lock.sh")
);
/// For searching all open files of a host.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(60);
/// For opening a disk and its backing files, and for closing them.
const HOLD_TIMEOUT: Duration = Duration::from_secs(30);
/// The process that holds a disk exits after 20 s without a byte.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Output of the search at most: some thousand users.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Part of the message if no user but root can read all images (`least_rights.sh`).
const NO_READER: &str = "Permission denied for ";
/// Lines of a failed hold that are read at most.
const MAX_HOLD_LINES: usize = 20;
/// Length in characters of each text about a process.
const MAX_USER_CHARS: usize = 100;
const MAX_HOLD_BYTES: u64 = 64 << 10;
/// First characters of the line by which qemu-io reports that it has opened a disk.
const PROMPT: &str = "qemu-io> ";
const CLOSED: &str = "closed";

/// A process, or another user, that has an image file open or locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    /// `None` if it cannot be determined.
    pub pid: Option<u32>,
    /// Whether it has the file open for writing, or a lock that allows it.
    pub writes: bool,
    /// Whether it holds locks of QEMU on the file.
    pub has_lock: bool,
    /// The name of its program, or a device; empty if unknown.
    pub command: String,
    /// The guest that a QEMU process runs.
    pub guest: Option<String>,
    /// UUID of the domain that a QEMU process runs.
    pub uuid: Option<String>,
}

impl ImageUser {
    fn parse([pid, access, lock, command, guest, uuid]: [&str; 6]) -> Self {
        let plain = |text: &str| printable_within(text, MAX_USER_CHARS);
        let optional = |text: &str| Some(plain(text)).filter(|text| !text.is_empty());
        Self {
            pid: pid.parse().ok(),
            writes: access != "read",
            has_lock: !lock.is_empty(),
            command: plain(command),
            guest: optional(guest),
            uuid: optional(uuid),
        }
    }

    /// Returns whether it is the QEMU of that domain, or a process that cannot be inspected, whose locks may be that one's.
    fn may_be(&self, domain_uuid: Option<&str>) -> bool {
        domain_uuid.is_some()
            && match self.pid {
                Some(_) => self.uuid.as_deref() == domain_uuid,
                None => self.has_lock,
            }
    }

    /// Returns whether it needs the file: it writes it, has locked it, or is a QEMU without locks.
    fn needs_file(&self) -> bool {
        self.writes || self.has_lock || self.command.starts_with("qemu")
    }
}

impl std::fmt::Display for ImageUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match &*self.command {
            "" => "an unknown process",
            command => command,
        };
        match (&self.guest, self.pid) {
            (Some(guest), Some(pid)) => write!(f, "{name} of {guest} (process {pid})"),
            (None, Some(pid)) => write!(f, "{name} (process {pid})"),
            _ => write!(f, "{name}"),
        }
    }
}

/// Joins the names of users.
fn join(users: &[ImageUser]) -> String {
    let names: Vec<String> = users.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// The users of some files.
#[derive(Debug, PartialEq, Eq)]
struct ImageUsers {
    by_file: Vec<Vec<ImageUser>>,
    /// Whether all processes were inspected.
    is_complete: bool,
}

/// Parses the output of the verb `users` for `count` files; `None` if it is truncated.
fn parse_users(output: &[u8], count: usize) -> Option<ImageUsers> {
    let text = String::from_utf8_lossy(output);
    let mut fields: Vec<&str> = text.split_terminator('\0').collect();
    let is_complete = match fields.pop()? {
        "all" => true,
        "some" => false,
        _ => return None,
    };
    let mut users = vec![Vec::new(); count];
    let records = fields.chunks_exact(7);
    if !records.remainder().is_empty() {
        return None;
    }
    for record in records {
        let [number, fields @ ..] = <[&str; 7]>::try_from(record).ok()?;
        let index: usize = number.parse().ok()?;
        let file: &mut Vec<ImageUser> = users.get_mut(index.checked_sub(1)?)?;
        let user = ImageUser::parse(fields);
        // A process may have the file open more than once.
        match file
            .iter_mut()
            .find(|other| user.pid.is_some() && other.pid == user.pid)
        {
            Some(other) => {
                other.writes |= user.writes;
                other.has_lock |= user.has_lock;
            }
            None => file.push(user),
        }
    }
    Some(ImageUsers {
        by_file: users,
        is_complete,
    })
}

impl Images<'_> {
    /// Returns the users of each of `files`, whatever names they have them open by; a missing file has none.
    ///
    /// Without the right to inspect a process only its locks are seen.
    ///
    /// # Errors
    /// `Failed` if they cannot be determined; `Unreachable`.
    async fn users(self, files: &[&str]) -> Result<ImageUsers> {
        let summary = || {
            let (files, host) = (files.join(", "), self.runner.host());
            format!("cannot determine whether {files} is in use on host {host}")
        };
        let argv = [&["sh", "-c", SCRIPT, "snapdeck", "users"], files].concat();
        let never = CancellationToken::new();
        let search = || {
            let runner = self.runner;
            runner.run_raw(&argv, MAX_OUTPUT_BYTES, SEARCH_TIMEOUT, &never)
        };
        let output = self.retry_policy.call(search).await?;
        if !output.status.success() {
            return Err(system_error(summary(), &output.stderr));
        }
        parse_users(&output.stdout, files.len()).ok_or_else(|| {
            Error::new(Kind::Failed, summary()).with_cause("the list of open files is not complete")
        })
    }

    /// Fails if a process has `file` open for writing, has locked it, or is a QEMU that has it open; other than the QEMU of
    /// the domain `owner_uuid`.
    ///
    /// Call it right before the file is replaced, repaired or removed. `verb` completes "cannot ... FILE".
    ///
    /// # Errors
    /// `Conflict`, which names the processes; as [`Images::users`].
    pub async fn refuse_if_open(
        self,
        file: &str,
        verb: &str,
        owner_uuid: Option<&str>,
    ) -> Result<()> {
        let users = self.users(&[file]).await?.by_file.into_iter().flatten();
        let users = users.filter(|user| user.needs_file() && !user.may_be(owner_uuid));
        let users: Vec<ImageUser> = users.collect();
        if users.is_empty() {
            return Ok(());
        }
        let summary = format!("cannot {verb} {file} on host {}", self.runner.host());
        Err(Error::new(Kind::Conflict, summary)
            .with_cause(format!("it is in use by {}", join(&users)))
            .hint("stop that process first"))
    }

    /// Fails if a process other than the QEMU of the domain `owner_uuid` has one of `files` open for writing, or if that
    /// QEMU does not have the first one open, which was replaced then. `summary` is that of the error.
    ///
    /// # Errors
    /// As [`Images::refuse_if_open`].
    pub async fn refuse_other_writers(
        self,
        files: &[&str],
        owner_uuid: Option<&str>,
        summary: &str,
    ) -> Result<()> {
        let ImageUsers {
            by_file,
            is_complete,
        } = self.users(files).await?;
        let refused = || Error::new(Kind::Conflict, summary);
        for (index, (file, users)) in files.iter().zip(by_file).enumerate() {
            let (own, others): (Vec<ImageUser>, Vec<ImageUser>) =
                users.into_iter().partition(|user| user.may_be(owner_uuid));
            let writers: Vec<ImageUser> = others.into_iter().filter(|user| user.writes).collect();
            if !writers.is_empty() {
                return Err(refused()
                    .with_cause(format!("{file} is open for writing by {}", join(&writers)))
                    .hint("stop that process first: the snapshot would be inconsistent"));
            }
            if index == 0 && owner_uuid.is_some() && own.is_empty() && is_complete {
                return Err(refused()
                    .with_cause(format!(
                        "{file} was replaced: the QEMU of its domain has another file open"
                    ))
                    .hint("restart the domain"));
            }
        }
        Ok(())
    }

    /// Keeps `disk` and its backing files open as a reader that allows no writer: no QEMU starts with them meanwhile.
    ///
    /// # Errors
    /// `Conflict` if a process writes one of them; `Failed` if it is not a qcow2 image; `Unreachable`.
    pub async fn hold(self, disk: &ImageChain) -> Result<ImageHold> {
        match self.hold_as_one(disk).await {
            // libvirt leaves the disk of a guest that has stopped to root, and its base to QEMU's user: each file is opened by
            // itself, by the user who may.
            Err(error) if error.message().contains(NO_READER) && disk.files().len() > 1 => {
                let disks = disk.split();
                let holds = disks.iter().map(|disk| self.hold_as_one(disk));
                Ok(ImageHold(try_join_all(holds).await?))
            }
            hold => Ok(ImageHold(vec![hold?])),
        }
    }

    async fn hold_as_one(self, disk: &ImageChain) -> Result<ProcessHold> {
        let (runner, owner) = (self.runner.clone(), self.owner.to_owned());
        let process = self
            .retry_policy
            .call(|| HoldProcess::start(&runner, &owner, disk))
            .await?;
        let lost = Arc::new(Mutex::new(None));
        let (release, released) = oneshot::channel();
        tokio::spawn(maintain(
            (runner, owner),
            disk.clone(),
            process,
            released,
            lost.clone(),
        ));
        Ok(ProcessHold { release, lost })
    }
}

/// A disk that is kept open, until this is dropped. It is opened again after a lost connection.
pub struct ImageHold(Vec<ProcessHold>);

/// The hold of one process.
struct ProcessHold {
    release: oneshot::Sender<oneshot::Sender<()>>,
    lost: Arc<Mutex<Option<Error>>>,
}

impl ImageHold {
    /// Fails if a writer has opened the disk since, which is possible only after a lost connection.
    ///
    /// # Errors
    /// `Conflict`.
    pub fn check(&self) -> Result<()> {
        for hold in &self.0 {
            let lost = hold.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.clone().map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Closes the disk; it is free when this returns.
    pub async fn release(self) {
        let release = |hold: ProcessHold| async {
            let (done, released) = oneshot::channel();
            if hold.release.send(done).is_ok() {
                let _ = timeout(HOLD_TIMEOUT, released).await;
            }
        };
        join_all(self.0.into_iter().map(release)).await;
    }
}

/// The process on the host that has a disk open.
struct HoldProcess {
    stdin: ChildStdin,
    command: RunningCommand,
}

impl HoldProcess {
    async fn start(runner: &CommandRunner, owner: &str, disk: &ImageChain) -> Result<Self> {
        let summary = || format!("cannot open {} on host {}", disk.path(), runner.host());
        let (files, script) = (disk.files(), ["sh", "-c", SCRIPT, "snapdeck", "hold"]);
        let count = files.len().to_string();
        let argv = [&script[..], &[disk.name(), owner, &*count], &*files].concat();
        let mut command = runner.start(&argv, Input::Piped).await?;
        let (Some(stdin), Some(stdout)) = (command.stdin(), command.stdout()) else {
            return Err(Error::new(Kind::Failed, summary()));
        };
        let mut process = Self { stdin, command };
        let mut lines = bounded_lines(stdout, MAX_HOLD_BYTES);
        let message = match timeout(HOLD_TIMEOUT, read_reply(&mut lines)).await {
            Ok(None) => return Ok(process),
            Ok(Some(message)) => message,
            Err(_) => {
                process.command.terminate().await;
                return Err(Error::new(Kind::Unreachable, summary())
                    .with_cause(format!("no answer for {} s", HOLD_TIMEOUT.as_secs()))
                    .retryable());
            }
        };
        drop(process.stdin);
        // A lost connection is the better error.
        if let Ok(Err(lost)) = timeout(HOLD_TIMEOUT, runner.wait(&mut process.command)).await
            && lost.kind() == Kind::Unreachable
        {
            return Err(lost);
        }
        if message.contains("Failed to get") && message.contains("lock") {
            return Err(Error::new(Kind::Conflict, summary())
                .with_cause(first_line(&message))
                .hint("another process writes it: stop that process first"));
        }
        let error = Error::new(Kind::Failed, summary()).with_cause(first_line(&message));
        Err(match message.contains("not found") {
            true => error.hint(format!(
                "install qemu-io, of package qemu-utils or qemu-img, on host {}",
                runner.host()
            )),
            false => error,
        })
    }
}

/// Reads up to the line that says that the disk is open; returns the lines before the end if it cannot be opened.
async fn read_reply(lines: &mut BoundedLines<ChildStdout>) -> Option<String> {
    let mut message = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with(PROMPT) && message.is_empty() {
            return None;
        }
        if line == CLOSED || message.len() == MAX_HOLD_LINES {
            break;
        }
        message.push(line);
    }
    Some(message.join("\n"))
}

fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or("qemu-io exited at once");
    printable_within(line, 500)
}

/// Keeps the disk open until it is released or the hold is dropped.
async fn maintain(
    (runner, owner): (CommandRunner, String),
    disk: ImageChain,
    process: HoldProcess,
    mut released: oneshot::Receiver<oneshot::Sender<()>>,
    lost: Arc<Mutex<Option<Error>>>,
) {
    let mut process = Some(process);
    let mut heartbeat = interval(HEARTBEAT_INTERVAL);
    loop {
        tokio::select! {
            done = &mut released => {
                if let Some(HoldProcess { stdin, mut command }) = process {
                    drop(stdin);
                    let _ = timeout(HOLD_TIMEOUT, command.wait_status()).await;
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
        match HoldProcess::start(&runner, &owner, &disk).await {
            Ok(started) => process = Some(started),
            Err(error) if error.kind() != Kind::Unreachable => {
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // The caller sees it before it publishes what it has read.
                if let Ok(done) = released.await {
                    let _ = done.send(());
                }
                return;
            }
            Err(_) => heartbeat.reset_after(RETRY_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn users_of_several_files_are_parsed() {
        let output = b"1\x0012\x00read\x00lock\x00qemu-system-x86\x00win\x00aa-bb\x001\x0012\x00write\x00\x00qemu\x00\x00\x00\
            3\x00\x00write\x00lock\x00\x00\x00\x003\x007\x00read\x00\x00c\x1bat\x00\x00\x00all\x00";
        let users = parse_users(output, 3).unwrap();
        assert!(users.is_complete);
        let users = users.by_file;
        let names = |index: usize| join(&users[index]);
        assert_eq!(names(0), "qemu-system-x86 of win (process 12)");
        assert!(users[0][0].writes && users[0][0].has_lock);
        assert_eq!(users[0][0].uuid.as_deref(), Some("aa-bb"));
        assert_eq!(names(1), "");
        assert_eq!(names(2), "an unknown process, c\\u{1b}at (process 7)");
        assert!(users[2][0].needs_file() && !users[2][1].needs_file());
    }

    #[test]
    fn a_truncated_list_is_an_error() {
        assert_eq!(parse_users(b"", 1), None);
        assert_eq!(parse_users(b"1\x0012\x00read\x00", 1), None);
        assert_eq!(parse_users(b"1\x0012\x00all\x00", 1), None);
        assert_eq!(
            parse_users(b"2\x00\x00read\x00\x00\x00\x00\x00all\x00", 1),
            None
        );
        let none = parse_users(b"some\x00", 1).unwrap();
        assert_eq!((none.by_file, none.is_complete), (vec![Vec::new()], false));
    }

    #[test]
    fn a_fifo_that_takes_the_name_of_an_image_does_not_hold_up_the_search() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let [file, fake] = ["file", "dd"].map(|name| dir.path().join(name));
        std::fs::write(&file, "text").unwrap();
        // `dd` looks at it last before it is opened.
        std::fs::write(&fake, "#!/bin/sh\nrm -f \"$FILE\"; mkfifo \"$FILE\"\n").unwrap();
        std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = std::process::Command::new("sh")
            .args(["-c", SCRIPT, "snapdeck", "users"])
            .arg(&file)
            .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
            .env("FILE", &file)
            .output()
            .unwrap();
        assert_eq!(parse_users(&output.stdout, 1), None);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("makes its reader wait"), "{message}");
    }

    #[test]
    fn fuzz_users() {
        snapdeck_fuzz::FuzzTarget::new("list of open files")
            .seed("1\x004711\0write\0lock\0qemu-system-x86\0box\0uuid\0all\0")
            .seed("1\0\0read\0\0\0\0\x002\x007\0read\0\0cp\0\0\0some\0")
            .max_bytes(MAX_OUTPUT_BYTES)
            .memory(1 << 20, 64)
            .run(|output| {
                if let Some(users) = parse_users(output, 2) {
                    assert_eq!(users.by_file.len(), 2);
                    let text = join(&users.by_file.concat());
                    assert!(!text.contains(char::is_control));
                }
            });
    }
}
