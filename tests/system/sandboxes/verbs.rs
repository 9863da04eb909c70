//! start, stop, pause, resume, save, restore and drop-saved in every state, each also without effect.

use serde_json::json;

use crate::common::{State, World};

/// Asserts that `verb` leaves the sandbox in `state` and reports whether it has changed.
#[track_caller]
fn assert_changes(world: &World, id: &str, verb: &[&str], state: &str, changed: bool) {
    let args = [&["sandbox"], verb, &[id, "--json"]].concat();
    let result = world.snapdeck(&args).ok().json();
    let expected = json!({"host": "alpha", "id": id, "state": state, "changed": changed});
    assert_eq!(result, expected, "{verb:?}");
}

/// Asserts that `verb` is refused with `words` in the message.
#[track_caller]
fn assert_refused(world: &World, id: &str, verb: &[&str], words: &[&str]) {
    let args = [&["sandbox"], verb, &[id]].concat();
    let verb = verb[0].replace('-', " ");
    let cannot = format!("cannot {verb} {id}");
    world
        .snapdeck(&args)
        .failed(4, &[&[cannot.as_str()], words].concat());
}

#[test]
fn verbs_change_the_state_have_no_effect_or_are_refused() {
    let (world, id) = World::with_sandbox(State::Off);
    let changes = |verb: &[&str], state, changed| assert_changes(&world, &id, verb, state, changed);
    let refused = |verb: &[&str], words: &[&str]| assert_refused(&world, &id, verb, words);

    for verb in [&["stop"][..], &["stop", "--force"], &["drop-saved"]] {
        changes(verb, "shut-off", false);
    }
    for verb in ["pause", "resume", "save", "restore", "restart", "reset"] {
        refused(&[verb], &["it is shut off"]);
    }
    changes(&["start"], "running", true);
    for verb in ["start", "restore", "resume"] {
        changes(&[verb], "running", false);
    }
    changes(&["drop-saved"], "running", false);
    changes(&["pause"], "paused", true);
    changes(&["pause"], "paused", false);
    for verb in ["start", "restore", "stop", "restart", "reset"] {
        refused(&[verb], &["it is paused", "resume it"]);
    }
    changes(&["resume"], "running", true);
    changes(&["save"], "saved", true);
    assert!(
        world
            .virsh(&["dominfo", &id])
            .contains("Managed save:   yes")
    );
    changes(&["save"], "saved", false);
    changes(&["stop"], "saved", false);
    for verb in ["pause", "resume", "restart", "reset"] {
        refused(&[verb], &["it is saved"]);
    }
    changes(&["restore"], "running", true);
    changes(&["pause"], "paused", true);
    changes(&["save"], "saved", true);
    // It was saved while paused.
    changes(&["start"], "paused", true);
    changes(&["save"], "saved", true);
    changes(&["drop-saved"], "shut-off", true);
    assert!(
        world
            .virsh(&["dominfo", &id])
            .contains("Managed save:   no")
    );
    changes(&["start"], "running", true);
    changes(&["stop", "--force"], "shut-off", true);
}

#[test]
fn a_guest_that_does_not_stop_runs_until_it_is_forced_off() {
    // Firmware without an operating system ignores the power button.
    let (world, id) = World::with_sandbox(State::Running);
    let stop = ["sandbox", "stop", &id, "--timeout", "1"];
    world
        .snapdeck(&stop)
        .failed(4, &[&id, "has not stopped within 1 s", "--force"]);
    assert_eq!(world.state(&id), "running");
    let ran = world
        .snapdeck(&["sandbox", "stop", &id, "--force-after", "1"])
        .ok();
    assert!(ran.stderr.contains("forcing it off"), "{ran:?}");
    assert_eq!(world.state(&id), "shut off");
}

#[test]
fn a_guest_that_does_not_stop_is_restarted_by_force_only() {
    let (world, id) = World::with_sandbox(State::Running);
    let restart = ["sandbox", "restart", &id];
    world
        .snapdeck(&[&restart[..], &["--timeout", "1"]].concat())
        .failed(4, &[&id, "has not stopped within 1 s", "sandbox reset"]);
    assert_eq!(world.state(&id), "running");
    let ran = world
        .snapdeck(&[&restart[..], &["--force-after", "1"]].concat())
        .ok();
    assert!(ran.stderr.contains("forcing it off"), "{ran:?}");
    assert_eq!(world.state(&id), "running");
}

#[test]
fn several_sandboxes_have_one_result_each() {
    let world = World::new();
    world.snapshot("base", 0);
    let (a, b) = (
        world.sandbox("a", "base", State::Paused),
        world.sandbox("b", "base", State::Off),
    );
    let ids = [a.as_str(), "unknown", &b, &a];
    let ran = world.snapdeck(&[&["sandbox", "resume"], &ids[..], &["--json"]].concat());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let results = ran.json()["results"].clone();
    assert_eq!(results.as_array().unwrap().len(), 3, "{results}");
    assert_eq!(results[0]["state"], "running");
    assert_eq!(
        (&results[1]["id"], &results[1]["error"]["kind"]),
        (&json!("unknown"), &json!("notFound"))
    );
    assert_eq!(results[2]["error"]["kind"], "conflict");
    assert_eq!(world.state(&a), "running");
    assert_eq!(world.state(&b), "shut off");
}

#[test]
fn foreign_domains_are_listed_on_request_and_not_changed() {
    let (world, id) = World::with_sandbox(State::Off);
    let (foreign, disk) = (world.id("foreign"), world.path("scratch/foreign.qcow2"));
    world.image(&disk, 0);
    world.define(&foreign, &disk);
    let ids = |args: &[&str]| {
        let listed = world.snapdeck(args).ok().json();
        let rows = listed.as_array().unwrap().clone();
        let ours = rows.iter().filter(|row| {
            let id = row["id"].as_str().unwrap();
            id.starts_with(&world.tag)
        });
        ours.map(|row| (row["id"].clone(), row["managed"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&["sandboxes", "--json"]), [(json!(id), json!(null))]);
    assert_eq!(
        ids(&["sandboxes", "--all", "--json"]),
        [(json!(id), json!(true)), (json!(foreign), json!(false))]
    );
    let verbs = [
        "start",
        "stop",
        "restart",
        "reset",
        "pause",
        "resume",
        "save",
        "restore",
        "drop-saved",
        "show",
    ];
    for verb in verbs {
        let ran = world.snapdeck(&["sandbox", verb, &foreign]);
        ran.failed(4, &[&foreign, "is not a sandbox of snapdeck"]);
        world
            .snapdeck(&["sandbox", verb, "unknown"])
            .failed(3, &["sandbox unknown not found"]);
    }
    let push = world.snapdeck(&["push", &foreign, "app"]);
    push.failed(4, &[&foreign, "is not a sandbox of snapdeck"]);
    assert_eq!(world.state(&foreign), "shut off");
}
