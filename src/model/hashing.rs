//! SHA-256 of many blocks at once. One block's rounds wait for each other, but blocks need not: those that wait for a
//! digest at the same time are hashed side by side, one in each lane of the CPU's vectors, which is several times as
//! fast where the CPU has no instruction of its own for it.

use std::collections::HashMap;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
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
    SHARED.hash(block, at_once)
}

/// Blocks that wait, and threads that hash them: of those who bring one, as many as there may be.
struct Lanes {
    most_hashers: usize,
    state: Mutex<State>,
    /// Digests are there.
    told: Condvar,
    /// A block is.
    came: Condvar,
}

struct State {
    tickets: u64,
    waiting: Vec<Waiting>,
    digests: HashMap<u64, Digest>,
    hashers: usize,
    /// How many blocks the last pass had, and how long it took.
    last: (usize, Duration),
}

struct Waiting {
    ticket: u64,
    block: Bytes,
    at_once: usize,
}

impl Lanes {
    fn new(most_hashers: usize) -> Self {
        Self {
            most_hashers,
            state: Mutex::new(State {
                tickets: 0,
                waiting: Vec::new(),
                digests: HashMap::new(),
                hashers: 0,
                last: AT_FIRST,
            }),
            told: Condvar::new(),
            came: Condvar::new(),
        }
    }

    fn hash(&self, block: Bytes, at_once: usize) -> Digest {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = state.tickets;
        state.tickets += 1;
        state.waiting.push(Waiting {
            ticket,
            block,
            at_once,
        });
        self.came.notify_one();
        loop {
            if let Some(digest) = state.digests.remove(&ticket) {
                return digest;
            }
            if state.hashers >= self.most_hashers || state.waiting.is_empty() {
                state = self
                    .told
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.hashers += 1;
            state = self.gather(state);
            let pass = state.waiting.len().min(MOST);
            let pass: Vec<Waiting> = state.waiting.drain(..pass).collect();
            drop(state);
            let since = Instant::now();
            let digests = all(pass.iter().map(|waiting| &waiting.block[..]).collect());
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.hashers -= 1;
            state.last = (pass.len(), since.elapsed());
            let tickets = pass.iter().map(|waiting| waiting.ticket);
            state.digests.extend(tickets.zip(digests));
            self.told.notify_all();
        }
    }

    /// Waits for more blocks as long as they come at once: a pass takes hardly longer for many than for two. Those who
    /// bring them one by one do not wait.
    fn gather<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (blocks, took) = state.last;
        if *HAS_INSTRUCTION || blocks.max(state.waiting.len()) < 2 {
            return state;
        }
        let wait = (took / 3).min(LONGEST_WAIT);
        loop {
            let before = state.waiting.len();
            let most = state.waiting.iter().map(|waiting| waiting.at_once).max();
            if before >= MOST.min(most.unwrap_or_default()) {
                return state;
            }
            (state, _) = self
                .came
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            if state.waiting.len() <= before {
                return state;
            }
        }
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

    #[test]
    fn each_thread_gets_the_digest_of_its_own_block() {
        for most in [1, 3] {
            let lanes = Lanes::new(most);
            std::thread::scope(|scope| {
                for thread in 0..12 {
                    let lanes = &lanes;
                    scope.spawn(move || {
                        for turn in 0..40 {
                            let block = block(thread * 100 + turn, 1000 * thread + turn);
                            let wanted: Digest = Digest::of(&block);
                            assert_eq!(lanes.hash(block, 1 + thread), wanted);
                        }
                    });
                }
            });
            let state = lanes.state.into_inner().unwrap();
            assert!(state.waiting.is_empty() && state.digests.is_empty());
        }
    }
}
