//! Resource usage of running sandboxes, in one libvirt call for all of them.

use std::collections::HashSet;
use std::time::Duration;

use virt::connect::Connect;
use virt::error::Error;

use super::Sandboxes;
use crate::CALL_TIMEOUT;
use snapdeck_libvirt::{TypedParams, Value};
use snapdeck_model::{DiskUse, GuestMemory, Result, SandboxId, Stats};

const STATS_KINDS: u32 = virt_sys::VIR_DOMAIN_STATS_CPU_TOTAL
    | virt_sys::VIR_DOMAIN_STATS_VCPU
    | virt_sys::VIR_DOMAIN_STATS_BALLOON
    | virt_sys::VIR_DOMAIN_STATS_BLOCK
    | virt_sys::VIR_DOMAIN_STATS_INTERFACE;
/// Devices of a kind that are read at most.
const MAX_DEVICES: u64 = 64;

impl Sandboxes<'_> {
    /// Returns the usage of those of `ids` that have a QEMU process.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn stats(self, ids: Vec<SandboxId>) -> Result<Vec<Stats>> {
        let query = move |connect: &Connect| query_stats(connect, &ids);
        self.host
            .libvirt
            .call("read the statistics of sandboxes", CALL_TIMEOUT, query)
            .await
    }
}

fn query_stats(connect: &Connect, ids: &[SandboxId]) -> Result<Vec<Stats>, Error> {
    let ids: HashSet<&str> = ids.iter().map(SandboxId::as_str).collect();
    let mut domains = connect.list_all_domains(virt_sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
    domains.retain(|domain| domain.name().is_ok_and(|name| ids.contains(name.as_str())));
    let stats = snapdeck_libvirt::domain_stats(&domains, STATS_KINDS)?
        .into_iter()
        .filter_map(|(name, fields)| Some(parse_stats(name.parse().ok()?, &fields)));
    Ok(stats.collect())
}

/// Parses the fields of one domain (libvirt, "virConnectGetAllDomainStats").
fn parse_stats(id: SandboxId, fields: &TypedParams) -> Stats {
    let number = |name: &str| match fields.get(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    let devices = |kind: &str| {
        0..number(&format!("{kind}.count"))
            .unwrap_or(0)
            .min(MAX_DEVICES)
    };
    let sum = |kind: &str, field: &str| {
        devices(kind)
            .filter_map(|index| number(&format!("{kind}.{index}.{field}")))
            .fold(0, u64::saturating_add)
    };
    let cpus = number("vcpu.current").unwrap_or(1);
    // Without the cgroup controller for CPU time libvirt reports only the times of the virtual CPUs' threads.
    let mut threads = (0..cpus.min(1024)).map(|index| number(&format!("vcpu.{index}.time")));
    let add = |sum: u64, time: Option<u64>| Some(sum.saturating_add(time?));
    let cpu_time = number("cpu.time").or_else(|| threads.try_fold(0, add));
    let disks = devices("block").filter_map(|index| {
        let Some(Value::Text(path)) = fields.get(&format!("block.{index}.path")) else {
            return None;
        };
        Some(DiskUse {
            path: path.clone(),
            // `allocation` is the highest offset written, not the space in use.
            used_bytes: number(&format!("block.{index}.physical")),
        })
    });
    Stats {
        id,
        cpu_time: cpu_time.map(Duration::from_nanos),
        cpus: u32::try_from(cpus).unwrap_or(1).max(1),
        resident_bytes: number("balloon.rss").map(|kib| kib.saturating_mul(1024)),
        memory_bytes: number("balloon.current").map(|kib| kib.saturating_mul(1024)),
        guest_memory: parse_guest_memory(number),
        read_bytes: sum("block", "rd.bytes"),
        written_bytes: sum("block", "wr.bytes"),
        received_bytes: sum("net", "rx.bytes"),
        sent_bytes: sum("net", "tx.bytes"),
        disks: disks.collect(),
    }
}

/// Parses the report of the balloon driver. libvirt requests reports of a domain only if its definition has a period of
/// statistics, as new sandboxes do; those of other programs are left as they are.
fn parse_guest_memory(number: impl Fn(&str) -> Option<u64>) -> Option<GuestMemory> {
    // "available" is what the guest has. Only Linux reports what of it is usable without swapping.
    let total_kib = number("balloon.available")?;
    let free_kib = number("balloon.usable").or_else(|| number("balloon.unused"))?;
    let reported_at = number("balloon.last-update").filter(|time| *time > 0)?;
    Some(GuestMemory {
        total_bytes: total_kib.saturating_mul(1024),
        used_bytes: total_kib.saturating_sub(free_kib).saturating_mul(1024),
        reported_at,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fuzz_samples;

    fn fields(numbers: &[(&str, u64)]) -> TypedParams {
        let value = |(name, number): &(&str, u64)| ((*name).to_owned(), Value::Number(*number));
        numbers.iter().map(value).collect()
    }

    #[test]
    fn devices_are_summed_and_cpu_threads_replace_a_missing_total() {
        let mut params = fields(&[
            ("vcpu.current", 2),
            ("vcpu.0.time", 3_000_000_000),
            ("vcpu.1.time", 1_000_000_000),
            ("balloon.rss", 2048),
            ("block.count", 2),
            ("block.0.wr.bytes", 5),
            ("block.1.wr.bytes", 6),
            ("block.0.physical", 4096),
            ("net.count", 1),
            ("net.0.rx.bytes", 9),
        ]);
        params.insert("block.0.path".into(), Value::Text("/s/vm.qcow2".into()));
        let stats = parse_stats("vm".parse().unwrap(), &params);
        assert_eq!(stats.cpu_time, Some(Duration::from_secs(4)));
        assert_eq!((stats.cpus, stats.resident_bytes), (2, Some(2 << 20)));
        assert_eq!((stats.written_bytes, stats.received_bytes), (11, 9));
        assert_eq!((stats.read_bytes, stats.sent_bytes), (0, 0));
        let disk = DiskUse {
            path: "/s/vm.qcow2".into(),
            used_bytes: Some(4096),
        };
        assert_eq!(stats.disks, [disk]);
        params.insert("cpu.time".into(), Value::Number(7_000_000_000));
        let stats = parse_stats("vm".parse().unwrap(), &params);
        assert_eq!(stats.cpu_time, Some(Duration::from_secs(7)));
    }

    #[test]
    fn the_memory_of_a_guest_is_what_its_driver_reports() {
        let memory = |fields_: &[(&str, u64)]| {
            let stats = parse_stats("vm".parse().unwrap(), &fields(fields_));
            let memory = stats.guest_memory?;
            Some((memory.total_bytes >> 10, memory.used_bytes >> 10))
        };
        let mut linux = vec![
            ("balloon.rss", 900),
            ("balloon.available", 1000),
            ("balloon.unused", 100),
            ("balloon.usable", 600),
            ("balloon.last-update", 1_700_000_000),
        ];
        assert_eq!(memory(&linux), Some((1000, 400)));
        let windows = [linux[1], linux[2], linux[4]];
        assert_eq!(memory(&windows), Some((1000, 900)));
        linux[4].1 = 0;
        assert_eq!(memory(&linux), None, "there was no report yet");
        assert_eq!(memory(&linux[..1]), None, "the guest has no driver");
    }

    #[test]
    fn missing_fields_are_unknown() {
        let stats = parse_stats("vm".parse().unwrap(), &TypedParams::new());
        assert_eq!((stats.cpu_time, stats.resident_bytes), (None, None));
        assert!(stats.disks.is_empty());
        let many = parse_stats("vm".parse().unwrap(), &fields(&[("block.count", u64::MAX)]));
        assert!(many.disks.is_empty());
    }

    #[test]
    fn fuzz_stats() {
        snapdeck_fuzz::FuzzTarget::new("statistics of a domain")
            .seed("block.count=2\nblock.0.rd.bytes=7\nblock.1.rd.bytes=18446744073709551615")
            .seed("vcpu.current=2\nvcpu.0.time=9\nvcpu.1.time=18446744073709551615")
            .seed("block.count=2\nblock.0.rd.bytes=7\nblock.1.rd.bytes=8\nblock.0.path=:/a\nvcpu.current=2\ncpu.time=9")
            .words(&["net.count=2\n", "net.0.rx.bytes=", "net.1.rx.bytes=", "vcpu.0.time=", "vcpu.1.time=", "balloon.rss=", "balloon.usable=", "balloon.available=7\n", "balloon.last-update=1\n"])
            .run(|fields| {
                let id: SandboxId = "box".parse().unwrap();
                assert!(parse_stats(id, &fuzz_samples::typed_params(fields)).disks.len() <= MAX_DEVICES as usize);
            });
    }
}
