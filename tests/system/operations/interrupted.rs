//! Cancelled, failed or killed operations: a paused guest is resumed, and no temporary files remain.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::{
    State, World, exists, kill_with_watchdogs, only_local, output, sha256, signal, wait_for_exit,
    wait_until,
};
use crate::operations::assert_no_temporary_files;

#[test]
fn a_cancelled_create_resumes_the_guest() {
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
        assert_no_temporary_files(&world);
    }
}

#[test]
fn a_second_signal_does_not_stop_the_cleanup() {
    let (world, id) = World::with_sandbox(State::Running);
    let (child, _gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    signal(&child, "INT");
    // snapdeck may have ended already.
    let _ = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .output();
    wait_for_exit(child).failed(130, &["was cancelled"]);
    assert_eq!(world.state(&id), "running");
    assert_no_temporary_files(&world);
}

#[test]
fn a_cancelled_push_leaves_the_sandbox_as_it_was() {
    for (state, after) in [(State::Off, "shut off"), (State::Paused, "paused")] {
        let (world, id) = World::with_sandbox(state);
        let (child, _faults) = world.start_to_parts(&["push", &id, "app"]);
        signal(&child, "INT");
        wait_for_exit(child).failed(130, &["was cancelled"]);
        assert_eq!(world.state(&id), after);
        assert!(!world.is_in_bucket("app"));
        assert_eq!(world.uploads(), "[]");
        assert_no_temporary_files(&world);
    }
}

#[test]
fn a_full_temp_disk_during_a_create_is_an_error_and_resumes_the_guest() {
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
    assert_no_temporary_files(&world);
}

#[test]
fn the_watchdog_cleans_up_after_a_killed_create() {
    let (world, id) = World::with_sandbox(State::Running);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    assert_eq!(world.state(&id), "paused");
    signal(&child, "KILL");
    assert_eq!(wait_for_exit(child).code, None);
    wait_until("the sandbox runs again", || world.state(&id) == "running");
    wait_until("qemu-img has ended", || gate.has_ended());
    wait_until("the temporary directory is empty", || {
        world.names("temp").is_empty()
    });
    assert!(!world.is_in_bucket("app"));
}

#[test]
fn the_next_create_resumes_a_guest_whose_watchdog_was_killed_too() {
    if only_local("the watchdog runs on the host, not as a child") {
        return;
    }
    let (world, id) = World::with_sandbox(State::Running);
    let (child, _gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    kill_with_watchdogs(child);
    assert_eq!(world.state(&id), "paused", "the guest was resumed");
    world.fake("qemu-img", "exec /usr/bin/qemu-img \"$@\"");
    let ran = world.snapdeck(&["create", &id, "app"]).ok();
    assert!(ran.stderr.contains("is resumed"), "{ran:?}");
    assert_eq!(world.state(&id), "running");
    let hidden = world.names("sandboxes").into_iter();
    let left: Vec<String> = hidden.filter(|name| name.ends_with(".backup")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_directory_whose_creation_was_interrupted_is_removed_only_if_it_is_recorded() {
    let (world, id) = World::with_sandbox(State::Off);
    let sandboxes = world.path("sandboxes");
    let make = |name: &str, mark: Option<&str>| {
        let dir = format!("{sandboxes}/.{id}.{name}.backup");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        if let Some(mark) = mark {
            std::fs::write(format!("{dir}/{mark}"), "").unwrap();
        }
        dir
    };
    // Killed before the mark, with an empty mark of an earlier version, and while the mark was written.
    let recorded = [
        make("0000000a", None),
        make("0000000b", Some(".snapdeck-owner")),
        make("0000000c", Some(".snapdeck-owner.new")),
    ];
    let others = [make("0000000d", None), make("0000000e", Some("keep.qcow2"))];
    let records = world.dir.join("home/.local/state/snapdeck/owned");
    std::fs::create_dir_all(&records).unwrap();
    for path in recorded.iter().chain(&others[1..]) {
        let number = path.trim_end_matches(".backup").rsplit('.').next().unwrap();
        let record = serde_json::json!({
            "location": world.uri(), "path": path, "id": format!("{number:0>32}"), "created": jiff::Timestamp::now(),
        });
        let file = records.join(format!("{number:0>32}.json"));
        std::fs::write(&file, record.to_string()).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    }
    world.snapdeck(&["push", &id, "app"]).ok();
    for dir in &recorded {
        assert!(!exists(dir), "{dir} is left");
    }
    for dir in &others {
        assert!(exists(dir), "{dir} was removed");
    }
}

#[test]
fn a_killed_push_leaves_a_paused_sandbox_paused() {
    let (world, id) = World::with_sandbox(State::Paused);
    let (child, _faults) = world.start_to_parts(&["push", &id, "app"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    assert!(!world.is_in_bucket("app"));
    assert!(
        world.names("temp").is_empty(),
        "temporary files were created"
    );
    assert_eq!(world.state(&id), "paused");
}

#[test]
fn a_cancelled_pull_keeps_the_partial_file_for_the_next() {
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
    assert_eq!(world.names("snapshots"), [".app.qcow2.pull"]);
    gate.open();
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(result["fetchedBytes"], 0, "{result}");
    assert_eq!(result["resumedBytes"], result["sizeBytes"]);
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
}

#[test]
fn a_killed_pull_is_completed_by_the_next() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let (child, gate) = world.start_to_gate("check", &["pull", "app"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    assert_eq!(listed, serde_json::json!([]), "the partial file is listed");
    gate.open();
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
    assert_eq!(
        std::fs::read(world.snapshot_path("app")).unwrap(),
        std::fs::read(image).unwrap()
    );
}

#[test]
fn a_pull_killed_while_it_published_does_not_write_the_snapshot_later() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let (child, gate) = world.start_to_gate("check", &["pull", "app"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    gate.open();
    // Over SSH the host's programs may still have the file open.
    let partial = world.path("snapshots/.app.qcow2.pull/partial");
    let unlocked = || output(Command::new("flock").args(["-n", &partial, "true"]));
    wait_until("the partial file is unlocked", || {
        unlocked().status.success()
    });
    let snapshot = world.snapshot_path("app");
    std::fs::hard_link(&partial, &snapshot).unwrap();
    let before = sha256(&snapshot);

    world.scribble(&image, 300, 2);
    world.put(&image, "app");
    let (child, gate) = world.start_to_gate("check", &["pull", "app", "--overwrite"]);
    assert_eq!(
        sha256(&snapshot),
        before,
        "the snapshot was written in place"
    );
    gate.open();
    wait_for_exit(child).ok();
    assert_eq!(sha256(&snapshot), sha256(&image));
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
}
