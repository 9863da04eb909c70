//! `sandbox new` creates a sandbox as requested, or leaves no trace of it.

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::common::{
    State, World, exists, is_root, only_local, run, sha256, signal, stamp, wait_for_exit,
    wait_until,
};
use crate::sandboxes::assert_no_sandbox;

#[test]
fn directories_of_a_group_can_have_the_setgid_bit() {
    let world = World::new();
    world.snapshot("base", 1);
    for dir in ["snapshots", "sandboxes", "nvram"] {
        run("chmod", &["2775", &world.path(dir)]);
    }
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let checks = world.snapdeck(&["doctor", "--json"]).json().to_string();
    assert!(!checks.contains("replaces files"), "{checks}");
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    assert_no_sandbox(&world, &id);
}

#[test]
fn a_new_sandbox_is_as_requested_and_its_base_unchanged() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let before = (sha256(&base), stamp(&base));
    let id = world.id("a");
    let size = ["--cpus", "2", "--memory", "96M", "--storage", "2G"];
    let args = [&["sandbox", "new", &id, "base", "--json"], &size[..]].concat();

    let mut sandbox = world.snapdeck(&args).ok().json();

    let changed = sandbox.as_object_mut().unwrap().remove("changed");
    assert_eq!(changed, Some(json!(true)));
    assert_eq!(
        (&sandbox["id"], &sandbox["host"]),
        (&json!(id), &json!("alpha"))
    );
    assert_eq!(sandbox["state"], "shut-off");
    assert_eq!(sandbox["cpus"], 2);
    assert_eq!(sandbox["memoryBytes"], 96 << 20);
    assert_eq!(sandbox["chain"][0]["path"], json!(world.disk("a")));
    assert_eq!(sandbox["chain"][0]["facts"]["virtualSize"], 2_u64 << 30);
    assert_eq!(sandbox["chain"][1]["snapshot"], "base");
    let info = run("qemu-img", &["info", "--output=json", &world.disk("a")]);
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["backing-filename-format"], "qcow2");
    assert_eq!(info["full-backing-filename"], json!(base));
    let metadata = std::fs::metadata(world.disk("a")).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o644);
    let xml = world.virsh(&["dumpxml", &id]);
    for part in [
        "listen='127.0.0.1'",
        "org.qemu.guest_agent.0",
        "discard='unmap'",
        "offset='localtime'",
    ] {
        assert!(xml.contains(part), "{part} is not in {xml}");
    }
    assert_eq!(
        world
            .snapdeck(&["sandbox", "show", &id, "--json"])
            .ok()
            .json(),
        sandbox
    );

    world.snapdeck(&["sandbox", "start", &id]).ok();
    assert_eq!(world.state(&id), "running");
    assert_eq!((sha256(&base), stamp(&base)), before);
}

#[test]
fn defaults_are_those_of_the_settings_and_the_snapshot() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.id("a");
    let args = ["sandbox", "new", &id, "base.qcow2", "--start", "--json"];
    let sandbox = world.snapdeck(&args).ok().json();
    assert_eq!(sandbox["state"], "running");
    assert_eq!(
        (&sandbox["cpus"], &sandbox["memoryBytes"]),
        (&json!(1), &json!(64 << 20))
    );
    assert_eq!(sandbox["chain"][0]["facts"]["virtualSize"], 1 << 30);
    assert_eq!(world.state(&id), "running");
}

#[test]
fn automatic_acceleration_runs_a_guest() {
    let world = World::new();
    world.snapshot("base", 0);
    world.reconfigure("accel = \"qemu\"", "accel = \"auto\"");
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--start"])
        .ok();
    assert_eq!(world.state(&id), "running");
    let domains = world.virsh(&["list", "--all", "--name"]);
    assert!(!domains.contains("snapdeck-probe"), "{domains}");
}

#[test]
fn pull_downloads_a_snapshot_that_is_only_in_the_bucket() {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 1);
    world.put(&image, "app");
    let id = world.id("a");
    let new = ["sandbox", "new", &id, "app"];
    let ran = world.snapdeck(&new);
    ran.failed(
        3,
        &[
            "snapshot app not found on host alpha",
            "snapdeck pull app",
            "--pull",
        ],
    );
    assert_no_sandbox(&world, &id);

    let sandbox = world
        .snapdeck(&[&new[..], &["--pull", "--json"]].concat())
        .ok()
        .json();
    assert_eq!(sandbox["chain"][1]["snapshot"], "app");
    assert!(exists(&world.snapshot_path("app")));

    // With the snapshot on the host nothing is pulled.
    let id = world.id("b");
    world
        .snapdeck(&["sandbox", "new", &id, "app", "--pull"])
        .ok();
}

#[test]
fn a_failed_pull_creates_no_sandbox() {
    let world = World::new();
    let id = world.id("a");
    let ran = world.snapdeck(&["sandbox", "new", &id, "app", "--pull", "--json"]);
    assert_eq!(ran.error_kind(), "notFound");
    ran.failed(3, &["snapshot not found in store"]);
    assert_no_sandbox(&world, &id);
}

#[test]
fn a_sandbox_that_does_not_start_is_removed() {
    let world = World::new();
    world.snapshot("base", 0);
    world.reconfigure("network = \"none\"", "network = \"nowhere\"");
    let id = world.id("a");
    let ran = world.snapdeck(&["sandbox", "new", &id, "base", "--start"]);
    ran.failed(1, &[&id, "nowhere"]);
    assert_no_sandbox(&world, &id);
}

#[test]
fn a_cancelled_creation_is_undone() {
    for name in ["INT", "TERM"] {
        let world = World::new();
        world.snapshot("base", 0);
        let id = world.id("a");
        let (child, gate) = world.start_to_gate("create", &["sandbox", "new", &id, "base"]);
        signal(&child, name);
        gate.open();
        wait_for_exit(child).failed(130, &["was cancelled"]);
        assert_no_sandbox(&world, &id);
    }
}

#[test]
fn a_killed_creation_is_repeated() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.id("a");
    let new = ["sandbox", "new", &id, "base"];
    let (child, gate) = world.start_to_gate("create", &new);
    signal(&child, "KILL");
    wait_for_exit(child);
    gate.open();
    let listed = world.snapdeck(&["sandboxes", "--json"]).ok().json();
    assert_eq!(listed, json!([]));
    world.snapdeck(&new).ok();
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    assert_no_sandbox(&world, &id);
}

#[test]
fn destroy_removes_the_files_of_a_killed_creation() {
    let world = World::private();
    world.snapshot("base", 0);
    let id = world.id("a");
    let new = ["sandbox", "new", &id, "base"];
    let (child, gate) = world.start_to_gate("create", &new);
    // Its overlay is created, its domain cannot be defined.
    world.signal_libvirtd("STOP");
    gate.open();
    wait_until("the overlay exists", || exists(&world.disk("a")));
    signal(&child, "KILL");
    wait_for_exit(child);
    world.signal_libvirtd("CONT");
    // A request that libvirtd has received before.
    let _ = world.virsh_command(&["undefine", &id]).output();
    let again = world.snapdeck(&new);
    let words = ["exists, but sandbox", "snapdeck sandbox destroy"];
    again.failed(4, &[&[&*world.disk("a")][..], &words].concat());
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    assert_no_sandbox(&world, &id);
    world.snapdeck(&new).ok();
}

#[test]
fn files_that_snapdeck_does_not_know_are_no_leftovers() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.id("a");
    let (disk, variables) = (world.disk("a"), world.path(&format!("nvram/{id}_VARS.fd")));
    let destroy = ["sandbox", "destroy", &id, "--yes"];
    for file in [&disk, &variables] {
        std::fs::write(file, "of another program").unwrap();
        world
            .snapdeck(&destroy)
            .failed(3, &[file, "no record of it"]);
        let new = world.snapdeck(&["sandbox", "new", &id, "base"]);
        let refused = new.failed(4, &[file, "choose another id"]);
        assert!(!refused.stderr.contains("sandbox destroy"), "{refused:?}");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "of another program");
        std::fs::remove_file(file).unwrap();
    }
    // Put there after the sandbox was undefined by hand.
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world.virsh(&["undefine", &id, "--keep-nvram"]);
    world.snapdeck(&destroy).failed(3, &[&disk]);
    assert!(exists(&disk));
}

#[test]
fn a_base_removed_meanwhile_fails_the_creation() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.id("a");
    let (child, gate) = world.start_to_gate("create", &["sandbox", "new", &id, "base"]);
    std::fs::remove_file(world.snapshot_path("base")).unwrap();
    gate.open();
    assert_ne!(wait_for_exit(child).code, Some(0));
    assert_no_sandbox(&world, &id);
}

#[test]
fn a_full_disk_is_an_error() {
    if only_local("a fake qemu-img is the same everywhere") {
        return;
    }
    let (world, _) = World::with_sandbox(State::Off);
    let real = crate::common::find_program("qemu-img");
    world.fake(
        "qemu-img",
        &format!(
            "[ \"$1\" = create ] || exec {real} \"$@\"\n\
             echo 'qemu-img: x: No space left on device' >&2\nexit 1"
        ),
    );
    let id = world.id("b");
    let ran = world.snapdeck(&["sandbox", "new", &id, "base", "--json"]);
    assert_eq!(ran.error_kind(), "noSpace");
    assert_no_sandbox(&world, &id);
}

#[test]
fn libvirt_does_not_change_the_owner_of_the_base() {
    let world = World::new();
    if !is_root() {
        return;
    }
    let base = world.snapshot("base", 1);
    run("chown", &["nobody:daemon", &base]);
    let owner = || run("stat", &["-c", "%U:%G %z", &base]);
    let before = owner();
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--memory", "64M", "--start"])
        .ok();
    assert_eq!(owner(), before);
    world.snapdeck(&["sandbox", "stop", &id, "--force"]).ok();
    assert_eq!(owner(), before);
}
