//! Start, stop, pause, resume, save, restore, drop-saved: in every state, and again.

use serde_json::json;

use crate::common::{State, World};

/// Does `verb` to the sandbox; it is in `state` afterwards, and something was done or not.
#[track_caller]
fn turned(world: &World, id: &str, verb: &[&str], state: &str, changed: bool) {
    let args = [&["sandbox"], verb, &[id, "--json"]].concat();
    let told = world.snapdeck(&args).ok().json();
    let expected = json!({"host": "alpha", "id": id, "state": state, "changed": changed});
    assert_eq!(told, expected, "{verb:?}");
}

/// It is refused, with the state it is in.
#[track_caller]
fn refused(world: &World, id: &str, verb: &[&str], words: &[&str]) {
    let args = [&["sandbox"], verb, &[id]].concat();
    let verb = verb[0].replace('-', " ");
    let cannot = format!("cannot {verb} {id}");
    world
        .snapdeck(&args)
        .failed(4, &[&[cannot.as_str()], words].concat());
}

#[test]
fn through_all_states() {
    let (world, id) = World::with_sandbox(State::Off);
    let turned = |verb: &[&str], state, changed| turned(&world, &id, verb, state, changed);
    let refused = |verb: &[&str], words: &[&str]| refused(&world, &id, verb, words);

    for verb in [&["stop"][..], &["stop", "--force"], &["drop-saved"]] {
        turned(verb, "shut-off", false);
    }
    for verb in ["pause", "resume", "save", "restore"] {
        refused(&[verb], &["it is shut off"]);
    }
    turned(&["start"], "running", true);
    for verb in ["start", "restore", "resume"] {
        turned(&[verb], "running", false);
    }
    turned(&["drop-saved"], "running", false);
    turned(&["pause"], "paused", true);
    turned(&["pause"], "paused", false);
    for verb in ["start", "restore", "stop"] {
        refused(&[verb], &["it is paused", "resume it"]);
    }
    turned(&["resume"], "running", true);
    turned(&["save"], "saved", true);
    assert!(
        world
            .virsh(&["dominfo", &id])
            .contains("Managed save:   yes")
    );
    turned(&["save"], "saved", false);
    turned(&["stop"], "saved", false);
    for verb in ["pause", "resume"] {
        refused(&[verb], &["it is saved"]);
    }
    turned(&["restore"], "running", true);
    turned(&["pause"], "paused", true);
    turned(&["save"], "saved", true);
    // It goes on as it was: paused.
    turned(&["start"], "paused", true);
    turned(&["save"], "saved", true);
    turned(&["drop-saved"], "shut-off", true);
    assert!(
        world
            .virsh(&["dominfo", &id])
            .contains("Managed save:   no")
    );
    turned(&["start"], "running", true);
    turned(&["stop", "--force"], "shut-off", true);
}

#[test]
fn a_guest_that_does_not_stop_runs_on_until_it_is_forced() {
    // Firmware alone hears no power button.
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
fn several_at_once_have_a_result_each() {
    let world = World::new();
    world.snapshot("base", 0);
    let (a, b) = (
        world.sandbox("a", "base", State::Paused),
        world.sandbox("b", "base", State::Off),
    );
    let ids = [a.as_str(), "nobody", &b, &a];
    let ran = world.snapdeck(&[&["sandbox", "resume"], &ids[..], &["--json"]].concat());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let results = ran.json()["results"].clone();
    assert_eq!(results.as_array().unwrap().len(), 3, "{results}");
    assert_eq!(results[0]["state"], "running");
    assert_eq!(
        (&results[1]["id"], &results[1]["error"]["kind"]),
        (&json!("nobody"), &json!("notFound"))
    );
    assert_eq!(results[2]["error"]["kind"], "conflict");
    assert_eq!(world.state(&a), "running");
    assert_eq!(world.state(&b), "shut off");
}

#[test]
fn other_guests_are_shown_when_asked_for_and_left_alone() {
    let (world, id) = World::with_sandbox(State::Off);
    let (foreign, disk) = (world.id("foreign"), world.path("scratch/foreign.qcow2"));
    world.image(&disk, 0);
    world.define(&foreign, &disk);
    let ids = |args: &[&str]| {
        let told = world.snapdeck(args).ok().json();
        let rows = told.as_array().unwrap().clone();
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
            .snapdeck(&["sandbox", verb, "nobody"])
            .failed(3, &["sandbox nobody not found"]);
    }
    let push = world.snapdeck(&["push", &foreign, "app"]);
    push.failed(4, &[&foreign, "is not a sandbox of snapdeck"]);
    assert_eq!(world.state(&foreign), "shut off");
}
