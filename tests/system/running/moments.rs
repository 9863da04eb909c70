//! What is taken is of one moment, and the guest hardly notices.

use crate::common::{consistent_records, run};
use crate::running::Busy;

/// Each snapshot costs seconds; the benchmark takes 20.
const SNAPSHOTS: usize = 4;

#[test]
fn snapshots_of_a_guest_that_writes_are_each_of_one_moment() {
    let busy = Busy::new();
    let (world, id) = (&busy.world, &busy.id);
    let mut before = 0;
    for number in 0..SNAPSHOTS {
        let name = format!("app{number}");
        let told = world.snapdeck(&["create", id, &name, "--json"]).ok().json();
        assert_eq!(told["method"], "backup", "{told}");
        assert_eq!(told["consistency"], "crash-consistent");
        let paused = told["pausedMs"].as_u64().unwrap();
        assert!((1..3000).contains(&paused), "{told}");

        let got = world.get(&name);
        run("qemu-img", &["check", "-q", "-f", "qcow2", &got]);
        let head = consistent_records(&got);
        let now = busy.guest.heartbeats().pop().unwrap().head;
        assert!(before < head && head <= now + 10, "{before} {head} {now}");
        before = head;

        let manifest = world.manifest(&name);
        assert_eq!(manifest["method"], "backup");
        assert_eq!(manifest["consistency"], "crash-consistent");
        assert_eq!(manifest["pausedMs"], paused);
        busy.assert_intact();
    }
}
