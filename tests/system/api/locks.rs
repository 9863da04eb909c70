//! Locks between snapdeck processes on one host.

use serde_json::json;

use crate::api::server::Api;
use crate::api::with_object;
use crate::common::{State, World, signal, wait_for_exit, wait_until};

/// Returns the names of the lock files in a directory.
fn locks(world: &World, dir: &str) -> Vec<String> {
    let names = world.names(dir);
    names
        .into_iter()
        .filter(|name| name.ends_with(".lock"))
        .collect()
}

#[test]
fn a_snapshot_being_pulled_is_locked_for_other_processes() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    let job = api.begin("/snapshots/pull", &json!({"snapshot": "app"}));
    gate.wait_reached();
    assert_eq!(locks(&world, "snapshots"), [".app.qcow2.lock"]);
    for args in [&["pull", "app"][..], &["remove", "app", "--local"]] {
        world.snapdeck(args).failed(
            4,
            &[
                "another snapdeck process is working on snapshot app",
                "pull app → ",
                "by ",
                "process ",
            ],
        );
    }
    gate.open();
    wait_until("the job is finished", || api.state(job) == "finished");
    assert!(locks(&world, "snapshots").is_empty());
    world.snapdeck(&["remove", "app", "--local"]).ok();
    assert!(world.names("snapshots").is_empty());
}

#[test]
fn a_sandbox_being_snapshotted_is_locked_until_the_process_ends() {
    let (world, id) = World::with_sandbox(State::Running);
    let api = Api::start(&world);
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    let start = format!("/sandboxes/{id}/start");
    api.call(&start, &["-X", "POST"]).failed(
        409,
        "conflict",
        &[
            "another snapdeck process is working on sandbox",
            &id,
            "create",
        ],
    );
    api.post(
        "/snapshots/create",
        &json!({"sandboxId": id, "name": "other"}),
    )
    .failed(409, "conflict", &[&id]);
    signal(&child, "KILL");
    wait_for_exit(child);
    gate.open();
    // On a host over SSH the lock is released once the host notices the lost session.
    wait_until("the lock is free", || {
        api.call(&start, &["-X", "POST"]).status == 200
    });
    assert!(locks(&world, "sandboxes").is_empty());
}
