//! Parts of an upload that the host sends itself: this machine only signs the requests and compares the answers.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use snapdeck_bucket::MultipartObject;
use snapdeck_host::{FileReader, Host, SentRange};
use snapdeck_model::settings::TransferRoute;
use snapdeck_model::{Digest, Error, Kind, Result};

use crate::context::Context;

/// Time for which a request is valid. It is sent at once.
const VALIDITY: Duration = Duration::from_secs(3600);
/// Parts that the host sends, or that wait for it: they take no memory on this machine, however long they are.
pub(crate) const MAX_PARTS: usize = 8;
/// Attempts of one part, and the delay after the first of them.
const MAX_ATTEMPTS: u32 = 5;
const MAX_FIRST_ATTEMPTS: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Characters of an entity tag that is an MD5 in hex.
const MD5_CHARS: usize = 32;

pub(crate) struct DirectUpload<'a> {
    host: &'a Host,
    multipart: &'a MultipartObject<'a>,
    ctx: &'a Context,
    /// Limits the parts at a time.
    slots: Arc<Semaphore>,
    /// Whether the host has got a request: it may send that, whatever it says.
    has_tried: AtomicBool,
    /// Whether the host has sent a part.
    has_sent: AtomicBool,
    /// Why the rest is sent by this machine, if it is.
    error: OnceLock<Error>,
}

impl<'a> DirectUpload<'a> {
    /// Returns whether the host sends what `reader` reads, by its settings.
    pub(crate) fn is_possible(host: &Host, reader: &FileReader) -> bool {
        host.settings().transfer != TransferRoute::Relay && reader.can_send()
    }

    /// Returns whether an earlier job has shown that the host cannot reach the bucket, and says so.
    pub(crate) fn is_known_to_fail(host: &Host, ctx: &Context) -> bool {
        let reason = ctx.relayed_hosts.reason(host);
        if let Some(reason) = &reason {
            ctx.info(format!(
                "uploading through this machine: {reason} (an earlier job)"
            ));
        }
        reason.is_some()
    }

    pub(crate) fn new(
        host: &'a Host,
        multipart: &'a MultipartObject<'a>,
        ctx: &'a Context,
    ) -> Self {
        ctx.info(format!("host {} uploads the parts itself", host.name()));
        Self {
            host,
            multipart,
            ctx,
            slots: Arc::new(Semaphore::new(MAX_PARTS)),
            has_tried: AtomicBool::new(false),
            has_sent: AtomicBool::new(false),
            error: OnceLock::new(),
        }
    }

    /// Returns whether the host has got a request.
    pub(crate) fn has_tried(&self) -> bool {
        self.has_tried.load(Relaxed)
    }

    /// Returns whether the host has not failed so far.
    pub(crate) fn is_working(&self) -> bool {
        self.error.get().is_none()
    }

    /// Waits until the host may get another part; `None` if it has failed: the parts are in memory then.
    pub(crate) async fn acquire_slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        self.is_working().then_some(slot)
    }

    /// Has the host send a part, these ranges of what `reader` reads; returns the digests of its blocks. `None` if this machine has to
    /// send it.
    ///
    /// # Errors
    /// `Cancelled`; the error of the host if no byte may pass through this machine.
    pub(crate) async fn send(
        &self,
        reader: &FileReader,
        index: u64,
        ranges: &[Range<u64>],
    ) -> Result<Option<Vec<Digest>>> {
        let sent = self.with_retries(|| self.try_send(reader, index, ranges));
        let sent = sent.await?;
        if sent.is_some() {
            self.has_sent.store(true, Relaxed);
            let bytes = ranges.iter().map(|range| range.end - range.start).sum();
            self.ctx.progress.add_direct(bytes);
        }
        Ok(sent)
    }

    /// Has the host hash ranges; returns the digest of each `piece_bytes` of them. `None` if this machine has to read them.
    ///
    /// # Errors
    /// As for [`DirectUpload::send`].
    pub(crate) async fn hash(
        &self,
        reader: &FileReader,
        ranges: &[Range<u64>],
        piece_bytes: u64,
    ) -> Result<Option<Vec<Digest>>> {
        // The digests decide what is sent.
        self.has_tried.store(true, Relaxed);
        self.with_retries(|| reader.hash_ranges(ranges, piece_bytes, &self.ctx.cancel))
            .await
    }

    /// Returns the result of `attempt`, of the last if the host has to try again; `None` if the host cannot do it, now or before.
    async fn with_retries<T, F: Future<Output = Result<T>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<Option<T>> {
        let mut attempts = 0;
        while self.error.get().is_none() {
            let error = match attempt().await {
                Ok(result) => return Ok(Some(result)),
                Err(error) => error,
            };
            self.ctx.check_cancelled()?;
            attempts += 1;
            // Fewer, if the host has never sent a part: it may not reach the store at all.
            let limit = match self.has_sent.load(Relaxed) || error.kind() == Kind::Unreachable {
                true => MAX_ATTEMPTS,
                false => MAX_FIRST_ATTEMPTS,
            };
            if error.is_retryable() && attempts < limit {
                tracing::debug!("{error}");
                let delay = tokio::time::sleep(RETRY_DELAY * attempts);
                let _ = self.ctx.cancel.run_until_cancelled(delay).await;
                continue;
            }
            if self.host.settings().transfer == TransferRoute::Direct {
                let hint =
                    "set transfer of the host to \"auto\" to upload the rest through this machine";
                return Err(match error.hint_text() {
                    Some(_) => error,
                    None => error.hint(hint),
                });
            }
            if !self.has_sent.load(Relaxed) {
                self.ctx.relayed_hosts.record(self.host, &error);
            }
            let message = format!("{error}; uploading the rest through this machine");
            if self.error.set(error).is_ok() {
                self.ctx.warn(message);
            }
        }
        Ok(None)
    }

    async fn try_send(
        &self,
        reader: &FileReader,
        index: u64,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Digest>> {
        self.ctx.check_cancelled()?;
        let endpoint = self.host.settings().bucket_endpoint.as_deref();
        let request = self.multipart.presign_part(index, endpoint, VALIDITY);
        let request = request.await?;
        self.has_tried.store(true, Relaxed);
        let sent = reader.send(&request, ranges, &self.ctx.cancel).await?;
        self.check_etag(&sent)?;
        let length = ranges.iter().map(|range| range.end - range.start).sum();
        self.multipart.add_sent_part(index, length, &sent.etag)?;
        Ok(sent.digests)
    }

    /// Fails if the store has received other bytes than the host has read: not every store checks `Content-MD5`.
    fn check_etag(&self, sent: &SentRange) -> Result<()> {
        let is_md5 = sent.etag.len() == MD5_CHARS && !sent.is_encrypted;
        if !is_md5 || sent.etag.eq_ignore_ascii_case(&sent.md5) {
            return Ok(());
        }
        let summary = format!("cannot upload a part from host {}", self.host.name());
        Err(Error::new(Kind::Failed, summary)
            .with_cause("the store has received other bytes than the host has read")
            .hint("check the network between the host and the store")
            .retryable())
    }
}
