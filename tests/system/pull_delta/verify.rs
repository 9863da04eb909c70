//! Verify: what is damaged is found, told, and made good without touching what is not.

use serde_json::Value;

use super::{BLOCK, Lab, MIB, bytes, damage};
use crate::common::{State, sha256, stamp};

/// What the listing says is wrong with the snapshot.
fn problem(lab: &Lab) -> Value {
    let listed = lab.snapdeck(&["snapshots", "--json"]).ok().json();
    listed[0]["problem"].clone()
}

/// A host with a pulled snapshot; the file it was put from.
fn pulled() -> (Lab, String) {
    let (lab, image) = Lab::with_object(40);
    lab.snapdeck(&["pull", "app"]).ok();
    lab.received();
    (lab, image)
}

#[test]
fn a_sound_snapshot_and_a_sound_object() {
    let (lab, image) = pulled();
    let ran = lab.snapdeck(&["verify", "app"]).ok();
    assert!(
        ran.stdout.contains("all blocks match the manifest"),
        "{ran:?}"
    );
    assert!(lab.received() < MIB / 4, "nothing is fetched for it");
    let told = lab
        .snapdeck(&["verify", "app", "--bucket", "--json"])
        .ok()
        .json();
    assert_eq!(told["host"], Value::Null);
    lab.assert_fetched(std::fs::metadata(&image).unwrap().len());
    // One that was touched and is the same is believed again.
    let file = std::fs::File::options()
        .write(true)
        .open(lab.snapshot_path("app"))
        .unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    let told = lab
        .snapdeck(&["verify", "app", "--repair", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&told["hasManifest"], bytes(&told, "fetchedBytes")),
        (&true.into(), 0)
    );
}

#[test]
fn what_is_not_there_is_not_found() {
    let lab = Lab::new(1);
    lab.snapdeck(&["verify", "app"])
        .failed(3, &["app is not on host"]);
    lab.snapdeck(&["verify", "app", "--bucket"])
        .failed(3, &["not found in store"]);
    lab.snapdeck(&["verify", "app", "--bucket", "--local"])
        .failed(2, &["--local"]);
}

#[test]
fn bad_blocks_are_named_and_shown_until_they_are_repaired() {
    let (lab, image) = pulled();
    let path = lab.snapshot_path("app");
    damage(&path, 3 * BLOCK + 5);
    damage(&path, 4 * BLOCK - 1);
    damage(&path, BLOCK);
    assert_eq!(problem(&lab), Value::Null, "nobody has looked");
    let ran = lab.snapdeck(&["verify", "app", "--json"]);
    assert_eq!(ran.error_kind(), "damaged");
    ran.failed(
        1,
        &[
            "app on host",
            "2 of its 6 blocks",
            "match its manifest: 1, 3;",
            "--repair",
        ],
    );
    let told = problem(&lab);
    assert!(
        told.as_str()
            .is_some_and(|told| told.contains("match its manifest: 1, 3")),
        "{told}"
    );

    lab.received();
    let told = lab
        .snapdeck(&["verify", "app", "--repair", "--json"])
        .ok()
        .json();
    assert_eq!(told["repairedBlocks"], serde_json::json!([1, 3]));
    assert_eq!(bytes(&told, "fetchedBytes"), 2 * BLOCK);
    lab.assert_fetched(2 * BLOCK);
    lab.assert_pulled(&lab, "app", &image);
    assert_eq!(problem(&lab), Value::Null);
    lab.snapdeck(&["verify", "app"]).ok();
}

#[test]
fn a_pull_mends_what_is_known_to_be_bad() {
    let (lab, image) = pulled();
    damage(&lab.snapshot_path("app"), 2 * BLOCK);
    lab.snapdeck(&["verify", "app"])
        .failed(1, &["match its manifest: 2;"]);
    lab.received();
    let told = lab.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(told["repaired"], true);
    lab.assert_fetched(BLOCK);
    lab.assert_pulled(&lab, "app", &image);
    assert_eq!(problem(&lab), Value::Null);
}

#[test]
fn what_is_cut_off_or_grown_is_damaged_too() {
    let (lab, image) = pulled();
    let size = std::fs::metadata(&image).unwrap().len();
    for length in [size - 1, size + 1, BLOCK] {
        let file = std::fs::File::options()
            .write(true)
            .open(lab.snapshot_path("app"))
            .unwrap();
        file.set_len(length).unwrap();
        lab.snapdeck(&["verify", "app"])
            .failed(1, &[&format!("it has {length} bytes")]);
        lab.snapdeck(&["verify", "app", "--repair"]).ok();
        lab.assert_pulled(&lab, "app", &image);
    }
}

#[test]
fn under_stopped_sandboxes_it_is_mended_in_its_place_and_under_others_refused() {
    for state in [State::Running, State::Paused, State::Saved, State::Off] {
        let (lab, image) = pulled();
        let path = lab.snapshot_path("app");
        let id = lab.sandbox("a", "app", state);
        damage(&path, 3 * BLOCK + 5);
        let (sum, before) = (sha256(&path), stamp(&path));
        lab.received();
        let ran = lab.snapdeck(&["verify", "app", "--repair", "--json"]);
        if state == State::Off {
            assert_eq!(ran.ok().json()["repairedBlocks"], serde_json::json!([3]));
            lab.assert_pulled(&lab, "app", &image);
            assert_eq!(stamp(&path).0, before.0, "the same file");
            lab.assert_fetched(BLOCK);
            lab.virsh(&["start", &id]);
            assert_eq!(lab.state(&id), "running");
        } else {
            ran.failed(4, &["cannot repair app", &id, "stop"]);
            assert_eq!((sha256(&path), stamp(&path)), (sum, before));
        }
    }
}

#[test]
fn another_image_under_the_objects_name_repairs_nothing() {
    let (lab, image) = pulled();
    let path = lab.snapshot_path("app");
    damage(&path, BLOCK);
    let before = (sha256(&path), stamp(&path));
    lab.image(&image, 40);
    lab.put_with_manifest(&image, "app", None);
    lab.snapdeck(&["verify", "app", "--repair"])
        .failed(4, &["cannot repair app", "is a different image"]);
    assert_eq!((sha256(&path), stamp(&path)), before);
}

#[test]
fn without_a_manifest_its_structure_alone_is_checked() {
    let lab = Lab::new(1);
    let path = lab.snapshot("app", 3);
    let ran = lab.snapdeck(&["verify", "app"]).ok();
    assert!(ran.stdout.contains("no manifest"), "{ran:?}");
    // Its pointer to the refcounts.
    damage(&path, 50);
    lab.snapdeck(&["verify", "app"])
        .failed(1, &["qemu-img check failed"]);
}
