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
const GATHER: Duration = Duration::from_secs(10);
/// Blocks fetched and not yet written by all, at most. With the ranges that are on their way (48 MiB) a fetch takes 80 MiB,
/// or 64 where it is for one host: the program itself takes 40, and 128 are all there are.
const WINDOW: usize = 4;
const WINDOW_OF_ONE: usize = 2;
/// How long, on balance, a host may hold the others up: who does so for less than half of the time never is left
/// behind, who has stopped is after this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What is fetched, and what it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Source {
    pub(super) object: Object,
    /// The object's own, where it has one.
    pub(super) manifest: Option<Manifest>,
    /// What is said of an object without one.
    pub(super) remarks: Option<Annotations>,
}

impl Source {
    /// What a block is to be, where that is known.
    pub(super) fn digest(&self, block: u64) -> Option<Digest> {
        let blocks = &self.manifest.as_ref()?.blocks;
        blocks.get(usize::try_from(block).ok()?).copied()
    }

    /// Length of a block.
    pub(super) fn bytes(&self, block: u64) -> u64 {
        block_bytes(block, self.object.size_bytes)
    }
}

/// A pull's share in a fetch. Once it is dropped, nobody waits for it any more.
pub struct Share(Arc<Gathering>);

struct Gathering {
    state: Mutex<State>,
    /// Told when nobody is awaited any more.
    complete: Notify,
}

struct State {
    /// Shares that have neither joined nor gone.
    awaited: usize,
    /// Has the fetch begun?
    begun: bool,
    /// Those who joined, and what they want.
    lanes: Vec<Lane>,
    source: Option<Arc<Source>>,
    /// Bytes fetched.
    fetched: Arc<ProgressCell>,
}

/// The fetch's end of a queue.
struct Lane {
    wanted: BlockSet,
    sender: UnboundedSender<Message>,
    pace: Arc<Pace>,
}

/// A host's end of a queue.
pub(super) struct Queue {
    pub(super) receiver: UnboundedReceiver<Message>,
    pub(super) pace: Arc<Pace>,
    /// Bytes fetched, for all hosts.
    pub(super) fetched: Arc<ProgressCell>,
    /// The fetch with the others had begun, or was for another object: this one is its own.
    pub(super) late: bool,
}

impl Queue {
    /// One that gives nothing.
    pub(super) fn empty() -> Self {
        Self {
            receiver: unbounded_channel().1,
            pace: Arc::default(),
            fetched: Arc::default(),
            late: false,
        }
    }
}

/// How one host keeps up.
#[derive(Default)]
pub(super) struct Pace {
    blocks: AtomicUsize,
    bytes: AtomicU64,
    /// Bytes fetched for others alone.
    passed: AtomicU64,
    /// Fires when the fetch goes on without this host.
    pub(super) left_behind: CancellationToken,
}

pub(super) enum Message {
    Block(Block),
    /// No more blocks: all were sent, or why not.
    End(Result<()>),
}

/// A block of the object, which is what it is to be.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) block: u64,
    pub(super) data: Bytes,
    pub(super) digest: Digest,
    /// Its place in the window: free for another one when all hosts have given theirs up.
    pub(super) place: Arc<OwnedSemaphorePermit>,
}

impl Pace {
    fn took(&self, bytes: u64) {
        self.blocks.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// A block of so many bytes was written.
    pub(super) fn wrote(&self, bytes: u64) {
        self.blocks.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Bytes fetched that this host has not written: others' alone, and those that wait for it.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        self.bytes.load(Relaxed) + self.passed.load(Relaxed)
    }
}

impl Lane {
    fn is_served(&self) -> bool {
        !self.sender.is_closed() && !self.pace.left_behind.is_cancelled()
    }

    fn send(&self, block: Block) {
        let bytes = block.data.len() as u64;
        if !self.wanted.contains(block.block) {
            self.pace.passed.fetch_add(bytes, Relaxed);
        } else if self.is_served() {
            self.pace.took(bytes);
            // Who went away meanwhile gives all its places up.
            let _ = self.sender.send(Message::Block(block));
        }
    }
}

impl Share {
    /// A fetch of its own.
    pub fn alone() -> Self {
        Self(Gathering::of(1))
    }

    /// As many shares of one fetch. It begins when every share has joined or was dropped, or with those who have
    /// joined 10 s after the first; who comes later has a fetch of its own.
    pub fn of(count: usize) -> Vec<Self> {
        let gathering = Gathering::of(count);
        (0..count).map(|_| Self(gathering.clone())).collect()
    }

    /// Asks for the blocks of `source` that are `wanted`.
    pub(super) fn join(self, bucket: &Bucket, source: &Arc<Source>, wanted: BlockSet) -> Queue {
        let mut state = self.0.state();
        let other = |ours: &Arc<Source>| ours != source;
        if state.begun || state.source.as_ref().is_some_and(other) {
            drop(state);
            let queue = Self::alone().join(bucket, source, wanted);
            return Queue {
                late: true,
                ..queue
            };
        }
        let (sender, receiver) = unbounded_channel();
        let pace = Arc::<Pace>::default();
        state.lanes.push(Lane {
            wanted,
            sender,
            pace: pace.clone(),
        });
        if state.source.is_none() {
            state.source = Some(source.clone());
            let cell = state.fetched.clone();
            // Nobody's own, so that it outlives whoever joined first.
            tokio::spawn(run(self.0.clone(), bucket.clone(), source.clone(), cell));
        }
        Queue {
            receiver,
            pace,
            fetched: state.fetched.clone(),
            late: false,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.awaited -= 1;
        if state.awaited == 0 {
            self.0.complete.notify_one();
        }
    }
}

impl Gathering {
    fn of(count: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                awaited: count,
                begun: false,
                lanes: Vec::new(),
                source: None,
                fetched: Arc::default(),
            }),
            complete: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for all who may join, then fetches for those who did. Ends early when none of them is left.
async fn run(
    gathering: Arc<Gathering>,
    bucket: Bucket,
    source: Arc<Source>,
    fetched: Arc<ProgressCell>,
) {
    // Past its time it begins with those who are ready.
    let _ = timeout(GATHER, gathering.complete.notified()).await;
    let mut lanes = {
        let mut state = gathering.state();
        state.begun = true;
        std::mem::take(&mut state.lanes)
    };
    lanes.retain(Lane::is_served);
    let mut wanted = BlockSet::none(source.object.size_bytes);
    lanes.iter().for_each(|lane| wanted.extend(&lane.wanted));
    let places = match lanes.len() {
        0 => return,
        1 => WINDOW_OF_ONE,
        _ => WINDOW,
    };
    let window = Arc::new(Semaphore::new(places));
    // Ended by dropping it.
    let ended = tokio::select! {
        ended = fetch(&bucket, &source, wanted, &lanes, &window, &fetched) => ended,
        _ = join_all(lanes.iter().map(|lane| lane.sender.closed())) => return,
        never = leave_behind(&lanes, &window) => match never {},
    };
    for lane in &lanes {
        let _ = lane.sender.send(Message::End(ended.clone()));
    }
}

/// Fetches `wanted` and sends it on; a block that is wrong is fetched once more.
///
/// # Errors
/// `Damaged` where a block is wrong twice; the bucket's.
async fn fetch(
    bucket: &Bucket,
    source: &Source,
    wanted: BlockSet,
    lanes: &[Lane],
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
                    format!("the fetch of {} broke off", object.key),
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
            let block = Block {
                block,
                data,
                digest,
                place: Arc::new(place.map_err(|closed| broken(closed.to_string()))?),
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
        tracing::warn!("blocks {wanted} of {} are wrong: fetched again", object.key);
    }
    Err(wrong_twice(source, &wanted))
}

fn wrong_twice(source: &Source, wrong: &BlockSet) -> Error {
    let first = wrong.iter().next().unwrap_or_default();
    let object = &source.object;
    Error::new(Kind::Damaged, format!("{} is damaged", object.key))
        .with_cause(format!(
            "twice the bytes of block {wrong} (of {} bytes at {}) are not those its manifest tells of",
            source.bytes(first),
            first * BLOCK_BYTES
        ))
        .hint("push it again, or remove its manifest to have it as it is")
}

/// Watches for who holds the others up, and lets them go on without it.
async fn leave_behind(lanes: &[Lane], window: &Semaphore) -> Infallible {
    let mut patience = Patience::with(lanes.len());
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let backlogs: Vec<Option<usize>> = lanes
            .iter()
            .map(|lane| lane.is_served().then(|| lane.pace.blocks.load(Relaxed)))
            .collect();
        for lane in patience.look(window.available_permits() == 0, &backlogs) {
            if let Some(lane) = lanes.get(lane) {
                lane.pace.left_behind.cancel();
            }
        }
    }
}

/// For how long, on balance, each host held the others up.
struct Patience(Vec<Duration>);

impl Patience {
    fn with(hosts: usize) -> Self {
        Self(vec![Duration::ZERO; hosts])
    }

    /// Takes note of how many blocks wait for each host (`None`: it is not served any more); returns whose time
    /// is over. While the window is full, the one that most of it waits for holds up those that have nothing to do.
    fn look(&mut self, full: bool, backlogs: &[Option<usize>]) -> Vec<usize> {
        let waits = full && backlogs.contains(&Some(0));
        let most = backlogs.iter().copied().max().flatten();
        let mut over = Vec::new();
        for (host, (held, backlog)) in self.0.iter_mut().zip(backlogs).enumerate() {
            *held = match waits && backlog.is_some() && *backlog == most {
                true => *held + LOOK,
                false => held.saturating_sub(LOOK),
            };
            if *held >= PATIENCE {
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
        (PATIENCE.as_millis() / LOOK.as_millis()) as usize
    }

    #[test]
    fn who_stops_is_left_behind_after_its_time() {
        let mut patience = Patience::with(3);
        for _ in 1..looks() {
            assert!(patience.look(true, &[Some(0), Some(8), Some(1)]).is_empty());
        }
        assert_eq!(patience.look(true, &[Some(0), Some(8), Some(1)]), [1]);
    }

    #[test]
    fn who_is_a_little_slower_never_is() {
        let mut patience = Patience::with(2);
        for _ in 0..10 * looks() {
            assert!(patience.look(true, &[Some(0), Some(8)]).is_empty());
            assert!(patience.look(true, &[Some(1), Some(8)]).is_empty());
        }
    }

    #[test]
    fn nobody_is_while_all_are_busy_or_the_bucket_is_what_is_slow() {
        let mut patience = Patience::with(2);
        for _ in 0..2 * looks() {
            assert!(patience.look(true, &[Some(8), Some(8)]).is_empty());
            assert!(patience.look(false, &[Some(0), Some(2)]).is_empty());
            assert!(patience.look(true, &[Some(8), None]).is_empty());
        }
    }
}
