//! What running sandboxes use, in one call for all of them.

use std::collections::HashSet;
use std::time::Duration;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;

use super::{CALL_TIMEOUT, Host};
use snapdeck_libvirt::{TypedParams, Value};
use snapdeck_model::{DiskUse, Result, SandboxId, Stats};

const STATS_KINDS: u32 = virt_sys::VIR_DOMAIN_STATS_CPU_TOTAL
    | virt_sys::VIR_DOMAIN_STATS_VCPU
    | virt_sys::VIR_DOMAIN_STATS_BALLOON
    | virt_sys::VIR_DOMAIN_STATS_BLOCK
    | virt_sys::VIR_DOMAIN_STATS_INTERFACE;
/// Devices of a kind that are counted; no sandbox comes near.
const MAX_DEVICES: u64 = 64;

impl Host {
    /// What those of `ids` that have a QEMU process use. Others of the host's domains are not asked.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn stats(&self, ids: Vec<SandboxId>) -> Result<Vec<Stats>> {
        let call = move |connect: &Connect| query_stats(connect, &ids);
        self.libvirt
            .call("ask what sandboxes use", CALL_TIMEOUT, call)
            .await
    }
}

fn query_stats(connect: &Connect, ids: &[SandboxId]) -> Result<Vec<Stats>, Error> {
    let ids: HashSet<&str> = ids.iter().map(SandboxId::as_str).collect();
    let is_wanted = |domain: &Domain| domain.name().is_ok_and(|name| ids.contains(name.as_str()));
    let mut domains = connect.list_all_domains(virt_sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
    domains.retain(is_wanted);
    let found = snapdeck_libvirt::domain_stats(&domains, STATS_KINDS)?;
    let stats = found
        .into_iter()
        .filter_map(|(name, fields)| Some(parse_stats(name.parse().ok()?, &fields)));
    Ok(stats.collect())
}

/// Reads the fields of one domain (libvirt, "virConnectGetAllDomainStats").
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
    let sum = |kind: &str, what: &str| {
        devices(kind)
            .filter_map(|index| number(&format!("{kind}.{index}.{what}")))
            .sum()
    };
    let cpus = number("vcpu.current").unwrap_or(1);
    // A host without the controller group for it gives only the times of the virtual CPUs' threads.
    let threads = (0..cpus.min(1024)).map(|index| number(&format!("vcpu.{index}.time")));
    let cpu_time = number("cpu.time").or_else(|| threads.sum());
    let disks = devices("block").filter_map(|index| {
        let Some(Value::Text(path)) = fields.get(&format!("block.{index}.path")) else {
            return None;
        };
        Some(DiskUse {
            path: path.clone(),
            // The allocation is how far into the file was written, not what it takes.
            used_bytes: number(&format!("block.{index}.physical")),
        })
    });
    Stats {
        id,
        cpu_time: cpu_time.map(Duration::from_nanos),
        cpus: u32::try_from(cpus).unwrap_or(1).max(1),
        resident_bytes: number("balloon.rss").map(|kib| kib.saturating_mul(1024)),
        memory_bytes: number("balloon.current").map(|kib| kib.saturating_mul(1024)),
        read_bytes: sum("block", "rd.bytes"),
        written_bytes: sum("block", "wr.bytes"),
        received_bytes: sum("net", "rx.bytes"),
        sent_bytes: sum("net", "tx.bytes"),
        disks: disks.collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(numbers: &[(&str, u64)]) -> TypedParams {
        let value = |(name, number): &(&str, u64)| ((*name).to_owned(), Value::Number(*number));
        numbers.iter().map(value).collect()
    }

    #[test]
    fn adds_up_devices_and_takes_the_threads_where_no_total_is_told() {
        let mut told = fields(&[
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
        told.insert("block.0.path".into(), Value::Text("/s/vm.qcow2".into()));
        let stats = parse_stats("vm".parse().unwrap(), &told);
        assert_eq!(stats.cpu_time, Some(Duration::from_secs(4)));
        assert_eq!((stats.cpus, stats.resident_bytes), (2, Some(2 << 20)));
        assert_eq!((stats.written_bytes, stats.received_bytes), (11, 9));
        assert_eq!((stats.read_bytes, stats.sent_bytes), (0, 0));
        let disk = DiskUse {
            path: "/s/vm.qcow2".into(),
            used_bytes: Some(4096),
        };
        assert_eq!(stats.disks, [disk]);
        told.insert("cpu.time".into(), Value::Number(7_000_000_000));
        let stats = parse_stats("vm".parse().unwrap(), &told);
        assert_eq!(stats.cpu_time, Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_is_not_told_is_not_made_up() {
        let stats = parse_stats("vm".parse().unwrap(), &TypedParams::new());
        assert_eq!((stats.cpu_time, stats.resident_bytes), (None, None));
        assert!(stats.disks.is_empty());
        let many = parse_stats("vm".parse().unwrap(), &fields(&[("block.count", u64::MAX)]));
        assert!(many.disks.is_empty());
    }
}
