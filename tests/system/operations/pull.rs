//! `pull` downloads an object as a snapshot, and never replaces one that is in use.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::common::{
    CommandOutput, State, World, exists, is_root, run, sha256, stamp, wait_for_exit,
};
use crate::operations::assert_no_temporary_files;

/// Creates an environment with an object `app`; also returns the file it was uploaded from.
fn with_object() -> (World, String) {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 3);
    world.put(&image, "app");
    (world, image)
}

/// Asserts that the snapshot equals the object byte for byte.
#[track_caller]
fn assert_pulled(world: &World, image: &str) {
    assert_eq!(sha256(&world.snapshot_path("app")), sha256(image));
    assert_no_temporary_files(world);
}

#[test]
fn a_pulled_snapshot_has_the_configured_owner_and_mode() {
    let (world, image) = with_object();
    let (mut uid, mut gid) = (run("id", &["-u"]), run("id", &["-g"]));
    if is_root() {
        let owner = format!("\"{}:{}\"", uid.trim(), gid.trim());
        world.reconfigure(&owner, "\"nobody:daemon\"");
        (uid, gid) = (run("id", &["-u", "nobody"]), run("id", &["-g", "daemon"]));
    }
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();

    let path = world.snapshot_path("app");
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(result["snapshotName"], "app");
    assert_eq!(result["snapshotPath"], json!(path));
    assert_eq!(result["sizeBytes"], json!(metadata.len()));
    assert_eq!(
        (&result["skipped"], &result["repaired"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(metadata.mode() & 0o7777, 0o644);
    assert_eq!(metadata.uid().to_string(), uid.trim());
    assert_eq!(metadata.gid().to_string(), gid.trim());
    assert_pulled(&world, &image);
}

#[test]
fn a_pulled_snapshot_starts_a_sandbox() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let next = world.sandbox("b", "app", State::Running);
    assert_eq!(world.state(&next), "running");
}

#[test]
fn a_valid_copy_is_kept_and_needs_no_object() {
    let (world, image) = with_object();
    world.snapdeck(&["pull", "app"]).ok();
    let path = world.snapshot_path("app");
    let before = stamp(&path);
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(result["skipped"], true);
    assert_eq!(stamp(&path), before);
    assert_pulled(&world, &image);
    // Nor does it need the object.
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
}

/// Asserts that a pull of `app` keeps the snapshot, which differs from the object, with a warning that says `why`.
#[track_caller]
fn assert_kept_as_another_image(world: &World, why: &str) {
    let path = world.snapshot_path("app");
    let before = (stamp(&path), sha256(&path));
    let ran = world.snapdeck(&["pull", "app"]).ok();
    assert!(
        ran.stdout.starts_with("kept another image: app on"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("another image than"), "{ran:?}");
    assert!(ran.stderr.contains(why), "{ran:?}");
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(
        (&result["skipped"], &result["differs"]),
        (&json!(true), &json!(true))
    );
    assert_eq!((stamp(&path), sha256(&path)), before);
}

#[test]
fn a_valid_image_of_another_program_is_kept_with_a_warning() {
    let (world, _) = with_object();
    world.image(&world.snapshot_path("app"), 5);
    assert_kept_as_another_image(&world, "bytes, the object has");
}

#[test]
fn a_snapshot_whose_object_was_replaced_is_kept_with_a_warning() {
    let (world, id) = World::with_sandbox(State::Off);
    // The same clusters, and so the same length.
    for overwrite in [None, Some("--overwrite")] {
        world.scribble(&world.disk("a"), 10, 1);
        let arguments = ["push", &id, "app", "--compact"]
            .into_iter()
            .chain(overwrite);
        world.snapdeck(&arguments.collect::<Vec<_>>()).ok();
        world.snapdeck(&["pull", "app"]).ok();
    }
    assert_kept_as_another_image(&world, "their manifests differ");
    world.snapdeck(&["pull", "app", "--overwrite"]).ok();
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(
        (&result["skipped"], &result["differs"]),
        (&json!(true), &json!(false))
    );
}

/// The name of a damage, and a function that does it to a file.
type Breakage = (&'static str, fn(&str));

fn breakages() -> [Breakage; 5] {
    [
        ("garbage", |path| {
            std::fs::write(path, "not an image").unwrap()
        }),
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("truncated", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length / 2).unwrap();
        }),
        // The version and the refcount table offset in the header.
        ("version", |path| damage(path, 7)),
        ("refcounts", |path| damage(path, 50)),
    ]
}

fn damage(path: &str, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0x7f], offset).unwrap();
}

#[test]
fn a_damaged_copy_is_replaced() {
    let (world, image) = with_object();
    let path = world.snapshot_path("app");
    world.snapdeck(&["pull", "app"]).ok();
    for (what, breakage) in breakages() {
        std::fs::copy(&image, &path).unwrap();
        breakage(&path);
        let ran = world.snapdeck(&["pull", "app", "--json"]).ok();
        assert_eq!(ran.json()["repaired"], true, "{what}: {ran:?}");
        assert!(
            ran.stderr.contains("is damaged, downloading it again"),
            "{what}: {ran:?}"
        );
        assert_pulled(&world, &image);
    }
}

#[test]
fn a_file_that_may_be_another_programs_is_replaced_only_with_overwrite() {
    let (world, image) = with_object();
    let path = world.snapshot_path("app");
    for (what, breakage) in breakages() {
        std::fs::copy(&image, &path).unwrap();
        breakage(&path);
        let before = sha256(&path);
        world
            .snapdeck(&["pull", "app"])
            .failed(4, &["nothing proves that", "--overwrite"]);
        assert_eq!(sha256(&path), before, "{what}");
    }
    world.snapdeck(&["pull", "app", "--overwrite"]).ok();
    assert_pulled(&world, &image);
}

#[test]
fn a_renamed_object_does_not_change_the_snapshot_of_its_former_name() {
    let world = World::new();
    world.snapshot("base", 1);
    for (short, name) in [("a", "one"), ("b", "two")] {
        let id = world.sandbox(short, "base", State::Off);
        world.scribble(&world.disk(short), 1, 1);
        world.snapdeck(&["push", &id, name]).ok();
    }
    world.snapdeck(&["pull", "one"]).ok();
    let manifest = world.path("snapshots/one.json");
    let before = sha256(&manifest);
    for suffix in ["qcow2", "json"] {
        let (from, to) = (format!("{{}}/two.{suffix}"), format!("{{}}/three.{suffix}"));
        // As if "two" had once been called "one".
        let moved = world.s5cmd(&["mv", &from, &to]);
        assert!(moved.status.success(), "{moved:?}");
    }
    let json = world.manifest("three").to_string();
    let file = world.path("scratch/three.json");
    std::fs::write(&file, json.replace("\"name\":\"two\"", "\"name\":\"one\"")).unwrap();
    let put = world.s5cmd(&["cp", &file, "{}/three.json"]);
    assert!(put.status.success(), "{put:?}");
    world.snapdeck(&["pull", "three"]).ok();
    assert_eq!(sha256(&manifest), before);
    assert!(exists(&world.path("snapshots/three.json")));
    world.snapdeck(&["verify", "one"]).ok();
    world.snapdeck(&["verify", "three"]).ok();
}

#[test]
fn a_damaged_copy_without_an_object_is_kept() {
    let world = World::new();
    let path = world.snapshot_path("app");
    std::fs::write(&path, "not an image").unwrap();
    world
        .snapdeck(&["pull", "app"])
        .failed(3, &["snapshot not found in store"]);
    assert_eq!(std::fs::read(path).unwrap(), b"not an image");
}

#[test]
fn a_damaged_copy_is_replaced_only_under_stopped_sandboxes() {
    for state in [State::Running, State::Paused, State::Saved, State::Off] {
        let (world, image) = with_object();
        let path = world.snapshot_path("app");
        world.snapdeck(&["pull", "app"]).ok();
        let id = world.sandbox("a", "app", state);
        std::fs::write(&path, "not an image").unwrap();
        let ran = world.snapdeck(&["pull", "app"]);
        if state == State::Off {
            ran.ok();
            assert_pulled(&world, &image);
        } else {
            ran.failed(4, &["cannot repair app", &id, "stop"]);
            assert_eq!(std::fs::read(&path).unwrap(), b"not an image");
            assert_no_temporary_files(&world);
        }
    }
}

#[test]
fn overwrite_replaces_a_valid_copy_unless_it_is_in_use() {
    let (world, image) = with_object();
    let path = world.snapshot("app", 1);
    let before = (sha256(&path), stamp(&path));
    let id = world.sandbox("a", "app", State::Off);

    let ran = world.snapdeck(&["pull", "app", "--overwrite"]);
    ran.failed(4, &["cannot replace app", &id]);
    assert_eq!((sha256(&path), stamp(&path)), before);

    world.virsh(&["undefine", &id]);
    let ran = world.snapdeck(&["pull", "app", "--overwrite"]);
    ran.failed(4, &["cannot replace app", &world.disk("a")]);
    assert_eq!((sha256(&path), stamp(&path)), before);

    std::fs::remove_file(world.disk("a")).unwrap();
    let result = world
        .snapdeck(&["pull", "app", "--overwrite", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&result["skipped"], &result["repaired"]),
        (&json!(false), &json!(false))
    );
    assert_pulled(&world, &image);
}

#[test]
fn a_missing_object_is_not_found() {
    let world = World::new();
    let ran = world.snapdeck(&["pull", "app", "--json"]);
    assert_eq!(ran.error_kind(), "notFound");
    ran.failed(3, &["snapshot not found in store", "app", &world.tag]);
    assert!(world.names("snapshots").is_empty());
}

#[test]
fn a_second_pull_of_one_name_is_refused_meanwhile() {
    let (world, image) = with_object();
    let gate = world.gate("check");
    let first = world.start(&["pull", "app"]);
    gate.wait_reached();
    world.snapdeck(&["pull", "app"]).failed(
        4,
        &[
            "another snapdeck process is working on snapshot app",
            "pull app",
        ],
    );
    gate.open();
    wait_for_exit(first).ok();
    assert_pulled(&world, &image);
}

#[test]
fn many_pulls_at_once_never_leave_a_damaged_file() {
    let (world, image) = with_object();
    for _ in 0..3 {
        let pulls: Vec<_> = (0..4).map(|_| world.start(&["pull", "app"])).collect();
        let ran: Vec<CommandOutput> = pulls.into_iter().map(wait_for_exit).collect();
        assert!(ran.iter().any(|ran| ran.code == Some(0)), "{ran:?}");
        assert!(
            ran.iter().all(|ran| matches!(ran.code, Some(0 | 4))),
            "{ran:?}"
        );
        assert_pulled(&world, &image);
        std::fs::remove_file(world.snapshot_path("app")).unwrap();
    }
}

#[test]
fn an_overlay_of_that_name_is_replaced_only_with_overwrite() {
    let (world, image) = with_object();
    let (base, path) = (world.snapshot("base", 0), world.snapshot_path("app"));
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &path,
    ];
    run("qemu-img", &create);
    let before = (sha256(&path), stamp(&path));
    world
        .snapdeck(&["pull", "app"])
        .failed(4, &[&path, "is not a snapshot", "backing file"]);
    assert_eq!((sha256(&path), stamp(&path)), before);
    world.snapdeck(&["pull", "app", "--overwrite"]).ok();
    assert_pulled(&world, &image);
}
