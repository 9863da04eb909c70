//! Invalid objects, manifests and directories: a clear error, and nothing is published.

use std::sync::atomic::Ordering::SeqCst;

use snapdeck_model::Digest;

use super::{BLOCK, MIB, ProxiedWorld, bytes};
use crate::common::{exists, sha256, wait_for_exit};

/// Asserts that the pull fails as `kind` with `words` in its message, and leaves no files.
#[track_caller]
fn assert_refused(world: &ProxiedWorld, kind: &str, words: &[&str]) {
    let ran = world.snapdeck(&["pull", "app", "--json"]);
    assert_eq!(ran.error_kind(), kind, "{ran:?}");
    ran.failed(1, words);
    assert!(
        world.names("snapshots").is_empty(),
        "{:?}",
        world.names("snapshots")
    );
}

#[test]
fn a_wrong_digest_in_the_manifest_is_an_error() {
    let (world, image) = ProxiedWorld::with_object(20);
    let size = std::fs::metadata(&image).unwrap().len();
    let mut manifest = world.manifest(&image, "app", None);
    manifest.blocks[1] = Digest([7; 32]);
    world.put_manifest(&manifest, "app");
    world.received();
    assert_refused(
        &world,
        "damaged",
        &[
            "app.qcow2 is damaged",
            "1 of its 3 blocks of 8 MiB",
            "match its manifest: 1\nhint: ",
        ],
    );
    // The invalid block is fetched twice, the rest once.
    world.assert_fetched(size + BLOCK);
    // An existing valid copy is kept.
    std::fs::copy(&image, world.snapshot_path("app")).unwrap();
    world
        .snapdeck(&["pull", "app", "--overwrite"])
        .failed(1, &["match its manifest: 1\nhint: "]);
    world.assert_pulled(&world, "app", &image);
    world.snapdeck(&["verify", "app", "--bucket"]).failed(
        1,
        &[
            "app.qcow2 is damaged",
            "1 of its 3 blocks of 8 MiB",
            "match its manifest: 1\nhint: ",
        ],
    );
}

#[test]
fn a_manifest_of_another_image_is_ignored() {
    let (world, image) = ProxiedWorld::with_object(20);
    let good = world.manifest(&image, "app", None);
    let json = String::from_utf8(good.write().unwrap()).unwrap();
    let size = format!("\"sizeBytes\":{}", good.size_bytes);
    let mut short = good.clone();
    short.size_bytes -= 1;
    let mut other = good.clone();
    other.etag = Some("\"of-another\"".into());
    let absurd = json.replace(&size, "\"sizeBytes\":18446744073709551615");
    for invalid in [
        String::from_utf8(short.write().unwrap()).unwrap(),
        String::from_utf8(other.write().unwrap()).unwrap(),
        absurd,
        json.replace("\"blocks\":\"", "\"blocks\":\"AAAA"),
        json.replace('{', ""),
        "[".repeat(100_000),
    ] {
        world.put_json(invalid.as_bytes(), "app");
        world.snapdeck(&["pull", "app"]).ok();
        world.assert_pulled(&world, "app", &image);
        std::fs::remove_file(world.snapshot_path("app")).unwrap();
    }
}

#[test]
fn a_block_corrupted_in_transit_is_fetched_again() {
    let (world, image) = ProxiedWorld::with_object(20);
    let size = std::fs::metadata(&image).unwrap().len();
    world.received();
    world.faults.corrupt.store(1, SeqCst);
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(
        world.faults.corrupt.load(SeqCst),
        0,
        "the proxy corrupted no block"
    );
    world.assert_pulled(&world, "app", &image);
    // The block is fetched again, from its middle on if the SDK's checksum already failed.
    assert!(world.received() > size + BLOCK / 2);
}

#[test]
fn an_object_replaced_during_the_pull_is_an_error() {
    let (world, image) = ProxiedWorld::with_object(40);
    let child = world.start_held(3 * BLOCK);
    world.image(&image, 40);
    world.put_with_manifest(&image, "app", None);
    world.release();
    wait_for_exit(child).failed(1, &["changed while it was being downloaded"]);
    // The partial file of the old object is removed.
    assert!(
        world.names("snapshots").is_empty(),
        "{:?}",
        world.names("snapshots")
    );
    world.snapdeck(&["pull", "app"]).ok();
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn an_object_removed_during_the_pull_is_an_error() {
    let (world, _) = ProxiedWorld::with_object(40);
    let child = world.start_held(3 * BLOCK);
    let removed = world.s5cmd(&["rm", "{}/app.qcow2"]);
    assert!(removed.status.success(), "{removed:?}");
    world.release();
    wait_for_exit(child).failed(3, &["no such object"]);
    assert!(
        world.names("snapshots").is_empty(),
        "{:?}",
        world.names("snapshots")
    );
}

#[test]
fn a_truncated_object_is_an_error() {
    let (world, image) = ProxiedWorld::with_object(20);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    file.set_len(12 * MIB).unwrap();
    world.put(&image, "app");
    assert_refused(&world, "damaged", &["qemu-img check failed"]);
    // Also with a manifest of the truncated image.
    world.put_with_manifest(&image, "app", None);
    assert_refused(&world, "damaged", &["qemu-img check failed"]);
}

#[test]
fn an_image_that_needs_other_files_is_refused_despite_its_manifest() {
    let world = ProxiedWorld::new(1);
    let image = world.path("scratch/app.qcow2");
    let data = format!(
        "data_file={},data_file_raw=on",
        world.path("scratch/data.raw")
    );
    for (option, word) in [
        (&["-u", "-b", "/etc/passwd", "-F", "raw"][..], "/etc/passwd"),
        (&["-o", &data], "external data file"),
    ] {
        let create = [&["create", "-q", "-f", "qcow2"], option, &[&image, "1M"]].concat();
        crate::common::run("qemu-img", &create);
        // With a matching manifest.
        world.put_with_manifest(&image, "app", None);
        assert_refused(&world, "damaged", &["cannot be used as a snapshot", word]);
    }
}

#[test]
fn a_read_only_directory_is_an_error() {
    let (world, _) = ProxiedWorld::with_object(3);
    let Some(disk) = world.small_disk("snapshots", "44m") else {
        return;
    };
    disk.make_read_only();
    let ran = world.snapdeck(&["pull", "app", "--json"]);
    ran.failed(1, &["Read-only file system", &world.path("snapshots")]);
    assert!(world.names("snapshots").is_empty());
}

#[test]
fn invalid_manifests_of_other_snapshots_are_ignored() {
    let (world, image) = ProxiedWorld::with_object(20);
    world.put_with_manifest(&image, "base", None);
    world.snapdeck(&["pull", "base"]).ok();
    let sum = sha256(&image);
    for invalid in ["", "[]", "{\"format\":1}"] {
        std::fs::write(world.path("snapshots/base.json"), invalid).unwrap();
        let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
        assert_eq!(bytes(&result, "copiedBytes"), 0);
        assert_eq!(sha256(&world.snapshot_path("app")), sum);
        std::fs::remove_file(world.snapshot_path("app")).unwrap();
    }
    assert!(exists(&world.snapshot_path("base")));
}
