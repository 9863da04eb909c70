//! Pushes of stopped sandboxes whose bytes go straight from a host over SSH to the bucket.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::common::{
    Faults, State, World, run, same_disk, sha256, signal, wait_for_exit, wait_until,
};
use crate::pull_delta::direct::{
    assert_no_signature, passed, processes_with_a_signature, set_route, with_clock_offset,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Data of the base and of the overlay, in MiB.
const BASE: u32 = 40;
const OVERLAY: u32 = 64;
/// Most bytes over the link to the host: the parts with the header, with the start of the tail, and the last one, digests and the scripts.
const MIXED: u64 = 26 * MIB;

/// Creates an environment with a host over SSH that uploads by itself, as `route` says, and a stopped sandbox with data of its own, also
/// zeros, on a base that the bucket has.
fn with_sandbox(route: &str) -> (World, Arc<Faults>, String) {
    let world = World::over_ssh(1);
    let image = world.path("scratch/base.qcow2");
    world.image(&image, BASE);
    world.put(&image, "base");
    world.snapdeck(&["pull", "base"]).ok();
    let id = stopped_sandbox(&world);
    let faults = world.use_proxy();
    set_route(&world, "relay", route);
    (world, faults, id)
}

fn stopped_sandbox(world: &World) -> String {
    let id = world.sandbox("a", "base", State::Off);
    let disk = world.disk("a");
    world.scribble(&disk, 200, OVERLAY);
    // Zeros, a compressed cluster, and one of which the overlay has only a part.
    let commands = [
        "write -P 0 210M 1M",
        "write -P 0 400M 1M",
        "write -c -P 7 500M 64k",
        "write -P 9 66M 4k",
    ];
    let mut args = vec!["-f", "qcow2"];
    args.extend(commands.iter().flat_map(|command| ["-c", *command]));
    args.push(&disk);
    run("qemu-io", &args);
    id
}

fn number(result: &Value, key: &str) -> u64 {
    result[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {result}"))
}

/// Returns how many parts the host has tried to send.
fn sent_by_host(faults: &Faults) -> usize {
    let requests = faults.requests.lock().unwrap();
    let is_part =
        |request: &&String| request.starts_with("PUT ") && request.contains("X-Amz-Signature=");
    requests.iter().filter(is_part).count()
}

/// Removes the record of the last push, and the objects.
fn forget_pushes(world: &World, objects: &[&str]) {
    let records = world.dir.join("home/.local/state/snapdeck/pushes");
    std::fs::remove_dir_all(records).unwrap();
    for object in objects {
        world.snapdeck(&["remove", object, "--bucket"]).ok();
    }
}

#[track_caller]
fn assert_pushed(world: &World, name: &str) {
    let file = world.get(name);
    run("qemu-img", &["check", "-q", "-f", "qcow2", &file]);
    assert!(same_disk(&file, &world.disk("a")), "{name}");
    std::fs::remove_file(file).unwrap();
    world.snapdeck(&["verify", name, "--bucket"]).ok();
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn the_bytes_do_not_pass_this_machine_and_the_object_is_the_same() {
    let (world, faults, id) = with_sandbox("relay");
    world.snapdeck(&["push", &id, "app"]).ok();
    let (relayed, manifest) = (sha256(&world.get("app")), world.manifest("app"));
    forget_pushes(&world, &["app"]);
    set_route(&world, "relay", "direct");
    let before = passed(&world);
    let ran = world.snapdeck(&["push", &id, "app", "--json"]).ok();
    let link = passed(&world) - before;
    let result = ran.json();
    assert!(number(&result, "uploadedBytes") > u64::from(OVERLAY) * MIB);
    assert!(number(&result, "copiedBytes") >= 3 * 8 * MIB, "{result}");
    assert!(link < MIXED, "{link}: {result}");
    assert!(sent_by_host(&faults) >= 6, "{}", sent_by_host(&faults));
    assert_no_signature(&world, &ran);
    assert_eq!(sha256(&world.get("app")), relayed);
    let direct = world.manifest("app");
    for key in ["blocks", "sizeBytes", "parent", "method", "consistency"] {
        assert_eq!(direct[key], manifest[key], "{key}");
    }
    // Its digests are the word of the host.
    assert!(!direct["claimed"].is_null(), "{direct}");
    assert_pushed(&world, "app");

    // The next push is composed on this one.
    world.scribble(&world.disk("a"), 300, 1);
    let ran = world.snapdeck(&["-v", "push", &id, "two", "--json"]).ok();
    assert!(
        ran.stderr.contains("the last push of this sandbox"),
        "{ran:?}"
    );
    let result = ran.json();
    assert!(number(&result, "uploadedBytes") < 18 * MIB, "{result}");
    assert_pushed(&world, "two");

    // Another object has the parts.
    forget_pushes(&world, &["two"]);
    world.scribble(&world.disk("a"), 300, 1);
    let before = passed(&world);
    let result = world
        .snapdeck(&["push", &id, "three", "--json"])
        .ok()
        .json();
    let link = passed(&world) - before;
    assert!(number(&result, "copiedBytes") > 64 * MIB, "{result}");
    assert!(link < MIXED, "{link}: {result}");
    assert_pushed(&world, "three");
}

#[test]
fn a_compacted_object_is_the_same() {
    let (world, faults, id) = with_sandbox("relay");
    let push = ["push", &id, "app", "--compact"];
    world.snapdeck(&push).ok();
    let (relayed, manifest) = (sha256(&world.get("app")), world.manifest("app"));
    forget_pushes(&world, &["app"]);
    set_route(&world, "relay", "direct");
    world.snapdeck(&push).ok();
    assert!(sent_by_host(&faults) >= 6, "{}", sent_by_host(&faults));
    assert_eq!(sha256(&world.get("app")), relayed);
    assert_eq!(world.manifest("app")["blocks"], manifest["blocks"]);
    assert_pushed(&world, "app");
}

#[test]
fn bytes_of_a_base_that_the_bucket_lacks_are_sent_by_the_host() {
    let world = World::over_ssh(1);
    world.snapshot("base", BASE);
    let id = stopped_sandbox(&world);
    let faults = world.use_proxy();
    set_route(&world, "relay", "direct");
    let before = passed(&world);
    let result = world.snapdeck(&["push", &id, "app", "--json"]).ok().json();
    let link = passed(&world) - before;
    assert_eq!(result["uploadedBytes"], result["sizeBytes"]);
    assert!(link < MIXED, "{link}: {result}");
    assert!(sent_by_host(&faults) >= 9);
    assert_pushed(&world, "app");
}

#[test]
fn a_signature_is_in_no_process_and_a_kill_ends_the_push() {
    let (world, faults, id) = with_sandbox("direct");
    faults.hold_parts.store(true, SeqCst);
    let child = world.start(&["push", &id, "app"]);
    wait_until("the host sends a part", || world.curl_count() > 0);
    assert_eq!(processes_with_a_signature(), "");
    signal(&child, "KILL");
    let ran = wait_for_exit(child);
    assert_no_signature(&world, &ran);
    wait_until("curl has ended", || world.curl_count() == 0);
    faults.hold_parts.store(false, SeqCst);
    assert!(!world.is_in_bucket("app"));
}

#[test]
fn what_the_host_cannot_send_is_relayed() {
    let (world, _faults, id) = with_sandbox("auto");
    let endpoint = "transfer = \"auto\"\nbucket_endpoint = \"http://127.0.0.1:1\"\n";
    world.reconfigure("transfer = \"auto\"\n", endpoint);
    let ran = world.snapdeck(&["push", &id, "app"]).ok();
    assert!(ran.stderr.contains("curl: (7)"), "{ran:?}");
    assert_pushed(&world, "app");
    forget_pushes(&world, &["app"]);
    world.reconfigure("\"auto\"", "\"direct\"");
    let ran = world.snapdeck(&["push", &id, "app"]);
    ran.failed(1, &["cannot upload", "curl: (7)", "hint: set transfer"]);
    assert!(!world.is_in_bucket("app"));
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn what_the_host_can_no_longer_send_is_relayed() {
    let (world, faults, id) = with_sandbox("auto");
    faults.hold_parts.store(true, SeqCst);
    let child = world.start(&["push", &id, "app"]);
    wait_until("the host sends a part", || world.curl_count() > 0);
    // The parts that are held are stored, and all others are refused.
    faults.expired.store(1000, SeqCst);
    faults.hold_parts.store(false, SeqCst);
    let ran = wait_for_exit(child).ok();
    let warning = "uploading the rest through this machine";
    assert!(ran.stderr.contains(warning), "{ran:?}");
    assert_pushed(&world, "app");
}

#[test]
fn a_part_that_is_cut_refused_or_corrupted_is_sent_again() {
    let (world, faults, id) = with_sandbox("direct");
    for fault in [&faults.busy, &faults.cut_up, &faults.corrupt_up] {
        fault.store(1, SeqCst);
        world.snapdeck(&["push", &id, "app"]).ok();
        assert_eq!(fault.load(SeqCst), 0);
        assert_pushed(&world, "app");
        forget_pushes(&world, &["app"]);
    }
}

#[test]
fn a_disk_that_changes_during_the_push_is_not_published() {
    let (world, faults, id) = with_sandbox("direct");
    faults.hold_parts.store(true, SeqCst);
    let child = world.start(&["push", &id, "app"]);
    wait_until("the host sends a part", || world.curl_count() > 0);
    let disk = std::fs::File::options()
        .write(true)
        .open(world.disk("a"))
        .unwrap();
    disk.write_all_at(b"changed", 20 * MIB).unwrap();
    drop(disk);
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(4, &["changed while its disk was read"]);
    assert!(!world.is_in_bucket("app"));
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn a_paused_sandbox_is_relayed() {
    let (world, faults, id) = with_sandbox("direct");
    world.virsh(&["start", &id]);
    world.virsh(&["suspend", &id]);
    world.snapdeck(&["push", &id, "app"]).ok();
    assert_eq!(sent_by_host(&faults), 0);
    world.virsh(&["destroy", &id]);
    assert_pushed(&world, "app");
}

#[test]
fn a_killed_sshd_and_a_reboot_of_the_host_are_survived() {
    let (world, faults, id) = with_sandbox("direct");
    for is_reboot in [false, true] {
        faults.hold_parts.store(true, SeqCst);
        let child = world.start(&["push", &id, "app"]);
        wait_until("the host sends a part", || world.curl_count() > 0);
        match is_reboot {
            true => world.reboot(),
            false => world.link().kill_sshd(),
        }
        wait_until("curl has ended", || world.curl_count() == 0);
        faults.hold_parts.store(false, SeqCst);
        world.link().heal();
        wait_for_exit(child).ok();
        assert_pushed(&world, "app");
        forget_pushes(&world, &["app"]);
    }
}

#[test]
fn parts_are_signed_by_the_clock_of_the_store() {
    let (world, faults, id) = with_sandbox("direct");
    for offset in ["-7200", "7200"] {
        with_clock_offset(&world, &["push", &id, "app"], offset).ok();
        assert!(sent_by_host(&faults) >= 6, "{}", sent_by_host(&faults));
        assert_pushed(&world, "app");
        forget_pushes(&world, &["app"]);
    }
}
