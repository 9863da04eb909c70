//! An NBD client for concurrent reads and writes at offsets: of a file through the host's own `qemu-nbd`, or of a disk
//! that a running QEMU exports.
//!
//! Start `qemu-nbd --format=raw --socket=SOCKET [--read-only] FILE` for each client: it exits with its client. The size of
//! the export is the file's, rounded up to 512 bytes (QEMU counts in sectors); the bytes that are not in the file read as
//! zeros, and only writing them makes the file longer.

pub mod chunked;

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
use snapdeck_model::BufferPool;

/// Concurrent requests on a connection: as many as qemu-nbd works on (`MAX_NBD_REQUESTS` in QEMU's `nbd/server.c`).
const MAX_IN_FLIGHT_REQUESTS: usize = 16;
/// Longer reads and writes are sent as several requests of this many bytes.
const REQUEST_BYTES: usize = 2 << 20;

/// A connection to one export.
///
/// Many tasks may call it at the same time. Calls have no deadline, and may be dropped: their replies are discarded.
/// Dropping the connection closes it at once.
pub struct Nbd {
    export: Export,
    connection: Arc<Connection>,
    request_tx: mpsc::UnboundedSender<Frame>,
    /// Reads replies and writes requests until the connection ends.
    tasks: JoinSet<()>,
}

impl Nbd {
    /// Negotiates on a connected stream for the export of that name ("" is the default one), within `deadline`.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidData` if the peer is not an NBD server; `Other` with its message if it refuses; the
    /// stream's.
    pub async fn open(mut stream: UnixStream, name: &str, deadline: Duration) -> io::Result<Self> {
        let export = timeout(deadline, wire::negotiate(&mut stream, name))
            .await
            .map_err(|_| {
                let message = format!("qemu-nbd did not answer within {} s", deadline.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, message)
            })??;
        let (read_half, write_half) = stream.into_split();
        let connection = Arc::new(Connection {
            permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT_REQUESTS)),
            state: Mutex::default(),
        });
        // Bounded by the permits.
        let (request_tx, requests) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(read_replies(connection.clone(), read_half));
        tasks.spawn(write_requests(connection.clone(), requests, write_half));
        Ok(Self {
            export,
            connection,
            request_tx,
            tasks,
        })
    }

    /// Reads exactly `length` bytes at `offset` into one of `buffers`.
    ///
    /// # Errors
    /// `InvalidInput` beyond the end (QEMU reports "no space" for a write there). `ConnectionReset`, `BrokenPipe` or
    /// `UnexpectedEof` if the connection ended, `InvalidData` if it was closed for an invalid reply. Otherwise the
    /// host's.
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

    /// Writes all of `data` at `offset`, to the host's page cache: see [`Nbd::flush`].
    ///
    /// # Errors
    /// `StorageFull`; `PermissionDenied` if the export is read-only; as [`Nbd::read`].
    pub async fn write(&self, offset: u64, data: Bytes) -> io::Result<()> {
        chunked::check_bounds(self.export.size_bytes, offset, data.len())?;
        if self.export.read_only {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the export is read-only",
            ));
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

    /// Flushes all finished writes to the disk (`NBD_CMD_FLUSH`).
    ///
    /// # Errors
    /// As [`Nbd::write`]; `Unsupported`.
    pub async fn flush(&self) -> io::Result<()> {
        if !self.export.flush_supported {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the NBD server does not support flushes",
            ));
        }
        self.call(Command::Flush, 0, 0, Payload::WriteData(Bytes::new()))
            .await
            .map(|_| ())
    }

    /// Disconnects (`NBD_CMD_DISC`) and waits until the server has finished pending requests and closed the connection.
    ///
    /// # Errors
    /// `TimedOut` after `deadline`; the connection is closed in any case.
    pub async fn close(self, deadline: Duration) -> io::Result<()> {
        let Self {
            request_tx,
            mut tasks,
            ..
        } = self;
        let frame = Frame {
            header: wire::encode_request(Command::Disconnect, 0, 0, 0),
            payload: Bytes::new(),
        };
        // Fails if the connection has ended.
        let _ = request_tx.send(frame);
        // The writer ends with the last request, the reader when the server closes.
        drop(request_tx);
        let ended = async { while tasks.join_next().await.is_some() {} };
        let message = "qemu-nbd did not close the connection";
        timeout(deadline, ended)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, message))
    }

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
        let (reply_tx, reply) = oneshot::channel();
        let cookie = self.connection.register_request(PendingRequest {
            remaining_bytes: if command == Command::Read { length } else { 0 },
            buffer,
            reply_tx,
            _permit: permit,
        })?;
        let frame = Frame {
            // At most `MAX_PAYLOAD`.
            header: wire::encode_request(command, cookie, offset, length as u32),
            payload,
        };
        // Fails if the connection has ended; the reply says why.
        let _ = self.request_tx.send(frame);
        reply
            .await
            .unwrap_or_else(|_| Err(self.connection.close_error()))
    }
}

enum Payload {
    ReadBuffer(BytesMut),
    WriteData(Bytes),
}

struct Frame {
    header: [u8; wire::REQUEST_HEADER],
    payload: Bytes,
}

/// State shared by the calls and the two tasks of a connection.
struct Connection {
    permits: Arc<Semaphore>,
    state: Mutex<ConnectionState>,
}

#[derive(Default)]
struct ConnectionState {
    last_cookie: u64,
    pending_requests: HashMap<u64, PendingRequest>,
    /// Set when the connection has ended.
    close_reason: Option<(io::ErrorKind, String)>,
}

/// A request without a reply. It is kept when its caller is dropped, since the reply is still received.
struct PendingRequest {
    /// Bytes of data that follow a reply without an error.
    remaining_bytes: usize,
    buffer: BytesMut,
    reply_tx: oneshot::Sender<io::Result<BytesMut>>,
    _permit: OwnedSemaphorePermit,
}

impl PendingRequest {
    async fn read_payload(&mut self, stream: &mut OwnedReadHalf) -> io::Result<()> {
        while self.remaining_bytes > 0 {
            let mut buffer = (&mut self.buffer).limit(self.remaining_bytes);
            match stream.read_buf(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.remaining_bytes -= count,
            }
        }
        Ok(())
    }
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a request and returns its cookie.
    fn register_request(&self, request: PendingRequest) -> io::Result<u64> {
        let mut state = self.state();
        if let Some((kind, message)) = &state.close_reason {
            return Err(io::Error::new(*kind, message.clone()));
        }
        state.last_cookie += 1;
        let cookie = state.last_cookie;
        state.pending_requests.insert(cookie, request);
        Ok(cookie)
    }

    fn close_error(&self) -> io::Error {
        match &self.state().close_reason {
            Some((kind, message)) => io::Error::new(*kind, message.clone()),
            None => io::ErrorKind::ConnectionReset.into(),
        }
    }

    /// Fails all current and later calls. The first reason counts.
    fn close(&self, error: &io::Error) {
        let requests = {
            let mut state = self.state();
            let message = format!("the connection to qemu-nbd was lost: {error}");
            state.close_reason.get_or_insert((error.kind(), message));
            std::mem::take(&mut state.pending_requests)
        };
        self.permits.close();
        // Their callers get `close_error` when `reply_tx` is dropped.
        drop(requests);
    }
}

async fn read_replies(connection: Arc<Connection>, mut stream: OwnedReadHalf) {
    loop {
        if let Err(error) = read_reply(&connection, &mut stream).await {
            return connection.close(&error);
        }
    }
}

async fn read_reply(connection: &Connection, stream: &mut OwnedReadHalf) -> io::Result<()> {
    let mut header = [0; wire::REPLY_HEADER];
    stream.read_exact(&mut header).await?;
    let (cookie, outcome) = wire::decode_reply(header)?;
    let Some(mut request) = connection.state().pending_requests.remove(&cookie) else {
        return Err(wire::protocol_error("a reply to an unknown request"));
    };
    if let Err(error) = outcome {
        let kind = error.kind();
        // The caller may have been dropped.
        let _ = request.reply_tx.send(Err(error));
        return match kind {
            io::ErrorKind::ConnectionReset => Err(io::Error::new(kind, wire::SHUTDOWN)),
            _ => Ok(()),
        };
    }
    let filled = request.read_payload(stream).await;
    if let Err(error) = &filled {
        // Before `reply_tx` is dropped and its caller reads the reason.
        connection.close(error);
    } else {
        let _ = request.reply_tx.send(Ok(request.buffer));
    }
    filled
}

async fn write_requests(
    connection: Arc<Connection>,
    mut requests: mpsc::UnboundedReceiver<Frame>,
    mut stream: OwnedWriteHalf,
) {
    // A separate task, so that a dropped call never leaves half a request on the stream.
    while let Some(frame) = requests.recv().await {
        let mut bytes = Buf::chain(&frame.header[..], frame.payload);
        if let Err(error) = stream.write_all_buf(&mut bytes).await {
            return connection.close(&error);
        }
    }
}
