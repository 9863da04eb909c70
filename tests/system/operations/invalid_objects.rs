//! Objects that cannot be used as snapshots are refused.

use std::os::unix::fs::FileExt;

use crate::common::{World, exists, run, sha256, stamp};
use crate::operations::assert_no_temporary_files;

/// Asserts that pulls refuse the object `app` as damaged with `words` in the message, without and with a valid copy on
/// the host, which is kept.
#[track_caller]
fn assert_refused(world: &World, words: &[&str]) {
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
    assert_no_temporary_files(world);
    std::fs::remove_file(path).unwrap();
}

fn put(world: &World, create: impl FnOnce(&str)) {
    let file = world.path("scratch/invalid.qcow2");
    let _ = std::fs::remove_file(&file);
    create(&file);
    world.put(&file, "app");
}

fn write_at(file: &str, bytes: &[u8], offset: u64) {
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[test]
fn files_that_are_not_qcow2_are_refused() {
    let world = World::new();
    let create_raw = |file: &str| {
        run("qemu-img", &["create", "-q", "-f", "raw", file, "4M"]);
    };
    let creates: [&dyn Fn(&str); 3] = [
        &|file| std::fs::write(file, "x".repeat(100_000)).unwrap(),
        &|file| std::fs::write(file, "").unwrap(),
        &create_raw,
    ];
    for create in creates {
        put(&world, create);
        assert_refused(&world, &["app", "cannot be used as a snapshot"]);
    }
}

#[test]
fn images_that_need_other_files_are_refused() {
    let world = World::new();
    let data = world.path("scratch/data.raw");
    let data_file = format!("data_file={data},data_file_raw=on");
    for (options, words) in [
        (
            &["-u", "-b", "/etc/passwd", "-F", "raw"][..],
            &["app", "backing file", "/etc/passwd"][..],
        ),
        (&["-o", &data_file], &["app", "external data file"]),
    ] {
        put(&world, |file| {
            let args = [&["create", "-q", "-f", "qcow2"], options, &[file, "1M"]].concat();
            run("qemu-img", &args);
        });
        let before = exists(&data).then(|| stamp(&data));
        assert_refused(&world, words);
        assert_eq!(exists(&data).then(|| stamp(&data)), before);
    }
}

#[test]
fn truncated_and_inconsistent_images_are_refused() {
    let world = World::new();
    put(&world, |file| {
        world.image(file, 2);
        let image = std::fs::File::options().write(true).open(file).unwrap();
        image.set_len(image.metadata().unwrap().len() / 2).unwrap();
    });
    assert_refused(&world, &["app", "qemu-img check failed"]);
    put(&world, |file| {
        world.image(file, 2);
        // The first refcount block is the third cluster: clusters in use are marked as free.
        write_at(file, &[0; 16], 2 * 65536);
    });
    let words = ["app", "qemu-img check failed", "errors were found"];
    assert_refused(&world, &words);
}

#[test]
fn leaked_clusters_are_a_warning_only() {
    let world = World::new();
    put(&world, |file| {
        world.image(file, 2);
        // A cluster past the used ones has a refcount but is not referenced.
        let image = std::fs::File::options().write(true).open(file).unwrap();
        let cluster = image.metadata().unwrap().len() / 65536 - 1;
        image.set_len((cluster + 2) * 65536).unwrap();
        write_at(file, &[0, 1], 2 * 65536 + (cluster + 1) * 2);
    });
    let ran = world.snapdeck(&["pull", "app"]).ok();
    assert!(ran.stderr.contains("leaked clusters"), "{ran:?}");
    assert!(exists(&world.snapshot_path("app")));
}
