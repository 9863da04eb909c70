//! SHA-256 of many blocks at once. One block's rounds wait for each other, but blocks need not: those that wait for a
//! digest at the same time are hashed side by side, one in each lane of the CPU's vectors, which is several times as
//! fast where the CPU has no instruction of its own for it.

use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Digest;

/// Most blocks in one pass: as many as the widest vectors have lanes.
const MAX_LANES: usize = 16;
/// The longest wait for the next block before a pass.
const LONGEST_WAIT: Duration = Duration::from_millis(30);
/// Blocks and time of the last pass before there was one.
const INITIAL_PASS: (usize, Duration) = (2, LONGEST_WAIT);

static SHARED: LazyLock<HashBatcher> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    HashBatcher::new((cores / 4).clamp(1, 4))
});

/// Hashes a block, together with those that other threads bring meanwhile: milliseconds for each MiB, so not on an async
/// worker. Who brings it brings at most `at_once` at the same time: once they are there, no more are waited for.
pub fn hash(block: Bytes, at_once: usize) -> Digest {
    begin_hash(block, at_once).digest()
}

/// As [`hash`], but the digest is not wanted yet: the block may wait for others until it is.
pub fn begin_hash(block: Bytes, at_once: usize) -> PendingDigest {
    SHARED.enqueue(block, at_once)
}

/// Hashes those that wait, if they are as many as can come: whoever has begun one calls it, not on an async worker.
pub fn hash_full_batch() {
    SHARED.hash_full_batches();
}

/// A block that is hashed sooner or later. Dropped, nobody wants its digest any more.
pub struct PendingDigest {
    batcher: &'static HashBatcher,
    slot: Slot,
}

impl PendingDigest {
    /// Its digest; waits for it, and hashes those that wait, so not on an async worker.
    pub fn digest(self) -> Digest {
        self.batcher.wait_for_digest(&self.slot)
    }
}

impl Drop for PendingDigest {
    fn drop(&mut self) {
        let mut state = self.batcher.lock();
        state
            .queue
            .retain(|waiting| !Arc::ptr_eq(&waiting.slot, &self.slot));
    }
}

/// Blocks that wait, and threads that hash them: of those who want a digest, as many as there may be.
struct HashBatcher {
    max_hashers: usize,
    state: Mutex<BatchState>,
    /// Digests are there.
    digests_ready: Condvar,
    /// A block is.
    block_queued: Condvar,
}

struct BatchState {
    queue: Vec<QueuedBlock>,
    hashers: usize,
    /// How many blocks the last pass had, and how long it took.
    last_pass: (usize, Duration),
}

struct QueuedBlock {
    slot: Slot,
    block: Bytes,
    max_concurrent: usize,
}

/// A place for a digest.
type Slot = Arc<OnceLock<Digest>>;

impl BatchState {
    /// Do as many wait as can come, or as fit into a pass?
    fn is_full(&self) -> bool {
        let most = self
            .queue
            .iter()
            .map(|waiting| waiting.max_concurrent)
            .max();
        // Where the CPU has an instruction nothing is gained by waiting.
        let most = most.map(|most| if *HAS_INSTRUCTION { 1 } else { most });
        most.is_some_and(|most| self.queue.len() >= most.min(MAX_LANES))
    }
}

impl HashBatcher {
    fn new(most_hashers: usize) -> Self {
        Self {
            max_hashers: most_hashers,
            state: Mutex::new(BatchState {
                queue: Vec::new(),
                hashers: 0,
                last_pass: INITIAL_PASS,
            }),
            digests_ready: Condvar::new(),
            block_queued: Condvar::new(),
        }
    }

    fn enqueue(&'static self, block: Bytes, at_once: usize) -> PendingDigest {
        let slot = Slot::default();
        let waiting = QueuedBlock {
            slot: slot.clone(),
            block,
            max_concurrent: at_once,
        };
        self.lock().queue.push(waiting);
        self.block_queued.notify_one();
        PendingDigest {
            batcher: self,
            slot,
        }
    }

    fn wait_for_digest(&self, slot: &Slot) -> Digest {
        let mut state = self.lock();
        loop {
            if let Some(digest) = slot.get() {
                return *digest;
            }
            state = match state.hashers < self.max_hashers && !state.queue.is_empty() {
                true => self.hash_batch(state, true),
                false => self.wait_for_digests(state),
            };
        }
    }

    fn hash_full_batches(&self) {
        let mut state = self.lock();
        while state.is_full() {
            state = match state.hashers < self.max_hashers {
                true => self.hash_batch(state, false),
                false => self.wait_for_digests(state),
            };
        }
    }

    /// Hashes those that wait, and perhaps those that come at once.
    fn hash_batch<'a>(
        &'a self,
        mut state: MutexGuard<'a, BatchState>,
        gather: bool,
    ) -> MutexGuard<'a, BatchState> {
        state.hashers += 1;
        if gather {
            state = self.fill_batch(state);
        }
        let pass = state.queue.len().min(MAX_LANES);
        let pass: Vec<QueuedBlock> = state.queue.drain(..pass).collect();
        drop(state);
        let since = Instant::now();
        let digests = hash_all(pass.iter().map(|waiting| &waiting.block[..]).collect());
        for (waiting, digest) in pass.iter().zip(digests) {
            // It has one place, and is hashed once.
            let _ = waiting.slot.set(digest);
        }
        let last = (pass.len(), since.elapsed());
        // Before anybody is told: the memory is for the next ones.
        drop(pass);
        let mut state = self.lock();
        state.hashers -= 1;
        state.last_pass = last;
        self.digests_ready.notify_all();
        state
    }

    /// Waits for more blocks as long as they come at once: a pass takes hardly longer for many than for two. Those who
    /// bring them one by one do not wait.
    fn fill_batch<'a>(&self, mut state: MutexGuard<'a, BatchState>) -> MutexGuard<'a, BatchState> {
        let (blocks, took) = state.last_pass;
        if blocks.max(state.queue.len()) < 2 {
            return state;
        }
        let wait = (took / 3).min(LONGEST_WAIT);
        while !state.is_full() {
            let before = state.queue.len();
            (state, _) = self
                .block_queued
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            if state.queue.len() <= before {
                break;
            }
        }
        state
    }

    fn wait_for_digests<'a>(
        &self,
        state: MutexGuard<'a, BatchState>,
    ) -> MutexGuard<'a, BatchState> {
        self.digests_ready
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digests of all of them, in their order.
fn hash_all(blocks: Vec<&[u8]>) -> Vec<Digest> {
    // Alone, a block is hashed faster without lanes.
    match blocks.len() > 1 && *LANES_CORRECT {
        true => hash_in_lanes(&blocks),
        false => blocks.into_iter().map(Digest::compute).collect(),
    }
}

fn hash_in_lanes(blocks: &[&[u8]]) -> Vec<Digest> {
    let mut digests = vec![[0; 32]; blocks.len()];
    tape_sha256::hash_many(blocks, &mut digests);
    digests.into_iter().map(Digest).collect()
}

/// Has the CPU an instruction for SHA-256? Then lanes gain little.
static HAS_INSTRUCTION: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
});

/// Golden images hang on it, so on each CPU the lanes are held against the library that hashes one block at a time.
static LANES_CORRECT: LazyLock<bool> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..MAX_LANES * 200)
        .map(|at| ((at * 7) >> 3) as u8)
        .collect();
    let blocks: Vec<&[u8]> = (0..MAX_LANES)
        .map(|at| &bytes[at * 190..][..at + 180])
        .collect();
    let wanted: Vec<Digest> = blocks.iter().map(|block| Digest::compute(block)).collect();
    let sound = hash_in_lanes(&blocks) == wanted && hash_in_lanes(&blocks[..3]) == wanted[..3];
    if !sound {
        tracing::warn!("blocks are hashed one by one: side by side this CPU gives wrong digests");
    }
    sound
});

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that no other block has.
    fn block(seed: usize, length: usize) -> Bytes {
        (0..length)
            .map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(97)) as u8)
            .collect()
    }

    /// The judge is the library that hashes one block at a time.
    #[test]
    fn in_every_lane_and_at_every_length_it_is_sha_256() {
        let lengths = [0, 1, 55, 56, 63, 64, 65, 119, 127, 128, 4096, 100_003];
        for many in 1..=2 * MAX_LANES + 1 {
            let blocks: Vec<Bytes> = (0..many)
                .map(|at| block(at, lengths[(at * 5 + many) % lengths.len()]))
                .collect();
            let wanted: Vec<Digest> = blocks.iter().map(|block| Digest::compute(block)).collect();
            let hashed = hash_all(blocks.iter().map(|block| &block[..]).collect());
            assert_eq!(hashed, wanted, "{many} at once");
        }
    }

    fn lanes(most_hashers: usize) -> &'static HashBatcher {
        Box::leak(Box::new(HashBatcher::new(most_hashers)))
    }

    #[test]
    fn each_thread_gets_the_digest_of_its_own_block() {
        for most in [1, 3] {
            let lanes = lanes(most);
            std::thread::scope(|scope| {
                for thread in 0..12 {
                    scope.spawn(move || {
                        for turn in 0..40 {
                            let block = block(thread * 100 + turn, 1000 * thread + turn);
                            let wanted: Digest = Digest::compute(&block);
                            let hashing = lanes.enqueue(block, 1 + thread);
                            if turn % 3 == 0 {
                                lanes.hash_full_batches();
                            }
                            assert_eq!(hashing.digest(), wanted);
                        }
                    });
                }
            });
            assert!(lanes.lock().queue.is_empty());
        }
    }

    #[test]
    fn blocks_wait_until_one_is_wanted_or_all_are_there() {
        let lanes = lanes(1);
        let begin = |seed| lanes.enqueue(block(seed, 1000), 3);
        let first = begin(0);
        let second = begin(1);
        lanes.hash_full_batches();
        if !*HAS_INSTRUCTION {
            assert_eq!(lanes.lock().queue.len(), 2);
        }
        let third = begin(2);
        lanes.hash_full_batches();
        assert!(lanes.lock().queue.is_empty());
        let dropped = begin(3);
        drop(dropped);
        assert!(lanes.lock().queue.is_empty());
        for (seed, hashing) in [first, second, third].into_iter().enumerate() {
            assert_eq!(hashing.digest(), Digest::compute(&block(seed, 1000)));
        }
    }
}
