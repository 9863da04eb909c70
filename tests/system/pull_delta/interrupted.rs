//! A pull that is killed while it publishes leaves nothing that passes for a whole snapshot.

use serde_json::Value;

use crate::common::{World, exists, only_local, run, same_disk, sha256};

fn write_random(path: &str) {
    let of = format!("of={path}");
    let args = [
        "if=/dev/urandom",
        &of,
        "bs=540672",
        "count=1",
        "iflag=fullblock",
        "status=none",
    ];
    run("dd", &args);
}

/// Creates an environment with an object `app` that has UEFI variables, pushed from a sandbox; also returns its id.
fn with_object() -> (World, String) {
    let world = World::new();
    world.reconfigure("firmware = \"bios\"", "firmware = \"secure-uefi\"");
    world.snapshot("base", 3);
    write_random(&world.path("snapshots/base_VARS.fd"));
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();
    (world, id)
}

/// Pushes another disk and other variables as `app`.
fn push_again(world: &World, id: &str) {
    world.scribble(&world.disk("a"), 300, 3);
    write_random(&world.path(&format!("nvram/{id}_VARS.fd")));
    world.snapdeck(&["push", id, "app", "--overwrite"]).ok();
}

#[track_caller]
fn assert_whole(world: &World, id: &str) {
    assert!(same_disk(&world.snapshot_path("app"), &world.disk("a")));
    let source = world.path(&format!("nvram/{id}_VARS.fd"));
    assert_eq!(
        sha256(&world.path("snapshots/app_VARS.fd")),
        sha256(&source)
    );
    world.snapdeck(&["verify", "app"]).ok();
    let other = world.id("c");
    world.snapdeck(&["sandbox", "new", &other, "app"]).ok();
}

#[test]
fn a_new_snapshot_has_no_image_before_the_rest() {
    if only_local("faults of system calls are those of the local program") {
        return;
    }
    let faults = [
        ("KILL_AFTER_RENAME", "/app_VARS.fd"),
        ("KILL_BEFORE_RENAME", "/app.qcow2"),
    ];
    for fault in faults {
        for is_replaced in [false, true] {
            let (world, id) = with_object();
            world.killed_at(&["pull", "app"], fault);
            assert!(!exists(&world.snapshot_path("app")), "{fault:?}");
            let other = world.id("b");
            world
                .snapdeck(&["sandbox", "new", &other, "app"])
                .failed(3, &["not found"]);
            if is_replaced {
                push_again(&world, &id);
            }
            world.snapdeck(&["pull", "app"]).ok();
            assert_whole(&world, &id);
        }
    }
}

#[test]
fn a_snapshot_whose_replacement_was_interrupted_is_incomplete() {
    if only_local("faults of system calls are those of the local program") {
        return;
    }
    for file in ["/app_VARS.fd", "/app.qcow2"] {
        let (world, id) = with_object();
        world.snapdeck(&["pull", "app"]).ok();
        push_again(&world, &id);
        let pull = ["pull", "app", "--overwrite"];
        world.killed_at(&pull, ("KILL_AFTER_RENAME", file));
        let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
        let snapshots = listed.as_array().unwrap();
        let app = snapshots.iter().find(|snapshot| snapshot["name"] == "app");
        let problem = app.map_or(&Value::Null, |app| &app["problem"]);
        assert!(
            problem
                .as_str()
                .is_some_and(|problem| problem.contains("incomplete")),
            "{file}: {problem}"
        );
        let other = world.id("b");
        world
            .snapdeck(&["sandbox", "new", &other, "app"])
            .failed(1, &["incomplete", "interrupted"]);
        world.snapdeck(&["pull", "app", "--overwrite"]).ok();
        assert_whole(&world, &id);
    }
}

#[test]
fn variables_that_were_exchanged_or_removed_are_noticed() {
    let (world, id) = with_object();
    world.snapdeck(&["pull", "app"]).ok();
    let variables = world.path("snapshots/app_VARS.fd");
    let other = world.id("b");
    for exchange in [true, false] {
        match exchange {
            true => write_random(&variables),
            false => std::fs::remove_file(&variables).unwrap(),
        }
        world
            .snapdeck(&["sandbox", "new", &other, "app"])
            .failed(1, &["UEFI variables", "hint: run `snapdeck pull app`"]);
        world
            .snapdeck(&["verify", "app"])
            .failed(1, &["UEFI variables"]);
        world.snapdeck(&["pull", "app"]).ok();
        world.snapdeck(&["verify", "app"]).ok();
    }
    assert_whole(&world, &id);
}
