//! Notes, labels and pins, in manifests.

use serde_json::{Value, json};
use snapdeck::model::Manifest;

use crate::common::{World, exists};

/// The manifest in the bucket.
fn manifest(world: &World, name: &str) -> Vec<u8> {
    let file = world.path("scratch/manifest.json");
    let got = world.s5cmd(&["cp", &format!("{{}}/{name}.json"), &file]);
    assert!(got.status.success(), "{got:?}");
    std::fs::read(file).unwrap()
}

#[test]
fn are_kept_where_the_snapshot_is_and_leave_its_digests_alone() {
    let world = World::new();
    let base = world.snapshot("base", 9);
    world.sandbox("a", "base", crate::common::State::Off);
    let id = world.id("a");
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let before = Manifest::read(&manifest(&world, "app")).unwrap();

    let args = [
        "note",
        "app",
        "for the fair",
        "--label",
        "os=2022",
        "--label",
        "team=web",
    ];
    world.snapdeck(&args).ok();
    world
        .snapdeck(&["note", "app", "--remove-label", "team"])
        .ok();
    world.snapdeck(&["pin", "app"]).ok();
    let after = Manifest::read(&manifest(&world, "app")).unwrap();
    assert!(after.pinned && after.blocks == before.blocks && after.etag == before.etag);
    assert_eq!(after.notes.as_deref(), Some("for the fair"));
    let local = std::fs::read(world.path("snapshots/app.json")).unwrap();
    let local = Manifest::read(&local).unwrap();
    assert!(local.pinned && local.blocks == before.blocks && local.file.is_some());

    let told = world.snapdeck(&["note", "app", "--json"]).ok().json();
    let said = json!({"notes": "for the fair", "labels": {"os": "2022"}, "pinned": true});
    assert_eq!(told["places"][0]["host"], "alpha");
    assert_eq!(told["places"][0]["remarks"], said);
    assert_eq!(told["places"][1]["bucket"], true);
    assert_eq!(told["places"][1]["remarks"], said);
    let text = world.snapdeck(&["info", "app"]).ok().stdout;
    for words in ["pinned", "for the fair", "os=2022"] {
        assert!(text.contains(words), "{text}");
    }

    // One place alone.
    world.snapdeck(&["unpin", "app", "--bucket"]).ok();
    assert!(!Manifest::read(&manifest(&world, "app")).unwrap().pinned);
    let ran = world.snapdeck(&["remove", "app", "--local"]);
    ran.failed(4, &["app", "pinned", "snapdeck unpin app"]);
    assert!(exists(&world.snapshot_path("app")) && exists(&base));
    world.snapdeck(&["unpin", "app", "--local"]).ok();
    world
        .snapdeck(&["remove", "app", "--local", "--bucket"])
        .ok();
}

#[test]
fn a_snapshot_without_a_manifest_gets_one_without_digests() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    world.put(&base, "base");
    world.snapdeck(&["pin", "base"]).ok();
    for json in [
        std::fs::read(world.path("snapshots/base.json")).unwrap(),
        manifest(&world, "base"),
    ] {
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&value["pinned"], value.get("blocks")),
            (&json!(true), None)
        );
        assert!(Manifest::read(&json).is_err(), "it proves nothing");
    }
    for place in ["--local", "--bucket"] {
        let ran = world.snapdeck(&["remove", "base", place]);
        ran.failed(4, &["pinned"]);
    }
    // The pin is the name's, whatever becomes of the file.
    std::fs::File::options()
        .append(true)
        .open(&base)
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["pinned"]);
    world.snapdeck(&["pull", "base"]).ok();
}

#[test]
fn what_cannot_be_noted_is_told() {
    let world = World::new();
    world
        .snapdeck(&["pin", "nope"])
        .failed(3, &["no snapshot nope"]);
    world.snapshot("base", 0);
    let theirs = world.path("snapshots/base.json");
    std::fs::write(&theirs, "{\"mine\": 1}").unwrap();
    let ran = world.snapdeck(&["pin", "base"]);
    ran.failed(4, &["base.json", "it is no manifest"]);
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "{\"mine\": 1}");
    world
        .snapdeck(&["note", "base", "\u{1b}[2J"])
        .failed(2, &["control characters"]);
    world
        .snapdeck(&["note", "base", "--label", "nothing"])
        .failed(2, &["KEY=VALUE"]);
}
