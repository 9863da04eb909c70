//! Objects that must never become snapshots.

use crate::common::{World, run, sha256, stamp};
use crate::operations::assert_nothing_left;

/// Puts an object that is none, and pulls it: refused as damaged with `words`, with and without a valid copy
/// on the host, which stays as it is.
#[track_caller]
fn assert_damaged(world: &World, words: &[&str]) {
    let ran = world.snapdeck(&["pull", "app", "--json"]);
    assert_eq!(ran.error_kind(), "damaged", "{ran:?}");
    ran.failed(1, words);
    assert!(world.names("snapshots").is_empty());

    let path = world.snapshot("app", 1);
    let before = (sha256(&path), stamp(&path));
    world
        .snapdeck(&["pull", "app", "--overwrite"])
        .failed(1, words);
    assert_eq!((sha256(&path), stamp(&path)), before);
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
    assert_nothing_left(world);
}

fn put(world: &World, make: impl FnOnce(&str)) {
    let file = world.path("scratch/unfit.qcow2");
    make(&file);
    world.put(&file, "app");
}

#[test]
fn garbage() {
    let world = World::new();
    put(&world, |file| {
        std::fs::write(file, "x".repeat(100_000)).unwrap()
    });
    assert_damaged(&world, &["app", "cannot be used as a snapshot"]);
}

#[test]
fn nothing() {
    let world = World::new();
    put(&world, |file| std::fs::write(file, "").unwrap());
    assert_damaged(&world, &["app", "cannot be used as a snapshot"]);
}

#[test]
fn an_image_with_a_backing_file() {
    let world = World::new();
    put(&world, |file| {
        let create = [
            "create",
            "-q",
            "-f",
            "qcow2",
            "-u",
            "-b",
            "/etc/passwd",
            "-F",
            "raw",
            file,
            "1M",
        ];
        run("qemu-img", &create);
    });
    assert_damaged(&world, &["app", "backing file", "/etc/passwd"]);
}

#[test]
fn an_image_with_an_external_data_file() {
    let world = World::new();
    let data = world.path("scratch/data.raw");
    let option = format!("data_file={data},data_file_raw=on");
    put(&world, |file| {
        run(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-o", &option, file, "1M"],
        );
    });
    let before = stamp(&data);
    assert_damaged(&world, &["app", "external data file"]);
    assert_eq!(stamp(&data), before);
}

#[test]
fn half_an_image() {
    let world = World::new();
    put(&world, |file| {
        world.image(file, 2);
        let image = std::fs::File::options().write(true).open(file).unwrap();
        image.set_len(image.metadata().unwrap().len() / 2).unwrap();
    });
    assert_damaged(&world, &["app", "qemu-img check failed"]);
}

#[test]
fn an_image_whose_tables_contradict_each_other() {
    use std::os::unix::fs::FileExt;
    let world = World::new();
    put(&world, |file| {
        world.image(file, 2);
        // The first refcounts, of 16 bits, stand in the third cluster: of what is in use it says that it is free.
        let image = std::fs::File::options().write(true).open(file).unwrap();
        image.write_all_at(&[0; 16], 2 * 65536).unwrap();
    });
    assert_damaged(
        &world,
        &["app", "qemu-img check failed", "errors were found"],
    );
}

#[test]
fn a_raw_image_under_the_name() {
    let world = World::new();
    put(&world, |file| {
        run("qemu-img", &["create", "-q", "-f", "raw", file, "4M"]);
    });
    assert_damaged(&world, &["app", "cannot be used as a snapshot"]);
}

#[test]
fn leaked_clusters_are_a_warning_only() {
    use std::os::unix::fs::FileExt;
    let world = World::new();
    put(&world, |file| {
        world.image(file, 2);
        // One cluster past the used ones has a reference nobody holds.
        let image = std::fs::File::options().write(true).open(file).unwrap();
        let cluster = image.metadata().unwrap().len() / 65536 - 1;
        image.set_len((cluster + 2) * 65536).unwrap();
        image
            .write_all_at(&[0, 1], 2 * 65536 + (cluster + 1) * 2)
            .unwrap();
    });
    let ran = world.snapdeck(&["pull", "app"]).ok();
    assert!(ran.stderr.contains("leaked clusters"), "{ran:?}");
    assert!(crate::common::exists(&world.snapshot_path("app")));
}
