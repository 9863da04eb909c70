//! Files and objects of other programs under the names that snapdeck uses for its own.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::{Value, json};

use crate::common::{State, World, exists, wait_for_exit};

const FOREIGN: &str = "{\"builder\":\"packer\",\"artifact\":\"precious\"}\n";

/// Puts another program's object in the place of a manifest.
fn put_json(world: &World, text: &str, name: &str) {
    let file = world.path("scratch/foreign.json");
    std::fs::write(&file, text).unwrap();
    let put = world.s5cmd(&["cp", "--raw", &file, &format!("{{}}/{name}.json")]);
    assert!(put.status.success(), "{put:?}");
}

fn get_json(world: &World, name: &str) -> String {
    let got = world.s5cmd(&["cat", &format!("{{}}/{name}.json")]);
    assert!(got.status.success(), "{got:?}");
    String::from_utf8(got.stdout).unwrap()
}

#[test]
fn another_programs_json_in_the_bucket_stays() {
    let (world, id) = World::with_sandbox(State::Off);
    put_json(&world, FOREIGN, "app");
    for args in [
        &["push", &id, "app"][..],
        &["create", &id, "app"],
        &["push", &id, "app", "--overwrite"],
    ] {
        let ran = world.snapdeck(args);
        ran.failed(
            4,
            &["app.json", "not a manifest of snapdeck", "another name"],
        );
        assert!(!world.is_in_bucket("app"), "{args:?}");
        assert_eq!(world.uploads(), "[]");
    }
    // It also stays beside an object that another program, or an earlier push, has put there.
    world.put(&world.snapshot_path("base"), "app");
    world
        .snapdeck(&["pin", "app", "--bucket"])
        .failed(4, &["app.json", "not a manifest"]);
    let etag = world.etag("app");
    world
        .snapdeck(&["push", &id, "app", "--overwrite"])
        .failed(4, &["app.json"]);
    assert_eq!(world.etag("app"), etag);
    let ran = world.snapdeck(&["remove", "app", "--bucket"]).ok();
    assert!(ran.stderr.contains("keeping") && ran.stderr.contains("app.json"));
    assert!(!world.is_in_bucket("app"));
    assert_eq!(get_json(&world, "app"), FOREIGN);
}

#[test]
fn a_json_that_appears_during_a_push_makes_it_fail() {
    let (world, id) = World::with_sandbox(State::Off);
    let (child, faults) = world.start_to_parts(&["push", &id, "app"]);
    put_json(&world, FOREIGN, "app");
    faults.hold_parts.store(false, SeqCst);
    // The snapshot has no manifest, and that is not a success.
    wait_for_exit(child).failed(4, &["app.json", "not a manifest", "incomplete"]);
    assert_eq!(get_json(&world, "app"), FOREIGN);
}

#[test]
fn another_programs_json_on_the_host_stays() {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 1);
    world.put(&image, "app");
    let file = world.path("snapshots/app.json");
    std::fs::write(&file, FOREIGN).unwrap();
    world
        .snapdeck(&["pull", "app"])
        .failed(4, &["app.json", "not a manifest of snapdeck"]);
    assert_eq!(world.names("snapshots"), [""; 0], "bytes were transferred");
    std::fs::copy(&image, world.snapshot_path("app")).unwrap();
    world.snapdeck(&["verify", "app"]).ok();
    world
        .snapdeck(&["note", "app", "golden", "--local"])
        .failed(4, &["app.json", "not a manifest"]);
    world
        .snapdeck(&["pull", "app", "--overwrite"])
        .failed(4, &["app.json"]);
    let ran = world
        .snapdeck(&["prune", "--unused", "--local", "--yes"])
        .ok();
    assert!(!exists(&world.snapshot_path("app")), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), FOREIGN);
    std::fs::copy(&image, world.snapshot_path("app")).unwrap();
    let ran = world.snapdeck(&["remove", "app", "--local"]).ok();
    assert!(ran.stderr.contains("keeping") && ran.stderr.contains(&file));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), FOREIGN);
}

#[test]
fn json_that_resembles_a_manifest_is_another_programs() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    let manifest = world.manifest("app");
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    assert!(!world.s5cmd(&["ls", "{}/app.json"]).status.success());
    let with = |key: &str, value: Value| {
        let mut other = manifest.clone();
        other[key] = value;
        other.to_string()
    };
    for text in [
        "{\"format\":1,\"name\":\"app\",\"sizeBytes\":3}".to_owned(),
        with("schema", json!("packer/1")),
        with("format", json!(2)),
        "not JSON".to_owned(),
    ] {
        put_json(&world, &text, "app");
        world
            .snapdeck(&["push", &id, "app"])
            .failed(4, &["not a manifest of snapdeck"]);
        assert_eq!(get_json(&world, "app"), text);
    }
    assert!(!world.is_in_bucket("app"));
}

#[test]
fn manifests_of_earlier_versions_are_still_snapdecks() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    let head = world.s5cmd(&["head", "{}/app.json"]);
    let head = String::from_utf8(head.stdout).unwrap();
    assert!(
        head.contains("application/vnd.snapdeck.manifest+json"),
        "{head}"
    );
    let mut old = world.manifest("app");
    assert_eq!(old["schema"], "snapdeck.manifest/1");
    old.as_object_mut().unwrap().remove("schema");
    put_json(&world, &old.to_string(), "app");
    let info = world.snapdeck(&["info", "app", "--json"]).ok().json();
    assert_eq!(info["lineage"]["parents"][0]["name"], "base", "{info}");
    world.snapdeck(&["pull", "app"]).ok();
    world.snapdeck(&["note", "app", "golden"]).ok();
    world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
    let new = world.manifest("app");
    assert_eq!(
        (&new["notes"], &new["schema"]),
        (&json!("golden"), &json!("snapdeck.manifest/1"))
    );
    let local = world.path("snapshots/app.json");
    std::fs::write(&local, old.to_string()).unwrap();
    world
        .snapdeck(&["remove", "app", "--local", "--bucket"])
        .ok();
    assert!(!exists(&local) && !world.s5cmd(&["ls", "{}/app.json"]).status.success());
}
