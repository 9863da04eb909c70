//! Uploads whose bytes go straight from a host over SSH to the bucket.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::{IMAGE, MIB, assert_not_in_bucket, number, size};
use crate::common::{Fault, Faults, World, exists, sha256, signal, wait_for_exit, wait_until};
use crate::pull_delta::direct::{
    assert_no_signature, passed, processes_with_a_signature, set_route, with_clock_offset,
};

/// Creates a host over SSH that uploads by itself, as `route` says, with the snapshot `golden`.
fn with_snapshot(route: &str) -> (World, Arc<Faults>, String) {
    let world = World::over_ssh(1);
    let faults = world.use_proxy();
    set_route(&world, "relay", route);
    let image = world.snapshot("golden", IMAGE);
    (world, faults, image)
}

#[track_caller]
fn assert_uploaded(world: &World, image: &str) {
    assert_eq!(sha256(&world.get("golden")), sha256(image));
    assert_eq!(world.uploads(), "[]");
    world.snapdeck(&["verify", "golden", "--bucket"]).ok();
    world.snapdeck(&["verify", "golden"]).ok();
}

#[test]
fn the_bytes_do_not_pass_this_machine() {
    let (world, _faults, image) = with_snapshot("direct");
    let before = passed(&world);
    let ran = world.snapdeck(&["upload", "golden", "--json"]).ok();
    let passed = passed(&world) - before;
    assert_eq!(number(&ran.json(), "uploadedBytes"), size(&image));
    assert!(passed < MIB, "{passed} of {}", size(&image));
    assert_no_signature(&world, &ran);
    assert_uploaded(&world, &image);
    // The next version: the store copies what it has, the host sends the rest.
    super::set_byte(&image, 20 * MIB, |byte| !byte);
    let result = world
        .snapdeck(&["upload", "golden", "--overwrite", "--json"])
        .ok()
        .json();
    assert!(number(&result, "copiedBytes") > 0, "{result}");
    assert_uploaded(&world, &image);
}

#[test]
fn a_signature_is_in_no_process_and_a_kill_ends_the_upload() {
    let (world, faults, image) = with_snapshot("direct");
    faults.hold_parts.store(true, SeqCst);
    let child = world.start(&["upload", "golden"]);
    wait_until("the host sends a part", || world.curl_count() > 0);
    assert_eq!(processes_with_a_signature(), "");
    signal(&child, "KILL");
    let ran = wait_for_exit(child);
    assert_no_signature(&world, &ran);
    wait_until("curl has ended", || world.curl_count() == 0);
    faults.hold_parts.store(false, SeqCst);
    assert!(!world.is_in_bucket("golden"));
    world.snapdeck(&["upload", "golden"]).ok();
    assert_eq!(sha256(&world.get("golden")), sha256(&image));
}

#[test]
fn what_the_host_cannot_upload_is_relayed() {
    let (world, _faults, image) = with_snapshot("auto");
    let endpoint = "transfer = \"auto\"\nbucket_endpoint = \"http://127.0.0.1:1\"\n";
    world.reconfigure("transfer = \"auto\"\n", endpoint);
    let ran = world.snapdeck(&["upload", "golden"]).ok();
    assert!(ran.stderr.contains("curl: (7)"), "{ran:?}");
    assert_uploaded(&world, &image);
    world.reconfigure("\"auto\"", "\"direct\"");
    super::set_byte(&image, 20 * MIB, |byte| !byte);
    let before = sha256(&world.get("golden"));
    let ran = world.snapdeck(&["upload", "golden", "--overwrite"]);
    ran.failed(1, &["cannot upload", "curl: (7)", "hint: set transfer"]);
    assert_eq!(sha256(&world.get("golden")), before);
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn a_part_that_is_cut_refused_or_corrupted_is_sent_again() {
    let (world, faults, image) = with_snapshot("direct");
    for fault in [&faults.busy, &faults.cut_up, &faults.corrupt_up] {
        fault.store(1, SeqCst);
        world.snapdeck(&["upload", "golden", "--overwrite"]).ok();
        assert_eq!(fault.load(SeqCst), 0);
        assert_uploaded(&world, &image);
        super::set_byte(&image, 20 * MIB, |byte| !byte);
    }
}

#[test]
fn a_connection_that_is_lost_is_survived() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let (world, faults, image) = with_snapshot("direct");
        faults.hold_parts.store(true, SeqCst);
        let child = world.start(&["upload", "golden"]);
        wait_until("the host sends a part", || faults.held.load(SeqCst) > 0);
        world.link().cut(fault);
        std::thread::sleep(std::time::Duration::from_secs(1));
        world.link().heal();
        faults.hold_parts.store(false, SeqCst);
        wait_for_exit(child).ok();
        assert_uploaded(&world, &image);
    }
}

#[test]
fn a_cancelled_upload_leaves_nothing() {
    let (world, faults, image) = with_snapshot("direct");
    faults.hold_parts.store(true, SeqCst);
    let child = world.start(&["upload", "golden"]);
    wait_until("the host sends a part", || world.curl_count() > 0);
    signal(&child, "INT");
    assert_eq!(wait_for_exit(child).code, Some(130));
    wait_until("curl has ended", || world.curl_count() == 0);
    faults.hold_parts.store(false, SeqCst);
    assert_not_in_bucket(&world, "golden");
    assert!(exists(&image));
}

#[test]
fn a_killed_sshd_and_a_reboot_of_the_host_are_survived() {
    for is_reboot in [false, true] {
        let (world, faults, image) = with_snapshot("direct");
        faults.hold_parts.store(true, SeqCst);
        let child = world.start(&["upload", "golden"]);
        wait_until("the host sends a part", || faults.held.load(SeqCst) > 0);
        match is_reboot {
            true => world.reboot(),
            false => world.link().kill_sshd(),
        }
        wait_until("curl has ended", || world.curl_count() == 0);
        faults.hold_parts.store(false, SeqCst);
        world.link().heal();
        wait_for_exit(child).ok();
        assert_uploaded(&world, &image);
    }
}

#[test]
fn parts_are_signed_by_the_clock_of_the_store() {
    let (world, _faults, image) = with_snapshot("direct");
    let upload = ["upload", "golden", "--overwrite"];
    for offset in ["-7200", "7200"] {
        with_clock_offset(&world, &upload, offset).ok();
        assert_uploaded(&world, &image);
        super::set_byte(&image, 20 * MIB, |byte| !byte);
    }
}
