//! Load of a host: how busy and how full it is.

use std::time::Instant;

/// Load of a host at one time. The values are rounded to what a display needs, so that equal ones look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLoad {
    /// Logical CPUs.
    pub cpus: u32,
    /// CPU use since the previous sample, in 1/1000 of all CPUs, in steps of 10; `None`: unknown, such as at the first sample.
    pub cpu_permille: Option<u32>,
    /// Installed memory in bytes.
    pub memory_total_bytes: u64,
    /// Memory in use in bytes, without the page cache, in steps of about 1/512 of the total.
    pub memory_used_bytes: u64,
    /// Free bytes of the file system of the snapshots directory at the last scan, at most a minute ago, in steps of about
    /// 1/1024 of its size; `None`: unknown.
    pub snapshots_free_bytes: Option<u64>,
    /// Size of that file system in bytes.
    pub snapshots_total_bytes: Option<u64>,
    /// Time of the sample.
    pub sampled_at: Instant,
}

impl HostLoad {
    /// Returns whether a display of both is the same, but for the age.
    pub fn looks_like(&self, other: &Self) -> bool {
        let sampled_at = self.sampled_at;
        Self {
            sampled_at,
            ..*other
        } == *self
    }
}
