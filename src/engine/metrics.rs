//! What the sandbox that somebody looks at is doing. Nobody looking: nothing is asked. It stands beside the view,
//! which would be made anew every two seconds otherwise.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, join3};
use tokio::time::sleep;

use super::view::{HostView, Link};
use super::{Engine, Inner, jobs};
use snapdeck_host::{Host, VncTunnel};
use snapdeck_model::{
    AgentChannel, Error, Guest, GuestAccess, HostName, Picture, Result, Sandbox, SandboxId, Stats,
};

/// A selection that moves on is not looked at.
const SELECTION_DEBOUNCE: Duration = Duration::from_millis(150);
/// Between two looks at the counters, and at the screen.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks at how the guest is reached, and so at whether its agent has come up.
const ACCESS_INTERVAL: Duration = Duration::from_secs(10);
/// Between two questions to the guest's agent.
const GUEST_INFO_INTERVAL: Duration = Duration::from_secs(60);
/// After something did not answer.
const ERROR_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Samples that are kept of a sandbox: two minutes.
const MAX_SAMPLES: usize = 60;

/// What somebody looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchTarget {
    /// The host.
    pub host: HostName,
    /// The sandbox; one with a QEMU process.
    pub sandbox: SandboxId,
    /// Its screen, too?
    pub include_screen: bool,
}

/// What it uses, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When.
    pub time: Instant,
    /// How busy its virtual CPUs are: 1.0 is all of them.
    pub cpu: Option<f64>,
    /// Bytes of the host's memory that it holds.
    pub resident_bytes: Option<u64>,
    /// Bytes a second read from its disks.
    pub read_rate: f64,
    /// Bytes a second written to them.
    pub write_rate: f64,
    /// Bytes a second received.
    pub receive_rate: f64,
    /// Bytes a second sent.
    pub send_rate: f64,
    /// Bytes that its overlay takes.
    pub overlay_bytes: Option<u64>,
}

/// What the sandbox that is looked at does.
#[derive(Debug, Clone)]
pub struct SandboxMetrics {
    /// Who.
    pub target: WatchTarget,
    /// What it used of late, oldest first, a sample about every two seconds.
    pub samples: VecDeque<Sample>,
    /// When its QEMU process was started, where that is known.
    pub started_at: Option<Instant>,
    /// How it is reached, once that is known.
    pub guest_access: Option<GuestAccess>,
    /// What its agent says.
    pub guest: Option<Guest>,
    /// Its screen.
    pub screen: Option<Arc<Picture>>,
    /// Why there is no (newer) picture of it.
    pub screen_error: Option<Error>,
    /// Why there are no newer samples.
    pub error: Option<Error>,
}

impl SandboxMetrics {
    fn new(look: WatchTarget, samples: VecDeque<Sample>) -> Self {
        Self {
            target: look,
            samples,
            started_at: None,
            guest_access: None,
            guest: None,
            screen: None,
            screen_error: None,
            error: None,
        }
    }
}

/// Tunnels that were asked for, by host and sandbox.
pub(super) type Tunnels = HashMap<(HostName, SandboxId), Arc<VncTunnel>>;

impl Engine {
    /// Tells what somebody looks at now: a sandbox with a QEMU process, or nothing. It is asked what it does as long
    /// as that is so; [`Engine::live`] has the answers. Cheap where it is what it was.
    pub fn watch_sandbox(&self, look: Option<WatchTarget>) {
        self.inner.watch_target.send_if_modified(|old| {
            let differs = *old != look;
            *old = look;
            differs
        });
    }

    /// Woken when there is news of what is looked at; `None` where nothing is.
    pub fn metrics(&self) -> tokio::sync::watch::Receiver<Option<Arc<SandboxMetrics>>> {
        self.inner.metrics.subscribe()
    }

    /// A URL for a VNC viewer on this machine, `vnc://ADDRESS:PORT`, and whether it leads through a tunnel, which is
    /// opened for it where it must be and stands until the engine ends.
    ///
    /// # Errors
    /// `Unsupported` where the sandbox has no VNC server that can be reached; `NotFound`; `Unreachable`.
    pub async fn viewer_url(&self, host: &HostName, sandbox: &SandboxId) -> Result<(String, bool)> {
        let key = (host.clone(), sandbox.clone());
        let before = self.inner.tunnels().get(&key).cloned();
        let tunnel = self
            .host(host)?
            .sandboxes()
            .open_tunnel(sandbox, before)
            .await?;
        let answer = (tunnel.url(), tunnel.is_forwarded());
        self.inner.tunnels().insert(key, tunnel);
        Ok(answer)
    }
}

/// Follows what is looked at, whatever it is, until the engine ends.
pub(super) async fn follow(inner: Arc<Inner>) {
    let mut looks = inner.watch_target.subscribe();
    let mut meters = MeterSet::default();
    loop {
        let look = looks.borrow_and_update().clone();
        let watching: BoxFuture<()> = match &look {
            Some(look) => {
                meters.watch(look);
                begin(&inner, look, &meters);
                watch(&inner, look, &mut meters).boxed()
            }
            None => {
                inner.metrics.send_replace(None);
                pending().boxed()
            }
        };
        tokio::select! {
            () = watching => {}
            changed = looks.changed() => if changed.is_err() { return },
            () = inner.stop.cancelled() => return,
        }
    }
}

/// Shows what is known of it already.
fn begin(inner: &Inner, look: &WatchTarget, meters: &MeterSet) {
    inner.metrics.send_modify(|live| {
        let same = |live: &&mut Arc<SandboxMetrics>| {
            live.target.host == look.host && live.target.sandbox == look.sandbox
        };
        match live.as_mut().filter(same) {
            Some(live) => Arc::make_mut(live).target = look.clone(),
            None => {
                let samples = meters.samples(&look.sandbox);
                *live = Some(Arc::new(SandboxMetrics::new(look.clone(), samples)));
            }
        }
    });
}

/// Changes what is shown, and tells.
fn show(inner: &Inner, change: impl FnOnce(&mut SandboxMetrics)) {
    inner.metrics.send_if_modified(|live| {
        let live = live.as_mut().map(Arc::make_mut);
        live.map(change).is_some()
    });
}

async fn watch(inner: &Inner, look: &WatchTarget, meters: &mut MeterSet) {
    let Ok((index, host)) = jobs::find_host(inner, &look.host) else {
        return pending().await;
    };
    sleep(SELECTION_DEBOUNCE).await;
    let screen = async {
        if look.include_screen {
            fetch_screen(inner, index, host, look).await;
        }
    };
    join3(
        sample_stats(inner, index, host, look, meters),
        query_guest(inner, index, host, look),
        screen,
    )
    .await;
}

/// The host as it was last seen, once it answers: one that is away is its follower's to call, which knows how often.
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
    look: &WatchTarget,
    meters: &mut MeterSet,
) {
    loop {
        let view = wait_for_host(inner, index).await;
        let active = view.sandboxes.iter().filter(|one| one.state.is_active());
        let asked = Instant::now();
        let stats = host
            .sandboxes()
            .stats(active.map(|one| one.id.clone()).collect())
            .await;
        let wait = match stats {
            Ok(stats) => {
                meters.record(&stats, &view.sandboxes, Instant::now());
                show(inner, |live| {
                    live.samples = meters.samples(&look.sandbox);
                    live.error = None;
                });
                SAMPLE_INTERVAL.saturating_sub(asked.elapsed())
            }
            Err(error) => {
                show(inner, |live| live.error = Some(error));
                ERROR_RETRY_INTERVAL
            }
        };
        sleep(wait).await;
    }
}

/// Looks at the screen; tells only of one that has changed.
async fn fetch_screen(inner: &Inner, index: usize, host: &Host, look: &WatchTarget) {
    let mut before = None;
    loop {
        wait_for_host(inner, index).await;
        let asked = Instant::now();
        let taken = host
            .sandboxes()
            .screenshot(&look.sandbox, before.clone())
            .await;
        let wait = match taken {
            Ok(picture) => {
                let changed = before
                    .as_ref()
                    .is_none_or(|old| !Arc::ptr_eq(old, &picture));
                before = Some(picture.clone());
                if changed {
                    show(inner, |live| {
                        live.screen = Some(picture);
                        live.screen_error = None;
                    });
                }
                // Over a line that crawls pictures leave room for the rest.
                SAMPLE_INTERVAL.max(asked.elapsed() * 4)
            }
            Err(error) => {
                before = None;
                show(inner, |live| {
                    live.screen = None;
                    live.screen_error = Some(error);
                });
                ERROR_RETRY_INTERVAL
            }
        };
        sleep(wait).await;
    }
}

/// Asks since when it runs, how it is reached, and its agent.
async fn query_guest(inner: &Inner, index: usize, host: &Host, look: &WatchTarget) {
    wait_for_host(inner, index).await;
    if let Some(age) = host.sandboxes().uptime(&look.sandbox).await {
        show(inner, |live| {
            live.started_at = Instant::now().checked_sub(age)
        });
    }
    let mut asked: Option<Instant> = None;
    loop {
        wait_for_host(inner, index).await;
        if let Ok(reach) = host.sandboxes().guest_access(&look.sandbox).await {
            let is_open = reach.agent == AgentChannel::Connected;
            show_if_new(inner, |live| &mut live.guest_access, Some(reach));
            let is_due = asked.is_none_or(|asked| asked.elapsed() >= GUEST_INFO_INTERVAL);
            if is_open && is_due {
                asked = Some(Instant::now());
                let guest = host.sandboxes().query_agent(&look.sandbox).await.ok();
                show_if_new(inner, |live| &mut live.guest, guest);
            } else if !is_open {
                asked = None;
                show_if_new(inner, |live| &mut live.guest, None);
            }
        }
        sleep(ACCESS_INTERVAL).await;
    }
}

fn show_if_new<T: PartialEq>(inner: &Inner, part: impl Fn(&mut SandboxMetrics) -> &mut T, new: T) {
    inner.metrics.send_if_modified(|live| {
        let Some(live) = live.as_mut().map(Arc::make_mut) else {
            return false;
        };
        let old = part(live);
        let differs = *old != new;
        *old = new;
        differs
    });
}

/// The samples of all running sandboxes of one host: who moves the selection finds them there.
#[derive(Default)]
struct MeterSet {
    host: Option<HostName>,
    meters: HashMap<SandboxId, Meter>,
}

struct Meter {
    last_time: Instant,
    last_stats: Stats,
    samples: VecDeque<Sample>,
}

impl MeterSet {
    fn watch(&mut self, look: &WatchTarget) {
        if self.host.as_ref() != Some(&look.host) {
            self.host = Some(look.host.clone());
            self.meters.clear();
        }
    }

    fn samples(&self, id: &SandboxId) -> VecDeque<Sample> {
        let meter = self.meters.get(id);
        meter.map(|meter| meter.samples.clone()).unwrap_or_default()
    }

    fn record(&mut self, stats: &[Stats], sandboxes: &[Sandbox], at: Instant) {
        self.meters
            .retain(|id, _| stats.iter().any(|one| one.id == *id));
        for stats in stats {
            let overlay = sandboxes
                .iter()
                .find(|sandbox| sandbox.id == stats.id)
                .and_then(Sandbox::disk);
            let meter = self.meters.entry(stats.id.clone());
            let meter = meter.or_insert_with(|| Meter {
                last_time: at,
                last_stats: stats.clone(),
                samples: VecDeque::new(),
            });
            meter.record(stats, overlay, at);
        }
    }
}

impl Meter {
    /// Adds what happened since the counters were last seen. The first look has nothing to compare with, nor has the
    /// first after a long pause: a mean over minutes is no reading.
    fn record(&mut self, stats: &Stats, overlay: Option<&str>, at: Instant) {
        let span = at.saturating_duration_since(self.last_time);
        let last = std::mem::replace(&mut self.last_stats, stats.clone());
        self.last_time = at;
        if span > ERROR_RETRY_INTERVAL * 2 {
            self.samples.clear();
            return;
        }
        let seconds = span.as_secs_f64();
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
            time: at,
            cpu,
            resident_bytes: stats.resident_bytes,
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
    fn samples_are_rates_of_one_process_and_do_not_pile_up() {
        let mut meter = Meter {
            last_time: Instant::now(),
            last_stats: stats(0),
            samples: VecDeque::new(),
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
        // It was started anew: its counters begin again.
        meter.record(&stats(0), None, at(201));
        let last = meter.samples.back().unwrap();
        assert_eq!((last.cpu, last.write_rate), (Some(0.0), 0.0));
        assert_eq!(last.overlay_bytes, None);
        meter.record(&stats(100), None, at(301));
        assert!(meter.samples.is_empty());
    }
}
