//! Snapshots `ORG/NAME`: one level below the prefix of the bucket and below the snapshots directory of a host.

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::api::server::Api;
use crate::common::hostile::{Answer, HostileStore, entry, page};
use crate::common::screen::Screen;
use crate::common::{State, World, exists, lab, run, same_disk, sha256};

fn names(listed: &Value) -> Vec<String> {
    let listed = listed.as_array().unwrap().iter();
    listed
        .map(|snapshot| snapshot["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns owner and mode of a directory.
fn rights(path: &str) -> (u32, u32, u32) {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

fn create_dir(world: &World, name: &str) {
    std::fs::create_dir(world.path(&format!("snapshots/{name}"))).unwrap();
}

#[test]
fn a_snapshot_lives_from_push_to_remove() {
    let world = World::hosts(2);
    world.use_organization();
    let beta = &world.hosts[1];
    world.snapshot("base", 8);
    let id = world.sandbox("vm", "base", State::Off);
    world
        .snapdeck(&["push", &id, "acme/app-v1", "--host", "alpha"])
        .ok();
    assert!(same_disk(&world.get("acme/app-v1"), &world.disk("vm")));
    // Another snapshot, and a folder that has none.
    world.put(&world.snapshot_path("base"), "app-v1");
    world.put(&world.snapshot_path("base"), "acme/deep/app");
    let objects = world.snapdeck(&["objects", "--json"]).ok().json();
    assert_eq!(names(&objects), ["app-v1", "acme/app-v1"], "{objects}");

    run("chmod", &["2775", &beta.path("snapshots")]);
    let pull = |name| world.snapdeck(&["pull", name, "--host", "beta", "--json"]);
    let pulled = pull("acme/app-v1").ok().json();
    let path = beta.snapshot_path("acme/app-v1");
    assert_eq!(pulled["snapshotPath"], path, "{pulled}");
    assert!(same_disk(&path, &world.disk("vm")));
    assert!(exists(&beta.path("snapshots/acme/app-v1.json")));
    let dir = beta.path("snapshots/acme");
    assert_eq!(rights(&dir), rights(&beta.path("snapshots")));
    assert_eq!(beta.names("snapshots"), ["acme"]);
    // A second pull finds it, another one has its directory.
    assert_eq!(pull("acme/app-v1").ok().json()["skipped"], true);
    pull("app-v1").ok();
    assert_eq!(
        sha256(&beta.snapshot_path("app-v1")),
        sha256(&world.snapshot_path("base"))
    );
    let listed = world.snapdeck(&["snapshots", "--host", "beta", "--json"]);
    let listed = listed.ok().json();
    assert_eq!(names(&listed), ["acme/app-v1", "app-v1"], "{listed}");

    let copy = ["copy", "acme/app-v1", "--from", "beta", "--to", "alpha"];
    world.snapdeck(&copy).ok();
    let copied = world.snapshot_path("acme/app-v1");
    assert_eq!(sha256(&copied), sha256(&path));
    world
        .snapdeck(&["verify", "acme/app-v1", "--host", "alpha"])
        .ok();

    let new = beta.id("n");
    let sandbox = ["sandbox", "new", &new, "acme/app-v1", "--host", "beta"];
    world.snapdeck(&sandbox).ok();
    world
        .snapdeck(&["sandbox", "start", &new, "--host", "beta"])
        .ok();
    let shown = world.snapdeck(&["sandboxes", "--host", "beta", "--json"]);
    let shown = shown.ok().json();
    assert_eq!(shown[0]["chain"][1]["snapshot"], "acme/app-v1", "{shown}");
    let remove = ["remove", "acme/app-v1", "--local", "--host", "beta"];
    world.snapdeck(&remove).failed(4, &["acme/app-v1", &new]);
    world
        .snapdeck(&["push", &id, "acme/app-v2", "--host", "alpha"])
        .ok();

    let prune = ["prune", "--unused", "--local", "--yes", "--json"];
    let pruned = world.snapdeck(&prune).ok().json();
    let mut removed = names(&pruned["toRemove"]);
    removed.sort();
    assert_eq!(removed, ["acme/app-v1", "app-v1"], "{pruned}");
    assert!(exists(&path) && !exists(&copied), "{pruned}");

    // From the disk of the new sandbox.
    beta.virsh(&["destroy", &new]);
    let next = ["push", &new, "acme/app-v3", "--host", "beta"];
    world.snapdeck(&next).ok();
    assert!(same_disk(&world.get("acme/app-v3"), &beta.disk("n")));

    world
        .snapdeck(&["sandbox", "destroy", &new, "--host", "beta", "--yes"])
        .ok();
    world
        .snapdeck(&["pin", "acme/app-v1", "--host", "beta"])
        .ok();
    world
        .snapdeck(&remove)
        .failed(4, &["acme/app-v1", "pinned"]);
    world
        .snapdeck(&["unpin", "acme/app-v1", "--host", "beta"])
        .ok();
    world.snapdeck(&remove).ok();
    // The directory stays.
    let rest: Vec<_> = std::fs::read_dir(&dir).unwrap().collect();
    assert!(rest.is_empty(), "{rest:?}");
    world
        .snapdeck(&["remove", "acme/app-v1", "--bucket", "--host", "beta"])
        .ok();
    assert!(!world.is_in_bucket("acme/app-v1") && world.is_in_bucket("app-v1"));
}

#[test]
fn an_image_of_a_host_is_adopted_uploaded_and_noted() {
    let world = World::new();
    world.use_organization();
    create_dir(&world, "acme");
    let image = world.snapshot("acme/base", 20);
    world.snapshot("base", 1);
    world.snapdeck(&["adopt", "acme/base"]).ok();
    let note = ["note", "acme/base", "for the fair", "--local"];
    world.snapdeck(&note).ok();
    let manifest = std::fs::read(world.path("snapshots/acme/base.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["notes"], "for the fair");
    assert!(!exists(&world.path("snapshots/base.json")));
    world.snapdeck(&["upload", "acme/base"]).ok();
    assert_eq!(sha256(&world.get("acme/base")), sha256(&image));
    assert!(!world.is_in_bucket("base"));

    // A damaged block is repaired.
    let before = sha256(&image);
    run(
        "dd",
        &[
            "if=/dev/urandom",
            &format!("of={image}"),
            "bs=1",
            "seek=9000000",
            "count=8",
            "conv=notrunc",
            "status=none",
        ],
    );
    world
        .snapdeck(&["verify", "acme/base"])
        .failed(1, &["acme/base", "is damaged"]);
    assert!(exists(&world.path("snapshots/.acme@base.qcow2.damaged")));
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    assert!(listed[0]["problem"].is_string(), "{listed}");
    world.snapdeck(&["verify", "acme/base", "--repair"]).ok();
    assert_eq!(sha256(&image), before);
    assert_eq!(world.names("snapshots"), ["acme", "base.qcow2"]);
}

#[test]
fn an_interrupted_pull_is_resumed_and_freed() {
    let world = World::new();
    world.use_organization();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 40);
    world.put(&image, "acme/app");
    let (child, gate) = world.start_to_gate("check", &["pull", "acme/app"]);
    let dir = world.path("snapshots/.acme@app.qcow2.pull");
    assert!(exists(&format!("{dir}/partial")));
    let locked = world.snapdeck(&["pull", "acme/app"]);
    locked.failed(4, &["snapshot acme/app on host alpha"]);
    crate::common::signal(&child, "KILL");
    crate::common::wait_for_exit(child);
    gate.open();
    let partials = world.snapdeck(&["snapshots", "--partial", "--json"]);
    assert_eq!(names(&partials.ok().json()), ["acme/app"]);
    crate::common::wait_until("the partial file is free", || {
        let free = ["prune", "--partial", "acme/app", "--local", "--yes"];
        world.snapdeck(&free).code == Some(0)
    });
    assert!(!exists(&dir));
    world.snapdeck(&["pull", "acme/app"]).ok();
    assert_eq!(sha256(&world.snapshot_path("acme/app")), sha256(&image));
}

#[test]
fn images_in_other_directories_are_not_snapshots() {
    let world = World::new();
    world.use_organization();
    world.reconfigure("\"acme\"", "\"acme, linked\"");
    let base = world.snapshot("base", 0);
    // The sandboxes directory may be in that of the snapshots.
    for dir in [".hidden", "a.json", "acme"] {
        create_dir(&world, dir);
        std::fs::copy(&base, world.path(&format!("snapshots/{dir}/x.qcow2"))).unwrap();
    }
    let deep = world.path("snapshots/acme/deep");
    std::fs::create_dir(&deep).unwrap();
    std::fs::copy(&base, format!("{deep}/x.qcow2")).unwrap();
    let outside = world.path("scratch");
    std::fs::copy(&base, format!("{outside}/x.qcow2")).unwrap();
    std::os::unix::fs::symlink(&outside, world.path("snapshots/linked")).unwrap();
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    assert_eq!(names(&listed), ["acme/x", "base"]);
    for (name, code) in [
        ("linked/x", 4),
        ("a.json/x", 2),
        (".hidden/x", 2),
        ("acme/deep/x", 2),
        ("acme/../base", 2),
    ] {
        let ran = world.snapdeck(&["remove", name, "--local"]);
        assert_eq!(ran.code, Some(code), "{name}: {ran:?}");
    }
    assert!(exists(&format!("{outside}/x.qcow2")) && exists(&base));

    world.reconfigure("/sandboxes\"", "/snapshots/acme\"");
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    assert_eq!(names(&listed), ["base"]);
    world
        .snapdeck(&["remove", "acme/x", "--local"])
        .failed(2, &["acme/x cannot be a snapshot"]);
    assert!(exists(&world.path("snapshots/acme/x.qcow2")));
}

#[test]
fn an_overlay_beside_a_snapshot_uses_it() {
    let world = World::new();
    world.use_organization();
    create_dir(&world, "acme");
    let base = world.snapshot("acme/base", 0);
    for backing in ["base.qcow2", "../acme/base.qcow2", &base] {
        let overlay = world.path("snapshots/acme/copy.img");
        let options = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing];
        run("qemu-img", &[&options[..], &[&overlay]].concat());
        world
            .snapdeck(&["remove", "acme/base", "--local"])
            .failed(4, &["cannot remove acme/base", "acme/copy.img"]);
        std::fs::remove_file(overlay).unwrap();
    }
    world.snapdeck(&["remove", "acme/base", "--local"]).ok();
    assert!(!exists(&base));
}

#[test]
fn the_api_has_the_whole_life() {
    let world = World::new();
    world.use_organization();
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Off);
    let api = Api::start(&world);
    let push = json!({"sandboxId": id, "snapshotName": "acme/app"});
    let pushed = api.post("/snapshots/push", &push).expect_status(200);
    assert!(
        pushed["snapshotPath"]
            .as_str()
            .unwrap()
            .ends_with("/acme/app.qcow2"),
        "{pushed}"
    );
    let pull = json!({"snapshot": "acme/app"});
    api.post("/snapshots/pull", &pull).expect_status(200);
    for query in ["acme/app", "acme%2Fapp"] {
        let query = format!("/snapshots/exists?snapshot={query}");
        let exists = api.get(&query).expect_status(200);
        assert_eq!(
            (&exists["local"], &exists["bucket"]),
            (&json!(true), &json!(true))
        );
    }
    let new = world.id("n");
    let create = json!({"id": new, "snapshot": "acme/app", "start": false});
    api.post("/sandboxes", &create).expect_status(201);
    let remove = || api.call("/snapshots/remove?snapshot=acme/app", &["-X", "POST"]);
    remove().expect_status(409);
    api.post(&format!("/sandboxes/{new}/destroy"), &json!({}))
        .expect_status(200);
    remove().expect_status(200);
    assert!(!exists(&world.snapshot_path("acme/app")) && world.is_in_bucket("acme/app"));
    for bad in ["acme/", "acme/a/b", "../app", "acme.qcow2/app"] {
        let pull = json!({"snapshot": bad});
        api.post("/snapshots/pull", &pull).expect_status(400);
    }
}

#[test]
fn the_console_lists_pulls_and_removes_it() {
    let world = World::new();
    world.use_organization();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 4);
    world.put(&image, "acme/app-v1.0");
    let mut screen = Screen::open(&world.command(&[]));
    screen.resize(80, 24);
    screen.press("\t\t");
    screen.wait(&["acme/app-v1.0", "absent"]);
    screen.press("f");
    screen.wait(&["pull to alpha", "y pull"]);
    screen.press("y");
    screen.wait(&["✓ pull acme/app-v1.0", "✓ same"]);
    assert_eq!(
        sha256(&world.snapshot_path("acme/app-v1.0")),
        sha256(&image)
    );
    // Next to it, from its row: a sandbox with a proposed id.
    screen.press("\t\t\t\t");
    screen.wait(&["┌ Snapshots 1", "acme/app-v1.0"]);
    screen.press("n");
    screen.wait(&["acme/app-v1.0", "app-1"]);
    screen.press("\u{1b}");
    screen.wait_for("the dialog is closed", |text| {
        !text.contains("new sandbox on")
    });
    screen.press("d");
    screen.wait(&["To remove", "acme/app-v1.0", "y remove"]);
    screen.press("y");
    screen.wait(&["✓ remove acme/app-v1.0"]);
    assert!(!exists(&world.snapshot_path("acme/app-v1.0")));
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn a_directory_that_is_not_one_of_the_organizations_is_not_used() {
    let world = World::new();
    let image = world.snapshot("base", 1);
    std::fs::create_dir(world.path("snapshots/acme")).unwrap();
    std::fs::copy(&image, world.snapshot_path("acme/app")).unwrap();
    world.put(&image, "acme/app");
    let listed = world.snapdeck(&["snapshots", "--json"]).ok();
    assert!(!listed.stdout.contains("acme"), "{}", listed.stdout);
    let listed = world.snapdeck(&["objects", "--json"]).ok();
    assert!(!listed.stdout.contains("acme"), "{}", listed.stdout);
    for args in [
        &["pull", "acme/app", "--overwrite"][..],
        &["remove", "acme/app", "--local", "--bucket"],
        &["upload", "acme/app", "--overwrite"],
    ] {
        world
            .snapdeck(args)
            .failed(3, &["add acme to organizations"]);
    }
    assert!(exists(&world.snapshot_path("acme/app")) && world.is_in_bucket("acme/app"));
}

#[test]
fn a_folder_that_may_not_be_listed_is_left_out_and_named() {
    let store = HostileStore::start(|request| {
        let prefix = request.parameter("prefix").unwrap_or_default();
        let prefix = prefix.replace("%2F", "/");
        match request.is_listing() {
            true if prefix.ends_with("/denied/") => Answer::error(403, "AccessDenied", "denied"),
            true => page(
                &entry(&format!("{prefix}app.qcow2"), "&quot;1&quot;", 70_000),
                None,
            ),
            false => Answer::not_found(),
        }
    });
    let world = World::new();
    world.reconfigure(&lab("SNAPDECK_LAB_S3"), &store.endpoint());
    world.use_organization();
    world.reconfigure("\"acme\"", "\"denied, acme\"");
    let folder = format!("{}/denied/", world.tag);
    let listed = world.snapdeck(&["objects", "--json"]).ok();
    assert_eq!(names(&listed.json()), ["app", "acme/app"], "{listed:?}");
    let is_named = |text: &str| text.contains(&folder) && text.contains("denied access");
    assert!(is_named(&listed.stderr), "{listed:?}");
    let prune = ["prune", "--unused", "--bucket", "--dry-run"];
    let pruned = world.snapdeck(&prune).ok();
    assert!(is_named(&pruned.stderr), "{pruned:?}");
    let doctor = world.snapdeck(&["doctor"]);
    assert!(is_named(&doctor.stdout), "{doctor:?}");
    let mut screen = Screen::open(&world.command(&[]));
    screen.press("\t\t");
    screen.wait(&["acme/app", &folder]);
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn a_directory_that_cannot_be_listed_is_named_and_keeps_all() {
    let world = World::over_ssh(1);
    world.use_organization();
    world.reconfigure("\"acme\"", "\"acme, other\"");
    let base = world.snapshot("base", 0);
    create_dir(&world, "acme");
    create_dir(&world, "other");
    let other = world.snapshot("other/app", 1);
    let overlay = world.path("snapshots/acme/app.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base];
    run("qemu-img", &[&create[..], &[&overlay]].concat());
    world.enforce_permissions();
    let dir = world.path("snapshots/acme");
    run("chmod", &["000", &dir]);
    let listed = world.snapdeck(&["snapshots", "--json"]).ok();
    assert_eq!(names(&listed.json()), ["base", "other/app"]);
    let cause = format!("images in {dir} (Permission denied)");
    assert!(listed.stderr.contains(&cause), "{listed:?}");
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["cannot remove base", &cause]);
    let pruned = world.snapdeck(&["prune", "--unused", "--local", "--yes", "--json"]);
    assert!(names(&pruned.ok().json()["toRemove"]).is_empty());
    assert!(exists(&base) && exists(&other));
    run("chmod", &["755", &dir]);
    world.snapdeck(&["remove", "other/app", "--local"]).ok();
}

#[test]
fn errors_name_the_path_of_the_operator() {
    let world = World::over_ssh(1);
    world.use_organization();
    create_dir(&world, "acme");
    let image = world.snapshot("acme/base", 1);
    world.snapdeck(&["adopt", "acme/base"]).ok();
    world.enforce_permissions();
    let dir = world.path("snapshots/acme");
    let denied = |args: &[&str]| {
        let ran = world.snapdeck(args);
        assert!(ran.code != Some(0), "{ran:?}");
        assert!(ran.stderr.contains("Permission denied"), "{ran:?}");
        assert!(ran.stderr.matches(&*dir).count() > 0, "{ran:?}");
        assert!(!ran.stderr.contains("/proc/"), "{ran:?}");
    };
    run("chmod", &["555", &dir]);
    denied(&["remove", "acme/base", "--local"]);
    denied(&["note", "acme/base", "text", "--local"]);
    run("chmod", &["755", &dir]);
    run("chmod", &["000", &image]);
    denied(&["upload", "acme/base"]);
    run("chmod", &["644", &image]);
    world.snapdeck(&["remove", "acme/base", "--local"]).ok();
}

#[test]
fn a_pull_into_another_directory_of_the_settings_is_refused() {
    let world = World::new();
    world.use_organization();
    create_dir(&world, "acme");
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 1);
    world.put(&image, "acme/app");
    let dir = world.path("snapshots/acme");
    let linked = world.path("linked");
    std::os::unix::fs::symlink(&dir, &linked).unwrap();
    std::fs::write(world.snapshot_path("acme/app"), "a disk").unwrap();
    world.reconfigure("/sandboxes\"", "/linked\"");
    world
        .snapdeck(&["pull", "acme/app", "--overwrite"])
        .failed(4, &[&dir, "is the same directory as", &linked]);
    let kept = std::fs::read_to_string(world.snapshot_path("acme/app")).unwrap();
    assert_eq!(kept, "a disk");
}

#[test]
fn an_interrupted_creation_of_a_directory_is_a_leftover() {
    let world = World::new();
    world.use_organization();
    let left = world.path("snapshots/.acme.0123abcd.org");
    std::fs::create_dir_all(format!("{left}/org")).unwrap();
    run("chmod", &["700", &left]);
    let mark = format!("{left}/.snapdeck-owner");
    let text = r#"{"id":"0123456789abcdef0123456789abcdef","creator":"ada on build-1","created":"2026-01-02T03:04:05Z"}"#;
    std::fs::write(&mark, text).unwrap();
    run(
        "touch",
        &["-d", "3 days ago", &mark, &format!("{left}/org"), &left],
    );
    let doctor = world.snapdeck(&["doctor"]);
    assert!(doctor.stdout.contains(&left), "{doctor:?}");
    let prune = ["prune", "--leftovers", "--foreign", "--yes"];
    world.snapdeck(&prune).ok();
    assert!(!exists(&left));
    assert_eq!(world.names("snapshots"), Vec::<String>::new());
}

#[test]
fn a_directory_of_another_operator_is_used_if_both_may_write_there() {
    let world = World::new();
    world.use_organization();
    create_dir(&world, "acme");
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 4);
    world.put(&image, "acme/app");
    let (parent, dir) = (world.path("snapshots"), world.path("snapshots/acme"));
    run("chown", &["12345:12345", &dir]);
    run("chmod", &["2775", &dir]);
    let pull = || world.snapdeck(&["pull", "acme/app"]);
    let refused = |cause: &str| {
        let fix = format!("move {dir} away");
        pull().failed(4, &[&dir, cause, &fix]);
    };
    refused("belongs to another user");
    // Of the group of the snapshots directory, which may not write there; then all may.
    run("chgrp", &["0", &dir]);
    refused("belongs to another user");
    run("chmod", &["777", &parent]);
    refused("belongs to another user");
    run("chmod", &["2775", &parent]);
    pull().ok();
    let path = world.snapshot_path("acme/app");
    assert_eq!(sha256(&path), sha256(&image));
    world.snapdeck(&["verify", "acme/app"]).ok();
    world
        .snapdeck(&["note", "acme/app", "shared", "--local"])
        .ok();
    world.snapdeck(&["remove", "acme/app", "--local"]).ok();
    assert!(!exists(&path));
}
