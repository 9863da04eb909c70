//! SHA-256 of many blocks at once. One block's rounds wait for each other, but blocks need not: those that wait for a
//! digest at the same time are hashed side by side, one in each lane of the CPU's vectors, which is several times as
//! fast where the CPU has no instruction of its own for it.

use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Digest;

/// Most blocks in one pass: as many as the widest vectors have lanes.
const MOST: usize = 16;
/// The longest wait for the next block before a pass.
const LONGEST_WAIT: Duration = Duration::from_millis(30);
/// Blocks and time of the last pass before there was one.
const AT_FIRST: (usize, Duration) = (2, LONGEST_WAIT);

static SHARED: LazyLock<Lanes> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Lanes::new((cores / 4).clamp(1, 4))
});

/// Hashes a block, together with those that other threads bring meanwhile: milliseconds for each MiB, so not on an async
/// worker. Who brings it brings at most `at_once` at the same time: once they are there, no more are waited for.
pub fn hash(block: Bytes, at_once: usize) -> Digest {
    begin(block, at_once).digest()
}

/// As [`hash`], but the digest is not wanted yet: the block may wait for others until it is.
pub fn begin(block: Bytes, at_once: usize) -> PendingDigest {
    SHARED.begin(block, at_once)
}

/// Hashes those that wait, if they are as many as can come: whoever has begun one calls it, not on an async worker.
pub fn hash_if_all_wait() {
    SHARED.pass_if_full();
}

/// A block that is hashed sooner or later. Dropped, nobody wants its digest any more.
pub struct PendingDigest {
    lanes: &'static Lanes,
    slot: Slot,
}

impl PendingDigest {
    /// Its digest; waits for it, and hashes those that wait, so not on an async worker.
    pub fn digest(self) -> Digest {
        self.lanes.digest(&self.slot)
    }
}

impl Drop for PendingDigest {
    fn drop(&mut self) {
        let mut state = self.lanes.lock();
        state
            .waiting
            .retain(|waiting| !Arc::ptr_eq(&waiting.slot, &self.slot));
    }
}

/// Blocks that wait, and threads that hash them: of those who want a digest, as many as there may be.
struct Lanes {
    most_hashers: usize,
    state: Mutex<State>,
    /// Digests are there.
    told: Condvar,
    /// A block is.
    came: Condvar,
}

struct State {
    waiting: Vec<Waiting>,
    hashers: usize,
    /// How many blocks the last pass had, and how long it took.
    last: (usize, Duration),
}

struct Waiting {
    slot: Slot,
    block: Bytes,
    at_once: usize,
}

/// A place for a digest.
type Slot = Arc<OnceLock<Digest>>;

impl State {
    /// Do as many wait as can come, or as fit into a pass?
    fn is_full(&self) -> bool {
        let most = self.waiting.iter().map(|waiting| waiting.at_once).max();
        // Where the CPU has an instruction nothing is gained by waiting.
        let most = most.map(|most| if *HAS_INSTRUCTION { 1 } else { most });
        most.is_some_and(|most| self.waiting.len() >= most.min(MOST))
    }
}

impl Lanes {
    fn new(most_hashers: usize) -> Self {
        Self {
            most_hashers,
            state: Mutex::new(State {
                waiting: Vec::new(),
                hashers: 0,
                last: AT_FIRST,
            }),
            told: Condvar::new(),
            came: Condvar::new(),
        }
    }

    fn begin(&'static self, block: Bytes, at_once: usize) -> PendingDigest {
        let slot = Slot::default();
        let waiting = Waiting {
            slot: slot.clone(),
            block,
            at_once,
        };
        self.lock().waiting.push(waiting);
        self.came.notify_one();
        PendingDigest { lanes: self, slot }
    }

    fn digest(&self, slot: &Slot) -> Digest {
        let mut state = self.lock();
        loop {
            if let Some(digest) = slot.get() {
                return *digest;
            }
            state = match state.hashers < self.most_hashers && !state.waiting.is_empty() {
                true => self.pass(state, true),
                false => self.until_told(state),
            };
        }
    }

    fn pass_if_full(&self) {
        let mut state = self.lock();
        while state.is_full() {
            state = match state.hashers < self.most_hashers {
                true => self.pass(state, false),
                false => self.until_told(state),
            };
        }
    }

    /// Hashes those that wait, and perhaps those that come at once.
    fn pass<'a>(&'a self, mut state: MutexGuard<'a, State>, gather: bool) -> MutexGuard<'a, State> {
        state.hashers += 1;
        if gather {
            state = self.gather(state);
        }
        let pass = state.waiting.len().min(MOST);
        let pass: Vec<Waiting> = state.waiting.drain(..pass).collect();
        drop(state);
        let since = Instant::now();
        let digests = all(pass.iter().map(|waiting| &waiting.block[..]).collect());
        for (waiting, digest) in pass.iter().zip(digests) {
            // It has one place, and is hashed once.
            let _ = waiting.slot.set(digest);
        }
        let last = (pass.len(), since.elapsed());
        // Before anybody is told: the memory is for the next ones.
        drop(pass);
        let mut state = self.lock();
        state.hashers -= 1;
        state.last = last;
        self.told.notify_all();
        state
    }

    /// Waits for more blocks as long as they come at once: a pass takes hardly longer for many than for two. Those who
    /// bring them one by one do not wait.
    fn gather<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (blocks, took) = state.last;
        if blocks.max(state.waiting.len()) < 2 {
            return state;
        }
        let wait = (took / 3).min(LONGEST_WAIT);
        while !state.is_full() {
            let before = state.waiting.len();
            (state, _) = self
                .came
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            if state.waiting.len() <= before {
                break;
            }
        }
        state
    }

    fn until_told<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.told
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digests of all of them, in their order.
fn all(blocks: Vec<&[u8]>) -> Vec<Digest> {
    // Alone, a block is hashed faster without lanes.
    match blocks.len() > 1 && *SOUND {
        true => side_by_side(&blocks),
        false => blocks.into_iter().map(Digest::of).collect(),
    }
}

fn side_by_side(blocks: &[&[u8]]) -> Vec<Digest> {
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
static SOUND: LazyLock<bool> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..MOST * 200).map(|at| ((at * 7) >> 3) as u8).collect();
    let blocks: Vec<&[u8]> = (0..MOST).map(|at| &bytes[at * 190..][..at + 180]).collect();
    let wanted: Vec<Digest> = blocks.iter().map(|block| Digest::of(block)).collect();
    let sound = side_by_side(&blocks) == wanted && side_by_side(&blocks[..3]) == wanted[..3];
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
        for many in 1..=2 * MOST + 1 {
            let blocks: Vec<Bytes> = (0..many)
                .map(|at| block(at, lengths[(at * 5 + many) % lengths.len()]))
                .collect();
            let wanted: Vec<Digest> = blocks.iter().map(|block| Digest::of(block)).collect();
            let hashed = all(blocks.iter().map(|block| &block[..]).collect());
            assert_eq!(hashed, wanted, "{many} at once");
        }
    }

    fn lanes(most_hashers: usize) -> &'static Lanes {
        Box::leak(Box::new(Lanes::new(most_hashers)))
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
                            let wanted: Digest = Digest::of(&block);
                            let hashing = lanes.begin(block, 1 + thread);
                            if turn % 3 == 0 {
                                lanes.pass_if_full();
                            }
                            assert_eq!(hashing.digest(), wanted);
                        }
                    });
                }
            });
            assert!(lanes.lock().waiting.is_empty());
        }
    }

    #[test]
    fn blocks_wait_until_one_is_wanted_or_all_are_there() {
        let lanes = lanes(1);
        let begin = |seed| lanes.begin(block(seed, 1000), 3);
        let first = begin(0);
        let second = begin(1);
        lanes.pass_if_full();
        if !*HAS_INSTRUCTION {
            assert_eq!(lanes.lock().waiting.len(), 2);
        }
        let third = begin(2);
        lanes.pass_if_full();
        assert!(lanes.lock().waiting.is_empty());
        let dropped = begin(3);
        drop(dropped);
        assert!(lanes.lock().waiting.is_empty());
        for (seed, hashing) in [first, second, third].into_iter().enumerate() {
            assert_eq!(hashing.digest(), Digest::of(&block(seed, 1000)));
        }
    }
}
