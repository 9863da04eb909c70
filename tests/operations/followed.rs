//! The engine's view follows a host by what libvirt tells, long before it asks again by itself.

use std::sync::Arc;
use std::time::Duration;

use snapdeck::engine::{Engine, HostView, Link, View};
use snapdeck::model::SandboxState;
use snapdeck::settings::{self, Flags};
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::{State, World};

/// Less than the slow poll under the events takes to come round (30 s).
const BY_EVENTS: Duration = Duration::from_secs(10);
/// For what needs a poll or a few tries.
const IN_TIME: Duration = Duration::from_secs(60);

async fn engine(world: &World) -> Engine {
    let flags = Flags {
        config: Some(world.config()),
        ..Flags::default()
    };
    let settings = settings::load(&flags, &|_| None, None).unwrap().settings;
    Engine::new(settings).await.unwrap()
}

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
    let engine = engine(&world).await;
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

/// Passes connections on to libvirt's socket; ends them all when dropped.
struct Relay {
    path: String,
    #[allow(dead_code, reason = "ends its tasks when it goes")]
    connections: JoinSet<()>,
}

impl Relay {
    fn open(world: &World) -> Self {
        let path = world.path("relay");
        let real = lab_socket();
        let listener = UnixListener::bind(&path).unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut passed = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = UnixStream::connect(&real).await.unwrap();
                passed.spawn(async move {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { path, connections }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

/// `qemu:///system?socket=PATH`: that path.
fn lab_socket() -> String {
    let uri = std::env::var("SNAPDECK_LAB_URI").unwrap();
    uri.split_once("socket=").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_shows_and_heals_and_events_come_again() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Running);
    let relay = Relay::open(&world);
    world.reconfigure(&lab_socket(), &relay.path);
    let engine = engine(&world).await;
    engine.follow();
    seen(&engine, IN_TIME, state_is(&id, SandboxState::Running)).await;

    drop(relay);
    seen(&engine, BY_EVENTS, |host| {
        matches!(&host.link, Link::Down(_))
    })
    .await;
    let view = engine.view();
    assert!(
        state_is(&id, SandboxState::Running)(&view.hosts[0]),
        "what was seen last stays on screen"
    );

    world.virsh(&["suspend", &id]);
    let _relay = Relay::open(&world);
    seen(&engine, IN_TIME, |host| host.link == Link::Up).await;
    seen(&engine, BY_EVENTS, state_is(&id, SandboxState::Paused)).await;
    world.virsh(&["resume", &id]);
    seen(&engine, BY_EVENTS, state_is(&id, SandboxState::Running)).await;
    engine.shutdown().await;
}
