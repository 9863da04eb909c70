//! Destroy: all of a sandbox, and nothing of anybody else's.

use serde_json::json;

use crate::common::screen::Screen;
use crate::common::{State, World, exists, run};
use crate::sandboxes::assert_no_sandbox;

#[test]
fn all_of_it_goes_whatever_its_state() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    for state in [State::Off, State::Running, State::Paused, State::Saved] {
        let id = world.sandbox("a", "base", state);
        let told = world.snapdeck(&["sandbox", "destroy", &id, "--yes", "--json"]);
        assert_eq!(
            told.ok().json(),
            json!({"host": "alpha", "id": id, "state": null, "changed": true})
        );
        assert_no_sandbox(&world, &id);
        assert!(exists(&base));
        let again = world.snapdeck(&["sandbox", "destroy", &id, "--yes"]);
        again.failed(3, &["not found", &id]);
    }
    // A saved one's memory must not wake up in a new one of that name.
    let id = world.sandbox("a", "base", State::Off);
    assert!(
        world
            .virsh(&["dominfo", &id])
            .contains("Managed save:   no")
    );
}

#[test]
fn nothing_goes_without_a_word() {
    let (world, id) = World::with_sandbox(State::Off);
    let destroy = ["sandbox", "destroy", &id];
    world.snapdeck(&destroy).failed(2, &[&id, "--yes"]);
    assert!(exists(&world.disk("a")));

    let mut screen = Screen::open(&world.command(&destroy));
    screen.wait(&["This destroys", &format!("Type {id}")]);
    screen.press("yes\r");
    assert_eq!(screen.wait_for_exit(), 130, "{}", screen.text());
    assert!(exists(&world.disk("a")));

    let mut screen = Screen::open(&world.command(&destroy));
    screen.wait(&[&format!("Type {id}")]);
    screen.press(&format!("{id}\r"));
    assert_eq!(screen.wait_for_exit(), 0, "{}", screen.text());
    assert_no_sandbox(&world, &id);
}

#[test]
fn a_guest_that_is_none_of_ours_is_refused() {
    let world = World::new();
    world.snapshot("base", 0);
    let (id, disk) = (world.id("foreign"), world.path("scratch/foreign.qcow2"));
    world.image(&disk, 0);
    world.define(&id, &disk);
    // A file of that name makes it none of ours either.
    world.image(&world.disk("foreign"), 0);
    let ran = world.snapdeck(&["sandbox", "destroy", &id, "--yes"]);
    ran.failed(4, &[&id, "is not a sandbox of snapdeck"]);
    assert_eq!(world.state(&id), "shut off");
    assert!(exists(&disk) && exists(&world.disk("foreign")));
}

#[test]
fn a_disk_that_others_need_is_refused_and_they_are_named() {
    let (world, id) = World::with_sandbox(State::Off);
    let disk = world.disk("a");
    let refused = |id: &str, who: &str| {
        let ran = world.snapdeck(&["sandbox", "destroy", id, "--yes"]);
        ran.failed(4, &[&disk, "is in use by", who]);
        assert!(exists(&disk));
    };

    let top = world.path("sandboxes/top.qcow2");
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &disk, &top,
    ];
    run("qemu-img", &create);
    refused(&id, &top);
    std::fs::remove_file(&top).unwrap();

    let twin = world.id("twin");
    world.define(&twin, &disk);
    refused(&id, &twin);
    refused(&twin, &id);

    // The name of a file is no proof that nobody else has it.
    world.virsh(&["undefine", &id]);
    refused(&id, &twin);
    world.snapdeck(&["sandbox", "destroy", &twin, "--yes"]).ok();
    assert!(!exists(&disk));
}
