//! Commands of a remote host that write to the file of a session beside the session's own process.
//!
//! Such a command may outlive its connection for a moment. It names the file by the descriptor of the session's process, so that
//! it does nothing without that session; it ends without heartbeats; and in the directory of a pull it holds a lock for which
//! the next session waits (`remote.sh`, `lock_dir`).

use std::convert::Infallible;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::timeout;

use super::file_session::{HEARTBEAT_INTERVAL, OpenInfo};
use super::remote::{CALL_TIMEOUT, script_error};
use super::remote_file::LOCK_RETRIES;
use super::remote_handles::RemoteWriter;
use crate::command::{Input, RunningCommand, read_bounded, read_text};
use snapdeck_model::{Error, Kind, Result};

/// For sending a heartbeat.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of the output of a command with a short one.
const MAX_OUTPUT_BYTES: usize = 1024;

impl RemoteWriter {
    /// Runs `command` with the current session; it ends with that session.
    ///
    /// After an error, nothing that `command` has started writes to the file of a pull any more when this returns.
    ///
    /// # Errors
    /// Those of `command`; `Unreachable` and retryable if the session has ended.
    pub(super) async fn run_beside<'a, T>(
        &'a self,
        command: impl FnOnce(OpenInfo) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let running = self.beside.read().await;
        let session = self.file.session().await?;
        let (info, ended) = (session.open_info.clone(), session.ended());
        // A session that is replaced is closed: it is not held here.
        drop(session);
        let result = tokio::select! {
            result = command(info.clone()) => result,
            () = ended.cancelled() => Err(self.ended_error()),
        };
        drop(running);
        let Err(error) = result else {
            return result;
        };
        let _all = self.beside.write().await;
        if self.await_commands(&info.descriptor).await? {
            return Err(error);
        }
        self.file.discard(&ended).await;
        Err(match error.kind() {
            Kind::Cancelled | Kind::NoSpace => error,
            _ => self.ended_error(),
        })
    }

    fn ended_error(&self) -> Error {
        let (path, host) = (self.file.path(), self.fs.runner.host());
        Error::new(
            Kind::Unreachable,
            format!("cannot write {path} on host {host}"),
        )
        .with_cause("the connection was lost")
        .hint("check that the host is up")
        .retryable()
    }

    /// Waits until no command writes to the file beside a session; returns whether the session with that descriptor still runs.
    ///
    /// # Errors
    /// `Unreachable`, also if one does not end.
    async fn await_commands(&self, descriptor: &str) -> Result<bool> {
        let (action, args) = (format!("write {}", self.file.path()), [descriptor]);
        let mut attempts = 0;
        loop {
            let reply = self
                .fs
                .call_line(&action, "await_commands", &args, CALL_TIMEOUT);
            match reply.await {
                Ok(reply) => return Ok(reply == "open"),
                Err(error) if error.kind() == Kind::Conflict && attempts < LOCK_RETRIES => {
                    attempts += 1;
                }
                Err(error) => {
                    return Err(Error::new(Kind::Unreachable, error.message()).retryable());
                }
            }
        }
    }

    /// Starts a verb of the script that writes to the file, and reads heartbeats.
    ///
    /// # Errors
    /// As [`CommandRunner::start`](crate::command::CommandRunner::start).
    pub(super) async fn start_beside(&self, verb: &str, args: &[&str]) -> Result<RunningCommand> {
        // It leads its own process group, which it kills with all that it has started.
        let argv = [&["setsid", "--wait"][..], &self.fs.argv(verb, args)].concat();
        self.fs.runner.start(&argv, Input::Piped).await
    }

    /// Runs such a verb to its end and returns its output, which is short.
    ///
    /// # Errors
    /// `Unreachable`, also after `deadline`; the error of the command.
    pub(super) async fn call_beside(
        &self,
        summary: String,
        (verb, args): (&str, &[&str]),
        deadline: Duration,
    ) -> Result<String> {
        let mut running = self.start_beside(verb, args).await?;
        let (stdin, stdout, stderr) = (running.stdin(), running.stdout(), running.stderr());
        let Some(mut stdin) = stdin else {
            return Err(Error::new(Kind::Failed, summary));
        };
        let output = async {
            tokio::join!(
                read_bounded(stdout, MAX_OUTPUT_BYTES),
                read_text(stderr),
                self.fs.runner.wait(&mut running)
            )
        };
        let (stdout, message, status) = tokio::select! {
            output = output => output,
            never = send_heartbeats(&mut stdin) => match never {},
            () = tokio::time::sleep(deadline) => {
                return Err(Error::new(Kind::Unreachable, summary)
                    .with_cause(format!("it did not finish within {} s", deadline.as_secs()))
                    .retryable());
            }
        };
        let status = status?;
        match status.success() {
            true => Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned()),
            false => Err(command_error(summary, status, &message, args)),
        }
    }
}

/// Returns the error of a command that writes to the file of a session: `Unreachable` and retryable if it was killed, as it is
/// without heartbeats.
pub(super) fn command_error(
    summary: String,
    status: ExitStatus,
    message: &str,
    args: &[&str],
) -> Error {
    match status.code() {
        // `setsid` exits with the signal, a shell with 128 more.
        Some(9 | 137) | None => Error::new(Kind::Unreachable, summary)
            .with_cause("it was killed on the host")
            .retryable(),
        _ => script_error(summary, message, args),
    }
}

/// Sends heartbeats, as long as it is not dropped.
pub(super) async fn send_heartbeats(stdin: &mut ChildStdin) -> Infallible {
    loop {
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        // An error shows in the output: without heartbeats the command ends.
        let _ = timeout(SEND_TIMEOUT, stdin.write_all(b".")).await;
    }
}
