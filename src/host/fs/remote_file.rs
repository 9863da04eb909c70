//! A file of a remote host, open for reads or writes at offsets, and opened again after the connection was lost.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::errors::explain;
use super::file_session::{FileSession, Mode, OpenInfo, Request, Transport};
use super::remote::shown_path;
use super::resume_log::ResumeLog;
use crate::command::CommandRunner;
use crate::reconnect::RetryPolicy;
use snapdeck_model::{BufferPool, Digest, Error, Kind, Result};

/// Retries of a locked file after a lost connection, whose process on the host may still hold the lock: it exits after
/// 20 s without a heartbeat.
pub(super) const LOCK_RETRIES: u32 = 12;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct RemoteFile {
    runner: CommandRunner,
    retry_policy: RetryPolicy,
    /// The host's owner of files.
    owner: String,
    /// For messages.
    path: String,
    script_path: String,
    mode: Mode,
    session: Mutex<Option<Arc<FileSession>>>,
    /// All that this writer has added to the resume log.
    log_text: Mutex<String>,
    /// Metadata when it was opened first.
    first: OpenInfo,
}

impl RemoteFile {
    /// Opens the file.
    ///
    /// # Errors
    /// `Conflict` if another process writes it; an I/O error; `Unreachable`.
    pub(super) async fn open(
        runner: CommandRunner,
        retry_policy: RetryPolicy,
        owner: &str,
        path: &str,
        mode: Mode,
    ) -> Result<Self> {
        let session = retry_policy
            .call(|| FileSession::open(&runner, owner, path, &mode, None))
            .await?;
        let first = session.open_info.clone();
        let blocks = &first.resume_state.blocks;
        let log_text = match &mode {
            Mode::Write { content, .. } => first.resume_log(content).header(blocks),
            Mode::Read | Mode::Repair(_) => String::new(),
        };
        // The log on the host has all this; it is sent only after the connection was lost.
        *session.sent_log_bytes.lock().await = log_text.len();
        Ok(Self {
            runner,
            retry_policy,
            owner: owner.to_owned(),
            path: shown_path(path),
            script_path: path.to_owned(),
            mode,
            session: Mutex::new(Some(Arc::new(session))),
            log_text: Mutex::new(log_text),
            first,
        })
    }

    /// Adds blocks to the resume log, by one command. While the connection is lost, this waits for the next one.
    pub(super) async fn record(&self, blocks: &[(u64, Digest)]) {
        let records = ResumeLog::records(blocks);
        self.log_text.lock().await.push_str(&records);
        self.send_log().await;
    }

    /// Replaces all records of the resume log by `blocks`.
    pub(super) async fn reset_records(&self, blocks: &BTreeMap<u64, Digest>) {
        if let Mode::Write { content, .. } = &self.mode {
            let header = self.first.resume_log(content).header(blocks);
            self.log_text.lock().await.push_str(&header);
            self.send_log().await;
        }
    }

    /// Returns the current session, opening the file again if the last one was lost.
    ///
    /// # Errors
    /// As [`RemoteFile::open`].
    pub(super) async fn session(&self) -> Result<Arc<FileSession>> {
        let open = || async {
            let mut slot = self.session.lock().await;
            match slot.as_ref() {
                Some(session) => Ok(session.clone()),
                None => Ok(slot.insert(Arc::new(self.reopen().await?)).clone()),
            }
        };
        self.retry_policy.call(open).await
    }

    /// Forgets the session with this token if it is the current one: it has ended.
    pub(super) async fn discard(&self, ended: &CancellationToken) {
        let mut slot = self.session.lock().await;
        if slot
            .as_ref()
            .is_some_and(|session| session.ended() == *ended)
        {
            *slot = None;
        }
    }

    async fn send_log(&self) {
        let session = self.session.lock().await.clone();
        if let Some(session) = session {
            session.send_log(&self.log_text.lock().await).await;
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn runner(&self) -> &CommandRunner {
        &self.runner
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Returns the path for commands, which run in the directory of the file if it has a private one.
    pub(super) fn script_path(&self) -> &str {
        self.mode.script_path(&self.script_path)
    }

    /// Returns the metadata when the file was opened first.
    pub(super) fn open_info(&self) -> &OpenInfo {
        &self.first
    }

    pub(super) async fn read(
        &self,
        buffers: &BufferPool,
        offset: u64,
        length: usize,
    ) -> Result<Bytes> {
        // qemu-nbd fills the last sector up with zeros. The size of a block device is unknown (0).
        let size = self.open_info().size_bytes;
        if size > 0 && offset.saturating_add(length as u64) > size {
            let summary = format!("cannot read {} on host {}", self.path, self.runner.host());
            return Err(explain(summary, &io::ErrorKind::UnexpectedEof.into()));
        }
        self.execute(&Request::Read(buffers.clone(), offset, length))
            .await
    }

    pub(super) async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.execute(&Request::Write(offset, data))
            .await
            .map(|_| ())
    }

    /// Flushes the file to the host's disk and closes it except for its lock: other programs may read it after this.
    pub(super) async fn finish(&self) -> Result<()> {
        self.execute(&Request::Flush).await?;
        self.close().await;
        Ok(())
    }

    /// Closes the connection to the bytes; the file stays locked. All requests are done when this returns.
    pub(super) async fn close(&self) {
        let session = self.session.lock().await.clone();
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// Ends the session, and with it the lock, after [`RemoteFile::finish`]; waits until the process on the host has exited.
    pub(super) async fn end(&self) {
        let session = self.session.lock().await.take();
        if let Some(session) = session.and_then(Arc::into_inner) {
            session.end(&self.runner).await;
        }
    }

    /// Executes a request, with retries while the host is unreachable.
    async fn execute(&self, request: &Request) -> Result<Bytes> {
        let summary = || {
            let (verb, host) = (request.verb(), self.runner.host());
            format!("cannot {verb} {} on host {host}", self.path)
        };
        let deadline = request.deadline();
        let mut retry = self.retry_policy.start_retry();
        loop {
            let error = match self.transport().await {
                Ok((session, transport)) => {
                    let result = timeout(deadline, transport.execute(request)).await;
                    let cause = match result {
                        Ok(Ok(bytes)) => {
                            self.retry_policy.mark_reachable();
                            return Ok(bytes);
                        }
                        Ok(Err(error)) if !is_connection_error(&error) => {
                            return Err(explain(summary(), &error));
                        }
                        Ok(Err(error)) => error.to_string(),
                        Err(_) => format!("no answer for {} s", deadline.as_secs()),
                    };
                    self.discard_session(&session).await;
                    Error::new(Kind::Unreachable, summary())
                        .with_cause(cause)
                        .hint("check that the host is up")
                        .retryable()
                }
                Err(error) => error,
            };
            retry.wait_after(error).await?;
        }
    }

    /// Returns a connection to the bytes, opening the file again if the last one was lost.
    async fn transport(&self) -> Result<(Arc<FileSession>, Arc<Transport>)> {
        let mut slot = self.session.lock().await;
        let session = match slot.as_ref() {
            Some(session) => session.clone(),
            None => {
                let session = self.reopen().await?;
                slot.insert(Arc::new(session)).clone()
            }
        };
        let opened = session.transport(&self.runner, &self.path, &self.mode);
        match opened.await {
            Ok(transport) => Ok((session, transport)),
            Err(error) => {
                *slot = None;
                self.check_alive(&session).await;
                Err(error)
            }
        }
    }

    /// Opens the file again, after the connection was lost.
    async fn reopen(&self) -> Result<FileSession> {
        let mut retries = 0;
        let session = loop {
            let (runner, first) = (&self.runner, Some(&self.first));
            let opened =
                FileSession::open(runner, &self.owner, &self.script_path, &self.mode, first).await;
            match opened {
                Err(error) if error.kind() == Kind::Conflict && retries < LOCK_RETRIES => {
                    retries += 1;
                    tokio::time::sleep(LOCK_RETRY_INTERVAL).await;
                }
                opened => break opened?,
            }
        };
        // A command that was killed may have left the file of a pull without its size.
        let size = |info: &OpenInfo| match self.mode {
            Mode::Write { .. } => None,
            Mode::Read | Mode::Repair(_) => Some(info.size_bytes),
        };
        let identity = |info: &OpenInfo| (info.inode.clone(), size(info), info.boot_id.clone());
        if identity(&session.open_info) != identity(&self.first) {
            let host = self.runner.host();
            let summary = format!(
                "{} on host {host} was replaced, or the host rebooted, while the connection was lost",
                self.path
            );
            return Err(Error::new(Kind::Failed, summary).hint("retry from the start"));
        }
        Ok(session)
    }

    /// Ends the session if it is the current one.
    pub(super) async fn discard_session(&self, session: &Arc<FileSession>) {
        let mut slot = self.session.lock().await;
        if slot
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, session))
        {
            *slot = None;
            self.check_alive(session).await;
        }
    }

    async fn check_alive(&self, session: &FileSession) {
        if let Some(ssh) = self.runner.ssh() {
            ssh.check_alive(&session.master).await;
        }
    }
}

/// Returns whether the connection was lost, as opposed to an error of the file system.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | NotConnected | TimedOut
    )
}
