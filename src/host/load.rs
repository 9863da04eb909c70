//! Load of a host: CPU time and memory, by libvirt.

use std::time::Duration;

use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::CALL_TIMEOUT;
use super::libvirt::Libvirt;
use snapdeck_libvirt::NodeStats;
use snapdeck_model::Result;

/// Short, because a sample is not worth waiting for.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The memory of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// Installed memory.
    pub total_bytes: u64,
    /// Memory available to guests, including the page cache.
    pub available_bytes: u64,
}

/// CPU time of a host since its start, the sum of all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTime {
    /// Time in which a program or the kernel ran, in nanoseconds.
    pub busy: u64,
    /// Time in all, in nanoseconds.
    pub total: u64,
}

/// CPUs and memory of a host at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSample {
    /// Logical CPUs.
    pub cpus: u32,
    /// CPU time; `None`: libvirt does not report it.
    pub cpu_time: Option<CpuTime>,
    /// Memory.
    pub memory: HostMemory,
}

impl CpuTime {
    /// Returns the CPU use since `earlier`, in 1/1000 of all CPUs; `None` if no time has passed, or the host was restarted.
    pub fn permille_since(self, earlier: Self) -> Option<u32> {
        let total = self.total.checked_sub(earlier.total)?;
        let busy = self.busy.checked_sub(earlier.busy)?.min(total);
        let permille = (u128::from(busy) * 1000).checked_div(total.into())?;
        u32::try_from(permille).ok()
    }
}

impl Libvirt {
    /// Returns the memory of the host.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn memory(&self) -> Result<HostMemory> {
        let query = |connect: &Connect| Ok((connect.node_info()?.memory, memory_stats(connect)?));
        let (numa_kib, stats) = self
            .call("read the memory statistics", CALL_TIMEOUT, query)
            .await?;
        Ok(parse_memory(numa_kib, &stats))
    }

    /// Returns CPU time and memory of the host, within 4 s.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn load(&self) -> Result<LoadSample> {
        let query = |connect: &Connect| {
            let info = connect.node_info()?;
            // A driver without CPU times has the rest.
            let cpu_time = snapdeck_libvirt::cpu_stats(connect).ok();
            Ok(LoadSample {
                cpus: info.cpus,
                cpu_time: cpu_time.as_ref().and_then(parse_cpu_time),
                memory: parse_memory(info.memory, &memory_stats(connect)?),
            })
        };
        self.call("read the load", SAMPLE_TIMEOUT, query).await
    }
}

fn memory_stats(connect: &Connect) -> std::result::Result<NodeStats, VirtError> {
    snapdeck_libvirt::memory_stats(connect)
}

fn find(stats: &NodeStats, field: &str) -> Option<u64> {
    let stat = stats.iter().find(|(name, _)| name == field);
    stat.map(|(_, value)| *value)
}

/// Parses the fields of all memory (libvirt, "virNodeGetMemoryStats"). `numa_kib` is the memory of all NUMA cells, which may
/// lack some that is in `free`.
fn parse_memory(numa_kib: u64, stats: &NodeStats) -> HostMemory {
    let kib = |field| find(stats, field).unwrap_or(0);
    HostMemory {
        total_bytes: find(stats, "total")
            .unwrap_or(numa_kib)
            .saturating_mul(1024),
        available_bytes: ["free", "buffers", "cached"]
            .into_iter()
            .fold(0, |sum: u64, field| sum.saturating_add(kib(field)))
            .saturating_mul(1024),
    }
}

/// Parses the fields of all CPUs (libvirt, "virNodeGetCPUStats"). Drivers without times report only a utilisation.
fn parse_cpu_time(stats: &NodeStats) -> Option<CpuTime> {
    let add = |first: u64, second: Option<u64>| first.saturating_add(second.unwrap_or(0));
    let busy = add(find(stats, "kernel")?, find(stats, "user"));
    let idle = add(find(stats, "idle")?, find(stats, "iowait"));
    Some(CpuTime {
        busy,
        total: busy.saturating_add(idle),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stats(fields: &[(&str, u64)]) -> NodeStats {
        let owned = |(name, value): &(&str, u64)| ((*name).to_owned(), *value);
        fields.iter().map(owned).collect()
    }

    #[test]
    fn waiting_for_disks_counts_as_idle() {
        let at = |kernel, user, idle, iowait| {
            let fields = [
                ("kernel", kernel),
                ("user", user),
                ("idle", idle),
                ("iowait", iowait),
            ];
            parse_cpu_time(&stats(&fields)).unwrap()
        };
        let (first, second) = (at(10, 20, 100, 5), at(20, 40, 140, 35));
        assert_eq!(second.permille_since(first), Some(300));
        assert_eq!(first.permille_since(first), None, "no time has passed");
        assert_eq!(first.permille_since(second), None, "the host was restarted");
        let most = at(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(most.permille_since(first), Some(1000));
        assert_eq!(parse_cpu_time(&stats(&[("utilization", 12)])), None);
    }

    #[test]
    fn the_page_cache_counts_as_available() {
        let fields = stats(&[("total", 9), ("free", 2), ("buffers", 1), ("cached", 3)]);
        let memory = parse_memory(8, &fields);
        assert_eq!((memory.total_bytes, memory.available_bytes), (9216, 6144));
        assert_eq!(parse_memory(8, &fields[1..].to_vec()).total_bytes, 8192);
    }
}
