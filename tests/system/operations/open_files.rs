//! Files that processes have open, which no libvirt and no scan knows of: they are not replaced, repaired or removed, and a
//! disk that another process writes is not published.

use std::sync::atomic::Ordering::SeqCst;

use crate::common::{
    Opener, State, World, exists, output, run, sha256, signal, stamp, wait_for_exit, wait_until,
};
use crate::operations::{assert_no_temporary_files, assert_object_is};

/// An overlay on the snapshot `base` outside the directories that snapdeck scans.
fn overlay_elsewhere(world: &World) -> String {
    let path = world.path("scratch/elsewhere.qcow2");
    let base = world.snapshot_path("base");
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &path,
        ],
    );
    path
}

#[test]
fn a_snapshot_that_a_process_has_open_is_not_removed() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let overlay = overlay_elsewhere(&world);
    let remove = ["remove", "base", "--local"];
    let openers: [&dyn Fn() -> Opener; 5] = [
        &|| Opener::qemu_io(&["-f", "qcow2"], &overlay),
        &|| Opener::qemu_io(&["-r", "-f", "qcow2"], &overlay),
        &|| Opener::qemu_io(&["-r", "-f", "raw"], &base),
        &|| Opener::qemu_nbd(&overlay, &world.path("scratch/nbd")),
        &|| Opener::shell("<>", &base),
    ];
    for open in openers {
        let opener = open();
        world
            .snapdeck(&remove)
            .failed(4, &["cannot remove", &base, "in use by", opener.name]);
        assert!(exists(&base));
        drop(opener);
    }
    // A hard link is the same file.
    let link = world.path("scratch/link.qcow2");
    std::fs::hard_link(&base, &link).unwrap();
    let opener = Opener::qemu_io(&["-r", "-f", "qcow2"], &link);
    world
        .snapdeck(&remove)
        .failed(4, &["in use by", opener.name]);
    drop(opener);
    // A program that only reads it, such as a backup, needs no file name.
    let _reader = Opener::shell("<", &base);
    world.snapdeck(&remove).ok();
    assert!(!exists(&base));
}

#[test]
fn a_snapshot_that_a_process_has_open_is_neither_replaced_nor_repaired() {
    let world = World::new();
    world.snapshot("seed", 1);
    let id = world.sandbox("a", "seed", State::Off);
    world.snapdeck(&["push", &id, "base"]).ok();
    world.snapdeck(&["pull", "base"]).ok();
    let base = world.snapshot_path("base");
    let overlay = overlay_elsewhere(&world);
    let before = stamp(&base);
    let opener = Opener::qemu_io(&["-r", "-f", "qcow2"], &overlay);
    world
        .snapdeck(&["pull", "base", "--overwrite"])
        .failed(4, &["cannot replace", &base, "in use by", opener.name]);
    assert_eq!(stamp(&base), before);
    drop(opener);
    world.snapdeck(&["pull", "base", "--overwrite"]).ok();
    assert_ne!(stamp(&base), before);

    // Its length stays that of the object: it could be repaired in place.
    run(
        "qemu-img",
        &["rebase", "-u", "-F", "qcow2", "-b", &base, &overlay],
    );
    let file = std::fs::OpenOptions::new().write(true).open(&base).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 4096], 0x10000).unwrap();
    drop(file);
    let damaged = sha256(&base);
    let opener = Opener::shell("<>", &base);
    world
        .snapdeck(&["verify", "base", "--host", "alpha", "--repair"])
        .failed(4, &["in use by", opener.name]);
    assert_eq!(sha256(&base), damaged);
    drop(opener);
    world
        .snapdeck(&["verify", "base", "--host", "alpha", "--repair"])
        .ok();
    assert_ne!(sha256(&base), damaged);
}

#[test]
fn a_sandbox_whose_disk_another_process_has_open_is_not_destroyed() {
    let (world, id) = World::with_sandbox(State::Off);
    let disk = world.disk("a");
    let destroy = ["sandbox", "destroy", &id, "--yes"];
    for shell in [false, true] {
        let opener = match shell {
            true => Opener::shell(">>", &disk),
            false => Opener::qemu_io(&["-r", "-f", "qcow2"], &disk),
        };
        world
            .snapdeck(&destroy)
            .failed(4, &["cannot remove", &disk, "in use by", opener.name]);
        assert_eq!(world.state(&id), "shut off");
        assert!(exists(&disk));
    }
    world.virsh(&["start", &id]);
    let opener = Opener::shell(">>", &disk);
    world
        .snapdeck(&destroy)
        .failed(4, &["in use by", opener.name]);
    assert_eq!(world.state(&id), "running");
    drop(opener);
    world.snapdeck(&destroy).ok();
    assert!(!exists(&disk));
}

#[test]
fn a_disk_that_another_process_writes_is_not_published() {
    for state in [State::Off, State::Paused, State::Running] {
        let (world, id) = World::with_sandbox(state);
        let disk = world.disk("a");
        let refused = |opener: Opener| {
            let ran = world.snapdeck(&["create", &id, "app"]);
            ran.failed(4, &[&id, &disk, "open for writing by", opener.name]);
            assert!(!world.is_in_bucket("app"));
        };
        refused(Opener::shell(">>", &disk));
        if state == State::Off {
            refused(Opener::qemu_nbd(&disk, &world.path("scratch/nbd")));
            refused(Opener::qemu_io(&["-f", "qcow2"], &disk));
            // The base, too.
            let base = world.snapshot_path("base");
            let opener = Opener::shell("<>", &base);
            let ran = world.snapdeck(&["push", &id, "app"]);
            ran.failed(4, &[&base, "open for writing by", opener.name]);
        }
        let _reader = Opener::shell("<", &disk);
        world.snapdeck(&["create", &id, "app"]).ok();
        assert_no_temporary_files(&world);
    }
}

#[test]
fn a_disk_on_which_another_domain_runs_is_not_published() {
    let (world, id) = World::with_sandbox(State::Off);
    let twin = world.id("twin");
    world.define(&twin, &world.disk("a"));
    world.virsh(&["start", &twin]);
    let ran = world.snapdeck(&["push", &id, "app"]);
    ran.failed(4, &[&id, "open for writing by", &twin]);
    world.virsh(&["suspend", &twin]);
    let ran = world.snapdeck(&["create", &id, "app"]);
    ran.failed(4, &[&id, "open for writing by", &twin]);
    assert!(!world.is_in_bucket("app"));
    // That domain itself is fine.
    world.snapdeck(&["create", &twin, "app"]).ok();
    assert_object_is(&world, "app", &world.disk("a"));
}

#[test]
fn a_disk_that_was_replaced_under_a_running_guest_is_not_published() {
    let (world, id) = World::with_sandbox(State::Running);
    let (disk, other) = (world.disk("a"), world.path("sandboxes/other"));
    std::fs::copy(&disk, &other).unwrap();
    std::fs::rename(&other, &disk).unwrap();
    let ran = world.snapdeck(&["create", &id, "app"]);
    ran.failed(4, &[&id, &disk, "was replaced"]);
    assert!(!world.is_in_bucket("app"));
    assert_eq!(world.state(&id), "running");
}

#[test]
fn a_sandbox_cannot_be_started_while_its_disk_is_read() {
    let (world, id) = World::with_sandbox(State::Off);
    let other = world.sandbox("b", "base", State::Off);
    let (child, faults) = world.start_to_parts(&["push", &id, "app"]);
    let started = output(&mut world.virsh_command(&["start", &id]));
    let message = String::from_utf8_lossy(&started.stderr);
    assert!(
        message.contains("Failed to get \"write\" lock"),
        "{started:?}"
    );
    // Another one on the same base can.
    world.virsh(&["start", &other]);
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).ok();
    assert_object_is(&world, "app", &world.disk("a"));
    world.virsh(&["start", &id]);
    assert_no_temporary_files(&world);
}

#[test]
fn a_disk_is_free_after_its_reader_was_killed() {
    let (world, id) = World::with_sandbox(State::Off);
    let (child, faults) = world.start_to_parts(&["push", &id, "app"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    faults.hold_parts.store(false, SeqCst);
    wait_until("the sandbox starts", || {
        output(&mut world.virsh_command(&["start", &id]))
            .status
            .success()
    });
}
