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

use super::explain;
use super::mark::{Content, Mark, Recorded};
use super::there::script;
use crate::command::{Input, Place, Running, text};
use crate::patience::Patience;
use crate::sftp::{Access, SftpFile};
use crate::ssh::{Forward, Master};
use snapdeck_model::{Buffers, Digest, Error, Kind, Result};
use snapdeck_nbd::Nbd;

/// For a block of a few MiB; a dead link shows sooner, by ssh's own signs of life.
const BLOCK: Duration = Duration::from_secs(300);
/// For bringing gigabytes to the disk.
const SYNC: Duration = Duration::from_secs(30 * 60);
/// For opening, and for each order.
const ORDER: Duration = Duration::from_secs(20);
/// How often the host is shown that we are there; it gives up after 20 s without.
const BEAT: Duration = Duration::from_secs(5);
/// How often a file that another holds is asked for again, after we lost the host ourselves: the one who
/// holds it may be our own, not knowing yet that we are gone.
const HELD: (u32, Duration) = (12, Duration::from_secs(2));

/// What a file is opened for.
#[derive(Clone)]
pub(super) enum Mode {
    Read,
    Write {
        owner: String,
        content: Content,
    },
    /// Over what is bad in a file that bears its final name.
    Mend,
}

impl Mode {
    fn word(&self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write { .. } => "write",
            Self::Mend => "mend",
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Write { .. } => "create",
            Self::Read | Self::Mend => "open",
        }
    }
}

/// A file of a remote host.
pub(super) struct Stream {
    place: Place,
    patience: Patience,
    path: String,
    mode: Mode,
    hold: Mutex<Option<Arc<Hold>>>,
    /// The file's mark, from its header on.
    marks: Mutex<String>,
    /// What it was when it was first opened.
    first: Opened,
}

/// What was seen when a file was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub size_bytes: u64,
    pub inode: String,
    pub boot_id: String,
    /// Blocks that an earlier writer of the same content left.
    pub recorded: Recorded,
}

/// The host's end of it, while a connection lasts.
struct Hold {
    opened: Opened,
    master: Arc<Master>,
    orders: Arc<Mutex<ChildStdin>>,
    answers: Mutex<Lines<BufReader<ChildStdout>>>,
    bytes: Mutex<Option<Arc<Door>>>,
    /// How much of the mark is there.
    marked: Mutex<usize>,
    _beat: AbortOnDropHandle<()>,
    _running: Running,
}

/// The way to the bytes.
enum Door {
    Nbd(Nbd),
    /// And the ssh that its server talks through.
    Sftp {
        file: SftpFile,
        _ssh: Box<Running>,
    },
}

/// What is done with them.
enum Work {
    Read(Buffers, u64, usize),
    Write(u64, Bytes),
    Flush,
}

impl Work {
    fn verb(&self) -> &'static str {
        match self {
            Self::Read(..) => "read",
            Self::Write(..) | Self::Flush => "write",
        }
    }

    fn deadline(&self) -> Duration {
        match self {
            Self::Read(..) | Self::Write(..) => BLOCK,
            Self::Flush => SYNC,
        }
    }
}

impl Door {
    /// What was read; nothing else gives bytes.
    async fn work(&self, work: &Work) -> io::Result<Bytes> {
        let nothing = |()| Bytes::new();
        match (self, work) {
            (Self::Nbd(nbd), Work::Read(buffers, offset, length)) => {
                nbd.read(buffers, *offset, *length).await
            }
            (Self::Sftp { file, .. }, Work::Read(buffers, offset, length)) => {
                file.read(buffers, *offset, *length).await
            }
            (Self::Nbd(nbd), Work::Write(offset, data)) => {
                nbd.write(*offset, data.clone()).await.map(nothing)
            }
            (Self::Sftp { file, .. }, Work::Write(offset, data)) => {
                file.write(*offset, data.clone()).await.map(nothing)
            }
            (Self::Nbd(nbd), Work::Flush) => nbd.flush().await.map(nothing),
            (Self::Sftp { file, .. }, Work::Flush) => file.flush().await.map(nothing),
        }
    }

    /// Lets go of the file.
    async fn close(self) -> io::Result<()> {
        match self {
            Self::Nbd(nbd) => nbd.close(ORDER).await,
            Self::Sftp { file, .. } => file.close(ORDER).await,
        }
    }
}

impl Stream {
    /// Opens the file.
    ///
    /// # Errors
    /// The host's; `Refused` where another process is writing it; `Unreachable`.
    pub(super) async fn open(
        place: Place,
        patience: Patience,
        path: &str,
        mode: Mode,
    ) -> Result<Self> {
        let hold = patience
            .call(|| Hold::take(&place, path, &mode, None))
            .await?;
        let first = hold.opened.clone();
        let marks = match &mode {
            // What is there is there, and told anew only after the connection was lost.
            Mode::Write { content, .. } => mark(content, &first).header(&first.recorded.blocks),
            Mode::Read | Mode::Mend => String::new(),
        };
        if !first.recorded.blocks.is_empty() {
            *hold.marked.lock().await = marks.len();
        }
        Ok(Self {
            place,
            patience,
            path: path.to_owned(),
            mode,
            marks: Mutex::new(marks),
            first,
            hold: Mutex::new(Some(Arc::new(hold))),
        })
    }

    /// Notes, beside the file, that a block is written. What does not reach the host, because it is away, does once it
    /// is back.
    pub(super) async fn record(&self, block: u64, digest: &Digest) {
        self.marks
            .lock()
            .await
            .push_str(&Mark::record(block, digest));
        self.tell_marks().await;
    }

    /// Notes, beside the file, that these blocks are written, and no others.
    pub(super) async fn record_anew(&self, blocks: &BTreeMap<u64, Digest>) {
        if let Mode::Write { content, .. } = &self.mode {
            let header = mark(content, &self.first).header(blocks);
            self.marks.lock().await.push_str(&header);
            self.tell_marks().await;
        }
    }

    async fn tell_marks(&self) {
        let Some(hold) = self.hold.lock().await.clone() else {
            return;
        };
        let marks = self.marks.lock().await;
        let mut marked = hold.marked.lock().await;
        let Some(new) = marks.get(*marked..) else {
            return;
        };
        let order = format!("m{new}\n");
        let told = async { hold.orders.lock().await.write_all(order.as_bytes()).await };
        // Who is away takes nothing; whoever moves bytes sees that, and mends it.
        if matches!(timeout(ORDER, told).await, Ok(Ok(()))) {
            *marked = marks.len();
        }
    }

    pub(super) fn opened(&self) -> &Opened {
        &self.first
    }

    pub(super) async fn read(
        &self,
        buffers: &Buffers,
        offset: u64,
        length: usize,
    ) -> Result<Bytes> {
        self.with(&Work::Read(buffers.clone(), offset, length))
            .await
    }

    pub(super) async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.with(&Work::Write(offset, data)).await.map(|_| ())
    }

    /// Everything written is on the host's disk, and the file is closed but for its lock: other programs
    /// there may read it.
    pub(super) async fn finish(&self) -> Result<()> {
        self.with(&Work::Flush).await?;
        self.close().await;
        Ok(())
    }

    /// Lets go of the bytes, not of the lock; nothing ordered before happens after this.
    pub(super) async fn close(&self) {
        let hold = self.hold.lock().await.clone();
        if let Some(hold) = hold {
            hold.close().await;
        }
    }

    /// Does `work`, again and again while the host is away.
    async fn with(&self, work: &Work) -> Result<Bytes> {
        let what = || {
            let (verb, host) = (work.verb(), self.place.host());
            format!("cannot {verb} {} on host {host}", self.path)
        };
        let deadline = work.deadline();
        let mut wait = self.patience.begin();
        loop {
            let failed = match self.door().await {
                Ok((hold, door)) => match timeout(deadline, door.work(work)).await {
                    Ok(Ok(value)) => {
                        self.patience.meet();
                        return Ok(value);
                    }
                    Ok(Err(error)) if !is_broken(&error) => return Err(explain(what(), &error)),
                    broken => {
                        self.forget(&hold).await;
                        let why = match broken {
                            Ok(Err(error)) => error.to_string(),
                            _ => format!("no answer for {} s", deadline.as_secs()),
                        };
                        Error::new(Kind::Unreachable, what())
                            .because(why)
                            .hint("is the host up?")
                            .worth_retrying()
                    }
                },
                Err(error) => error,
            };
            wait.after(failed).await?;
        }
    }

    async fn door(&self) -> Result<(Arc<Hold>, Arc<Door>)> {
        let mut slot = self.hold.lock().await;
        let hold = match slot.as_ref() {
            Some(hold) => hold.clone(),
            None => {
                let hold = self.hold_again().await?;
                slot.insert(Arc::new(hold)).clone()
            }
        };
        match hold.door(&self.place, &self.path, &self.mode).await {
            Ok(door) => Ok((hold, door)),
            Err(error) => {
                *slot = None;
                if let Some(ssh) = self.place.ssh() {
                    ssh.suspect(&hold.master).await;
                }
                Err(error)
            }
        }
    }

    /// Opens the file again, after the connection was lost.
    async fn hold_again(&self) -> Result<Hold> {
        let mut tries = 0;
        let hold = loop {
            match Hold::take(&self.place, &self.path, &self.mode, Some(&self.first)).await {
                Err(error) if error.kind() == Kind::Refused && tries < HELD.0 => {
                    tries += 1;
                    tokio::time::sleep(HELD.1).await;
                }
                taken => break taken?,
            }
        };
        let (now, first) = (&hold.opened, &self.first);
        if now.inode != first.inode
            || now.size_bytes != first.size_bytes
            || now.boot_id != first.boot_id
        {
            return Err(Error::new(
                Kind::Failed,
                format!(
                    "{} on host {} is not the file it was before the connection was lost",
                    self.path,
                    self.place.host()
                ),
            )
            .hint("try again from the start"));
        }
        Ok(hold)
    }

    async fn forget(&self, hold: &Arc<Hold>) {
        let mut slot = self.hold.lock().await;
        if slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, hold)) {
            *slot = None;
            if let Some(ssh) = self.place.ssh() {
                ssh.suspect(&hold.master).await;
            }
        }
    }
}

impl Hold {
    async fn take(place: &Place, path: &str, mode: &Mode, first: Option<&Opened>) -> Result<Self> {
        let Some(ssh) = place.ssh() else {
            return Err(Error::new(Kind::Failed, format!("{path} is not remote")));
        };
        let what = format!("cannot {} {path} on host {}", mode.verb(), place.host());
        let (word, owner, size) = match mode {
            Mode::Read | Mode::Mend => (mode.word(), "", String::new()),
            Mode::Write { owner, content } => {
                (mode.word(), &**owner, content.size_bytes.to_string())
            }
        };
        let master = ssh.master().await?;
        let argv = script("hold", &[word, path, owner, &size]);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let mut running = place.start(&argv, Input::Piped).await?;
        let stderr = running.stderr();
        let (Some(mut orders), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(Error::new(Kind::Failed, what));
        };
        let mut answers = BufReader::new(stdout).lines();
        let talk = async {
            let mut opened = Opened {
                boot_id: next(&mut answers).await?,
                ..Opened::nothing()
            };
            let marks = next(&mut answers).await?;
            let seen = next(&mut answers).await?;
            let (size, inode) = seen.split_once(' ').unwrap_or_default();
            opened.size_bytes = size.parse().map_err(io::Error::other)?;
            opened.inode = inode.to_owned();
            let order = match mode {
                Mode::Read | Mode::Mend => "keep\n",
                // Opened again: what was written is there.
                Mode::Write { .. } if first.is_some_and(|first| *first.inode == *inode) => "keep\n",
                Mode::Write { content, .. } => {
                    let ours = self::mark(content, &opened);
                    opened.recorded = ours.read(marks.as_bytes(), opened.size_bytes);
                    match opened.recorded.blocks.is_empty() {
                        true => {
                            opened.size_bytes = content.size_bytes;
                            "fresh\n"
                        }
                        false => "keep\n",
                    }
                }
            };
            orders.write_all(order.as_bytes()).await?;
            match next(&mut answers).await? {
                held if held == "held" => Ok(opened),
                other => Err(io::Error::other(other)),
            }
        };
        let opened = match timeout(ORDER, talk).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                drop(orders);
                // It ended: its own words are better.
                let ended = async { tokio::join!(text(stderr), place.wait(&mut running)) };
                let (said, status) = timeout(ORDER, ended).await.map_err(|_| ssh.lost(&*what))?;
                status?;
                let error = match said.trim() {
                    "" => error,
                    said => super::there::system(said),
                };
                return Err(explain(what, &error));
            }
            Err(_) => {
                ssh.suspect(&master).await;
                return Err(ssh.lost(what));
            }
        };
        let orders = Arc::new(Mutex::new(orders));
        let beat = {
            let orders = orders.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(BEAT).await;
                    if orders.lock().await.write_all(b".").await.is_err() {
                        return;
                    }
                }
            })
        };
        Ok(Self {
            opened,
            master,
            orders,
            answers: Mutex::new(answers),
            bytes: Mutex::default(),
            marked: Mutex::default(),
            _beat: AbortOnDropHandle::new(beat),
            _running: running,
        })
    }

    async fn door(&self, place: &Place, path: &str, mode: &Mode) -> Result<Arc<Door>> {
        let mut slot = self.bytes.lock().await;
        if let Some(door) = slot.as_ref() {
            return Ok(door.clone());
        }
        let what = || format!("cannot reach the bytes of {path} on host {}", place.host());
        let broken = |error: io::Error| {
            Error::new(Kind::Unreachable, what())
                .because(error)
                .worth_retrying()
        };
        let door = match self.offer().await {
            Ok(there) => match self.nbd(&there).await {
                Ok(nbd) => Door::Nbd(nbd),
                Err(error) if self.master.is_up() => {
                    // Forbidden, perhaps: then there is the slower way.
                    tracing::debug!("{}: {error}; using SFTP", what());
                    self.end_offer().await;
                    self.sftp(place, path, mode).await?
                }
                Err(error) => return Err(broken(error)),
            },
            Err(Refusal::Broken(error)) => return Err(broken(error)),
            Err(Refusal::Said(why)) => {
                return Err(Error::new(Kind::Failed, what())
                    .because(why)
                    .hint("is qemu-nbd installed there (qemu-utils)?"));
            }
        };
        Ok(slot.insert(Arc::new(door)).clone())
    }

    /// Has qemu-nbd offer the file; returns its socket's path there.
    async fn offer(&self) -> Result<String, Refusal> {
        let answer = within(self.order(b"x")).await.map_err(Refusal::Broken)?;
        match answer.split_once(' ') {
            Some(("up", socket)) => Ok(socket.to_owned()),
            _ => Err(Refusal::Said(
                answer.strip_prefix("down ").unwrap_or(&answer).to_owned(),
            )),
        }
    }

    async fn nbd(&self, there: &str) -> io::Result<Nbd> {
        let forward: Forward = self
            .master
            .forward(there)
            .await
            .map_err(|error| io::Error::other(error.message()))?;
        let open = async { Nbd::open(UnixStream::connect(&forward.here).await?, "", ORDER).await };
        let nbd = within(open).await;
        // What is connected stays so.
        self.master.unforward(&forward).await;
        nbd
    }

    async fn sftp(&self, place: &Place, path: &str, mode: &Mode) -> Result<Door> {
        let mut running = place.sftp().await?;
        let (Some(stdin), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(Error::new(
                Kind::Failed,
                format!("cannot talk SFTP to host {}", place.host()),
            ));
        };
        let access = match mode {
            Mode::Read => Access::Read,
            Mode::Write { .. } | Mode::Mend => Access::ReadWrite,
        };
        let file = SftpFile::open(stdin, stdout, path, access, ORDER).await;
        let file = file.map_err(|error| {
            let host = place.host();
            Error::new(
                Kind::Unreachable,
                format!("cannot reach the bytes of {path} on host {host}"),
            )
            .because(error)
            .hint("sshd there has to allow AllowStreamLocalForwarding, or the sftp subsystem")
            .worth_retrying()
        })?;
        Ok(Door::Sftp {
            file,
            _ssh: Box::new(running),
        })
    }

    /// Has qemu-nbd end, and waits until it has.
    async fn end_offer(&self) {
        let _ = within(self.order(b"y")).await;
    }

    /// Closes the bytes; the lock stays.
    async fn close(&self) {
        if let Some(door) = self.bytes.lock().await.take()
            && let Some(door) = Arc::into_inner(door)
        {
            let _ = door.close().await;
        }
        // Whatever was ordered before is done when this is answered, the mark's last lines among it.
        self.end_offer().await;
    }

    async fn order(&self, order: &[u8]) -> io::Result<String> {
        let mut answers = self.answers.lock().await;
        self.orders.lock().await.write_all(order).await?;
        next(&mut answers).await
    }
}

impl Opened {
    fn nothing() -> Self {
        Self {
            size_bytes: 0,
            inode: String::new(),
            boot_id: String::new(),
            recorded: Recorded::default(),
        }
    }
}

fn mark(content: &Content, opened: &Opened) -> Mark {
    Mark {
        content: content.clone(),
        boot_id: opened.boot_id.clone(),
    }
}

/// Why the file is not offered.
enum Refusal {
    Broken(io::Error),
    Said(String),
}

async fn next(answers: &mut Lines<BufReader<ChildStdout>>) -> io::Result<String> {
    answers
        .next_line()
        .await?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(ORDER, work).await {
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Did the way to the file break, rather than the file's system refuse?
fn is_broken(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | NotConnected | TimedOut
    )
}
