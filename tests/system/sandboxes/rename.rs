//! `sandbox rename` gives a sandbox another id; its files keep their names, and everything still finds them.

use serde_json::json;

use crate::api::server::Api;
use crate::common::{State, World, exists, run, sha256, signal, wait_for_exit, wait_until};
use crate::sandboxes::assert_no_sandbox;

/// Returns the names of the files in the directories of sandboxes, without those of snapdeck itself.
fn files(world: &World) -> Vec<String> {
    let names = ["sandboxes", "nvram"]
        .into_iter()
        .flat_map(|dir| world.names(dir));
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn a_renamed_sandbox_keeps_its_files_and_is_destroyed_with_exactly_those() {
    let world = World::new();
    world.reconfigure("firmware = \"bios\"", "firmware = \"secure-uefi\"");
    world.snapshot("base", 1);
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
    let [old, new, other] = ["old", "new", "other"].map(|name| world.id(name));
    for id in [&other, &old] {
        world.snapdeck(&["sandbox", "new", id, "base"]).ok();
    }
    world.snapdeck(&["sandbox", "autostart", "on", &old]).ok();
    let uuid = world.virsh(&["domuuid", &old]);
    let (disk, nvram) = (
        world.disk("old"),
        world.path(&format!("nvram/{old}_VARS.fd")),
    );
    let sums = || (sha256(&disk), sha256(&nvram));
    let before = (sums(), files(&world));
    let rename = |from: &str, to: &str| {
        let ran = world
            .snapdeck(&["sandbox", "rename", from, to, "--json"])
            .ok();
        let expected =
            json!({"host": "alpha", "sandboxId": to, "formerId": from, "diskPath": disk});
        assert_eq!(ran.json(), expected);
        assert_eq!(world.virsh(&["domuuid", to]), uuid);
        assert_eq!((sums(), files(&world)), before);
    };
    rename(&old, &new);

    let shown = world
        .snapdeck(&["sandbox", "show", &new, "--json"])
        .ok()
        .json();
    assert_eq!(shown["chain"][0]["path"], json!(disk));
    assert_eq!(
        (&shown["variables"], &shown["autostart"]),
        (&json!(nvram), &json!(true))
    );
    world
        .snapdeck(&["sandbox", "show", &old])
        .failed(3, &[&old, "not found"]);
    // The old id is not used for anything else while the files have its name.
    world
        .snapdeck(&["sandbox", "new", &old, "base"])
        .failed(4, &[&new, "refers to", &disk]);
    world
        .snapdeck(&["sandbox", "rename", &other, &old])
        .failed(4, &[&new, "refers to", &disk]);
    world
        .snapdeck(&["sandbox", "destroy", &old, "--yes"])
        .failed(4, &[&disk, "in use by", &new]);
    assert_eq!((sums(), files(&world)), before);

    world.snapdeck(&["push", &new, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(sha256(&world.path("snapshots/app_VARS.fd")), before.0.1);
    world.snapdeck(&["verify", "app"]).ok();

    // Back to the name of its own files, and away again.
    rename(&new, &old);
    rename(&old, &new);
    world.snapdeck(&["sandbox", "start", &new]).ok();
    assert_eq!(world.state(&new), "running");
    let kept = [
        world.disk("other"),
        world.path(&format!("nvram/{other}_VARS.fd")),
    ];
    world.snapdeck(&["sandbox", "destroy", &new, "--yes"]).ok();
    assert_no_sandbox(&world, &new);
    assert_no_sandbox(&world, &old);
    assert!(kept.iter().all(|file| exists(file)));
    world.snapdeck(&["sandbox", "new", &old, "base"]).ok();
}

#[test]
fn a_rename_is_refused_unless_it_is_shut_off() {
    let world = World::new();
    world.snapshot("base", 0);
    for (state, words) in [
        (State::Running, ["it is running", "stop it first"]),
        (State::Paused, ["it is paused", "stop it first"]),
        (State::Saved, ["it is saved", "drop-saved"]),
    ] {
        let (id, new) = (world.sandbox("a", "base", state), world.id("b"));
        let ran = world.snapdeck(&["sandbox", "rename", &id, &new]);
        ran.failed(
            4,
            &[&[&*format!("cannot rename {id}")][..], &words].concat(),
        );
        assert!(!world.virsh(&["list", "--all", "--name"]).contains(&new));
        world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    }
}

#[test]
fn a_rename_never_takes_an_id_that_is_in_use() {
    let (world, id) = World::with_sandbox(State::Off);
    let other = world.sandbox("b", "base", State::Off);
    let (foreign, disk) = (world.id("foreign"), world.path("scratch/foreign.qcow2"));
    world.image(&disk, 0);
    world.define(&foreign, &disk);
    let rename = |from: &str, to: &str| world.snapdeck(&["sandbox", "rename", from, to]);
    for taken in [&other, &foreign, &id] {
        rename(&id, taken).failed(4, &["cannot rename", taken, "exists"]);
    }
    std::fs::write(world.disk("c"), "of another program").unwrap();
    rename(&id, &world.id("c")).failed(4, &[&world.disk("c"), "exists", "choose another id"]);
    rename(&id, "a/b").failed(2, &["a/b"]);
    rename(&foreign, &world.id("d")).failed(4, &[&foreign, "is not a sandbox of snapdeck"]);
    rename("unknown", &world.id("d")).failed(3, &["sandbox unknown not found"]);
    let names = world.virsh(&["list", "--all", "--name"]);
    assert!(
        [&id, &other, &foreign]
            .iter()
            .all(|id| names.contains(id.as_str())),
        "{names}"
    );

    let api = Api::start(&world);
    let new = world.id("e");
    let path = format!("/sandboxes/{id}/rename");
    let outcome = api.post(&path, &json!({"newId": new})).expect_status(200);
    assert_eq!(
        (&outcome["sandboxId"], &outcome["formerId"]),
        (&json!(new), &json!(id))
    );
}

#[test]
fn a_killed_destroy_of_a_renamed_sandbox_is_finished_under_the_name_of_its_disk() {
    let (world, id) = World::with_sandbox(State::Off);
    let (new, disk) = (world.id("new"), world.disk("a"));
    world.snapdeck(&["sandbox", "rename", &id, &new]).ok();
    let (reached, release) = (world.path("find.reached"), world.path("find.release"));
    let virsh = format!(
        "/usr/bin/virsh -q -c 'qemu:///system?socket={}'",
        world.libvirt_socket()
    );
    // Between the end of the definition and that of the disk.
    world.fake(
        "find",
        &format!(
            "if ! {virsh} dominfo {new} >/dev/null 2>&1; then\n\
             touch {reached}\nuntil [ -e {release} ] || [ ! -d {} ]; do sleep 0.02; done\nfi\n\
             exec /usr/bin/find \"$@\"",
            world.path("sandboxes")
        ),
    );
    let child = world.start(&["sandbox", "destroy", &new, "--yes"]);
    wait_until("the sandbox is undefined", || exists(&reached));
    signal(&child, "KILL");
    wait_for_exit(child);
    std::fs::write(&release, "").unwrap();
    assert!(exists(&disk));
    let again = world.snapdeck(&["sandbox", "destroy", &new, "--yes"]);
    again.failed(3, &[&new, "not found"]);
    world
        .snapdeck(&["sandbox", "new", &id, "base"])
        .failed(4, &[&disk, "snapdeck sandbox destroy"]);
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    assert_no_sandbox(&world, &id);
}
