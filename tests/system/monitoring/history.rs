//! Jobs that have finished.

use std::sync::Arc;
use std::time::Duration;

use snapdeck_engine::{Engine, HistoryEntry, JobResult};
use tokio::time::timeout;

use crate::common::World;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn finished_jobs_of_other_processes_are_in_the_history() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.id("box");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "missing"]).failed(3, &[]);
    let state = world.dir.join("home/.local/state/snapdeck");
    let engine = Engine::with_state(world.settings(), Some(&state))
        .await
        .unwrap();
    let mut history = engine.history();
    assert!(history.borrow().is_empty(), "it is read in the background");
    engine.follow();
    let has = |count| move |entries: &Arc<[HistoryEntry]>| entries.len() == count;
    let entries = timeout(DEADLINE, history.wait_for(has(3))).await;
    let entries = entries.expect("three jobs").unwrap().clone();
    let results: Vec<(&str, JobResult)> = entries
        .iter()
        .map(|entry| (&*entry.operation, entry.result))
        .collect();
    assert_eq!(
        results,
        [
            ("new", JobResult::Finished),
            ("push", JobResult::Finished),
            ("pull", JobResult::Failed)
        ]
    );
    let push = &entries[1];
    assert_eq!(push.title, format!("push {id} → app"));
    assert_eq!(push.host.as_deref(), Some(&*world.name));
    assert!(push.started_at.unwrap() <= push.ended_at);
    assert!(push.moved_bytes.unwrap() > 1 << 10, "{push:?}");
    assert!(entries[2].summary.contains("missing"), "{:?}", entries[2]);

    // Those of others are read when asked for.
    world.snapdeck(&["pull", "missing"]).failed(3, &[]);
    engine.reload_history();
    timeout(DEADLINE, history.wait_for(has(4)))
        .await
        .expect("the fourth job")
        .unwrap();
    engine.shutdown().await;
}
