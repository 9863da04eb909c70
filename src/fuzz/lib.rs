//! Fuzzing of the parsers of outside bytes, as unit tests beside them.
//!
//! A target has valid inputs and a function; it gets mutations of them for a short while. It fails if the function panics
//! (debug builds check arithmetic, too), takes too much memory or time, or overflows its stack. An ordinary `cargo test`
//! always tries the same inputs; `make fuzz` tries others, guided by the branches that they reach, and longer.
//!
//! Variables: `SNAPDECK_FUZZ_SECONDS` for each target, `SNAPDECK_FUZZ_SEED`, `SNAPDECK_FUZZ_DIR` for the input that is
//! tried and for findings, `SNAPDECK_FUZZ_INPUT`, a file to try instead.

mod allocator;
mod coverage;
mod mutation;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use coverage::Coverage;
use mutation::{Random, mutate};

/// Of an ordinary test.
const DEFAULT_SECONDS: f64 = 0.1;
/// CPU time of one input.
const MAX_CPU_TIME: Duration = Duration::from_secs(3);
/// An input that takes longer does not end.
const MAX_TIME: Duration = Duration::from_secs(120);
const MAX_CORPUS: usize = 4_000;
/// Inputs that are kept in the corpus are at most this long.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// A parser to fuzz.
pub struct FuzzTarget {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    max_bytes: usize,
    memory: (usize, usize),
}

impl FuzzTarget {
    /// Returns a target with the empty input, for inputs of up to 64 KiB.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            seeds: vec![Vec::new()],
            words: Vec::new(),
            max_bytes: 64 << 10,
            memory: (1 << 20, 32),
        }
    }

    /// Adds a valid input, or one that has failed before.
    pub fn seed(mut self, input: impl AsRef<[u8]>) -> Self {
        self.seeds.push(input.as_ref().to_vec());
        self
    }

    /// Adds words of the language.
    pub fn words(mut self, words: &[&str]) -> Self {
        self.words
            .extend(words.iter().map(|word| word.as_bytes().to_vec()));
        self
    }

    /// Sets the maximum length of inputs.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the memory that the parser may take: `base` bytes, and `factor` for each byte of the input.
    pub fn memory(mut self, base: usize, factor: usize) -> Self {
        self.memory = (base, factor);
        self
    }

    /// Runs the target.
    ///
    /// # Panics
    /// With the first finding.
    pub fn run(self, parse: impl Fn(&[u8])) {
        if let Some(path) = variable("SNAPDECK_FUZZ_INPUT") {
            let input = fs::read(&path).expect("cannot read SNAPDECK_FUZZ_INPUT");
            return self.check(&input, &parse);
        }
        let seconds = variable("SNAPDECK_FUZZ_SECONDS").and_then(|text| text.parse().ok());
        let seconds = Duration::from_secs_f64(seconds.unwrap_or(DEFAULT_SECONDS));
        let seed = variable("SNAPDECK_FUZZ_SEED").and_then(|text| text.parse().ok());
        let dir = variable("SNAPDECK_FUZZ_DIR").map(PathBuf::from);
        let (mut random, mut coverage) = (Random(seed.unwrap_or(0)), Coverage::default());
        let (mut corpus, mut cases) = (Vec::new(), 0u64);
        for input in &self.seeds {
            coverage.is_new(|| self.try_input(input, dir.as_deref(), &parse));
            corpus.push(input.clone());
            cases += 1;
        }
        let started_at = Instant::now();
        while started_at.elapsed() < seconds {
            let mut input = corpus[random.below(corpus.len())].clone();
            // Long inputs take long: most are short.
            let max_bytes = match random.below(32) {
                0 => self.max_bytes,
                _ => self.max_bytes.min(4096.max(input.len() * 2)),
            };
            mutate(&mut random, &mut input, &corpus, &self.words, max_bytes);
            let is_new = coverage.is_new(|| self.try_input(&input, dir.as_deref(), &parse));
            if is_new && corpus.len() < MAX_CORPUS && input.len() <= MAX_KEPT_BYTES {
                corpus.push(input);
            }
            cases += 1;
        }
        println!(
            "fuzzed: {}: {cases} cases, {} branches, {} inputs kept",
            self.name,
            coverage.branches(),
            corpus.len()
        );
    }

    /// Tries one input; keeps it in `dir` if there is a finding, also one that ends the process.
    fn try_input(&self, input: &[u8], dir: Option<&Path>, parse: &dyn Fn(&[u8])) {
        let current = dir.map(|dir| dir.join(self.name.replace([' ', '/'], "-")));
        if let Some(current) = &current {
            fs::write(current, input).expect("cannot write to SNAPDECK_FUZZ_DIR");
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.check(input, parse))) {
            let shown = input.escape_ascii().to_string();
            let shown: String = shown.chars().take(2_000).collect();
            println!("finding: {}: {} bytes: \"{shown}\"", self.name, input.len());
            if let Some(current) = current {
                println!("repeat it with SNAPDECK_FUZZ_INPUT={}", current.display());
            }
            resume_unwind(panic);
        }
    }

    fn check(&self, input: &[u8], parse: &dyn Fn(&[u8])) {
        let _watchdog = Watchdog::start(self.name);
        let started_at = cpu_time();
        allocator::reset();
        parse(input);
        let (bytes, time) = (allocator::peak_bytes(), cpu_time() - started_at);
        let (base, factor) = self.memory;
        let limit = base + factor * input.len();
        assert!(
            bytes <= limit,
            "{bytes} bytes of memory for {} bytes, not {limit}",
            input.len()
        );
        assert!(
            time <= MAX_CPU_TIME,
            "{time:?} of CPU time for {} bytes",
            input.len()
        );
    }
}

/// Returns the text that a program's output is read as.
pub fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

#[allow(clippy::disallowed_methods)] // A part of tests.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map(Duration::from).unwrap_or_default()
}

/// Ends the process if a target does not end: a thread cannot be stopped.
struct Watchdog;

static RUNNING: Mutex<Vec<(ThreadId, &str, Instant)>> = Mutex::new(Vec::new());

impl Watchdog {
    fn start(name: &'static str) -> Self {
        static THREAD: Once = Once::new();
        THREAD.call_once(|| {
            thread::spawn(|| {
                loop {
                    thread::sleep(Duration::from_secs(1));
                    let running = running();
                    let endless = running
                        .iter()
                        .find(|(_, _, since)| since.elapsed() > MAX_TIME);
                    if let Some((_, name, _)) = endless {
                        eprintln!("finding: {name}: an input takes more than {MAX_TIME:?}");
                        std::process::abort();
                    }
                }
            });
        });
        running().push((thread::current().id(), name, Instant::now()));
        Self
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let id = thread::current().id();
        running().retain(|(thread, _, _)| *thread != id);
    }
}

fn running() -> MutexGuard<'static, Vec<(ThreadId, &'static str, Instant)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
