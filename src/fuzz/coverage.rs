//! Counters of branches, which the compiler adds to the crates under test for `make fuzz`
//! (LLVM, "SanitizerCoverage", "Inline 8bit-counters").

use std::sync::{Mutex, PoisonError};

/// Address and length of the counters of each module.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by the constructor of each module.
///
/// # Safety
/// The compiler's code passes the bounds of an array that lives as long as the program.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    let (start, end) = (start as usize, end as usize);
    let mut counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    if start < end && !counters.contains(&(start, end - start)) {
        counters.push((start, end - start));
    }
}

/// The branches that inputs have reached so far.
#[derive(Default)]
pub(crate) struct Coverage {
    seen: Vec<u8>,
}

impl Coverage {
    /// Clears the counters, takes what `run` reaches and returns whether that is something new.
    pub(crate) fn is_new(&mut self, run: impl FnOnce()) -> bool {
        let counters = COUNTERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (start, length) in &counters {
            // SAFETY: the array lives as long as the program. Other threads of the program write to it, too: a lost
            // count does no harm.
            unsafe { std::ptr::write_bytes(*start as *mut u8, 0, *length) };
        }
        run();
        let (mut is_new, mut index) = (false, 0);
        for (start, length) in counters {
            self.seen.resize(self.seen.len().max(index + length), 0);
            for offset in 0..length {
                // SAFETY: as above.
                let count = unsafe { std::ptr::read_volatile((start + offset) as *const u8) };
                // Orders of magnitude: 1, 2, 3, 4 to 7, ...
                let bucket = match count {
                    0 => 0,
                    1..=3 => 1 << (count - 1),
                    count => 1u8 << (count.ilog2() + 1).min(7),
                };
                let seen = &mut self.seen[index + offset];
                is_new |= bucket & !*seen != 0;
                *seen |= bucket;
            }
            index += length;
        }
        is_new
    }

    /// Returns the number of branches that were reached.
    pub(crate) fn branches(&self) -> usize {
        self.seen.iter().filter(|seen| **seen != 0).count()
    }
}
