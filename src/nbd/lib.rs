//! Reads and writes bytes on a host at offsets, many at once: those of a file through the host's own `qemu-nbd`, or of
//! a disk that a running QEMU exports.
//!
//! `qemu-nbd` is to be started there as `qemu-nbd --format=raw --socket=SOCKET [--read-only] FILE`, one client each: it ends when
//! its client does. The export's length is the file's, rounded up to 512 bytes (QEMU counts in sectors); reading the
//! bytes that are not in the file gives zeros, and only writing them makes the file longer.

mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::wire::{Command, Export};
pub mod chunked;
use snapdeck_model::BufferPool;

/// Requests under way at once on a connection: as many as qemu-nbd works on (`MAX_NBD_REQUESTS` in QEMU's
/// `nbd/server.c`).
const MAX_IN_FLIGHT_REQUESTS: usize = 16;
/// Longer reads and writes are sent as several requests of this many bytes.
const REQUEST_BYTES: usize = 2 << 20;

/// A connection to one export. Calls may be made from many tasks at once; they have no deadline of their own, and
/// any of them may be dropped: its answer is thrown away when it comes. Dropping the connection cuts it.
pub struct Nbd {
    export: Export,
    connection: Arc<Connection>,
    request_tx: mpsc::UnboundedSender<Frame>,
    /// One reads replies, one writes requests; they end with the connection.
    tasks: JoinSet<()>,
}

impl Nbd {
    /// Negotiates on a connected stream for the export of that name, "" being the default one, for at most `deadline`.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidData` where the other side is no NBD server; `Other` with its words where it refuses;
    /// the stream's.
    pub async fn open(mut stream: UnixStream, name: &str, deadline: Duration) -> io::Result<Self> {
        let export = timeout(deadline, wire::negotiate(&mut stream, name))
            .await
            .map_err(|_| {
                let words = format!("qemu-nbd did not answer for {} s", deadline.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, words)
            })??;
        let (read_half, write_half) = stream.into_split();
        let link = Arc::new(Connection {
            permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT_REQUESTS)),
            state: Mutex::default(),
        });
        // Bounded by the permits.
        let (outbox, frames) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(read_replies(link.clone(), read_half));
        tasks.spawn(write_requests(link.clone(), frames, write_half));
        Ok(Self {
            export,
            connection: link,
            request_tx: outbox,
            tasks,
        })
    }

    /// Reads exactly `length` bytes at `offset`, to one of `buffers`.
    ///
    /// # Errors
    /// `InvalidInput` beyond the end (of a write there QEMU would say "no space"). `ConnectionReset`, `BrokenPipe` or `UnexpectedEof` where the connection ended,
    /// `InvalidData` where it was ended because of what came. Otherwise the host's.
    pub async fn read(
        &self,
        buffers: &BufferPool,
        offset: u64,
        length: usize,
    ) -> io::Result<Bytes> {
        chunked::check_bounds(self.export.size_bytes, offset, length)?;
        chunked::read_chunked(
            buffers,
            offset,
            length,
            self.max_request_bytes(),
            |offset, length, buffer| {
                self.call(Command::Read, offset, length, Payload::ReadBuffer(buffer))
            },
        )
        .await
    }

    /// Writes all of `data` at `offset`. It has reached the host's page cache then, not the disk: see [`Nbd::flush`].
    ///
    /// # Errors
    /// `StorageFull`; `PermissionDenied` where the export is read-only; as [`Nbd::read`].
    pub async fn write(&self, offset: u64, data: Bytes) -> io::Result<()> {
        chunked::check_bounds(self.export.size_bytes, offset, data.len())?;
        if self.export.read_only {
            let words = "qemu-nbd serves it read-only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
        }
        chunked::write_chunked(
            offset,
            data,
            self.max_request_bytes(),
            |offset, data| async move {
                self.call(Command::Write, offset, data.len(), Payload::WriteData(data))
                    .await
                    .map(|_| ())
            },
        )
        .await
    }

    /// Brings everything to the disk whose [`Nbd::write`] has returned (`NBD_CMD_FLUSH`).
    ///
    /// # Errors
    /// As [`Nbd::write`]; `Unsupported`.
    pub async fn flush(&self) -> io::Result<()> {
        if !self.export.flush_supported {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the NBD server cannot flush",
            ));
        }
        self.call(Command::Flush, 0, 0, Payload::WriteData(Bytes::new()))
            .await
            .map(|_| ())
    }

    /// Says goodbye (`NBD_CMD_DISC`) and waits, for at most `deadline`, until the server has closed: what was under
    /// way is done then.
    ///
    /// # Errors
    /// `TimedOut`; the connection is cut then.
    pub async fn close(self, deadline: Duration) -> io::Result<()> {
        let Self {
            request_tx: outbox,
            mut tasks,
            ..
        } = self;
        let frame = Frame {
            header: wire::encode_request(Command::Disconnect, 0, 0, 0),
            payload: Bytes::new(),
        };
        // A writer that is gone has nobody to say goodbye to.
        let _ = outbox.send(frame);
        // The writer ends with the last request, the reader when the server closes.
        drop(outbox);
        let ended = async { while tasks.join_next().await.is_some() {} };
        let words = "qemu-nbd did not close the connection";
        timeout(deadline, ended)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, words))
    }

    /// Most bytes of one request.
    fn max_request_bytes(&self) -> usize {
        REQUEST_BYTES.min(self.export.max_payload as usize)
    }

    async fn call(
        &self,
        command: Command,
        offset: u64,
        length: usize,
        payload: Payload,
    ) -> io::Result<BytesMut> {
        let permits = self.connection.permits.clone();
        let Ok(permit) = permits.acquire_owned().await else {
            return Err(self.connection.close_error());
        };
        let (buffer, payload) = match payload {
            Payload::ReadBuffer(buffer) => (buffer, Bytes::new()),
            Payload::WriteData(data) => (BytesMut::new(), data),
        };
        let (reply, answer) = oneshot::channel();
        let cookie = self.connection.register_request(PendingRequest {
            remaining_bytes: if command == Command::Read { length } else { 0 },
            buffer,
            reply,
            _permit: permit,
        })?;
        let frame = Frame {
            // No more than `MAX_PAYLOAD`.
            header: wire::encode_request(command, cookie, offset, length as u32),
            payload,
        };
        // Where the writer is gone, so is the connection, and the answer says why.
        let _ = self.request_tx.send(frame);
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.connection.close_error()),
        }
    }
}

/// Data of a request: to be filled, or to be sent.
enum Payload {
    ReadBuffer(BytesMut),
    WriteData(Bytes),
}

/// A request on its way out.
struct Frame {
    header: [u8; wire::REQUEST_HEADER],
    payload: Bytes,
}

/// What the calls and the two tasks of a connection share.
struct Connection {
    permits: Arc<Semaphore>,
    state: Mutex<ConnectionState>,
}

#[derive(Default)]
struct ConnectionState {
    last_cookie: u64,
    pending_requests: HashMap<u64, PendingRequest>,
    /// Why there is no connection any more.
    close_reason: Option<(io::ErrorKind, String)>,
}

/// A request without an answer. It stays here when its caller has gone, for its answer comes nevertheless.
struct PendingRequest {
    /// Bytes of data that follow a good answer.
    remaining_bytes: usize,
    buffer: BytesMut,
    reply: oneshot::Sender<io::Result<BytesMut>>,
    _permit: OwnedSemaphorePermit,
}

impl PendingRequest {
    /// Reads the data of a good answer to where it is wanted.
    async fn read_payload(&mut self, stream: &mut OwnedReadHalf) -> io::Result<()> {
        while self.remaining_bytes > 0 {
            let mut rest = (&mut self.buffer).limit(self.remaining_bytes);
            match stream.read_buf(&mut rest).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.remaining_bytes -= count,
            }
        }
        Ok(())
    }
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        // No code that could panic holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a request; its cookie.
    fn register_request(&self, waiting: PendingRequest) -> io::Result<u64> {
        let mut state = self.state();
        if let Some((kind, words)) = &state.close_reason {
            return Err(io::Error::new(*kind, words.clone()));
        }
        state.last_cookie += 1;
        let cookie = state.last_cookie;
        state.pending_requests.insert(cookie, waiting);
        Ok(cookie)
    }

    fn close_error(&self) -> io::Error {
        match &self.state().close_reason {
            Some((kind, words)) => io::Error::new(*kind, words.clone()),
            None => io::ErrorKind::ConnectionReset.into(),
        }
    }

    /// Ends all calls, those to come as well. The first reason counts.
    fn close(&self, error: &io::Error) {
        let waiting = {
            let mut state = self.state();
            let words = format!("the connection to qemu-nbd ended: {error}");
            state.close_reason.get_or_insert((error.kind(), words));
            std::mem::take(&mut state.pending_requests)
        };
        self.permits.close();
        // They ask `close_error` when they find nobody who could answer.
        drop(waiting);
    }
}

async fn read_replies(link: Arc<Connection>, mut stream: OwnedReadHalf) {
    loop {
        if let Err(error) = read_reply(&link, &mut stream).await {
            return link.close(&error);
        }
    }
}

async fn read_reply(link: &Connection, stream: &mut OwnedReadHalf) -> io::Result<()> {
    let mut header = [0; wire::REPLY_HEADER];
    stream.read_exact(&mut header).await?;
    let (cookie, outcome) = wire::decode_reply(header)?;
    let Some(mut waiting) = link.state().pending_requests.remove(&cookie) else {
        return Err(wire::protocol_error("it answers what was not asked"));
    };
    if let Err(error) = outcome {
        let is_ending = error.kind() == io::ErrorKind::ConnectionReset;
        // The caller may have gone.
        let _ = waiting.reply.send(Err(error));
        return if is_ending {
            Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "qemu-nbd is ending",
            ))
        } else {
            Ok(())
        };
    }
    let filled = waiting.read_payload(stream).await;
    if let Err(error) = &filled {
        // Before its caller learns that nobody will answer.
        link.close(error);
    } else {
        let _ = waiting.reply.send(Ok(waiting.buffer));
    }
    filled
}

async fn write_requests(
    link: Arc<Connection>,
    mut frames: mpsc::UnboundedReceiver<Frame>,
    mut stream: OwnedWriteHalf,
) {
    // Written by a task so that a dropped call never leaves half a request on the stream.
    while let Some(frame) = frames.recv().await {
        let mut bytes = Buf::chain(&frame.header[..], frame.payload);
        if let Err(error) = stream.write_all_buf(&mut bytes).await {
            return link.close(&error);
        }
    }
}
