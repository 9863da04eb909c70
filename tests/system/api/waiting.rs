//! New sandboxes that wait for the pull of their snapshot: in this server, or in another snapdeck process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::api::server::Api;
use crate::api::with_object;
use crate::common::{Gate, World, exists, signal, wait_for_exit, wait_until};

/// Submits a new sandbox based on `app`; returns its job.
#[track_caller]
fn begin_new(world: &World, api: &Api, short: &str) -> u64 {
    let body = json!({"id": world.id(short), "snapshot": "app", "start": false});
    api.begin("/sandboxes", &body)
}

/// Returns the jobs as `OPERATION STATE`.
fn jobs(api: &Api) -> Vec<String> {
    let jobs = api.get("/jobs").expect_status(200);
    let word = |job: &Value, key: &str| job[key].as_str().unwrap().to_owned();
    let jobs = jobs.as_array().unwrap().iter();
    jobs.map(|job| format!("{} {}", word(job, "operation"), word(job, "state")))
        .collect()
}

#[track_caller]
fn wait_for_jobs(api: &Api, expected: &[&str]) {
    wait_until(
        &format!("the jobs are {expected:?}, not {:?}", jobs(api)),
        || jobs(api) == expected,
    );
}

#[test]
fn new_sandboxes_share_the_pull_of_their_snapshot() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    assert_eq!(begin_new(&world, &api, "a"), 2);
    gate.wait_reached();
    assert_eq!(begin_new(&world, &api, "b"), 3);
    assert_eq!(jobs(&api), ["pull running", "new queued", "new queued"]);
    // A client that waits for a second gets the job.
    let body = json!({"id": world.id("c"), "snapshot": "app", "start": false}).to_string();
    let prefer = ["-H", "Prefer: respond-async, wait=1", "-d", &body];
    let third = api.call("/sandboxes", &prefer).expect_status(202);
    assert_eq!(third["id"], 4);
    // Explicit pulls, and a second sandbox of the same name, are refused as before.
    api.post("/snapshots/pull", &json!({"snapshot": "app"}))
        .failed(409, "conflict", &["pull app", "works on snapshot app"]);
    let same = json!({"id": world.id("b"), "snapshot": "app", "start": false});
    api.post("/sandboxes", &same)
        .failed(409, "conflict", &["works on sandbox", &world.id("b")]);
    gate.open();
    let finished = [
        "pull finished",
        "new finished",
        "new finished",
        "new finished",
    ];
    wait_for_jobs(&api, &finished);
    for short in ["a", "b", "c"] {
        assert_eq!(world.state(&world.id(short)), "shut off");
    }
}

#[test]
fn a_new_sandbox_waits_for_a_pull_that_was_requested() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    api.begin("/snapshots/pull", &json!({"snapshot": "app"}));
    gate.wait_reached();
    begin_new(&world, &api, "a");
    let cancelled = begin_new(&world, &api, "b");
    assert_eq!(jobs(&api), ["pull running", "new queued", "new queued"]);
    api.call(&format!("/jobs/{cancelled}"), &["-X", "DELETE"]);
    // The pull was not begun for it.
    wait_for_jobs(&api, &["pull running", "new queued", "new cancelled"]);
    gate.open();
    wait_for_jobs(&api, &["pull finished", "new finished", "new cancelled"]);
    // The host has the snapshot now, and replaces it: the next sandbox is based on the new one.
    gate.reset();
    let gate = world.gate("check");
    let again = json!({"snapshot": "app", "overwrite": true});
    let destroy = ["sandbox", "destroy", &world.id("a"), "--yes"];
    world.snapdeck(&destroy).ok();
    let pull = api.begin("/snapshots/pull", &again);
    gate.wait_reached();
    let new = begin_new(&world, &api, "c");
    assert_eq!(api.state(new), "queued");
    gate.open();
    wait_until("both are finished", || {
        [pull, new].iter().all(|job| api.state(*job) == "finished")
    });
}

#[test]
fn cancelling_a_new_sandbox_cancels_the_pull_that_it_alone_needs() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    let first = begin_new(&world, &api, "a");
    gate.wait_reached();
    let second = begin_new(&world, &api, "b");
    let cancel = |job: u64| api.call(&format!("/jobs/{job}"), &["-X", "DELETE"]);
    cancel(first);
    wait_for_jobs(&api, &["pull running", "new cancelled", "new queued"]);
    cancel(second);
    wait_for_jobs(&api, &["pull cancelled", "new cancelled", "new cancelled"]);
    assert!(!exists(&world.snapshot_path("app")));
    gate.open();
    // Nothing of them is in the way of the next one.
    let body = json!({"id": world.id("a"), "snapshot": "app", "start": false});
    api.post("/sandboxes", &body).expect_status(201);
}

#[test]
fn a_new_sandbox_fails_with_the_pull_that_it_waits_for() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    begin_new(&world, &api, "a");
    gate.wait_reached();
    begin_new(&world, &api, "b");
    api.call("/jobs/1", &["-X", "DELETE"]);
    wait_for_jobs(&api, &["pull cancelled", "new cancelled", "new cancelled"]);
    gate.open();
    assert!(world.names("sandboxes").is_empty());
}

/// Starts `sandbox new` in a process of its own and waits until it waits for the holder of the snapshot.
fn start_waiting(world: &World, short: &str) -> Child {
    let id = world.id(short);
    let mut command = world.command(&["sandbox", "new", &id, "app", "--pull"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waiting = "waiting for another snapdeck process: pull app → ";
    let is_waiting = lines.any(|line| line.unwrap().contains(waiting));
    assert!(is_waiting, "it has ended");
    // Read to the end, so that it can write.
    std::thread::spawn(move || lines.count());
    child
}

/// Returns an environment in which a pull of `app` for the sandbox `a` is at the gate, in a process of its own.
fn with_pulling_process() -> (World, Child, Gate) {
    let world = with_object();
    let id = world.id("a");
    let (child, gate) = world.start_to_gate("check", &["sandbox", "new", &id, "app", "--pull"]);
    (world, child, gate)
}

#[test]
fn a_new_sandbox_waits_for_the_pull_of_another_process() {
    let (world, first, gate) = with_pulling_process();
    let second = start_waiting(&world, "b");
    let api = Api::start(&world);
    begin_new(&world, &api, "c");
    wait_for_jobs(&api, &["pull running", "new queued"]);
    gate.open();
    wait_for_exit(first).ok();
    assert_eq!(wait_for_exit(second).code, Some(0));
    wait_for_jobs(&api, &["pull finished", "new finished"]);
    for short in ["a", "b", "c"] {
        assert_eq!(world.state(&world.id(short)), "shut off");
    }
}

#[test]
fn a_wait_for_another_process_does_not_hold_up_other_jobs() {
    let (world, first, gate) = with_pulling_process();
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), format!("{config}[jobs]\nparallel = 1\n")).unwrap();
    world.snapshot("other", 1);
    let api = Api::start(&world);
    begin_new(&world, &api, "b");
    api.begin("/snapshots/verify", &json!({"snapshot": "other"}));
    // Its check of the image waits at the gate, too.
    wait_for_jobs(&api, &["pull running", "new queued", "verify running"]);
    gate.open();
    wait_for_exit(first).ok();
    wait_for_jobs(&api, &["pull finished", "new finished", "verify finished"]);
}

#[test]
fn a_wait_for_another_process_is_cancelled() {
    let (world, first, gate) = with_pulling_process();
    let second = start_waiting(&world, "b");
    signal(&second, "INT");
    assert_eq!(wait_for_exit(second).code, Some(130));
    let third = start_waiting(&world, "c");
    // Its lock ends with the process: the one that waits pulls, and takes over what is there.
    signal(&first, "KILL");
    wait_for_exit(first);
    gate.open();
    assert_eq!(wait_for_exit(third).code, Some(0));
    assert_eq!(world.state(&world.id("c")), "shut off");
}
