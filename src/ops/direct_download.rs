//! Downloads of a pull that the host makes itself: this machine only signs the requests and checks the digests.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use humansize::{BINARY, format_size};
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use snapdeck_bucket::Bucket;
use snapdeck_host::{BlockCopy, BlockState, FileWriter, Standby};
use snapdeck_model::settings::TransferRoute;
use snapdeck_model::{BlockSet, Error, Kind, PresignedRequest, Result};

use crate::image_source::ImageSource;
use crate::job::PullJob;

/// Downloads of one host at a time.
const MAX_LANES: usize = 4;
/// Blocks of one signed request, at most: 256 MiB.
const BLOCKS_PER_REQUEST: usize = 32;
/// Time for which a request is valid. A host that is slower than 256 MiB an hour downloads the rest through this machine.
const VALIDITY: Duration = Duration::from_secs(3600);

/// For which a request for an unattended download is valid beyond that.
const UNATTENDED_MARGIN: Duration = Duration::from_secs(15 * 60);
/// After which that request is replaced by a newer one.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// After which it is looked again whether there is such a process.
const STANDBY_START: Duration = Duration::from_millis(100);

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
    /// The process that continues when this machine is gone.
    standby: Mutex<Option<Standby>>,
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
        if let Some(reason) = job.ctx.relayed_hosts.reason(job.host) {
            job.ctx.info(format!(
                "downloading through this machine: {reason} (an earlier job)"
            ));
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
            standby: Mutex::default(),
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
            let delay = sleep(STALL_DELAY * self.stalls);
            let _ = ctx.cancel.run_until_cancelled(delay).await;
        }
        let recorded = match self.writer.recorded_blocks().await {
            Ok(recorded) => recorded,
            Err(error) => {
                let _ = self.error.set(error);
                return Ok(());
            }
        };
        let is_recorded = |block: &u64| {
            let digest = recorded.get(block);
            digest.is_some() && digest.copied() == source.digest(*block)
        };
        let size_bytes = self.blocks.size_bytes();
        let known = BlockSet::from_predicate(size_bytes, |block| {
            self.blocks.contains(block) && is_recorded(&block)
        });
        if !known.is_empty() {
            let size = format_size(known.bytes(), BINARY);
            ctx.info(format!(
                "host {} has downloaded {size} while it was unreachable",
                host.name()
            ));
        }
        for block in known.iter() {
            let copy = BlockCopy {
                source: block,
                target: block,
                size_bytes: source.block_bytes(block),
            };
            if let Some(digest) = recorded.get(&block) {
                let _ = block_tx.send((copy, BlockState::Hashed(*digest)));
            }
        }
        let size = format_size(self.blocks.bytes() - known.bytes(), BINARY);
        ctx.info(format!("host {} downloads {size} itself", host.name()));
        let all: Vec<BlockCopy> = self
            .blocks
            .iter()
            .filter(|block| !known.contains(*block))
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
        let downloads = downloads.collect::<Vec<Result<()>>>();
        *self.standby.lock().await = self.start_standby().await;
        let results = downloads.await;
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

    /// Ends the process that continues on the host, unless this process is about to end and a later one resumes the pull. A host
    /// that is out of reach does not learn of it, and continues.
    pub(crate) async fn end_standby(&self) {
        let standby = self.standby.lock().await.take();
        let ctx = self.job.ctx;
        let continues = ctx.cancel.is_cancelled() && (ctx.is_suspended)();
        if let Some(standby) = standby.filter(|_| !continues) {
            standby.dismiss().await;
        }
    }

    /// Starts the process that continues on the host when this machine is gone, if it is to.
    async fn start_standby(&self) -> Option<Standby> {
        let PullJob { host, ctx, .. } = self.job;
        let unattended = host.settings().unattended;
        if unattended.is_zero() {
            return None;
        }
        let start = async {
            let request = self.sign(unattended + UNATTENDED_MARGIN).await?;
            let job = format!("pull {} → {}", self.job.source.object.name, host.name());
            let standby = self.writer.start_standby(&request, unattended, &job);
            standby.await
        };
        // A download that fails says more.
        let started = ctx.cancel.run_until_cancelled(start).await?;
        let started = started.inspect_err(|error| {
            ctx.info(format!(
                "the download would end with this machine's connection: {error}"
            ));
        });
        started.ok()
    }

    /// Sends heartbeats to that process, once it runs, and newer requests.
    pub(crate) async fn keep_standby(&self) -> Infallible {
        loop {
            let mut standby = self.standby.lock().await;
            let Some(standby) = standby.as_mut() else {
                drop(standby);
                sleep(STANDBY_START).await;
                continue;
            };
            standby.keep(RENEWAL_INTERVAL).await;
            let valid_for = self.job.host.settings().unattended + UNATTENDED_MARGIN;
            match self.sign(valid_for).await {
                Ok(request) => standby.renew(&request).await,
                // The one before is valid for a while.
                Err(error) => tracing::debug!("{error}"),
            }
        }
    }

    async fn sign(&self, valid_for: Duration) -> Result<PresignedRequest> {
        let endpoint = self.job.host.settings().bucket_endpoint.as_deref();
        let object = &self.job.source.object;
        let signed = self.bucket.presign_download(object, endpoint, valid_for);
        signed.await
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
            let has_progressed = self.has_progressed || missing.len() < self.blocks.len();
            if let Some(error) = self.error.get().filter(|_| !has_progressed) {
                self.job.ctx.relayed_hosts.record(host, error);
            }
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
            let request = self.sign(VALIDITY).await?;
            self.writer.download(&request, blocks, block_tx, end).await
        };
        let result = work.await;
        if result.is_err() {
            end.cancel();
        }
        result
    }
}
