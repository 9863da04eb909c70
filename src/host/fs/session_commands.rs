//! Commands of a remote host that write to the file of a session beside the session's own process.
//!
//! Such a command may outlive its connection for a moment. It names the file by the descriptor of the session's process, so that
//! it does nothing without that session; it ends without heartbeats; and in the directory of a pull it holds a lock for which
//! the next session waits (`remote.sh`, `lock_dir`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::timeout;

use super::errors::system_error;
use super::file_session::{FileSession, HEARTBEAT_INTERVAL};
use super::remote_handles::RemoteWriter;
use crate::command::{Input, RunningCommand, read_bounded, read_text};
use snapdeck_model::{Error, Kind, Result};

/// For sending a heartbeat.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of the output of a command with a short one.
const MAX_OUTPUT_BYTES: usize = 1024;

impl RemoteWriter {
    /// Runs `command` with the current session.
    ///
    /// After an error, the file is opened again as soon as no other such command runs: nothing that `command` has started writes
    /// to it any more when this returns.
    pub(super) async fn run_beside<'a, T>(
        &'a self,
        command: impl FnOnce(Arc<FileSession>) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let running = self.beside.read().await;
        let session = self.file.session().await?;
        let used = Arc::downgrade(&session);
        let result = command(session).await;
        drop(running);
        if result.is_err() {
            let _all = self.beside.write().await;
            self.file.renew_session(&used).await;
        }
        result
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
        match status?.success() {
            true => Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned()),
            false => Err(system_error(summary, &message)),
        }
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
