//! Image, UEFI variables and manifest of an object are one snapshot: readers see all, or that something is missing.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use serde_json::Value;

use crate::common::{Faults, State, World, exists, run, same_disk, sha256, wait_until};

/// Writes a file of random bytes, as long as the firmware's variables.
fn write_random(path: &str) {
    let of = format!("of={path}");
    let args = [
        "if=/dev/urandom",
        &of,
        "bs=540672",
        "count=1",
        "iflag=fullblock",
        "status=none",
    ];
    run("dd", &args);
}

/// Creates an environment with a proxy and a UEFI sandbox that has random variables; also returns its id.
fn with_uefi_sandbox() -> (World, Arc<Faults>, String) {
    let world = World::new();
    world.reconfigure("firmware = \"bios\"", "firmware = \"secure-uefi\"");
    world.snapshot("base", 3);
    write_random(&world.path("snapshots/base_VARS.fd"));
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    let faults = world.use_proxy();
    (world, faults, id)
}

/// Changes disk and variables of the sandbox `a`; returns a copy of its disk, and the checksum of its variables.
fn change(world: &World, at: u32) -> (String, String) {
    world.scribble(&world.disk("a"), at, 3);
    let variables = world.path(&format!("nvram/{}_VARS.fd", world.id("a")));
    write_random(&variables);
    let copy = world.path(&format!("scratch/{at}.qcow2"));
    run(
        "qemu-img",
        &["convert", "-O", "qcow2", &world.disk("a"), &copy],
    );
    (copy, sha256(&variables))
}

/// Runs snapdeck until it sends a request whose first line contains `request`, and kills it.
fn kill_at(world: &World, faults: &Faults, args: &[&str], request: &str) {
    faults.hold_requests(Some(request));
    faults.held.store(0, SeqCst);
    let mut child = world.start(args);
    wait_until("the request is sent", || faults.held.load(SeqCst) > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    faults.hold_requests(None);
}

fn assert_pulls(world: &World, name: &str, disk: &str, variables: &str) {
    world.snapdeck(&["pull", name]).ok();
    assert!(same_disk(&world.snapshot_path(name), disk));
    let local = world.path(&format!("snapshots/{name}_VARS.fd"));
    assert_eq!(sha256(&local), variables);
    world.snapdeck(&["remove", name, "--local"]).ok();
}

fn problem(world: &World, name: &str) -> Option<String> {
    let listed = world.snapdeck(&["objects", "--json"]).ok().json();
    let mut objects = listed.as_array().unwrap().iter();
    let object = objects.find(|object| object["name"] == name)?;
    object
        .get("problem")
        .and_then(Value::as_str)
        .map(str::to_owned)
}

#[test]
fn a_push_killed_before_its_image_is_complete_publishes_nothing() {
    for request in ["PUT /lab/{}/app_VARS.", "POST /lab/{}/app.qcow2?uploadId="] {
        let (world, faults, id) = with_uefi_sandbox();
        let request = request.replace("{}", &world.tag);
        kill_at(&world, &faults, &["push", &id, "app"], &request);
        assert!(!world.is_in_bucket("app"), "{request}");
        world.snapdeck(&["pull", "app"]).failed(3, &["not found"]);
        // The next push is not disturbed by what it left.
        let (disk, variables) = change(&world, 200);
        world.snapdeck(&["push", &id, "app"]).ok();
        assert_pulls(&world, "app", &disk, &variables);
    }
}

#[test]
fn a_push_killed_while_it_overwrites_leaves_the_old_snapshot_whole() {
    for request in ["PUT /lab/{}/app_VARS.", "POST /lab/{}/app.qcow2?uploadId="] {
        let (world, faults, id) = with_uefi_sandbox();
        let (disk, variables) = change(&world, 200);
        world.snapdeck(&["push", &id, "app"]).ok();
        let request = request.replace("{}", &world.tag);
        let (new_disk, new_variables) = change(&world, 300);
        let push = ["push", &id, "app", "--overwrite"];
        kill_at(&world, &faults, &push, &request);
        assert_eq!(problem(&world, "app"), None);
        assert_pulls(&world, "app", &disk, &variables);
        world.snapdeck(&push).ok();
        assert_pulls(&world, "app", &new_disk, &new_variables);
        world.snapdeck(&["remove", "app", "--bucket"]).ok();
        let left = world.s5cmd(&["ls", "{}/app*"]);
        assert!(!left.status.success(), "the bucket has {left:?}");
    }
}

#[test]
fn a_snapshot_without_its_manifest_is_incomplete() {
    for is_overwritten in [false, true] {
        let (world, faults, id) = with_uefi_sandbox();
        let mut push = vec!["push", &*id, "app"];
        if is_overwritten {
            world.snapdeck(&push).ok();
            push.push("--overwrite");
        }
        let (disk, variables) = change(&world, 300);
        let request = format!("PUT /lab/{}/app.json", world.tag);
        kill_at(&world, &faults, &push, &request);
        assert!(world.is_in_bucket("app"));
        let listed = problem(&world, "app").unwrap();
        assert!(
            listed.contains("incomplete") && listed.contains("manifest"),
            "{listed}"
        );
        let table = world.snapdeck(&["objects"]).ok();
        assert!(table.stdout.contains("it is incomplete"), "{table:?}");
        let doctor = world.snapdeck(&["doctor"]);
        assert!(
            doctor.stdout.contains("app: it is incomplete"),
            "{doctor:?}"
        );
        let other = world.id("b");
        for args in [
            &["pull", "app"][..],
            &["verify", "app", "--bucket"],
            &["sandbox", "new", &other, "app", "--pull"],
        ] {
            let ran = world.snapdeck(args);
            ran.failed(
                1,
                &[
                    "incomplete",
                    "manifest",
                    "hint: push it again with --overwrite",
                ],
            );
        }
        assert!(!exists(&world.snapshot_path("app")));
        assert!(!exists(&world.path("snapshots/app_VARS.fd")));
        world
            .snapdeck(&["push", &id, "app"])
            .failed(4, &["already exists"]);
        world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
        assert_eq!(problem(&world, "app"), None);
        assert_pulls(&world, "app", &disk, &variables);
    }
}

#[test]
fn missing_or_damaged_variables_are_not_left_out() {
    let (world, _, id) = with_uefi_sandbox();
    world.snapdeck(&["push", &id, "app"]).ok();
    let damaged = world.path("scratch/damaged");
    write_random(&damaged);
    let listed = world.s5cmd(&["ls", "{}/app_VARS.*"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let key = listed.split_whitespace().last().unwrap();
    let put = world.s5cmd(&["cp", &damaged, &format!("{{}}/{key}")]);
    assert!(put.status.success(), "{put:?}");
    for args in [&["pull", "app"][..], &["verify", "app", "--bucket"]] {
        world.snapdeck(args).failed(1, &["damaged", "SHA-256"]);
    }
    assert!(
        world
            .s5cmd(&["rm", &format!("{{}}/{key}")])
            .status
            .success()
    );
    for args in [&["pull", "app"][..], &["verify", "app", "--bucket"]] {
        world
            .snapdeck(args)
            .failed(1, &["incomplete", "UEFI variables", "are missing"]);
    }
    assert!(!exists(&world.snapshot_path("app")));
    // The same push again completes it.
    world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
}

#[test]
fn objects_of_others_and_of_earlier_versions_are_complete() {
    let world = World::new();
    let (image, variables) = (world.path("scratch/i"), world.path("scratch/v"));
    world.image(&image, 3);
    write_random(&variables);
    world.put(&image, "app");
    assert_eq!(problem(&world, "app"), None);
    world.snapdeck(&["pull", "app"]).ok();
    assert!(!exists(&world.path("snapshots/app_VARS.fd")));
    world.snapdeck(&["remove", "app", "--local"]).ok();
    let put = world.s5cmd(&["cp", &variables, "{}/app_VARS.fd"]);
    assert!(put.status.success(), "{put:?}");
    assert_pulls(&world, "app", &image, &sha256(&variables));
}

#[test]
fn an_incomplete_object_is_not_copied_as_a_base() {
    let world = World::new();
    world.snapshot("base", 40);
    let id = world.sandbox("a", "base", State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let next = world.sandbox("b", "app", State::Off);
    let plan = world
        .snapdeck(&["push", &next, "next", "--plan", "--json"])
        .ok()
        .json();
    assert_eq!(plan["baseInBucket"], true, "{plan}");
    assert!(world.s5cmd(&["rm", "{}/app.json"]).status.success());
    let plan = world
        .snapdeck(&["push", &next, "next", "--plan", "--json"])
        .ok()
        .json();
    assert_eq!(plan["baseInBucket"], false, "{plan}");
    assert!(
        plan["baseReason"].as_str().unwrap().contains("incomplete"),
        "{plan}"
    );
}
