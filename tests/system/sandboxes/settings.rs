//! `sandbox autostart` and `sandbox set` change the definition of a sandbox.

use serde_json::{Value, json};

use crate::api::server::Api;
use crate::common::{State, World};

fn listed(world: &World, id: &str) -> Value {
    let all = world.snapdeck(&["sandboxes", "--json"]).ok().json();
    let sandboxes = all.as_array().unwrap().iter();
    let mut found = sandboxes.filter(|sandbox| sandbox["id"] == id);
    found.next().unwrap().clone()
}

#[test]
fn autostart_is_changed_in_every_state_and_listed() {
    let world = World::new();
    world.snapshot("base", 0);
    for state in [State::Off, State::Running, State::Paused, State::Saved] {
        let id = world.sandbox("a", "base", state);
        let set = |to: &str, changed: bool| {
            let args = ["sandbox", "autostart", to, &id, "--json"];
            let outcome = world.snapdeck(&args).ok().json();
            let found = (
                &outcome["sandboxId"],
                &outcome["autostart"],
                &outcome["changed"],
            );
            assert_eq!(found, (&json!(id), &json!(to == "on"), &json!(changed)));
            assert_eq!(listed(&world, &id)["autostart"], to == "on");
            let known = match to {
                "on" => "enable",
                _ => "disable",
            };
            let info = world.virsh(&["dominfo", &id]);
            assert!(info.contains(&format!("Autostart:      {known}")), "{info}");
        };
        set("off", false);
        set("on", true);
        set("on", false);
        let table = world.snapdeck(&["sandboxes"]).ok().stdout;
        assert!(
            table.lines().next().unwrap().contains("AUTOSTART"),
            "{table}"
        );
        let shown = world.snapdeck(&["sandbox", "show", &id]).ok().stdout;
        assert!(shown.contains("autostart     on"), "{shown}");
        set("off", true);
        world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    }
}

#[test]
fn autostart_is_refused_for_foreign_and_transient_domains() {
    let (world, id) = World::with_sandbox(State::Running);
    world.virsh(&["undefine", &id]);
    let on = ["sandbox", "autostart", "on"];
    world
        .snapdeck(&[&on[..], &[&id]].concat())
        .failed(4, &["cannot enable autostart", &id, "it is transient"]);
    let (foreign, disk) = (world.id("foreign"), world.path("scratch/foreign.qcow2"));
    world.image(&disk, 0);
    world.define(&foreign, &disk);
    world
        .snapdeck(&[&on[..], &[&foreign]].concat())
        .failed(4, &[&foreign, "is not a sandbox of snapdeck"]);
    let info = world.virsh(&["dominfo", &foreign]);
    assert!(info.contains("Autostart:      disable"), "{info}");
}

#[test]
fn the_api_changes_settings() {
    let (world, id) = World::with_sandbox(State::Off);
    let api = Api::start(&world);
    let post = |verb: &str, body: Value| {
        let path = format!("/sandboxes/{id}/{verb}");
        api.call(&path, &["-d", &body.to_string()])
    };
    let outcome = post("autostart", json!({"enabled": true})).expect_status(200);
    assert_eq!(outcome["autostart"], true, "{outcome}");
    assert_eq!(
        api.get(&format!("/sandboxes/{id}")).expect_status(200)["autostart"],
        true
    );
    post("autostart", json!({})).failed(400, "invalidInput", &["enabled"]);
}
