//! Downloads that a remote host makes itself, so that the bytes do not pass through this machine.
//!
//! `curl` on the host gets a presigned request on its stdin: neither a key nor a URL is in an argument, a variable of the
//! environment or a file there.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::FutureExt;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::blocks::{BlockCopy, BlockSender, BlockState};
use super::errors::system_error;
use super::file_session::OpenInfo;
use super::remote::RemoteFs;
use super::remote_handles::RemoteWriter;
use super::session_commands::send_heartbeats;
use crate::command::{CommandRunner, bounded_lines, read_text};
use snapdeck_model::{
    BLOCK_BYTES, Digest, Error, Kind, PresignedRequest, Result, printable_within,
};

/// For one block: curl gives up after 60 s without a byte.
pub(super) const BLOCK_TIMEOUT: Duration = Duration::from_secs(600);
/// For sending the request to the host.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a line of the output.
const MAX_LINE_BYTES: u64 = 1024;
/// For a request that is only tried.
const TRY_TIMEOUT: Duration = Duration::from_secs(40);
/// Characters of a text of the store or of curl.
const MAX_TEXT_CHARS: usize = 200;
/// Characters of a status in a message.
const MAX_STATUS_CHARS: usize = 40;
/// Exit statuses of curl for a connection that failed, was cut, or stalled (curl(1), "EXIT CODES").
const CONNECTION_ERRORS: [&str; 7] = ["7", "18", "28", "35", "52", "55", "56"];
/// The message of the script.
const NO_CURL: &str = "curl is not installed";
/// The status of a range (RFC 9110, section 15.3.7), and the exit status of curl after it.
const SUCCESS: &str = "206 0";

impl RemoteWriter {
    /// Has the host download `blocks`; as [`WriteFile::download`](super::WriteFile::download).
    pub(super) async fn download_blocks(
        &self,
        request: &PresignedRequest,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let bytes = blocks.iter().map(|block| block.size_bytes).sum();
        let lane = async {
            let lane = self.fs.runner.ssh()?.acquire_lane().await;
            self.fs.runner.limit_rate(bytes).await;
            lane
        };
        let Some(_lane) = cancel.run_until_cancelled(lane).await else {
            return Err(Error::cancelled("the download"));
        };
        let download = move |info: OpenInfo| {
            let work = async move {
                let download = self.run_download(&info, request, blocks, results, cancel);
                download.await.inspect_err(|_| {
                    cancel.cancel();
                    // Curl itself keeps the limit.
                    self.fs.runner.give_back_rate(bytes);
                })
            };
            work.boxed()
        };
        self.run_beside(download).await
    }

    async fn run_download(
        &self,
        info: &OpenInfo,
        request: &PresignedRequest,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let (path, runner) = (self.file.path(), &self.fs.runner);
        let summary = format!("cannot download to {path} on host {}", runner.host());
        let numbers = blocks
            .iter()
            .flat_map(|block| [block.target, block.size_bytes]);
        let numbers: Vec<String> = std::iter::once(BLOCK_BYTES)
            .chain(numbers)
            .map(|number| number.to_string())
            .collect();
        let args = [&*info.descriptor, &*info.inode].into_iter();
        let args: Vec<&str> = args.chain(numbers.iter().map(String::as_str)).collect();
        let mut running = self.start_beside("download", &args).await?;
        let stderr = running.stderr();
        let (Some(stdin), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(Error::new(Kind::Failed, summary));
        };
        // One for each block and each request.
        let lines_limit = MAX_LINE_BYTES * (2 * blocks.len() as u64 + 1);
        let mut lines = bounded_lines(stdout, lines_limit);
        let timeout_error = |_| {
            Error::new(Kind::Unreachable, &*summary)
                .with_cause(format!("no answer for {} s", BLOCK_TIMEOUT.as_secs()))
                .retryable()
        };
        let receive = async {
            let (mut remaining, mut failure) = (blocks.iter(), None);
            while let Some(line) = timeout(BLOCK_TIMEOUT, lines.next_line())
                .await
                .map_err(timeout_error)?
                .unwrap_or_default()
            {
                if let Some(status) = line.strip_prefix("http ") {
                    if status != SUCCESS && failure.is_none() {
                        failure = Some(status.to_owned());
                    }
                    continue;
                }
                let (Some(block), Some(digest)) = (remaining.next(), Digest::from_hex(&line))
                else {
                    return Err(Error::new(Kind::Failed, &*summary).with_cause(format!(
                        "unexpected output of sha256sum: {:?}",
                        printable_within(&line, MAX_STATUS_CHARS)
                    )));
                };
                let _ = results.send((*block, BlockState::Hashed(digest)));
            }
            Ok((remaining.next().is_none(), failure))
        };
        let received = tokio::select! {
            received = receive => received,
            never = send_request(stdin, request, runner) => match never {},
            () = cancel.cancelled() => Err(Error::cancelled("the download")),
        };
        let (is_complete, failure) = match received {
            Ok(received) => received,
            Err(error) => {
                // Without its input the host kills all that it has started.
                running.terminate().await;
                return Err(error);
            }
        };
        let exit = async { tokio::join!(read_text(stderr), runner.wait(&mut running)) };
        let (message, status) = timeout(BLOCK_TIMEOUT, exit).await.map_err(timeout_error)?;
        let is_success = status?.success();
        match failure {
            None if is_success && is_complete => Ok(()),
            // It was killed, without heartbeats, or the session of the file is gone.
            None => Err(match system_error(summary, &message) {
                error if error.kind() == Kind::NoSpace => error,
                error => error.retryable(),
            }),
            // More than the range came.
            Some(failure) if failure.starts_with("200 ") => Err(Error::new(Kind::Failed, summary)
                .with_cause("the store answered 200 to a request for a range")),
            Some(failure) => Err(request_error(summary, &failure, &message)),
        }
    }
}

/// The answer of a store to a request that a host has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAnswer {
    /// The first line of `curl --version`; `None` if it is not installed.
    pub curl: Option<String>,
    /// HTTP status; 0 without an answer.
    pub status: u16,
    /// Code of the error in the answer (S3 API, "Error responses").
    pub code: Option<String>,
    /// The message of curl.
    pub error: Option<String>,
}

impl HostAnswer {
    /// Parses the output of the script's `try_request`.
    fn parse(output: &str) -> Self {
        let (curl, answer) = output.split_once('\n').unwrap_or_default();
        let text = |text: &str| printable_within(text, MAX_TEXT_CHARS);
        let code = answer
            .split_once("<Code>")
            .and_then(|(_, rest)| rest.split_once("</Code>"));
        let error = answer.lines().find(|line| line.starts_with("curl: "));
        let status = answer.trim_end().lines().next_back().unwrap_or_default();
        Self {
            curl: (!curl.is_empty()).then(|| text(curl)),
            status: status.parse().unwrap_or(0),
            code: code.map(|(code, _)| text(code)),
            error: error.map(text),
        }
    }
}

impl RemoteFs {
    /// Has the host send a request; as [`HostFs::try_request`](super::HostFs::try_request).
    pub(super) async fn send_from_host(&self, request: &PresignedRequest) -> Result<HostAnswer> {
        let argv = self.argv("try_request", &[]);
        let config = curl_config(request, None);
        let output = self
            .runner
            .run_with_input(&argv, config.as_bytes(), TRY_TIMEOUT);
        let output = output.await?;
        Ok(HostAnswer::parse(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Sends the request, then heartbeats, as long as it is not dropped.
pub(super) async fn send_request(
    mut stdin: ChildStdin,
    request: &PresignedRequest,
    runner: &CommandRunner,
) -> Infallible {
    // An error ends the command, which shows in its output.
    let config = curl_config(request, runner.max_bytes_per_sec());
    match timeout(SEND_TIMEOUT, stdin.write_all(config.as_bytes())).await {
        Ok(Ok(())) => {}
        // Without heartbeats the host ends it.
        _ => std::future::pending().await,
    }
    send_heartbeats(&mut stdin).await
}

/// Returns the request as options of curl(1), ended by an empty line.
pub(super) fn curl_config(request: &PresignedRequest, max_bytes_per_sec: Option<u64>) -> String {
    let mut config = format!("url = {}\n", quote(&request.url));
    if let Some(limit) = max_bytes_per_sec {
        config.push_str(&format!("limit-rate = {limit}\n"));
    }
    for (name, value) in &request.headers {
        let header = quote(&format!("{name}: {value}"));
        config.push_str(&format!("header = {header}\n"));
    }
    config + "\n"
}

/// Quotes a value of curl's configuration; other characters that it knows by an escape cannot be in a request.
fn quote(text: &str) -> String {
    let text: String = text.chars().filter(|char| !char.is_control()).collect();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns the error of a request with `status`: those of HTTP and of curl. Another attempt may succeed after errors of the
/// connection, of a busy store, and of a request that has expired.
pub(super) fn request_error(summary: String, status: &str, message: &str) -> Error {
    // A full or bad disk ends the command that writes, and curl with it.
    if let Some(disk) = message.lines().find(|line| line.starts_with("dd: ")) {
        return system_error(summary, disk);
    }
    let line = message.lines().rfind(|line| line.starts_with("curl: "));
    let cause = match line {
        Some(line) => line.to_owned(),
        None => format!(
            "the store answered {}",
            printable_within(status, MAX_STATUS_CHARS)
        ),
    };
    let error = Error::new(Kind::Failed, summary).with_cause(cause);
    let (http, exit) = status.split_once(' ').unwrap_or_default();
    let is_busy = http == "429" || http.starts_with('5');
    // It may have expired: another one is signed.
    let is_expired = http == "403";
    match is_busy || is_expired || CONNECTION_ERRORS.contains(&exit) {
        true => error.retryable(),
        false => error,
    }
}

/// Returns whether a request of a host has failed because curl is not installed, or got no answer of the store: as for another object.
pub fn is_without_answer(error: &Error) -> bool {
    let message = error.message();
    // 22: the status of the store is an error.
    message.contains(NO_CURL) || (message.contains("curl: ") && !message.contains("curl: (22)"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_is_quoted_for_curl() {
        let request = PresignedRequest {
            url: "https://s3/b/k?X-Amz-Signature=a%22b".into(),
            headers: vec![("If-Match".into(), "\"a\\b\"\nurl = x".into())],
        };
        assert_eq!(
            curl_config(&request, None),
            "url = \"https://s3/b/k?X-Amz-Signature=a%22b\"\n\
             header = \"If-Match: \\\"a\\\\b\\\"url = x\"\n\n"
        );
        let limited = curl_config(&request, Some(1 << 20));
        assert!(limited.contains("\nlimit-rate = 1048576\n"), "{limited}");
        assert_eq!(format!("{request:?}"), "PresignedRequest { .. }");
    }

    #[test]
    fn an_answer_has_the_status_in_its_last_line() {
        let answer = HostAnswer::parse("curl 7.88.1\n<Error><Code>NoSuchKey</Code></Error>\n404\n");
        assert_eq!(
            (answer.status, answer.code.as_deref()),
            (404, Some("NoSuchKey"))
        );
        assert_eq!(
            (answer.curl.as_deref(), answer.error),
            (Some("curl 7.88.1"), None)
        );
        let answer = HostAnswer::parse("\nsh: curl: not found\n");
        assert_eq!((answer.curl, answer.status), (None, 0));
        let answer = HostAnswer::parse("curl 8\ncurl: (7) Failed to connect\n\n000\n");
        assert_eq!(answer.error.as_deref(), Some("curl: (7) Failed to connect"));
    }

    #[test]
    fn the_message_of_curl_is_the_cause() {
        let error = |status, message| request_error("cannot".into(), status, message).message();
        assert!(error("000 7", "x\ncurl: (7) Connection refused\n").contains("(7) Connection"));
        assert!(error("200 23", "").contains("the store answered 200 23"));
        let full = "dd: error writing: No space left on device\ncurl: (23) Failure writing";
        assert_eq!(
            request_error("cannot".into(), "206 23", full).kind(),
            Kind::NoSpace
        );
        let is_retryable = |status| request_error("cannot".into(), status, "").is_retryable();
        assert!(is_retryable("503 22") && is_retryable("206 18") && is_retryable("000 7"));
        assert!(is_retryable("403 22"));
        let is_without_answer = |status, message| {
            super::is_without_answer(&request_error("cannot".into(), status, message))
        };
        assert!(is_without_answer("000 7", "curl: (7) Connection refused"));
        assert!(is_without_answer(
            "000 2",
            "curl: option --proto: is unknown"
        ));
        assert!(!is_without_answer(
            "404 22",
            "curl: (22) The requested URL returned error: 404"
        ));
        assert!(!is_without_answer("200 23", ""));
        assert!(!is_retryable("404 22") && !is_retryable("412 22") && !is_retryable("000 60"));
    }
}
