//! `prune`: snapshots that a rule removes on hosts and in the bucket, and those that are kept.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use snapdeck_engine::{JobState, Partials, PruneRequest, View};
use snapdeck_model::{Digest, FileStamp, Kind, Manifest, PruneRule};

use crate::common::screen::Screen;
use crate::common::{State, World, exists, only_local, run, sha256};

/// Returns the digests of a file's blocks of 8 MiB.
fn digests(file: &str) -> Vec<Digest> {
    let bytes = std::fs::read(file).unwrap();
    let part = |block: &[u8]| {
        let path = format!("{file}.block");
        std::fs::write(&path, block).unwrap();
        let digest = Digest::from_hex(&sha256(&path)).unwrap();
        std::fs::remove_file(path).unwrap();
        digest
    };
    bytes.chunks(8 << 20).map(part).collect()
}

/// Returns a manifest of a file that was created `days` ago.
fn manifest(file: &str, name: &str, days: i64) -> Manifest {
    let metadata = std::fs::metadata(file).unwrap();
    let mut manifest = Manifest::new(name.parse().unwrap(), metadata.len(), digests(file));
    manifest.created = Some(Timestamp::now() - SignedDuration::from_hours(24 * days));
    manifest
}

/// Writes the manifest of a snapshot that was created `days` ago, whatever the time of its file.
fn age(world: &World, name: &str, days: i64) {
    let path = world.snapshot_path(name);
    let mut manifest = manifest(&path, name, days);
    let metadata = std::fs::metadata(&path).unwrap();
    let seconds = i128::from(metadata.mtime()) * 1_000_000_000;
    manifest.file = Some(FileStamp {
        inode: metadata.ino(),
        modified_ns: seconds + i128::from(metadata.mtime_nsec()),
        size_bytes: metadata.len(),
        changed_ns: Some(
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        ),
    });
    let json = manifest.write().unwrap();
    std::fs::write(world.path(&format!("snapshots/{name}.json")), json).unwrap();
}

/// Uploads an image that was created `days` ago, with its manifest.
fn put(world: &World, file: &str, name: &str, days: i64) {
    world.put(file, name);
    let mut manifest = manifest(file, name, days);
    manifest.etag = Some(world.etag(name));
    let json = world.path("scratch/manifest.json");
    std::fs::write(&json, manifest.write().unwrap()).unwrap();
    let put = world.s5cmd(&["cp", "--raw", &json, &format!("{{}}/{name}.json")]);
    assert!(put.status.success(), "{put:?}");
}

/// Sets the modification time of a snapshot's file to `days` ago.
fn touch(world: &World, name: &str, days: u64) {
    let path = world.snapshot_path(name);
    let file = std::fs::File::options().append(true).open(path).unwrap();
    let at = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    file.set_modified(at).unwrap();
}

fn names(plan: &Value, part: &str) -> Vec<String> {
    let all = plan[part].as_array().unwrap();
    let name = |snapshot: &Value| snapshot["name"].as_str().unwrap().to_owned();
    let mut names: Vec<String> = all.iter().map(name).collect();
    names.sort();
    names
}

/// Creates an environment with three versions of one snapshot, oldest first, and one of another.
fn with_versions() -> World {
    let world = World::new();
    for (name, days) in [
        ("app-v1", 40),
        ("app-v2", 30),
        ("app-v3", 20),
        ("web-v1", 50),
    ] {
        world.snapshot(name, 1);
        age(&world, name, days);
    }
    world
}

#[test]
fn snapshots_that_match_all_conditions_are_removed_unless_needed() {
    let world = with_versions();
    let id = world.sandbox("a", "app-v1", State::Off);
    world.snapdeck(&["pin", "web-v1"]).ok();

    let dry = [
        "prune",
        "--keep",
        "1",
        "--older-than",
        "25d",
        "--local",
        "--dry-run",
        "--json",
    ];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&plan, "toRemove"), ["app-v2"], "{plan}");
    assert_eq!(names(&plan, "kept"), ["app-v1"], "{plan}");
    assert!(
        plan["kept"][0]["keepReasons"][0]
            .as_str()
            .unwrap()
            .contains(&id),
        "{plan}"
    );
    assert_eq!(plan["toRemove"][0]["lastCopy"], true);
    assert!(plan["reclaimedBytes"].as_u64().unwrap() > 0);
    assert!(
        exists(&world.snapshot_path("app-v2")),
        "a dry run removes nothing"
    );

    let ran = world.snapdeck(&["prune", "--older-than", "1d", "--local"]);
    ran.failed(2, &["cannot ask for confirmation", "--dry-run", "--yes"]);
    assert!(exists(&world.snapshot_path("app-v2")));

    let yes = ["prune", "--older-than", "1d", "--local", "--yes", "--json"];
    let plan = world.snapdeck(&yes).ok().json();
    assert_eq!(names(&plan, "toRemove"), ["app-v2", "app-v3"], "{plan}");
    assert_eq!(names(&plan, "kept"), ["app-v1", "web-v1"], "{plan}");
    assert_eq!(plan["results"].as_array().unwrap().len(), 2);
    let remaining: Vec<String> = world.names("snapshots");
    assert_eq!(remaining, ["app-v1.qcow2", "web-v1.qcow2"]);
}

#[test]
fn the_age_of_a_snapshot_is_that_of_its_manifest() {
    let world = World::new();
    // Copied recently, from an old one to a new one, in the wrong order.
    for (name, days, copied) in [("app-v1", 40, 1), ("app-v2", 2, 400), ("app-v3", 30, 3)] {
        world.snapshot(name, 0);
        touch(&world, name, copied);
        age(&world, name, days);
        put(&world, &world.snapshot_path(name), name, days);
    }
    // Nothing says when these were created, or it is in the future: they are not old, nor the newest.
    world.snapshot("app-v7", 0);
    age(&world, "app-v7", -3000);
    put(&world, &world.snapshot_path("app-v7"), "app-v7", -3000);
    world.snapshot("app-v9", 0);
    world.put(&world.snapshot_path("app-v9"), "app-v9");
    touch(&world, "app-v9", 4000);
    world.snapshot("app-v8", 0);
    age(&world, "app-v8", 50);
    touch(&world, "app-v8", 4000);
    for (rule, removed) in [
        (&["--older-than", "25d"][..], &["app-v1", "app-v3"][..]),
        (&["--keep", "1"], &["app-v1", "app-v3"]),
    ] {
        for place in ["--local", "--bucket"] {
            let dry = [&["prune", "--dry-run", "--json", place], rule].concat();
            let plan = world.snapdeck(&dry).ok().json();
            assert_eq!(
                names(&plan, "toRemove"),
                removed,
                "{rule:?} {place}: {plan}"
            );
            let kept = &plan["kept"].as_array().unwrap()[..];
            let is_explained =
                |kept: &Value| kept["keepReasons"].to_string().contains("age is unknown");
            assert!(!kept.is_empty() && kept.iter().all(is_explained), "{plan}");
        }
    }
    let dry = [
        "prune",
        "--older-than",
        "25d",
        "--local",
        "--dry-run",
        "--json",
    ];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(
        names(&plan, "kept"),
        ["app-v7", "app-v8", "app-v9"],
        "{plan}"
    );
}

#[test]
fn a_last_copy_is_one_of_bytes_not_of_a_name() {
    let world = World::hosts(2);
    let [alpha, beta] = [&world.hosts[0], &world.hosts[1]];
    let path = alpha.snapshot("same", 1);
    age(&world, "same", 9);
    put(&world, &path, "same-elsewhere", 9);
    // Other bytes of the same length.
    let other = beta.snapshot("different", 1);
    alpha.snapshot("different", 1);
    age(&world, "different", 9);
    put(&world, &other, "different", 9);
    alpha.snapshot("unknown", 1);
    let dry = [
        "prune",
        "--unused",
        "--host",
        "alpha",
        "--dry-run",
        "--json",
    ];
    let plan = world.snapdeck(&dry).ok().json();
    let is_last = |name: &str| {
        let all = plan["toRemove"].as_array().unwrap().iter();
        let mut found = all.filter(|candidate| candidate["name"] == name);
        found.next().unwrap()["lastCopy"].as_bool().unwrap()
    };
    assert!(!is_last("same"), "{plan}");
    assert!(is_last("different") && is_last("unknown"), "{plan}");
    // Both copies at once.
    let dry = ["prune", "--unused", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    let all = plan["toRemove"].as_array().unwrap();
    assert!(
        all.iter().all(|candidate| candidate["lastCopy"] == true),
        "{plan}"
    );
}

#[test]
fn an_unresolved_chain_keeps_all_snapshots_of_its_host() {
    let world = with_versions();
    let disk = world.path("sandboxes/torn.qcow2");
    let backing = "json:{\"driver\":\"blkdebug\"}";
    let create = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing,
    ];
    run("qemu-img", &[&create[..], &[&disk, "1G"]].concat());
    let dry = [
        "prune",
        "--older-than",
        "1d",
        "--local",
        "--dry-run",
        "--json",
    ];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&plan, "toRemove"), Vec::<String>::new(), "{plan}");
    assert_eq!(names(&plan, "kept").len(), 4, "{plan}");
}

#[test]
fn objects_that_hosts_need_are_kept() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    for name in ["base", "old", "extra"] {
        put(&world, &base, name, 1);
    }
    world.sandbox("a", "base", State::Off);
    let dry = ["prune", "--unused", "--bucket", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&plan, "toRemove"), ["extra", "old"], "{plan}");

    world.snapdeck(&["pin", "old", "--bucket"]).ok();
    // The base of the sandbox is missing: its object is the last good copy and is kept, with or without --unused.
    std::fs::rename(&base, world.path("scratch/base")).unwrap();
    let dry = [
        "prune",
        "--older-than",
        "0h",
        "--bucket",
        "--dry-run",
        "--json",
    ];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&plan, "toRemove"), ["extra"], "{plan}");
    assert_eq!(names(&plan, "kept"), ["base", "old"], "{plan}");

    world
        .snapdeck(&["prune", "--unused", "--bucket", "--yes"])
        .ok();
    assert!(!world.is_in_bucket("extra"));
    assert!(world.is_in_bucket("old") && world.is_in_bucket("base"));
}

#[test]
fn an_unreachable_host_keeps_all_objects() {
    if only_local("an unreachable host is handled in the same way") {
        return;
    }
    let world = World::hosts(2);
    let base = world.snapshot("base", 0);
    put(&world, &base, "base", 0);
    let socket = world.path("scratch/socket");
    std::os::unix::fs::symlink(world.hosts[1].libvirt_socket(), &socket).unwrap();
    world.reconfigure(&world.hosts[1].libvirt_socket(), &socket);
    let dry = ["prune", "--unused", "--bucket", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&plan, "toRemove"), ["base"], "{plan}");
    // From now on the host is known to share no directory with the other.
    std::fs::remove_file(&socket).unwrap();
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&plan, "kept"), ["base"], "{plan}");
    assert!(
        plan["kept"][0]["keepReasons"][0]
            .as_str()
            .unwrap()
            .contains("beta"),
        "{plan}"
    );
    // Snapshots of the unreachable host cannot be pruned; those of other hosts can.
    world
        .snapdeck(&["prune", "--unused", "--local", "--dry-run"])
        .failed(5, &["beta"]);
    let dry = [
        "prune",
        "--unused",
        "--host",
        "alpha",
        "--dry-run",
        "--json",
    ];
    assert_eq!(
        names(&world.snapdeck(&dry).ok().json(), "toRemove"),
        ["base"]
    );
}

#[test]
fn files_and_objects_that_are_not_snapshots_are_kept() {
    let world = World::new();
    world.snapshot("old", 0);
    let text = world.snapshot_path("notes");
    std::fs::write(&text, "not an image").unwrap();
    let put = world.s5cmd(&["cp", &text, "{}/other.qcow2"]);
    assert!(put.status.success(), "{put:?}");
    world.snapdeck(&["prune", "--unused", "--yes"]).ok();
    assert!(!exists(&world.snapshot_path("old")));
    assert!(exists(&text));
    assert!(world.is_in_bucket("other"));
}

#[test]
fn a_rule_is_needed() {
    let world = World::new();
    world.snapdeck(&["prune", "--yes"]).failed(2, &["--keep"]);
    world
        .snapdeck(&["prune", "--keep", "0", "--yes"])
        .failed(2, &["0"]);
    world
        .snapdeck(&["prune", "--older-than", "3", "--yes"])
        .failed(2, &["h, d or w"]);
    let ran = world.snapdeck(&["prune", "--unused", "--yes"]).ok();
    assert_eq!(ran.stdout, "nothing to remove\n");
}

#[test]
fn snapshots_changed_since_the_listing_are_kept() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, 1);
    for name in ["kept", "extra", "replaced", "pinned", "used"] {
        world.snapshot(name, 0);
        put(&world, &base, name, 0);
    }
    let prune = ["prune", "--unused", "--host", "alpha", "--bucket"];
    let mut screen = Screen::open(&world.command(&prune));
    screen.wait(&["replaced", "Type yes to remove"]);

    put(&world, &other, "replaced", 0);
    run("cp", &[&other, &world.snapshot_path("replaced")]);
    world.snapdeck(&["pin", "pinned"]).ok();
    world.sandbox("a", "used", State::Off);
    screen.press("yes\r");
    screen.wait(&[
        "kept: replaced: it has changed since it was listed",
        "kept: pinned: pinned",
    ]);
    assert_eq!(screen.wait_for_exit(), 0);
    assert!(!world.is_in_bucket("extra") && !exists(&world.snapshot_path("extra")));
    for name in ["replaced", "pinned", "used"] {
        assert!(world.is_in_bucket(name), "{name}");
        assert!(exists(&world.snapshot_path(name)), "{name}");
    }
}

#[test]
fn the_removal_checks_the_image_again() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    put(&world, &base, "base", 0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let engine = runtime.block_on(world.engine());
    let request = PruneRequest {
        rule: PruneRule {
            unused: true,
            ..PruneRule::default()
        },
        hosts: vec!["alpha".parse().unwrap()],
        include_bucket: true,
        include_leftovers: false,
        include_foreign: false,
        partials: Partials::None,
    };
    let plan = runtime.block_on(engine.prune_plan(&request)).unwrap();
    assert_eq!(plan.to_remove.len(), 2);
    world.image(&base, 1);
    put(&world, &base, "base", 0);
    for operation in plan.operations() {
        let mut views = engine.watch();
        let ended = async {
            let id = engine.submit_all(vec![operation])[0].clone().unwrap();
            let is_finished =
                |view: &Arc<View>| view.job(id).is_some_and(|job| job.state.is_finished());
            let view = views.wait_for(is_finished).await.unwrap().clone();
            view.job(id).unwrap().state.clone()
        };
        let JobState::Failed(error) = runtime.block_on(ended) else {
            panic!("a changed snapshot was removed");
        };
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert!(error.to_string().contains("different image"), "{error}");
    }
    assert!(world.is_in_bucket("base") && exists(&base));
}
