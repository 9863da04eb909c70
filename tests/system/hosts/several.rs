//! One host does not hold up another.

use std::time::{Duration, Instant};

use snapdeck_engine::Link;
use tokio::time::timeout;

use crate::common::{Fault, State, World};

/// Far less than a call to a host that hangs is given.
const AT_ONCE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_does_not_hold_up_anothers_listing() {
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
    let seen = watch.wait_for(|view| view.hosts[1].sandboxes.len() == 1);
    let view = timeout(AT_ONCE, seen)
        .await
        .expect("beta is seen")
        .unwrap()
        .clone();
    assert_ne!(view.hosts[0].link, Link::Up);

    // And it comes in when it is back.
    alpha.link().heal();
    let seen = watch.wait_for(|view| view.hosts[0].sandboxes.len() == 1);
    timeout(Duration::from_secs(60), seen)
        .await
        .expect("alpha is seen")
        .unwrap();
    engine.shutdown().await;
}

#[test]
fn of_two_hosts_the_one_that_is_away_is_named_and_the_other_listed() {
    let world = World::over_ssh(2);
    world.hosts[1].snapshot("there", 0);
    world.link().cut(Fault::Frozen);
    let since = Instant::now();
    let ran = world.snapdeck(&["snapshots", "--json"]);
    assert!(since.elapsed() < Duration::from_secs(40));
    let told = ran.json();
    assert_eq!(
        (&told[0]["host"], &told[0]["name"]),
        (&"beta".into(), &"there".into())
    );
    ran.failed(5, &["cannot reach host alpha"]);
}

#[test]
fn of_two_hosts_one_is_cut_off_in_the_middle_of_a_pull_to_both_and_completed_later() {
    let world = World::over_ssh(2);
    world.configure("reconnect_secs = 3");
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 40);
    world.put(&image, "app");
    let beta = &world.hosts[1];
    // Slow enough for a note of how far it came to get through before the cut.
    beta.link().limit(Some(8 << 20));
    beta.link()
        .cut_after(Fault::Closed, crate::common::Direction::ToHost, 20 << 20);
    let pull = ["pull", "app", "--all-hosts", "--json"];
    let ran = world.snapdeck(&pull);
    assert!(ran.stderr.contains("beta"), "{ran:?}");
    assert_eq!(ran.code, Some(5), "{ran:?}");
    let sum = crate::common::sha256(&image);
    assert_eq!(crate::common::sha256(&world.snapshot_path("app")), sum);
    assert!(!beta.names("snapshots").contains(&"app.qcow2".to_owned()));

    beta.link().heal();
    beta.link().limit(None);
    let before = beta.link().bytes_passed(crate::common::Direction::ToHost);
    world.snapdeck(&pull).ok();
    assert_eq!(crate::common::sha256(&beta.snapshot_path("app")), sum);
    assert_eq!(beta.names("snapshots"), ["app.qcow2"]);
    let sent = beta.link().bytes_passed(crate::common::Direction::ToHost) - before;
    assert!(sent < 38 << 20, "what it had was sent again: {sent}");
}
