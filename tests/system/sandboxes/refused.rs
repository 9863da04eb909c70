//! Invalid requests for a new sandbox are refused with the reason, and leave no trace.

use crate::common::{State, World, run, stamp};
use crate::sandboxes::assert_no_sandbox;

/// Asserts that `sandbox new` fails with `code` and `words`.
#[track_caller]
fn assert_refused(world: &World, snapshot: &str, more: &[&str], code: i32, words: &[&str]) {
    let id = world.id("new");
    let args = [&["sandbox", "new", &id, snapshot], more].concat();
    world.snapdeck(&args).failed(code, words);
    assert_no_sandbox(world, &id);
}

#[test]
fn an_id_in_use_is_refused() {
    let (world, id) = World::with_sandbox(State::Running);
    let before = stamp(&world.disk("a"));
    let new = ["sandbox", "new", &id, "base"];
    world
        .snapdeck(&new)
        .failed(4, &[&id, "a sandbox with this id exists and is running"]);
    assert_eq!(world.state(&id), "running");
    assert_eq!(stamp(&world.disk("a")), before);

    // A foreign domain has the ID.
    let (foreign, disk) = (world.id("foreign"), world.path("scratch/foreign.qcow2"));
    world.image(&disk, 0);
    world.define(&foreign, &disk);
    let new = ["sandbox", "new", &foreign, "base"];
    world
        .snapdeck(&new)
        .failed(4, &[&foreign, "a sandbox with this id exists"]);
    assert!(world.virsh(&["dumpxml", &foreign]).contains(&disk));

    // A file without a domain has the ID.
    for (short, file) in [
        ("b", world.disk("b")),
        ("c", world.path(&format!("nvram/{}_VARS.fd", world.id("c")))),
    ] {
        std::fs::write(&file, "precious").unwrap();
        let id = world.id(short);
        let new = ["sandbox", "new", &id, "base"];
        world
            .snapdeck(&new)
            .failed(4, &[&file, "exists, but sandbox"]);
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }
}

#[test]
fn missing_and_invalid_bases_are_refused() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    assert_refused(
        &world,
        "nope",
        &[],
        3,
        &["snapshot nope not found", "snapdeck pull nope"],
    );
    std::fs::write(world.snapshot_path("text"), "not an image").unwrap();
    assert_refused(&world, "text", &[], 1, &["text.qcow2", "as a base"]);
    let overlay = world.snapshot_path("overlay");
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &overlay,
    ];
    run("qemu-img", &create);
    assert_refused(
        &world,
        "overlay",
        &[],
        1,
        &["overlay.qcow2", "it has the backing file", &base],
    );
}

#[test]
fn impossible_sizes_are_refused() {
    let world = World::new();
    world.snapshot("base", 0);
    let smaller = ["--storage", "1023M"];
    assert_refused(&world, "base", &smaller, 4, &["1023 MiB", "1 GiB"]);
    assert_refused(
        &world,
        "base",
        &["--memory", "64T"],
        4,
        &["64 TiB", "in total"],
    );
    assert_refused(&world, "base", &["--memory", "64"], 2, &["--memory"]);
}

#[test]
fn invalid_templates_are_refused() {
    let world = World::new();
    world.snapshot("base", 0);
    let template = world.dir.join("own.xml");
    world.reconfigure(
        "[sandbox]\n",
        &format!("[sandbox]\ntemplate = \"{}\"\n", template.display()),
    );
    assert_refused(&world, "base", &[], 2, &["own.xml", "No such file"]);
    let domain = |inside: &str| {
        format!(
            "<domain type='{{{{accel}}}}'><name>{{{{id}}}}</name><memory unit='b'>{{{{memory_bytes}}}}</memory>\
             <vcpu>1</vcpu>{{{{os}}}}<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
             <source file='{{{{disk}}}}'/><target dev='vda' bus='virtio'/></disk></devices>{inside}</domain>"
        )
    };
    let uuid = "<uuid>5cd8a89e-4d4d-4d4d-8d8d-0123456789ab</uuid>";
    for (text, code, words) in [
        (domain("{{ghost}}"), 2, "{{ghost}} is not a placeholder"),
        (domain("<open>"), 2, "it is not XML"),
        (domain(uuid), 2, "<uuid>"),
        (
            domain("").replace("{{disk}}", "/x"),
            2,
            "none of its disks is {{disk}}",
        ),
        (
            domain("").replace("{{id}}", "x"),
            2,
            "<name> must be {{id}}",
        ),
        // Refused by libvirt.
        (
            domain("").replace("virtio", "floppy"),
            1,
            "cannot define a sandbox",
        ),
    ] {
        std::fs::write(&template, &text).unwrap();
        assert_refused(&world, "base", &[], code, &[words]);
    }
    std::fs::write(&template, domain("<!-- {{cpus}} -->")).unwrap();
    let id = world.id("new");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--start"])
        .ok();
    assert_eq!(world.state(&id), "running");
}

#[test]
fn missing_firmware_is_an_error() {
    let world = World::private();
    world.snapshot("base", 0);
    world.reconfigure("firmware = \"bios\"", "firmware = \"secure-uefi\"");
    let id = world.id("new");
    let new = ["sandbox", "new", &id, "base"];
    world.snapdeck(&new).ok();
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    let empty = world.path("scratch");
    world.run_on_host(&["mount", "--bind", &empty, "/usr/share/qemu/firmware"]);
    world.kill_libvirtd();
    world.start_libvirtd();
    world
        .snapdeck(&new)
        .failed(4, &["no firmware on the host for UEFI", "ovmf"]);
    assert_no_sandbox(&world, &id);
}
