//! Its end, orderly or not, and what the next start makes of it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::server::{Api, answer};
use crate::api::with_object;
use crate::common::{State, World, wait_until};

/// Operations that are noted in the journal.
fn noted(world: &World) -> usize {
    let journal = world.dir.join("home/.local/state/snapdeck/journal");
    let Ok(sessions) = std::fs::read_dir(journal) else {
        return 0;
    };
    let notes = sessions.flat_map(|session| std::fs::read_dir(session.unwrap().path()).unwrap());
    notes
        .filter(|note| {
            note.as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|ending| ending == "json")
        })
        .count()
}

#[test]
fn told_to_end_it_ends_soon_and_the_next_start_finishes_its_job() {
    let (world, id) = World::with_sandbox(State::Running);
    let gate = world.gate("convert");
    let api = Api::start(&world);
    let body = json!({"sandboxId": id, "name": "app"}).to_string();
    let waiting = api.curl("/snapshots/create", &["-d", &body]);
    let waiting = std::thread::spawn(move || answer(waiting));
    gate.wait_reached();
    assert_eq!(noted(&world), 1);
    let since = Instant::now();
    api.signal("TERM");
    let told = waiting.join().unwrap();
    assert_eq!(told.header("retry-after"), "10");
    told.failed(503, "shuttingDown", &["is resumed at the next start"]);
    api.wait_for_exit().ok();
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(world.state(&id), "running");
    assert!(!world.is_in_bucket("app"));
    assert_eq!(noted(&world), 1);
    gate.open();
    let api = Api::start(&world);
    wait_until("the job is finished", || api.state(1) == "finished");
    assert!(world.is_in_bucket("app"));
    assert_eq!(noted(&world), 0);
}

#[test]
fn killed_outright_its_pull_is_taken_up_by_the_next_start() {
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
    assert_eq!(noted(&world), 0);
}

#[test]
fn what_was_cancelled_is_not_taken_up_again() {
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
    assert_eq!(api.get("/jobs").is(200), json!([]));
}

#[test]
fn two_servers_share_one_directory_of_state() {
    let world = with_object();
    let gate = world.gate("check");
    let first = Api::start(&world);
    first.begin("/snapshots/pull", &json!({"snapshot": "app"}));
    gate.wait_reached();
    let second = Api::start(&world);
    assert_eq!(
        second.get("/jobs").is(200),
        json!([]),
        "the first one's job is its own"
    );
    gate.open();
    wait_until("the job is finished", || first.state(1) == "finished");
}
