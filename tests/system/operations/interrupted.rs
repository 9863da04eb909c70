//! Cancelled, failed or killed in the middle: a guest that ran runs, and nothing is left.

use crate::common::{State, World, signal, wait_for_exit, wait_until};
use crate::operations::assert_nothing_left;

#[test]
fn a_cancelled_create_lets_the_guest_go_on() {
    for name in ["INT", "TERM", "HUP"] {
        let (world, id) = World::with_sandbox(State::Running);
        let (child, gate) = world.start_to_gate("convert", &["create", &id, "app", "--json"]);
        signal(&child, name);
        let ran = wait_for_exit(child);
        assert_eq!(ran.error_kind(), "cancelled", "{name}");
        ran.failed(130, &["was cancelled"]);
        assert_eq!(world.state(&id), "running", "{name}");
        assert!(gate.has_ended(), "{name}");
        assert!(!world.is_in_bucket("app"));
        assert_nothing_left(&world);
    }
}

#[test]
fn a_second_signal_does_not_cut_the_clean_up_short() {
    let (world, id) = World::with_sandbox(State::Running);
    let (child, _gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    signal(&child, "INT");
    // It may be over already.
    let _ = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .output();
    wait_for_exit(child).failed(130, &["was cancelled"]);
    assert_eq!(world.state(&id), "running");
    assert_nothing_left(&world);
}

#[test]
fn a_cancelled_push_leaves_the_sandbox_as_it_was() {
    for (state, after) in [(State::Off, "shut off"), (State::Paused, "paused")] {
        let (world, id) = World::with_sandbox(state);
        let (child, _line) = world.start_to_parts(&["push", &id, "app"]);
        signal(&child, "INT");
        wait_for_exit(child).failed(130, &["was cancelled"]);
        assert_eq!(world.state(&id), after);
        assert!(!world.is_in_bucket("app"));
        assert_eq!(world.uploads(), "[]");
        assert_nothing_left(&world);
    }
}

#[test]
fn a_disk_that_fills_up_in_the_middle_is_told_and_the_guest_goes_on() {
    let (world, id) = World::with_sandbox(State::Running);
    world.force_convert();
    let real = crate::common::find_program("qemu-img");
    world.fake(
        "qemu-img",
        &format!(
            "[ \"$1\" = convert ] || exec {real} \"$@\"\n\
             head -c 70000 /dev/zero >\"${{@: -1}}\"\n\
             echo 'qemu-img: error while writing at byte 65536: No space left on device' >&2\n\
             exit 1"
        ),
    );
    let ran = world.snapdeck(&["create", &id, "app", "--json"]);
    assert_eq!(ran.error_kind(), "noSpace");
    ran.failed(1, &[&id, "No space left on device", "temp_dir"]);
    assert_eq!(world.state(&id), "running");
    assert!(!world.is_in_bucket("app"));
    assert_nothing_left(&world);
}

#[test]
fn killed_outright_its_guard_takes_everything_back() {
    let (world, id) = World::with_sandbox(State::Running);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    assert_eq!(world.state(&id), "paused");
    signal(&child, "KILL");
    assert_eq!(wait_for_exit(child).code, None);
    wait_until("the sandbox runs again", || world.state(&id) == "running");
    wait_until("qemu-img is gone", || gate.has_ended());
    wait_until("the temporary directory is gone", || {
        world.names("temp").is_empty()
    });
    assert!(!world.is_in_bucket("app"));
}

#[test]
fn killed_while_it_pushes_a_paused_sandbox_that_stays_paused() {
    let (world, id) = World::with_sandbox(State::Paused);
    let (child, _line) = world.start_to_parts(&["push", &id, "app"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    assert!(!world.is_in_bucket("app"));
    assert!(world.names("temp").is_empty(), "nothing was made there");
    assert_eq!(world.state(&id), "paused");
}

#[test]
fn a_pull_cancelled_in_the_middle_leaves_no_snapshot_and_what_the_next_can_use() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let (child, gate) = world.start_to_gate("check", &["pull", "app"]);
    assert!(
        world
            .names("snapshots")
            .iter()
            .all(|name| name != "app.qcow2")
    );
    signal(&child, "INT");
    wait_for_exit(child).failed(130, &["was cancelled"]);
    assert!(gate.has_ended());
    let left = [".app.qcow2.partial", ".app.qcow2.partial.mark"];
    assert_eq!(world.names("snapshots"), left);
    gate.open();
    let told = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(told["fetchedBytes"], 0, "{told}");
    assert_eq!(told["resumedBytes"], told["sizeBytes"]);
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
}

#[test]
fn a_pull_killed_in_the_middle_is_made_good_by_the_next() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let (child, gate) = world.start_to_gate("check", &["pull", "app"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    assert_eq!(listed, serde_json::json!([]), "half a snapshot is none");
    gate.open();
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
    assert_eq!(
        std::fs::read(world.snapshot_path("app")).unwrap(),
        std::fs::read(image).unwrap()
    );
}
