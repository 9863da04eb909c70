//! `push` uploads stopped and paused sandboxes, and refuses running ones.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use crate::common::{State, World, run, sha256, stamp, wait_for_exit};
use crate::operations::{assert_no_temporary_files, assert_object_is};

#[test]
fn a_stopped_sandbox_is_pushed_and_its_base_unchanged() {
    let world = World::new();
    let base = world.snapshot("base", 3);
    let id = world.sandbox("a", "base", State::Off);
    let before = (sha256(&base), stamp(&base));

    let ran = world.snapdeck(&["push", &id, "app", "--json"]).ok();

    let result = ran.json();
    assert_eq!(result["snapshotName"], "app");
    assert_eq!(
        result["snapshotPath"],
        json!(format!("{}/app.qcow2", world.tag))
    );
    let file = world.get("app");
    let length = std::fs::metadata(&file).unwrap().len();
    assert_eq!(result["sizeBytes"], json!(length));
    assert!(
        length > 5 << 20,
        "base and overlay have more than {length} bytes"
    );
    assert_object_is(&world, "app", &world.disk("a"));
    assert_eq!((sha256(&base), stamp(&base)), before);
    assert_eq!(world.state(&id), "shut off");
    assert_no_temporary_files(&world);
}

#[test]
fn a_snapshot_name_may_end_with_qcow2() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Off);
    let ran = world.snapdeck(&["push", &id, "app.qcow2", "--json"]).ok();
    assert_eq!(ran.json()["snapshotName"], "app");
    assert!(world.is_in_bucket("app"));
    assert!(!world.is_in_bucket("app.qcow2"));
}

#[test]
fn a_paused_sandbox_is_pushed_and_stays_paused() {
    let (world, id) = World::with_sandbox(State::Paused);
    world.snapdeck(&["push", &id, "app"]).ok();
    assert_object_is(&world, "app", &world.disk("a"));
    assert_eq!(world.state(&id), "paused");
    assert_no_temporary_files(&world);
}

#[test]
fn a_saved_sandbox_is_pushed_with_a_warning_and_stays_saved() {
    let (world, id) = World::with_sandbox(State::Saved);
    let ran = world.snapdeck(&["push", &id, "app", "--json"]).ok();
    assert!(
        ran.stderr.contains("its memory is not in the snapshot"),
        "{ran:?}"
    );
    assert_eq!(ran.json()["snapshotName"], "app");
    assert_object_is(&world, "app", &world.disk("a"));
    assert!(
        world
            .virsh(&["dominfo", &id])
            .contains("Managed save:   yes")
    );
    assert_no_temporary_files(&world);
}

#[test]
fn a_running_sandbox_is_refused() {
    let (world, id) = World::with_sandbox(State::Running);
    let ran = world.snapdeck(&["push", &id, "app", "--json"]);
    assert_eq!(ran.error_kind(), "conflict");
    ran.failed(
        4,
        &[&id, "sandbox must be stopped or paused", "it is running"],
    );
    assert_eq!(world.state(&id), "running");
    assert!(!world.is_in_bucket("app"));
    assert_no_temporary_files(&world);
}

#[test]
fn an_object_is_replaced_only_with_overwrite() {
    let world = World::new();
    world.snapshot("base", 1);
    let (a, b) = (
        world.sandbox("a", "base", State::Off),
        world.sandbox("b", "base", State::Running),
    );
    world.snapdeck(&["push", &a, "app"]).ok();
    let first = world.etag("app");

    for args in [["push", &a, "app"], ["create", &b, "app"]] {
        let ran = world.snapdeck(&args);
        ran.failed(4, &["app.qcow2 already exists", "--overwrite"]);
        assert_eq!(world.etag("app"), first, "{args:?}");
    }
    assert_eq!(world.state(&b), "running");

    world.snapdeck(&["create", &b, "app", "--overwrite"]).ok();
    assert_ne!(world.etag("app"), first);
    assert_object_is(&world, "app", &world.disk("b"));
    world.snapdeck(&["push", &a, "app", "--overwrite"]).ok();
    assert_object_is(&world, "app", &world.disk("a"));
    assert_no_temporary_files(&world);
}

#[test]
fn an_object_created_during_the_push_is_not_replaced() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    let (child, faults) = world.start_to_parts(&["push", &id, "app"]);
    world.put(&base, "app");
    let other = world.etag("app");
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(4, &["app.qcow2", "exists"]);
    assert_eq!(world.etag("app"), other);
    assert_no_temporary_files(&world);
}

#[test]
fn a_sandbox_resumed_during_the_push_is_not_uploaded() {
    let (world, id) = World::with_sandbox(State::Paused);
    let (child, faults) = world.start_to_parts(&["push", &id, "app"]);
    world.virsh(&["resume", &id]);
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(
        4,
        &[
            &id,
            "changed while its disk was read",
            "it was paused and is now running",
        ],
    );
    assert_eq!(world.state(&id), "running", "the operator resumed it");
    assert!(!world.is_in_bucket("app"));
    assert_eq!(world.uploads(), "[]");
    assert_no_temporary_files(&world);
}

/// Attaches a second disk to the definition of a sandbox that is shut off; returns its path.
fn attach_disk(world: &World, id: &str, target: &str) -> String {
    let path = world.path(&format!("sandboxes/{target}.img"));
    world.image(&path, 1);
    world.virsh(&[
        "attach-disk",
        id,
        &path,
        target,
        "--config",
        "--driver",
        "qemu",
        "--subdriver",
        "qcow2",
    ]);
    path
}

/// Changes texts in the definition of a sandbox.
fn edit_definition(world: &World, id: &str, edits: &[(&str, &str)]) {
    let mut xml = world.virsh(&["dumpxml", "--inactive", id]);
    for (from, to) in edits {
        assert!(xml.contains(from), "{from}: {xml}");
        xml = xml.replace(from, to);
    }
    let file = world.path("scratch/domain.xml");
    std::fs::write(&file, xml).unwrap();
    world.virsh(&["define", &file]);
}

#[test]
fn the_disk_that_boots_is_pushed_and_the_others_are_named() {
    let (world, id) = World::with_sandbox(State::Off);
    let (disk, data) = (world.disk("a"), attach_disk(&world, &id, "vdb"));
    let ran = world.snapdeck(&["push", &id, "first"]).ok();
    for word in [&id, "2 disks", &*disk, &format!("not {data} (vdb)")] {
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
    }
    assert_object_is(&world, "first", &disk);
    // Targets decide, not the order of the definition: the overlay becomes vdc.
    edit_definition(&world, &id, &[("dev='vda'", "dev='vdc'")]);
    let ran = world.snapdeck(&["push", &id, "second"]).ok();
    assert!(ran.stderr.contains(&format!("not {disk} (vdc)")), "{ran:?}");
    assert_object_is(&world, "second", &data);
    // A boot order decides before the targets.
    let target = "<target dev='vdc' bus='virtio'/>";
    let ordered = format!("{target}<boot order='1'/>");
    let edits = [("<boot dev='hd'/>", ""), (target, &*ordered)];
    edit_definition(&world, &id, &edits);
    world.snapdeck(&["push", &id, "third"]).ok();
    assert_object_is(&world, "third", &disk);
    let ran = world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    let words = format!("has 2 disks: removing {disk}, keeping {data}");
    assert!(ran.stderr.contains(&words), "{ran:?}");
}

#[test]
fn a_raw_disk_with_the_header_of_an_image_is_refused() {
    for backing_format in ["raw", "qcow2"] {
        let world = World::new();
        let (id, disk) = (world.id("a"), world.disk("a"));
        let secret = world.path("scratch/secret");
        world.image(&secret, 1);
        let create = [
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            backing_format,
            "-b",
            &secret,
            &disk,
            "64M",
        ];
        run("qemu-img", &create);
        let xml = world.path("scratch/domain.xml");
        let domain = format!(
            "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><devices><disk type='file' device='disk'>\
             <driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices>\
             </domain>"
        );
        std::fs::write(&xml, domain).unwrap();
        world.virsh(&["define", &xml]);
        for args in [
            &["push", &id, "app"][..],
            &["push", &id, "app", "--plan"],
            &["push", &id, "app", "--compact"],
            &["create", &id, "app", "--live"],
        ] {
            world.snapdeck(args).failed(4, &["it is raw", &disk]);
        }
        assert!(!world.is_in_bucket("app"));
    }
}

#[test]
fn an_object_that_another_client_uploads_meanwhile_is_not_overwritten() {
    for exists in [true, false] {
        let (world, id) = World::with_sandbox(State::Off);
        if exists {
            world.snapdeck(&["push", &id, "app"]).ok();
        }
        world.scribble(&world.disk("a"), 100, 1);
        let (child, faults) = world.start_to_parts(&["push", &id, "app", "--overwrite"]);
        let other = world.path("scratch/other.qcow2");
        world.image(&other, 3);
        world.put(&other, "app");
        let tag = world.etag("app");
        faults.hold_parts.store(false, SeqCst);
        wait_for_exit(child).failed(4, &["cannot upload", "another client", "app.qcow2"]);
        assert_eq!(world.etag("app"), tag, "existed before: {exists}");
        assert_eq!(sha256(&world.get("app")), sha256(&other));
        assert_eq!(world.uploads(), "[]");
    }
}
