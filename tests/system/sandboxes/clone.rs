//! `sandbox clone` creates a sandbox with the settings and a copy of the disk of another, or leaves no trace of it.

use serde_json::json;

use crate::api::server::Api;
use crate::common::{
    State, World, exists, run, same_disk, sha256, signal, stamp, wait_for_exit, wait_until,
};
use crate::sandboxes::assert_no_sandbox;

/// Makes cp(1) wait until the returned file is created; also returns the file that shows that it was called.
fn gate_cp(world: &World) -> (String, String) {
    let (reached, release) = (world.path("cp.reached"), world.path("cp.release"));
    let dir = world.path("sandboxes");
    world.fake(
        "cp",
        &format!(
            "echo $$ >{reached}.new && mv {reached}.new {reached}\n\
             until [ -e {release} ] || [ ! -d {dir} ]; do sleep 0.02; done\nexec /usr/bin/cp \"$@\""
        ),
    );
    (reached, release)
}

/// Returns the files in the directories of sandboxes, those with hidden names included.
fn files(world: &World) -> Vec<String> {
    let dirs = ["sandboxes", "nvram"].into_iter();
    dirs.flat_map(|dir| world.names(dir)).collect()
}

#[test]
fn a_clone_has_the_settings_and_the_data_of_its_source_and_files_of_its_own() {
    let world = World::new();
    world.reconfigure("firmware = \"bios\"", "firmware = \"secure-uefi\"");
    let base = world.snapshot("base", 1);
    let variables = world.path("snapshots/base_VARS.fd");
    let of = format!("of={variables}");
    run(
        "dd",
        &[
            "if=/dev/urandom",
            &of,
            "bs=540672",
            "count=1",
            "iflag=fullblock",
            "status=none",
        ],
    );
    let (source, clone) = (world.id("a"), world.id("b"));
    let new = [
        "sandbox", "new", &source, "base", "--cpus", "2", "--memory", "96M",
    ];
    world.snapdeck(&new).ok();
    world.scribble(&world.disk("a"), 32, 7);
    let nvram = |id: &str| world.path(&format!("nvram/{id}_VARS.fd"));
    let unchanged = || {
        let files = [&base, &world.disk("a"), &nvram(&source)];
        files.map(|file| (sha256(file), stamp(file)))
    };
    let before = unchanged();

    let ran = world
        .snapdeck(&["sandbox", "clone", &source, &clone, "--json"])
        .ok();
    let created = ran.json();
    assert_eq!(
        (&created["id"], &created["host"]),
        (&json!(clone), &json!("alpha"))
    );
    assert_eq!(
        (&created["state"], &created["cpus"]),
        (&json!("shut-off"), &json!(2))
    );
    assert_eq!(created["memoryBytes"], 96 << 20);
    assert_eq!(created["chain"][0]["path"], json!(world.disk("b")));
    assert_eq!(created["chain"][1]["snapshot"], "base");
    assert_eq!(created["variables"], json!(nvram(&clone)));
    assert!(ran.stderr.contains("TPM state"), "{ran:?}");
    assert_ne!(
        world.virsh(&["domuuid", &clone]),
        world.virsh(&["domuuid", &source])
    );
    assert_eq!(sha256(&nvram(&clone)), sha256(&nvram(&source)));
    assert!(same_disk(&world.disk("a"), &world.disk("b")));
    let hidden = |name: &String| name.starts_with('.') && name.contains(&clone);
    assert!(!files(&world).iter().any(hidden), "{:?}", files(&world));
    assert_eq!(unchanged(), before);

    // Both run at the same time.
    for id in [&source, &clone] {
        world.snapdeck(&["sandbox", "start", id]).ok();
    }
    world
        .snapdeck(&["sandbox", "destroy", &clone, "--yes"])
        .ok();
    assert_no_sandbox(&world, &clone);
    assert_eq!(world.state(&source), "running");
    assert!(exists(&world.disk("a")) && exists(&nvram(&source)));
}

#[test]
fn a_clone_is_refused_unless_its_source_is_shut_off() {
    let world = World::new();
    world.snapshot("base", 0);
    for (state, words) in [
        (State::Running, ["it is running", "stop it first"]),
        (State::Paused, ["it is paused", "stop it first"]),
        (State::Saved, ["it is saved", "drop-saved"]),
    ] {
        let (id, clone) = (world.sandbox("a", "base", state), world.id("b"));
        let ran = world.snapdeck(&["sandbox", "clone", &id, &clone]);
        ran.failed(4, &[&[&*format!("cannot clone {id}")][..], &words].concat());
        assert_no_sandbox(&world, &clone);
        world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    }
}

#[test]
fn a_clone_takes_no_id_in_use_and_no_second_disk() {
    let (world, id) = World::with_sandbox(State::Off);
    let other = world.sandbox("b", "base", State::Off);
    let clone = |from: &str, to: &str| world.snapdeck(&["sandbox", "clone", from, to]);
    for taken in [&id, &other] {
        clone(&id, taken).failed(4, &["cannot clone", &id, "exists"]);
    }
    std::fs::write(world.disk("c"), "of another program").unwrap();
    clone(&id, &world.id("c")).failed(4, &[&world.disk("c"), "exists", "choose another id"]);
    clone("unknown", &world.id("d")).failed(3, &["sandbox unknown not found"]);
    let disk = world.path("scratch/data.qcow2");
    world.image(&disk, 0);
    world.virsh(&[
        "attach-disk",
        &id,
        &disk,
        "vdb",
        "--config",
        "--subdriver",
        "qcow2",
    ]);
    clone(&id, &world.id("d")).failed(4, &["cannot clone", &id, "2 disks"]);
    assert_no_sandbox(&world, &world.id("d"));

    let api = Api::start(&world);
    let path = format!("/sandboxes/{other}/clone");
    let created = api
        .post(&path, &json!({"newId": world.id("e")}))
        .expect_status(201);
    assert_eq!(
        (&created["id"], &created["state"]),
        (&json!(world.id("e")), &json!("shut-off"))
    );
}

#[test]
fn a_clone_that_does_not_start_is_removed() {
    let world = World::new();
    world.snapshot("base", 0);
    world.reconfigure("network = \"none\"", "network = \"nowhere\"");
    let (id, clone) = (world.id("a"), world.id("b"));
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    let before = files(&world);
    let ran = world.snapdeck(&["sandbox", "clone", &id, &clone, "--start"]);
    ran.failed(1, &[&clone, "nowhere"]);
    assert_no_sandbox(&world, &clone);
    assert_eq!(
        (world.state(&id), files(&world)),
        ("shut off".to_owned(), before)
    );
}

#[test]
fn a_source_cannot_be_started_while_it_is_copied_and_a_cancelled_clone_is_undone() {
    let (world, id) = World::with_sandbox(State::Off);
    let clone = world.id("b");
    let (reached, _) = gate_cp(&world);
    let before = (files(&world), sha256(&world.disk("a")));
    let child = world.start(&["sandbox", "clone", &id, &clone]);
    wait_until("cp is called", || exists(&reached));
    assert!(!exists(&world.disk("b")));
    let started = world.virsh_command(&["start", &id]).output().unwrap();
    let message = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(
        !started.status.success() && message.contains("lock"),
        "{message}"
    );
    signal(&child, "INT");
    wait_for_exit(child).failed(130, &["was cancelled"]);
    assert_no_sandbox(&world, &clone);
    assert_eq!((files(&world), sha256(&world.disk("a"))), before);
    world.snapdeck(&["sandbox", "start", &id]).ok();
}

#[test]
fn a_killed_clone_leaves_no_sandbox_and_is_repeated() {
    let (world, id) = World::with_sandbox(State::Off);
    let clone = world.id("b");
    let (reached, release) = gate_cp(&world);
    let sum = sha256(&world.disk("a"));
    let args = ["sandbox", "clone", &id, &clone];
    let child = world.start(&args);
    wait_until("cp is called", || exists(&reached));
    let pid = std::fs::read_to_string(&reached).unwrap();
    signal(&child, "KILL");
    wait_for_exit(child);
    // The copy ends with it.
    let command = format!("/proc/{}/cmdline", pid.trim());
    wait_until("cp has ended", || {
        std::fs::read(&command).map_or(true, |words| words.is_empty())
    });
    std::fs::write(&release, "").unwrap();
    assert!(!exists(&world.disk("b")));
    assert!(!world.virsh(&["list", "--all", "--name"]).contains(&clone));
    assert_eq!(sha256(&world.disk("a")), sum);

    world.snapdeck(&args).ok();
    let hidden = |name: &String| name.starts_with('.') && name.contains(&clone);
    assert!(!files(&world).iter().any(hidden), "{:?}", files(&world));
    assert!(same_disk(&world.disk("a"), &world.disk("b")));
    world
        .snapdeck(&["sandbox", "destroy", &clone, "--yes"])
        .ok();
    assert_no_sandbox(&world, &clone);
}
