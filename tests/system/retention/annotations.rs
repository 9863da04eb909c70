//! Notes, labels and pins are stored in manifests.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::{Value, json};
use snapdeck_model::Manifest;

use crate::common::{State, World, exists, sha256, wait_for_exit};

/// Downloads a manifest from the bucket.
fn read_manifest(world: &World, name: &str) -> Vec<u8> {
    let file = world.path("scratch/manifest.json");
    let copied = world.s5cmd(&["cp", &format!("{{}}/{name}.json"), &file]);
    assert!(copied.status.success(), "{copied:?}");
    std::fs::read(file).unwrap()
}

#[test]
fn annotations_are_stored_per_location_and_keep_the_digests() {
    let world = World::new();
    let base = world.snapshot("base", 9);
    world.sandbox("a", "base", State::Off);
    let id = world.id("a");
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let before = Manifest::read(&read_manifest(&world, "app")).unwrap();

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
    let after = Manifest::read(&read_manifest(&world, "app")).unwrap();
    assert!(after.pinned && after.blocks == before.blocks && after.etag == before.etag);
    assert_eq!(after.notes.as_deref(), Some("for the fair"));
    let local = std::fs::read(world.path("snapshots/app.json")).unwrap();
    let local = Manifest::read(&local).unwrap();
    assert!(local.pinned && local.blocks == before.blocks && local.file.is_some());

    let shown = world.snapdeck(&["note", "app", "--json"]).ok().json();
    let expected = json!({"notes": "for the fair", "labels": {"os": "2022"}, "pinned": true});
    assert_eq!(shown["locations"][0]["host"], "alpha");
    assert_eq!(shown["locations"][0]["annotations"], expected);
    assert_eq!(shown["locations"][1]["bucket"], true);
    assert_eq!(shown["locations"][1]["annotations"], expected);
    let text = world.snapdeck(&["info", "app"]).ok().stdout;
    for words in ["pinned", "for the fair", "os=2022"] {
        assert!(text.contains(words), "{text}");
    }

    // Only in the bucket, then only on the host.
    world.snapdeck(&["unpin", "app", "--bucket"]).ok();
    assert!(
        !Manifest::read(&read_manifest(&world, "app"))
            .unwrap()
            .pinned
    );
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
        read_manifest(&world, "base"),
    ] {
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&value["pinned"], value.get("blocks")),
            (&json!(true), None)
        );
        assert!(
            Manifest::read(&json).is_err(),
            "a manifest without digests is used as one with digests"
        );
    }
    for flag in ["--local", "--bucket"] {
        let ran = world.snapdeck(&["remove", "base", flag]);
        ran.failed(4, &["pinned"]);
    }
    // The pin belongs to the name: it holds after a change of the file.
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
fn invalid_annotations_are_refused() {
    let world = World::new();
    world
        .snapdeck(&["pin", "nope"])
        .failed(3, &["snapshot nope not found"]);
    world.snapshot("base", 0);
    let foreign = world.path("snapshots/base.json");
    std::fs::write(&foreign, "{\"foreign\": 1}").unwrap();
    let ran = world.snapdeck(&["pin", "base"]);
    ran.failed(4, &["base.json", "it is not a manifest"]);
    assert_eq!(
        std::fs::read_to_string(&foreign).unwrap(),
        "{\"foreign\": 1}"
    );
    world
        .snapdeck(&["note", "base", "\u{1b}[2J"])
        .failed(2, &["control characters"]);
    world
        .snapdeck(&["note", "base", "--label", "nothing"])
        .failed(2, &["KEY=VALUE"]);
}

/// Returns the annotations on the host and in the bucket.
fn annotations(world: &World, name: &str) -> (Value, Value) {
    let shown = world.snapdeck(&["note", name, "--json"]).ok().json();
    let at = |index: usize| shown["locations"][index]["annotations"].clone();
    (at(0), at(1))
}

#[test]
fn a_pull_adds_annotations_of_the_object_and_keeps_local_ones() {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 9);
    world.put(&image, "app");
    let id = {
        world.snapshot("base", 9);
        world.sandbox("a", "base", State::Off)
    };
    world.snapdeck(&["push", &id, "full"]).ok();
    // With a full manifest, and with one of annotations alone.
    for name in ["full", "app"] {
        let note = [
            "note", name, "golden", "--label", "os=2022", "--label", "team=web",
        ];
        world.snapdeck(&note).ok();
        world.snapdeck(&["pin", name]).ok();
        world.snapdeck(&["pull", name]).ok();
        let (on_host, in_bucket) = annotations(&world, name);
        assert_eq!(in_bucket["pinned"], true);
        let pulled =
            json!({"notes": "golden", "labels": {"os": "2022", "team": "web"}, "pinned": false});
        assert_eq!(on_host, pulled, "a pin is not pulled: {name}");

        let edit = ["note", name, "local", "--local", "--label", "os=2025"];
        world.snapdeck(&edit).ok();
        world.snapdeck(&["unpin", name, "--bucket"]).ok();
        world.snapdeck(&["note", name, "newer", "--bucket"]).ok();
        world.snapdeck(&["pull", name, "--overwrite"]).ok();
        world.snapdeck(&["pin", name, "--local"]).ok();
        let expected =
            json!({"notes": "local", "labels": {"os": "2025", "team": "web"}, "pinned": true});
        assert_eq!(annotations(&world, name).0, expected, "{name}");
        // A verification that rewrites the manifest keeps them too.
        std::fs::File::open(world.snapshot_path(name))
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        world.snapdeck(&["verify", name]).ok();
        assert_eq!(annotations(&world, name).0, expected, "{name}");
    }
}

#[test]
fn an_overwriting_push_keeps_annotations_of_the_object() {
    let world = World::new();
    world.snapshot("base", 9);
    let id = world.sandbox("a", "base", State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    let before = Manifest::read(&read_manifest(&world, "app")).unwrap();
    world
        .snapdeck(&["note", "app", "golden", "--label", "os=2022"])
        .ok();
    world.scribble(&world.disk("a"), 1, 1);
    world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
    let after = Manifest::read(&read_manifest(&world, "app")).unwrap();
    assert_ne!(after.blocks, before.blocks, "the image is the same");
    assert_eq!(after.notes.as_deref(), Some("golden"));
    assert_eq!(after.labels["os"], "2022");
}

#[test]
fn a_failure_on_the_host_does_not_stop_the_bucket() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    world.put(&base, "base");
    std::fs::write(world.path("snapshots/base.json"), "{\"foreign\": 1}").unwrap();
    let ran = world.snapdeck(&["pin", "base", "--json"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("it is not a manifest"), "{ran:?}");
    assert_eq!(ran.json()["locations"][0]["bucket"], true);
}

#[test]
fn a_pinned_object_is_not_overwritten() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pin", "app", "--bucket"]).ok();
    let (tag, manifest) = (world.etag("app"), read_manifest(&world, "app"));
    for verb in ["push", "create"] {
        let ran = world.snapdeck(&[verb, &id, "app", "--overwrite"]);
        ran.failed(
            4,
            &["cannot overwrite app", "is pinned", "snapdeck unpin app"],
        );
    }
    assert_eq!(world.etag("app"), tag);
    assert_eq!(read_manifest(&world, "app"), manifest);
    world.scribble(&world.disk("a"), 100, 1);
    world.snapdeck(&["unpin", "app", "--bucket"]).ok();
    world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
    assert_ne!(world.etag("app"), tag);
}

#[test]
fn an_object_that_is_pinned_during_an_upload_is_not_overwritten() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    let tag = world.etag("app");
    world.scribble(&world.disk("a"), 100, 1);
    let (child, faults) = world.start_to_parts(&["push", &id, "app", "--overwrite"]);
    world.snapdeck(&["pin", "app", "--bucket"]).ok();
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(4, &["cannot overwrite", "pinned", "snapdeck unpin"]);
    assert_eq!(world.etag("app"), tag);
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn a_pinned_snapshot_is_not_overwritten() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let file = world.snapshot("app", 1);
    world.snapdeck(&["pin", "app", "--local"]).ok();
    let before = sha256(&file);
    let pull = ["pull", "app", "--overwrite"];
    let refused = [
        "cannot overwrite app on host",
        "is pinned",
        "snapdeck unpin app",
    ];
    world.snapdeck(&pull).failed(4, &refused);
    assert_eq!(sha256(&file), before);

    // A damaged copy that may have been another image.
    std::fs::write(&file, "damaged").unwrap();
    world.snapdeck(&["pull", "app"]).failed(4, &refused);
    world.snapdeck(&pull).failed(4, &refused);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "damaged");
    world.snapdeck(&["unpin", "app", "--local"]).ok();
    world.snapdeck(&pull).ok();
    assert_eq!(sha256(&file), sha256(&image));
}
