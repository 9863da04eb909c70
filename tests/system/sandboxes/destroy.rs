//! `sandbox destroy` removes the domain and its files, and nothing that others use.

use serde_json::json;

use crate::common::screen::Screen;
use crate::common::{State, World, exists, run};
use crate::sandboxes::assert_no_sandbox;

#[test]
fn destroy_removes_domain_and_files_in_every_state() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    for state in [State::Off, State::Running, State::Paused, State::Saved] {
        let id = world.sandbox("a", "base", state);
        let ran = world.snapdeck(&["sandbox", "destroy", &id, "--yes", "--json"]);
        assert_eq!(
            ran.ok().json(),
            json!({"host": "alpha", "id": id, "state": null, "changed": true})
        );
        assert_no_sandbox(&world, &id);
        assert!(exists(&base));
        let again = world.snapdeck(&["sandbox", "destroy", &id, "--yes"]);
        again.failed(3, &["not found", &id]);
    }
    // A new sandbox of that ID does not get the saved memory of the old one.
    let id = world.sandbox("a", "base", State::Off);
    assert!(
        world
            .virsh(&["dominfo", &id])
            .contains("Managed save:   no")
    );
}

#[test]
fn destroy_needs_a_confirmation() {
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
fn a_foreign_domain_is_not_destroyed() {
    let world = World::new();
    world.snapshot("base", 0);
    let (id, disk) = (world.id("foreign"), world.path("scratch/foreign.qcow2"));
    world.image(&disk, 0);
    world.define(&id, &disk);
    // Nor does a file of that name make it a sandbox.
    world.image(&world.disk("foreign"), 0);
    let ran = world.snapdeck(&["sandbox", "destroy", &id, "--yes"]);
    ran.failed(4, &[&id, "is not a sandbox of snapdeck"]);
    assert_eq!(world.state(&id), "shut off");
    assert!(exists(&disk) && exists(&world.disk("foreign")));
}

#[test]
fn a_disk_that_got_another_domain_meanwhile_is_kept() {
    let (world, id) = World::with_sandbox(State::Off);
    let (disk, twin) = (world.disk("a"), world.id("twin"));
    let xml = world.path("scratch/twin.xml");
    std::fs::write(
        &xml,
        format!(
            "<domain type='qemu'><name>{twin}</name><memory unit='MiB'>64</memory>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
             <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>\
             <target dev='vda' bus='virtio'/></disk></devices></domain>"
        ),
    )
    .unwrap();
    // Once the sandbox is undefined, right before its disk would be removed.
    let virsh = format!(
        "/usr/bin/virsh -q -c 'qemu:///system?socket={}'",
        world.libvirt_socket()
    );
    world.fake(
        "find",
        &format!(
            "{virsh} dominfo {id} >/dev/null 2>&1 || {virsh} dominfo {twin} >/dev/null 2>&1 || {virsh} define {xml} >&2\n\
             exec /usr/bin/find \"$@\""
        ),
    );
    world
        .snapdeck(&["sandbox", "destroy", &id, "--yes"])
        .failed(4, &[&disk, "is in use by", &twin]);
    assert!(exists(&disk));
}

#[test]
fn a_disk_in_use_is_kept_and_its_dependents_are_named() {
    let (world, id) = World::with_sandbox(State::Off);
    let disk = world.disk("a");
    let refused = |id: &str, dependent: &str| {
        let ran = world.snapdeck(&["sandbox", "destroy", id, "--yes"]);
        ran.failed(4, &[&disk, "is in use by", dependent]);
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

    // A disk named after the sandbox may still be used by another domain.
    world.virsh(&["undefine", &id]);
    refused(&id, &twin);
    world.snapdeck(&["sandbox", "destroy", &twin, "--yes"]).ok();
    assert!(!exists(&disk));
}
