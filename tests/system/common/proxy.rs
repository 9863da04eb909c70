//! A proxy in front of a store that delays, cuts or corrupts connections, or answers like a busy server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};

const BUSY: &str = "HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\n\
                    content-length: 39\r\nconnection: close\r\n\r\n<Error><Code>SlowDown</Code></Error>   \n";
const NOT_IMPLEMENTED: &str = "HTTP/1.1 501 Not Implemented\r\ncontent-type: application/xml\r\n\
                    content-length: 44\r\nconnection: close\r\n\r\n<Error><Code>NotImplemented</Code></Error>  \n";
const EXPIRED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/xml\r\n\
                    content-length: 43\r\nconnection: close\r\n\r\n<Error><Code>AccessDenied</Code></Error>   \n";
/// Maximum length of a response.
const BLOCK: u64 = 8 * 1024 * 1024;
/// A connection is closed after this number of bytes in one direction.
const CUT_AFTER: u64 = 3 * 1024 * 1024;

/// Faults to come, and counters.
#[derive(Default)]
pub(crate) struct Faults {
    /// Parts to answer with 503.
    pub busy: AtomicI32,
    /// Requests of any kind to answer with 503.
    pub overloaded: AtomicI32,
    /// Connections to close while the client sends.
    pub cut_up: AtomicI32,
    /// Connections to close while the client receives.
    pub cut_down: AtomicI32,
    /// Delay after each 64 KiB that the client sends, in milliseconds.
    pub slow: AtomicU64,
    /// Bytes sent by the client.
    pub sent: AtomicU64,
    /// Bytes received by the client.
    pub received: AtomicU64,
    /// Ranges from this offset on are delayed until it is 0, which means no limit.
    pub hold_from: AtomicU64,
    /// Answer UploadPartCopy with 501.
    pub refuse_copies: AtomicBool,
    /// UploadPartCopy requests forwarded.
    pub copies: AtomicU64,
    /// Long responses in which to flip a bit.
    pub corrupt: AtomicI32,
    /// Request bodies in which to flip a bit.
    pub corrupt_up: AtomicI32,
    /// Hold parts while this is set.
    pub hold_parts: AtomicBool,
    /// Parts held so far.
    pub held: AtomicU64,
    /// Text in the first line of a request that is held, and never forwarded.
    pub hold_request: Mutex<Option<String>>,
    /// Presigned requests to answer as if they had expired.
    pub expired: AtomicI32,
    /// Name of a header of presigned requests that the store does not know.
    pub unknown_header: Mutex<Option<&'static str>>,
    /// Open connections.
    pub open: AtomicU64,
    /// Request lines and headers, as they came.
    pub requests: Mutex<Vec<String>>,
}

impl Faults {
    fn holds(&self, request: &str) -> bool {
        let held = self.hold_request.lock().unwrap();
        held.as_ref().is_some_and(|text| request.contains(text))
    }

    /// Holds requests whose first line contains `text`; with `None` those that were held fail.
    pub(crate) fn hold_requests(&self, text: Option<&str>) {
        *self.hold_request.lock().unwrap() = text.map(str::to_owned);
    }
}

/// Starts a proxy in front of `store` (HOST:PORT).
pub(crate) async fn proxy(store: String) -> (SocketAddr, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = faults.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (store, faults) = (store.clone(), shared.clone());
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(store).await else {
                    return;
                };
                faults.open.fetch_add(1, SeqCst);
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                // The end of one direction closes both.
                tokio::select! {
                    refused = forward_requests(client_in, server_out, &faults) => {
                        if let Some((client_in, response)) = refused {
                            send_response(response, client_in, client_out).await;
                        }
                    }
                    () = forward_responses(server_in, &faults, &client_out) => {}
                }
                faults.open.fetch_sub(1, SeqCst);
            });
        }
    });
    (address, faults)
}

/// Decrements a counter of faults to come; returns whether it was above 0.
fn consume(counter: &AtomicI32) -> bool {
    counter
        .fetch_update(SeqCst, SeqCst, |n| (n > 0).then(|| n - 1))
        .is_ok()
}

/// Forwards requests; returns the client's half and a response when the proxy itself must answer.
async fn forward_requests(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    faults: &Faults,
) -> Option<(tcp::OwnedReadHalf, &'static str)> {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    loop {
        let length = from.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        let head = String::from_utf8_lossy(&buffer[..length.min(2000)]);
        let is_request = ["GET ", "HEAD ", "PUT ", "POST ", "DELETE "]
            .iter()
            .any(|method| head.starts_with(method));
        let line = head.lines().next().unwrap_or_default();
        if is_request {
            faults.requests.lock().unwrap().push(head.to_string());
        }
        if is_request && faults.holds(line) {
            faults.held.fetch_add(1, SeqCst);
            while faults.holds(line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            return None;
        }
        let is_presigned = is_request && line.contains("X-Amz-Signature=");
        if is_presigned && consume(&faults.expired) {
            return Some((from, EXPIRED));
        }
        if is_request && consume(&faults.overloaded) {
            return Some((from, BUSY));
        }
        if head.starts_with("PUT ") && head.contains("partNumber=") && consume(&faults.busy) {
            return Some((from, BUSY));
        }
        if head.starts_with("PUT ") && head.contains("partNumber=") {
            if faults.hold_parts.load(SeqCst) {
                faults.held.fetch_add(1, SeqCst);
            }
            while faults.hold_parts.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        if head.contains("x-amz-copy-source: ") {
            if faults.refuse_copies.load(SeqCst) {
                return Some((from, NOT_IMPLEMENTED));
            }
            faults.copies.fetch_add(1, SeqCst);
        }
        if let Some(offset) = range(&head) {
            while (1..=offset).contains(&faults.hold_from.load(SeqCst)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let unknown = *faults.unknown_header.lock().unwrap();
        if let Some(name) = unknown.filter(|_| is_presigned) {
            let name = format!("\r\n{name}: ").into_bytes();
            let at = buffer[..length]
                .windows(name.len())
                .position(|bytes| bytes.eq_ignore_ascii_case(&name));
            if let Some(at) = at {
                buffer[at + 2] = b'x';
            }
        }
        passed += length as u64;
        faults.sent.fetch_add(length as u64, SeqCst);
        if passed > CUT_AFTER && consume(&faults.cut_up) {
            return None;
        }
        // In the middle of a body, not in the headers.
        if length == buffer.len() && passed > CUT_AFTER && consume(&faults.corrupt_up) {
            buffer[length / 2] ^= 1;
        }
        to.write_all(&buffer[..length]).await.ok()?;
        let slow = faults.slow.load(SeqCst);
        if slow > 0 {
            tokio::time::sleep(Duration::from_millis(slow)).await;
        }
    }
}

/// Returns the start of the requested range.
fn range(head: &str) -> Option<u64> {
    let head = head.to_ascii_lowercase();
    let (_, rest) = head.split_once("range: bytes=")?;
    rest.split('-').next()?.parse().ok()
}

async fn forward_responses(
    mut from: tcp::OwnedReadHalf,
    faults: &Faults,
    to: &tcp::OwnedWriteHalf,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        passed += length as u64;
        if passed > CUT_AFTER && consume(&faults.cut_down) {
            return;
        }
        faults.received.fetch_add(length as u64, SeqCst);
        // In the middle of a long response, not in the headers.
        if length == buffer.len() && passed > BLOCK / 2 && consume(&faults.corrupt) {
            buffer[length / 2] ^= 1;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            if to.writable().await.is_err() {
                return;
            }
            match to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// Sends a response, then reads on: closing a socket with unread data would reset it and lose the response.
async fn send_response(response: &str, mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) {
    let _ = to.write_all(response.as_bytes()).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}
