//! Uploads that a remote host makes itself, so that the bytes do not pass through this machine.
//!
//! As for a download, `curl` on the host gets a presigned request on its stdin. The store compares the MD5 of the part, which
//! the host has computed, with what it received (RFC 1864).

use std::ops::Range;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::download::{BLOCK_TIMEOUT, request_error, send_request};
use super::errors::system_error;
use super::file_session::OpenInfo;
use super::remote::script_argv;
use super::remote_file::RemoteFile;
use super::session_commands::send_heartbeats;
use crate::command::{Input, bounded_lines, read_text};
use snapdeck_model::{
    BLOCK_BYTES, Digest, Error, Kind, PresignedRequest, Result, printable_within,
};

/// Bytes of a line of the output.
const MAX_LINE_BYTES: u64 = 1024;
/// Lines beside those of the blocks.
const MAX_OTHER_LINES: u64 = 16;
/// Bytes of an entity tag.
const MAX_TAG_BYTES: usize = 256;
/// Characters of an unexpected line in a message.
const MAX_TEXT_CHARS: usize = 40;
/// The status of a part that was stored (S3 API, UploadPart), and the exit status of curl after it.
const SUCCESS: &str = "200 0";

/// Ranges of a file that a host has sent, as one part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SentRange {
    /// Digests of its blocks, as the host has read them.
    pub digests: Vec<Digest>,
    /// MD5 of the part in hex, as the host has read it.
    pub md5: String,
    /// Entity tag in the answer of the store.
    pub etag: String,
    /// Whether the store has encrypted the part with a key for which the entity tag is not the MD5.
    pub is_encrypted: bool,
}

/// The output of the script's `upload` and `hash_ranges`.
#[derive(Default)]
struct Output {
    sent: SentRange,
    /// Whether all bytes were hashed.
    has_read: bool,
    status: String,
}

impl Output {
    /// Takes a line; returns whether it is one of those that are expected.
    fn take(&mut self, line: &str) -> bool {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim();
        match &*name.to_ascii_lowercase() {
            "read" => self.has_read = true,
            "md5" => self.sent.md5 = value.to_owned(),
            "etag:" => self.sent.etag = value.trim_matches('"').to_owned(),
            "x-amz-server-side-encryption:" => self.sent.is_encrypted |= value != "AES256",
            "x-amz-server-side-encryption-customer-algorithm:" => self.sent.is_encrypted = true,
            "http" => self.status = value.to_owned(),
            name if name.starts_with("x-amz-server-side-encryption") => {}
            _ => match Digest::from_hex(line) {
                Some(digest) => self.sent.digests.push(digest),
                None => return false,
            },
        }
        true
    }

    /// Returns whether it has the digest of each piece of `ranges`.
    fn is_complete(&self, ranges: &[Range<u64>], piece_bytes: u64) -> bool {
        let pieces = total_bytes(ranges).div_ceil(piece_bytes);
        self.has_read && self.sent.digests.len() as u64 == pieces
    }
}

impl RemoteFile {
    /// Has the host send ranges; as [`ReadFile::send`](super::ReadFile::send).
    pub(super) async fn send_ranges(
        &self,
        request: &PresignedRequest,
        ranges: &[Range<u64>],
        cancel: &CancellationToken,
    ) -> Result<SentRange> {
        let send = |file| {
            let upload = async move {
                let (runner, bytes) = (self.runner(), total_bytes(ranges));
                runner.limit_rate(bytes).await;
                let sent = self.run_upload(file, request, ranges).await;
                sent.inspect_err(|_| runner.give_back_rate(bytes))
            };
            upload.boxed()
        };
        self.run_in_lane("the upload", cancel, send).await
    }

    /// Has the host hash ranges; as [`ReadFile::hash_ranges`](super::ReadFile::hash_ranges).
    pub(super) async fn hash_file_ranges(
        &self,
        ranges: &[Range<u64>],
        piece_bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<Vec<Digest>> {
        let hash = |file| self.run_hash(file, ranges, piece_bytes).boxed();
        self.run_in_lane("hashing", cancel, hash).await
    }

    /// Runs `command` on the open file in one of the host's lanes.
    async fn run_in_lane<'a, T>(
        &'a self,
        what: &str,
        cancel: &CancellationToken,
        command: impl FnOnce(OpenInfo) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let work = async {
            let _lane = match self.runner().ssh() {
                Some(ssh) => ssh.acquire_lane().await,
                None => None,
            };
            let session = self.session().await?;
            let result = command(session.open_info.clone()).await;
            Ok((session, result))
        };
        // Without its input the host kills all that it has started.
        let Some(done) = cancel.run_until_cancelled(work).await else {
            return Err(Error::cancelled(what));
        };
        let (session, result) = done?;
        if result.is_err() {
            // It may be gone with the connection.
            self.discard_session(&session).await;
        }
        result
    }

    async fn run_hash(
        &self,
        file: OpenInfo,
        ranges: &[Range<u64>],
        piece_bytes: u64,
    ) -> Result<Vec<Digest>> {
        let summary = format!(
            "cannot hash {} on host {}",
            self.path(),
            self.runner().host()
        );
        let output =
            self.run_on_ranges(&file, ("hash_ranges", &summary), ranges, piece_bytes, None);
        let (output, is_success, message) = output.await?;
        match is_success && output.is_complete(ranges, piece_bytes) {
            true => Ok(output.sent.digests),
            false => Err(system_error(summary, &message).retryable()),
        }
    }

    async fn run_upload(
        &self,
        file: OpenInfo,
        request: &PresignedRequest,
        ranges: &[Range<u64>],
    ) -> Result<SentRange> {
        let summary = format!(
            "cannot upload {} from host {}",
            self.path(),
            self.runner().host()
        );
        let verb = ("upload", &*summary);
        let output = self.run_on_ranges(&file, verb, ranges, BLOCK_BYTES, Some(request));
        let (output, is_success, message) = output.await?;
        let is_complete = output.is_complete(ranges, BLOCK_BYTES);
        let Output { sent, status, .. } = output;
        // It is kept until the upload is completed.
        let is_tag = (1..=MAX_TAG_BYTES).contains(&sent.etag.len())
            && sent.etag.bytes().all(|byte| byte.is_ascii_graphic());
        match &*status {
            SUCCESS if is_success && is_complete && is_tag => Ok(sent),
            // It was killed, without heartbeats, or the session of the file is gone.
            SUCCESS | "" => Err(system_error(summary, &message).retryable()),
            // The store may have received other bytes than those of the MD5 (S3 API, "BadDigest").
            status if status.starts_with("400 ") => {
                Err(request_error(summary, status, &message).retryable())
            }
            status => Err(request_error(summary, status, &message)),
        }
    }

    /// Runs a verb of the script on ranges of the file, with `request` or only heartbeats as its input; returns its output, whether it
    /// has succeeded, and its message.
    async fn run_on_ranges(
        &self,
        file: &OpenInfo,
        (verb, summary): (&str, &str),
        ranges: &[Range<u64>],
        piece_bytes: u64,
        request: Option<&PresignedRequest>,
    ) -> Result<(Output, bool, String)> {
        let runner = self.runner();
        let numbers = ranges
            .iter()
            .flat_map(|range| [range.start, range.end - range.start]);
        let numbers: Vec<String> = std::iter::once(piece_bytes)
            .chain(numbers)
            .map(|number| number.to_string())
            .collect();
        let args = [&*file.descriptor, &*file.inode].into_iter();
        let args: Vec<&str> = args.chain(numbers.iter().map(String::as_str)).collect();
        let script = script_argv(verb, self.owner(), None, &args);
        // It leads its own process group, which it kills with all that it has started.
        let argv = [&["setsid", "--wait"][..], &script].concat();
        let mut running = runner.start(&argv, Input::Piped).await?;
        let stderr = running.stderr();
        let (Some(mut stdin), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(Error::new(Kind::Failed, summary));
        };
        let timeout_error = |_| {
            Error::new(Kind::Unreachable, summary)
                .with_cause(format!("no answer for {} s", BLOCK_TIMEOUT.as_secs()))
                .retryable()
        };
        let lines_limit = total_bytes(ranges).div_ceil(piece_bytes) + MAX_OTHER_LINES;
        let mut lines = bounded_lines(stdout, MAX_LINE_BYTES * lines_limit);
        let mut output = Output::default();
        let receive = async {
            while let Some(line) = timeout(BLOCK_TIMEOUT, lines.next_line())
                .await
                .map_err(timeout_error)?
                .unwrap_or_default()
            {
                if !output.take(&line) {
                    let line = printable_within(&line, MAX_TEXT_CHARS);
                    return Err(Error::new(Kind::Failed, summary)
                        .with_cause(format!("unexpected output of the host: {line:?}")));
                }
            }
            let exit = async { tokio::join!(read_text(stderr), runner.wait(&mut running)) };
            timeout(BLOCK_TIMEOUT, exit).await.map_err(timeout_error)
        };
        let input = async {
            match request {
                Some(request) => send_request(stdin, request, runner).await,
                None => send_heartbeats(&mut stdin).await,
            }
        };
        let (message, exit) = tokio::select! {
            received = receive => received?,
            never = input => match never {},
        };
        Ok((output, exit?.success(), message))
    }
}

fn total_bytes(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_store_is_parsed() {
        let mut output = Output::default();
        let lines = [
            "1".repeat(64),
            "read".to_owned(),
            "md5 900150983cd24fb0d6963f7d28e17f72".to_owned(),
            "ETag: \"900150983cd24fb0d6963f7d28e17f72\"".to_owned(),
            "x-amz-server-side-encryption: AES256".to_owned(),
            "http 200 0".to_owned(),
        ];
        assert!(lines.iter().all(|line| output.take(line)));
        assert_eq!(output.status, SUCCESS);
        assert_eq!(output.sent.etag, output.sent.md5);
        let part = 7..BLOCK_BYTES;
        assert!(output.is_complete(std::slice::from_ref(&part), BLOCK_BYTES));
        assert!(!output.is_complete(&[part.clone(), part], BLOCK_BYTES));
        assert!(!output.sent.is_encrypted);
        assert!(output.take("x-amz-server-side-encryption: aws:kms"));
        assert!(output.sent.is_encrypted);
        assert!(!output.take("<html>"));
        let mut cut = Output::default();
        assert!(cut.take(&"1".repeat(64)));
        assert!(!cut.is_complete(std::slice::from_ref(&(0..1)), BLOCK_BYTES));
    }
}
