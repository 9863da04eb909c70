//! Prune: what a rule lets go, here and in the bucket, and what holds it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use snapdeck_engine::{JobState, PruneRequest, View};
use snapdeck_model::{Kind, PruneRule};

use crate::common::screen::Screen;
use crate::common::{State, World, exists, only_local, run};

/// Lets a snapshot be that old.
fn age(world: &World, name: &str, days: u64) {
    let file = std::fs::File::options()
        .append(true)
        .open(world.snapshot_path(name))
        .unwrap();
    let at = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    file.set_modified(at).unwrap();
}

fn names(told: &Value, part: &str) -> Vec<String> {
    let all = told[part].as_array().unwrap();
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    let mut names: Vec<String> = all.iter().map(name).collect();
    names.sort();
    names
}

/// Versions of one snapshot, older ones first.
fn with_versions() -> World {
    let world = World::new();
    for (name, days) in [
        ("app-v1", 40),
        ("app-v2", 30),
        ("app-v3", 20),
        ("web-v1", 50),
    ] {
        world.snapshot(name, 0);
        age(&world, name, days);
    }
    world
}

#[test]
fn what_meets_all_conditions_goes_and_what_is_held_stays() {
    let world = with_versions();
    let id = world.sandbox("a", "app-v1", State::Off);
    // The overlay's making does not make the base younger.
    age(&world, "app-v1", 40);
    world.snapdeck(&["pin", "web-v1"]).ok();
    age(&world, "web-v1", 50);

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
    let told = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&told, "toRemove"), ["app-v2"], "{told}");
    assert_eq!(names(&told, "kept"), ["app-v1"], "{told}");
    assert!(
        told["kept"][0]["keepReasons"][0]
            .as_str()
            .unwrap()
            .contains(&id),
        "{told}"
    );
    assert_eq!(told["toRemove"][0]["lastCopy"], true);
    assert!(told["reclaimedBytes"].as_u64().unwrap() > 0);
    assert!(
        exists(&world.snapshot_path("app-v2")),
        "a dry run removes nothing"
    );

    let ran = world.snapdeck(&["prune", "--older-than", "1d", "--local"]);
    ran.failed(2, &["cannot ask for confirmation", "--dry-run", "--yes"]);
    assert!(exists(&world.snapshot_path("app-v2")));

    let yes = ["prune", "--older-than", "1d", "--local", "--yes", "--json"];
    let told = world.snapdeck(&yes).ok().json();
    assert_eq!(names(&told, "toRemove"), ["app-v2", "app-v3"], "{told}");
    assert_eq!(names(&told, "kept"), ["app-v1", "web-v1"], "{told}");
    assert_eq!(told["results"].as_array().unwrap().len(), 2);
    let left: Vec<String> = world.names("snapshots");
    assert_eq!(left, ["app-v1.qcow2", "web-v1.qcow2"]);
}

#[test]
fn one_whose_chain_cannot_be_followed_holds_all_of_its_host() {
    let world = with_versions();
    let disk = world.path("sandboxes/torn.qcow2");
    let backing = "json:{\"driver\":\"blkdebug\"}";
    let make = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing,
    ];
    run("qemu-img", &[&make[..], &[&disk, "1G"]].concat());
    let dry = [
        "prune",
        "--older-than",
        "1d",
        "--local",
        "--dry-run",
        "--json",
    ];
    let told = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&told, "toRemove"), Vec::<String>::new(), "{told}");
    assert_eq!(names(&told, "kept").len(), 4, "{told}");
}

#[test]
fn in_the_bucket_what_hosts_need_stays() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    for name in ["base", "old", "gone"] {
        world.put(&base, name);
    }
    world.sandbox("a", "base", State::Off);
    let dry = ["prune", "--unused", "--bucket", "--dry-run", "--json"];
    let told = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&told, "toRemove"), ["gone", "old"], "{told}");

    world.snapdeck(&["pin", "old", "--bucket"]).ok();
    // The file under the sandbox is no image any more: the object is the last sound one, also where its being used
    // does not count.
    std::fs::rename(&base, world.path("scratch/base")).unwrap();
    let dry = [
        "prune",
        "--older-than",
        "0h",
        "--bucket",
        "--dry-run",
        "--json",
    ];
    let told = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&told, "toRemove"), ["gone"], "{told}");
    assert_eq!(names(&told, "kept"), ["base", "old"], "{told}");

    world
        .snapdeck(&["prune", "--unused", "--bucket", "--yes"])
        .ok();
    assert!(!world.is_in_bucket("gone"));
    assert!(world.is_in_bucket("old") && world.is_in_bucket("base"));
}

#[test]
fn a_host_that_does_not_answer_holds_the_bucket() {
    if only_local("which hosts answer is asked the same way") {
        return;
    }
    let world = World::hosts(2);
    let base = world.snapshot("base", 0);
    world.put(&base, "base");
    world.reconfigure(&world.hosts[1].uri(), "qemu:///system?socket=/nonexistent");
    let dry = ["prune", "--unused", "--bucket", "--dry-run", "--json"];
    let told = world.snapdeck(&dry).ok().json();
    assert_eq!(names(&told, "kept"), ["base"], "{told}");
    assert!(
        told["kept"][0]["keepReasons"][0]
            .as_str()
            .unwrap()
            .contains("beta"),
        "{told}"
    );
    // Its own snapshots cannot be pruned; those of others can.
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
fn what_changed_since_it_was_listed_stays() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, 1);
    for name in ["kept", "gone", "replaced", "pinned", "used"] {
        world.snapshot(name, 0);
        world.put(&base, name);
    }
    let prune = ["prune", "--unused", "--host", "alpha", "--bucket"];
    let mut screen = Screen::open(&world.command(&prune));
    screen.wait(&["replaced", "Type yes to remove"]);

    world.put(&other, "replaced");
    run("cp", &[&other, &world.snapshot_path("replaced")]);
    world.snapdeck(&["pin", "pinned"]).ok();
    world.sandbox("a", "used", State::Off);
    screen.press("yes\r");
    screen.wait(&[
        "kept: replaced: it has changed since it was listed",
        "kept: pinned: pinned",
    ]);
    assert_eq!(screen.wait_for_exit(), 0);
    assert!(!world.is_in_bucket("gone") && !exists(&world.snapshot_path("gone")));
    for name in ["replaced", "pinned", "used"] {
        assert!(world.is_in_bucket(name), "{name}");
        assert!(exists(&world.snapshot_path(name)), "{name}");
    }
}

#[test]
fn the_removal_itself_looks_once_more() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    world.put(&base, "base");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let engine = runtime.block_on(world.engine());
    let asked = PruneRequest {
        rule: PruneRule {
            unused: true,
            ..PruneRule::default()
        },
        hosts: vec!["alpha".parse().unwrap()],
        include_bucket: true,
        include_leftovers: false,
    };
    let plan = runtime.block_on(engine.prune_plan(&asked)).unwrap();
    assert_eq!(plan.to_remove.len(), 2);
    world.image(&base, 1);
    world.put(&base, "base");
    for operation in plan.operations() {
        let mut views = engine.watch();
        let ended = async {
            let id = engine.submit_all(vec![operation])[0].clone().unwrap();
            let over = |view: &Arc<View>| view.job(id).is_some_and(|job| job.state.is_finished());
            let view = views.wait_for(over).await.unwrap().clone();
            view.job(id).unwrap().state.clone()
        };
        let JobState::Failed(error) = runtime.block_on(ended) else {
            panic!("it went");
        };
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert!(error.to_string().contains("different image"), "{error}");
    }
    assert!(world.is_in_bucket("base") && exists(&base));
}
