//! Checks of virtual CPUs and memory that are typed into a form.

use crate::format::{parse_size, size};

/// Highest number of virtual CPUs; the host may allow fewer.
const MAX_CPUS: u32 = 512;
/// Minimum memory, in bytes.
const MIN_MEMORY: u64 = 16 << 20;

/// Returns a number of CPUs, or what is expected.
pub(super) fn check_cpus(typed: Option<u32>) -> Result<u32, String> {
    typed
        .filter(|cpus| (1..=MAX_CPUS).contains(cpus))
        .ok_or_else(|| format!("a number from 1 to {MAX_CPUS}"))
}

/// Returns the bytes of a typed size, or what is expected.
pub(super) fn check_memory(typed: &str) -> Result<u64, String> {
    parse_size(typed)
        .filter(|bytes| *bytes >= MIN_MEMORY)
        .ok_or_else(|| format!("a size such as 4G or 512M, at least {}", size(MIN_MEMORY)))
}
