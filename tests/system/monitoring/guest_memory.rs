//! Memory of guests.

use std::sync::Arc;
use std::time::Duration;

use snapdeck_engine::{Sample, SandboxMetrics, WatchTarget};
use tokio::time::timeout;

use crate::common::{State, World};

const DEADLINE: Duration = Duration::from_secs(120);

/// Watches a sandbox until it has a sample that meets a condition.
async fn wait_for_sample(world: &World, id: &str, condition: impl Fn(&Sample) -> bool) -> Sample {
    let engine = world.engine().await;
    engine.follow();
    engine.watch_sandbox(Some(WatchTarget {
        host: world.name.parse().unwrap(),
        sandbox: id.parse().unwrap(),
        include_screen: false,
    }));
    let mut metrics = engine.metrics();
    let last = |metrics: &Option<Arc<SandboxMetrics>>| metrics.as_ref()?.samples.back().cloned();
    let found = metrics.wait_for(|metrics| last(metrics).as_ref().is_some_and(&condition));
    let found = timeout(DEADLINE, found).await.expect("there is a sample");
    let sample = last(&found.unwrap()).unwrap();
    engine.shutdown().await;
    sample
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_a_balloon_driver_reports_its_own_memory() {
    let world = World::new();
    world.use_guest();
    world.snapshot("base", 0);
    let id = world.id("box");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--start"])
        .ok();
    let sample = wait_for_sample(&world, &id, |sample| sample.guest_memory.is_some()).await;
    let memory = sample.guest_memory.unwrap();
    assert!(memory.total_bytes > 64 << 20 && memory.total_bytes < 128 << 20);
    assert!(memory.used_bytes > 1 << 20 && memory.used_bytes < memory.total_bytes);
    world.virsh(&["destroy", &id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_reports_is_left_as_it_is() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Running);
    let before = world.virsh(&["dumpxml", &id]);
    let sample = wait_for_sample(&world, &id, |sample| sample.resident_bytes.is_some()).await;
    assert_eq!(sample.guest_memory, None);
    assert!(sample.resident_bytes.unwrap() > 1 << 20);
    assert_eq!(world.virsh(&["dumpxml", &id]), before);
}
