//! The open file of a [`RemoteFile`](super::remote_file::RemoteFile) while one connection lasts.
//!
//! A process on the host holds the file open and locked. Its bytes go through a qemu-nbd of the host and a forwarded
//! socket, or through the SFTP server if sshd forbids forwarding.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::blocks::format_stamp;
use super::errors::explain;
use super::pull_dir::{FILE_PATH, PullDir};
use super::remote::{script_argv, script_error, shown_path};
use super::resume_log::{Content, MAX_LOG_BYTES, ResumeLog, ResumeState, SEPARATOR};
use crate::command::{
    BoundedLines, CommandRunner, Input, RunningCommand, bounded_lines, read_text,
};
use crate::sftp::{Access, SftpFile};
use crate::ssh::Master;
use snapdeck_model::{BufferPool, Error, FileStamp, Kind, Result};
use snapdeck_nbd::Nbd;

/// For a block of a few MiB; ssh's keepalive detects a lost connection earlier.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(300);
/// For flushing gigabytes to the disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// For opening the file, and for each command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// The process on the host exits after 20 s without a byte.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of all replies beside the resume log.
const MAX_REPLY_BYTES: u64 = 1 << 20;

/// Bytes of a reply that is kept or printed.
const MAX_SHORT_REPLY_BYTES: usize = 512;

/// The inode of a file that does not exist.
const MISSING_INODE: &str = "0";

/// The purpose of opening a file.
#[derive(Clone)]
pub(super) enum Mode {
    Read,
    Write {
        content: Content,
        /// The private directory of the file.
        dir: PullDir,
    },
    /// Overwrites bad blocks of the file with that stamp, which has its final name.
    Repair(FileStamp),
}

impl Mode {
    fn dir(&self) -> Option<&PullDir> {
        match self {
            Self::Write { dir, .. } => Some(dir),
            Self::Read | Self::Repair(_) => None,
        }
    }

    /// Returns the name of the file `path` for a script.
    pub(super) fn script_path<'a>(&self, path: &'a str) -> &'a str {
        match self.dir() {
            Some(_) => FILE_PATH,
            None => path,
        }
    }
}

/// Metadata of a file when it was opened.
#[derive(Debug, Clone)]
pub(super) struct OpenInfo {
    pub size_bytes: u64,
    pub inode: String,
    /// Path of the open file itself, whatever has its name now: a descriptor of the process on the host.
    pub descriptor: String,
    pub boot_id: String,
    /// Blocks that earlier sessions wrote for the same content.
    pub resume_state: ResumeState,
}

impl OpenInfo {
    pub(super) fn resume_log(&self, content: &Content) -> ResumeLog {
        ResumeLog {
            content: content.clone(),
            boot_id: self.boot_id.clone(),
            owner: None,
        }
    }
}

/// A request on the bytes of a file.
pub(super) enum Request {
    Read(BufferPool, u64, usize),
    Write(u64, Bytes),
    Flush,
}

impl Request {
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Read(..) => "read",
            Self::Write(..) | Self::Flush => "write",
        }
    }

    pub(super) fn deadline(&self) -> Duration {
        match self {
            Self::Read(..) | Self::Write(..) => BLOCK_TIMEOUT,
            Self::Flush => FLUSH_TIMEOUT,
        }
    }
}

/// The connection to the bytes of a file.
pub(super) enum Transport {
    Nbd(Nbd),
    Sftp {
        file: SftpFile,
        _ssh: Box<RunningCommand>,
    },
}

impl Transport {
    /// Returns the bytes of a read; none for other requests.
    pub(super) async fn execute(&self, request: &Request) -> io::Result<Bytes> {
        let no_bytes = |()| Bytes::new();
        match (self, request) {
            (Self::Nbd(nbd), Request::Read(buffers, offset, length)) => {
                nbd.read(buffers, *offset, *length).await
            }
            (Self::Sftp { file, .. }, Request::Read(buffers, offset, length)) => {
                file.read(buffers, *offset, *length).await
            }
            (Self::Nbd(nbd), Request::Write(offset, data)) => {
                nbd.write(*offset, data.clone()).await.map(no_bytes)
            }
            (Self::Sftp { file, .. }, Request::Write(offset, data)) => {
                file.write(*offset, data.clone()).await.map(no_bytes)
            }
            (Self::Nbd(nbd), Request::Flush) => nbd.flush().await.map(no_bytes),
            (Self::Sftp { file, .. }, Request::Flush) => file.flush().await.map(no_bytes),
        }
    }

    async fn close(self) -> io::Result<()> {
        match self {
            Self::Nbd(nbd) => nbd.close(COMMAND_TIMEOUT).await,
            Self::Sftp { file, .. } => file.close(COMMAND_TIMEOUT).await,
        }
    }
}

pub(super) struct FileSession {
    pub open_info: OpenInfo,
    pub master: Arc<Master>,
    stdin: Arc<Mutex<ChildStdin>>,
    replies: Mutex<Replies>,
    transport: Mutex<Option<Arc<Transport>>>,
    /// Length of the part of the resume log that was sent.
    pub sent_log_bytes: Mutex<usize>,
    _heartbeat: AbortOnDropHandle<()>,
    process: RunningCommand,
    ended: CancellationToken,
    _end: DropGuard,
}

type Replies = BoundedLines<ChildStdout>;

impl FileSession {
    /// Opens the file; `first` is its metadata when it was first opened, if it was.
    pub(super) async fn open(
        runner: &CommandRunner,
        owner: &str,
        path: &str,
        mode: &Mode,
        first: Option<&OpenInfo>,
    ) -> Result<Self> {
        let Some(ssh) = runner.ssh() else {
            return Err(Error::new(Kind::Failed, format!("{path} is not remote")));
        };
        let (verb, mode_arg, detail) = match mode {
            Mode::Read => ("open", "read", String::new()),
            Mode::Repair(stamp) => {
                // Since it was first opened, it has been written to.
                let stamp = first.map_or_else(|| format_stamp(*stamp), |_| String::new());
                ("open", "repair", stamp)
            }
            Mode::Write { content, .. } => ("create", "write", content.size_bytes.to_string()),
        };
        let summary = format!(
            "cannot {verb} {} on host {}",
            shown_path(path),
            runner.host()
        );
        let master = ssh.acquire_master().await?;
        let args = [mode_arg, mode.script_path(path), &detail];
        let argv = script_argv("open", owner, mode.dir(), &args);
        let mut process = runner.start(&argv, Input::Piped).await?;
        let stderr = process.stderr();
        let (Some(mut stdin), Some(stdout)) = (process.stdin(), process.stdout()) else {
            return Err(Error::new(Kind::Failed, summary));
        };
        let mut replies = bounded_lines(stdout, MAX_LOG_BYTES + MAX_REPLY_BYTES);
        let handshake = handshake(&mut stdin, &mut replies, mode, first);
        let open_info = match timeout(COMMAND_TIMEOUT, handshake).await {
            Ok(Ok(open_info)) => open_info,
            Ok(Err(error)) => {
                drop(stdin);
                // The process has exited: its message is more precise than the error of the pipe.
                let exit = async { tokio::join!(read_text(stderr), runner.wait(&mut process)) };
                let (message, status) = timeout(COMMAND_TIMEOUT, exit)
                    .await
                    .map_err(|_| ssh.connection_lost_error(&*summary))?;
                status?;
                return Err(match message.trim() {
                    "" => explain(summary, &error),
                    message => script_error(summary, message, &args),
                });
            }
            Err(_) => {
                ssh.check_alive(&master).await;
                return Err(ssh.connection_lost_error(summary));
            }
        };
        let stdin = Arc::new(Mutex::new(stdin));
        let heartbeat = {
            let stdin = stdin.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(HEARTBEAT_INTERVAL).await;
                    if stdin.lock().await.write_all(b".").await.is_err() {
                        return;
                    }
                }
            })
        };
        let ended = CancellationToken::new();
        Ok(Self {
            open_info,
            master,
            stdin,
            replies: Mutex::new(replies),
            transport: Mutex::default(),
            sent_log_bytes: Mutex::default(),
            _heartbeat: AbortOnDropHandle::new(heartbeat),
            process,
            _end: ended.clone().drop_guard(),
            ended,
        })
    }

    /// Returns the token that is cancelled when the session ends here.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Returns the connection to the bytes, opened on first use.
    pub(super) async fn transport(
        &self,
        runner: &CommandRunner,
        path: &str,
        mode: &Mode,
    ) -> Result<Arc<Transport>> {
        let mut slot = self.transport.lock().await;
        if let Some(transport) = slot.as_ref() {
            return Ok(transport.clone());
        }
        let summary = || {
            format!(
                "cannot access {} on host {}",
                shown_path(path),
                runner.host()
            )
        };
        let lost = |error: io::Error| {
            Error::new(Kind::Unreachable, summary())
                .with_cause(error)
                .retryable()
        };
        let transport = match self.start_nbd().await {
            Ok(socket) => match self.connect_nbd(&socket).await {
                Ok(nbd) => Transport::Nbd(nbd),
                Err(error) if self.master.is_up() => {
                    // sshd may forbid forwarding.
                    tracing::debug!("{}: {error}; using SFTP", summary());
                    self.stop_nbd().await;
                    connect_sftp(runner, &self.open_info.descriptor, mode, summary()).await?
                }
                Err(error) => return Err(lost(error)),
            },
            Err(NbdStartError::ConnectionLost(error)) => return Err(lost(error)),
            Err(NbdStartError::Failed(message)) => {
                return Err(Error::new(Kind::Failed, summary())
                    .with_cause(message)
                    .hint("install qemu-utils there for qemu-nbd"));
            }
        };
        Ok(slot.insert(Arc::new(transport)).clone())
    }

    /// Starts qemu-nbd on the host and returns the path of its socket there.
    async fn start_nbd(&self) -> Result<String, NbdStartError> {
        let reply = with_timeout(self.send_command(b"n"))
            .await
            .map_err(NbdStartError::ConnectionLost)?;
        match reply.split_once(' ') {
            Some(("socket", path)) => Ok(path.to_owned()),
            Some(("error", message)) => Err(NbdStartError::Failed(message.to_owned())),
            _ => Err(NbdStartError::Failed(reply)),
        }
    }

    async fn connect_nbd(&self, socket: &str) -> io::Result<Nbd> {
        let forward = self
            .master
            .forward_socket(socket)
            .await
            .map_err(|error| io::Error::other(error.message()))?;
        let connect = async {
            let stream = UnixStream::connect(&forward.local_path).await?;
            Nbd::open(stream, "", COMMAND_TIMEOUT).await
        };
        let nbd = with_timeout(connect).await;
        // The open connection stays.
        self.master.close_forward(&forward).await;
        nbd
    }

    /// Stops qemu-nbd and waits until it has exited.
    async fn stop_nbd(&self) {
        let _ = with_timeout(self.send_command(b"s")).await;
    }

    /// Closes the connection to the bytes; the file stays locked.
    pub(super) async fn close(&self) {
        if let Some(transport) = self.transport.lock().await.take()
            && let Some(transport) = Arc::into_inner(transport)
        {
            let _ = transport.close().await;
        }
        // The reply shows that all earlier commands are done, such as the last records of the resume log.
        self.stop_nbd().await;
    }

    /// Ends the process on the host, and waits a while for that.
    pub(super) async fn end(mut self, runner: &CommandRunner) {
        // Any byte that is no command.
        let _ = with_timeout(async { self.stdin.lock().await.write_all(b"e").await }).await;
        let _ = timeout(COMMAND_TIMEOUT, runner.wait(&mut self.process)).await;
    }

    async fn send_command(&self, command: &[u8]) -> io::Result<String> {
        let mut replies = self.replies.lock().await;
        self.stdin.lock().await.write_all(command).await?;
        read_short_reply(&mut replies).await
    }

    /// Appends the part of `log_text` that was not sent yet to the resume log on the host.
    ///
    /// If the connection is lost this fails silently; the next read or write reconnects.
    pub(super) async fn send_log(&self, log_text: &str) {
        let mut sent_bytes = self.sent_log_bytes.lock().await;
        let Some(unsent) = log_text.get(*sent_bytes..) else {
            return;
        };
        let command = format!("l{unsent}\n");
        let write = async { self.stdin.lock().await.write_all(command.as_bytes()).await };
        if matches!(timeout(COMMAND_TIMEOUT, write).await, Ok(Ok(()))) {
            *sent_bytes = log_text.len();
        }
    }
}

enum NbdStartError {
    ConnectionLost(io::Error),
    Failed(String),
}

/// Reads metadata and resume log from the process, and replies whether to keep or to truncate the file.
///
/// A file that snapdeck must not write to stays as it is.
async fn handshake(
    stdin: &mut ChildStdin,
    replies: &mut Replies,
    mode: &Mode,
    first: Option<&OpenInfo>,
) -> io::Result<OpenInfo> {
    let boot_id = read_short_reply(replies).await?;
    let log = read_reply(replies).await?;
    let stat = read_short_reply(replies).await?;
    let (size, inode) = stat.split_once(' ').unwrap_or_default();
    let mut info = OpenInfo {
        size_bytes: size.parse().map_err(io::Error::other)?,
        inode: inode.to_owned(),
        descriptor: String::new(),
        boot_id,
        resume_state: ResumeState::default(),
    };
    let mut command = "keep\n".to_owned();
    match (mode, first) {
        (Mode::Read | Mode::Repair(_), _) => {}
        (Mode::Write { content, .. }, Some(first)) if first.inode == info.inode => {
            let resume_log = info.resume_log(content);
            info.resume_state = resume_log.parse(log.as_bytes(), info.size_bytes);
        }
        (Mode::Write { .. }, Some(_)) => {
            return Err(io::Error::other(
                "it was replaced while the connection was lost",
            ));
        }
        (Mode::Write { content, dir }, None) => {
            let has_file = info.inode != MISSING_INODE;
            dir.check_content(log.as_bytes(), has_file, content)?;
            let resume_log = info.resume_log(content);
            info.resume_state = resume_log.parse(log.as_bytes(), info.size_bytes);
            if info.resume_state.blocks.is_empty() {
                info.size_bytes = content.size_bytes;
                let header = resume_log.header(&BTreeMap::new());
                command = format!("truncate {}\n", header.trim_end_matches(SEPARATOR));
            }
        }
    }
    stdin.write_all(command.as_bytes()).await?;
    let reply = read_short_reply(replies).await?;
    let opened = reply.strip_prefix("open ");
    let Some((inode, pid)) = opened.and_then(|opened| opened.split_once(' ')) else {
        return Err(io::Error::other(reply));
    };
    let pid: u32 = pid.parse().map_err(io::Error::other)?;
    info.inode = inode.to_owned();
    info.descriptor = format!("/proc/{pid}/fd/9");
    Ok(info)
}

async fn connect_sftp(
    runner: &CommandRunner,
    path: &str,
    mode: &Mode,
    summary: String,
) -> Result<Transport> {
    let mut ssh = runner.start_sftp().await?;
    let (Some(stdin), Some(stdout)) = (ssh.stdin(), ssh.stdout()) else {
        return Err(Error::new(Kind::Failed, summary));
    };
    let access = match mode {
        Mode::Read => Access::Read,
        Mode::Write { .. } | Mode::Repair(_) => Access::ReadWrite,
    };
    let file = SftpFile::open(stdin, stdout, path, access, COMMAND_TIMEOUT).await;
    let file = file.map_err(|error| {
        Error::new(Kind::Unreachable, summary)
            .with_cause(error)
            .hint("enable AllowStreamLocalForwarding or the sftp subsystem in its sshd_config")
            .retryable()
    })?;
    Ok(Transport::Sftp {
        file,
        _ssh: Box::new(ssh),
    })
}

async fn read_reply(replies: &mut Replies) -> io::Result<String> {
    replies
        .next_line()
        .await?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// As [`read_reply`], for a reply that is kept or printed.
async fn read_short_reply(replies: &mut Replies) -> io::Result<String> {
    let reply = read_reply(replies).await?;
    match reply.len() <= MAX_SHORT_REPLY_BYTES {
        true => Ok(reply),
        false => Err(io::Error::other("the reply of the host is too long")),
    }
}

async fn with_timeout<T>(call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(COMMAND_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
