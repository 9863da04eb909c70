//! `create` snapshots a sandbox in any state, and leaves it in that state.

use serde_json::json;

use crate::common::{State, World, wait_for_exit};
use crate::operations::{assert_no_temporary_files, assert_object_is};

#[test]
fn a_running_sandbox_is_paused_and_resumed() {
    let world = World::new();
    world.snapshot("base", 3);
    let id = world.sandbox("a", "base", State::Running);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app", "--json"]);
    assert_eq!(world.state(&id), "paused", "while the disk is read");
    gate.open();
    let result = wait_for_exit(child).ok().json();

    assert_eq!(world.state(&id), "running");
    assert_eq!(result["name"], "app");
    assert_eq!(
        result["snapshotPath"],
        json!(format!("{}/app.qcow2", world.tag))
    );
    assert_eq!(result["liveMode"], false);
    let length = std::fs::metadata(world.get("app")).unwrap().len();
    assert_eq!(result["sizeBytes"], json!(length));
    assert_object_is(&world, "app", &world.disk("a"));
    assert_no_temporary_files(&world);
}

#[test]
fn live_does_not_pause_and_warns() {
    let (world, id) = World::with_sandbox(State::Running);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app", "--live", "--json"]);
    assert_eq!(world.state(&id), "running", "while the disk is read");
    gate.open();
    let ran = wait_for_exit(child).ok();
    assert_eq!(ran.json()["liveMode"], true);
    assert!(ran.stderr.contains("warning"), "{ran:?}");
    assert!(ran.stderr.contains("may be inconsistent"), "{ran:?}");
    assert_eq!(world.state(&id), "running");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_no_temporary_files(&world);
}

#[test]
fn paused_stopped_and_saved_sandboxes_keep_their_state() {
    let world = World::new();
    world.snapshot("base", 1);
    for (short, state, after) in [
        ("p", State::Paused, "paused"),
        ("o", State::Off, "shut off"),
        ("s", State::Saved, "shut off"),
    ] {
        let id = world.sandbox(short, "base", state);
        let result = world
            .snapdeck(&["create", &id, short, "--json"])
            .ok()
            .json();
        assert_eq!(result["liveMode"], false);
        assert_eq!(world.state(&id), after);
        assert_object_is(&world, short, &world.disk(short));
    }
    let saved = world.virsh(&["dominfo", &world.id("s")]);
    assert!(saved.contains("Managed save:   yes"), "{saved}");
    assert_no_temporary_files(&world);
}

#[test]
fn a_sandbox_resumed_during_the_snapshot_is_not_uploaded() {
    let (world, id) = World::with_sandbox(State::Running);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    world.virsh(&["resume", &id]);
    gate.open();
    wait_for_exit(child).failed(4, &["changed while its disk was read", "is now running"]);
    assert_eq!(world.state(&id), "running");
    assert!(!world.is_in_bucket("app"));
    assert_no_temporary_files(&world);
}

#[test]
fn two_snapshots_of_one_sandbox_at_once_never_leave_it_paused() {
    let (world, id) = World::with_sandbox(State::Running);
    let gate = world.gate("convert");
    let first = world.start(&["create", &id, "one"]);
    gate.wait_reached();
    // The second finds the sandbox locked by the first.
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
    assert_no_temporary_files(&world);
}
