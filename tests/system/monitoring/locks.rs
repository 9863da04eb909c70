//! Locks of jobs of other processes.

use std::sync::Arc;
use std::time::Duration;

use snapdeck_engine::View;
use snapdeck_model::LockedResource;
use tokio::time::timeout;

use crate::common::{World, wait_for_exit};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_process_is_seen_by_its_locks() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.id("box");
    let (child, gate) = world.start_to_gate("create", &["sandbox", "new", &id, "base"]);
    let process = child.id();
    let engine = world.engine().await;
    engine.follow();
    let mut views = engine.watch();
    let locked = views.wait_for(|view: &Arc<View>| view.hosts[0].locks.len() == 2);
    let view = timeout(DEADLINE, locked).await.expect("two locks").unwrap();
    let locks = view.hosts[0].locks.clone();
    drop(view);
    assert_eq!(
        locks[0].resource,
        LockedResource::Sandbox(id.parse().unwrap())
    );
    assert_eq!(
        locks[1].resource,
        LockedResource::Snapshot("base".parse().unwrap())
    );
    for lock in locks.iter() {
        assert_eq!(lock.job, format!("new {id} on base"));
        assert!(
            lock.holder.ends_with(&format!(", process {process}")),
            "{lock:?}"
        );
        let since = lock.since.unwrap();
        let age = jiff::Timestamp::now().duration_since(since).as_secs();
        assert!((-1..60).contains(&age), "{age}");
    }
    gate.open();
    assert_eq!(wait_for_exit(child).code, Some(0));
    engine.refresh();
    let free = views.wait_for(|view: &Arc<View>| view.hosts[0].locks.is_empty());
    timeout(DEADLINE, free)
        .await
        .expect("they are released")
        .unwrap();

    // A lock file that a killed process has left is not a lock.
    let file = world.path("snapshots/.base.qcow2.lock");
    std::fs::write(file, "pull base, by a on b, process 1\n").unwrap();
    let before = engine.view().hosts[0].last_scan;
    engine.refresh();
    while engine.view().hosts[0].last_scan == before {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(engine.view().hosts[0].locks.is_empty());
    engine.shutdown().await;
}
