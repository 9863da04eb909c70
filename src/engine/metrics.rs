//! Metrics of the one sandbox that a front end watches. They are published separately from the view, which they would
//! change every 2 s.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, join3};
use tokio::time::sleep;

use super::state::{Engine, Inner};
use super::view::{HostView, Link, Sample, SandboxMetrics, WatchTarget};
use snapdeck_host::Host;
use snapdeck_model::{AgentChannel, GuestMemory, HostName, Sandbox, SandboxId, Stats};

/// Delay that skips sandboxes that are selected only briefly.
const SELECTION_DEBOUNCE: Duration = Duration::from_millis(150);
/// Interval of statistics and screenshots.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// Interval of checks of the VNC server and the agent channel.
const ACCESS_INTERVAL: Duration = Duration::from_secs(10);
/// Interval of queries of the guest agent.
const GUEST_INFO_INTERVAL: Duration = Duration::from_secs(60);
const ERROR_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// A new sandbox reports its memory every 10 s.
const MAX_REPORT_AGE: Duration = Duration::from_secs(30);
/// Samples of two minutes.
const MAX_SAMPLES: usize = 60;

impl Engine {
    /// Selects the sandbox whose metrics are collected, which must have a QEMU process; `None` stops the collection.
    /// Cheap if it is selected already.
    pub fn watch_sandbox(&self, target: Option<WatchTarget>) {
        self.inner.watch_target.send_if_modified(|old| {
            let differs = *old != target;
            *old = target;
            differs
        });
    }

    /// Returns a receiver of the metrics of the watched sandbox; `None` while none is watched.
    pub fn metrics(&self) -> tokio::sync::watch::Receiver<Option<Arc<SandboxMetrics>>> {
        self.inner.metrics.subscribe()
    }
}

/// Collects the metrics of the watched sandbox until the engine ends.
pub(super) async fn collect_metrics(inner: Arc<Inner>) {
    let mut targets = inner.watch_target.subscribe();
    let mut meters = MeterSet::default();
    loop {
        let target = targets.borrow_and_update().clone();
        let collection: BoxFuture<()> = match &target {
            Some(target) => {
                meters.select_host(&target.host);
                publish_initial(&inner, target, &meters);
                collect(&inner, target, &mut meters).boxed()
            }
            None => {
                inner.metrics.send_replace(None);
                pending().boxed()
            }
        };
        tokio::select! {
            () = collection => {}
            changed = targets.changed() => if changed.is_err() { return },
            () = inner.stop.cancelled() => return,
        }
    }
}

/// Publishes the samples that were collected before.
fn publish_initial(inner: &Inner, target: &WatchTarget, meters: &MeterSet) {
    inner.metrics.send_modify(|metrics| {
        let is_same = |metrics: &&mut Arc<SandboxMetrics>| {
            metrics.target.host == target.host && metrics.target.sandbox == target.sandbox
        };
        match metrics.as_mut().filter(is_same) {
            Some(metrics) => Arc::make_mut(metrics).target = target.clone(),
            None => {
                let samples = meters.samples(&target.sandbox);
                *metrics = Some(Arc::new(SandboxMetrics::new(target.clone(), samples)));
            }
        }
    });
}

fn update(inner: &Inner, change: impl FnOnce(&mut SandboxMetrics)) {
    inner.metrics.send_if_modified(|metrics| {
        let metrics = metrics.as_mut().map(Arc::make_mut);
        metrics.map(change).is_some()
    });
}

async fn collect(inner: &Inner, target: &WatchTarget, meters: &mut MeterSet) {
    let Ok((index, host)) = inner.find_host(&target.host) else {
        return pending().await;
    };
    sleep(SELECTION_DEBOUNCE).await;
    let screen = async {
        if target.include_screen {
            take_screenshots(inner, index, host, target).await;
        }
    };
    join3(
        sample_stats(inner, index, host, target, meters),
        query_guest(inner, index, host, target),
        screen,
    )
    .await;
}

/// Returns the host's view once the host is reachable. The inventory retries an unreachable host, with backoff.
async fn wait_for_host(inner: &Inner, index: usize) -> Arc<HostView> {
    loop {
        let host = inner.view.borrow().hosts[index].clone();
        if host.link == Link::Up {
            return host;
        }
        sleep(SAMPLE_INTERVAL).await;
    }
}

async fn sample_stats(
    inner: &Inner,
    index: usize,
    host: &Host,
    target: &WatchTarget,
    meters: &mut MeterSet,
) {
    loop {
        let view = wait_for_host(inner, index).await;
        let active = view
            .sandboxes
            .iter()
            .filter(|sandbox| sandbox.state.is_active());
        let start = Instant::now();
        let stats = host
            .sandboxes()
            .stats(active.map(|sandbox| sandbox.id.clone()).collect())
            .await;
        let wait = match stats {
            Ok(stats) => {
                meters.record(&stats, &view.sandboxes, Instant::now());
                update(inner, |metrics| {
                    metrics.samples = meters.samples(&target.sandbox);
                    metrics.error = None;
                });
                SAMPLE_INTERVAL.saturating_sub(start.elapsed())
            }
            Err(error) => {
                update(inner, |metrics| metrics.error = Some(error));
                ERROR_RETRY_INTERVAL
            }
        };
        sleep(wait).await;
    }
}

/// Publishes a screenshot when it changed.
async fn take_screenshots(inner: &Inner, index: usize, host: &Host, target: &WatchTarget) {
    let mut previous = None;
    loop {
        wait_for_host(inner, index).await;
        let start = Instant::now();
        let screenshot = host
            .sandboxes()
            .screenshot(&target.sandbox, previous.clone())
            .await;
        let wait = match screenshot {
            Ok(picture) => {
                let changed = previous
                    .as_ref()
                    .is_none_or(|old| !Arc::ptr_eq(old, &picture));
                previous = Some(picture.clone());
                if changed {
                    update(inner, |metrics| {
                        metrics.screen = Some(picture);
                        metrics.screen_error = None;
                    });
                }
                // On a slow connection screenshots take at most a fifth of the time.
                SAMPLE_INTERVAL.max(start.elapsed() * 4)
            }
            Err(error) => {
                previous = None;
                update(inner, |metrics| {
                    metrics.screen = None;
                    metrics.screen_error = Some(error);
                });
                ERROR_RETRY_INTERVAL
            }
        };
        sleep(wait).await;
    }
}

/// Reads uptime, VNC server and agent channel, and data of the agent.
async fn query_guest(inner: &Inner, index: usize, host: &Host, target: &WatchTarget) {
    wait_for_host(inner, index).await;
    if let Some(age) = host.sandboxes().uptime(&target.sandbox).await {
        update(inner, |metrics| {
            metrics.started_at = Instant::now().checked_sub(age)
        });
    }
    let mut last_query: Option<Instant> = None;
    loop {
        wait_for_host(inner, index).await;
        if let Ok(access) = host.sandboxes().guest_access(&target.sandbox).await {
            let is_open = access.agent == AgentChannel::Connected;
            update_if_new(inner, |metrics| &mut metrics.guest_access, Some(access));
            let is_due = last_query.is_none_or(|time| time.elapsed() >= GUEST_INFO_INTERVAL);
            if is_open && is_due {
                last_query = Some(Instant::now());
                let guest = host.sandboxes().query_agent(&target.sandbox).await.ok();
                update_if_new(inner, |metrics| &mut metrics.guest, guest);
            } else if !is_open {
                last_query = None;
                update_if_new(inner, |metrics| &mut metrics.guest, None);
            }
        }
        sleep(ACCESS_INTERVAL).await;
    }
}

fn update_if_new<T: PartialEq>(
    inner: &Inner,
    field: impl Fn(&mut SandboxMetrics) -> &mut T,
    new: T,
) {
    inner.metrics.send_if_modified(|metrics| {
        let Some(metrics) = metrics.as_mut().map(Arc::make_mut) else {
            return false;
        };
        let old = field(metrics);
        let differs = *old != new;
        *old = new;
        differs
    });
}

/// The samples of all running sandboxes of one host, so that a newly selected sandbox has samples at once.
#[derive(Default)]
struct MeterSet {
    host: Option<HostName>,
    meters: HashMap<SandboxId, Meter>,
}

struct Meter {
    last_time: Instant,
    last_stats: Stats,
    samples: VecDeque<Sample>,
    report: MemoryReport,
}

/// The last report of a balloon driver. It stays after the driver has stopped, as when the guest reboots into another system,
/// and the host's clock may differ from this one: a report counts while new ones follow.
#[derive(Default)]
struct MemoryReport(Option<(u64, Instant)>);

impl MemoryReport {
    fn current(&mut self, memory: Option<GuestMemory>, now: Instant) -> Option<GuestMemory> {
        let memory = memory?;
        match self.0 {
            Some((reported_at, since)) if reported_at == memory.reported_at => {
                (now.saturating_duration_since(since) < MAX_REPORT_AGE).then_some(memory)
            }
            _ => {
                self.0 = Some((memory.reported_at, now));
                Some(memory)
            }
        }
    }
}

impl MeterSet {
    fn select_host(&mut self, host: &HostName) {
        if self.host.as_ref() != Some(host) {
            self.host = Some(host.clone());
            self.meters.clear();
        }
    }

    fn samples(&self, id: &SandboxId) -> VecDeque<Sample> {
        let meter = self.meters.get(id);
        meter.map(|meter| meter.samples.clone()).unwrap_or_default()
    }

    fn record(&mut self, stats: &[Stats], sandboxes: &[Sandbox], time: Instant) {
        self.meters
            .retain(|id, _| stats.iter().any(|stats| stats.id == *id));
        for stats in stats {
            let overlay = sandboxes
                .iter()
                .find(|sandbox| sandbox.id == stats.id)
                .and_then(Sandbox::disk);
            let meter = self.meters.entry(stats.id.clone());
            let meter = meter.or_insert_with(|| Meter {
                last_time: time,
                last_stats: stats.clone(),
                samples: VecDeque::new(),
                report: MemoryReport::default(),
            });
            meter.record(stats, overlay, time);
        }
    }
}

impl Meter {
    /// Adds a sample of the time since the last statistics. After a long gap it restarts: a mean over minutes is
    /// misleading.
    fn record(&mut self, stats: &Stats, overlay: Option<&str>, time: Instant) {
        let elapsed = time.saturating_duration_since(self.last_time);
        let last = std::mem::replace(&mut self.last_stats, stats.clone());
        self.last_time = time;
        if elapsed > ERROR_RETRY_INTERVAL * 2 {
            self.samples.clear();
            return;
        }
        let seconds = elapsed.as_secs_f64();
        if seconds < 0.1 {
            return;
        }
        let cpu = stats.cpu_time.zip(last.cpu_time).map(|(now, then)| {
            let busy = now.saturating_sub(then).as_secs_f64() / seconds;
            (busy / f64::from(stats.cpus)).min(1.0)
        });
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let disk = stats.disks.iter().find(|disk| Some(&*disk.path) == overlay);
        self.samples.push_back(Sample {
            time,
            cpu,
            resident_bytes: stats.resident_bytes,
            guest_memory: self.report.current(stats.guest_memory, time),
            read_rate: rate(stats.read_bytes, last.read_bytes),
            write_rate: rate(stats.written_bytes, last.written_bytes),
            receive_rate: rate(stats.received_bytes, last.received_bytes),
            send_rate: rate(stats.sent_bytes, last.sent_bytes),
            overlay_bytes: disk.and_then(|disk| disk.used_bytes),
        });
        if self.samples.len() > MAX_SAMPLES {
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::DiskUse;

    fn stats(seconds: u64) -> Stats {
        Stats {
            id: "vm".parse().unwrap(),
            cpu_time: Some(Duration::from_secs(seconds)),
            cpus: 2,
            resident_bytes: Some(1 << 20),
            memory_bytes: None,
            guest_memory: Some(GuestMemory {
                total_bytes: 1 << 20,
                used_bytes: 1 << 19,
                reported_at: seconds.min(150),
            }),
            read_bytes: 0,
            written_bytes: seconds * 1000,
            received_bytes: 0,
            sent_bytes: 0,
            disks: vec![DiskUse {
                path: "/s/vm.qcow2".into(),
                used_bytes: Some(77),
            }],
        }
    }

    #[test]
    fn samples_are_rates_and_their_number_is_limited() {
        let mut meter = Meter {
            last_time: Instant::now(),
            last_stats: stats(0),
            samples: VecDeque::new(),
            report: MemoryReport::default(),
        };
        let start = meter.last_time;
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in 0..=200 {
            meter.record(&stats(seconds), Some("/s/vm.qcow2"), at(seconds));
        }
        assert_eq!(meter.samples.len(), MAX_SAMPLES);
        let last = meter.samples.back().unwrap();
        assert_eq!((last.cpu, last.write_rate), (Some(0.5), 1000.0));
        assert_eq!(last.overlay_bytes, Some(77));
        let with_report = meter
            .samples
            .iter()
            .filter_map(|sample| sample.guest_memory);
        assert_eq!(with_report.count(), 39, "the last report is of second 150");
        // A new process: its counters start at 0.
        meter.record(&stats(0), None, at(201));
        let last = meter.samples.back().unwrap();
        assert_eq!((last.cpu, last.write_rate), (Some(0.0), 0.0));
        assert_eq!(last.overlay_bytes, None);
        meter.record(&stats(100), None, at(301));
        assert!(meter.samples.is_empty());
    }
}
