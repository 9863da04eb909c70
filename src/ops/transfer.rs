//! Writes the blocks of a pulled image, from the bucket and from the host's other snapshots.
//!
//! Each verified block is recorded beside the file, so that the next pull resumes an interrupted one.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use humansize::{BINARY, format_size};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use snapdeck_host::{BlockCopy, BlockState, CopySource, FileWriter};
use snapdeck_model::{BLOCK_BYTES, BlockSet, Digest, Error, Kind, Phase, Result, block_count};

use crate::context::Context;
use crate::direct_download::DirectDownload;
use crate::fetch::{FetchHandle, FetchedBlock, Message, Subscription};
use crate::hash_blocks::hash_written_blocks;
use crate::job::PullJob;
use crate::remote_object::RemoteObject;
use crate::transfer_plan::{TransferPlan, ZERO_BLOCK, is_mostly_in_place};

const MAX_CONCURRENT_WRITES: usize = 4;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Why a pull ended early.
pub(crate) struct TransferError {
    pub error: Error,
    /// Whether the host is unreachable: the partial file can be neither used nor removed.
    pub is_host_unreachable: bool,
    /// Whether written blocks may be lost.
    pub is_unsynced: bool,
}

impl TransferError {
    /// For a flush that failed.
    pub(crate) fn unsynced(error: Error) -> Self {
        Self {
            is_unsynced: true,
            ..error.into()
        }
    }
}

/// For errors of the host; those of the bucket leave the host reachable.
impl From<Error> for TransferError {
    fn from(error: Error) -> Self {
        Self {
            is_host_unreachable: error.kind() == Kind::Unreachable,
            is_unsynced: false,
            error,
        }
    }
}

/// Completed blocks of an image, and their sources.
pub(crate) struct TransferProgress {
    /// Digests of the complete blocks.
    digests: Vec<Option<Digest>>,
    /// Blocks that share the extents of another file and were not read.
    shared: BTreeSet<u64>,
    pub resumed_bytes: u64,
    pub copied_bytes: u64,
    pub fetched_bytes: u64,
}

impl TransferProgress {
    /// Returns the progress of an image of which no block is complete.
    pub(crate) fn empty(size_bytes: u64) -> Self {
        Self {
            digests: vec![None; block_count(size_bytes) as usize],
            shared: BTreeSet::new(),
            resumed_bytes: 0,
            copied_bytes: 0,
            fetched_bytes: 0,
        }
    }

    pub(crate) fn done_bytes(&self) -> u64 {
        self.resumed_bytes + self.copied_bytes + self.fetched_bytes
    }

    /// Returns the digests of all blocks if all are complete.
    pub(crate) fn digests(&self) -> Option<Vec<Digest>> {
        self.digests.iter().copied().collect()
    }

    fn missing_blocks(&self, size_bytes: u64) -> BlockSet {
        BlockSet::from_predicate(size_bytes, |block| {
            self.digests.get(block as usize).is_none_or(Option::is_none)
        })
    }

    fn clear(&mut self, block: u64) {
        if let Some(slot) = self.digests.get_mut(block as usize) {
            *slot = None;
        }
    }

    fn record(&mut self, block: u64, digest: Digest) {
        if let Some(slot) = self.digests.get_mut(block as usize) {
            *slot = Some(digest);
        }
    }
}

/// Carries out `plan` with `writer`.
///
/// Blocks are downloaded by `fetch_handle`, and by a download for this host alone if the shared one drops it or a block
/// of another snapshot does not match. `progress` is up to date in case of an error, too.
pub(crate) async fn run_transfer(
    job: PullJob<'_>,
    fetch_handle: FetchHandle,
    writer: &FileWriter,
    plan: TransferPlan,
    progress: &mut TransferProgress,
) -> Result<(), TransferError> {
    let (from, source, ctx) = (job.from, job.source, job.ctx);
    let total_bytes = source.object.size_bytes;
    for (block, digest) in plan.present {
        progress.record(block, digest);
        progress.resumed_bytes += source.block_bytes(block);
    }
    let resumed_bytes = progress.resumed_bytes;
    ctx.progress
        .resume(Phase::Downloading, total_bytes, resumed_bytes);
    let mut transfer = Transfer {
        source,
        writer,
        ctx,
        progress,
        // Without blocks of an earlier pull the file was created or truncated.
        is_empty: writer.pull_dir().is_some() && writer.resume_state().blocks.is_empty(),
        direct_blocks: None,
        pending_records: FuturesUnordered::new(),
    };
    let mut copies = transfer.share_extents(plan.copies).await?;
    transfer.fill_zeros(&plan.zeros).await?;
    let mut direct = DirectDownload::new(job, writer, &plan.to_fetch);
    // Kept for what this host cannot download itself: hosts of which none can share that download.
    let mut fetch_handle = Some(fetch_handle).filter(|_| !plan.to_fetch.is_empty());
    let mut subscription = match &direct {
        None => fetch_handle
            .take()
            .map(|handle| handle.subscribe(from, source, plan.to_fetch)),
        Some(_) => None,
    };
    if subscription
        .as_ref()
        .is_some_and(|subscription| subscription.is_separate)
    {
        ctx.info("cannot share the download with the other hosts: downloading for this host alone");
    }
    loop {
        let (block_tx, block_rx) = unbounded_channel();
        let (direct_tx, to_copy) = (block_tx.clone(), std::mem::take(&mut copies));
        let download = direct.as_ref();
        let on_host = async {
            let downloading = async move {
                match download {
                    Some(direct) => Box::pin(direct.run(direct_tx)).await,
                    None => Ok(()),
                }
            };
            let copying = copy_local_blocks(writer, to_copy, block_tx, ctx);
            let working = async { tokio::join!(copying, downloading) };
            let keeping = async {
                match download {
                    Some(direct) => Box::pin(direct.keep_standby()).await,
                    None => pending().await,
                }
            };
            let (copied, downloaded) = tokio::select! {
                results = working => results,
                never = keeping => match never {},
            };
            copied.and(downloaded)
        };
        transfer.direct_blocks = download.map(|direct| direct.blocks.clone());
        let receiving = transfer.receive_blocks(subscription.take(), on_host, block_rx);
        let received = receiving.await;
        if let Some(direct) = &direct {
            direct.end_standby().await;
        }
        let is_complete = received?;
        transfer.check_shared().await?;
        let missing = transfer.progress.missing_blocks(total_bytes);
        if missing.is_empty() {
            return Ok(());
        }
        let size = format_size(missing.bytes(), BINARY);
        let next = match &direct {
            Some(last) => last.again(&missing),
            None => DirectDownload::new(job, writer, &missing),
        };
        match &direct {
            _ if next.is_some() => ctx.info(format!("{size} are missing or wrong")),
            Some(last) => {
                last.refuse_relay(&missing)?;
                ctx.info(format!("downloading {size} through this machine"));
            }
            // A host that is cut off is not slow.
            None if !is_complete && ctx.progress.was_host_lost() => ctx.warn(format!(
                "the shared download went on while this host was unreachable: downloading {size} again for it alone"
            )),
            None if !is_complete => ctx.warn(format!(
                "this host was too slow for the shared download: downloading {size} again for it alone"
            )),
            None => ctx.info(format!(
                "{size} in other snapshots do not match: downloading them instead"
            )),
        }
        if next.is_none() {
            let handle = fetch_handle.take().unwrap_or_else(FetchHandle::single);
            subscription = Some(handle.subscribe(from, source, missing));
        }
        direct = next;
    }
}

/// Copies from one snapshot after the other; the blocks of one that fails are downloaded later.
async fn copy_local_blocks(
    writer: &FileWriter,
    copies: Vec<(CopySource, Vec<BlockCopy>)>,
    block_tx: UnboundedSender<(BlockCopy, BlockState)>,
    ctx: &Context,
) -> Result<()> {
    for (copy_source, blocks) in copies {
        let copying = writer.copy(&copy_source, &blocks, &block_tx, &ctx.cancel);
        if let Err(error) = copying.await {
            match error.kind() {
                Kind::Cancelled | Kind::NoSpace | Kind::Unreachable => return Err(error),
                _ => ctx.info(format!("{error}; downloading its blocks instead")),
            }
        }
    }
    Ok(())
}

struct Transfer<'a> {
    source: &'a RemoteObject,
    writer: &'a FileWriter,
    ctx: &'a Context,
    progress: &'a mut TransferProgress,
    /// Whether the file is known to read as zeros.
    is_empty: bool,
    /// Blocks that the host downloads itself.
    direct_blocks: Option<BlockSet>,
    /// Records being written. Never awaited alone while a write is pending: both may need the connection to the host.
    pending_records: FuturesUnordered<BoxFuture<'a, Result<()>>>,
}

impl Transfer<'_> {
    /// Lets a new file share all extents with the snapshot that most of it is equal to, if the file system can; returns
    /// what is still to be copied.
    async fn share_extents(
        &mut self,
        mut copies: Vec<(CopySource, Vec<BlockCopy>)>,
    ) -> Result<Vec<(CopySource, Vec<BlockCopy>)>> {
        let total_bytes = self.source.object.size_bytes;
        let similar = copies
            .iter_mut()
            .find(|(_, blocks)| is_mostly_in_place(blocks, total_bytes));
        if let Some((copy_source, blocks)) = similar
            && self.progress.done_bytes() == 0
            && self.share(copy_source).await?
        {
            let (shared, remaining): (Vec<BlockCopy>, Vec<BlockCopy>) = blocks
                .iter()
                .partition(|block| block.source == block.target);
            *blocks = remaining;
            for block in shared {
                self.on_block_copied(block, BlockState::Trusted);
            }
            let shared_bytes = self.progress.done_bytes();
            self.ctx
                .progress
                .resume(Phase::Downloading, total_bytes, shared_bytes);
        }
        Ok(copies)
    }

    async fn share(&mut self, copy_source: &CopySource) -> Result<bool> {
        // Also if it fails.
        self.is_empty = false;
        self.writer.share(copy_source).await
    }

    /// Completes blocks of zeros: those that the file does not read as such, because it shares extents or has data of an earlier
    /// pull, are written.
    async fn fill_zeros(&mut self, zeros: &BlockSet) -> Result<()> {
        if zeros.is_empty() {
            return Ok(());
        }
        if !self.is_empty {
            let digests = hash_written_blocks(self.writer, zeros, self.ctx).await?;
            let data = Bytes::from(vec![0; BLOCK_BYTES as usize]);
            let is_other = |block: &u64| digests.get(block) != Some(&ZERO_BLOCK);
            for block in zeros.iter().filter(is_other) {
                self.ctx.check_cancelled()?;
                let offset = block * BLOCK_BYTES;
                self.writer.write_at(offset, data.clone()).await?;
            }
        }
        for block in zeros.iter() {
            self.progress.record(block, ZERO_BLOCK);
            self.progress.copied_bytes += self.source.block_bytes(block);
        }
        let records: Vec<_> = zeros.iter().map(|block| (block, ZERO_BLOCK)).collect();
        write_records(self.writer, &records).await;
        let (total_bytes, done_bytes) = (self.source.object.size_bytes, self.progress.done_bytes());
        self.ctx
            .progress
            .resume(Phase::Downloading, total_bytes, done_bytes);
        Ok(())
    }

    /// Writes the blocks of `subscription` and records those that `copying` sends to `block_rx`.
    ///
    /// Returns false if the shared download dropped this host.
    async fn receive_blocks(
        &mut self,
        subscription: Option<Subscription>,
        copying: impl Future<Output = Result<()>>,
        mut block_rx: UnboundedReceiver<(BlockCopy, BlockState)>,
    ) -> Result<bool, TransferError> {
        let mut is_complete = subscription.is_none();
        let (mut is_dropped, mut is_copying) = (false, true);
        let Subscription {
            mut receiver,
            backpressure,
            progress: fetch_progress,
            ..
        } = subscription.unwrap_or_else(Subscription::empty);
        let fetched_before = self.progress.fetched_bytes;
        let mut copying = pin!(copying);
        let mut writes = FuturesUnordered::new();
        let mut permits: HashMap<u64, Arc<OwnedSemaphorePermit>> = HashMap::new();
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while is_copying
            || !(is_complete || is_dropped)
            || !writes.is_empty()
            || !self.pending_records.is_empty()
        {
            let can_write = !is_complete && !is_dropped && writes.len() < MAX_CONCURRENT_WRITES;
            tokio::select! {
                biased;
                () = self.ctx.cancel.cancelled() => return Err(Error::cancelled("the pull").into()),
                () = backpressure.dropped.cancelled(), if !is_dropped && !is_complete => {
                    is_dropped = true;
                    receiver.close();
                    while receiver.try_recv().is_ok() {}
                    permits.clear();
                }
                Some((block, digest, result)) = writes.next() => {
                    let result: Result<()> = result;
                    result?;
                    let bytes = self.source.block_bytes(block);
                    permits.remove(&block);
                    backpressure.add_written(bytes);
                    self.progress.fetched_bytes += bytes;
                    self.record_block(block, digest);
                }
                Some(recorded) = self.pending_records.next() => {
                    // The file is complete without the record, too.
                    if let Err(error) = recorded {
                        tracing::debug!("{error}");
                    }
                }
                Some((block, state)) = block_rx.recv() => self.on_block_copied(block, state),
                result = &mut copying, if is_copying => {
                    is_copying = false;
                    while let Ok((block, state)) = block_rx.try_recv() {
                        self.on_block_copied(block, state);
                    }
                    result?;
                }
                message = receiver.recv(), if can_write => match message {
                    Some(Message::Block(FetchedBlock { index, data, digest, permit })) => {
                        // The download may be shared with hosts that have no digests.
                        if self.source.digest(index).is_some_and(|expected| expected != digest) {
                            let error = Error::new(Kind::Damaged, format!("{} is damaged", self.source.object.key));
                            let cause = format!("block {index} is not that of the snapshot's manifest on the host");
                            return Err(error.with_cause(cause).into());
                        }
                        permits.insert(index, permit);
                        writes.push(write_block(self.writer, index, data, digest));
                    }
                    Some(Message::End(result)) => {
                        // An error of the source.
                        result.map_err(|error| TransferError { error, is_host_unreachable: false, is_unsynced: false })?;
                        is_complete = true;
                    }
                    None => {
                        let summary = format!("the download of {} was interrupted", self.source.object.key);
                        return Err(Error::new(Kind::Failed, summary).into());
                    }
                },
                _ = ticks.tick() => {
                    // Smoother than whole blocks, but only while the download is also for this host.
                    let fetched_bytes = match is_dropped {
                        true => 0,
                        false => fetch_progress
                            .sample()
                            .done_bytes
                            .saturating_sub(backpressure.unwritten_bytes()),
                    };
                    let written_bytes = self.progress.fetched_bytes - fetched_before;
                    let done_bytes =
                        self.progress.done_bytes() + fetched_bytes.saturating_sub(written_bytes);
                    self.ctx.progress.set_done(done_bytes.min(self.source.object.size_bytes));
                }
            }
        }
        self.ctx.progress.set_done(self.progress.done_bytes());
        Ok(is_complete)
    }

    /// Records a block of another snapshot, or one that the host has downloaded, if it has the expected digest.
    fn on_block_copied(&mut self, block: BlockCopy, state: BlockState) {
        let expected = self.source.digest(block.target);
        match (state, expected) {
            // Recorded once it was read.
            (BlockState::Trusted, Some(expected)) => {
                self.progress.record(block.target, expected);
                self.progress.shared.insert(block.target);
            }
            (BlockState::Hashed(digest), Some(expected)) if digest == expected => {
                self.record_block(block.target, digest);
            }
            _ => return,
        }
        let is_direct = self.direct_blocks.as_ref();
        match is_direct.is_some_and(|direct| direct.contains(block.target)) {
            true => {
                self.progress.fetched_bytes += block.size_bytes;
                self.ctx.progress.add_direct(block.size_bytes);
            }
            false => self.progress.copied_bytes += block.size_bytes,
        }
    }

    /// Reads the blocks that share the extents of another file; those that do not match are missing again.
    async fn check_shared(&mut self) -> Result<()> {
        let shared = std::mem::take(&mut self.progress.shared);
        if shared.is_empty() || !self.ctx.check_shared_blocks {
            return Ok(());
        }
        let total_bytes = self.source.object.size_bytes;
        let blocks = BlockSet::from_predicate(total_bytes, |block| shared.contains(&block));
        let digests = hash_written_blocks(self.writer, &blocks, self.ctx).await?;
        let mut records = Vec::new();
        for block in shared {
            match digests.get(&block) {
                Some(digest) if self.source.digest(block) == Some(*digest) => {
                    records.push((block, *digest));
                }
                _ => {
                    self.progress.clear(block);
                    self.progress.copied_bytes -= self.source.block_bytes(block);
                }
            }
        }
        let done_bytes = self.progress.done_bytes();
        self.ctx
            .progress
            .resume(Phase::Downloading, total_bytes, done_bytes);
        write_records(self.writer, &records).await;
        Ok(())
    }

    fn record_block(&mut self, block: u64, digest: Digest) {
        self.progress.record(block, digest);
        let writer = self.writer;
        let record = async move { writer.record(&[(block, digest)]).await };
        self.pending_records.push(record.boxed());
    }
}

async fn write_records(writer: &FileWriter, blocks: &[(u64, Digest)]) {
    // The file is complete without them, too.
    if let Err(error) = writer.record(blocks).await {
        tracing::debug!("{error}");
    }
}

async fn write_block(
    writer: &FileWriter,
    block: u64,
    data: Bytes,
    digest: Digest,
) -> (u64, Digest, Result<()>) {
    let result = writer.write_at(block * BLOCK_BYTES, data).await;
    (block, digest, result)
}
