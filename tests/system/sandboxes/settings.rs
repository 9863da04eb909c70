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
fn cpus_and_memory_are_changed_while_it_is_shut_off() {
    let (world, id) = World::with_sandbox(State::Off);
    let uuid = world.virsh(&["domuuid", &id]);
    let set = |args: &[&str]| {
        let args = [&["sandbox", "set", &id, "--json"], args].concat();
        world.snapdeck(&args).ok().json()
    };
    let size = |outcome: &Value| {
        (
            outcome["cpus"].as_u64().unwrap(),
            outcome["memoryBytes"].as_u64().unwrap() >> 20,
            outcome["changed"].as_bool().unwrap(),
        )
    };
    assert_eq!(size(&set(&["--cpus", "3"])), (3, 64, true));
    assert_eq!(size(&set(&["--memory", "96M"])), (3, 96, true));
    assert_eq!(
        size(&set(&["--cpus", "3", "--memory", "96M"])),
        (3, 96, false)
    );
    let xml = world.virsh(&["dumpxml", &id]);
    let parts = [
        "<vcpu placement='static'>3</vcpu>",
        ">98304</memory>",
        ">98304</currentMemory>",
    ];
    assert!(parts.iter().all(|part| xml.contains(part)), "{xml}");
    assert_eq!(listed(&world, &id)["cpus"], 3);
    // Less than before.
    assert_eq!(
        size(&set(&["--cpus", "1", "--memory", "64M"])),
        (1, 64, true)
    );
    let xml = world.virsh(&["dumpxml", &id]);
    let parts = [
        "<vcpu placement='static'>1</vcpu>",
        ">65536</memory>",
        ">65536</currentMemory>",
    ];
    assert!(parts.iter().all(|part| xml.contains(part)), "{xml}");
    assert_eq!(world.virsh(&["domuuid", &id]), uuid);
    set(&["--cpus", "2"]);
    world.snapdeck(&["sandbox", "start", &id]).ok();
    assert!(world.virsh(&["dominfo", &id]).contains("CPU(s):         2"));
}

#[test]
fn cpus_and_memory_are_refused_if_they_do_not_fit_and_nothing_is_changed() {
    let (world, id) = World::with_sandbox(State::Off);
    let set = ["sandbox", "set", &id];
    for (args, code, words) in [
        (&[][..], 2, &["--cpus", "--memory"][..]),
        (&["--cpus", "0"], 2, &["--cpus"]),
        (&["--cpus", "513"], 2, &["--cpus"]),
        (&["--memory", "4"], 2, &["--memory"]),
        (&["--memory", "9000T"], 4, &["the host has", "in total"]),
    ] {
        let ran = world.snapdeck(&[&set[..], args].concat());
        ran.failed(code, words);
    }
    // A topology that four CPUs do not fill: the memory stays, too.
    let xml = world.virsh(&["dumpxml", &id]);
    let topology = "<topology sockets='1' dies='1' cores='1' threads='1'/>";
    let xml = match xml.contains("<cpu mode='maximum'/>") {
        true => xml.replace(
            "<cpu mode='maximum'/>",
            &format!("<cpu mode='maximum'>{topology}</cpu>"),
        ),
        false => xml.replacen("</cpu>", &format!("{topology}</cpu>"), 1),
    };
    let file = world.path("scratch/topology.xml");
    std::fs::write(&file, &xml).unwrap();
    world.virsh(&["define", &file]);
    assert!(world.virsh(&["dumpxml", &id]).contains("<topology"));
    let before = world.virsh(&["dumpxml", &id]);
    let args = ["--cpus", "4", "--memory", "96M"];
    let ran = world.snapdeck(&[&set[..], &args].concat());
    ran.failed(1, &["cannot change CPUs and memory of", &id, "topology"]);
    assert_eq!(world.virsh(&["dumpxml", &id]), before);
}

#[test]
fn cpus_and_memory_are_refused_unless_it_is_shut_off() {
    let world = World::new();
    world.snapshot("base", 0);
    for (state, words) in [
        (State::Running, ["it is running", "stop it first"]),
        (State::Paused, ["it is paused", "stop it first"]),
        (State::Saved, ["it is saved", "drop-saved"]),
    ] {
        let id = world.sandbox("a", "base", state);
        let before = world.virsh(&["dumpxml", "--inactive", &id]);
        let ran = world.snapdeck(&["sandbox", "set", &id, "--cpus", "4"]);
        ran.failed(4, &[&[&*format!("cannot set {id}")][..], &words].concat());
        assert_eq!(world.virsh(&["dumpxml", "--inactive", &id]), before);
        world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    }
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
    let outcome = post("set", json!({"cpuQuota": 2, "memoryQuota": 96})).expect_status(200);
    let size = (&outcome["cpus"], &outcome["memoryBytes"]);
    assert_eq!(size, (&json!(2), &json!(96 << 20)), "{outcome}");
    post("set", json!({"cpuQuota": 0})).failed(400, "invalidInput", &["cpuQuota: 0"]);
    post("set", json!({})).failed(400, "invalidInput", &["neither CPUs nor memory"]);
    post("autostart", json!({})).failed(400, "invalidInput", &["enabled"]);
}
