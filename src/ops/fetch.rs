//! Downloads an object once for the pulls of several hosts. A pull for one host has the download for itself.
//!
//! ```text
//!                       ┌─ queue ── write ── host a
//! bucket ── 8 MiB blocks┼─ queue ── write ── host b
//!                       └─ queue ── write ── host c
//! ```
//!
//! Each host subscribes to the blocks it needs; only these are downloaded. The slowest host sets the pace until it
//! delays the others too long: then it is dropped, and continues with a download of its own. A block is hashed once for
//! all hosts, and only passed on if its digest is that of the manifest.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use snapdeck_model::{BlockSet, Digest, Error, Kind, ProgressCell, Result};

use crate::hash_blocks::hash_block_data;
use crate::image_source::ImageSource;
use crate::lag_tracker::{LAG_CHECK_INTERVAL, LagTracker};
use crate::remote_object::RemoteObject;

/// Time for which a host that is ready waits for the others.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of blocks that are downloaded but not yet written by all hosts. With the ranges being downloaded (48 MiB) a
/// download takes 80 MiB, or 64 MiB for one host: the program itself takes 40 MiB, and its limit is 128 MiB.
const WINDOW_BLOCKS: usize = 4;
const SINGLE_HOST_WINDOW_BLOCKS: usize = 2;

/// A pull's handle of a download; the others do not wait for one that is dropped.
pub struct FetchHandle(Arc<SharedFetch>);

struct SharedFetch {
    state: Mutex<SharedFetchState>,
    /// Notified when no handle is pending.
    ready: Notify,
}

struct SharedFetchState {
    /// Handles that have neither subscribed nor been dropped.
    pending_handles: usize,
    is_started: bool,
    subscribers: Vec<Subscriber>,
    source: Option<Arc<RemoteObject>>,
    /// Bytes downloaded.
    progress: Arc<ProgressCell>,
}

/// The download's end of a queue.
struct Subscriber {
    blocks: BlockSet,
    sender: UnboundedSender<Message>,
    backpressure: Arc<Backpressure>,
}

/// A host's end of a queue.
pub(crate) struct Subscription {
    pub receiver: UnboundedReceiver<Message>,
    pub backpressure: Arc<Backpressure>,
    /// Bytes downloaded, for all hosts.
    pub progress: Arc<ProgressCell>,
    /// Whether the host could not join the others: their download had started, or is of another object.
    pub is_separate: bool,
}

impl Subscription {
    /// Returns a subscription to nothing.
    pub(crate) fn empty() -> Self {
        Self {
            receiver: unbounded_channel().1,
            backpressure: Arc::default(),
            progress: Arc::default(),
            is_separate: false,
        }
    }
}

/// Blocks queued for one host.
#[derive(Default)]
pub(crate) struct Backpressure {
    queued_blocks: AtomicUsize,
    queued_bytes: AtomicU64,
    /// Bytes downloaded for other hosts only.
    skipped_bytes: AtomicU64,
    /// Fires when the download continues without this host.
    pub dropped: CancellationToken,
}

pub(crate) enum Message {
    Block(FetchedBlock),
    /// There are no more blocks: all were sent, or the download failed.
    End(Result<()>),
}

/// A block whose digest is that of the manifest, if there is one.
#[derive(Clone)]
pub(crate) struct FetchedBlock {
    pub index: u64,
    pub data: Bytes,
    pub digest: Digest,
    /// A slot of the window, released when all hosts have dropped it.
    pub permit: Arc<OwnedSemaphorePermit>,
}

impl Backpressure {
    fn add_queued(&self, bytes: u64) {
        self.queued_blocks.fetch_add(1, Relaxed);
        self.queued_bytes.fetch_add(bytes, Relaxed);
    }

    /// Records that a block of so many bytes was written.
    pub(crate) fn add_written(&self, bytes: u64) {
        self.queued_blocks.fetch_sub(1, Relaxed);
        self.queued_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Returns the downloaded bytes that this host has not written: those in its queue and those for other hosts only.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        self.queued_bytes.load(Relaxed) + self.skipped_bytes.load(Relaxed)
    }
}

impl Subscriber {
    fn is_subscribed(&self) -> bool {
        !self.sender.is_closed() && !self.backpressure.dropped.is_cancelled()
    }

    fn queue_length(&self) -> Option<usize> {
        self.is_subscribed()
            .then(|| self.backpressure.queued_blocks.load(Relaxed))
    }

    fn send(&self, block: FetchedBlock) {
        let bytes = block.data.len() as u64;
        if !self.blocks.contains(block.index) {
            self.backpressure.skipped_bytes.fetch_add(bytes, Relaxed);
        } else if self.is_subscribed() {
            self.backpressure.add_queued(bytes);
            // A host that unsubscribes meanwhile releases all its slots.
            let _ = self.sender.send(Message::Block(block));
        }
    }
}

impl FetchHandle {
    /// Returns the handle of a download for one host.
    pub fn single() -> Self {
        Self(SharedFetch::new(1))
    }

    /// Returns `count` handles of one download.
    ///
    /// It starts when every handle has subscribed or was dropped, at the latest 10 s after the first; a handle that
    /// subscribes later has a download of its own.
    pub fn shared_by(count: usize) -> Vec<Self> {
        let fetch = SharedFetch::new(count);
        (0..count).map(|_| Self(fetch.clone())).collect()
    }

    /// Subscribes to `blocks` of `source`.
    pub(crate) fn subscribe(
        self,
        from: &ImageSource,
        source: &Arc<RemoteObject>,
        blocks: BlockSet,
    ) -> Subscription {
        let mut state = self.0.state();
        let is_other = |current: &Arc<RemoteObject>| !current.is_same_object(source);
        if state.is_started || state.source.as_ref().is_some_and(is_other) {
            drop(state);
            return Subscription {
                is_separate: true,
                ..Self::single().subscribe(from, source, blocks)
            };
        }
        let (sender, receiver) = unbounded_channel();
        let backpressure = Arc::<Backpressure>::default();
        state.subscribers.push(Subscriber {
            blocks,
            sender,
            backpressure: backpressure.clone(),
        });
        let progress = state.progress.clone();
        if state.source.is_none() {
            state.source = Some(source.clone());
            // A task of its own, which outlives the first subscriber and is not cancelled with its job.
            tokio::spawn(run_shared_fetch(
                self.0.clone(),
                from.detached(),
                source.clone(),
                progress.clone(),
            ));
        }
        Subscription {
            receiver,
            backpressure,
            progress,
            is_separate: false,
        }
    }
}

impl Drop for FetchHandle {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.pending_handles -= 1;
        if state.pending_handles == 0 {
            self.0.ready.notify_one();
        }
    }
}

impl SharedFetch {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(SharedFetchState {
                pending_handles: count,
                is_started: false,
                subscribers: Vec::new(),
                source: None,
                progress: Arc::default(),
            }),
            ready: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, SharedFetchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the subscribers, then downloads their blocks; stops early when all have unsubscribed.
async fn run_shared_fetch(
    fetch: Arc<SharedFetch>,
    from: ImageSource,
    source: Arc<RemoteObject>,
    progress: Arc<ProgressCell>,
) {
    // After the timeout it starts with those that have subscribed.
    let _ = timeout(JOIN_TIMEOUT, fetch.ready.notified()).await;
    let mut subscribers = {
        let mut state = fetch.state();
        state.is_started = true;
        std::mem::take(&mut state.subscribers)
    };
    subscribers.retain(Subscriber::is_subscribed);
    let mut blocks = BlockSet::none(source.object.size_bytes);
    for subscriber in &subscribers {
        blocks.extend(&subscriber.blocks);
    }
    let window_blocks = match subscribers.len() {
        0 => return,
        1 => SINGLE_HOST_WINDOW_BLOCKS,
        _ => WINDOW_BLOCKS,
    };
    let window = Arc::new(Semaphore::new(window_blocks));
    let result = tokio::select! {
        result = fetch_blocks(&from, &source, blocks, &subscribers, &window, &progress) => result,
        _ = join_all(subscribers.iter().map(|subscriber| subscriber.sender.closed())) => return,
        never = drop_laggards(&subscribers, &window) => match never {},
    };
    for subscriber in &subscribers {
        let _ = subscriber.sender.send(Message::End(result.clone()));
    }
}

/// Downloads `blocks` and sends them; a block with a wrong digest is downloaded once more.
///
/// # Errors
/// `Damaged` if a block is wrong twice; those of the source.
async fn fetch_blocks(
    from: &ImageSource,
    source: &RemoteObject,
    mut blocks: BlockSet,
    subscribers: &[Subscriber],
    window: &Arc<Semaphore>,
    progress: &ProgressCell,
) -> Result<()> {
    let object = &source.object;
    let never_cancelled = CancellationToken::new();
    for _ in 0..2 {
        let wrong = Mutex::new(BlockSet::none(object.size_bytes));
        let send = async |index: u64, data: Bytes| {
            let digest = hash_block_data(data.clone()).await?;
            if source
                .digest(index)
                .is_some_and(|expected| expected != digest)
            {
                wrong
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(index);
                return Ok(());
            }
            let permit = window.clone().acquire_owned().await.map_err(|closed| {
                let summary = format!("the download of {} was interrupted", object.key);
                Error::new(Kind::Failed, summary).with_cause(closed)
            })?;
            let block = FetchedBlock {
                index,
                data,
                digest,
                permit: Arc::new(permit),
            };
            for subscriber in subscribers {
                subscriber.send(block.clone());
            }
            Ok(())
        };
        let send = |index, data| send(index, data);
        from.download(source, &blocks, send, progress, &never_cancelled)
            .await?;
        blocks = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        if blocks.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            "blocks {blocks} of {} do not match the manifest: downloading them again",
            object.key
        );
    }
    Err(from.bad_blocks_error(source, &blocks).await)
}

/// Drops the hosts that delay the others too long.
async fn drop_laggards(subscribers: &[Subscriber], window: &Semaphore) -> Infallible {
    let mut tracker = LagTracker::new(subscribers.len());
    let mut ticks = interval(LAG_CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let queue_lengths: Vec<_> = subscribers.iter().map(Subscriber::queue_length).collect();
        for host in tracker.update(window.available_permits() == 0, &queue_lengths) {
            if let Some(subscriber) = subscribers.get(host) {
                subscriber.backpressure.dropped.cancel();
            }
        }
    }
}
