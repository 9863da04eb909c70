//! UEFI variables: a sandbox's own, which travel with its snapshots.

use crate::common::{State, World, exists, run, sha256};

/// With UEFI, and a snapshot `base` on the first host that has variables of its own; returns their checksum.
fn with_variables(hosts: usize) -> (World, String) {
    let world = World::hosts(hosts);
    world.reconfigure("firmware = \"bios\"", "firmware = \"secure-uefi\"");
    world.snapshot("base", 0);
    let variables = world.path("snapshots/base_VARS.fd");
    random(&variables);
    (world, sha256(&variables))
}

/// As many random bytes as the firmware's variables have.
fn random(path: &str) {
    let of = format!("of={path}");
    run(
        "dd",
        &[
            "if=/dev/urandom",
            &of,
            "bs=540672",
            "count=1",
            "iflag=fullblock",
            "status=none",
        ],
    );
}

#[test]
fn a_new_sandbox_has_the_snapshots_and_they_travel_to_another_host() {
    let (world, sum) = with_variables(2);
    let beta = &world.hosts[1];
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--host", "alpha"])
        .ok();
    let own = |host: &crate::common::Host, id: &str| host.path(&format!("nvram/{id}_VARS.fd"));
    assert_eq!(sha256(&own(&world, &id)), sum);

    // Its own, not the snapshot's, go into the bucket.
    random(&own(&world, &id));
    let sum = sha256(&own(&world, &id));
    world
        .snapdeck(&["push", &id, "app", "--host", "alpha"])
        .ok();
    let listed = world.snapdeck(&["objects", "--json"]).ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");

    let other = world.id("b");
    let new = ["sandbox", "new", &other, "app", "--pull", "--host", "beta"];
    world.snapdeck(&new).ok();
    assert_eq!(sha256(&beta.path("snapshots/app_VARS.fd")), sum);
    assert_eq!(sha256(&own(beta, &other)), sum);
    assert!(
        !beta
            .names("snapshots")
            .iter()
            .any(|name| name.starts_with('.'))
    );
    let listed = world.snapdeck(&["snapshots", "--host", "beta", "--json"]);
    assert_eq!(listed.ok().json().as_array().unwrap().len(), 1);

    world
        .snapdeck(&["sandbox", "destroy", &other, "--yes", "--host", "beta"])
        .ok();
    assert!(!exists(&own(beta, &other)));
    let remove = ["remove", "app", "--local", "--bucket", "--host", "beta"];
    world.snapdeck(&remove).ok();
    assert!(!exists(&beta.path("snapshots/app_VARS.fd")));
    let left = world.s5cmd(&["ls", "{}/*"]);
    assert!(!left.status.success(), "the bucket has {left:?}");
}

#[test]
fn without_any_it_begins_with_the_firmwares() {
    let (world, _) = with_variables(1);
    std::fs::remove_file(world.path("snapshots/base_VARS.fd")).unwrap();
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--memory", "256M", "--start"])
        .ok();
    let own = world.path(&format!("nvram/{id}_VARS.fd"));
    assert!(exists(&own));
    // Fixed while nothing runs that could write them.
    world.snapdeck(&["sandbox", "stop", &id, "--force"]).ok();
    let sum = sha256(&own);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(sha256(&world.path("snapshots/app_VARS.fd")), sum);
}

#[test]
fn they_are_replaced_only_when_asked() {
    let (world, sum) = with_variables(1);
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();

    // On the host.
    let here = world.path("snapshots/app_VARS.fd");
    random(&here);
    let others = sha256(&here);
    world
        .snapdeck(&["pull", "app"])
        .failed(4, &[&here, "differs"]);
    assert_eq!(sha256(&here), others);
    assert!(!exists(&world.snapshot_path("app")));
    world.snapdeck(&["pull", "app", "--overwrite"]).ok();
    assert_eq!(sha256(&here), sum);

    // In the bucket: with an image that has none, those of the one before go.
    let plain = world.sandbox("plain", "base", State::Off);
    world
        .snapdeck(&["push", &plain, "app"])
        .failed(4, &["already exists"]);
    world.snapdeck(&["push", &plain, "app", "--overwrite"]).ok();
    world.snapdeck(&["remove", "app", "--local"]).ok();
    assert!(!exists(&here));
    world.snapdeck(&["pull", "app"]).ok();
    assert!(!exists(&here), "an object without any goes on working");
}

#[test]
fn what_is_left_of_a_snapshot_is_not_taken_for_a_new_ones() {
    let (world, _) = with_variables(1);
    let left = world.path("scratch/left");
    random(&left);
    let put = world.s5cmd(&["cp", &left, "{}/app_VARS.fd"]);
    assert!(put.status.success(), "{put:?}");
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world
        .snapdeck(&["push", &id, "app"])
        .failed(4, &["app_VARS.fd already exists", "--overwrite"]);
    assert!(!world.is_in_bucket("app"));
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();
}
