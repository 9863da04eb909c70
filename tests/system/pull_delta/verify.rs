//! `verify` reports damaged blocks; `--repair` replaces only these.

use serde_json::Value;

use super::{BLOCK, MIB, ProxiedWorld, bytes, damage};
use crate::common::{State, sha256, stamp};

/// Returns the problem of the snapshot in the listing.
fn problem(world: &ProxiedWorld) -> Value {
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    listed[0]["problem"].clone()
}

/// Creates an environment with a pulled snapshot; also returns the uploaded file.
fn with_pulled_snapshot() -> (ProxiedWorld, String) {
    let (world, image) = ProxiedWorld::with_object(40);
    world.snapdeck(&["pull", "app"]).ok();
    world.received();
    (world, image)
}

#[test]
fn valid_snapshots_and_objects_pass() {
    let (world, image) = with_pulled_snapshot();
    let ran = world.snapdeck(&["verify", "app"]).ok();
    assert!(
        ran.stdout.contains("all blocks match the manifest"),
        "{ran:?}"
    );
    assert!(world.received() < MIB / 4, "the object was downloaded");
    let result = world
        .snapdeck(&["verify", "app", "--bucket", "--json"])
        .ok()
        .json();
    assert_eq!(result["host"], Value::Null);
    world.assert_fetched(std::fs::metadata(&image).unwrap().len());
    // After a change of the mtime alone the file is hashed and trusted again.
    let file = std::fs::File::options()
        .write(true)
        .open(world.snapshot_path("app"))
        .unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    let result = world
        .snapdeck(&["verify", "app", "--repair", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&result["hasManifest"], bytes(&result, "fetchedBytes")),
        (&true.into(), 0)
    );
}

#[test]
fn missing_snapshots_are_not_found() {
    let world = ProxiedWorld::new(1);
    world
        .snapdeck(&["verify", "app"])
        .failed(3, &["app is not on host"]);
    world
        .snapdeck(&["verify", "app", "--bucket"])
        .failed(3, &["not found in store"]);
    world
        .snapdeck(&["verify", "app", "--bucket", "--local"])
        .failed(2, &["--local"]);
}

#[test]
fn bad_blocks_are_listed_until_they_are_repaired() {
    let (world, image) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    damage(&path, 3 * BLOCK + 5);
    damage(&path, 4 * BLOCK - 1);
    damage(&path, BLOCK);
    assert_eq!(problem(&world), Value::Null, "the damage is not known yet");
    let ran = world.snapdeck(&["verify", "app", "--json"]);
    assert_eq!(ran.error_kind(), "damaged");
    ran.failed(
        1,
        &[
            "app on host",
            "2 of its 6 blocks",
            "match its manifest: 1, 3\nhint: ",
            "--repair",
        ],
    );
    let message = problem(&world);
    assert!(
        message
            .as_str()
            .is_some_and(|message| message.contains("match its manifest: 1, 3")),
        "{message}"
    );

    world.received();
    let result = world
        .snapdeck(&["verify", "app", "--repair", "--json"])
        .ok()
        .json();
    assert_eq!(result["repairedBlocks"], serde_json::json!([1, 3]));
    assert_eq!(bytes(&result, "fetchedBytes"), 2 * BLOCK);
    world.assert_fetched(2 * BLOCK);
    world.assert_pulled(&world, "app", &image);
    assert_eq!(problem(&world), Value::Null);
    world.snapdeck(&["verify", "app"]).ok();
}

#[test]
fn a_pull_repairs_known_bad_blocks() {
    let (world, image) = with_pulled_snapshot();
    damage(&world.snapshot_path("app"), 2 * BLOCK);
    world
        .snapdeck(&["verify", "app"])
        .failed(1, &["match its manifest: 2\nhint: "]);
    world.received();
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(result["repaired"], true);
    world.assert_fetched(BLOCK);
    world.assert_pulled(&world, "app", &image);
    assert_eq!(problem(&world), Value::Null);
}

#[test]
fn files_of_the_wrong_length_are_damaged() {
    let (world, image) = with_pulled_snapshot();
    let size = std::fs::metadata(&image).unwrap().len();
    for length in [size - 1, size + 1, BLOCK] {
        let file = std::fs::File::options()
            .write(true)
            .open(world.snapshot_path("app"))
            .unwrap();
        file.set_len(length).unwrap();
        // snapdeck replaces no file that a process has open for writing.
        drop(file);
        world
            .snapdeck(&["verify", "app"])
            .failed(1, &[&format!("it has {length} bytes")]);
        world.snapdeck(&["verify", "app", "--repair"]).ok();
        world.assert_pulled(&world, "app", &image);
    }
}

#[test]
fn repair_is_refused_unless_dependent_sandboxes_are_stopped() {
    for state in [State::Running, State::Paused, State::Saved, State::Off] {
        let (world, image) = with_pulled_snapshot();
        let path = world.snapshot_path("app");
        let id = world.sandbox("a", "app", state);
        damage(&path, 3 * BLOCK + 5);
        let (sum, before) = (sha256(&path), stamp(&path));
        world.received();
        let ran = world.snapdeck(&["verify", "app", "--repair", "--json"]);
        if state == State::Off {
            assert_eq!(ran.ok().json()["repairedBlocks"], serde_json::json!([3]));
            world.assert_pulled(&world, "app", &image);
            assert_eq!(stamp(&path).0, before.0, "repaired in place");
            world.assert_fetched(BLOCK);
            world.virsh(&["start", &id]);
            assert_eq!(world.state(&id), "running");
        } else {
            ran.failed(4, &["cannot repair app", &id, "stop"]);
            assert_eq!((sha256(&path), stamp(&path)), (sum, before));
        }
    }
}

#[test]
fn an_object_with_another_image_is_not_used_for_repair() {
    let (world, image) = with_pulled_snapshot();
    let path = world.snapshot_path("app");
    damage(&path, BLOCK);
    let before = (sha256(&path), stamp(&path));
    world.image(&image, 40);
    world.put_with_manifest(&image, "app", None);
    world
        .snapdeck(&["verify", "app", "--repair"])
        .failed(4, &["cannot repair app", "is a different image"]);
    assert_eq!((sha256(&path), stamp(&path)), before);
}

#[test]
fn without_a_manifest_only_the_structure_is_checked() {
    let world = ProxiedWorld::new(1);
    let path = world.snapshot("app", 3);
    let ran = world.snapdeck(&["verify", "app"]).ok();
    assert!(ran.stdout.contains("no manifest"), "{ran:?}");
    // The verification has recorded one.
    std::fs::remove_file(world.path("snapshots/app.json")).unwrap();
    // The offset of the refcount table.
    damage(&path, 50);
    world
        .snapdeck(&["verify", "app"])
        .failed(1, &["qemu-img check failed"]);
}
