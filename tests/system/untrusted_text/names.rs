//! Names of domains and files, and backing files in headers.

use serde_json::json;

use super::{
    EVIL, EVIL_XML, SHOWN, SHOWN_XML, assert_harmless, assert_own_sequences, checked, open, quit,
    snapdeck,
};
use crate::api::server::Api;
use crate::common::{State, World, run};

#[test]
fn the_name_of_a_domain_and_its_disk() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let name = world.id(EVIL_XML);
    let disk = world.path(&format!("scratch/{EVIL_XML}.qcow2"));
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &disk,
    ];
    run("qemu-img", &create);
    world.define(&name, &disk);

    let listed = snapdeck(&world, &["sandboxes", "--all"]).ok();
    assert!(listed.stdout.contains(SHOWN_XML), "{}", listed.stdout);
    let items = world
        .snapdeck(&["sandboxes", "--all", "--json"])
        .ok()
        .json();
    let item = items
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["id"] == name);
    assert_eq!(item.unwrap()["chain"][0]["path"], disk, "exact in JSON");
    let info = snapdeck(&world, &["info", "base"]).ok();
    assert!(info.stdout.contains(SHOWN_XML), "{}", info.stdout);
    let info = world.snapdeck(&["info", "base", "--json"]).ok().json();
    let users = info["snapshot"]["dependents"].to_string();
    assert!(users.contains(EVIL_XML), "{users}");
    snapdeck(&world, &["snapshots"]).ok();
    let remove = ["remove", "base", "--local"];
    snapdeck(&world, &remove).failed(4, &["in use", SHOWN_XML]);
    let prune = ["prune", "--unused", "--older-than", "0h", "--dry-run"];
    snapdeck(&world, &prune);

    let api = Api::start(&world);
    let info = checked(&api, api.get("/snapshots/info?snapshot=base"));
    assert!(info.body.contains("\\u202egpj.exe"), "{}", info.body);
    let request = json!({"snapshot": "base", "local": true});
    let refused = checked(&api, api.post("/snapshots/remove", &request));
    assert!(refused.status >= 400, "{refused:?}");
    checked(&api, api.get("/jobs"));

    let mut screen = open(&world, &world.command(&[]), true);
    screen.wait(&["base"]);
    screen.press("\t");
    screen.wait(&["used by", SHOWN_XML]);
    screen.press("d");
    screen.wait(&["in use by", "n cancel"]);
    screen.press("\u{1b}");
    screen.wait_for("the dialog is closed", |text| !text.contains("n cancel"));
    quit(&world, screen);
}

#[test]
fn a_backing_file_in_a_header() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", State::Off);
    let backing = format!("/x{EVIL}\nfake  row");
    let odd = world.snapshot_path("odd");
    let create = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &backing, &odd, "1M",
    ];
    run("qemu-img", &create);
    let rebase = [
        "rebase",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        &backing,
        &world.disk("vm"),
    ];
    run("qemu-img", &rebase);

    let listed = snapdeck(&world, &["snapshots"]).ok();
    assert!(!listed.stdout.contains("\nfake"), "{}", listed.stdout);
    let info = snapdeck(&world, &["info", "odd"]).ok();
    assert!(info.stdout.contains(SHOWN), "{}", info.stdout);
    assert!(info.stdout.contains("\\u{a}fake  row\n"), "{}", info.stdout);
    let info = world.snapdeck(&["info", "odd", "--json"]).ok().json();
    assert_eq!(info["snapshot"]["facts"]["backingFile"], backing);
    let shown = snapdeck(&world, &["sandbox", "show", &id]).ok();
    assert!(shown.stdout.contains(SHOWN), "{}", shown.stdout);
    for args in [
        &["push", &id, "app"][..],
        &["push", &id, "app", "--plan"],
        &["create", &id, "app"],
        &["verify", "odd"],
        &["sandbox", "new", &world.id("new"), "odd"],
        &["remove", "base", "--local"],
    ] {
        assert_ne!(snapdeck(&world, args).code, Some(0), "{args:?}");
    }
    snapdeck(&world, &["doctor"]);

    let api = Api::start(&world);
    let info = checked(&api, api.get("/snapshots/info?snapshot=odd"));
    assert!(info.body.contains("\\u009b31m"), "{}", info.body);
    checked(&api, api.get("/sandboxes")).expect_status(200);
    let request = json!({"sandboxId": id, "snapshotName": "app"});
    let refused = checked(&api, api.post("/snapshots/push", &request));
    assert!(refused.status >= 400, "{refused:?}");
    let events = checked(&api, api.get("/jobs/1/events"));
    assert!(events.body.contains("event: result"), "{events:?}");

    let mut screen = open(&world, &world.command(&[]), true);
    screen.wait(&[&id]);
    screen.press("papp\r");
    // Details list the earlier jobs, too.
    screen.wait(&["Jobs · 1 failed"]);
    screen.press("\tj");
    screen.wait(&["odd", "backing", SHOWN]);
    quit(&world, screen);
}

#[test]
fn files_beside_snapshots() {
    let world = World::new();
    world.snapshot("base", 1);
    let snapshots = std::path::PathBuf::from(world.path("snapshots"));
    for name in [
        format!("a{}.qcow2", EVIL.replace('/', "")),
        format!(".{EVIL_XML}.qcow2.partial"),
        format!("b\nfake  row{EVIL_XML}.json"),
        format!(".t{EVIL_XML}.0123456789abcdef.backup"),
    ] {
        std::fs::write(snapshots.join(name), "no image").unwrap();
    }
    // A manifest that another program wrote.
    let manifest = json!({"format": 1, "schema": "snapdeck.manifest/1", "name": "base", "notes": format!("{EVIL}\nsecond"),
        "labels": {EVIL: EVIL, "long": "x".repeat(60_000)}, "method": EVIL});
    std::fs::write(snapshots.join("base.json"), manifest.to_string()).unwrap();

    for args in [
        &["snapshots"][..],
        &["info", "base"],
        &["note", "base"],
        &["prune", "--leftovers", "--foreign", "--dry-run"],
        &["doctor"],
    ] {
        snapdeck(&world, args);
    }
    let note = world.snapdeck(&["note", "base", "--local"]).ok();
    assert!(
        note.stdout.contains(&format!("  {SHOWN}")),
        "{}",
        note.stdout
    );
    assert!(note.stdout.contains("more bytes)"), "{}", note.stdout);

    let mut screen = open(&world, &world.command(&[]), false);
    screen.wait(&["base"]);
    screen.press("\t");
    screen.wait(&["note", SHOWN]);
    quit(&world, screen);

    // The texts stay as they are when something else of the manifest is changed.
    world.snapdeck(&["pin", "base", "--local"]).ok();
    let pinned = std::fs::read(snapshots.join("base.json")).unwrap();
    let pinned: serde_json::Value = serde_json::from_slice(&pinned).unwrap();
    assert_eq!(pinned["labels"], manifest["labels"]);
    assert_eq!(
        (&pinned["notes"], &pinned["pinned"]),
        (&manifest["notes"], &json!(true))
    );
}

#[test]
fn arguments_and_settings() {
    let world = World::new();
    for args in [
        &["push", EVIL, "app"][..],
        &["pull", EVIL],
        &["pull", "app", "--host", EVIL],
        &[EVIL],
        &["note", "base", EVIL],
        &["--config", EVIL, "snapshots"],
    ] {
        assert_ne!(snapdeck(&world, args).code, Some(0), "{args:?}");
    }
    world.reconfigure("prefix = ", &format!("prefex = \"{EVIL_XML}\"\nprefix = "));
    snapdeck(&world, &["config"]);
    let screen = open(&world, &world.command(&["snapshots"]), false);
    screen.wait(&["prefex"]);
    assert_own_sequences(&screen);
    assert_harmless(&screen.text());
}
