//! A host that does not let us in: said at once, with what to do, and never asked for on the terminal.

use std::time::Duration;

use crate::common::{Fault, State, World, same_disk, wait_for_exit_within};

/// A log-in is given up after 12 s; the rest is for a slow machine.
const IN_TIME: Duration = Duration::from_secs(40);

#[track_caller]
fn assert_unreachable(world: &World, words: &[&str]) {
    for args in [&["snapshots"][..], &["sandboxes"], &["push", "vm", "app"]] {
        let ran = wait_for_exit_within(world.start(args), IN_TIME);
        ran.failed(5, &[&["cannot reach host alpha over SSH"], words].concat());
    }
    assert!(!world.is_in_bucket("app"));
}

#[test]
fn a_host_with_an_unknown_name() {
    let world = World::over_ssh(1);
    let address = world.link().address.to_string();
    world.reconfigure(&address, "no-such-host.invalid");
    assert_unreachable(&world, &["Could not resolve", "uri"]);
}

#[test]
fn a_key_that_it_does_not_know() {
    let world = World::over_ssh(1);
    world.replace_client_key();
    assert_unreachable(&world, &["Permission denied", "ssh-copy-id"]);
}

#[test]
fn one_that_takes_passwords_only() {
    let world = World::over_ssh(1);
    world.accept_passwords_only();
    assert_unreachable(&world, &["Permission denied", "ssh-copy-id"]);
}

#[test]
fn a_host_key_that_is_not_known() {
    let world = World::over_ssh(1);
    world.clear_known_hosts();
    assert_unreachable(&world, &["host key is not known", "compare the key"]);
    // Not asked for, and taken for granted even less.
    assert_eq!(std::fs::read_to_string(world.known_hosts()).unwrap(), "");
}

#[test]
fn a_host_key_that_has_changed() {
    let world = World::over_ssh(1);
    world.replace_host_key();
    assert_unreachable(&world, &["differs from the known one", "ssh-keygen -R"]);
}

#[test]
fn an_operator_may_waive_the_host_key() {
    let world = World::over_ssh(1);
    world.snapshot("base", 0);
    world.clear_known_hosts();
    world.reconfigure("/system?", "/system?no_verify=1&");
    world.snapdeck(&["exists", "base"]).ok();
}

#[test]
fn nobody_listens() {
    let world = World::over_ssh(1);
    world.link().cut(Fault::Closed);
    assert_unreachable(&world, &["Connection refused", "check that the host is up"]);
}

#[test]
fn nobody_answers() {
    let world = World::over_ssh(1);
    world.link().cut(Fault::Frozen);
    assert_unreachable(&world, &["check that the host is up"]);
}

#[test]
fn an_sshd_that_forwards_nothing_serves_all_the_same() {
    let world = World::over_ssh(1);
    world.set_sshd("AllowStreamLocalForwarding no\nAllowTcpForwarding no");
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Running);
    world.snapdeck(&["create", &id, "app"]).ok();
    assert!(same_disk(&world.get("app"), &world.disk("vm")));
    assert_eq!(world.state(&id), "running");
    world.snapdeck(&["pull", "app"]).ok();
    assert!(same_disk(&world.snapshot_path("app"), &world.disk("vm")));
    assert!(world.names("temp").is_empty());
}
