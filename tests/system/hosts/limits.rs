//! qemu-img on images that guests or stores have made: under limits, cancelled at once, and killed with snapdeck.

use std::time::{Duration, Instant};

use crate::common::{State, World, exists, find_program, signal, wait_for_exit, wait_until};
use crate::hosts::assert_no_temporary_files;

/// Longer than a cancelled job takes, much shorter than qemu-img would.
const SOON: Duration = Duration::from_secs(10);

/// Creates an environment with an object `app`.
fn with_object() -> World {
    let world = World::new();
    let file = world.path("scratch/app.qcow2");
    world.image(&file, 1);
    world.put(&file, "app");
    world
}

/// Returns an image of 320 KiB with 4096 references to one L2 table, whose entries refer to itself: `qemu-img check`
/// takes minutes.
fn busy_image() -> Vec<u8> {
    const CLUSTER: usize = 0x10000;
    let (l2, refcount_table, refcounts) = (0x20000_u64, 0x30000_u64, 0x40000_u64);
    let mut image = Vec::new();
    let mut put = |bytes: &[u8]| image.extend_from_slice(bytes);
    put(b"QFI\xfb");
    put(&3_u32.to_be_bytes());
    // No backing file, clusters of 64 KiB, a disk of 2 TiB, no encryption.
    put(&[0; 12]);
    put(&16_u32.to_be_bytes());
    put(&(4096_u64 << 29).to_be_bytes());
    put(&[0; 4]);
    put(&4096_u32.to_be_bytes());
    put(&0x10000_u64.to_be_bytes());
    put(&refcount_table.to_be_bytes());
    put(&1_u32.to_be_bytes());
    // No snapshots, no features.
    put(&[0; 12 + 24]);
    put(&4_u32.to_be_bytes());
    put(&112_u32.to_be_bytes());
    image.resize(CLUSTER, 0);
    let entry = (l2 | 1 << 63).to_be_bytes();
    image.extend(entry.repeat(4096));
    image.resize(2 * CLUSTER, 0);
    image.extend(entry.repeat(8192));
    image.extend(refcounts.to_be_bytes());
    image.resize(4 * CLUSTER, 0);
    image.extend([0, 1].repeat(CLUSTER / 2));
    image
}

#[test]
fn qemu_img_runs_under_limits() {
    let world = with_object();
    let (file, real) = (world.path("scratch/limits"), find_program("qemu-img"));
    let record = format!("echo $(ulimit -S -t) $(ulimit -v) >{file}; exec {real} \"$@\"");
    world.fake("qemu-img", &record);
    world.snapdeck(&["pull", "app"]).ok();
    // Seconds and KiB.
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "60 4194304\n");
}

#[test]
fn an_image_that_takes_too_much_cpu_time_is_not_installed() {
    let world = with_object();
    let real = find_program("qemu-img");
    world.fake(
        "qemu-img",
        &format!("[ \"$1\" = check ] || exec {real} \"$@\"\nulimit -S -t 1; while :; do :; done"),
    );
    let ran = world.snapdeck(&["pull", "app"]);
    ran.failed(
        1,
        &["cannot check", "60 s of CPU time", "do not trust the image"],
    );
    assert!(!exists(&world.snapshot_path("app")));
}

#[test]
fn a_check_of_an_image_that_keeps_it_busy_ends_with_its_job() {
    let world = World::new();
    let file = world.path("scratch/busy.qcow2");
    std::fs::write(&file, busy_image()).unwrap();
    world.put(&file, "app");
    for name in ["INT", "KILL"] {
        let gate = world.gate("check");
        gate.open();
        let child = world.start(&["pull", "app"]);
        gate.wait_reached();
        let since = Instant::now();
        signal(&child, name);
        let code = wait_for_exit(child).code;
        assert_eq!(code, (name == "INT").then_some(130));
        wait_until("qemu-img has ended", || gate.has_ended());
        assert!(since.elapsed() < SOON, "{name}: {:?}", since.elapsed());
        gate.reset();
    }
    assert!(!exists(&world.snapshot_path("app")));
}

#[test]
fn qemu_img_does_not_outlive_a_killed_snapdeck() {
    let world = with_object();
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Running);
    let convert = ["create", &id, "other"];
    for (verb, args) in [
        ("measure", &convert[..]),
        ("convert", &convert),
        ("check", &["pull", "app"]),
    ] {
        if verb == "measure" {
            world.force_convert();
        }
        let (child, gate) = world.start_to_gate(verb, args);
        assert!(!gate.has_ended(), "{verb}");
        signal(&child, "KILL");
        wait_for_exit(child);
        let since = Instant::now();
        wait_until(&format!("qemu-img {verb} has ended"), || gate.has_ended());
        assert!(since.elapsed() < SOON, "{verb}: {:?}", since.elapsed());
        gate.reset();
    }
    wait_until("the guest runs", || world.state(&id) == "running");
    assert_no_temporary_files(&world);
}

#[test]
fn a_cancelled_measure_ends_with_all_its_processes() {
    let (world, id) = World::with_sandbox(State::Running);
    world.force_convert();
    let (pids, real) = (world.path("scratch/pids"), find_program("qemu-img"));
    // A process of its own that ignores the signals of a terminal.
    world.fake(
        "qemu-img",
        &format!(
            "[ \"$1\" = measure ] || exec {real} \"$@\"\n\
             trap '' INT TERM HUP\nsleep 1000 & echo $$ $! >{pids}.new && mv {pids}.new {pids}\nwait"
        ),
    );
    let child = world.start(&["create", &id, "app"]);
    wait_until("qemu-img was called", || exists(&pids));
    let since = Instant::now();
    signal(&child, "INT");
    wait_for_exit(child).failed(130, &["was cancelled"]);
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    let pids = std::fs::read_to_string(pids).unwrap();
    for pid in pids.split_whitespace() {
        wait_until("qemu-img and its children have ended", || {
            let words = std::fs::read(format!("/proc/{pid}/cmdline"));
            words.map_or(true, |words| words.is_empty())
        });
    }
    assert_eq!(world.state(&id), "running");
    assert_no_temporary_files(&world);
}
