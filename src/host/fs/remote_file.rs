//! A file of a remote host, open for reads or writes at offsets: its bytes come and go through the host's own
//! qemu-nbd on a forwarded socket, or through its SFTP server where it forwards nothing. Both break with the
//! connection and are made anew with it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::errors::explain;
use super::remote::script_argv;
use super::resume_log::{Content, ResumeLog, ResumeState};
use crate::command::{CommandRunner, Input, RunningCommand, read_text};
use crate::reconnect::RetryPolicy;
use crate::sftp::{Access, SftpFile};
use crate::ssh::{Master, SocketForward};
use snapdeck_model::{BufferPool, Digest, Error, Kind, Result};
use snapdeck_nbd::Nbd;

/// For a block of a few MiB; a dead link shows sooner, by ssh's own signs of life.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(300);
/// For bringing gigabytes to the disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// For opening, and for each order.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the host is shown that we are there; it gives up after 20 s without.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How often a file that another holds is asked for again, after we lost the host ourselves: the one who
/// holds it may be our own, not knowing yet that we are gone.
const LOCK_RETRY: (u32, Duration) = (12, Duration::from_secs(2));

/// What a file is opened for.
#[derive(Clone)]
pub(super) enum Mode {
    Read,
    Write {
        owner: String,
        content: Content,
    },
    /// Over what is bad in a file that bears its final name.
    Repair,
}

impl Mode {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write { .. } => "write",
            Self::Repair => "mend",
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Write { .. } => "create",
            Self::Read | Self::Repair => "open",
        }
    }
}

/// A file of a remote host.
pub(super) struct RemoteFile {
    runner: CommandRunner,
    retry_policy: RetryPolicy,
    path: String,
    mode: Mode,
    session: Mutex<Option<Arc<Session>>>,
    /// The file's mark, from its header on.
    log_text: Mutex<String>,
    /// What it was when it was first opened.
    initial_info: OpenInfo,
}

/// What was seen when a file was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenInfo {
    pub size_bytes: u64,
    pub inode: String,
    pub boot_id: String,
    /// Blocks that an earlier writer of the same content left.
    pub resume_state: ResumeState,
}

/// The host's end of it, while a connection lasts.
struct Session {
    open_info: OpenInfo,
    master: Arc<Master>,
    commands: Arc<Mutex<ChildStdin>>,
    replies: Mutex<Lines<BufReader<ChildStdout>>>,
    transport: Mutex<Option<Arc<Transport>>>,
    /// How much of the mark is there.
    sent_log_bytes: Mutex<usize>,
    _keepalive: AbortOnDropHandle<()>,
    _running: RunningCommand,
}

/// The way to the bytes.
enum Transport {
    Nbd(Nbd),
    /// And the ssh that its server talks through.
    Sftp {
        file: SftpFile,
        _ssh: Box<RunningCommand>,
    },
}

/// What is done with them.
enum Request {
    Read(BufferPool, u64, usize),
    Write(u64, Bytes),
    Flush,
}

impl Request {
    fn verb(&self) -> &'static str {
        match self {
            Self::Read(..) => "read",
            Self::Write(..) | Self::Flush => "write",
        }
    }

    fn deadline(&self) -> Duration {
        match self {
            Self::Read(..) | Self::Write(..) => BLOCK_TIMEOUT,
            Self::Flush => FLUSH_TIMEOUT,
        }
    }
}

impl Transport {
    /// What was read; nothing else gives bytes.
    async fn execute(&self, work: &Request) -> io::Result<Bytes> {
        let nothing = |()| Bytes::new();
        match (self, work) {
            (Self::Nbd(nbd), Request::Read(buffers, offset, length)) => {
                nbd.read(buffers, *offset, *length).await
            }
            (Self::Sftp { file, .. }, Request::Read(buffers, offset, length)) => {
                file.read(buffers, *offset, *length).await
            }
            (Self::Nbd(nbd), Request::Write(offset, data)) => {
                nbd.write(*offset, data.clone()).await.map(nothing)
            }
            (Self::Sftp { file, .. }, Request::Write(offset, data)) => {
                file.write(*offset, data.clone()).await.map(nothing)
            }
            (Self::Nbd(nbd), Request::Flush) => nbd.flush().await.map(nothing),
            (Self::Sftp { file, .. }, Request::Flush) => file.flush().await.map(nothing),
        }
    }

    /// Lets go of the file.
    async fn close(self) -> io::Result<()> {
        match self {
            Self::Nbd(nbd) => nbd.close(COMMAND_TIMEOUT).await,
            Self::Sftp { file, .. } => file.close(COMMAND_TIMEOUT).await,
        }
    }
}

impl RemoteFile {
    /// Opens the file.
    ///
    /// # Errors
    /// The host's; `Unsupported` where another process is writing it; `Unreachable`.
    pub(super) async fn open(
        place: CommandRunner,
        patience: RetryPolicy,
        path: &str,
        mode: Mode,
    ) -> Result<Self> {
        let hold = patience
            .call(|| Session::open(&place, path, &mode, None))
            .await?;
        let first = hold.open_info.clone();
        let marks = match &mode {
            // What is there is there, and told anew only after the connection was lost.
            Mode::Write { content, .. } => {
                resume_log(content, &first).header(&first.resume_state.blocks)
            }
            Mode::Read | Mode::Repair => String::new(),
        };
        if !first.resume_state.blocks.is_empty() {
            *hold.sent_log_bytes.lock().await = marks.len();
        }
        Ok(Self {
            runner: place,
            retry_policy: patience,
            path: path.to_owned(),
            mode,
            log_text: Mutex::new(marks),
            initial_info: first,
            session: Mutex::new(Some(Arc::new(hold))),
        })
    }

    /// Notes, beside the file, that a block is written. What does not reach the host, because it is away, does once it
    /// is back.
    pub(super) async fn record(&self, block: u64, digest: &Digest) {
        self.log_text
            .lock()
            .await
            .push_str(&ResumeLog::record(block, digest));
        self.send_log().await;
    }

    /// Notes, beside the file, that these blocks are written, and no others.
    pub(super) async fn reset_records(&self, blocks: &BTreeMap<u64, Digest>) {
        if let Mode::Write { content, .. } = &self.mode {
            let header = resume_log(content, &self.initial_info).header(blocks);
            self.log_text.lock().await.push_str(&header);
            self.send_log().await;
        }
    }

    async fn send_log(&self) {
        let Some(hold) = self.session.lock().await.clone() else {
            return;
        };
        let marks = self.log_text.lock().await;
        let mut marked = hold.sent_log_bytes.lock().await;
        let Some(new) = marks.get(*marked..) else {
            return;
        };
        let order = format!("m{new}\n");
        let told = async { hold.commands.lock().await.write_all(order.as_bytes()).await };
        // Who is away takes nothing; whoever moves bytes sees that, and mends it.
        if matches!(timeout(COMMAND_TIMEOUT, told).await, Ok(Ok(()))) {
            *marked = marks.len();
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn open_info(&self) -> &OpenInfo {
        &self.initial_info
    }

    pub(super) async fn read(
        &self,
        buffers: &BufferPool,
        offset: u64,
        length: usize,
    ) -> Result<Bytes> {
        self.execute(&Request::Read(buffers.clone(), offset, length))
            .await
    }

    pub(super) async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.execute(&Request::Write(offset, data))
            .await
            .map(|_| ())
    }

    /// Everything written is on the host's disk, and the file is closed but for its lock: other programs
    /// there may read it.
    pub(super) async fn finish(&self) -> Result<()> {
        self.execute(&Request::Flush).await?;
        self.close().await;
        Ok(())
    }

    /// Lets go of the bytes, not of the lock; nothing ordered before happens after this.
    pub(super) async fn close(&self) {
        let hold = self.session.lock().await.clone();
        if let Some(hold) = hold {
            hold.close().await;
        }
    }

    /// Does `work`, again and again while the host is away.
    async fn execute(&self, work: &Request) -> Result<Bytes> {
        let what = || {
            let (verb, host) = (work.verb(), self.runner.host());
            format!("cannot {verb} {} on host {host}", self.path)
        };
        let deadline = work.deadline();
        let mut wait = self.retry_policy.start_retry();
        loop {
            let failed = match self.transport().await {
                Ok((hold, door)) => match timeout(deadline, door.execute(work)).await {
                    Ok(Ok(value)) => {
                        self.retry_policy.mark_reachable();
                        return Ok(value);
                    }
                    Ok(Err(error)) if !is_connection_error(&error) => {
                        return Err(explain(what(), &error));
                    }
                    broken => {
                        self.discard_session(&hold).await;
                        let why = match broken {
                            Ok(Err(error)) => error.to_string(),
                            _ => format!("no answer for {} s", deadline.as_secs()),
                        };
                        Error::new(Kind::Unreachable, what())
                            .with_cause(why)
                            .hint("is the host up?")
                            .retryable()
                    }
                },
                Err(error) => error,
            };
            wait.wait_after(failed).await?;
        }
    }

    async fn transport(&self) -> Result<(Arc<Session>, Arc<Transport>)> {
        let mut slot = self.session.lock().await;
        let hold = match slot.as_ref() {
            Some(hold) => hold.clone(),
            None => {
                let hold = self.reopen().await?;
                slot.insert(Arc::new(hold)).clone()
            }
        };
        match hold.transport(&self.runner, &self.path, &self.mode).await {
            Ok(door) => Ok((hold, door)),
            Err(error) => {
                *slot = None;
                if let Some(ssh) = self.runner.ssh() {
                    ssh.check_alive(&hold.master).await;
                }
                Err(error)
            }
        }
    }

    /// Opens the file again, after the connection was lost.
    async fn reopen(&self) -> Result<Session> {
        let mut tries = 0;
        let hold = loop {
            match Session::open(
                &self.runner,
                &self.path,
                &self.mode,
                Some(&self.initial_info),
            )
            .await
            {
                Err(error) if error.kind() == Kind::Conflict && tries < LOCK_RETRY.0 => {
                    tries += 1;
                    tokio::time::sleep(LOCK_RETRY.1).await;
                }
                taken => break taken?,
            }
        };
        let (now, first) = (&hold.open_info, &self.initial_info);
        if now.inode != first.inode
            || now.size_bytes != first.size_bytes
            || now.boot_id != first.boot_id
        {
            return Err(Error::new(
                Kind::Failed,
                format!(
                    "{} on host {} is not the file it was before the connection was lost",
                    self.path,
                    self.runner.host()
                ),
            )
            .hint("retry from the start"));
        }
        Ok(hold)
    }

    async fn discard_session(&self, hold: &Arc<Session>) {
        let mut slot = self.session.lock().await;
        if slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, hold)) {
            *slot = None;
            if let Some(ssh) = self.runner.ssh() {
                ssh.check_alive(&hold.master).await;
            }
        }
    }
}

impl Session {
    async fn open(
        place: &CommandRunner,
        path: &str,
        mode: &Mode,
        first: Option<&OpenInfo>,
    ) -> Result<Self> {
        let Some(ssh) = place.ssh() else {
            return Err(Error::new(Kind::Failed, format!("{path} is not remote")));
        };
        let what = format!("cannot {} {path} on host {}", mode.verb(), place.host());
        let (word, owner, size) = match mode {
            Mode::Read | Mode::Repair => (mode.as_str(), "", String::new()),
            Mode::Write { owner, content } => {
                (mode.as_str(), &**owner, content.size_bytes.to_string())
            }
        };
        let master = ssh.acquire_master().await?;
        let argv = script_argv("hold", &[word, path, owner, &size]);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let mut running = place.start(&argv, Input::Piped).await?;
        let stderr = running.stderr();
        let (Some(mut orders), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(Error::new(Kind::Failed, what));
        };
        let mut answers = BufReader::new(stdout).lines();
        let talk = async {
            let mut opened = OpenInfo {
                boot_id: read_reply(&mut answers).await?,
                ..OpenInfo::empty()
            };
            let marks = read_reply(&mut answers).await?;
            let seen = read_reply(&mut answers).await?;
            let (size, inode) = seen.split_once(' ').unwrap_or_default();
            opened.size_bytes = size.parse().map_err(io::Error::other)?;
            opened.inode = inode.to_owned();
            let order = match mode {
                Mode::Read | Mode::Repair => "keep\n",
                // Opened again: what was written is there.
                Mode::Write { .. } if first.is_some_and(|first| *first.inode == *inode) => "keep\n",
                Mode::Write { content, .. } => {
                    let ours = self::resume_log(content, &opened);
                    opened.resume_state = ours.parse(marks.as_bytes(), opened.size_bytes);
                    match opened.resume_state.blocks.is_empty() {
                        true => {
                            opened.size_bytes = content.size_bytes;
                            "fresh\n"
                        }
                        false => "keep\n",
                    }
                }
            };
            orders.write_all(order.as_bytes()).await?;
            match read_reply(&mut answers).await? {
                held if held == "held" => Ok(opened),
                other => Err(io::Error::other(other)),
            }
        };
        let opened = match timeout(COMMAND_TIMEOUT, talk).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                drop(orders);
                // It ended: its own words are better.
                let ended = async { tokio::join!(read_text(stderr), place.wait(&mut running)) };
                let (said, status) = timeout(COMMAND_TIMEOUT, ended)
                    .await
                    .map_err(|_| ssh.connection_lost_error(&*what))?;
                status?;
                let error = match said.trim() {
                    "" => error,
                    said => super::errors::parse_system_error(said),
                };
                return Err(explain(what, &error));
            }
            Err(_) => {
                ssh.check_alive(&master).await;
                return Err(ssh.connection_lost_error(what));
            }
        };
        let orders = Arc::new(Mutex::new(orders));
        let beat = {
            let orders = orders.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(KEEPALIVE_INTERVAL).await;
                    if orders.lock().await.write_all(b".").await.is_err() {
                        return;
                    }
                }
            })
        };
        Ok(Self {
            open_info: opened,
            master,
            commands: orders,
            replies: Mutex::new(answers),
            transport: Mutex::default(),
            sent_log_bytes: Mutex::default(),
            _keepalive: AbortOnDropHandle::new(beat),
            _running: running,
        })
    }

    async fn transport(
        &self,
        place: &CommandRunner,
        path: &str,
        mode: &Mode,
    ) -> Result<Arc<Transport>> {
        let mut slot = self.transport.lock().await;
        if let Some(door) = slot.as_ref() {
            return Ok(door.clone());
        }
        let what = || format!("cannot reach the bytes of {path} on host {}", place.host());
        let broken = |error: io::Error| {
            Error::new(Kind::Unreachable, what())
                .with_cause(error)
                .retryable()
        };
        let door = match self.start_nbd().await {
            Ok(there) => match self.connect_nbd(&there).await {
                Ok(nbd) => Transport::Nbd(nbd),
                Err(error) if self.master.is_up() => {
                    // Forbidden, perhaps: then there is the slower way.
                    tracing::debug!("{}: {error}; using SFTP", what());
                    self.stop_nbd().await;
                    self.connect_sftp(place, path, mode).await?
                }
                Err(error) => return Err(broken(error)),
            },
            Err(NbdStartError::ConnectionLost(error)) => return Err(broken(error)),
            Err(NbdStartError::Failed(why)) => {
                return Err(Error::new(Kind::Failed, what())
                    .with_cause(why)
                    .hint("install qemu-utils there for qemu-nbd"));
            }
        };
        Ok(slot.insert(Arc::new(door)).clone())
    }

    /// Has qemu-nbd offer the file; returns its socket's path there.
    async fn start_nbd(&self) -> Result<String, NbdStartError> {
        let answer = with_timeout(self.send_command(b"x"))
            .await
            .map_err(NbdStartError::ConnectionLost)?;
        match answer.split_once(' ') {
            Some(("up", socket)) => Ok(socket.to_owned()),
            _ => Err(NbdStartError::Failed(
                answer.strip_prefix("down ").unwrap_or(&answer).to_owned(),
            )),
        }
    }

    async fn connect_nbd(&self, there: &str) -> io::Result<Nbd> {
        let forward: SocketForward = self
            .master
            .forward_socket(there)
            .await
            .map_err(|error| io::Error::other(error.message()))?;
        let open = async {
            Nbd::open(
                UnixStream::connect(&forward.local_path).await?,
                "",
                COMMAND_TIMEOUT,
            )
            .await
        };
        let nbd = with_timeout(open).await;
        // What is connected stays so.
        self.master.close_forward(&forward).await;
        nbd
    }

    async fn connect_sftp(
        &self,
        place: &CommandRunner,
        path: &str,
        mode: &Mode,
    ) -> Result<Transport> {
        let mut running = place.start_sftp().await?;
        let (Some(stdin), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(Error::new(
                Kind::Failed,
                format!("cannot talk SFTP to host {}", place.host()),
            ));
        };
        let access = match mode {
            Mode::Read => Access::Read,
            Mode::Write { .. } | Mode::Repair => Access::ReadWrite,
        };
        let file = SftpFile::open(stdin, stdout, path, access, COMMAND_TIMEOUT).await;
        let file = file.map_err(|error| {
            let host = place.host();
            Error::new(
                Kind::Unreachable,
                format!("cannot reach the bytes of {path} on host {host}"),
            )
            .with_cause(error)
            .hint("enable AllowStreamLocalForwarding or the sftp subsystem in its sshd_config")
            .retryable()
        })?;
        Ok(Transport::Sftp {
            file,
            _ssh: Box::new(running),
        })
    }

    /// Has qemu-nbd end, and waits until it has.
    async fn stop_nbd(&self) {
        let _ = with_timeout(self.send_command(b"y")).await;
    }

    /// Closes the bytes; the lock stays.
    async fn close(&self) {
        if let Some(door) = self.transport.lock().await.take()
            && let Some(door) = Arc::into_inner(door)
        {
            let _ = door.close().await;
        }
        // Whatever was ordered before is done when this is answered, the mark's last lines among it.
        self.stop_nbd().await;
    }

    async fn send_command(&self, order: &[u8]) -> io::Result<String> {
        let mut answers = self.replies.lock().await;
        self.commands.lock().await.write_all(order).await?;
        read_reply(&mut answers).await
    }
}

impl OpenInfo {
    fn empty() -> Self {
        Self {
            size_bytes: 0,
            inode: String::new(),
            boot_id: String::new(),
            resume_state: ResumeState::default(),
        }
    }
}

fn resume_log(content: &Content, opened: &OpenInfo) -> ResumeLog {
    ResumeLog {
        content: content.clone(),
        boot_id: opened.boot_id.clone(),
    }
}

/// Why the file is not offered.
enum NbdStartError {
    ConnectionLost(io::Error),
    Failed(String),
}

async fn read_reply(answers: &mut Lines<BufReader<ChildStdout>>) -> io::Result<String> {
    answers
        .next_line()
        .await?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

async fn with_timeout<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(COMMAND_TIMEOUT, work).await {
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Did the way to the file break, rather than the file's system refuse?
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | NotConnected | TimedOut
    )
}
