//! Shutdown and kill of the server, and what the next start resumes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::server::{Api, send};
use crate::api::with_object;
use crate::common::{State, World, wait_until};

/// Returns the number of operations in the journal.
fn journal_entries(world: &World) -> usize {
    let journal = world.dir.join("home/.local/state/snapdeck/journal");
    let Ok(sessions) = std::fs::read_dir(journal) else {
        return 0;
    };
    let entries = sessions.flat_map(|session| std::fs::read_dir(session.unwrap().path()).unwrap());
    entries
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|ending| ending == "json")
        })
        .count()
}

#[test]
fn sigterm_ends_the_server_soon_and_the_next_start_resumes_its_pull() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    let waiting = api.curl("/snapshots/pull", &["-d", r#"{"snapshot": "app"}"#]);
    let waiting = std::thread::spawn(move || send(waiting));
    gate.wait_reached();
    assert_eq!(journal_entries(&world), 1);
    let since = Instant::now();
    api.signal("TERM");
    let response = waiting.join().unwrap();
    assert_eq!(response.header("retry-after"), "10");
    response.failed(503, "shuttingDown", &["is resumed at the next start"]);
    api.wait_for_exit().ok();
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(journal_entries(&world), 1);
    gate.open();
    let api = Api::start(&world);
    wait_until("the job is finished", || api.state(1) == "finished");
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
    assert_eq!(journal_entries(&world), 0);
}

#[test]
fn sigterm_cancels_a_create_for_good() {
    let (world, id) = World::with_sandbox(State::Running);
    let gate = world.gate("convert");
    let api = Api::start(&world);
    let body = json!({"sandboxId": id, "name": "app"}).to_string();
    let waiting = api.curl("/snapshots/create", &["-d", &body]);
    let waiting = std::thread::spawn(move || send(waiting));
    gate.wait_reached();
    api.signal("TERM");
    let response = waiting.join().unwrap();
    response.failed(503, "shuttingDown", &["the job was cancelled"]);
    api.wait_for_exit().ok();
    assert_eq!(world.state(&id), "running");
    assert_eq!(journal_entries(&world), 0);
    gate.open();
    let api = Api::start(&world);
    assert_eq!(api.get("/jobs").expect_status(200), json!([]));
    assert!(!world.is_in_bucket("app"));
}

#[test]
fn the_next_start_resumes_the_pull_of_a_killed_server() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    api.begin("/snapshots/pull", &json!({"snapshot": "app"}));
    gate.wait_reached();
    api.signal("KILL");
    assert_eq!(api.wait_for_exit().code, None);
    gate.open();
    let api = Api::start(&world);
    wait_until("the job is finished", || api.state(1) == "finished");
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
    assert_eq!(journal_entries(&world), 0);
}

/// Waits until the only job in the journal has begun after `crashes` crashes.
fn wait_until_begun(world: &World, crashes: u64) {
    wait_until("the job has begun", || {
        let entries = world.journal_entries();
        matches!(&entries[..], [entry] if entry["crashes"] == crashes + 1)
    });
}

#[test]
fn a_job_in_which_the_server_has_crashed_twice_is_not_resumed() {
    let world = with_object();
    let gate = world.gate("check");
    for crashes in 0..2 {
        let api = Api::start(&world);
        if crashes == 0 {
            api.begin("/snapshots/pull", &json!({"snapshot": "app"}));
        }
        wait_until_begun(&world, crashes);
        api.signal("KILL");
        api.wait_for_exit();
    }
    gate.open();
    let api = Api::start(&world);
    assert_eq!(api.get("/jobs").expect_status(200), json!([]));
    assert_eq!(journal_entries(&world), 0);
    // An operator can repeat it.
    let job = api.begin("/snapshots/pull", &json!({"snapshot": "app"}));
    wait_until("the job is finished", || api.state(job) == "finished");
}

#[test]
fn a_job_that_was_stopped_in_order_is_resumed_any_number_of_times() {
    let world = with_object();
    let gate = world.gate("check");
    for count in 0..3 {
        let api = Api::start(&world);
        if count == 0 {
            api.begin("/snapshots/pull", &json!({"snapshot": "app"}));
        }
        wait_until_begun(&world, 0);
        api.signal("TERM");
        api.wait_for_exit();
        let entries = world.journal_entries();
        assert!(
            matches!(&entries[..], [entry] if entry["crashes"].is_null()),
            "{entries:?}"
        );
    }
    gate.open();
    let api = Api::start(&world);
    wait_until("the job is finished", || api.state(1) == "finished");
}

#[test]
fn a_cancelled_job_is_not_resumed() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    let job = api.begin("/snapshots/pull", &json!({"snapshot": "app"}));
    gate.wait_reached();
    api.call(&format!("/jobs/{job}"), &["-X", "DELETE"]);
    api.signal("KILL");
    api.wait_for_exit();
    gate.open();
    let api = Api::start(&world);
    assert_eq!(api.get("/jobs").expect_status(200), json!([]));
}

#[test]
fn two_servers_share_one_state_directory() {
    let world = with_object();
    let gate = world.gate("check");
    let first = Api::start(&world);
    first.begin("/snapshots/pull", &json!({"snapshot": "app"}));
    gate.wait_reached();
    let second = Api::start(&world);
    assert_eq!(
        second.get("/jobs").expect_status(200),
        json!([]),
        "the second server does not have the job of the first"
    );
    gate.open();
    wait_until("the job is finished", || first.state(1) == "finished");
}
