//! Each snapshot is of one point in time, and the pause is short.

use crate::common::{consistent_records, run};
use crate::running::BusyGuest;

/// Each snapshot takes seconds; the benchmark creates 20.
const SNAPSHOTS: usize = 4;

#[test]
fn snapshots_of_a_writing_guest_are_each_of_one_point_in_time() {
    let busy = BusyGuest::new();
    let (world, id) = (&busy.world, &busy.id);
    let mut before = 0;
    for number in 0..SNAPSHOTS {
        let name = format!("app{number}");
        let result = world.snapdeck(&["create", id, &name, "--json"]).ok().json();
        assert_eq!(result["method"], "backup", "{result}");
        assert_eq!(result["consistency"], "crash-consistent");
        let paused = result["pausedMs"].as_u64().unwrap();
        assert!((1..3000).contains(&paused), "{result}");

        let file = world.get(&name);
        run("qemu-img", &["check", "-q", "-f", "qcow2", &file]);
        let head = consistent_records(&file);
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
