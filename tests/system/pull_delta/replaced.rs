//! Nothing is replaced by other bytes under a sandbox, nor unasked, nor if it changed during the download.

use std::sync::atomic::Ordering::SeqCst;

use super::{BLOCK, ProxiedWorld, damage};
use crate::common::{State, exists, run, sha256, stamp, wait_for_exit, wait_until};

/// Creates an environment with a pulled snapshot `app`; also returns the uploaded file.
fn with_pulled_snapshot() -> (ProxiedWorld, String) {
    let (world, image) = ProxiedWorld::with_object(40);
    world.snapdeck(&["pull", "app"]).ok();
    (world, image)
}

/// Replaces the object `app` by another image of the same length; returns its file.
fn replace_object(world: &ProxiedWorld) -> String {
    let other = world.path("scratch/other.qcow2");
    world.image(&other, 40);
    world.put_with_manifest(&other, "app", None);
    other
}

#[test]
fn a_damaged_base_is_not_repaired_with_another_image() {
    let (world, image) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    let id = world.sandbox("a", "app", State::Off);
    damage(&path, 3 * BLOCK + 5);
    world.snapdeck(&["verify", "app"]).failed(1, &["damaged"]);
    replace_object(&world);
    let before = (sha256(&path), stamp(&path));
    for args in [
        &["pull", "app"][..],
        &["pull", "app", "--overwrite"],
        &["verify", "app", "--repair"],
    ] {
        world
            .snapdeck(args)
            .failed(4, &["cannot repair app", "a different image"]);
        assert_eq!((sha256(&path), stamp(&path)), before, "{args:?}");
    }
    let refused = world.snapdeck(&["pull", "app"]);
    refused.failed(4, &[&id, "hint: restore the file from a backup"]);
    // The very image repairs it.
    world.put_with_manifest(&image, "app", None);
    world.snapdeck(&["pull", "app"]).ok();
    world.assert_pulled(&world, "app", &image);
    assert_eq!(stamp(&path).0, before.1.0, "repaired in place");
}

#[test]
fn a_truncated_base_is_not_replaced_by_another_image() {
    let (world, image) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    world.sandbox("a", "app", State::Off);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(3 * BLOCK).unwrap();
    drop(file);
    replace_object(&world);
    let before = (sha256(&path), stamp(&path));
    world
        .snapdeck(&["pull", "app"])
        .failed(4, &["is a different image now"]);
    assert_eq!((sha256(&path), stamp(&path)), before);
    world.put_with_manifest(&image, "app", None);
    world.snapdeck(&["pull", "app"]).ok();
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_damaged_copy_is_replaced_by_another_image_only_with_overwrite() {
    let (world, _) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    damage(&path, 3 * BLOCK + 5);
    world.snapdeck(&["verify", "app"]).failed(1, &["damaged"]);
    let other = replace_object(&world);
    let before = (sha256(&path), stamp(&path));
    world
        .snapdeck(&["pull", "app"])
        .failed(4, &["is a different image now", "hint: pass --overwrite"]);
    assert_eq!((sha256(&path), stamp(&path)), before);
    world.snapdeck(&["pull", "app", "--overwrite"]).ok();
    world.assert_pulled(&world, "app", &other);
}

#[test]
fn an_object_that_has_only_the_entity_tag_of_the_base_is_not_put_in_its_place() {
    let (world, image) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    world.sandbox("a", "app", State::Off);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, 40);
    world.put(&other, "app");
    let removed = world.s5cmd(&["rm", "{}/app.json"]);
    assert!(removed.status.success(), "{removed:?}");
    // As if the store had kept the tag.
    let manifest_path = world.path("snapshots/app.json");
    let manifest = std::fs::read(&manifest_path).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["etag"] = world.etag("app").into();
    std::fs::write(&manifest_path, manifest.to_string()).unwrap();

    damage(&path, 3 * BLOCK + 5);
    world.snapdeck(&["verify", "app"]).failed(1, &["damaged"]);
    let damaged = sha256(&path);
    for args in [&["verify", "app", "--repair"][..], &["pull", "app"]] {
        world.snapdeck(args).failed(1, &["app.qcow2", "block"]);
        assert_eq!(sha256(&path), damaged, "{args:?}");
    }
    std::fs::remove_file(&path).unwrap();
    for args in [&["pull", "app"][..], &["pull", "app", "--overwrite"]] {
        world.snapdeck(args).failed(1, &["app.qcow2", "block"]);
        assert!(!exists(&path), "{args:?}");
    }
    // Of the bytes that it was, the tag is proof enough to begin.
    world.put(&image, "app");
    manifest["etag"] = world.etag("app").into();
    std::fs::write(&manifest_path, manifest.to_string()).unwrap();
    world.snapdeck(&["pull", "app"]).ok();
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_damaged_base_without_a_manifest_is_not_replaced() {
    let (world, _) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    let id = world.sandbox("a", "app", State::Off);
    std::fs::remove_file(world.path("snapshots/app.json")).unwrap();
    std::fs::write(&path, "not an image").unwrap();
    for args in [&["pull", "app"][..], &["pull", "app", "--overwrite"]] {
        world
            .snapdeck(args)
            .failed(4, &["nothing proves that", "same image", &id]);
        assert_eq!(std::fs::read(&path).unwrap(), b"not an image");
    }
}

#[test]
fn a_missing_base_is_not_replaced_by_another_image() {
    let (world, image) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    let id = world.sandbox("a", "app", State::Off);
    std::fs::remove_file(&path).unwrap();
    replace_object(&world);
    for args in [&["pull", "app"][..], &["pull", "app", "--overwrite"]] {
        world
            .snapdeck(args)
            .failed(4, &["cannot pull app", &id, "is a different image now"]);
        assert!(!exists(&path));
    }
    world.put_with_manifest(&image, "app", None);
    world.snapdeck(&["pull", "app"]).ok();
    world.assert_pulled(&world, "app", &image);
    // Of an unknown base only the operator can know what it was.
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(world.path("snapshots/app.json")).unwrap();
    world
        .snapdeck(&["pull", "app"])
        .failed(4, &["nothing proves that", &id]);
    world.snapdeck(&["pull", "app", "--overwrite"]).ok();
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_snapshot_without_a_manifest_is_not_damaged_because_the_object_differs() {
    let (world, image) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    std::fs::remove_file(world.path("snapshots/app.json")).unwrap();
    world.sandbox("a", "app", State::Off);
    replace_object(&world);
    for args in [&["verify", "app"][..], &["verify", "app", "--repair"]] {
        world
            .snapdeck(args)
            .failed(4, &["it has no manifest of its own", "another image"]);
    }
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(sha256(&path), sha256(&image));
}

#[test]
fn a_pull_that_got_a_user_meanwhile_replaces_nothing() {
    for is_damaged in [false, true] {
        let (world, image) = ProxiedWorld::with_object(40);
        let path = world.snapshot("app", 30);
        if is_damaged {
            std::fs::write(&path, "not an image").unwrap();
        }
        let before = (sha256(&path), stamp(&path));
        world.faults.hold_from.store(BLOCK, SeqCst);
        let child = world.start(&["pull", "app", "--overwrite"]);
        wait_until("a block is logged", || world.logged_bytes() == BLOCK);
        let disk = world.disk("late");
        let create = [
            "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &path, &disk, "1G",
        ];
        run("qemu-img", &create);
        let id = world.id("late");
        world.define(&id, &disk);
        world.release();
        wait_for_exit(child).failed(4, &["cannot replace app", &id]);
        assert_eq!((sha256(&path), stamp(&path)), before);
        world.virsh(&["undefine", &id]);
        std::fs::remove_file(&disk).unwrap();
        world.snapdeck(&["pull", "app", "--overwrite"]).ok();
        world.assert_pulled(&world, "app", &image);
    }
}

#[test]
fn a_file_that_was_replaced_meanwhile_is_kept() {
    let (world, _) = ProxiedWorld::with_object(40);
    let path = world.snapshot("app", 30);
    world.faults.hold_from.store(BLOCK, SeqCst);
    let child = world.start(&["pull", "app", "--overwrite"]);
    wait_until("a block is logged", || world.logged_bytes() == BLOCK);
    std::fs::remove_file(&path).unwrap();
    world.snapshot("app", 31);
    let before = (sha256(&path), stamp(&path));
    world.release();
    wait_for_exit(child).failed(4, &["changed or replaced meanwhile"]);
    assert_eq!((sha256(&path), stamp(&path)), before);
}

#[test]
fn a_snapshot_that_was_pinned_meanwhile_is_kept() {
    let (world, _) = ProxiedWorld::with_object(40);
    let path = world.snapshot("app", 30);
    let before = (sha256(&path), stamp(&path));
    world.faults.hold_from.store(BLOCK, SeqCst);
    let child = world.start(&["pull", "app", "--overwrite"]);
    wait_until("a block is logged", || world.logged_bytes() == BLOCK);
    // `pin` waits for the lock of the pull; not everything that writes a manifest does.
    let pin = r#"{"format": 1, "name": "app", "pinned": true}"#;
    std::fs::write(world.path("snapshots/app.json"), pin).unwrap();
    world.release();
    wait_for_exit(child).failed(4, &["cannot overwrite app", "is pinned"]);
    assert_eq!((sha256(&path), stamp(&path)), before);
}
