#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::Stdio;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Instant;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::process::{Child, Command as Program};

use super::wire::{MAGIC, OPTION, OPTION_REPLY, SIMPLE_REPLY};
use super::*;

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;
static BUFFERS: LazyLock<BufferPool> = LazyLock::new(BufferPool::default);

/// A qemu-nbd that serves a temporary file.
struct Server {
    dir: TempDir,
    child: Child,
}

impl Server {
    /// Serves a file of `size` bytes with `arguments`; `FILE` in them is its path.
    async fn start(size: u64, arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let file = std::fs::File::create(dir.path().join("disk")).unwrap();
        file.set_len(size).unwrap();
        Self::start_in(dir, arguments).await
    }

    async fn start_in(dir: TempDir, arguments: &[&str]) -> Self {
        let disk = dir.path().join("disk");
        let disk = disk.to_str().unwrap();
        let child = Program::new("qemu-nbd")
            .arg("--socket")
            .arg(dir.path().join("socket"))
            .args(arguments.iter().map(|text| text.replace("FILE", disk)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { dir, child }
    }

    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    async fn stream(&self) -> UnixStream {
        let until = Instant::now() + TEST_TIMEOUT;
        loop {
            match UnixStream::connect(self.dir.path().join("socket")).await {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn open(&self) -> Nbd {
        Nbd::open(self.stream().await, "", TEST_TIMEOUT)
            .await
            .unwrap()
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        let status = Program::new("kill").args([signal, &id]).status().await;
        assert!(status.unwrap().success());
    }
}

const RAW: &[&str] = &["--format=raw", "FILE"];

/// Bytes that differ at each offset.
fn pattern(offset: usize, length: usize) -> Bytes {
    let byte = |index: usize| (index ^ (index >> 8) ^ (index >> 16)).wrapping_mul(31) as u8;
    (offset..offset + length).map(byte).collect()
}

async fn with_timeout<T>(future: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, future).await.expect("a call hangs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_write_and_read_in_any_order() {
    // Not a multiple of 512 bytes.
    let size = 24 * MIB + 1000;
    let mut server = Server::start(size as u64, RAW).await;
    let nbd = Arc::new(server.open().await);
    // Chunks of odd lengths, some longer than a request, in reverse order.
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < size {
        let length = (start % 7 * 511_111 + 70_001).min(size - start);
        pieces.push((start, length));
        start += length;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for &(start, length) in pieces.iter().rev() {
        let nbd = nbd.clone();
        tasks.spawn(async move {
            nbd.write(start as u64, pattern(start, length))
                .await
                .unwrap();
            assert!(
                nbd.read(&BUFFERS, start as u64, length).await.unwrap() == pattern(start, length)
            );
        });
    }
    while let Some(done) = with_timeout(tasks.join_next()).await {
        done.unwrap();
    }
    with_timeout(nbd.flush()).await.unwrap();
    assert!(with_timeout(nbd.read(&BUFFERS, 0, size)).await.unwrap() == pattern(0, size));
    assert!(
        with_timeout(nbd.read(&BUFFERS, 7, 0))
            .await
            .unwrap()
            .is_empty()
    );
    with_timeout(nbd.write(7, Bytes::new())).await.unwrap();
    // The file has the written bytes and no more.
    assert!(std::fs::read(server.disk()).unwrap() == pattern(0, size));
    let nbd = Arc::into_inner(nbd).unwrap();
    nbd.close(TEST_TIMEOUT).await.unwrap();
    assert!(with_timeout(server.child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_sparse_file_stays_sparse() {
    let size = 8_u64 << 30;
    let server = Server::start(size, RAW).await;
    let nbd = server.open().await;
    let end = size - 3 * MIB as u64;
    with_timeout(nbd.write(end, pattern(5, 3 * MIB)))
        .await
        .unwrap();
    assert!(
        with_timeout(nbd.read(&BUFFERS, end, 3 * MIB))
            .await
            .unwrap()
            == pattern(5, 3 * MIB)
    );
    let zeros = with_timeout(nbd.read(&BUFFERS, end - 5 * MIB as u64, 5 * MIB))
        .await
        .unwrap();
    assert!(zeros.iter().all(|&byte| byte == 0));
    let metadata = std::fs::metadata(server.disk()).unwrap();
    assert_eq!(metadata.len(), size);
    assert!(metadata.blocks() * 512 < 16 * MIB as u64);
}

#[tokio::test]
async fn reads_and_writes_beyond_the_end_are_refused() {
    let server = Server::start(4096, RAW).await;
    let nbd = server.open().await;
    for (offset, length) in [(4096, 1), (4000, 97), (u64::MAX, 1), (u64::MAX, 0)] {
        let read = with_timeout(nbd.read(&BUFFERS, offset, length))
            .await
            .unwrap_err();
        assert_eq!(read.kind(), ErrorKind::InvalidInput, "{read}");
        let data = Bytes::from(vec![1; length]);
        let write = with_timeout(nbd.write(offset, data)).await.unwrap_err();
        assert_eq!(write.kind(), ErrorKind::InvalidInput, "{write}");
    }
    assert_eq!(
        with_timeout(nbd.read(&BUFFERS, 4000, 96))
            .await
            .unwrap()
            .len(),
        96
    );
    assert_eq!(std::fs::metadata(server.disk()).unwrap().len(), 4096);
}

#[tokio::test]
async fn a_full_or_broken_disk_has_its_own_error_kind() {
    for (errno, kind) in [(28, ErrorKind::StorageFull), (5, ErrorKind::Other)] {
        let options = format!(
            "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=FILE,\
             file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.errno={errno}"
        );
        let server = Server::start(4 * MIB as u64, &["--image-opts", &options]).await;
        let nbd = server.open().await;
        let error = with_timeout(nbd.write(0, pattern(0, 3 * MIB)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        // The connection stays usable.
        assert!(with_timeout(nbd.read(&BUFFERS, 0, 4 * MIB)).await.unwrap() == vec![0; 4 * MIB]);
    }
}

#[tokio::test]
async fn a_read_only_export_can_be_read_but_not_written() {
    let server = Server::start(4096, &["--read-only", "--format=raw", "FILE"]).await;
    let file = std::fs::File::options().write(true).open(server.disk());
    file.unwrap().write_all_at(&pattern(0, 4096), 0).unwrap();
    let nbd = server.open().await;
    assert!(with_timeout(nbd.read(&BUFFERS, 0, 4096)).await.unwrap() == pattern(0, 4096));
    let error = with_timeout(nbd.write(0, pattern(0, 1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

#[tokio::test]
async fn the_error_has_the_message_of_the_server() {
    let server = Server::start(4096, &["--export-name=another", "--format=raw", "FILE"]).await;
    let Err(error) = Nbd::open(server.stream().await, "", TEST_TIMEOUT).await else {
        panic!("opened an export that does not exist");
    };
    assert!(
        error.to_string().contains("export '' not present"),
        "{error}"
    );
}

/// Polls a call until it is pending for the first time.
async fn poll_until_pending<T>(mut call: Pin<&mut impl Future<Output = T>>) {
    std::future::poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_ends_every_call_at_once() {
    let mut server = Server::start(64 * MIB as u64, RAW).await;
    let nbd = server.open().await;
    server.signal("-STOP").await;
    // More calls than requests in flight: some wait for a permit.
    let calls = (0..2 * MAX_IN_FLIGHT_REQUESTS).map(|index| {
        let (nbd, offset) = (&nbd, (index * MIB) as u64);
        async move {
            if index % 2 == 0 {
                nbd.read(&BUFFERS, offset, MIB).await.map(|_| ())
            } else {
                nbd.write(offset, pattern(0, MIB)).await
            }
        }
    });
    let mut calls = Box::pin(futures_util::future::join_all(calls));
    poll_until_pending(calls.as_mut()).await;
    server.child.kill().await.unwrap();
    for outcome in with_timeout(calls).await {
        assert_connection_lost(&outcome.unwrap_err());
    }
    assert_connection_lost(&with_timeout(nbd.read(&BUFFERS, 0, 1)).await.unwrap_err());
    assert_connection_lost(&with_timeout(nbd.write(0, pattern(0, 1))).await.unwrap_err());
    assert_connection_lost(&with_timeout(nbd.flush()).await.unwrap_err());
    nbd.close(TEST_TIMEOUT).await.unwrap();
}

fn assert_connection_lost(error: &io::Error) {
    use ErrorKind::*;
    let is_lost = matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof);
    assert!(is_lost, "{:?} {error}", error.kind());
}

#[tokio::test]
async fn dropped_calls_leave_the_connection_usable() {
    let server = Server::start(64 * MIB as u64, RAW).await;
    let file = std::fs::File::options().write(true).open(server.disk());
    file.unwrap().write_all_at(&pattern(9, 8 * MIB), 0).unwrap();
    let nbd = server.open().await;
    for _ in 0..3 {
        server.signal("-STOP").await;
        for index in 0..MAX_IN_FLIGHT_REQUESTS {
            let offset = (index * MIB) as u64;
            poll_until_pending(pin!(nbd.read(&BUFFERS, offset, 3 * MIB + 1))).await;
            poll_until_pending(pin!(
                nbd.write(32 * MIB as u64 + offset, pattern(index, MIB))
            ))
            .await;
        }
        let mut call = pin!(nbd.read(&BUFFERS, 0, 8 * MIB));
        poll_until_pending(call.as_mut()).await;
        server.signal("-CONT").await;
        assert!(with_timeout(call).await.unwrap() == pattern(9, 8 * MIB));
    }
    with_timeout(nbd.flush()).await.unwrap();
    assert_eq!(
        nbd.connection.permits.available_permits(),
        MAX_IN_FLIGHT_REQUESTS
    );
}

/// The handshake of a server with an export of 1 MiB.
fn greeting() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u64(MAGIC);
    bytes.put_u64(OPTION);
    bytes.put_u16(3);
    option_reply(&mut bytes, 3, &[0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 5]);
    option_reply(&mut bytes, 1, &[]);
    bytes
}

fn option_reply(bytes: &mut Vec<u8>, kind: u32, data: &[u8]) {
    bytes.put_u64(OPTION_REPLY);
    bytes.put_u32(7);
    bytes.put_u32(kind);
    bytes.put_u32(data.len() as u32);
    bytes.put_slice(data);
}

/// Opens a connection to a peer that sends only `bytes`; dropping the returned peer closes the connection.
async fn open_to(bytes: &[u8]) -> (io::Result<Nbd>, UnixStream) {
    let (client, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(bytes).await.unwrap();
    (
        Nbd::open(client, "", Duration::from_millis(100)).await,
        peer,
    )
}

#[tokio::test]
async fn a_peer_that_is_not_a_server_is_an_error() {
    let mut endless = greeting()[..18].to_vec();
    (0..1000).for_each(|_| option_reply(&mut endless, 3, &[0, 9]));
    let mut sizeless = greeting()[..18].to_vec();
    option_reply(&mut sizeless, 1, &[]);
    let mut long = greeting()[..34].to_vec();
    long.put_u32(u32::MAX);
    let mut old = greeting();
    old[17] = 0;
    for (bytes, message) in [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(), "unknown greeting"),
        (vec![0; 4096], "unknown greeting"),
        (endless, "do not end"),
        (sizeless, "the size of the export"),
        (long, "4294967295"),
        (old, "no fixed newstyle"),
    ] {
        let (opened, _peer) = open_to(&bytes).await;
        let error = opened.err().expect(message);
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
    for silent in [&greeting()[..0], &greeting()[..20]] {
        let (opened, _peer) = open_to(silent).await;
        assert_eq!(opened.err().unwrap().kind(), ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn an_invalid_reply_ends_the_connection() {
    let header = |magic: u32, error: u32, cookie: u64| {
        let mut bytes = Vec::new();
        bytes.put_u32(magic);
        bytes.put_u32(error);
        bytes.put_u64(cookie);
        bytes
    };
    for (bytes, kind) in [
        (vec![0xff; 64], ErrorKind::InvalidData),
        (header(SIMPLE_REPLY, 0, 77), ErrorKind::InvalidData),
        (header(0x668e_33ef, 0, 1), ErrorKind::InvalidData),
        (header(SIMPLE_REPLY, 108, 1), ErrorKind::ConnectionReset),
    ] {
        let (opened, mut peer) = open_to(&greeting()).await;
        let nbd = opened.unwrap();
        let mut calls = pin!(futures_util::future::join(
            nbd.read(&BUFFERS, 0, 9),
            nbd.write(9, pattern(0, 9))
        ));
        poll_until_pending(calls.as_mut()).await;
        peer.write_all(&bytes).await.unwrap();
        let (read, write) = with_timeout(calls).await;
        assert_eq!(read.unwrap_err().kind(), kind);
        assert_eq!(write.unwrap_err().kind(), kind);
        assert_eq!(with_timeout(nbd.flush()).await.unwrap_err().kind(), kind);
    }
    // Half a reply.
    let (opened, mut peer) = open_to(&greeting()).await;
    let nbd = opened.unwrap();
    let mut call = pin!(nbd.read(&BUFFERS, 0, 9));
    poll_until_pending(call.as_mut()).await;
    let mut bytes = header(SIMPLE_REPLY, 0, 1);
    bytes.put_slice(b"half");
    peer.write_all(&bytes).await.unwrap();
    drop(peer);
    assert_connection_lost(&with_timeout(call).await.unwrap_err());
}

#[tokio::test]
async fn an_unknown_error_keeps_the_connection() {
    let (opened, mut peer) = open_to(&greeting()).await;
    let nbd = opened.unwrap();
    let mut call = pin!(nbd.read(&BUFFERS, 0, 4));
    poll_until_pending(call.as_mut()).await;
    let mut bytes = Vec::new();
    bytes.put_u32(SIMPLE_REPLY);
    bytes.put_u32(4711);
    bytes.put_u64(1);
    peer.write_all(&bytes).await.unwrap();
    let error = with_timeout(call).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

proptest! {
    #[test]
    fn the_handshake_does_not_panic_on_any_bytes(valid_length in 0..80_usize, tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = greeting();
        bytes.truncate(valid_length);
        bytes.extend(tail);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let stream = tokio::io::join(&bytes[..], tokio::io::sink());
        let export = runtime.block_on(wire::negotiate(stream, ""));
        if let Ok(export) = export {
            prop_assert!((wire::MIN_PAYLOAD..=wire::MAX_PAYLOAD).contains(&export.max_payload));
        }
    }

    #[test]
    fn a_reply_is_decoded_or_refused(header: [u8; wire::REPLY_HEADER]) {
        let is_reply = header[..4] == SIMPLE_REPLY.to_be_bytes();
        prop_assert_eq!(wire::decode_reply(header).is_ok(), is_reply);
    }
}

/// Answers to a client of an export of 4096 bytes: the negotiation, and a reply to the first request.
fn answers() -> Vec<u8> {
    let mut bytes = greeting();
    bytes.extend(SIMPLE_REPLY.to_be_bytes());
    bytes.extend(0u32.to_be_bytes());
    bytes.extend(1u64.to_be_bytes());
    bytes.extend([7; 4096]);
    bytes
}

#[test]
fn fuzz_nbd_server() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    snapdeck_fuzz::FuzzTarget::new("NBD server")
        .seed(greeting())
        .seed(answers())
        .memory(8 << 20, 4)
        .run(|answers| {
            runtime.block_on(async {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                // The buffer of a socket has more than the inputs.
                theirs.write_all(answers).await.unwrap();
                theirs.shutdown().await.unwrap();
                let Ok(nbd) = Nbd::open(ours, "disk", TEST_TIMEOUT).await else {
                    return;
                };
                assert!((wire::MIN_PAYLOAD..=wire::MAX_PAYLOAD).contains(&nbd.export.max_payload));
                let length = nbd.export.size_bytes.min(4096) as usize;
                let read = timeout(TEST_TIMEOUT, nbd.read(&BUFFERS, 0, length))
                    .await
                    .unwrap();
                assert!(read.is_err() || read.is_ok_and(|bytes| bytes.len() == length));
            });
        });
}
