//! Watchdog on the host: a small process that outlives snapdeck and cleans up after it when snapdeck is killed in the
//! middle of a job or loses the host.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use virt::domain::Domain;

use super::command::{CommandRunner, Input, RunningCommand};
use super::{CALL_TIMEOUT, Host};
use snapdeck_model::{Error, Kind, Result, SandboxId};

const SCRIPT: &str = concat!(include_str!("instance.sh"), include_str!("watchdog.sh"));
const START_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeats to a remote watchdog, and its timeout: neither end may notice that the network has failed.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(4);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);
/// The same while a sandbox may be paused: it has to run again within 5 s of snapdeck's end.
const HEARTBEAT_INTERVAL_PAUSED: Duration = Duration::from_secs(1);
const HEARTBEAT_TIMEOUT_PAUSED: Duration = Duration::from_secs(4);
/// Timeout of a local watchdog while a sandbox may be paused: snapdeck may have been stopped (SIGSTOP, Ctrl-Z).
const SILENCE_TIMEOUT_PAUSED: Duration = Duration::from_secs(10);
/// For an answer of the script, which searches the processes of the host for some.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes of an answer.
const MAX_ANSWER_BYTES: u64 = 4096;
const RESPAWN_INTERVAL: Duration = Duration::from_secs(2);
/// Lines that the script reads; [`FREEZING`], [`PAUSING`] and [`CHECK`] are answered.
const FREEZING: &str = "freezing";
const PAUSING: &str = "pausing";
const PAUSED: &str = "paused";
const CHECK: &str = "check";
const RUNNING: &str = "running";
const THAWED: &str = "thawed";

#[derive(Clone)]
struct WatchdogConfig {
    /// A directory of [`ScratchDirs`](crate::ScratchDirs).
    pub dir: String,
    /// The sandbox about to be paused.
    pub pause: Option<GuardedPause>,
    /// Time that `dir` is kept for the next watchdog after the connection to a remote host was lost.
    pub grace: Duration,
}

#[derive(Clone)]
struct GuardedPause {
    /// libvirt's URI on the host itself.
    pub uri: String,
    /// UUID of its domain: virsh takes a name that is a number for the ID of another domain.
    pub uuid: String,
    /// Is its disk backed up into the directory?
    pub is_backup: bool,
}

/// The watchdogs of a host.
#[derive(Clone, Copy)]
pub struct Watchdogs<'a> {
    host: &'a Host,
}

impl<'a> Watchdogs<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self { host }
    }

    /// Starts a watchdog for a directory made by [`ScratchDirs::make_temp`](crate::ScratchDirs::make_temp).
    ///
    /// # Errors
    /// `Failed` if it does not start; `Unreachable`.
    pub async fn spawn_for_dir(self, dir: &str) -> Result<Watchdog> {
        let config = self.config(dir, None);
        self.host
            .retry_policy
            .call(|| Watchdog::spawn(&self.host.runner, config.clone()))
            .await
    }

    /// Starts a watchdog for the coming pause of a sandbox, which it notes in a directory made by
    /// [`ScratchDirs::make_pause`](crate::ScratchDirs::make_pause); `None` for a guest of the embedded driver, which no
    /// other process can reach. If it has to clean up, it removes the directory.
    ///
    /// # Errors
    /// `Failed` if it does not start: nothing may be paused then; `Unreachable`.
    pub async fn spawn_for_pause(self, id: &SandboxId, dir: &str) -> Result<Option<Watchdog>> {
        self.spawn(id, dir, false).await
    }

    /// Starts a watchdog for a backup, its directory, which it removes, and the coming pause.
    ///
    /// # Errors
    /// As [`Watchdogs::spawn_for_pause`].
    pub async fn spawn_for_backup(self, id: &SandboxId, dir: &str) -> Result<Option<Watchdog>> {
        self.spawn(id, dir, true).await
    }

    async fn spawn(self, id: &SandboxId, dir: &str, is_backup: bool) -> Result<Option<Watchdog>> {
        let uri = self.host.uri_on_host();
        if uri.starts_with("qemu:///embed") {
            return Ok(None);
        }
        let uuid = |domain: &Domain| Ok(domain.uuid()?.to_string());
        let sandboxes = self.host.sandboxes();
        let uuid = sandboxes
            .call_domain(id, "inspect", CALL_TIMEOUT, uuid)
            .await?;
        let pause = GuardedPause {
            uri,
            uuid,
            is_backup,
        };
        let config = self.config(dir, Some(pause));
        Watchdog::spawn(&self.host.runner, config).await.map(Some)
    }

    fn config(self, dir: &str, pause: Option<GuardedPause>) -> WatchdogConfig {
        WatchdogConfig {
            dir: dir.to_owned(),
            pause,
            grace: self.host.settings.reconnect_timeout,
        }
    }
}

/// A running watchdog. Dropped without [`Watchdog::release`], it cleans up.
pub struct Watchdog {
    runner: CommandRunner,
    commands: UnboundedSender<WatchdogCommand>,
}

enum WatchdogCommand {
    WriteLine(&'static str),
    /// Writes a line and returns the answer; `None` if the watchdog is lost.
    Ask(&'static str, oneshot::Sender<Option<String>>),
    Release(oneshot::Sender<Result<(), String>>),
}

struct WatchdogProcess {
    command: RunningCommand,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Watchdog {
    /// Starts a watchdog.
    ///
    /// # Errors
    /// `Failed` if it does not start: nothing may be paused then; `Unreachable`.
    async fn spawn(runner: &CommandRunner, config: WatchdogConfig) -> Result<Self> {
        let process = WatchdogProcess::start(runner, &config).await?;
        let (commands, receiver) = unbounded_channel();
        tokio::spawn(supervise(runner.clone(), config, process, receiver));
        Ok(Self {
            runner: runner.clone(),
            commands,
        })
    }

    /// Makes the watchdog thaw the sandbox's file systems if snapdeck is killed; call it right before they are frozen.
    ///
    /// # Errors
    /// `Unreachable` if the watchdog is lost: nothing may be frozen then.
    pub async fn mark_freezing(&self) -> Result<()> {
        self.announce(FREEZING).await
    }

    /// Makes the watchdog resume the sandbox if snapdeck is killed; call it right before the pause, since a pause by
    /// another client before that is not snapdeck's.
    ///
    /// # Errors
    /// `Unreachable` if the watchdog is lost: nothing may be paused then.
    pub async fn mark_pausing(&self) -> Result<()> {
        self.announce(PAUSING).await
    }

    async fn announce(&self, line: &'static str) -> Result<()> {
        match self.ask(line).await.as_deref() {
            Some("ok") => Ok(()),
            _ => {
                let summary = format!("the watchdog on host {} is lost", self.runner.host());
                Err(Error::new(Kind::Unreachable, summary).retryable())
            }
        }
    }

    /// Notifies the watchdog that the sandbox is paused: from now on it notices whether the guest runs.
    pub fn mark_paused(&self) {
        let _ = self.commands.send(WatchdogCommand::WriteLine(PAUSED));
    }

    /// Returns whether the guest has run since [`Watchdog::mark_paused`]: another client has resumed it, and a pause now
    /// is not snapdeck's. False if unknown.
    ///
    /// A pause by another client during snapdeck's own changes nothing that could be seen.
    pub async fn has_guest_run(&self) -> bool {
        self.ask(CHECK).await.as_deref() == Some("ran")
    }

    async fn ask(&self, line: &'static str) -> Option<String> {
        let (answer, result) = oneshot::channel();
        self.commands
            .send(WatchdogCommand::Ask(line, answer))
            .ok()?;
        result.await.ok().flatten()
    }

    /// Notifies the watchdog that the sandbox runs again: it leaves a later pause, by another client, alone.
    pub fn mark_running(&self) {
        // A watchdog that has ended needs no message.
        let _ = self.commands.send(WatchdogCommand::WriteLine(RUNNING));
    }

    /// Notifies the watchdog that the sandbox's file systems are thawed.
    pub fn mark_thawed(&self) {
        let _ = self.commands.send(WatchdogCommand::WriteLine(THAWED));
    }

    /// Ends the watchdog without clean-up.
    ///
    /// # Errors
    /// `Failed` if a local one has exited early or does not exit. A remote one that was lost cleans up by itself.
    pub async fn release(self) -> Result<()> {
        let (answer, result) = oneshot::channel();
        let exited = || Err("it has exited".to_owned());
        let released = match self.commands.send(WatchdogCommand::Release(answer)) {
            Ok(()) => result.await.unwrap_or_else(|_| exited()),
            Err(_) => exited(),
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

/// Sends heartbeats and restarts a lost watchdog, until it is released or its handle is dropped.
async fn supervise(
    runner: CommandRunner,
    config: WatchdogConfig,
    process: WatchdogProcess,
    mut commands: UnboundedReceiver<WatchdogCommand>,
) {
    let mut process = Some(process);
    let mut interval = match config.pause {
        Some(_) => HEARTBEAT_INTERVAL_PAUSED,
        None => HEARTBEAT_INTERVAL,
    };
    let mut next_heartbeat = Instant::now();
    let is_remote = runner.ssh().is_some();
    let mut has_heartbeat = is_remote || config.pause.is_some();
    loop {
        let line = tokio::select! {
            command = commands.recv() => match command {
                // Dropped: the watchdog sees the end of its stdin and cleans up.
                None => return,
                Some(WatchdogCommand::WriteLine(line)) => line,
                Some(WatchdogCommand::Ask(line, answer)) => {
                    let reply = match &mut process {
                        Some(running) => running.ask(line).await,
                        None => None,
                    };
                    if reply.is_none() {
                        process = None;
                    }
                    let _ = answer.send(reply);
                    continue;
                }
                Some(WatchdogCommand::Release(answer)) => {
                    let released = match process {
                        Some(process) => process.release().await,
                        None => Ok(()),
                    };
                    let _ = answer.send(match released {
                        Err(cause) if is_remote => {
                            tracing::debug!("watchdog of {}: {cause}", config.dir);
                            Ok(())
                        }
                        released => released,
                    });
                    return;
                }
            },
            () = sleep_until(next_heartbeat), if has_heartbeat => "alive",
        };
        if line == RUNNING {
            interval = HEARTBEAT_INTERVAL;
            has_heartbeat = is_remote;
        }
        next_heartbeat = Instant::now() + interval;
        if let Some(process) = &mut process
            && process.write_line(line).await.is_ok()
        {
            continue;
        }
        process = None;
        // A lost watchdog has ended the pause it was started for; a directory needs a new one.
        if config.pause.is_none() {
            process = WatchdogProcess::start(&runner, &config).await.ok();
            if process.is_none() {
                next_heartbeat = Instant::now() + RESPAWN_INTERVAL;
            }
        }
    }
}

impl GuardedPause {
    fn script_flags(&self) -> &'static str {
        match self.is_backup {
            true => "backup",
            false => "pause",
        }
    }
}

impl WatchdogProcess {
    async fn start(runner: &CommandRunner, config: &WatchdogConfig) -> Result<Self> {
        let (dir, host) = (&config.dir, runner.host());
        let failed = || {
            Error::new(
                Kind::Failed,
                format!("cannot start a watchdog for {dir} on host {host}"),
            )
        };
        let mut command = runner
            .start(&["sh", "-c", SCRIPT, "snapdeck-watchdog"], Input::Piped)
            .await?;
        let (Some(mut stdin), Some(stdout)) = (command.stdin(), command.stdout()) else {
            return Err(failed());
        };
        let (uri, uuid, flags) = match &config.pause {
            Some(pause) => (&*pause.uri, &*pause.uuid, pause.script_flags()),
            None => ("", "", ""),
        };
        let (silence, running_silence, grace) = match (runner.ssh(), &config.pause) {
            (Some(_), Some(_)) => (HEARTBEAT_TIMEOUT_PAUSED, HEARTBEAT_TIMEOUT, config.grace),
            (Some(_), None) => (HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT, config.grace),
            (None, Some(_)) => (SILENCE_TIMEOUT_PAUSED, Duration::ZERO, Duration::ZERO),
            (None, None) => Default::default(),
        };
        let [silence, running_silence, grace] =
            [silence, running_silence, grace].map(|time| time.as_secs());
        let lines =
            format!("{dir}\n{uri}\n{uuid}\n{flags}\n{silence}\n{running_silence}\n{grace}\n");
        let mut stdout = BufReader::new(stdout);
        let mut answer = String::new();
        let handshake = async {
            stdin.write_all(lines.as_bytes()).await?;
            let stdout = &mut stdout;
            stdout.take(MAX_ANSWER_BYTES).read_line(&mut answer).await
        };
        match timeout(START_STOP_TIMEOUT, handshake).await {
            Ok(Ok(_)) if answer.trim() == "ready" => Ok(Self {
                command,
                stdin,
                stdout,
            }),
            Ok(Ok(_)) if answer.trim() == "virsh" => Err(failed()
                .with_cause("virsh is not installed")
                .hint(format!(
                    "install libvirt-clients on host {host}: the watchdog resumes the sandbox with virsh if snapdeck \
                     is killed"
                ))),
            Ok(Ok(_)) => {
                drop(stdin);
                // A lost connection is the better error.
                let status = timeout(START_STOP_TIMEOUT, runner.wait(&mut command)).await;
                Err(match status {
                    Ok(Err(lost)) => lost,
                    _ => failed().with_cause("it exited at once"),
                })
            }
            Ok(Err(error)) => Err(failed().with_cause(error)),
            Err(_) => Err(failed().with_cause(format!(
                "no answer within {} s",
                START_STOP_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn write_line(&mut self, line: &str) -> std::io::Result<()> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await
    }

    /// Writes a line and returns its answer.
    async fn ask(&mut self, line: &str) -> Option<String> {
        let mut answer = String::new();
        let exchange = async {
            self.write_line(line).await?;
            let stdout = &mut self.stdout;
            stdout.take(MAX_ANSWER_BYTES).read_line(&mut answer).await
        };
        match timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Ok(1..)) => Some(answer.trim().to_owned()),
            _ => None,
        }
    }

    async fn release(mut self) -> Result<(), String> {
        let exit = async {
            self.write_line("release").await?;
            self.command.wait_status().await
        };
        match timeout(START_STOP_TIMEOUT, exit).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("it exited early ({status})")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not exit".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::{Child, Command, Stdio};

    const FIND: &str = concat!(include_str!("instance.sh"), "find_process \"$1\"");

    /// Starts a process whose arguments are those of the domain's QEMU.
    fn start(uuid: &str) -> Child {
        let args = ["-c", "read line", "sh", "-uuid", uuid];
        let mut sh = Command::new("sh");
        sh.args(args).stdin(Stdio::piped()).spawn().unwrap()
    }

    /// Returns what is found with 1 GiB of memory.
    fn find(uuid: &str) -> String {
        // Not in an argument, where it would be found, too.
        let script = format!("ulimit -v 1000000\nset -- \"$FIND\"\n{FIND}");
        let mut sh = Command::new("sh");
        sh.args(["-c", &script]).env("FIND", uuid);
        String::from_utf8(sh.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn no_process_is_found_if_several_claim_to_be_a_guests() {
        const UUID: &str = "3f0c4a51-90f5-4d7e-8d0c-2b6f3a4c9e17";
        let mut guest = start(UUID);
        let found = find(UUID);
        assert!(found.starts_with(&format!("{} ", guest.id())), "{found}");
        let mut decoy = start(UUID);
        let ambiguous = find(UUID);
        for child in [&mut guest, &mut decoy] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(ambiguous, "");
    }

    #[test]
    fn arguments_without_end_do_not_hold_up_the_search() {
        // prctl(2), PR_SET_MM_MAP: its arguments are 8 GiB that are never touched. The fields are those of /proc/PID/stat.
        const UUID: &str = "6e1d9b2f-2a57-4c53-9a0e-51a7c0b8d4f3";
        const ATTACKER: &str = r"
import ctypes, mmap, struct
size = 8 << 30
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
area = libc.mmap(None, ctypes.c_size_t(size), 1, 0x4022, -1, ctypes.c_long(0))
stat = open('/proc/self/stat').read().rpartition(')')[2].split()
field = lambda number: int(stat[number - 3])
brk = libc.sbrk(0)
map = struct.pack('<11QQIi', *(field(n) for n in (26, 27, 45, 46, 47)), brk, field(28), area, area + size, field(50), field(51), 0, 0, -1)
print('other' if libc.prctl(35, 14, map, ctypes.c_ulong(len(map)), 0) else 'ready', flush=True)
input()
";
        let mut attacker = Command::new("/usr/bin/python3")
            .args(["-S", "-c", ATTACKER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 5];
        let stdout = attacker.stdout.as_mut().unwrap();
        let is_ready = std::io::Read::read_exact(stdout, &mut ready);
        let mut guest = start(UUID);
        let found = find(UUID);
        for child in [&mut guest, &mut attacker] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        is_ready.unwrap();
        if ready != *b"ready" {
            eprintln!("skipped: the kernel has no CONFIG_CHECKPOINT_RESTORE");
            return;
        }
        assert!(found.starts_with(&format!("{} ", guest.id())), "{found}");
    }
}
