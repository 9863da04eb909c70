//! A host's end of a pull: blocks come from the bucket or from the host's other snapshots, and each one that is there
//! and proven is noted beside the file, so that a pull that breaks off is taken up by the next one.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use snapdeck_bucket::Bucket;
use snapdeck_host::{BlockCopy, BlockState, CopySource, FileWriter};
use snapdeck_model::{BLOCK_BYTES, BlockSet, Digest, Error, Kind, Phase, Result, block_count};

use crate::block_plan;
use crate::context::Context;
use crate::fetch::{FetchHandle, FetchedBlock, Message, RemoteObject, Subscription};

/// Writes on their way at once.
const MAX_CONCURRENT_WRITES: usize = 4;
/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Why a pull ended early.
pub(crate) struct TransferError {
    pub(crate) error: Error,
    /// The host is out of reach: what was written there can neither be used nor removed.
    pub(crate) is_host_unreachable: bool,
}

/// What the host said.
impl From<Error> for TransferError {
    fn from(error: Error) -> Self {
        Self {
            is_host_unreachable: error.kind() == Kind::Unreachable,
            error,
        }
    }
}

/// What is to be done for an image.
pub(crate) struct TransferPlan {
    /// What is there already, and its digests.
    pub(crate) present: Vec<(u64, Digest)>,
    /// What other snapshots of the host give.
    pub(crate) copies: Vec<(CopySource, Vec<BlockCopy>)>,
    /// What comes from the bucket.
    pub(crate) to_fetch: BlockSet,
}

/// How far an image has come, and from where.
pub(crate) struct TransferProgress {
    /// As far as they are known; all are, once it is whole.
    digests: Vec<Option<Digest>>,
    completed_blocks: BlockSet,
    pub(crate) resumed_bytes: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) fetched_bytes: u64,
}

impl TransferProgress {
    /// Nothing of an image of so many bytes.
    pub(crate) fn empty(size_bytes: u64) -> Self {
        let done = BlockSet::none(size_bytes);
        Self {
            digests: vec![None; block_count(size_bytes) as usize],
            completed_blocks: done,
            resumed_bytes: 0,
            copied_bytes: 0,
            fetched_bytes: 0,
        }
    }

    /// Bytes that are there.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.resumed_bytes + self.copied_bytes + self.fetched_bytes
    }

    /// The digests of all blocks, where it is whole.
    pub(crate) fn digests(&self) -> Option<Vec<Digest>> {
        self.digests.iter().copied().collect()
    }

    fn record(&mut self, block: u64, digest: Digest) {
        self.completed_blocks.insert(block);
        if let Some(slot) = self.digests.get_mut(block as usize) {
            *slot = Some(digest);
        }
    }
}

/// Does `work` with `writer`: fetches by `share`, and for this host alone where that leaves it behind, or where a block
/// of another snapshot turned out to be none. How far it came stands in `received`, whatever becomes of it.
pub(crate) async fn run_transfer(
    share: FetchHandle,
    bucket: &Bucket,
    source: &Arc<RemoteObject>,
    writer: &FileWriter,
    work: TransferPlan,
    received: &mut TransferProgress,
    ctx: &Context,
) -> Result<(), TransferError> {
    let total = source.object.size_bytes;
    ctx.progress.enter(Phase::Downloading, total);
    for (block, digest) in work.present {
        received.record(block, digest);
    }
    received.resumed_bytes = received.completed_blocks.bytes();
    let mut receiving = Transfer {
        source,
        writer,
        ctx,
        progress: received,
        pending_records: FuturesUnordered::new(),
    };
    let copies = receiving.share_extents(work.copies).await?;
    // Who wants nothing keeps nobody waiting.
    let mut queue = match work.to_fetch.is_empty() {
        true => {
            drop(share);
            None
        }
        false => Some(share.subscribe(bucket, source, work.to_fetch)),
    };
    if queue.as_ref().is_some_and(|queue| queue.is_late) {
        ctx.info("cannot share the download with the other hosts: downloading for this host alone");
    }
    let (told, tellings) = unbounded_channel();
    let mut copying = Some((copy_local_blocks(writer, copies, told, ctx), tellings));
    loop {
        let kept_up = match copying.take() {
            Some((copying, tellings)) => receiving.receive_blocks(queue, copying, tellings).await?,
            None => {
                let (_, silent) = unbounded_channel();
                let nothing = std::future::ready(Ok(()));
                receiving.receive_blocks(queue, nothing, silent).await?
            }
        };
        let missing = BlockSet::from_predicate(total, |block| {
            !receiving.progress.completed_blocks.contains(block)
        });
        if missing.is_empty() {
            return Ok(());
        }
        let bytes = missing.bytes();
        match kept_up {
            false => ctx.warn(format!(
                "this host was too slow for the shared download: {bytes} bytes are downloaded again for it"
            )),
            true => ctx.info(format!(
                "{bytes} bytes in other snapshots do not match: downloading them instead"
            )),
        }
        queue = Some(FetchHandle::single().subscribe(bucket, source, missing));
    }
}

/// Copies from one origin after the other. What one cannot give is fetched.
async fn copy_local_blocks(
    writer: &FileWriter,
    copies: Vec<(CopySource, Vec<BlockCopy>)>,
    told: UnboundedSender<(BlockCopy, BlockState)>,
    ctx: &Context,
) -> Result<()> {
    for (origin, pieces) in copies {
        match writer.copy(&origin, &pieces, &told, &ctx.cancel).await {
            Err(error)
                if matches!(
                    error.kind(),
                    Kind::Cancelled | Kind::NoSpace | Kind::Unreachable
                ) =>
            {
                return Err(error);
            }
            Err(error) => ctx.info(format!("{error}; downloading its blocks instead")),
            Ok(()) => {}
        }
    }
    Ok(())
}

struct Transfer<'a> {
    source: &'a RemoteObject,
    writer: &'a FileWriter,
    ctx: &'a Context,
    progress: &'a mut TransferProgress,
    /// Notes on their way. Nobody waits for one of them while a write is under way: both may need the line to the host.
    pending_records: FuturesUnordered<BoxFuture<'a, Result<()>>>,
}

impl Transfer<'_> {
    /// Begins a new file as one that shares all extents with the snapshot it is mostly like, where that can be had;
    /// returns what is to be copied then.
    async fn share_extents(
        &mut self,
        mut copies: Vec<(CopySource, Vec<BlockCopy>)>,
    ) -> Result<Vec<(CopySource, Vec<BlockCopy>)>> {
        let total = self.source.object.size_bytes;
        let alike = copies
            .iter_mut()
            .find(|(_, pieces)| block_plan::is_same_image(pieces, total));
        if let Some((origin, pieces)) = alike
            && self.progress.completed_blocks.is_empty()
            && self.writer.share(origin).await?
        {
            let (stay, move_on) = pieces
                .iter()
                .partition(|piece| piece.source == piece.target);
            *pieces = move_on;
            let stay: Vec<BlockCopy> = stay;
            for piece in stay {
                self.on_block_copied(piece, BlockState::Trusted);
            }
        }
        Ok(copies)
    }

    /// Writes what comes by `queue`, and takes note of what `copying` tells; `false` where the other hosts went on
    /// without this one.
    async fn receive_blocks(
        &mut self,
        queue: Option<Subscription>,
        copying: impl Future<Output = Result<()>>,
        mut tellings: UnboundedReceiver<(BlockCopy, BlockState)>,
    ) -> Result<bool, TransferError> {
        let (mut complete, mut left, mut copied) = (queue.is_none(), false, false);
        let Subscription {
            mut receiver,
            backpressure: pace,
            progress: fetched,
            ..
        } = queue.unwrap_or_else(Subscription::empty);
        let before = self.progress.fetched_bytes;
        let mut copying = pin!(copying);
        let mut writes = FuturesUnordered::new();
        let mut places: HashMap<u64, Arc<OwnedSemaphorePermit>> = HashMap::new();
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(copied
            && (complete || left)
            && writes.is_empty()
            && self.pending_records.is_empty())
        {
            let takes = !complete && !left && writes.len() < MAX_CONCURRENT_WRITES;
            tokio::select! {
                biased;
                () = self.ctx.cancel.cancelled() => return Err(Error::cancelled("the pull").into()),
                () = pace.dropped.cancelled(), if !left && !complete => {
                    left = true;
                    receiver.close();
                    while receiver.try_recv().is_ok() {}
                    places.clear();
                }
                Some((block, digest, outcome)) = writes.next() => {
                    let outcome: Result<()> = outcome;
                    outcome?;
                    let bytes = self.source.block_bytes(block);
                    places.remove(&block);
                    pace.add_written(bytes);
                    self.progress.fetched_bytes += bytes;
                    self.record_block(block, digest);
                }
                Some(recorded) = self.pending_records.next() => {
                    // The file is no worse without it.
                    if let Err(error) = recorded {
                        tracing::debug!("{error}");
                    }
                }
                Some((piece, seen)) = tellings.recv() => self.on_block_copied(piece, seen),
                outcome = &mut copying, if !copied => {
                    copied = true;
                    while let Ok((piece, seen)) = tellings.try_recv() {
                        self.on_block_copied(piece, seen);
                    }
                    outcome?;
                }
                message = receiver.recv(), if takes => match message {
                    Some(Message::Block(FetchedBlock { index: block, data, digest, permit: place })) => {
                        places.insert(block, place);
                        writes.push(write_block(self.writer, block, data, digest));
                    }
                    Some(Message::End(ended)) => {
                        // The bucket's word, not the host's.
                        ended.map_err(|error| TransferError { error, is_host_unreachable: false })?;
                        complete = true;
                    }
                    None => {
                        let what = format!("the download of {} was interrupted", self.source.object.key);
                        return Err(Error::new(Kind::Failed, what).into());
                    }
                },
                _ = ticks.tick() => {
                    // Smoother than whole blocks, while what is fetched is for us, too.
                    let ours = match left {
                        true => 0,
                        false => fetched.sample().done_bytes.saturating_sub(pace.unwritten_bytes()),
                    };
                    let ahead = ours.saturating_sub(self.progress.fetched_bytes - before);
                    let done = self.progress.done_bytes() + ahead;
                    self.ctx.progress.set_done(done.min(self.source.object.size_bytes));
                }
            }
        }
        self.ctx.progress.set_done(self.progress.done_bytes());
        Ok(complete)
    }

    /// Takes note of a block that another snapshot gave, if it is what it is to be.
    fn on_block_copied(&mut self, piece: BlockCopy, seen: BlockState) {
        let wanted = self.source.digest(piece.target);
        match (seen, wanted) {
            (BlockState::Trusted, Some(wanted)) => self.record_block(piece.target, wanted),
            (BlockState::Hashed(digest), Some(wanted)) if digest == wanted => {
                self.record_block(piece.target, digest);
            }
            _ => return,
        }
        self.progress.copied_bytes += piece.size_bytes;
    }

    /// Takes note of a block that is there.
    fn record_block(&mut self, block: u64, digest: Digest) {
        self.progress.record(block, digest);
        let writer = self.writer;
        let record = async move { writer.record(block, &digest).await };
        self.pending_records.push(record.boxed());
    }
}

async fn write_block(
    writer: &FileWriter,
    block: u64,
    data: Bytes,
    digest: Digest,
) -> (u64, Digest, Result<()>) {
    let written = writer.write_at(block * BLOCK_BYTES, data).await;
    (block, digest, written)
}
