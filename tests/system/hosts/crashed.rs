//! A libvirtd that crashes and is restarted, as systemd does.

use std::time::Duration;

use snapdeck_engine::Link;
use tokio::time::timeout;

use crate::common::{State, World};

const DEADLINE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn snapdeck_reconnects_and_follows_changes_after_a_crash() {
    let world = World::private_local();
    world.snapshot("base", 0);
    let running = world.sandbox("a", "base", State::Running);
    let engine = world.engine().await;
    engine.follow();
    let mut watch = engine.watch();
    let listed = watch.wait_for(|view| view.hosts[0].sandboxes.len() == 1);
    timeout(DEADLINE, listed).await.unwrap().unwrap();

    let crashes = world.wait_for_restart();
    world.signal_libvirtd("SEGV");
    let lost = watch.wait_for(|view| view.hosts[0].link != Link::Up);
    timeout(DEADLINE, lost)
        .await
        .expect("the connection is lost")
        .unwrap();
    let up = watch.wait_for(|view| view.hosts[0].link == Link::Up);
    timeout(DEADLINE, up)
        .await
        .expect("the connection is up again")
        .unwrap();

    assert_eq!(world.wait_for_restart(), crashes + 1);
    assert_eq!(world.state(&running), "running");
    world.sandbox("b", "base", State::Off);
    let listed = watch.wait_for(|view| view.hosts[0].sandboxes.len() == 2);
    timeout(DEADLINE, listed)
        .await
        .expect("the new sandbox is listed")
        .unwrap();
    engine.shutdown().await;
}
