//! Suspended guests (ACPI S3): a state of their own, and never that of a stopped sandbox.

use crate::common::{State, World, run, wait_until};

/// A boot sector that suspends the machine, once in the life of a QEMU process: the byte 0x50 of the CMOS memory survives
/// a wake. It writes SLP_TYP 1 (S3) and SLP_EN to PM1a_CNT, which SeaBIOS places at 0x604.
const SUSPENDING: [u8; 29] = [
    0xfa, // cli
    0xb0, 0x50, 0xe6, 0x70, 0xe4, 0x71, // al = CMOS[0x50]
    0x3c, 0x55, 0x74, 0x0f, // if it is 0x55, goto halt
    0xb0, 0x50, 0xe6, 0x70, 0xb0, 0x55, 0xe6, 0x71, // CMOS[0x50] = 0x55
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x24, 0xef, // outw(0x2400, 0x604)
    0xf4, 0xeb, 0xfd, // halt: hlt, goto halt
];

/// Creates a sandbox that suspends itself, and waits until it has.
fn suspended() -> (World, String) {
    let (world, id) = World::with_sandbox(State::Off);
    world.virsh(&["undefine", &id]);
    let mut sector = vec![0; 512];
    sector[..SUSPENDING.len()].copy_from_slice(&SUSPENDING);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = world.dir.join("sector");
    std::fs::write(&file, sector).unwrap();
    let write = format!("write -q -s {} 0 512", file.display());
    let disk = world.path_on_host("sandboxes").join(format!("{id}.qcow2"));
    run(
        "qemu-io",
        &["-f", "qcow2", "-c", &write, disk.to_str().unwrap()],
    );
    world.define_xml(&format!(
        "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>\
         <pm><suspend-to-mem enabled='yes'/></pm><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
         <source file='{}'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
        world.disk("a")
    ));
    world.snapdeck(&["sandbox", "start", &id]).ok();
    wait_until("the guest sleeps", || world.state(&id) == "pmsuspended");
    (world, id)
}

/// Returns the state as snapdeck shows it.
fn state(world: &World, id: &str) -> String {
    let shown = world.snapdeck(&["sandbox", "show", id, "--json"]).ok();
    shown.json()["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_suspended_guest_is_not_taken_for_a_stopped_one() {
    let (world, id) = suspended();
    assert_eq!(state(&world, &id), "suspended");
    let list = world.snapdeck(&["sandboxes"]).ok().stdout;
    assert!(list.contains("suspended (S3)"), "{list}");
    world.snapdeck(&["push", &id, "app"]).failed(
        4,
        &[
            "must be stopped or paused",
            "it is suspended (S3)",
            "resume",
        ],
    );
    for verb in ["start", "pause", "save", "reset"] {
        let ran = world.snapdeck(&["sandbox", verb, &id]);
        ran.failed(4, &["it is suspended (S3)"]);
    }
    let new_id = world.id("b");
    world
        .snapdeck(&["sandbox", "rename", &id, &new_id])
        .failed(4, &["it is suspended (S3)", "stop it first"]);
    assert!(!world.is_in_bucket("app"));

    let created = world.snapdeck(&["create", &id, "app", "--json"]).ok();
    assert_eq!(created.json()["consistency"], "crash-consistent");
    assert_eq!(created.json()["pausedMs"], 0);
    assert_eq!(world.state(&id), "pmsuspended");

    let resume = world.snapdeck(&["sandbox", "resume", &id, "--json"]).ok();
    assert_eq!(resume.json()["changed"], true);
    wait_until("the guest is awake", || state(&world, &id) == "running");
    world.snapdeck(&["sandbox", "pause", &id]).ok();
    world.snapdeck(&["push", &id, "pushed"]).ok();
}

#[test]
fn a_suspended_guest_is_stopped_and_destroyed() {
    let (world, id) = suspended();
    // The guest has no operating system that would shut down; what counts is that it is awake when it is asked.
    let stop = ["-v", "sandbox", "stop", &id, "--timeout", "1"];
    let asked = world
        .snapdeck(&stop)
        .failed(4, &["has not stopped within 1 s"]);
    assert!(asked.stderr.contains(&format!("waking {id}")), "{asked:?}");
    assert_eq!(world.state(&id), "running");
    world.snapdeck(&["sandbox", "stop", &id, "--force"]).ok();
    assert_eq!(world.state(&id), "shut off");
    world.snapdeck(&["sandbox", "start", &id]).ok();
    wait_until("the guest sleeps again", || {
        world.state(&id) == "pmsuspended"
    });
    world.snapdeck(&["sandbox", "stop", &id, "--force"]).ok();
    assert_eq!(state(&world, &id), "shut-off");
    world.snapdeck(&["sandbox", "start", &id]).ok();
    wait_until("the guest sleeps", || world.state(&id) == "pmsuspended");
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    super::assert_no_sandbox(&world, &id);
}
