//! A download that continues on a host when this machine is gone: a process there waits as long as heartbeats come, and downloads
//! what the resume log lacks when they end (`remote.sh`, `stand_by`). The next session of the file ends it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::{sleep, timeout};

use super::download::curl_config;
use super::file_session::HEARTBEAT_INTERVAL;
use super::remote_handles::RemoteWriter;
use crate::command::{BoundedLines, RunningCommand, bounded_lines};
use snapdeck_model::{BLOCK_BYTES, Error, Kind, PresignedRequest, Result};
use snapdeck_ownership::describe_self;

/// For a message to the process, and for its answers.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// For its exit: a cancelled pull ends soon, also if the host does not answer.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Downloads that it makes at a time.
const LANES: u64 = 4;
/// Bytes of its output.
const MAX_OUTPUT_BYTES: u64 = 64;

/// A process on a host that downloads the rest of a file if this machine is gone, or if this is dropped.
pub struct Standby {
    running: RunningCommand,
    stdin: ChildStdin,
    /// Of each of its lanes.
    max_bytes_per_sec: Option<u64>,
}

impl RemoteWriter {
    /// Starts it; as [`WriteFile::start_standby`](super::WriteFile::start_standby).
    pub(super) async fn start_standby_process(
        &self,
        request: &PresignedRequest,
        unattended: Duration,
        job: &str,
    ) -> Result<Standby> {
        let info = self.file.session().await?.open_info.clone();
        let numbers = [
            BLOCK_BYTES,
            self.file.open_info().size_bytes,
            unattended.as_secs(),
        ];
        let [block, size, seconds] = numbers.map(|number| number.to_string());
        let creator = describe_self();
        let (descriptor, inode) = (&*info.descriptor, &*info.inode);
        let args = [descriptor, inode, &block, &size, &seconds, job, &creator];
        let mut running = self.start_beside("stand_by", &args).await?;
        let (host, path) = (self.fs.runner.host(), self.file.path());
        let summary = format!("cannot start a process for {path} on host {host}");
        let (Some(stdin), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(Error::new(Kind::Failed, summary));
        };
        let max_bytes_per_sec = self.fs.runner.max_bytes_per_sec();
        let mut standby = Standby {
            running,
            stdin,
            max_bytes_per_sec: max_bytes_per_sec.map(|limit| limit / LANES),
        };
        let mut lines: BoundedLines<_> = bounded_lines(stdout, MAX_OUTPUT_BYTES);
        let config = curl_config(request, standby.max_bytes_per_sec);
        standby.send(config.as_bytes()).await;
        match timeout(MESSAGE_TIMEOUT, lines.next_line()).await {
            Ok(Ok(Some(line))) if line == "ready" => Ok(standby),
            _ => {
                standby.running.terminate().await;
                Err(Error::new(Kind::Failed, summary).with_cause("it gave no answer"))
            }
        }
    }
}

impl Standby {
    /// Sends heartbeats for `time`.
    pub async fn keep(&mut self, time: Duration) {
        let beating = async {
            loop {
                self.send(b".").await;
                sleep(HEARTBEAT_INTERVAL).await;
            }
        };
        let _: std::result::Result<(), _> = timeout(time, beating).await;
    }

    /// Replaces its request by one that is valid for longer.
    pub async fn renew(&mut self, request: &PresignedRequest) {
        let config = curl_config(request, self.max_bytes_per_sec);
        self.send(format!("c{config}").as_bytes()).await;
    }

    /// Tells it to exit, and waits for that.
    pub async fn dismiss(mut self) {
        self.send(b"q").await;
        let _ = timeout(EXIT_TIMEOUT, self.running.wait_status()).await;
    }

    /// An error shows in the connection, or it takes over.
    async fn send(&mut self, message: &[u8]) {
        let _ = timeout(MESSAGE_TIMEOUT, self.stdin.write_all(message)).await;
    }
}
