//! I/O errors on a host over SSH are reported with the host's message; paths with special characters work.

use crate::common::{Direction, State, World, run, same_disk, sha256, wait_for_exit, wait_until};
use crate::hosts::assert_no_temporary_files;

/// Adds an object `app`; returns the file it was uploaded from.
fn with_object(world: World) -> (World, String) {
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 3);
    world.put(&image, "app");
    (world, image)
}

#[test]
fn directories_without_write_permission_are_an_error() {
    let (world, _) = with_object(World::over_ssh(1));
    world.snapshot("base", 0);
    let id = world.sandbox("vm", "base", State::Running);
    world.force_convert();
    world.enforce_permissions();
    let (snapshots, temp) = (world.path("snapshots"), world.path("temp"));
    run("chmod", &["555", &snapshots, &temp]);
    world
        .snapdeck(&["pull", "app"])
        .failed(5, &["host alpha", &snapshots, "Permission denied"]);
    world
        .snapdeck(&["create", &id, "new"])
        .failed(5, &["host alpha", &temp, "Permission denied"]);
    run("chmod", &["755", &snapshots, &temp]);
    assert_eq!(world.state(&id), "running");
    assert!(!world.is_in_bucket("new"));
    assert_eq!(world.names("snapshots"), ["base.qcow2"]);
}

#[test]
fn a_disk_filled_during_a_pull_is_an_error() {
    let (world, image) = with_object(World::over_ssh(1));
    let length = std::fs::metadata(image).unwrap().len();
    // The image fits until another process writes to the disk.
    let Some(_disk) = world.small_disk("snapshots", &(length + (1 << 20)).to_string()) else {
        return;
    };
    world.link().limit(Some(1 << 20));
    let child = world.start(&["pull", "app", "--json"]);
    let before = world.link().bytes_passed(Direction::ToHost);
    wait_until("the pull writes", || {
        world.link().bytes_passed(Direction::ToHost) > before + (1 << 20)
    });
    let other = world.path("snapshots/other");
    let filled = world.run_on_host(&[
        "sh",
        "-c",
        "dd if=/dev/zero of=\"$1\" bs=64k count=1024 2>&1; :",
        "sh",
        &other,
    ]);
    assert!(filled.contains("No space left"), "{filled}");
    world.link().limit(None);
    let ran = wait_for_exit(child);
    assert_eq!(ran.error_kind(), "noSpace", "{ran:?}");
    ran.failed(1, &["app", "host alpha", "No space left on device"]);
    assert!(!world.names("snapshots").contains(&"app.qcow2".to_owned()));
}

#[test]
fn a_manifest_for_which_there_is_no_space_leaves_no_file() {
    let world = World::over_ssh(1);
    let Some(disk) = world.small_disk("snapshots", "4m") else {
        return;
    };
    let image = world.path("scratch/base.qcow2");
    world.image(&image, 0);
    // The disk is mounted on the host.
    disk.run_on_host(&["cp", &image, &world.snapshot_path("base")]);
    let filler = world.path("snapshots/filler");
    // dd ends when the disk is full.
    let fill = [
        "dd",
        "if=/dev/zero",
        &format!("of={filler}"),
        "bs=4k",
        "status=none",
    ];
    disk.run_on_host(&fill);
    let ran = world.snapdeck(&["note", "base", "a golden image", "--local"]);
    ran.failed(1, &["No space left on device"]);
    assert_eq!(world.names("snapshots"), ["base.qcow2", "filler"]);
}

#[test]
fn directory_names_with_special_characters_work() {
    for name in [
        "a b",
        "it's \"quoted\"",
        "$(touch pwned) `touch pwned` $HOME",
        "a;touch pwned;& | > x",
        "-n *?[a] ~ {b,c} #! \\n",
        "Übersicht 概要 🗄",
        "%s%%20+",
    ] {
        let (world, image) = with_object(World::over_ssh_in(name));
        world.snapshot("base", 1);
        let id = world.sandbox("vm", "base", State::Running);
        world.snapdeck(&["create", &id, "new"]).ok();
        assert!(same_disk(&world.get("new"), &world.disk("vm")), "{name}");
        assert_eq!(world.state(&id), "running", "{name}");
        world.snapdeck(&["pull", "app"]).ok();
        assert_eq!(
            sha256(&world.snapshot_path("app")),
            sha256(&image),
            "{name}"
        );
        let sandboxes = world.snapdeck(&["sandboxes", "--json"]).ok().json();
        assert_eq!(
            sandboxes[0]["chain"][1]["snapshot"], "base",
            "{name}: {sandboxes}"
        );
        let ran = world.snapdeck(&["remove", "base", "--local"]);
        ran.failed(4, &["cannot remove base", &id]);
        world.snapdeck(&["remove", "app", "--local"]).ok();
        assert_eq!(world.names("snapshots"), ["base.qcow2"], "{name}");
        assert_no_temporary_files(&world);
        let found = run("find", &[world.dir.to_str().unwrap(), "-name", "pwned"]);
        assert_eq!(found, "", "{name}");
    }
}
