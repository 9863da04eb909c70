//! Downloads of a pull that the host makes itself: this machine only signs the requests and checks the digests.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use humansize::{BINARY, format_size};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use snapdeck_bucket::Bucket;
use snapdeck_host::{BlockCopy, BlockState, FileWriter};
use snapdeck_model::settings::TransferRoute;
use snapdeck_model::{BlockSet, Error, Kind, Result};

use crate::image_source::ImageSource;
use crate::job::PullJob;

/// Downloads of one host at a time.
const MAX_LANES: usize = 4;
/// Blocks of one signed request, at most: 256 MiB.
const BLOCKS_PER_REQUEST: usize = 32;
/// Time for which a request is valid. A host that is slower than 256 MiB an hour downloads the rest through this machine.
const VALIDITY: Duration = Duration::from_secs(3600);

/// Attempts in a row without a new block, and the delay before the first of them.
const MAX_STALLS: u32 = 4;
const STALL_DELAY: Duration = Duration::from_secs(1);

/// Blocks that a host downloads itself.
pub(crate) struct DirectDownload<'a> {
    job: PullJob<'a>,
    bucket: &'a Bucket,
    writer: &'a FileWriter,
    pub blocks: BlockSet,
    /// Attempts before this one that all ended without a new block.
    stalls: u32,
    /// Whether an attempt has downloaded a block.
    has_progressed: bool,
    /// The error that has ended it, if any.
    error: OnceLock<Error>,
}

impl<'a> DirectDownload<'a> {
    /// Returns `None` if there is nothing to download, or the bytes have to pass through this machine: by the settings, for
    /// a host that is this machine, and for an object whose digests are unknown.
    pub(crate) fn new(job: PullJob<'a>, writer: &'a FileWriter, blocks: &BlockSet) -> Option<Self> {
        let ImageSource::Bucket(bucket) = job.from else {
            return None;
        };
        let is_relayed = job.host.settings().transfer == TransferRoute::Relay;
        if is_relayed || blocks.is_empty() || !writer.can_download() {
            return None;
        }
        if job.source.manifest.is_none() {
            job.ctx.info(
                "downloading through this machine: nothing else shows that the bytes are right",
            );
            return None;
        }
        Some(Self {
            job,
            bucket,
            writer,
            blocks: blocks.clone(),
            stalls: 0,
            has_progressed: false,
            error: OnceLock::new(),
        })
    }

    /// Has the host download the blocks, and sends the digest of each. What fails is not sent.
    ///
    /// # Errors
    /// `Cancelled` and `NoSpace`; all others are only logged.
    pub(crate) async fn run(
        &self,
        block_tx: UnboundedSender<(BlockCopy, BlockState)>,
    ) -> Result<()> {
        let PullJob {
            host, source, ctx, ..
        } = self.job;
        if self.stalls > 0 {
            let delay = tokio::time::sleep(STALL_DELAY * self.stalls);
            let _ = ctx.cancel.run_until_cancelled(delay).await;
        }
        let size = format_size(self.blocks.bytes(), BINARY);
        ctx.info(format!("host {} downloads {size} itself", host.name()));
        let all: Vec<BlockCopy> = self
            .blocks
            .iter()
            .map(|block| BlockCopy {
                source: block,
                target: block,
                size_bytes: source.block_bytes(block),
            })
            .collect();
        // A download that fails ends the others, each in order: none writes to the file any more afterwards.
        let end = &ctx.cancel.child_token();
        let lane = all.len().div_ceil(MAX_LANES).clamp(1, BLOCKS_PER_REQUEST);
        let downloads: Vec<BoxFuture<'_, Result<()>>> = all
            .chunks(lane)
            .map(|blocks| self.download(blocks, &block_tx, end).boxed())
            .collect();
        let downloads = stream::iter(downloads).buffer_unordered(MAX_LANES);
        let results: Vec<Result<()>> = downloads.collect().await;
        ctx.check_cancelled()?;
        let mut errors = results.into_iter().filter_map(Result::err);
        let error = errors.find(|error| error.kind() != Kind::Cancelled);
        match error {
            Some(error) if error.kind() == Kind::NoSpace => return Err(error),
            Some(error) => {
                ctx.warn(error.to_string());
                let _ = self.error.set(error);
            }
            None => {}
        }
        Ok(())
    }

    /// Returns the download of what is `missing` after this one; `None` if the host cannot download it: blocks were wrong
    /// several times, or a request failed in a way that another attempt does not change.
    pub(crate) fn again(&self, missing: &BlockSet) -> Option<Self> {
        // Blocks of another snapshot that were wrong.
        let has_others = missing.iter().any(|block| !self.blocks.contains(block));
        let has_progressed = self.has_progressed || missing.len() < self.blocks.len();
        let stalls = match missing.len() < self.blocks.len() {
            true => 0,
            false => self.stalls + 1,
        };
        let may_help = match self.error.get() {
            None => self.stalls == 0,
            Some(error) if error.kind() == Kind::Unreachable => true,
            // Once more, if the host has never got a block: it may not reach the store at all.
            Some(error) => error.is_retryable() && (has_progressed || stalls == 1),
        };
        let can_go_on = has_others || (may_help && stalls <= MAX_STALLS);
        let next = can_go_on.then(|| Self::new(self.job, self.writer, missing));
        next.flatten().map(|next| Self {
            stalls,
            has_progressed,
            ..next
        })
    }

    /// Fails if no byte may pass through this machine.
    ///
    /// # Errors
    /// The error of the download; `Failed` if blocks are wrong.
    pub(crate) fn refuse_relay(&self, missing: &BlockSet) -> Result<()> {
        let (host, name) = (self.job.host, &self.job.source.object.name);
        if host.settings().transfer != TransferRoute::Direct {
            return Ok(());
        }
        let hint = "set transfer of the host to \"auto\" to download the rest through this machine";
        Err(match self.error.get() {
            Some(error) if error.hint_text().is_some() => error.clone(),
            Some(error) => error.clone().hint(hint),
            None => {
                let size = format_size(missing.bytes(), BINARY);
                let summary = format!("cannot pull {name} to host {}", host.name());
                Error::new(Kind::Failed, summary)
                    .with_cause(format!(
                        "it could not download {size} itself: the bytes are wrong"
                    ))
                    .hint(hint)
            }
        })
    }

    async fn download(
        &self,
        blocks: &[BlockCopy],
        block_tx: &UnboundedSender<(BlockCopy, BlockState)>,
        end: &CancellationToken,
    ) -> Result<()> {
        let work = async {
            if end.is_cancelled() {
                return Err(Error::cancelled("the download"));
            }
            let endpoint = self.job.host.settings().bucket_endpoint.as_deref();
            let object = &self.job.source.object;
            let signed = self.bucket.presign_download(object, endpoint, VALIDITY);
            let request = signed.await?;
            self.writer.download(&request, blocks, block_tx, end).await
        };
        let result = work.await;
        if result.is_err() {
            end.cancel();
        }
        result
    }
}
