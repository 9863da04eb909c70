//! Listings of sandboxes, snapshots and objects, in text and `--json`.

use serde_json::{Value, json};

use crate::common::{State, World, find_program, is_remote, lab, run};

#[test]
fn names_of_domains_do_not_control_the_terminal() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    let name = format!("{id}\u{9b}2J\u{202e}x");
    world.define(&name.replace('\u{9b}', "&#x9b;"), &world.disk("a"));
    let shown = format!("{id}\\u{{9b}}2J\\u{{202e}}x");
    for args in [
        &["sandboxes", "--all"][..],
        &["snapshots"],
        &["remove", "base", "--local"],
    ] {
        let ran = world.snapdeck(args);
        let text = ran.stdout + &ran.stderr;
        assert!(text.contains(&shown), "{args:?}: {text:?}");
        assert!(!text.contains(['\u{9b}', '\u{202e}']), "{args:?}: {text:?}");
    }
    let ran = world.snapdeck(&["snapshots", "--json"]).ok();
    assert!(
        !ran.stdout.contains(['\u{9b}', '\u{202e}']),
        "{}",
        ran.stdout
    );
    assert!(ran.json().to_string().contains(&name), "{}", ran.stdout);
    world.virsh(&["undefine", &name]);
}

#[test]
fn sandboxes_are_listed_with_state_and_chain() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let ids = [
        (
            world.sandbox("a", "base", State::Running),
            "running",
            "running",
        ),
        (
            world.sandbox("b", "base", State::Paused),
            "paused",
            "paused",
        ),
        (
            world.sandbox("c", "base", State::Off),
            "shut-off",
            "shut off",
        ),
        (world.sandbox("d", "base", State::Saved), "saved", "saved"),
    ];
    let listed = world.snapdeck(&["sandboxes", "--json"]).ok().json();
    let text = world.snapdeck(&["sandboxes"]).ok().stdout;
    assert_eq!(listed.as_array().unwrap().len(), ids.len());
    for ((id, state, text_state), sandbox) in ids.iter().zip(listed.as_array().unwrap()) {
        assert_eq!(sandbox["id"], json!(id));
        assert_eq!(sandbox["host"], "alpha");
        assert_eq!(sandbox["state"], *state);
        assert_eq!(sandbox["cpus"], 1);
        assert_eq!(sandbox["memoryBytes"], 64 << 20);
        let chain = sandbox["chain"].as_array().unwrap();
        assert_eq!(chain.len(), 2, "{chain:?}");
        assert_eq!(chain[1]["path"], json!(base));
        assert_eq!(chain[1]["snapshot"], "base");
        let line = text.lines().find(|line| line.starts_with(id)).unwrap();
        assert!(
            line.contains(text_state) && line.ends_with("base"),
            "{line}"
        );
    }
}

#[test]
fn snapshots_are_listed_with_dependents_and_problems() {
    let (world, id) = World::with_sandbox(State::Off);
    std::fs::write(world.snapshot_path("broken"), "not an image").unwrap();
    std::fs::write(world.path("snapshots/note.txt"), "not a snapshot").unwrap();
    let overlay = world.snapshot_path("overlay");
    let base = world.snapshot_path("base");
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &overlay,
        ],
    );

    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    let names: Vec<&Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|snapshot| &snapshot["name"])
        .collect();
    assert_eq!(names, ["base", "broken", "overlay"]);
    let length = std::fs::metadata(&base).unwrap().len();
    assert_eq!(listed[0]["host"], "alpha");
    assert_eq!(listed[0]["sizeBytes"], json!(length));
    assert_eq!(listed[0]["facts"]["virtualSize"], 1 << 30);
    assert_eq!(listed[0]["problem"], Value::Null);
    assert_eq!(listed[0]["dependents"], json!([overlay, id]));
    assert_eq!(listed[1]["facts"], Value::Null);
    assert!(
        listed[1]["problem"].as_str().unwrap().contains("qcow2"),
        "{listed}"
    );
    assert!(
        listed[2]["problem"]
            .as_str()
            .unwrap()
            .contains("it has the backing file"),
        "{listed}"
    );

    let text = world.snapdeck(&["snapshots"]).ok().stdout;
    assert!(
        text.lines()
            .any(|line| line.starts_with("broken") && line.contains("qcow2")),
        "{text}"
    );
}

#[test]
fn objects_are_listed_with_key_size_and_etag() {
    let world = World::new();
    let ran = world.snapdeck(&["objects", "--json"]).ok();
    assert_eq!(ran.json(), json!([]));
    let image = world.snapshot("app", 1);
    world.put(&image, "app");
    world.put(&image, "b.c-1");
    let listed = world.snapdeck(&["objects", "--json"]).ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["name"], "app");
    assert_eq!(listed[0]["key"], json!(format!("{}/app.qcow2", world.tag)));
    assert_eq!(
        listed[0]["sizeBytes"],
        json!(std::fs::metadata(&image).unwrap().len())
    );
    assert_eq!(
        listed[0]["etag"].as_str().unwrap().trim_matches('"'),
        world.etag("app")
    );
    assert_eq!(listed[1]["name"], "b.c-1");
}

#[test]
fn exists_depends_on_the_host_and_reports_the_bucket() {
    let world = World::new();
    let ran = world.snapdeck(&["exists", "app", "--json"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(
        ran.json(),
        json!({"name": "app", "host": "alpha", "local": false, "bucket": false, "exists": false})
    );
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 0);
    world.put(&image, "app");
    let ran = world.snapdeck(&["exists", "app", "--json"]);
    assert_eq!((ran.code, &ran.json()["bucket"]), (Some(3), &json!(true)));
    world.snapdeck(&["pull", "app"]).ok();
    let listed = world.snapdeck(&["exists", "app", "--json"]).ok().json();
    assert_eq!(
        (&listed["local"], &listed["exists"]),
        (&json!(true), &json!(true))
    );
}

#[test]
fn info_shows_snapshot_and_object() {
    let world = World::new();
    world.snapdeck(&["info", "app"]).failed(
        3,
        &["snapshot app not found on host alpha or in the bucket"],
    );

    let image = world.snapshot("app", 0);
    let listed = world.snapdeck(&["info", "app", "--json"]).ok().json();
    assert_eq!(listed["snapshot"]["path"], json!(image));
    assert_eq!(listed["snapshot"]["facts"]["version"], 3);
    assert_eq!(listed["object"], Value::Null);

    world.put(&image, "app");
    std::fs::remove_file(image).unwrap();
    let listed = world.snapdeck(&["info", "app", "--json"]).ok().json();
    assert_eq!(listed["snapshot"], Value::Null);
    assert_eq!(
        listed["object"]["key"],
        json!(format!("{}/app.qcow2", world.tag))
    );
    let text = world.snapdeck(&["info", "app"]).ok().stdout;
    assert!(text.contains("not on alpha"), "{text}");
}

#[test]
fn listing_1000_snapshots_runs_few_commands() {
    let world = World::new();
    let first = world.snapshot("s-0000", 0);
    for number in 1..1000 {
        std::fs::copy(&first, world.snapshot_path(&format!("s-{number:04}"))).unwrap();
    }
    let calls = world.path("scratch/calls");
    for program in ["qemu-img", "virsh", "sh", "ls", "stat", "head", "find"] {
        let real = find_program(program);
        world.fake(
            program,
            &format!("echo {program} >>{calls}; exec {real} \"$@\""),
        );
    }
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 1000);
    assert_eq!(listed[999]["name"], "s-0999");
    assert!(
        listed
            .iter()
            .all(|snapshot| snapshot["facts"]["virtualSize"] == 1 << 30)
    );
    let calls = std::fs::read_to_string(calls).unwrap_or_default();
    // Over SSH each command reads 100 or more images.
    let allowed = if is_remote() { 48 } else { 0 };
    assert!(calls.lines().count() <= allowed, "{calls}");
    assert!(!calls.contains("qemu-img"), "{calls}");
}

#[test]
fn images_with_foreign_names_are_named() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    for name in ["Windows 11.qcow2", "prüfung.qcow2"] {
        let dir = world.path_on_host("snapshots");
        std::fs::copy(dir.join("base.qcow2"), dir.join(name)).unwrap();
    }
    world.put(&base, "base");
    world.put(&base, "Windows 11");
    let listed = world.snapdeck(&["snapshots"]).ok();
    assert!(!listed.stdout.contains("Windows"), "{listed:?}");
    let warning = "\"Windows 11.qcow2\", \"prüfung.qcow2\"; a snapshot's name has letters";
    assert!(listed.stderr.contains(warning), "{listed:?}");
    let doctor = world.snapdeck(&["doctor"]);
    let (bucket, tag) = (lab("SNAPDECK_LAB_BUCKET"), &world.tag);
    let objects = format!("1 under s3://{bucket}/{tag}/; 1 not listed: \"{tag}/Windows 11.qcow2\"");
    assert!(doctor.stdout.contains(&objects), "{objects}: {doctor:?}");
}
