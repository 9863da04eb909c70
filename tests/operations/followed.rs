//! The engine's view follows a host by what libvirt tells, long before it asks again by itself.

use std::sync::Arc;
use std::time::Duration;

use snapdeck::engine::{Engine, HostView, Link as Linked, View};
use snapdeck::model::SandboxState;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::{Fault, Link, State, World};

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
enum Way<'a> {
    Line(&'a Link),
    Relay(String, Option<JoinSet<()>>),
}

impl<'a> Way<'a> {
    fn open(world: &'a World) -> Self {
        if world.is_over_ssh() {
            return Self::Line(world.link());
        }
        let path = world.path("relay");
        world.set_socket(&path);
        world.configure("");
        let mut way = Self::Relay(world.libvirt_socket(), None);
        way.heal(world);
        way
    }

    fn cut(&mut self, world: &World) {
        match self {
            Self::Line(link) => link.cut(Fault::Closed),
            Self::Relay(_, tasks) => {
                // Ends all connections.
                *tasks = None;
                std::fs::remove_file(world.path("relay")).unwrap();
            }
        }
    }

    fn heal(&mut self, world: &World) {
        match self {
            Self::Line(link) => link.heal(),
            Self::Relay(real, tasks) => {
                let (listener, real) = (
                    UnixListener::bind(world.path("relay")).unwrap(),
                    real.clone(),
                );
                tasks.insert(JoinSet::new()).spawn(async move {
                    let mut passed = JoinSet::new();
                    while let Ok((mut near, _)) = listener.accept().await {
                        let mut far = UnixStream::connect(&real).await.unwrap();
                        passed.spawn(async move {
                            let _ = copy_bidirectional(&mut near, &mut far).await;
                        });
                    }
                });
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_shows_and_heals_and_events_come_again() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Running);
    let mut way = Way::open(&world);
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
