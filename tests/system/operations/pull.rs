//! Pull: an object becomes a snapshot, once, and never over one that is in use.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::common::{CommandOutput, State, World, is_root, run, sha256, stamp, wait_for_exit};
use crate::operations::assert_nothing_left;

/// A world with an object `app`, and the file it was put from.
pub(crate) fn stocked() -> (World, String) {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 3);
    world.put(&image, "app");
    (world, image)
}

/// The snapshot is the object, byte for byte.
#[track_caller]
fn assert_pulled(world: &World, image: &str) {
    assert_eq!(sha256(&world.snapshot_path("app")), sha256(image));
    assert_nothing_left(world);
}

#[test]
fn an_object_becomes_a_snapshot_that_libvirt_may_read() {
    let (world, image) = stocked();
    let (mut uid, mut gid) = (run("id", &["-u"]), run("id", &["-g"]));
    if is_root() {
        let owner = format!("\"{}:{}\"", uid.trim(), gid.trim());
        world.reconfigure(&owner, "\"nobody:daemon\"");
        (uid, gid) = (run("id", &["-u", "nobody"]), run("id", &["-g", "daemon"]));
    }
    let told = world.snapdeck(&["pull", "app", "--json"]).ok().json();

    let path = world.snapshot_path("app");
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(told["snapshotName"], "app");
    assert_eq!(told["snapshotPath"], json!(path));
    assert_eq!(told["sizeBytes"], json!(metadata.len()));
    assert_eq!(
        (&told["skipped"], &told["repaired"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(metadata.mode() & 0o7777, 0o644);
    assert_eq!(metadata.uid().to_string(), uid.trim());
    assert_eq!(metadata.gid().to_string(), gid.trim());
    assert_pulled(&world, &image);
}

#[test]
fn what_was_pushed_here_and_pulled_there_starts_a_sandbox() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let next = world.sandbox("b", "app", State::Running);
    assert_eq!(world.state(&next), "running");
}

#[test]
fn a_valid_copy_is_left_alone() {
    let (world, image) = stocked();
    world.snapdeck(&["pull", "app"]).ok();
    let path = world.snapshot_path("app");
    let before = stamp(&path);
    let told = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(told["skipped"], true);
    assert_eq!(stamp(&path), before);
    assert_pulled(&world, &image);
}

#[test]
fn a_valid_copy_needs_no_bucket() {
    let (world, _) = stocked();
    world.snapdeck(&["pull", "app"]).ok();
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
}

/// A way in which a local copy is broken: its name, and what breaks a file so.
type Breakage = (&'static str, fn(&str));

fn breakages() -> [Breakage; 5] {
    [
        ("garbage", |path| std::fs::write(path, "no image").unwrap()),
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("truncated", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length / 2).unwrap();
        }),
        // The header's version; its pointer to the refcount table.
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
fn a_broken_copy_is_repaired() {
    let (world, image) = stocked();
    let path = world.snapshot_path("app");
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
fn a_broken_copy_without_an_object_stays_for_the_operator_to_see() {
    let world = World::new();
    let path = world.snapshot_path("app");
    std::fs::write(&path, "no image").unwrap();
    world
        .snapdeck(&["pull", "app"])
        .failed(3, &["snapshot not found in store"]);
    assert_eq!(std::fs::read(path).unwrap(), b"no image");
}

#[test]
fn a_broken_copy_is_repaired_under_a_stopped_sandbox_and_no_other() {
    for state in [State::Running, State::Paused, State::Saved, State::Off] {
        let (world, image) = stocked();
        let path = world.snapshot_path("app");
        std::fs::copy(&image, &path).unwrap();
        let id = world.sandbox("a", "app", state);
        std::fs::write(&path, "no image").unwrap();
        let ran = world.snapdeck(&["pull", "app"]);
        if state == State::Off {
            ran.ok();
            assert_pulled(&world, &image);
        } else {
            ran.failed(4, &["cannot repair app", &id, "stop"]);
            assert_eq!(std::fs::read(&path).unwrap(), b"no image");
            assert_nothing_left(&world);
        }
    }
}

#[test]
fn a_valid_copy_is_replaced_only_when_asked_and_never_under_a_sandbox() {
    let (world, image) = stocked();
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
    let told = world
        .snapdeck(&["pull", "app", "--overwrite", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&told["skipped"], &told["repaired"]),
        (&json!(false), &json!(false))
    );
    assert_pulled(&world, &image);
}

#[test]
fn what_is_not_in_the_bucket_is_not_found() {
    let world = World::new();
    let ran = world.snapdeck(&["pull", "app", "--json"]);
    assert_eq!(ran.error_kind(), "notFound");
    ran.failed(3, &["snapshot not found in store", "app", &world.tag]);
    assert!(world.names("snapshots").is_empty());
}

#[test]
fn a_second_pull_of_the_same_name_is_refused_while_the_first_is_at_it() {
    let (world, image) = stocked();
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
    let (world, image) = stocked();
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
fn an_overlay_under_the_name_is_the_operators_own_and_replaced_only_when_asked() {
    let (world, image) = stocked();
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
