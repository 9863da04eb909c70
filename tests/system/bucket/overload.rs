//! An overloaded store is waited for, and the job shows it.

use std::sync::atomic::Ordering::SeqCst;

use crate::common::{State, World, wait_for_exit, wait_until};

const WAITING: &str = "waiting for the store, up to 5 min: ";

#[test]
fn push_and_pull_wait_for_an_overloaded_store() {
    let (world, id) = World::with_sandbox(State::Off);
    let faults = world.use_proxy();
    // The SDK repeats a small call twice by itself.
    faults.overloaded.store(15, SeqCst);
    faults.busy.store(6, SeqCst);
    let push = world.snapdeck(&["push", &id, "app"]).ok();
    assert_eq!(faults.overloaded.load(SeqCst), 0);
    assert_eq!(faults.busy.load(SeqCst), 0);
    for message in [WAITING, "SlowDown"] {
        assert!(push.stderr.contains(message), "{message}: {push:?}");
    }
    faults.overloaded.store(15, SeqCst);
    let pull = world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(faults.overloaded.load(SeqCst), 0);
    assert!(pull.stderr.contains(WAITING), "{pull:?}");
}

#[test]
fn a_job_that_waits_for_the_store_can_be_cancelled() {
    let (world, id) = World::with_sandbox(State::Off);
    let faults = world.use_proxy();
    faults.overloaded.store(i32::MAX, SeqCst);
    let push = world.start(&["push", &id, "app", "--json"]);
    let before = i32::MAX - 6;
    wait_until("the first call is repeated", || {
        faults.overloaded.load(SeqCst) < before
    });
    crate::common::signal(&push, "INT");
    let ran = wait_for_exit(push);
    assert_eq!(ran.error_kind(), "cancelled", "{ran:?}");
    faults.overloaded.store(0, SeqCst);
    assert!(!world.is_in_bucket("app"));
}
