//! The fetch of an object, shared by the pulls of several hosts: each byte leaves the bucket once and goes to
//! all of them. A pull for one host is a fetch with one share.
//!
//! ```text
//!                       ┌─ queue ── write ── host a
//! bucket ── 8 MiB blocks┼─ queue ── write ── host b
//!                       └─ queue ── write ── host c
//! ```
//!
//! Each host names the blocks it wants: a block goes to all that want it, and one that nobody wants is not fetched.
//! The slowest sets the pace, until it holds the others up too long: then it is left behind, and goes on with a fetch
//! of its own. A block is hashed as it comes, once for all, and is what the manifest says or is not given on.

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

use snapdeck_bucket::Bucket;
use snapdeck_host::hash_block;
use snapdeck_model::{
    Annotations, BLOCK_BYTES, BlockSet, Digest, Error, Kind, Manifest, Object, ProgressCell,
    Result, block_bytes,
};

/// How long who is ready waits for the others.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Blocks fetched and not yet written by all, at most. With the ranges that are on their way (48 MiB) a fetch takes 80 MiB,
/// or 64 where it is for one host: the program itself takes 40, and 128 are all there are.
const WINDOW_BLOCKS: usize = 4;
const SINGLE_HOST_WINDOW_BLOCKS: usize = 2;
/// How long, on balance, a host may hold the others up: who does so for less than half of the time never is left
/// behind, who has stopped is after this time.
const MAX_LAG: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LAG_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// What is fetched, and what it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RemoteObject {
    pub(crate) object: Object,
    /// The object's own, where it has one.
    pub(crate) manifest: Option<Manifest>,
    /// What is said of an object without one.
    pub(crate) annotations: Option<Annotations>,
}

impl RemoteObject {
    /// What a block is to be, where that is known.
    pub(crate) fn digest(&self, block: u64) -> Option<Digest> {
        let blocks = &self.manifest.as_ref()?.blocks;
        blocks.get(usize::try_from(block).ok()?).copied()
    }

    /// Length of a block.
    pub(crate) fn block_bytes(&self, block: u64) -> u64 {
        block_bytes(block, self.object.size_bytes)
    }
}

/// A pull's share in a fetch. Once it is dropped, nobody waits for it any more.
pub struct FetchHandle(Arc<SharedFetch>);

struct SharedFetch {
    state: Mutex<SharedFetchState>,
    /// Told when nobody is awaited any more.
    ready: Notify,
}

struct SharedFetchState {
    /// Shares that have neither joined nor gone.
    pending_handles: usize,
    /// Has the fetch begun?
    is_started: bool,
    /// Those who joined, and what they want.
    subscribers: Vec<Subscriber>,
    source: Option<Arc<RemoteObject>>,
    /// Bytes fetched.
    progress: Arc<ProgressCell>,
}

/// The fetch's end of a queue.
struct Subscriber {
    blocks: BlockSet,
    sender: UnboundedSender<Message>,
    backpressure: Arc<Backpressure>,
}

/// A host's end of a queue.
pub(crate) struct Subscription {
    pub(crate) receiver: UnboundedReceiver<Message>,
    pub(crate) backpressure: Arc<Backpressure>,
    /// Bytes fetched, for all hosts.
    pub(crate) progress: Arc<ProgressCell>,
    /// The fetch with the others had begun, or was for another object: this one is its own.
    pub(crate) is_late: bool,
}

impl Subscription {
    /// One that gives nothing.
    pub(crate) fn empty() -> Self {
        Self {
            receiver: unbounded_channel().1,
            backpressure: Arc::default(),
            progress: Arc::default(),
            is_late: false,
        }
    }
}

/// How one host keeps up.
#[derive(Default)]
pub(crate) struct Backpressure {
    queued_blocks: AtomicUsize,
    queued_bytes: AtomicU64,
    /// Bytes fetched for others alone.
    skipped_bytes: AtomicU64,
    /// Fires when the fetch goes on without this host.
    pub(crate) dropped: CancellationToken,
}

pub(crate) enum Message {
    Block(FetchedBlock),
    /// No more blocks: all were sent, or why not.
    End(Result<()>),
}

/// A block of the object, which is what it is to be.
#[derive(Clone)]
pub(crate) struct FetchedBlock {
    pub(crate) index: u64,
    pub(crate) data: Bytes,
    pub(crate) digest: Digest,
    /// Its place in the window: free for another one when all hosts have given theirs up.
    pub(crate) permit: Arc<OwnedSemaphorePermit>,
}

impl Backpressure {
    fn add_taken(&self, bytes: u64) {
        self.queued_blocks.fetch_add(1, Relaxed);
        self.queued_bytes.fetch_add(bytes, Relaxed);
    }

    /// A block of so many bytes was written.
    pub(crate) fn add_written(&self, bytes: u64) {
        self.queued_blocks.fetch_sub(1, Relaxed);
        self.queued_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Bytes fetched that this host has not written: others' alone, and those that wait for it.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        self.queued_bytes.load(Relaxed) + self.skipped_bytes.load(Relaxed)
    }
}

impl Subscriber {
    fn is_subscribed(&self) -> bool {
        !self.sender.is_closed() && !self.backpressure.dropped.is_cancelled()
    }

    fn send(&self, block: FetchedBlock) {
        let bytes = block.data.len() as u64;
        if !self.blocks.contains(block.index) {
            self.backpressure.skipped_bytes.fetch_add(bytes, Relaxed);
        } else if self.is_subscribed() {
            self.backpressure.add_taken(bytes);
            // Who went away meanwhile gives all its places up.
            let _ = self.sender.send(Message::Block(block));
        }
    }
}

impl FetchHandle {
    /// A fetch of its own.
    pub fn single() -> Self {
        Self(SharedFetch::new(1))
    }

    /// As many shares of one fetch. It begins when every share has joined or was dropped, or with those who have
    /// joined 10 s after the first; who comes later has a fetch of its own.
    pub fn shared_by(count: usize) -> Vec<Self> {
        let gathering = SharedFetch::new(count);
        (0..count).map(|_| Self(gathering.clone())).collect()
    }

    /// Asks for the blocks of `source` that are `wanted`.
    pub(crate) fn subscribe(
        self,
        bucket: &Bucket,
        source: &Arc<RemoteObject>,
        wanted: BlockSet,
    ) -> Subscription {
        let mut state = self.0.state();
        let other = |ours: &Arc<RemoteObject>| ours != source;
        if state.is_started || state.source.as_ref().is_some_and(other) {
            drop(state);
            let queue = Self::single().subscribe(bucket, source, wanted);
            return Subscription {
                is_late: true,
                ..queue
            };
        }
        let (sender, receiver) = unbounded_channel();
        let pace = Arc::<Backpressure>::default();
        state.subscribers.push(Subscriber {
            blocks: wanted,
            sender,
            backpressure: pace.clone(),
        });
        if state.source.is_none() {
            state.source = Some(source.clone());
            let cell = state.progress.clone();
            // Nobody's own, so that it outlives whoever joined first.
            tokio::spawn(run_shared_fetch(
                self.0.clone(),
                bucket.clone(),
                source.clone(),
                cell,
            ));
        }
        Subscription {
            receiver,
            backpressure: pace,
            progress: state.progress.clone(),
            is_late: false,
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

/// Waits for all who may join, then fetches for those who did. Ends early when none of them is left.
async fn run_shared_fetch(
    gathering: Arc<SharedFetch>,
    bucket: Bucket,
    source: Arc<RemoteObject>,
    fetched: Arc<ProgressCell>,
) {
    // Past its time it begins with those who are ready.
    let _ = timeout(JOIN_TIMEOUT, gathering.ready.notified()).await;
    let mut lanes = {
        let mut state = gathering.state();
        state.is_started = true;
        std::mem::take(&mut state.subscribers)
    };
    lanes.retain(Subscriber::is_subscribed);
    let mut wanted = BlockSet::none(source.object.size_bytes);
    lanes.iter().for_each(|lane| wanted.extend(&lane.blocks));
    let places = match lanes.len() {
        0 => return,
        1 => SINGLE_HOST_WINDOW_BLOCKS,
        _ => WINDOW_BLOCKS,
    };
    let window = Arc::new(Semaphore::new(places));
    // Ended by dropping it.
    let ended = tokio::select! {
        ended = fetch_blocks(&bucket, &source, wanted, &lanes, &window, &fetched) => ended,
        _ = join_all(lanes.iter().map(|lane| lane.sender.closed())) => return,
        never = drop_laggards(&lanes, &window) => match never {},
    };
    for lane in &lanes {
        let _ = lane.sender.send(Message::End(ended.clone()));
    }
}

/// Fetches `wanted` and sends it on; a block that is wrong is fetched once more.
///
/// # Errors
/// `Damaged` where a block is wrong twice; the bucket's.
async fn fetch_blocks(
    bucket: &Bucket,
    source: &RemoteObject,
    wanted: BlockSet,
    lanes: &[Subscriber],
    window: &Arc<Semaphore>,
    fetched: &ProgressCell,
) -> Result<()> {
    let object = &source.object;
    let never = CancellationToken::new();
    let mut wanted = wanted;
    for _ in 0..2 {
        let wrong = Mutex::new(BlockSet::none(object.size_bytes));
        let send = async |block: u64, data: Bytes| {
            let hashed = data.clone();
            let hashed = tokio::task::spawn_blocking(move || hash_block(&hashed)).await;
            let broken = |why: String| {
                Error::new(
                    Kind::Failed,
                    format!("the download of {} was interrupted", object.key),
                )
                .with_cause(why)
            };
            let digest = hashed.map_err(|crash| broken(crash.to_string()))?;
            if source.digest(block).is_some_and(|wanted| wanted != digest) {
                wrong
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(block);
                return Ok(());
            }
            let place = window.clone().acquire_owned().await;
            let block = FetchedBlock {
                index: block,
                data,
                digest,
                permit: Arc::new(place.map_err(|closed| broken(closed.to_string()))?),
            };
            lanes.iter().for_each(|lane| lane.send(block.clone()));
            Ok(())
        };
        let send = |block, data| send(block, data);
        bucket
            .download(object, &wanted, send, fetched, &never)
            .await?;
        wanted = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        if wanted.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            "blocks {wanted} of {} do not match the manifest: downloading them again",
            object.key
        );
    }
    Err(wrong_blocks_error(source, &wanted))
}

fn wrong_blocks_error(source: &RemoteObject, wrong: &BlockSet) -> Error {
    let first = wrong.iter().next().unwrap_or_default();
    let object = &source.object;
    Error::new(Kind::Damaged, format!("{} is damaged", object.key))
        .with_cause(format!(
            "block {wrong} ({} bytes at {}) did not match the manifest twice",
            source.block_bytes(first),
            first * BLOCK_BYTES
        ))
        .hint("push it again, or remove its manifest to accept it as it is")
}

/// Watches for who holds the others up, and lets them go on without it.
async fn drop_laggards(lanes: &[Subscriber], window: &Semaphore) -> Infallible {
    let mut patience = LagTracker::new(lanes.len());
    let mut looks = interval(LAG_CHECK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let backlogs: Vec<Option<usize>> = lanes
            .iter()
            .map(|lane| {
                lane.is_subscribed()
                    .then(|| lane.backpressure.queued_blocks.load(Relaxed))
            })
            .collect();
        for lane in patience.update(window.available_permits() == 0, &backlogs) {
            if let Some(lane) = lanes.get(lane) {
                lane.backpressure.dropped.cancel();
            }
        }
    }
}

/// For how long, on balance, each host held the others up.
struct LagTracker(Vec<Duration>);

impl LagTracker {
    fn new(hosts: usize) -> Self {
        Self(vec![Duration::ZERO; hosts])
    }

    /// Takes note of how many blocks wait for each host (`None`: it is not served any more); returns whose time
    /// is over. While the window is full, the one that most of it waits for holds up those that have nothing to do.
    fn update(&mut self, full: bool, backlogs: &[Option<usize>]) -> Vec<usize> {
        let waits = full && backlogs.contains(&Some(0));
        let most = backlogs.iter().copied().max().flatten();
        let mut over = Vec::new();
        for (host, (held, backlog)) in self.0.iter_mut().zip(backlogs).enumerate() {
            *held = match waits && backlog.is_some() && *backlog == most {
                true => *held + LAG_CHECK_INTERVAL,
                false => held.saturating_sub(LAG_CHECK_INTERVAL),
            };
            if *held >= MAX_LAG {
                over.push(host);
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as often as it takes for 5 s.
    fn looks() -> usize {
        (MAX_LAG.as_millis() / LAG_CHECK_INTERVAL.as_millis()) as usize
    }

    #[test]
    fn who_stops_is_left_behind_after_its_time() {
        let mut patience = LagTracker::new(3);
        for _ in 1..looks() {
            assert!(
                patience
                    .update(true, &[Some(0), Some(8), Some(1)])
                    .is_empty()
            );
        }
        assert_eq!(patience.update(true, &[Some(0), Some(8), Some(1)]), [1]);
    }

    #[test]
    fn who_is_a_little_slower_never_is() {
        let mut patience = LagTracker::new(2);
        for _ in 0..10 * looks() {
            assert!(patience.update(true, &[Some(0), Some(8)]).is_empty());
            assert!(patience.update(true, &[Some(1), Some(8)]).is_empty());
        }
    }

    #[test]
    fn nobody_is_while_all_are_busy_or_the_bucket_is_what_is_slow() {
        let mut patience = LagTracker::new(2);
        for _ in 0..2 * looks() {
            assert!(patience.update(true, &[Some(8), Some(8)]).is_empty());
            assert!(patience.update(false, &[Some(0), Some(2)]).is_empty());
            assert!(patience.update(true, &[Some(8), None]).is_empty());
        }
    }
}
