//! Jobs whose targets were replaced while they were queued, or while no server ran.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::api::server::Api;
use crate::common::{Gate, State, World, exists, run, sha256, wait_until};

/// Creates an environment with an object `app` in which one job runs at a time.
fn with_queue() -> World {
    let world = super::with_object();
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), format!("{config}[jobs]\nparallel = 1\n")).unwrap();
    world.snapshot("base", 1);
    world
}

/// Starts a server whose only slot is taken by a pull of `app`, until the gate is opened: later jobs are queued.
fn start_busy(world: &World) -> (Api, Gate) {
    let gate = world.gate("check");
    let api = Api::start(world);
    api.begin("/snapshots/pull", &json!({"snapshot": "app"}));
    gate.wait_reached();
    (api, gate)
}

/// Waits until the targets of `count` jobs are recorded.
fn wait_for_targets(world: &World, count: usize) {
    wait_until("the targets of all jobs are recorded", || {
        let entries = world.journal_entries();
        entries
            .iter()
            .filter(|entry| entry["target"].is_object())
            .count()
            == count
    });
}

/// Replaces an object by another image.
fn replace_object(world: &World, name: &str) -> String {
    let image = world.path("scratch/replacement.qcow2");
    world.image(&image, 3);
    world.put(&image, name);
    world.etag(name)
}

fn wait_for_end(api: &Api, job: u64) -> Value {
    let path = format!("/jobs/{job}");
    wait_until("the job ends", || {
        ["finished", "failed"].contains(&&*api.state(job))
    });
    api.get(&path).expect_status(200)
}

#[track_caller]
fn assert_refused(api: &Api, job: u64, words: &[&str]) {
    let job = wait_for_end(api, job);
    assert_eq!(job["error"]["code"], "conflict", "{job}");
    let message = job["error"]["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[test]
fn a_queued_job_acts_on_nothing_but_its_target() {
    let world = with_queue();
    let [old, same] = ["d1", "d2"].map(|short| world.sandbox(short, "base", State::Off));
    let stopped = world.sandbox("r1", "base", State::Running);
    for name in ["old", "p"] {
        world.put(&world.snapshot_path("base"), name);
    }
    world.snapshot("local", 1);
    let (api, gate) = start_busy(&world);
    let destroyed = api.begin(&format!("/sandboxes/{old}/destroy"), &json!({}));
    let kept = api.begin(&format!("/sandboxes/{same}/destroy"), &json!({}));
    let stop = json!({"force": true, "timeout": 0});
    let stop = api.begin(&format!("/sandboxes/{stopped}/stop"), &stop);
    let remove = json!({"snapshot": "old", "local": false, "bucket": true});
    let remove = api.begin("/snapshots/remove", &remove);
    let local = api.begin("/snapshots/remove", &json!({"snapshot": "local"}));
    let source = world.sandbox("s", "base", State::Off);
    let push = json!({"sandboxId": source, "snapshotName": "p", "overwrite": true});
    let push = api.begin("/snapshots/push", &push);
    wait_for_targets(&world, 7);
    world.replace_sandbox("d1", "base", State::Off);
    world.replace_sandbox("r1", "base", State::Running);
    let tags = ["old", "p"].map(|name| replace_object(&world, name));
    std::fs::remove_file(world.snapshot_path("local")).unwrap();
    world.snapshot("local", 2);
    let (disk, image) = (
        sha256(&world.disk("d1")),
        sha256(&world.snapshot_path("local")),
    );
    gate.open();
    let sandbox = |id: &str| format!("sandbox {id} on host {} was replaced", world.name);
    assert_refused(&api, destroyed, &["destroy", &sandbox(&old)]);
    assert_refused(&api, stop, &["stop", &sandbox(&stopped)]);
    assert_refused(&api, remove, &["object old", "was replaced"]);
    assert_refused(&api, local, &["snapshot local", "was replaced"]);
    assert_refused(&api, push, &["object p", "was replaced"]);
    assert_eq!(wait_for_end(&api, kept)["state"], "finished");
    assert!(!exists(&world.disk("d2")));
    assert_eq!(sha256(&world.disk("d1")), disk);
    assert_eq!(sha256(&world.snapshot_path("local")), image);
    assert_eq!(world.state(&stopped), "running");
    assert_eq!(tags, ["old", "p"].map(|name| world.etag(name)));
}

#[test]
fn a_queued_destroy_leaves_the_disk_of_a_sandbox_that_was_undefined() {
    let world = with_queue();
    let id = world.sandbox("d1", "base", State::Off);
    let (api, gate) = start_busy(&world);
    let job = api.begin(&format!("/sandboxes/{id}/destroy"), &json!({}));
    wait_for_targets(&world, 2);
    world.virsh(&["undefine", &id]);
    gate.open();
    assert_refused(&api, job, &["was replaced or changed"]);
    assert!(exists(&world.disk("d1")));
}

#[test]
fn a_queued_destroy_leaves_a_new_disk_of_the_same_domain() {
    let world = with_queue();
    let id = world.sandbox("d1", "base", State::Off);
    let xml = world.path("scratch/d1.xml");
    std::fs::write(&xml, world.virsh(&["dumpxml", "--inactive", &id])).unwrap();
    let (api, gate) = start_busy(&world);
    let job = api.begin(&format!("/sandboxes/{id}/destroy"), &json!({}));
    wait_for_targets(&world, 2);
    // The UUID is the same, and the inode may be used again.
    world.replace_sandbox("d1", "base", State::Off);
    world.virsh(&["undefine", &id]);
    world.virsh(&["define", &xml]);
    gate.open();
    assert_refused(&api, job, &["was replaced or changed"]);
    assert!(exists(&world.disk("d1")));
    assert_eq!(world.state(&id), "shut off");
}

/// Queues jobs that a restart must not repeat; returns the ids of the sandboxes.
fn queue_all_kinds(world: &World, api: &Api) -> [String; 3] {
    let [destroyed, source] = ["d1", "s"].map(|short| world.id(short));
    let stopped = world.id("r1");
    for (path, body) in [
        (format!("/sandboxes/{destroyed}/destroy"), json!({})),
        (format!("/sandboxes/{stopped}/stop"), json!({"timeout": 60})),
        (
            "/sandboxes".to_owned(),
            json!({"id": world.id("n"), "snapshot": "base"}),
        ),
        (
            "/snapshots/remove".to_owned(),
            json!({"snapshot": "old", "bucket": true}),
        ),
        (
            "/snapshots/push".to_owned(),
            json!({"sandboxId": source, "snapshotName": "p", "overwrite": true}),
        ),
    ] {
        api.begin(&path, &body);
    }
    [destroyed, stopped, source]
}

fn with_all_kinds() -> World {
    let world = with_queue();
    for short in ["d1", "s"] {
        world.sandbox(short, "base", State::Off);
    }
    world.sandbox("r1", "base", State::Running);
    for name in ["old", "p"] {
        world.put(&world.snapshot_path("base"), name);
    }
    world.snapshot("old", 1);
    world
}

#[track_caller]
fn assert_only_the_pull_is_resumed(world: &World) -> Api {
    let tags = ["old", "p"].map(|name| world.etag(name));
    let api = Api::start(world);
    assert_eq!(wait_for_end(&api, 1)["operation"], "pull");
    let jobs = api.get("/jobs").expect_status(200);
    assert_eq!(jobs.as_array().unwrap().len(), 1, "{jobs}");
    assert!(exists(&world.snapshot_path("app")));
    assert!(exists(&world.disk("d1")) && exists(&world.snapshot_path("old")));
    assert!(!exists(&world.disk("n")));
    assert_eq!(world.state(&world.id("r1")), "running");
    assert_eq!(tags, ["old", "p"].map(|name| world.etag(name)));
    assert_eq!(world.journal_files(), [] as [PathBuf; 0]);
    api
}

#[test]
fn a_killed_server_repeats_nothing_that_changes_or_removes() {
    let world = with_all_kinds();
    let (api, gate) = start_busy(&world);
    let [destroyed, stopped, source] = queue_all_kinds(&world, &api);
    wait_for_targets(&world, 6);
    api.signal("KILL");
    api.wait_for_exit();
    gate.open();
    let api = assert_only_the_pull_is_resumed(&world);
    let log = api.log();
    for title in [
        format!("destroy {destroyed}: dropped"),
        format!("stop {stopped}: dropped"),
        format!("new {} on base: dropped", world.id("n")),
        format!("remove old from {} and bucket: dropped", world.name),
        format!("push {source} → p: dropped"),
    ] {
        assert!(log.contains(&title), "{title:?} is not in {log}");
    }
}

#[test]
fn sigterm_cancels_what_changes_or_removes() {
    let world = with_all_kinds();
    let (api, gate) = start_busy(&world);
    queue_all_kinds(&world, &api);
    wait_for_targets(&world, 6);
    api.signal("TERM");
    api.wait_for_exit().ok();
    let left = world.journal_entries();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0]["operation"]["pull"].is_object(), "{left:?}");
    gate.open();
    assert_only_the_pull_is_resumed(&world);
}

#[test]
fn a_running_job_that_changes_something_is_not_repeated_either() {
    for signal in ["TERM", "KILL"] {
        let world = with_queue();
        let image = world.path("scratch/image.qcow2");
        std::fs::copy(&image, world.snapshot_path("app")).unwrap();
        let gate = world.gate("check");
        let api = Api::start(&world);
        api.begin(
            "/snapshots/pull",
            &json!({"snapshot": "app", "overwrite": true}),
        );
        gate.wait_reached();
        assert_eq!(world.journal_entries()[0]["begun"], true);
        api.signal(signal);
        api.wait_for_exit();
        gate.open();
        let api = Api::start(&world);
        assert_eq!(api.get("/jobs").expect_status(200), json!([]), "{signal}");
        assert_eq!(world.journal_files(), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_push_is_resumed_only_from_the_same_disk_to_a_free_name() {
    let world = with_queue();
    let names = ["n1", "n2", "n3", "n4"];
    let ids = ["a", "b", "c", "d"].map(|short| world.sandbox(short, "base", State::Off));
    let (api, gate) = start_busy(&world);
    for (id, name) in ids.iter().zip(names) {
        api.begin(
            "/snapshots/push",
            &json!({"sandboxId": id, "snapshotName": name}),
        );
    }
    wait_for_targets(&world, 5);
    api.signal("KILL");
    api.wait_for_exit();
    world.replace_sandbox("b", "base", State::Off);
    let tag = replace_object(&world, "n3");
    world.scribble(&world.disk("d"), 200, 1);
    gate.open();
    let api = Api::start(&world);
    let jobs = api.get("/jobs").expect_status(200);
    let job = |name: &str| {
        let jobs = jobs.as_array().unwrap().iter();
        let mut found = jobs.filter(|job| job["snapshot"] == name);
        found.next().unwrap()["id"].as_u64().unwrap()
    };
    assert_eq!(wait_for_end(&api, job("n1"))["state"], "finished");
    assert_refused(
        &api,
        job("n2"),
        &[&format!("sandbox {}", ids[1]), "was replaced"],
    );
    assert_refused(&api, job("n3"), &["object n3", "did not exist"]);
    assert_refused(
        &api,
        job("n4"),
        &[&format!("sandbox {}", ids[3]), "changed"],
    );
    assert!(world.is_in_bucket("n1"));
    assert!(!world.is_in_bucket("n2") && !world.is_in_bucket("n4"));
    assert_eq!(world.etag("n3"), tag);
    assert_eq!(world.journal_files(), [] as [PathBuf; 0]);
}

#[test]
fn a_pull_is_resumed_only_from_the_same_object_to_a_free_name() {
    let world = with_queue();
    for name in ["p1", "p2", "p3"] {
        world.put(&world.snapshot_path("base"), name);
    }
    let (api, gate) = start_busy(&world);
    for name in ["p1", "p2", "p3"] {
        api.begin("/snapshots/pull", &json!({"snapshot": name}));
    }
    wait_for_targets(&world, 4);
    api.signal("KILL");
    api.wait_for_exit();
    replace_object(&world, "p2");
    // Damaged: a pull would replace it.
    std::fs::write(world.snapshot_path("p3"), "of the operator").unwrap();
    gate.open();
    let api = Api::start(&world);
    let jobs = api.get("/jobs").expect_status(200);
    assert_eq!(jobs.as_array().unwrap().len(), 4, "{jobs}");
    let job = |name: &str| {
        let jobs = jobs.as_array().unwrap().iter();
        let mut found = jobs.filter(|job| job["snapshot"] == name);
        found.next().unwrap()["id"].as_u64().unwrap()
    };
    assert_eq!(wait_for_end(&api, job("p1"))["state"], "finished");
    assert_refused(&api, job("p2"), &["object p2", "was replaced"]);
    assert_refused(&api, job("p3"), &["snapshot p3", "did not exist"]);
    assert!(!exists(&world.snapshot_path("p2")));
    let text = run("cat", &[&world.snapshot_path("p3")]);
    assert_eq!(text, "of the operator");
}

#[test]
fn an_entry_without_a_target_is_not_resumed() {
    let world = with_queue();
    let (api, gate) = start_busy(&world);
    wait_for_targets(&world, 1);
    api.signal("KILL");
    api.wait_for_exit();
    // As an older version wrote it.
    let file = &world.journal_files()[0];
    let mut entry: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for key in ["target", "begun"] {
        entry.as_object_mut().unwrap().remove(key).unwrap();
    }
    std::fs::write(file, entry.to_string()).unwrap();
    gate.open();
    let api = Api::start(&world);
    assert_eq!(api.get("/jobs").expect_status(200), json!([]));
    assert!(api.log().contains("pull app"), "{}", api.log());
    assert_eq!(world.journal_files(), [] as [PathBuf; 0]);
    assert!(!exists(&world.snapshot_path("app")));
}
