//! What is wrong on the host itself is told in its words; odd paths there are nothing wrong.

use crate::common::{State, World, run, same_disk, sha256};
use crate::hosts::assert_nothing_stays;

/// A world with an object `app`, and the file it was put from.
fn stocked(world: World) -> (World, String) {
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 3);
    world.put(&image, "app");
    (world, image)
}

#[test]
fn directories_where_we_may_not_write() {
    let (world, _) = stocked(World::over_ssh(1));
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
fn a_disk_that_fills_up_while_a_pull_writes() {
    let (world, image) = stocked(World::over_ssh(1));
    let length = std::fs::metadata(image).unwrap().len();
    // All of it seems to fit until others take their share.
    let Some(_disk) = world.small_disk("snapshots", &(length + (1 << 20)).to_string()) else {
        return;
    };
    world.link().limit(Some(1 << 20));
    let child = world.start(&["pull", "app", "--json"]);
    let before = world.link().bytes_passed(crate::common::Direction::ToHost);
    crate::common::wait_until("the pull writes", || {
        world.link().bytes_passed(crate::common::Direction::ToHost) > before + (1 << 20)
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
    let ran = crate::common::wait_for_exit(child);
    assert_eq!(ran.error_kind(), "noSpace", "{ran:?}");
    ran.failed(1, &["app", "host alpha", "No space left on device"]);
    assert!(!world.names("snapshots").contains(&"app.qcow2".to_owned()));
}

#[test]
fn odd_names_of_directories_are_names_and_nothing_else() {
    for odd in [
        "a b",
        "it's \"quoted\"",
        "$(touch pwned) `touch pwned` $HOME",
        "a;touch pwned;& | > x",
        "-n *?[a] ~ {b,c} #! \\n",
        "Übersicht 概要 🗄",
        "%s%%20+",
    ] {
        let (world, image) = stocked(World::over_ssh_in(odd));
        world.snapshot("base", 1);
        let id = world.sandbox("vm", "base", State::Running);
        world.snapdeck(&["create", &id, "new"]).ok();
        assert!(same_disk(&world.get("new"), &world.disk("vm")), "{odd}");
        assert_eq!(world.state(&id), "running", "{odd}");
        world.snapdeck(&["pull", "app"]).ok();
        assert_eq!(sha256(&world.snapshot_path("app")), sha256(&image), "{odd}");
        let told = world.snapdeck(&["sandboxes", "--json"]).ok().json();
        assert_eq!(told[0]["chain"][1]["snapshot"], "base", "{odd}: {told}");
        let ran = world.snapdeck(&["remove", "base", "--local"]);
        ran.failed(4, &["cannot remove base", &id]);
        world.snapdeck(&["remove", "app", "--local"]).ok();
        assert_eq!(world.names("snapshots"), ["base.qcow2"], "{odd}");
        assert_nothing_stays(&world);
        let found = run("find", &[world.dir.to_str().unwrap(), "-name", "pwned"]);
        assert_eq!(found, "", "{odd}");
    }
}
