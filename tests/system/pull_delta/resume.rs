//! Resumed pulls fetch at most the incomplete blocks again.

use std::sync::atomic::Ordering::SeqCst;

use super::{BLOCK, MIB, ProxiedWorld, bytes, new_bytes, upload_base_and_child};
use crate::common::{World, exists, find_program, signal, wait_for_exit, wait_until};

/// MiB in the object: with its tables 20 blocks.
const IMAGE: u32 = 152;

#[test]
fn a_pull_interrupted_at_90_percent_fetches_the_rest() {
    let (world, image) = ProxiedWorld::with_object(IMAGE);
    let size = std::fs::metadata(&image).unwrap().len();
    assert_eq!(size.div_ceil(BLOCK), 20);
    for name in ["KILL", "INT"] {
        let child = world.start_held(18 * BLOCK);
        signal(&child, name);
        let ran = wait_for_exit(child);
        world.release();
        world.received();
        if name == "INT" {
            assert!(ran.stderr.contains("for the next pull"), "{ran:?}");
            ran.failed(130, &["was cancelled"]);
        }
        let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
        assert_eq!(bytes(&result, "resumedBytes"), 18 * BLOCK);
        assert_eq!(bytes(&result, "fetchedBytes"), size - 18 * BLOCK);
        world.assert_pulled(&world, "app", &image);
        let received = world.received();
        assert!(received <= size * 12 / 100, "{received} of {size}");
        std::fs::remove_file(world.snapshot_path("app")).unwrap();
    }
}

#[test]
fn blocks_copied_on_the_host_survive_a_kill() {
    let world = ProxiedWorld::new(1);
    let (parent, child) = upload_base_and_child(&world);
    let (size, new) = (
        std::fs::metadata(&child).unwrap().len(),
        new_bytes(&parent, &child),
    );
    world.snapdeck(&["pull", "base"]).ok();
    world.faults.hold_from.store(1, SeqCst);
    let pull = world.start(&["pull", "app"]);
    // All blocks of the parent, and the first block of the download.
    wait_until("the copied blocks are logged", || {
        world.logged_bytes() >= size - new
    });
    signal(&pull, "KILL");
    wait_for_exit(pull);
    world.release();
    // The next pull does not need the parent.
    std::fs::remove_file(world.snapshot_path("base")).unwrap();
    world.received();
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(bytes(&result, "copiedBytes"), 0);
    assert!(bytes(&result, "resumedBytes") >= size - new, "{result}");
    world.assert_pulled(&world, "app", &child);
    assert!(world.received() < new + MIB);
}

/// Creates a host over SSH with `base`, whose copies to `app` wait while the file `held` exists; `pids` gets their processes.
fn with_held_copies() -> (ProxiedWorld, String, [String; 2]) {
    let inner = World::over_ssh(1);
    let faults = inner.use_proxy();
    let world = ProxiedWorld { inner, faults };
    let (_, child) = upload_base_and_child(&world);
    world.snapdeck(&["pull", "base"]).ok();
    let (held, pids) = (world.path("scratch/held"), world.path("scratch/pids"));
    std::fs::write(&held, "").unwrap();
    let dd = find_program("dd");
    let script = format!(
        "case \"$*\" in *if=/proc/self/fd/7*) echo $$ >>{pids}; while [ -e {held} ]; do sleep 0.02; done ;; esac\n\
         {dd} \"$@\""
    );
    world.fake("dd", &script);
    (world, child, [held, pids])
}

#[test]
fn a_copy_on_the_host_that_outlives_its_connection_does_not_write_into_the_next_pull() {
    let (world, _, [held, pids]) = with_held_copies();
    let pull = world.start(&["pull", "app"]);
    wait_until("blocks are copied", || exists(&pids));
    world.link().stop_open();
    signal(&pull, "KILL");
    wait_for_exit(pull);
    let image = world.path("scratch/other.qcow2");
    world.image(&image, 88);
    world.put_with_manifest(&image, "app", None);
    wait_until("nothing of the first pull runs", || {
        world.snapdeck(&["pull", "app"]).code == Some(0)
    });
    std::fs::remove_file(&held).unwrap();
    // A copy that still ran would write its block now.
    wait_until("no copy runs", || !is_copying(&pids));
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_snapdeck_that_was_stopped_while_the_host_copies_goes_on_to_copy() {
    let (world, child, [held, pids]) = with_held_copies();
    let pull = world.start(&["pull", "app", "--json"]);
    wait_until("blocks are copied", || exists(&pids));
    signal(&pull, "STOP");
    // Without heartbeats the host ends the copies, and closes the file.
    wait_until("no copy runs", || !is_copying(&pids));
    std::thread::sleep(std::time::Duration::from_secs(5));
    std::fs::remove_file(&held).unwrap();
    signal(&pull, "CONT");
    let result = wait_for_exit(pull).ok().json();
    let size = std::fs::metadata(&child).unwrap().len();
    let fetched = bytes(&result, "fetchedBytes");
    assert_eq!(bytes(&result, "copiedBytes") + fetched, size, "{result}");
    assert!(fetched < size / 2, "{result}");
    world.assert_pulled(&world, "app", &child);
}

/// Returns whether one of the processes in `pids` of the host, which is this machine, still runs `dd`.
fn is_copying(pids: &str) -> bool {
    let pids = std::fs::read_to_string(pids).unwrap();
    pids.lines().any(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("/dd\0if=/proc/self/fd/7")
    })
}

#[test]
fn a_pull_stopped_by_a_full_disk_is_resumed_later() {
    let (world, image) = ProxiedWorld::with_object(40);
    let size = std::fs::metadata(&image).unwrap().len();
    let Some(disk) = world.small_disk("snapshots", "44m") else {
        return;
    };
    let child = world.start_held(3 * BLOCK);
    let filler = world.path("snapshots/filler");
    // dd ends when the disk is full.
    disk.run_on_host(&[
        "dd",
        "if=/dev/zero",
        &format!("of={filler}"),
        "bs=1M",
        "status=none",
    ]);
    world.release();
    let ran = wait_for_exit(child);
    assert_eq!(ran.error_kind(), "noSpace");
    assert!(ran.stderr.contains("for the next pull"), "{ran:?}");
    ran.failed(1, &["No space left", "free space there"]);
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    assert_eq!(listed, serde_json::json!([]));
    // The partial file is kept while the disk is full.
    let ran = world.snapdeck(&["pull", "app"]);
    assert!(ran.stderr.contains("for the next pull"), "{ran:?}");
    ran.failed(1, &["cannot pull app", "has 0 B free"]);

    disk.run_on_host(&["rm", &filler]);
    world.received();
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert!(bytes(&result, "resumedBytes") >= 3 * BLOCK, "{result}");
    assert!(world.received() < size - 3 * BLOCK + MIB);
}
