//! Pushes that are composed on the sandbox's last push: only what changed since is sent, in the store and to other hosts.

use std::sync::atomic::Ordering::SeqCst;

use crate::common::{State, World, run, same_disk, wait_for_exit};
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Data of the base and of the overlay, in MiB.
const BASE: u32 = 24;
const OVERLAY: u32 = 48;
/// Most bytes for a change of a MiB: the part with the header, the last one, and what was added.
const SMALL: u64 = 18 * MIB;

/// Creates an environment with a sandbox that has data of its own, based on a pulled snapshot, and pushes it as `v1`.
fn with_first_push(state: State) -> (World, String) {
    let world = World::new();
    let image = world.path("scratch/base.qcow2");
    world.image(&image, BASE);
    world.put(&image, "base");
    world.snapdeck(&["pull", "base"]).ok();
    let id = world.sandbox("a", "base", State::Off);
    world.scribble(&world.disk("a"), 200, OVERLAY);
    let first = world.snapdeck(&["push", &id, "v1", "--json"]).ok().json();
    assert!(number(&first, "uploadedBytes") > u64::from(OVERLAY) * MIB);
    if state == State::Running {
        world.virsh(&["start", &id]);
    }
    (world, id)
}

fn number(result: &Value, key: &str) -> u64 {
    result[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {result}"))
}

fn discard(disk: &str, at: &str, length: &str) {
    let command = format!("discard {at} {length}");
    run(
        "qemu-io",
        &["-f", "qcow2", "-d", "unmap", "-c", &command, disk],
    );
}

#[track_caller]
fn assert_object_is(world: &World, name: &str, disk: &str) {
    let file = world.get(name);
    run("qemu-img", &["check", "-q", "-f", "qcow2", &file]);
    assert!(same_disk(&file, disk), "{name} differs from {disk}");
    std::fs::remove_file(file).unwrap();
}

#[track_caller]
fn assert_small(result: &Value) {
    let sent = number(result, "uploadedBytes");
    assert!(sent <= SMALL, "{result}");
    let size = number(result, "sizeBytes");
    assert_eq!(sent + number(result, "copiedBytes"), size, "{result}");
}

#[test]
fn a_push_sends_what_changed_since_the_last_one_also_after_a_trim() {
    let (world, id) = with_first_push(State::Off);
    let disk = world.disk("a");
    world.snapdeck(&["pull", "v1"]).ok();
    for (name, before) in [("v2", "v1"), ("v3", "v2"), ("v4", "v3")] {
        world.scribble(&disk, 300, 1);
        discard(&disk, "201M", "192k");
        discard(&disk, "230M", "64k");
        let plan = world.snapdeck(&["push", &id, name, "--plan"]).ok();
        assert!(plan.stdout.contains(before), "{plan:?}");
        let ran = world.snapdeck(&["-v", "push", &id, name, "--json"]).ok();
        assert!(
            ran.stderr
                .contains(&format!("{before}, the last push of this sandbox")),
            "{ran:?}"
        );
        if world.is_over_ssh() {
            let text = "of the overlay are unchanged on the host and not read";
            assert!(ran.stderr.contains(text), "{ran:?}");
        }
        assert_small(&ran.json());
        assert_object_is(&world, name, &disk);
        let pulled = world.snapdeck(&["pull", name, "--json"]).ok().json();
        assert!(number(&pulled, "fetchedBytes") <= SMALL, "{pulled}");
        assert!(same_disk(&world.snapshot_path(name), &disk));
    }
    // Nothing changed.
    let result = world.snapdeck(&["push", &id, "v5", "--json"]).ok().json();
    assert_small(&result);
    assert_object_is(&world, "v5", &disk);
}

#[test]
fn a_running_sandbox_is_composed_on_its_last_push() {
    let (world, id) = with_first_push(State::Running);
    for name in ["v2", "v3"] {
        let result = world.snapdeck(&["create", &id, name, "--json"]).ok();
        assert_small(&result.json());
    }
    world.virsh(&["destroy", &id]);
    assert_object_is(&world, "v3", &world.disk("a"));
}

#[test]
fn the_last_push_may_be_overwritten_by_the_next() {
    let (world, id) = with_first_push(State::Off);
    world.scribble(&world.disk("a"), 300, 1);
    let args = ["push", &id, "v1", "--overwrite", "--json"];
    assert_small(&world.snapdeck(&args).ok().json());
    assert_object_is(&world, "v1", &world.disk("a"));
}

#[test]
fn an_older_copy_of_the_disk_is_pushed_as_it_is() {
    let (world, id) = with_first_push(State::Off);
    let (disk, copy) = (world.disk("a"), world.path("scratch/copy.qcow2"));
    std::fs::copy(&disk, &copy).unwrap();
    world.scribble(&disk, 200, 4);
    world.scribble(&disk, 400, 4);
    world.snapdeck(&["push", &id, "v2"]).ok();
    std::fs::copy(&copy, &disk).unwrap();
    world.snapdeck(&["push", &id, "v3"]).ok();
    assert_object_is(&world, "v3", &disk);
}

#[test]
fn without_the_last_push_all_changes_are_sent() {
    let (world, id) = with_first_push(State::Off);
    let disk = world.disk("a");
    let push_all = |name: &str, reason: &str| {
        let ran = world.snapdeck(&["-v", "push", &id, name, "--json"]).ok();
        assert!(ran.stderr.contains(reason), "{ran:?}");
        let sent = number(&ran.json(), "uploadedBytes");
        assert!(sent > u64::from(OVERLAY) * MIB, "{ran:?}");
        assert_object_is(&world, name, &disk);
    };
    // Another image has its name.
    world.put(&world.path("scratch/base.qcow2"), "v1");
    push_all("v2", "v1.qcow2 was replaced");
    world.snapdeck(&["remove", "v2", "--bucket"]).ok();
    push_all("v3", "v2 is no longer in");
    // A new sandbox of the same name has another disk.
    world.replace_sandbox("a", "base", State::Off);
    world.scribble(&disk, 200, OVERLAY);
    let ran = world.snapdeck(&["-v", "push", &id, "v4", "--json"]).ok();
    assert!(!ran.stderr.contains("last push"), "{ran:?}");
    assert_object_is(&world, "v4", &disk);
}

#[test]
fn a_base_changed_in_place_is_not_mixed_with_the_last_push() {
    let (world, id) = with_first_push(State::Off);
    world.scribble(&world.snapshot_path("base"), 70, 1);
    world.snapdeck(&["push", &id, "v2"]).ok();
    assert_object_is(&world, "v2", &world.disk("a"));
}

#[test]
fn a_last_push_that_is_replaced_meanwhile_is_not_used() {
    let (world, id) = with_first_push(State::Off);
    world.scribble(&world.disk("a"), 300, 1);
    let (child, faults) = world.start_to_parts(&["-v", "push", &id, "v2", "--json"]);
    world.put(&world.path("scratch/base.qcow2"), "v1");
    faults.hold_parts.store(false, SeqCst);
    let ran = wait_for_exit(child).ok();
    assert!(ran.stderr.contains("beginning again"), "{ran:?}");
    assert_object_is(&world, "v2", &world.disk("a"));
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn a_store_that_does_not_copy_gets_the_image_from_the_host() {
    let (world, id) = with_first_push(State::Off);
    let faults = world.use_proxy();
    faults.refuse_copies.store(true, SeqCst);
    let result = world.snapdeck(&["push", &id, "v2", "--json"]).ok().json();
    assert_eq!(result["copiedBytes"], 0);
    assert_object_is(&world, "v2", &world.disk("a"));
    assert_eq!(world.uploads(), "[]");
}

/// The store copies blocks from whatever object has them: here the base is no longer in the bucket.
#[test]
fn blocks_of_any_object_are_copied() {
    let (world, _) = with_first_push(State::Off);
    world.snapdeck(&["remove", "base", "--bucket"]).ok();
    let other = world.sandbox("b", "base", State::Off);
    world.scribble(&world.disk("b"), 500, 24);
    let push = |name: &str| {
        let ran = world.snapdeck(&["push", &other, name, "--json"]).ok();
        assert_object_is(&world, name, &world.disk("b"));
        ran.json()
    };
    let result = push("other");
    assert!(number(&result, "copiedBytes") >= 16 * MIB, "{result}");
    // Without the record of the push, the same blocks are found again.
    let records = world.dir.join("home/.local/state/snapdeck/pushes");
    std::fs::remove_dir_all(records).unwrap();
    let result = push("other-2");
    assert!(number(&result, "copiedBytes") >= 32 * MIB, "{result}");
}

#[test]
fn an_object_whose_blocks_are_replaced_meanwhile_is_not_used() {
    let (world, _) = with_first_push(State::Off);
    world.snapdeck(&["remove", "base", "--bucket"]).ok();
    let other = world.sandbox("b", "base", State::Off);
    let (child, faults) = world.start_to_parts(&["-v", "push", &other, "other", "--json"]);
    world.put(&world.path("scratch/base.qcow2"), "v1");
    faults.hold_parts.store(false, SeqCst);
    let ran = wait_for_exit(child).ok();
    assert_eq!(ran.json()["copiedBytes"], 0, "{ran:?}");
    assert_object_is(&world, "other", &world.disk("b"));
}

/// `virt-install` preallocates the metadata of a disk: its file is as long as the disk, and has holes for data.
#[test]
fn holes_of_a_preallocated_base_are_neither_sent_nor_written() {
    let world = World::new();
    let base = world.snapshot_path("base");
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "preallocation=metadata",
        &base,
        "1G",
    ];
    run("qemu-img", &create);
    world.scribble(&base, 64, 8);
    let id = world.sandbox("a", "base", State::Off);
    let result = world.snapdeck(&["push", &id, "app", "--json"]).ok().json();
    let sent = number(&result, "uploadedBytes");
    assert!(sent < 12 * MIB, "{result}");
    assert_object_is(&world, "app", &world.disk("a"));

    // The base itself, uploaded by another client, has a manifest once it was pulled and verified.
    world.put(&base, "copy");
    world.snapdeck(&["pull", "copy"]).ok();
    let manifest = world.path("snapshots/copy.json");
    let put = world.s5cmd(&["cp", &manifest, "{}/copy.json"]);
    assert!(put.status.success(), "{put:?}");
    world.snapdeck(&["remove", "copy", "--local"]).ok();
    let pulled = world.snapdeck(&["pull", "copy", "--json"]).ok().json();
    assert!(number(&pulled, "fetchedBytes") < 40 * MIB, "{pulled}");
    let file = std::fs::metadata(world.snapshot_path("copy")).unwrap();
    let allocated = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    assert!(allocated < 48 * MIB, "{allocated} bytes");
    assert!(same_disk(&world.snapshot_path("copy"), &base));
}
