//! Create: a sandbox in any state; one that ran runs afterwards.

use serde_json::json;

use crate::common::{State, World, wait_for_exit};
use crate::operations::{assert_nothing_left, assert_object_is};

#[test]
fn a_running_sandbox_is_cut_and_runs_again() {
    let world = World::new();
    world.snapshot("base", 3);
    let id = world.sandbox("a", "base", State::Running);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app", "--json"]);
    assert_eq!(world.state(&id), "paused", "while its disk is read");
    gate.open();
    let told = wait_for_exit(child).ok().json();

    assert_eq!(world.state(&id), "running");
    assert_eq!(told["name"], "app");
    assert_eq!(
        told["snapshotPath"],
        json!(format!("{}/app.qcow2", world.tag))
    );
    assert_eq!(told["liveMode"], false);
    let length = std::fs::metadata(world.get("app")).unwrap().len();
    assert_eq!(told["sizeBytes"], json!(length));
    assert_object_is(&world, "app", &world.disk("a"));
    assert_nothing_left(&world);
}

#[test]
fn live_does_not_pause_and_says_what_that_means() {
    let (world, id) = World::with_sandbox(State::Running);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app", "--live", "--json"]);
    assert_eq!(world.state(&id), "running", "while its disk is read");
    gate.open();
    let ran = wait_for_exit(child).ok();
    assert_eq!(ran.json()["liveMode"], true);
    assert!(ran.stderr.contains("warning"), "{ran:?}");
    assert!(ran.stderr.contains("may be inconsistent"), "{ran:?}");
    assert_eq!(world.state(&id), "running");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_nothing_left(&world);
}

#[test]
fn one_that_stands_still_stays_as_it_is() {
    let world = World::new();
    world.snapshot("base", 1);
    for (short, state, after) in [
        ("p", State::Paused, "paused"),
        ("o", State::Off, "shut off"),
        ("s", State::Saved, "shut off"),
    ] {
        let id = world.sandbox(short, "base", state);
        let told = world
            .snapdeck(&["create", &id, short, "--json"])
            .ok()
            .json();
        assert_eq!(told["liveMode"], false);
        assert_eq!(world.state(&id), after);
        assert_object_is(&world, short, &world.disk(short));
    }
    let saved = world.virsh(&["dominfo", &world.id("s")]);
    assert!(saved.contains("Managed save:   yes"), "{saved}");
    assert_nothing_left(&world);
}

#[test]
fn one_resumed_by_another_in_the_middle_is_not_uploaded() {
    let (world, id) = World::with_sandbox(State::Running);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    world.virsh(&["resume", &id]);
    gate.open();
    wait_for_exit(child).failed(4, &["changed while its disk was read", "is now running"]);
    assert_eq!(world.state(&id), "running");
    assert!(!world.is_in_bucket("app"));
    assert_nothing_left(&world);
}

#[test]
fn two_snapshots_of_one_sandbox_at_once_never_leave_it_paused() {
    let (world, id) = World::with_sandbox(State::Running);
    let gate = world.gate("convert");
    let first = world.start(&["create", &id, "one"]);
    gate.wait_reached();
    // The second finds it in the hands of the first.
    let second = world.start(&["create", &id, "two"]);
    gate.open();
    let ran = [wait_for_exit(first), wait_for_exit(second)];
    assert_eq!(world.state(&id), "running", "{ran:?}");
    for (name, ran) in ["one", "two"].iter().zip(ran) {
        match ran.code {
            Some(0) => assert_object_is(&world, name, &world.disk("a")),
            _ => drop(ran.failed(4, &["another snapdeck process is working on sandbox", &id])),
        }
    }
    assert_nothing_left(&world);
}
