//! Commands on a host, here or there: always an argument vector, always with a deadline, their output bounded.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::quote;
use super::ssh::{Master, Ssh};
use snapdeck_model::{Error, HostName, Kind, Result};

/// Bytes kept of what a command says, unless the caller wants more.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// For a command there to end after it was told to.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);
/// What ssh exits with when it was not the command that ended.
const SSH_FAILED_STATUS: i32 = 255;
/// What a shell exits with when there is no such program (POSIX, XCU 2.8.2).
const NOT_FOUND_STATUS: i32 = 127;

/// Runs a command that ends when our end of its standard input does: a command there would outlive us.
const KILL_ON_STDIN_EOF: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- & command=$!
{ cat <&3; kill -9 "$command"; } >/dev/null 2>&1 & leash=$!
exec 3<&-
wait "$command"; code=$?
kill "$leash" 2>/dev/null
exit "$code"
"#;

/// Which Debian package brings a command we need.
fn find_package(program: &str) -> Option<&'static str> {
    match program {
        "qemu-img" | "qemu-nbd" => Some("qemu-utils"),
        "virsh" => Some("libvirt-clients"),
        _ => None,
    }
}

/// Where a host's commands run.
#[derive(Clone)]
pub(crate) struct CommandRunner {
    host: HostName,
    ssh: Option<Ssh>,
}

/// What a command said.
pub(crate) struct TextOutput {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// What a command said, byte by byte.
pub(crate) struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A command's standard input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nothing; the command ends when whoever started it lets it go.
    None,
    /// Ours to write.
    Piped,
}

/// A command under way. It ends when this is dropped, unless its input was ours: then it sees that end.
pub(crate) struct RunningCommand {
    program: String,
    child: Child,
    /// The leash, or the input until it is taken.
    stdin: Option<ChildStdin>,
    session: Option<RemoteSession>,
}

struct RemoteSession {
    ssh: Ssh,
    master: Arc<Master>,
    _permit: OwnedSemaphorePermit,
}

impl RemoteSession {
    async fn open(ssh: &Ssh) -> Result<Self> {
        let (master, place) = ssh.acquire_session().await?;
        Ok(Self {
            ssh: ssh.clone(),
            master,
            _permit: place,
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

    /// The way there; `None` for this machine.
    pub(crate) fn ssh(&self) -> Option<&Ssh> {
        self.ssh.as_ref()
    }

    /// Starts `argv`, its output piped to us.
    ///
    /// # Errors
    /// `Failed` with the package that is missing, where there is no such program here (one there shows when
    /// it is waited for); `Unreachable`.
    pub(crate) async fn start(&self, argv: &[&str], input: Input) -> Result<RunningCommand> {
        let program = argv.first().copied().unwrap_or_default();
        let Some(ssh) = &self.ssh else {
            let mut command = Command::new(program);
            command.args(argv.get(1..).unwrap_or_default());
            return self.spawn(program, command, input, None);
        };
        let there = RemoteSession::open(ssh).await?;
        let leash = match input {
            Input::None => &["sh", "-c", KILL_ON_STDIN_EOF, "snapdeck"][..],
            Input::Piped => &[],
        };
        let words = ["env", "LC_ALL=C"].into_iter().chain(leash.iter().copied());
        let line = quote::quote_words(words.chain(argv.iter().copied()));
        let command = there.master.shell_command(&format!("exec {line}"));
        self.spawn(program, command, input, Some(there))
    }

    /// Starts the SFTP server of a remote host, to be talked to by its input and output.
    ///
    /// # Errors
    /// `Unreachable`; `Failed` for this machine, which needs none.
    pub(crate) async fn start_sftp(&self) -> Result<RunningCommand> {
        let ssh = self.ssh.as_ref().ok_or_else(|| self.run_error("sftp"))?;
        let there = RemoteSession::open(ssh).await?;
        let command = there.master.sftp_command();
        self.spawn("sftp", command, Input::Piped, Some(there))
    }

    fn spawn(
        &self,
        program: &str,
        mut command: Command,
        input: Input,
        there: Option<RemoteSession>,
    ) -> Result<RunningCommand> {
        let stdin = match (&there, input) {
            (None, Input::None) => Stdio::null(),
            _ => Stdio::piped(),
        };
        command
            .env("LC_ALL", "C")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Whoever reads an input of ours is to see its end and clean up.
            .kill_on_drop(input == Input::None)
            // Ctrl-C on our terminal is for us: we end our commands ourselves, in order.
            .process_group(0);
        let mut child = command.spawn().map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            match missing && there.is_none() {
                true => self.missing_program_error(program),
                false => self.run_error(program).with_cause(error),
            }
        })?;
        Ok(RunningCommand {
            program: program.to_owned(),
            stdin: child.stdin.take(),
            child,
            session: there,
        })
    }

    fn run_error(&self, program: &str) -> Error {
        Error::new(
            Kind::Failed,
            format!("cannot run {program} on host {}", self.host),
        )
    }

    fn missing_program_error(&self, program: &str) -> Error {
        let failed = self.run_error(program).with_cause("it is not installed");
        match find_package(program) {
            Some(package) => failed.hint(format!("install {package} there")),
            None => failed,
        }
    }

    /// Runs `argv` to its end.
    ///
    /// # Errors
    /// As [`Place::start`]; `Cancelled`; `Unreachable` after `deadline`. The command has ended in every case,
    /// or ends as soon as the host sees that the connection is gone.
    pub(crate) async fn run(
        &self,
        argv: &[&str],
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<TextOutput> {
        let output = self
            .run_raw(argv, MAX_OUTPUT_BYTES, deadline, cancel)
            .await?;
        Ok(TextOutput {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: output.stderr,
        })
    }

    /// As [`Place::run`], for at most `limit` bytes of anything.
    ///
    /// # Errors
    /// As [`Place::run`].
    pub(crate) async fn run_raw(
        &self,
        argv: &[&str],
        limit: usize,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Output> {
        self.exchange(argv, None, limit, deadline, cancel).await
    }

    /// As [`Place::run`], given `input`; it has to see for itself whether all of that came.
    ///
    /// # Errors
    /// As [`Place::run`].
    pub(crate) async fn run_with_input(
        &self,
        argv: &[&str],
        input: &[u8],
        deadline: Duration,
    ) -> Result<Output> {
        let never = CancellationToken::new();
        self.exchange(argv, Some(input), MAX_OUTPUT_BYTES, deadline, &never)
            .await
    }

    async fn exchange(
        &self,
        argv: &[&str],
        input: Option<&[u8]>,
        limit: usize,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Output> {
        let program = argv.first().copied().unwrap_or_default();
        let failed = |kind| {
            Error::new(
                kind,
                format!("{program} on host {} did not finish", self.host),
            )
        };
        let work = async {
            let kind = match input {
                Some(_) => Input::Piped,
                None => Input::None,
            };
            let mut running = self.start(argv, kind).await?;
            let (stdout, stderr) = (running.stdout(), running.stderr());
            let given = input.and_then(|input| running.stdin().zip(Some(input)));
            let said = async {
                let give = async {
                    if let Some((mut stdin, input)) = given {
                        // Who does not take it says why by how it ends.
                        let _ = stdin.write_all(input).await;
                    }
                };
                let (stdout, stderr, (), status) = tokio::join!(
                    read_bounded(stdout, limit),
                    read_text(stderr),
                    give,
                    self.wait(&mut running)
                );
                status.map(|status| Output {
                    status,
                    stdout,
                    stderr,
                })
            };
            tokio::select! {
                said = said => return said,
                () = cancel.cancelled() => {}
            }
            // Waits until it is gone, so that nothing it holds or writes outlives the error.
            running.terminate().await;
            Err(Error::cancelled(program))
        };
        // Dropped at the deadline, a command here is killed, and one there is let off its leash.
        let output = tokio::time::timeout(deadline, work).await;
        output.unwrap_or_else(|_| {
            Err(failed(Kind::Unreachable)
                .with_cause(format!("it was given {} s", deadline.as_secs()))
                .retryable())
        })
    }

    /// Waits for the command's end.
    ///
    /// # Errors
    /// `Unreachable` where the connection to it was lost; `Failed` where there is no such program there.
    pub(crate) async fn wait(&self, running: &mut RunningCommand) -> Result<ExitStatus> {
        let what = format!("{} on host {} broke off", running.program, self.host);
        let status = running
            .child
            .wait()
            .await
            .map_err(|error| Error::new(Kind::Failed, &*what).with_cause(error))?;
        match &running.session {
            Some(there) if status.code() == Some(SSH_FAILED_STATUS) => {
                there.ssh.check_alive(&there.master).await;
                match there.master.is_up() {
                    true => Err(Error::new(Kind::Unreachable, what)
                        .with_cause("sshd refused another session")
                        .hint("raise MaxSessions in its sshd_config to at least 10")
                        .retryable()),
                    false => Err(there.ssh.connection_lost_error(what)),
                }
            }
            Some(_) if status.code() == Some(NOT_FOUND_STATUS) => {
                Err(self.missing_program_error(&running.program))
            }
            _ => Ok(status),
        }
    }
}

impl RunningCommand {
    /// Its output, once.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// What it complains of, once.
    pub(crate) fn stderr(&mut self) -> Option<tokio::process::ChildStderr> {
        self.child.stderr.take()
    }

    /// Its input, once, where that is ours.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Waits for its end, whatever that says.
    pub(crate) async fn wait_status(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it and waits until it is gone.
    pub(crate) async fn terminate(&mut self) {
        drop(self.stdin.take());
        if self.session.is_some()
            && tokio::time::timeout(EXIT_TIMEOUT, self.child.wait())
                .await
                .is_ok()
        {
            return;
        }
        let _ = self.child.kill().await;
    }
}

/// The first `limit` bytes of what a stream says; the rest is read and forgotten, so that nobody blocks on a
/// full pipe.
pub(crate) async fn read_bounded(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was said until an error is what there is.
        let _ = (&mut stream)
            .take(limit as u64)
            .read_to_end(&mut bytes)
            .await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    bytes
}

/// As [`bytes`], for text.
pub(crate) async fn read_text(stream: Option<impl AsyncRead + Unpin>) -> String {
    String::from_utf8_lossy(&read_bounded(stream, MAX_OUTPUT_BYTES).await).into_owned()
}
