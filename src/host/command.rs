//! Commands on a host, local or over SSH: always an argument vector, always with a deadline, their output bounded.

use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Take};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::quote::quote_words;
use super::ssh::{Master, Ssh};
use super::supervisor::{Limits, supervisor_argv};
use snapdeck_libvirt::begin_session;
use snapdeck_model::{Error, HostName, Kind, Result};
use snapdeck_process::tool_command;

/// Limit of a command's output, unless the caller sets another.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// For a remote or supervised command to exit after the end of its stdin.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);
/// For a remote one that was dropped, which may clean up.
const DROPPED_EXIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Exit status of ssh itself (ssh(1)).
const SSH_FAILED_STATUS: i32 = 255;
/// Exit status of a shell without such a program (POSIX, XCU 2.8.2).
const NOT_FOUND_STATUS: i32 = 127;

/// Variables that change the options or the output of the programs that are run (coreutils manual, "Block size" and
/// "Standards conformance").
const UNSET_VARIABLES: &[&str] = &[
    "POSIXLY_CORRECT",
    "BLOCK_SIZE",
    "BLOCKSIZE",
    "DF_BLOCK_SIZE",
    "DU_BLOCK_SIZE",
];

/// Returns the Debian package of a required program.
fn find_package(program: &str) -> Option<&'static str> {
    match program {
        "qemu-img" | "qemu-nbd" => Some("qemu-utils"),
        "virsh" => Some("libvirt-clients"),
        _ => None,
    }
}

/// Runs commands on one host.
#[derive(Clone)]
pub(crate) struct CommandRunner {
    host: HostName,
    ssh: Option<Ssh>,
}

pub(crate) struct TextOutput {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

pub(crate) struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    fn into_text(self) -> TextOutput {
        TextOutput {
            status: self.status,
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: self.stderr,
        }
    }
}

/// A command's standard input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Empty; dropping the [`RunningCommand`] kills the command.
    None,
    /// Written by the caller; dropping the [`RunningCommand`] closes it, and the command exits by itself. A host has a minute
    /// for that.
    Piped,
}

/// A running command.
pub(crate) struct RunningCommand {
    program: String,
    /// `None` only while it is dropped.
    child: Option<Child>,
    /// The input until it is taken; its end kills a supervised command.
    stdin: Option<ChildStdin>,
    /// Whether a supervisor runs it.
    is_supervised: bool,
    /// Whether it is killed when it is dropped.
    is_killed: bool,
    session: Option<RemoteSession>,
}

struct RemoteSession {
    ssh: Ssh,
    master: Arc<Master>,
    _permit: OwnedSemaphorePermit,
}

impl RemoteSession {
    async fn open(ssh: &Ssh) -> Result<Self> {
        let (master, permit) = ssh.acquire_session().await?;
        Ok(Self {
            ssh: ssh.clone(),
            master,
            _permit: permit,
        })
    }
}

impl CommandRunner {
    pub(crate) fn new(host: HostName, ssh: Option<Ssh>) -> Self {
        Self { host, ssh }
    }

    pub(crate) fn host(&self) -> &HostName {
        &self.host
    }

    /// Returns the SSH connection; `None` for this machine.
    pub(crate) fn ssh(&self) -> Option<&Ssh> {
        self.ssh.as_ref()
    }

    /// Returns the limit for transfers of images.
    pub(crate) fn max_bytes_per_sec(&self) -> Option<u64> {
        self.ssh.as_ref()?.rate_limit().bytes_per_sec()
    }

    /// Waits as the limit for transfers of images demands before `bytes` are transferred.
    pub(crate) async fn limit_rate(&self, bytes: u64) {
        if let Some(ssh) = &self.ssh {
            ssh.rate_limit().take(bytes).await;
        }
    }

    /// Gives back `bytes` that were not transferred.
    pub(crate) fn give_back_rate(&self, bytes: u64) {
        if let Some(ssh) = &self.ssh {
            ssh.rate_limit().give_back(bytes);
        }
    }

    /// Starts `argv` with its output piped.
    ///
    /// # Errors
    /// `Failed` with the missing package if a local program does not exist ([`CommandRunner::wait`] reports a remote
    /// one); `Unreachable`.
    pub(crate) async fn start(&self, argv: &[&str], input: Input) -> Result<RunningCommand> {
        self.start_with(argv, input, None).await
    }

    /// Starts `argv` with its output piped and without input, under `limits`. It does not outlive this process.
    ///
    /// # Errors
    /// As [`CommandRunner::start`]; [`CommandRunner::wait`] reports a program that does not exist.
    pub(crate) async fn start_limited(
        &self,
        argv: &[&str],
        limits: Limits<'_>,
    ) -> Result<RunningCommand> {
        self.start_with(argv, Input::None, Some(limits)).await
    }

    async fn start_with(
        &self,
        argv: &[&str],
        input: Input,
        limits: Option<Limits<'_>>,
    ) -> Result<RunningCommand> {
        let program = argv.first().copied().unwrap_or_default();
        let is_supervised = match &self.ssh {
            Some(_) => input == Input::None,
            None => limits.is_some(),
        };
        let supervisor = match is_supervised {
            true => supervisor_argv(limits),
            false => Vec::new(),
        };
        let supervisor = supervisor.iter().map(String::as_str);
        let mut words = supervisor.chain(argv.iter().copied());
        let Some(ssh) = &self.ssh else {
            let mut command = Command::from(tool_command(words.next().unwrap_or_default()));
            command.args(words);
            return self.spawn(program, command, (input, is_supervised), None);
        };
        let session = RemoteSession::open(ssh).await?;
        let unset = UNSET_VARIABLES.iter().flat_map(|name| ["-u", *name]);
        let env = ["env"].into_iter().chain(unset).chain(["LC_ALL=C"]);
        let line = quote_words(env.chain(words));
        let command = session.master.shell_command(&format!("exec {line}"));
        self.spawn(program, command, (input, is_supervised), Some(session))
    }

    /// Starts the SFTP server of a remote host on the command's input and output.
    ///
    /// # Errors
    /// `Unreachable`; `Failed` on this machine, which needs none.
    pub(crate) async fn start_sftp(&self) -> Result<RunningCommand> {
        let ssh = self
            .ssh
            .as_ref()
            .ok_or_else(|| self.run_error(Kind::Failed, "sftp"))?;
        let session = RemoteSession::open(ssh).await?;
        let command = session.master.sftp_command();
        self.spawn("sftp", command, (Input::Piped, false), Some(session))
    }

    fn spawn(
        &self,
        program: &str,
        mut command: Command,
        (input, is_supervised): (Input, bool),
        session: Option<RemoteSession>,
    ) -> Result<RunningCommand> {
        let stdin = match input == Input::None && !is_supervised {
            true => Stdio::null(),
            false => Stdio::piped(),
        };
        for name in UNSET_VARIABLES {
            command.env_remove(name);
        }
        // A command with piped input sees its end and cleans up; so does the supervisor, which must not be killed before its
        // command.
        let is_killed = input == Input::None && (session.is_some() || !is_supervised);
        command
            .env("LC_ALL", "C")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(is_killed);
        // Ctrl-C in the terminal is for snapdeck only, which ends its commands in order.
        match session {
            Some(_) => command.process_group(0),
            // It may run as QEMU's user.
            None => {
                begin_session(command.as_std_mut());
                &mut command
            }
        };
        let mut child = command.spawn().map_err(|error| {
            let is_missing = error.kind() == std::io::ErrorKind::NotFound;
            match is_missing && session.is_none() {
                true => self.missing_program_error(program),
                false => self.run_error(Kind::Failed, program).with_cause(error),
            }
        })?;
        Ok(RunningCommand {
            program: program.to_owned(),
            stdin: child.stdin.take(),
            is_supervised,
            is_killed,
            child: Some(child),
            session,
        })
    }

    fn run_error(&self, kind: Kind, program: &str) -> Error {
        Error::new(kind, format!("cannot run {program} on host {}", self.host))
    }

    fn missing_program_error(&self, program: &str) -> Error {
        let error = self
            .run_error(Kind::Failed, program)
            .with_cause("it is not installed");
        match find_package(program) {
            Some(package) => error.hint(format!("install {package} on host {}", self.host)),
            None => error,
        }
    }

    /// Runs `argv` to its end.
    ///
    /// # Errors
    /// As [`CommandRunner::start`]; `Cancelled`; `Unreachable` after `deadline`. The command has ended in every case,
    /// or ends as soon as the host notices that the connection is lost.
    pub(crate) async fn run(
        &self,
        argv: &[&str],
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<TextOutput> {
        let output = self
            .run_raw(argv, MAX_OUTPUT_BYTES, deadline, cancel)
            .await?;
        Ok(output.into_text())
    }

    /// Runs `argv` to its end and returns at most `limit` bytes of its output.
    ///
    /// # Errors
    /// As [`CommandRunner::run`].
    pub(crate) async fn run_raw(
        &self,
        argv: &[&str],
        limit: usize,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Output> {
        let start = self.start(argv, Input::None);
        self.exchange(argv, start, None, limit, (deadline, cancel))
            .await
    }

    /// As [`CommandRunner::run`], under `limits`.
    ///
    /// # Errors
    /// As [`CommandRunner::run`].
    pub(crate) async fn run_limited(
        &self,
        argv: &[&str],
        limits: Limits<'_>,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<TextOutput> {
        let start = self.start_limited(argv, limits);
        let started = Instant::now();
        let output = self
            .exchange(argv, start, None, MAX_OUTPUT_BYTES, (deadline, cancel))
            .await;
        match output {
            // Once more it would take as long. A lost connection is noticed earlier, by ssh.
            Err(error) if started.elapsed() >= deadline && error.kind() == Kind::Unreachable => {
                Err(self
                    .run_error(Kind::Failed, argv.first().copied().unwrap_or_default())
                    .with_cause(format!("it did not finish within {} s", deadline.as_secs()))
                    .hint(
                        "do not trust the image, unless the host is overloaded: then retry later",
                    ))
            }
            output => output.map(Output::into_text),
        }
    }

    /// Runs `argv` with `input`; the command has to check that it is complete.
    ///
    /// # Errors
    /// As [`CommandRunner::run`].
    pub(crate) async fn run_with_input(
        &self,
        argv: &[&str],
        input: &[u8],
        deadline: Duration,
    ) -> Result<Output> {
        let never = CancellationToken::new();
        let start = self.start(argv, Input::Piped);
        self.exchange(
            argv,
            start,
            Some(input),
            MAX_OUTPUT_BYTES,
            (deadline, &never),
        )
        .await
    }

    async fn exchange(
        &self,
        argv: &[&str],
        start: impl Future<Output = Result<RunningCommand>>,
        input: Option<&[u8]>,
        limit: usize,
        (deadline, cancel): (Duration, &CancellationToken),
    ) -> Result<Output> {
        let program = argv.first().copied().unwrap_or_default();
        let work = async {
            let mut running = start.await?;
            let (stdout, stderr) = (running.stdout(), running.stderr());
            let stdin = input.and_then(|input| running.stdin().zip(Some(input)));
            let output = async {
                let write = async {
                    if let Some((mut stdin, input)) = stdin {
                        // A write error shows up in the exit status.
                        let _ = stdin.write_all(input).await;
                    }
                };
                let (stdout, stderr, (), status) = tokio::join!(
                    read_bounded(stdout, limit),
                    read_text(stderr),
                    write,
                    self.wait(&mut running)
                );
                status.map(|status| Output {
                    status,
                    stdout,
                    stderr,
                })
            };
            tokio::select! {
                output = output => return output,
                () = cancel.cancelled() => {}
            }
            // The error is returned after the command has ended, so that nothing it holds or writes outlives it.
            running.terminate().await;
            Err(Error::cancelled(program))
        };
        // Dropping it at the deadline kills the command.
        let output = tokio::time::timeout(deadline, work).await;
        output.unwrap_or_else(|_| {
            Err(self
                .run_error(Kind::Unreachable, program)
                .with_cause(format!("it did not finish within {} s", deadline.as_secs()))
                .retryable())
        })
    }

    /// Waits until the command exits.
    ///
    /// # Errors
    /// `Unreachable` if the connection was lost; `Failed` if the host has no such program.
    pub(crate) async fn wait(&self, running: &mut RunningCommand) -> Result<ExitStatus> {
        let status = running.wait_status().await;
        let program = &running.program;
        let status =
            status.map_err(|error| self.run_error(Kind::Failed, program).with_cause(error))?;
        let Some(session) = &running.session else {
            return match status.code() {
                Some(NOT_FOUND_STATUS) if running.is_supervised => {
                    Err(self.missing_program_error(program))
                }
                _ => Ok(status),
            };
        };
        match status.code() {
            Some(SSH_FAILED_STATUS) => {
                session.ssh.check_alive(&session.master).await;
                let error = self.run_error(Kind::Unreachable, program);
                Err(match session.master.is_up() {
                    true => error
                        .with_cause("sshd refused another session")
                        .hint("raise MaxSessions in its sshd_config to at least 10")
                        .retryable(),
                    false => session.ssh.connection_lost_error(error.message()),
                })
            }
            Some(NOT_FOUND_STATUS) => Err(self.missing_program_error(program)),
            _ => Ok(status),
        }
    }
}

impl RunningCommand {
    /// Takes its output.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.as_mut()?.stdout.take()
    }

    /// Takes its error output.
    pub(crate) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.as_mut()?.stderr.take()
    }

    /// Takes its input.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Waits until it exits, without a check of the connection.
    pub(crate) async fn wait_status(&mut self) -> std::io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait().await,
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// Ends it and waits until it has exited.
    pub(crate) async fn terminate(&mut self) {
        drop(self.stdin.take());
        if (self.session.is_some() || self.is_supervised)
            && tokio::time::timeout(EXIT_TIMEOUT, self.wait_status())
                .await
                .is_ok()
        {
            return;
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill().await;
        }
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        // A host may never close the channel: then its ssh here would stay.
        if !self.is_killed
            && let (Some(session), Some(mut child)) = (self.session.take(), self.child.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && matches!(child.try_wait(), Ok(None))
        {
            drop(self.stdin.take());
            runtime.spawn(async move {
                let exit = tokio::time::timeout(DROPPED_EXIT_TIMEOUT, child.wait());
                if exit.await.is_err() {
                    let _ = child.kill().await;
                }
                drop(session);
            });
        }
    }
}

/// Reads a stream to its end and returns its first `limit` bytes, so that no writer blocks on a full pipe.
pub(crate) async fn read_bounded(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // An error ends the output.
        let _ = (&mut stream)
            .take(limit as u64)
            .read_to_end(&mut bytes)
            .await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    bytes
}

/// Returns the lines of a program on a host, which is not trusted, up to `limit` bytes in all.
pub(crate) fn bounded_lines<S: AsyncRead + Unpin>(stream: S, limit: u64) -> BoundedLines<S> {
    BufReader::new(stream.take(limit)).lines()
}

pub(crate) type BoundedLines<S> = Lines<BufReader<Take<S>>>;

/// As [`read_bounded`], for text.
pub(crate) async fn read_text(stream: Option<impl AsyncRead + Unpin>) -> String {
    String::from_utf8_lossy(&read_bounded(stream, MAX_OUTPUT_BYTES).await).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_without_an_end_takes_no_memory() {
        let mut lines = bounded_lines(tokio::io::repeat(b'x'), 1000);
        let line = lines.next_line().await.unwrap();
        assert_eq!(line.map(|line| line.len()), Some(1000));
        assert_eq!(lines.next_line().await.unwrap(), None);
    }
}
