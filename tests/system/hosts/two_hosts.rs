//! A host that fails does not delay another.

use std::time::{Duration, Instant};

use snapdeck_engine::Link;
use tokio::time::timeout;

use crate::common::{Direction, Fault, State, World, sha256};

/// Far less than the timeout of a call to a host that hangs.
const DEADLINE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_does_not_delay_the_listing_of_another() {
    let world = World::over_ssh(2);
    let [alpha, beta] = &world.hosts[..] else {
        panic!("two hosts")
    };
    for host in [alpha, beta] {
        host.snapshot("base", 0);
        host.sandbox(&host.name, "base", State::Off);
    }
    alpha.link().cut(Fault::Frozen);

    let engine = world.engine().await;
    engine.follow();
    let mut watch = engine.watch();
    let listed = watch.wait_for(|view| view.hosts[1].sandboxes.len() == 1);
    let view = timeout(DEADLINE, listed)
        .await
        .expect("beta is listed")
        .unwrap()
        .clone();
    assert_ne!(view.hosts[0].link, Link::Up);

    // The host is listed once its connection works again.
    alpha.link().heal();
    let listed = watch.wait_for(|view| view.hosts[0].sandboxes.len() == 1);
    timeout(Duration::from_secs(60), listed)
        .await
        .expect("alpha is listed")
        .unwrap();
    engine.shutdown().await;
}

#[test]
fn an_unreachable_host_is_named_and_the_other_is_listed() {
    let world = World::over_ssh(2);
    world.hosts[1].snapshot("app", 0);
    world.link().cut(Fault::Frozen);
    let since = Instant::now();
    let ran = world.snapdeck(&["snapshots", "--json"]);
    assert!(since.elapsed() < Duration::from_secs(40));
    let snapshots = ran.json();
    assert_eq!(
        (&snapshots[0]["host"], &snapshots[0]["name"]),
        (&"beta".into(), &"app".into())
    );
    ran.failed(5, &["cannot reach host alpha"]);
}

#[test]
fn a_host_cut_off_during_a_pull_to_two_is_completed_later() {
    let world = World::over_ssh(2);
    world.configure("reconnect_secs = 3");
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 40);
    world.put(&image, "app");
    let beta = &world.hosts[1];
    // Slow enough for the resume log to be written before the cut.
    beta.link().limit(Some(8 << 20));
    beta.link()
        .cut_after(Fault::Closed, Direction::ToHost, 20 << 20);
    let pull = ["pull", "app", "--all-hosts", "--json"];
    let ran = world.snapdeck(&pull);
    assert!(ran.stderr.contains("beta"), "{ran:?}");
    assert_eq!(ran.code, Some(5), "{ran:?}");
    let sum = sha256(&image);
    assert_eq!(sha256(&world.snapshot_path("app")), sum);
    assert!(!beta.names("snapshots").contains(&"app.qcow2".to_owned()));

    beta.link().heal();
    beta.link().limit(None);
    let before = beta.link().bytes_passed(Direction::ToHost);
    world.snapdeck(&pull).ok();
    assert_eq!(sha256(&beta.snapshot_path("app")), sum);
    assert_eq!(beta.names("snapshots"), ["app.qcow2"]);
    let sent = beta.link().bytes_passed(Direction::ToHost) - before;
    assert!(
        sent < 38 << 20,
        "blocks on the host were sent again: {sent}"
    );
}
