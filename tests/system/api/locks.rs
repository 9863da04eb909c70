//! Several snapdecks on one host keep apart.

use serde_json::json;

use crate::api::server::Api;
use crate::api::with_object;
use crate::common::{State, World, signal, wait_for_exit, wait_until};

/// Names of locks in a directory.
fn locks(world: &World, dir: &str) -> Vec<String> {
    let names = world.names(dir);
    names
        .into_iter()
        .filter(|name| name.ends_with(".lock"))
        .collect()
}

#[test]
fn a_snapshot_that_one_pulls_is_left_alone_by_the_other_and_who_it_is_is_told() {
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
fn a_sandbox_that_one_cuts_is_left_alone_by_the_other_until_that_is_gone() {
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
    // On a host over SSH its holder has to notice.
    wait_until("the lock is free", || {
        api.call(&start, &["-X", "POST"]).status == 200
    });
    assert!(locks(&world, "sandboxes").is_empty());
}
