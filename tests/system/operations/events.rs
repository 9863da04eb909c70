//! The engine follows a host by libvirt events, long before its next poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use snapdeck_engine::{Engine, HostView, Link as LinkState, View};
use snapdeck_host::{Host, ScanCache};
use snapdeck_model::{Kind, SandboxState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::{Fault, Link, State, World, only_local};

/// Less than the fallback poll interval (30 s).
const EVENT_DEADLINE: Duration = Duration::from_secs(10);
/// Limit for changes that need a poll or several reconnects.
const POLL_DEADLINE: Duration = Duration::from_secs(60);

/// Waits until the view of the host meets a condition; makes no call to the host itself.
#[track_caller]
fn wait_for_view<'a>(
    engine: &Engine,
    deadline: Duration,
    condition: impl Fn(&HostView) -> bool + 'a,
) -> impl Future<Output = ()> + 'a {
    let mut watch = engine.watch();
    let caller = std::panic::Location::caller();
    async move {
        let found = watch.wait_for(|view: &Arc<View>| condition(&view.hosts[0]));
        if timeout(deadline, found).await.is_err() {
            panic!("{caller}: timed out: {:?}", watch.borrow().hosts[0]);
        }
    }
}

fn state_is(id: &str, state: SandboxState) -> impl Fn(&HostView) -> bool {
    move |host| {
        let mut sandboxes = host.sandboxes.iter();
        sandboxes.any(|sandbox| sandbox.id.as_str() == id && sandbox.state == state)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_other_programs_are_seen_at_once() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Off);
    let engine = world.engine().await;
    engine.follow();
    wait_for_view(&engine, POLL_DEADLINE, state_is(&id, SandboxState::ShutOff)).await;

    for (verb, state) in [
        ("start", SandboxState::Running),
        ("suspend", SandboxState::Paused),
        ("resume", SandboxState::Running),
        ("managedsave", SandboxState::Saved),
        ("start", SandboxState::Running),
        ("destroy", SandboxState::ShutOff),
    ] {
        world.virsh(&[verb, &id]);
        wait_for_view(&engine, EVENT_DEADLINE, state_is(&id, state)).await;
    }
    world.virsh(&["undefine", &id]);
    wait_for_view(&engine, EVENT_DEADLINE, |host| host.sandboxes.is_empty()).await;
    let id = world.sandbox("b", "base", State::Off);
    wait_for_view(
        &engine,
        EVENT_DEADLINE,
        state_is(&id, SandboxState::ShutOff),
    )
    .await;
    engine.shutdown().await;
}

/// The connection to a host's libvirt, which can be cut: SSH, or a relay of the local socket.
enum Connection<'a> {
    Ssh(&'a Link),
    Relay(Relay),
}

struct Relay {
    real: String,
    tasks: Option<JoinSet<()>>,
    /// Bytes sent to libvirt so far.
    sent_bytes: Arc<AtomicU64>,
}

impl<'a> Connection<'a> {
    fn open(world: &'a World) -> Self {
        if world.is_over_ssh() {
            return Self::Ssh(world.link());
        }
        Self::Relay(Relay::open(world))
    }

    fn cut(&mut self, world: &World) {
        match self {
            Self::Ssh(link) => link.cut(Fault::Closed),
            Self::Relay(relay) => relay.cut(world),
        }
    }

    fn heal(&mut self, world: &World) {
        match self {
            Self::Ssh(link) => link.heal(),
            Self::Relay(relay) => relay.heal(world),
        }
    }
}

impl Relay {
    fn open(world: &World) -> Self {
        let path = world.path("relay");
        world.set_socket(&path);
        world.configure("");
        let mut relay = Self {
            real: world.libvirt_socket(),
            tasks: None,
            sent_bytes: Arc::default(),
        };
        relay.heal(world);
        relay
    }

    fn cut(&mut self, world: &World) {
        // Ends all connections.
        self.tasks = None;
        std::fs::remove_file(world.path("relay")).unwrap();
    }

    fn heal(&mut self, world: &World) {
        let listener = UnixListener::bind(world.path("relay")).unwrap();
        let (real, sent_bytes) = (self.real.clone(), self.sent_bytes.clone());
        self.tasks.insert(JoinSet::new()).spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let libvirt = UnixStream::connect(&real).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_libvirt, mut to_libvirt) = libvirt.into_split();
                connections.spawn(async move {
                    let _ = tokio::io::copy(&mut from_libvirt, &mut to_client).await;
                });
                let sent_bytes = sent_bytes.clone();
                connections.spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(bytes @ 1..) = from_client.read(&mut buffer).await {
                        sent_bytes.fetch_add(bytes as u64, Relaxed);
                        if to_libvirt.write_all(&buffer[..bytes]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_host_is_not_queried_again() {
    if only_local("calls are counted on the local socket") {
        return;
    }
    // A private host: events of other tests' guests would add traffic.
    let world = World::private_local();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Off);
    let mut relay = Relay::open(&world);
    let counter = relay.sent_bytes.clone();
    let sent_bytes = || counter.load(Relaxed);
    let host = Host::new(world.settings().hosts[0].clone()).unwrap();
    // Events are subscribed at the first connection.
    let mut cache = None;
    let first = host.inventory().scan_cached(&mut cache).await.unwrap();
    assert_eq!(first.sandboxes[0].id.as_str(), id);
    host.inventory().scan_cached(&mut cache).await.unwrap();

    let (before, rounds) = (sent_bytes(), 20);
    for _ in 0..rounds {
        let mut inventory = host.inventory().scan_cached(&mut cache).await.unwrap();
        // Other tests write to the same disk.
        inventory.snapshots_space = first.snapshots_space;
        assert_eq!(inventory, first);
    }
    // A call has at least 28 bytes, and so has each keepalive message (two every 5 s).
    let sent = sent_bytes() - before;
    assert!(sent < rounds * 28, "{sent} bytes");

    // Changes are found: a new file without an event, and state changes with events.
    world.snapshot("more", 0);
    let inventory = host.inventory().scan_cached(&mut cache).await.unwrap();
    assert_eq!(inventory.snapshots.len(), 2);
    let mut changes = host.libvirt().changes();
    for verb in ["start", "managedsave"] {
        world.virsh(&[verb, &id]);
        timeout(EVENT_DEADLINE, changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
    let saved = timeout(EVENT_DEADLINE, async {
        while state(&host, &mut cache).await != SandboxState::Saved {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    saved.await.expect("the sandbox is saved");

    // There is no event for this; a scan without the cache finds it.
    world.virsh(&["managedsave-remove", &id]);
    cache = None;
    for _ in 0..3 {
        assert_eq!(state(&host, &mut cache).await, SandboxState::ShutOff);
    }

    // A lost connection is reported.
    changes.mark_unchanged();
    relay.cut(&world);
    timeout(EVENT_DEADLINE, changes.changed())
        .await
        .unwrap()
        .unwrap();
    let error = host.inventory().scan_cached(&mut cache).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    world.virsh(&["undefine", &id]);
    relay.heal(&world);
    assert!(
        host.inventory()
            .scan_cached(&mut cache)
            .await
            .unwrap()
            .sandboxes
            .is_empty()
    );
}

/// Returns the state of the host's only sandbox from a cached scan.
async fn state(host: &Host, cache: &mut Option<ScanCache>) -> SandboxState {
    host.inventory().scan_cached(cache).await.unwrap().sandboxes[0].state
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_received_again_after_a_reconnect() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Running);
    let mut connection = Connection::open(&world);
    let engine = world.engine().await;
    engine.follow();
    wait_for_view(&engine, POLL_DEADLINE, state_is(&id, SandboxState::Running)).await;

    connection.cut(&world);
    wait_for_view(&engine, EVENT_DEADLINE, |host| {
        matches!(&host.link, LinkState::Down(_))
    })
    .await;
    let view = engine.view();
    assert!(
        state_is(&id, SandboxState::Running)(&view.hosts[0]),
        "the last known state is not shown any more"
    );

    world.virsh(&["suspend", &id]);
    connection.heal(&world);
    wait_for_view(&engine, POLL_DEADLINE, |host| host.link == LinkState::Up).await;
    wait_for_view(&engine, EVENT_DEADLINE, state_is(&id, SandboxState::Paused)).await;
    world.virsh(&["resume", &id]);
    wait_for_view(
        &engine,
        EVENT_DEADLINE,
        state_is(&id, SandboxState::Running),
    )
    .await;
    engine.shutdown().await;
}
