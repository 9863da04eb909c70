//! What there is, as `--json` and the exit code tell it.

use serde_json::{Value, json};

use crate::common::{State, World, find_program, is_remote, run};

#[test]
fn sandboxes_with_their_states_and_chains() {
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
    let told = world.snapdeck(&["sandboxes", "--json"]).ok().json();
    let text = world.snapdeck(&["sandboxes"]).ok().stdout;
    assert_eq!(told.as_array().unwrap().len(), ids.len());
    for ((id, state, words), sandbox) in ids.iter().zip(told.as_array().unwrap()) {
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
        assert!(line.contains(words) && line.ends_with("base"), "{line}");
    }
}

#[test]
fn snapshots_with_their_users_and_their_problems() {
    let (world, id) = World::with_sandbox(State::Off);
    std::fs::write(world.snapshot_path("broken"), "no image").unwrap();
    std::fs::write(world.path("snapshots/note.txt"), "no snapshot").unwrap();
    let overlay = world.snapshot_path("overlay");
    let base = world.snapshot_path("base");
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &overlay,
        ],
    );

    let told = world.snapdeck(&["snapshots", "--json"]).ok().json();
    let names: Vec<&Value> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["base", "broken", "overlay"]);
    let length = std::fs::metadata(&base).unwrap().len();
    assert_eq!(told[0]["host"], "alpha");
    assert_eq!(told[0]["sizeBytes"], json!(length));
    assert_eq!(told[0]["facts"]["virtualSize"], 1 << 30);
    assert_eq!(told[0]["problem"], Value::Null);
    assert_eq!(told[0]["dependents"], json!([overlay, id]));
    assert_eq!(told[1]["facts"], Value::Null);
    assert!(
        told[1]["problem"].as_str().unwrap().contains("qcow2"),
        "{told}"
    );
    assert!(
        told[2]["problem"]
            .as_str()
            .unwrap()
            .contains("it has the backing file"),
        "{told}"
    );

    let text = world.snapdeck(&["snapshots"]).ok().stdout;
    assert!(
        text.lines()
            .any(|line| line.starts_with("broken") && line.contains("qcow2")),
        "{text}"
    );
}

#[test]
fn objects_of_the_bucket() {
    let world = World::new();
    let ran = world.snapdeck(&["objects", "--json"]).ok();
    assert_eq!(ran.json(), json!([]));
    let image = world.snapshot("app", 1);
    world.put(&image, "app");
    world.put(&image, "b.c-1");
    let told = world.snapdeck(&["objects", "--json"]).ok().json();
    assert_eq!(told.as_array().unwrap().len(), 2);
    assert_eq!(told[0]["name"], "app");
    assert_eq!(told[0]["key"], json!(format!("{}/app.qcow2", world.tag)));
    assert_eq!(
        told[0]["sizeBytes"],
        json!(std::fs::metadata(&image).unwrap().len())
    );
    assert_eq!(
        told[0]["etag"].as_str().unwrap().trim_matches('"'),
        world.etag("app")
    );
    assert_eq!(told[1]["name"], "b.c-1");
}

#[test]
fn exists_answers_for_the_host_and_tells_of_the_bucket() {
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
    let told = world.snapdeck(&["exists", "app", "--json"]).ok().json();
    assert_eq!(
        (&told["local"], &told["exists"]),
        (&json!(true), &json!(true))
    );
}

#[test]
fn info_tells_of_both_places() {
    let world = World::new();
    world.snapdeck(&["info", "app"]).failed(
        3,
        &["snapshot app not found on host alpha or in the bucket"],
    );

    let image = world.snapshot("app", 0);
    let told = world.snapdeck(&["info", "app", "--json"]).ok().json();
    assert_eq!(told["snapshot"]["path"], json!(image));
    assert_eq!(told["snapshot"]["facts"]["version"], 3);
    assert_eq!(told["object"], Value::Null);

    world.put(&image, "app");
    std::fs::remove_file(image).unwrap();
    let told = world.snapdeck(&["info", "app", "--json"]).ok().json();
    assert_eq!(told["snapshot"], Value::Null);
    assert_eq!(
        told["object"]["key"],
        json!(format!("{}/app.qcow2", world.tag))
    );
    let text = world.snapdeck(&["info", "app"]).ok().stdout;
    assert!(text.contains("not on alpha"), "{text}");
}

#[test]
fn a_thousand_snapshots_are_listed_without_a_command_for_each() {
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
    let told = world.snapdeck(&["snapshots", "--json"]).ok().json();
    let told = told.as_array().unwrap();
    assert_eq!(told.len(), 1000);
    assert_eq!(told[999]["name"], "s-0999");
    assert!(
        told.iter()
            .all(|one| one["facts"]["virtualSize"] == 1 << 30)
    );
    let called = std::fs::read_to_string(calls).unwrap_or_default();
    // Over SSH each command looks at a hundred or more of them.
    let allowed = if is_remote() { 48 } else { 0 };
    assert!(called.lines().count() <= allowed, "{called}");
    assert!(!called.contains("qemu-img"), "{called}");
}
