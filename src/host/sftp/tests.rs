#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::Stdio;
use std::sync::{Arc, LazyLock};
use std::task::Poll;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;
static BUFFERS: LazyLock<BufferPool> = LazyLock::new(BufferPool::default);
/// Path on Debian.
const SERVER: &str = "/usr/lib/openssh/sftp-server";

/// An SFTP server of OpenSSH and the directory of its file.
struct Server {
    dir: TempDir,
    child: Child,
}

impl Server {
    /// Starts a server with a file of `size` bytes.
    fn start(size: u64) -> Self {
        Self::start_script(size, SERVER)
    }

    /// Starts the shell `script` as the server; `$DIR` is the file's directory.
    fn start_script(size: u64, script: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = std::fs::File::create(dir.path().join("disk")).unwrap();
        file.set_len(size).unwrap();
        let child = Command::new("sh")
            .args(["-c", &format!("exec {script}")])
            .env("DIR", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { dir, child }
    }

    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    async fn try_open(&mut self, name: &str, access: Access) -> io::Result<SftpFile> {
        let (stdin, stdout) = (self.child.stdin.take(), self.child.stdout.take());
        let path = self.dir.path().join(name);
        let path = path.to_str().unwrap();
        SftpFile::open(stdin.unwrap(), stdout.unwrap(), path, access, TIMEOUT).await
    }

    async fn open(&mut self, access: Access) -> SftpFile {
        self.try_open("disk", access).await.unwrap()
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        let status = Command::new("kill").args([signal, &id]).status().await;
        assert!(status.unwrap().success());
    }
}

fn pattern(offset: usize, length: usize) -> Bytes {
    let byte = |index: usize| (index ^ (index >> 8) ^ (index >> 16)).wrapping_mul(31) as u8;
    (offset..offset + length).map(byte).collect()
}

async fn within_timeout<T>(future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.expect("no timeout")
}

/// Polls a call once, which must be pending.
async fn poll_once<T>(mut call: Pin<&mut impl Future<Output = T>>) {
    std::future::poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_write_and_read_in_any_order() {
    let size = 12 * MIB + 1001;
    let mut server = Server::start(size as u64);
    let file = Arc::new(server.open(Access::ReadWrite).await);
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < size {
        let length = (start % 7 * 411_111 + 70_001).min(size - start);
        chunks.push((start, length));
        start += length;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for &(start, length) in chunks.iter().rev() {
        let file = file.clone();
        tasks.spawn(async move {
            let (offset, data) = (start as u64, pattern(start, length));
            file.write(offset, data.clone()).await.unwrap();
            assert!(file.read(&BUFFERS, offset, length).await.unwrap() == data);
        });
    }
    while let Some(done) = within_timeout(tasks.join_next()).await {
        done.unwrap();
    }
    within_timeout(file.flush()).await.unwrap();
    assert!(within_timeout(file.read(&BUFFERS, 0, size)).await.unwrap() == pattern(0, size));
    assert!(
        within_timeout(file.read(&BUFFERS, 7, 0))
            .await
            .unwrap()
            .is_empty()
    );
    within_timeout(file.write(7, Bytes::new())).await.unwrap();
    assert!(std::fs::read(server.disk()).unwrap() == pattern(0, size));
    // The server supports the longest requests.
    assert_eq!(file.request_bytes(), MAX_REQUEST_BYTES);
    let file = Arc::into_inner(file).unwrap();
    file.close(TIMEOUT).await.unwrap();
    assert!(within_timeout(server.child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_server_without_extensions_is_supported_except_for_flush() {
    let mut server = Server::start_script(2 * MIB as u64, &format!("{SERVER} -P limits,fsync"));
    let file = server.open(Access::ReadWrite).await;
    within_timeout(file.write(5, pattern(5, MIB)))
        .await
        .unwrap();
    assert!(within_timeout(file.read(&BUFFERS, 5, MIB)).await.unwrap() == pattern(5, MIB));
    // Requests are now limited to what it executed of the first one.
    assert!(file.request_bytes() < MAX_REQUEST_BYTES);
    assert!(within_timeout(file.read(&BUFFERS, 5, MIB)).await.unwrap() == pattern(5, MIB));
    let error = within_timeout(file.flush()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn requests_past_the_end_are_invalid() {
    let mut server = Server::start(4096);
    let file = server.open(Access::ReadWrite).await;
    for (offset, length) in [(4096, 1), (4000, 97), (u64::MAX, 1), (u64::MAX, 0)] {
        let read = within_timeout(file.read(&BUFFERS, offset, length))
            .await
            .unwrap_err();
        assert_eq!(read.kind(), ErrorKind::InvalidInput, "{read}");
        let data = Bytes::from(vec![1; length]);
        let write = within_timeout(file.write(offset, data)).await.unwrap_err();
        assert_eq!(write.kind(), ErrorKind::InvalidInput, "{write}");
    }
    assert_eq!(
        within_timeout(file.read(&BUFFERS, 4000, 96))
            .await
            .unwrap()
            .len(),
        96
    );
    assert_eq!(std::fs::metadata(server.disk()).unwrap().len(), 4096);
    // Another process truncates it.
    let disk = std::fs::File::options().write(true).open(server.disk());
    disk.unwrap().set_len(100).unwrap();
    let error = within_timeout(file.read(&BUFFERS, 0, 4096))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn a_file_open_for_reads_cannot_be_written() {
    let mut server = Server::start(4096);
    std::fs::write(server.disk(), pattern(3, 4096)).unwrap();
    let file = server.open(Access::Read).await;
    assert!(within_timeout(file.read(&BUFFERS, 0, 4096)).await.unwrap() == pattern(3, 4096));
    let error = within_timeout(file.write(0, pattern(0, 1)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let error = within_timeout(file.flush()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

#[tokio::test]
async fn a_missing_file_and_a_directory_cannot_be_opened() {
    for (name, kind) in [
        ("absent", ErrorKind::NotFound),
        (".", ErrorKind::InvalidData),
    ] {
        let mut server = Server::start(1);
        let error = server.try_open(name, Access::Read).await.err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_an_sftp_server_is_an_error() {
    for (script, kinds) in [
        (
            "true",
            vec![ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe],
        ),
        ("echo Welcome to this host", vec![ErrorKind::InvalidData]),
        ("cat /dev/zero", vec![ErrorKind::InvalidData]),
    ] {
        let mut server = Server::start_script(1, script);
        let error = within_timeout(server.try_open("disk", Access::Read)).await;
        let error = error.err().unwrap();
        assert!(kinds.contains(&error.kind()), "{:?} {error}", error.kind());
    }
    let mut server = Server::start_script(1, "sleep 600");
    let (stdin, stdout) = (server.child.stdin.take(), server.child.stdout.take());
    let deadline = Duration::from_millis(50);
    let opened = SftpFile::open(stdin.unwrap(), stdout.unwrap(), "x", Access::Read, deadline);
    assert_eq!(opened.await.err().unwrap().kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_full_disk_is_reported_as_such() {
    // A small tmpfs in a user namespace, which needs no privileges.
    let script = format!(
        "unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=1m none \"$DIR\" && \
         truncate -s 4M \"$DIR/disk\" && exec {SERVER}'"
    );
    let mut server = Server::start_script(1, &script);
    let file = server.open(Access::ReadWrite).await;
    let error = within_timeout(file.write(0, pattern(0, 3 * MIB)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    // The connection is still usable.
    assert_eq!(
        within_timeout(file.read(&BUFFERS, 3 * MIB as u64, 9))
            .await
            .unwrap(),
        [0; 9][..]
    );
}

#[tokio::test]
async fn a_killed_server_ends_every_call_at_once() {
    let mut server = Server::start(64 * MIB as u64);
    let file = server.open(Access::ReadWrite).await;
    server.signal("-STOP").await;
    let calls = (0..32).map(|index| {
        let (file, offset) = (&file, (index * MIB) as u64);
        async move {
            if index % 2 == 0 {
                file.read(&BUFFERS, offset, MIB).await.map(|_| ())
            } else {
                file.write(offset, pattern(0, MIB)).await
            }
        }
    });
    let mut calls = Box::pin(futures_util::future::join_all(calls));
    poll_once(calls.as_mut()).await;
    server.child.kill().await.unwrap();
    for outcome in within_timeout(calls).await {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    for outcome in [
        within_timeout(file.read(&BUFFERS, 0, 1)).await.map(|_| ()),
        within_timeout(file.write(0, pattern(0, 1))).await,
        within_timeout(file.flush()).await,
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn dropped_calls_leave_the_connection_usable() {
    let mut server = Server::start(64 * MIB as u64);
    let file = server.open(Access::ReadWrite).await;
    within_timeout(file.write(0, pattern(9, 8 * MIB)))
        .await
        .unwrap();
    for _ in 0..3 {
        server.signal("-STOP").await;
        for index in 0..16 {
            let offset = (index * MIB) as u64;
            poll_once(pin!(file.read(&BUFFERS, offset, 3 * MIB + 1))).await;
            let elsewhere = 32 * MIB as u64 + offset;
            poll_once(pin!(file.write(elsewhere, pattern(index, MIB)))).await;
        }
        let mut call = pin!(file.read(&BUFFERS, 0, 8 * MIB));
        poll_once(call.as_mut()).await;
        server.signal("-CONT").await;
        assert!(within_timeout(call).await.unwrap() == pattern(9, 8 * MIB));
    }
    within_timeout(file.flush()).await.unwrap();
}
