//! Images that QEMU has marked corrupt are neither published nor used.

use std::os::unix::fs::FileExt;

use crate::common::{State, World};

/// Sets the corrupt bit of the incompatible features (QEMU, docs/interop/qcow2).
fn mark_corrupt(path: &str) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 79).unwrap();
    file.write_all_at(&[byte[0] | 2], 79).unwrap();
}

#[test]
fn a_disk_is_not_pushed() {
    for in_base in [false, true] {
        let (world, id) = World::with_sandbox(State::Off);
        let marked = match in_base {
            true => world.snapshot_path("base"),
            false => world.disk("a"),
        };
        mark_corrupt(&marked);
        for verb in ["push", "create"] {
            let ran = world.snapdeck(&[verb, &id, "app", "--json"]);
            assert_eq!(ran.error_kind(), "damaged");
            ran.failed(1, &[&id, &marked, "marked corrupt"]);
        }
        assert!(!world.is_in_bucket("app"));
        let ran = world.snapdeck(&["doctor"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let line = ran
            .stdout
            .lines()
            .find(|line| line.contains("marked corrupt"));
        assert!(line.is_some_and(|line| line.contains(&marked)), "{ran:?}");
    }
}

#[test]
fn an_object_is_not_pulled_and_does_not_verify() {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 1);
    mark_corrupt(&image);
    world.put(&image, "app");
    for args in [&["pull", "app"][..], &["verify", "app", "--bucket"]] {
        world.snapdeck(args).failed(1, &["app", "marked corrupt"]);
    }
    assert_eq!(world.names("snapshots"), [""; 0]);
}

#[test]
fn a_snapshot_does_not_verify_and_is_replaced_by_a_pull() {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 1);
    world.put(&image, "app");
    world.snapdeck(&["pull", "app"]).ok();
    mark_corrupt(&world.snapshot_path("app"));
    world.snapdeck(&["verify", "app"]).failed(1, &["app"]);
    world.snapdeck(&["pull", "app"]).ok();
    world.snapdeck(&["verify", "app"]).ok();
}
