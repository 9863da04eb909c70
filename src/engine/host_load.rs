//! Load of all reachable hosts, sampled while a front end shows it. It is published separately from the view, which it would
//! change every 5 s.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::state::{Engine, Inner};
use super::view::{HostView, Link, View};
use snapdeck_host::{CpuTime, DiskSpace, LoadSample};
use snapdeck_model::{HostLoad, HostName, Result};

/// Interval of samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// CPU use needs a second sample: the first one is followed soon.
const SECOND_SAMPLE_DELAY: Duration = Duration::from_secs(1);
/// Hosts that are sampled at a time.
const MAX_PARALLEL: usize = 6;
/// While some hosts are slow, the others are shown.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// CPU use since an older sample is misleading.
const MAX_SAMPLE_AGE: Duration = Duration::from_secs(20);
/// Longest wait before a host that did not answer is sampled again.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Steps of the values shown: parts of the total.
const MEMORY_STEPS: u64 = 512;
const DISK_STEPS: u64 = 1024;

impl Engine {
    /// Starts or stops sampling the load of all reachable hosts, every 5 s. Cheap if nothing changes.
    pub fn watch_host_load(&self, is_watched: bool) {
        self.inner.watch_host_load.send_if_modified(|old| {
            let differs = *old != is_watched;
            *old = is_watched;
            differs
        });
    }

    /// Returns a receiver of the load of the hosts that answer. It wakes only if a displayed value has changed; `sampled_at`
    /// is always that of the last sample. The last values stay when sampling stops.
    pub fn host_loads(&self) -> watch::Receiver<Arc<BTreeMap<HostName, HostLoad>>> {
        self.inner.host_loads.subscribe()
    }
}

/// Samples the load of the hosts, while it is watched, until the engine ends.
pub(super) async fn sample_host_loads(inner: Arc<Inner>) {
    let mut watch = inner.watch_host_load.subscribe();
    let mut meters: Vec<Meter> = inner.hosts.iter().map(|_| Meter::default()).collect();
    loop {
        let is_watched = *watch.borrow_and_update();
        let sampling: BoxFuture<()> = match is_watched {
            true => sample(&inner, &mut meters).boxed(),
            false => pending().boxed(),
        };
        tokio::select! {
            () = sampling => {}
            changed = watch.changed() => if changed.is_err() { return },
            () = inner.stop.cancelled() => return,
        }
    }
}

async fn sample(inner: &Inner, meters: &mut [Meter]) {
    let mut views = inner.view.subscribe();
    loop {
        let start = Instant::now();
        let needs_second = sample_round(inner, meters).await;
        let interval = match needs_second {
            true => SECOND_SAMPLE_DELAY,
            false => SAMPLE_INTERVAL,
        };
        let has_new_host = |view: &Arc<View>| {
            let mut hosts = view.hosts.iter().zip(&*meters);
            hosts.any(|(host, meter)| is_up(host) && meter.is_new())
        };
        tokio::select! {
            () = sleep(interval.saturating_sub(start.elapsed())) => {}
            Ok(_) = views.wait_for(has_new_host) => {}
        }
    }
}

fn is_up(host: &HostView) -> bool {
    host.link == Link::Up
}

/// Samples all hosts that are due; returns whether the CPU use of one is only known after a second sample.
async fn sample_round(inner: &Inner, meters: &mut [Meter]) -> bool {
    let view = inner.view.borrow().clone();
    let mut due = Vec::new();
    for (index, (host, meter)) in view.hosts.iter().zip(&mut *meters).enumerate() {
        match is_up(host) {
            true if meter.is_due() => due.push(index),
            true => {}
            false => *meter = Meter::default(),
        }
    }
    let query = |index: usize| async move { (index, inner.hosts[index].libvirt().load().await) };
    let mut samples = stream::iter(due).map(query).buffer_unordered(MAX_PARALLEL);
    let mut needs_second = false;
    loop {
        match timeout(PUBLISH_INTERVAL, samples.next()).await {
            Ok(Some((index, sample))) => {
                let space = inner.disk_space(&view.hosts[index].name);
                needs_second |= meters[index].record(sample, space, Instant::now());
            }
            Ok(None) => break,
            Err(_) => publish(inner, &view, meters),
        }
    }
    publish(inner, &view, meters);
    needs_second
}

/// Publishes the loads; those that look the same wake no receivers.
fn publish(inner: &Inner, view: &View, meters: &[Meter]) {
    let hosts = view.hosts.iter().zip(meters);
    let loads = hosts.filter_map(|(host, meter)| Some((host.name.clone(), meter.load?)));
    let loads: BTreeMap<HostName, HostLoad> = loads.collect();
    inner.host_loads.send_if_modified(|old| {
        let is_same = old.len() == loads.len()
            && old
                .iter()
                .zip(&loads)
                .all(|((old_name, old), (name, new))| old_name == name && old.looks_like(new));
        *old = Arc::new(loads);
        !is_same
    });
}

/// The samples of one host.
#[derive(Default)]
struct Meter {
    last: Option<(Instant, CpuTime)>,
    load: Option<HostLoad>,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Meter {
    /// Returns whether the host was not sampled since it is reachable.
    fn is_new(&self) -> bool {
        self.load.is_none() && self.failures == 0
    }

    fn is_due(&self) -> bool {
        self.retry_at.is_none_or(|time| time <= Instant::now())
    }

    /// Records a sample; returns whether it is the first one.
    fn record(
        &mut self,
        sample: Result<LoadSample>,
        space: Option<DiskSpace>,
        time: Instant,
    ) -> bool {
        let Ok(sample) = sample else {
            let backoff = SAMPLE_INTERVAL.saturating_mul(2_u32.saturating_pow(self.failures + 1));
            *self = Self {
                failures: (self.failures + 1).min(16),
                retry_at: Some(time + backoff.min(MAX_BACKOFF)),
                ..Self::default()
            };
            return false;
        };
        let is_recent =
            |(last, _): &(Instant, CpuTime)| time.saturating_duration_since(*last) < MAX_SAMPLE_AGE;
        let last = self.last.filter(is_recent).map(|(_, cpu_time)| cpu_time);
        let cpu = sample.cpu_time.zip(last);
        let cpu_permille = cpu.and_then(|(now, then)| now.permille_since(then));
        let memory = sample.memory;
        let used = memory.total_bytes.saturating_sub(memory.available_bytes);
        self.load = Some(HostLoad {
            cpus: sample.cpus,
            cpu_permille: cpu_permille.map(|permille| (permille + 5) / 10 * 10),
            memory_total_bytes: memory.total_bytes,
            memory_used_bytes: round(used, memory.total_bytes / MEMORY_STEPS),
            snapshots_free_bytes: space
                .map(|space| round(space.free_bytes, space.total_bytes / DISK_STEPS)),
            snapshots_total_bytes: space.map(|space| space.total_bytes),
            sampled_at: time,
        });
        self.last = sample.cpu_time.map(|cpu_time| (time, cpu_time));
        (self.failures, self.retry_at) = (0, None);
        last.is_none() && self.last.is_some()
    }
}

/// Rounds down to whole steps of a power of two, at least 1 MiB.
fn round(bytes: u64, step: u64) -> u64 {
    let step = step.max(1 << 20);
    let step = 1_u64 << step.ilog2();
    bytes / step * step
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_host::HostMemory;
    use snapdeck_model::{Error, Kind};

    const GIB: u64 = 1 << 30;

    fn sample(busy: u64, total: u64, available_bytes: u64) -> Result<LoadSample> {
        Ok(LoadSample {
            cpus: 4,
            cpu_time: Some(CpuTime { busy, total }),
            memory: HostMemory {
                total_bytes: 64 * GIB,
                available_bytes,
            },
        })
    }

    #[test]
    fn samples_that_look_the_same_are_equal_and_the_second_one_has_the_cpu_use() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let space = DiskSpace {
            total_bytes: 1024 * GIB,
            free_bytes: 100 * GIB + 5,
        };
        assert!(meter.record(sample(0, 1000, 20 * GIB), Some(space), at(0)));
        assert_eq!(meter.load.unwrap().cpu_permille, None);
        assert!(!meter.record(sample(616, 2000, 20 * GIB), Some(space), at(1)));
        let second = meter.load.unwrap();
        assert_eq!(second.cpu_permille, Some(620));
        assert_eq!(second.memory_used_bytes, 44 * GIB);
        assert_eq!(second.snapshots_free_bytes, Some(100 * GIB));
        let space = DiskSpace {
            free_bytes: 100 * GIB + 7,
            ..space
        };
        meter.record(sample(1240, 3000, 20 * GIB - 9), Some(space), at(6));
        let third = meter.load.unwrap();
        assert!(third.looks_like(&second), "{third:?}");
        assert_eq!(third.sampled_at, at(6));
        assert!(meter.record(sample(1300, 4000, 20 * GIB), None, at(100)));
        let late = meter.load.unwrap();
        assert_eq!((late.cpu_permille, late.snapshots_free_bytes), (None, None));
    }

    #[test]
    fn a_host_that_does_not_answer_has_no_load_and_is_asked_less_often() {
        let mut meter = Meter::default();
        let start = Instant::now();
        meter.record(sample(0, 1000, GIB), None, start);
        let mut waits = Vec::new();
        for _ in 0..6 {
            meter.record(Err(Error::new(Kind::Unreachable, "gone")), None, start);
            assert!(meter.load.is_none() && !meter.is_new());
            waits.push((meter.retry_at.unwrap() - start).as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 60, 60, 60]);
        meter.record(sample(0, 2000, GIB), None, start);
        assert!(meter.is_due() && meter.load.is_some());
    }
}
