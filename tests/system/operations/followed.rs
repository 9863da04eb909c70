//! The engine's view follows a host by what libvirt tells, long before it asks again by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use snapdeck_engine::{Engine, HostView, Link as Linked, View};
use snapdeck_host::{Host, ScanCache};
use snapdeck_model::{Kind, SandboxState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::{Fault, Link, State, World, only_local};

/// Less than the slow poll under the events takes to come round (30 s).
const BY_EVENTS: Duration = Duration::from_secs(10);
/// For what needs a poll or a few tries.
const IN_TIME: Duration = Duration::from_secs(60);

/// Waits until the view of the host is as wanted; wakes by the engine's own calls only.
#[track_caller]
fn seen<'a>(
    engine: &Engine,
    within: Duration,
    wanted: impl Fn(&HostView) -> bool + 'a,
) -> impl Future<Output = ()> + 'a {
    let mut watch = engine.watch();
    let caller = std::panic::Location::caller();
    async move {
        let found = watch.wait_for(|view: &Arc<View>| wanted(&view.hosts[0]));
        if timeout(within, found).await.is_err() {
            panic!("{caller}: not seen: {:?}", watch.borrow().hosts[0]);
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
async fn what_another_hand_does_shows_at_once() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Off);
    let engine = world.engine().await;
    engine.follow();
    seen(&engine, IN_TIME, state_is(&id, SandboxState::ShutOff)).await;

    for (verb, state) in [
        ("start", SandboxState::Running),
        ("suspend", SandboxState::Paused),
        ("resume", SandboxState::Running),
        ("managedsave", SandboxState::Saved),
        ("start", SandboxState::Running),
        ("destroy", SandboxState::ShutOff),
    ] {
        world.virsh(&[verb, &id]);
        seen(&engine, BY_EVENTS, state_is(&id, state)).await;
    }
    world.virsh(&["undefine", &id]);
    seen(&engine, BY_EVENTS, |host| host.sandboxes.is_empty()).await;
    let id = world.sandbox("b", "base", State::Off);
    seen(&engine, BY_EVENTS, state_is(&id, SandboxState::ShutOff)).await;
    engine.shutdown().await;
}

/// The way to a host's libvirt: its line, or a socket before libvirt's own.
enum Direction<'a> {
    Line(&'a Link),
    Relay(Relay),
}

struct Relay {
    real: String,
    tasks: Option<JoinSet<()>>,
    /// What it was sent so far.
    asked_bytes: Arc<AtomicU64>,
}

impl<'a> Direction<'a> {
    fn open(world: &'a World) -> Self {
        if world.is_over_ssh() {
            return Self::Line(world.link());
        }
        Self::Relay(Relay::open(world))
    }

    fn cut(&mut self, world: &World) {
        match self {
            Self::Line(link) => link.cut(Fault::Closed),
            Self::Relay(relay) => relay.cut(world),
        }
    }

    fn heal(&mut self, world: &World) {
        match self {
            Self::Line(link) => link.heal(),
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
            asked_bytes: Arc::default(),
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
        let (real, asked_bytes) = (self.real.clone(), self.asked_bytes.clone());
        self.tasks.insert(JoinSet::new()).spawn(async move {
            let mut passed = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = UnixStream::connect(&real).await.unwrap();
                let (mut from_near, mut to_near) = near.into_split();
                let (mut from_far, mut to_far) = far.into_split();
                passed.spawn(async move {
                    let _ = tokio::io::copy(&mut from_far, &mut to_near).await;
                });
                let asked_bytes = asked_bytes.clone();
                passed.spawn(async move {
                    let mut piece = [0; 4096];
                    while let Ok(bytes @ 1..) = from_near.read(&mut piece).await {
                        asked_bytes.fetch_add(bytes as u64, Relaxed);
                        if to_far.write_all(&piece[..bytes]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_host_where_nothing_happens_libvirt_is_not_asked_again() {
    if only_local("the questions are counted on a socket") {
        return;
    }
    // Of others' guests it would be told, too.
    let world = World::private_local();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Off);
    let mut relay = Relay::open(&world);
    let counter = relay.asked_bytes.clone();
    let asked_bytes = || counter.load(Relaxed);
    let host = Host::new(world.settings().hosts[0].clone()).unwrap();
    // Whether it will tell is known once it has been spoken to.
    let mut known = None;
    let first = host.inventory().scan_cached(&mut known).await.unwrap();
    assert_eq!(first.sandboxes[0].id.as_str(), id);
    host.inventory().scan_cached(&mut known).await.unwrap();

    let (before, rounds) = (asked_bytes(), 20);
    for _ in 0..rounds {
        assert_eq!(
            host.inventory().scan_cached(&mut known).await.unwrap(),
            first
        );
    }
    // A question has 28 bytes at least, and so have the two words every five seconds that keep the line alive.
    let asked = asked_bytes() - before;
    assert!(asked < rounds * 28, "{asked} bytes");

    // What happens shows: a file that nobody tells of, and what libvirt tells.
    world.snapshot("more", 0);
    let seen = host.inventory().scan_cached(&mut known).await.unwrap();
    assert_eq!(seen.snapshots.len(), 2);
    let mut changes = host.libvirt().changes();
    for verb in ["start", "managedsave"] {
        world.virsh(&[verb, &id]);
        timeout(BY_EVENTS, changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
    let saved = timeout(BY_EVENTS, async {
        while state(&host, &mut known).await != SandboxState::Saved {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    saved.await.expect("it is saved");

    // Of this it does not tell; who does not know better asks.
    world.virsh(&["managedsave-remove", &id]);
    known = None;
    for _ in 0..3 {
        assert_eq!(state(&host, &mut known).await, SandboxState::ShutOff);
    }

    // And a libvirt that is gone shows.
    changes.mark_unchanged();
    relay.cut(&world);
    timeout(BY_EVENTS, changes.changed())
        .await
        .unwrap()
        .unwrap();
    let error = host.inventory().scan_cached(&mut known).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    world.virsh(&["undefine", &id]);
    relay.heal(&world);
    assert!(
        host.inventory()
            .scan_cached(&mut known)
            .await
            .unwrap()
            .sandboxes
            .is_empty()
    );
}

/// State of the host's only sandbox at a glance.
async fn state(host: &Host, known: &mut Option<ScanCache>) -> SandboxState {
    host.inventory().scan_cached(known).await.unwrap().sandboxes[0].state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_shows_and_heals_and_events_come_again() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Running);
    let mut way = Direction::open(&world);
    let engine = world.engine().await;
    engine.follow();
    seen(&engine, IN_TIME, state_is(&id, SandboxState::Running)).await;

    way.cut(&world);
    seen(&engine, BY_EVENTS, |host| {
        matches!(&host.link, Linked::Down(_))
    })
    .await;
    let view = engine.view();
    assert!(
        state_is(&id, SandboxState::Running)(&view.hosts[0]),
        "what was seen last stays on screen"
    );

    world.virsh(&["suspend", &id]);
    way.heal(&world);
    seen(&engine, IN_TIME, |host| host.link == Linked::Up).await;
    seen(&engine, BY_EVENTS, state_is(&id, SandboxState::Paused)).await;
    world.virsh(&["resume", &id]);
    seen(&engine, BY_EVENTS, state_is(&id, SandboxState::Running)).await;
    engine.shutdown().await;
}
