//! Uploads that a remote host makes itself, so that the bytes do not pass through this machine.
//!
//! As for a download, `curl` on the host gets a presigned request on its stdin. The store compares the MD5 of the range, which
//! the host has computed, with what it received (RFC 1864).

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::download::{BLOCK_TIMEOUT, request_error, send_request};
use super::errors::system_error;
use super::file_session::OpenInfo;
use super::remote::script_argv;
use super::remote_file::RemoteFile;
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

/// A range of a file that a host has sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SentRange {
    /// Digests of its blocks, as the host has read them.
    pub digests: Vec<Digest>,
    /// MD5 of the range in hex, as the host has read it.
    pub md5: String,
    /// Entity tag in the answer of the store.
    pub etag: String,
    /// Whether the store has encrypted the range with a key for which the entity tag is not the MD5.
    pub is_encrypted: bool,
}

/// The output of the script's `upload`.
#[derive(Default)]
struct Output {
    sent: SentRange,
    status: String,
}

impl Output {
    /// Takes a line; returns whether it is one of those that are expected.
    fn take(&mut self, line: &str) -> bool {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim();
        match &*name.to_ascii_lowercase() {
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
}

impl RemoteFile {
    /// Has the host send a range; as [`ReadFile::send`](super::ReadFile::send).
    pub(super) async fn send_range(
        &self,
        request: &PresignedRequest,
        range: (u64, u64),
        cancel: &CancellationToken,
    ) -> Result<SentRange> {
        let work = async {
            let _lane = match self.runner().ssh() {
                Some(ssh) => ssh.acquire_lane().await,
                None => None,
            };
            self.runner().limit_rate(range.1).await;
            let session = self.session().await?;
            let result = self.run_upload(&session.open_info, request, range).await;
            Ok((session, result))
        };
        // Without its input the host kills all that it has started.
        let Some(done) = cancel.run_until_cancelled(work).await else {
            return Err(Error::cancelled("the upload"));
        };
        let (session, result) = done?;
        if result.is_err() {
            // It may be gone with the connection.
            self.discard_session(&session).await;
        }
        result
    }

    async fn run_upload(
        &self,
        file: &OpenInfo,
        request: &PresignedRequest,
        (offset, length): (u64, u64),
    ) -> Result<SentRange> {
        let runner = self.runner();
        let summary = format!("cannot upload {} from host {}", self.path(), runner.host());
        let numbers = [BLOCK_BYTES, offset, length].map(|number| number.to_string());
        let [block, offset, bytes] = &numbers;
        let args = [&*file.descriptor, &*file.inode, block, offset, bytes];
        let script = script_argv("upload", self.owner(), None, &args);
        // It leads its own process group, which it kills with all that it has started.
        let argv = [&["setsid", "--wait"][..], &script].concat();
        let mut running = runner.start(&argv, Input::Piped).await?;
        let stderr = running.stderr();
        let (Some(stdin), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return Err(Error::new(Kind::Failed, summary));
        };
        let timeout_error = |_| {
            Error::new(Kind::Unreachable, &*summary)
                .with_cause(format!("no answer for {} s", BLOCK_TIMEOUT.as_secs()))
                .retryable()
        };
        let blocks = length.div_ceil(BLOCK_BYTES);
        let mut lines = bounded_lines(stdout, MAX_LINE_BYTES * (blocks + MAX_OTHER_LINES));
        let mut output = Output::default();
        let receive = async {
            while let Some(line) = timeout(BLOCK_TIMEOUT, lines.next_line())
                .await
                .map_err(timeout_error)?
                .unwrap_or_default()
            {
                if !output.take(&line) {
                    let line = printable_within(&line, MAX_TEXT_CHARS);
                    return Err(Error::new(Kind::Failed, &*summary)
                        .with_cause(format!("unexpected output of the host: {line:?}")));
                }
            }
            let exit = async { tokio::join!(read_text(stderr), runner.wait(&mut running)) };
            timeout(BLOCK_TIMEOUT, exit).await.map_err(timeout_error)
        };
        let (message, exit) = tokio::select! {
            received = receive => received?,
            never = send_request(stdin, request, runner) => match never {},
        };
        let is_success = exit?.success();
        let Output { sent, status } = output;
        // It is kept until the upload is completed.
        let is_tag = (1..=MAX_TAG_BYTES).contains(&sent.etag.len())
            && sent.etag.bytes().all(|byte| byte.is_ascii_graphic());
        let is_complete = sent.digests.len() as u64 == blocks && is_tag;
        match &*status {
            SUCCESS if is_success && is_complete => Ok(sent),
            // It was killed, without heartbeats, or the session of the file is gone.
            SUCCESS | "" => Err(system_error(summary, &message).retryable()),
            // The store may have received other bytes than those of the MD5 (S3 API, "BadDigest").
            status if status.starts_with("400 ") => {
                Err(request_error(summary, status, &message).retryable())
            }
            status => Err(request_error(summary, status, &message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_store_is_parsed() {
        let mut output = Output::default();
        let lines = [
            "1".repeat(64),
            "md5 900150983cd24fb0d6963f7d28e17f72".to_owned(),
            "ETag: \"900150983cd24fb0d6963f7d28e17f72\"".to_owned(),
            "x-amz-server-side-encryption: AES256".to_owned(),
            "http 200 0".to_owned(),
        ];
        assert!(lines.iter().all(|line| output.take(line)));
        assert_eq!(output.status, SUCCESS);
        assert_eq!(output.sent.etag, output.sent.md5);
        assert_eq!(output.sent.digests.len(), 1);
        assert!(!output.sent.is_encrypted);
        assert!(output.take("x-amz-server-side-encryption: aws:kms"));
        assert!(output.sent.is_encrypted);
        assert!(!output.take("<html>"));
    }
}
