//! Objects, manifests and places that are not what they should be: a clear error, and nothing under the final name.

use std::sync::atomic::Ordering::SeqCst;

use snapdeck_model::Digest;

use super::{BLOCK, Lab, MIB, bytes};
use crate::common::{exists, sha256, wait_for_exit};

/// The pull fails as `kind`, saying `words`, and leaves nothing.
#[track_caller]
fn assert_refused(lab: &Lab, kind: &str, words: &[&str]) {
    let ran = lab.snapdeck(&["pull", "app", "--json"]);
    assert_eq!(ran.error_kind(), kind, "{ran:?}");
    ran.failed(1, words);
    assert!(
        lab.names("snapshots").is_empty(),
        "{:?}",
        lab.names("snapshots")
    );
}

#[test]
fn a_manifest_that_lies_about_a_block() {
    let (lab, image) = Lab::with_object(20);
    let size = std::fs::metadata(&image).unwrap().len();
    let mut manifest = lab.manifest(&image, "app", None);
    manifest.blocks[1] = Digest([7; 32]);
    lab.put_manifest(&manifest, "app");
    lab.received();
    assert_refused(
        &lab,
        "damaged",
        &[
            "app.qcow2 is damaged",
            "1 of its 3 blocks of 8 MiB",
            "match its manifest: 1;",
        ],
    );
    // The block twice, and the rest once.
    lab.assert_fetched(size + BLOCK);
    // A good copy that is there is none the worse for it.
    std::fs::copy(&image, lab.snapshot_path("app")).unwrap();
    lab.snapdeck(&["pull", "app", "--overwrite"])
        .failed(1, &["match its manifest: 1;"]);
    lab.assert_pulled(&lab, "app", &image);
    lab.snapdeck(&["verify", "app", "--bucket"]).failed(
        1,
        &[
            "app.qcow2 is damaged",
            "1 of its 3 blocks of 8 MiB",
            "match its manifest: 1;",
        ],
    );
}

#[test]
fn a_manifest_that_is_of_no_such_image_is_as_none() {
    let (lab, image) = Lab::with_object(20);
    let good = lab.manifest(&image, "app", None);
    let json = String::from_utf8(good.write().unwrap()).unwrap();
    let size = format!("\"sizeBytes\":{}", good.size_bytes);
    let mut short = good.clone();
    short.size_bytes -= 1;
    let mut other = good.clone();
    other.etag = Some("\"of-another\"".into());
    let absurd = json.replace(&size, "\"sizeBytes\":18446744073709551615");
    for bad in [
        String::from_utf8(short.write().unwrap()).unwrap(),
        String::from_utf8(other.write().unwrap()).unwrap(),
        absurd,
        json.replace("\"blocks\":\"", "\"blocks\":\"AAAA"),
        json.replace('{', ""),
        "[".repeat(100_000),
    ] {
        lab.put_json(bad.as_bytes(), "app");
        lab.snapdeck(&["pull", "app"]).ok();
        lab.assert_pulled(&lab, "app", &image);
        std::fs::remove_file(lab.snapshot_path("app")).unwrap();
    }
}

#[test]
fn a_block_that_is_bad_once_is_fetched_again() {
    let (lab, image) = Lab::with_object(20);
    let size = std::fs::metadata(&image).unwrap().len();
    lab.received();
    lab.line.corrupt.store(1, SeqCst);
    lab.snapdeck(&["pull", "app"]).ok();
    assert_eq!(lab.line.corrupt.load(SeqCst), 0, "it was made bad");
    lab.assert_pulled(&lab, "app", &image);
    // Where the store's client does not notice it itself, halfway.
    assert!(lab.received() > size + BLOCK / 2);
}

#[test]
fn an_object_that_changes_meanwhile() {
    let (lab, image) = Lab::with_object(40);
    let child = lab.start_held(3 * BLOCK);
    lab.image(&image, 40);
    lab.put_with_manifest(&image, "app", None);
    lab.release();
    wait_for_exit(child).failed(1, &["changed while it was being downloaded"]);
    // Of the old one there is nothing to complete any more.
    assert!(
        lab.names("snapshots").is_empty(),
        "{:?}",
        lab.names("snapshots")
    );
    lab.snapdeck(&["pull", "app"]).ok();
    lab.assert_pulled(&lab, "app", &image);
}

#[test]
fn an_object_that_is_removed_meanwhile() {
    let (lab, _) = Lab::with_object(40);
    let child = lab.start_held(3 * BLOCK);
    let removed = lab.s5cmd(&["rm", "{}/app.qcow2"]);
    assert!(removed.status.success(), "{removed:?}");
    lab.release();
    wait_for_exit(child).failed(3, &["no such object"]);
    assert!(
        lab.names("snapshots").is_empty(),
        "{:?}",
        lab.names("snapshots")
    );
}

#[test]
fn an_object_that_was_cut_off() {
    let (lab, image) = Lab::with_object(20);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    file.set_len(12 * MIB).unwrap();
    lab.put(&image, "app");
    assert_refused(&lab, "damaged", &["qemu-img check failed"]);
    // Even where its manifest tells of no more.
    lab.put_with_manifest(&image, "app", None);
    assert_refused(&lab, "damaged", &["qemu-img check failed"]);
}

#[test]
fn an_image_that_names_other_files() {
    let lab = Lab::new(1);
    let image = lab.path("scratch/app.qcow2");
    let data = format!(
        "data_file={},data_file_raw=on",
        lab.path("scratch/data.raw")
    );
    for (option, word) in [
        (&["-u", "-b", "/etc/passwd", "-F", "raw"][..], "/etc/passwd"),
        (&["-o", &data], "external data file"),
    ] {
        let create = [&["create", "-q", "-f", "qcow2"], option, &[&image, "1M"]].concat();
        crate::common::run("qemu-img", &create);
        // Its manifest is right.
        lab.put_with_manifest(&image, "app", None);
        assert_refused(&lab, "damaged", &["cannot be used as a snapshot", word]);
    }
}

#[test]
fn a_directory_that_cannot_be_written() {
    let (lab, _) = Lab::with_object(3);
    let Some(disk) = lab.small_disk("snapshots", "44m") else {
        return;
    };
    disk.make_read_only();
    let ran = lab.snapdeck(&["pull", "app", "--json"]);
    ran.failed(1, &["Read-only file system", &lab.path("snapshots")]);
    assert!(lab.names("snapshots").is_empty());
}

#[test]
fn other_snapshots_with_bad_manifests_do_no_harm() {
    let (lab, image) = Lab::with_object(20);
    lab.put_with_manifest(&image, "base", None);
    lab.snapdeck(&["pull", "base"]).ok();
    let sum = sha256(&image);
    for bad in ["", "[]", "{\"format\":1}"] {
        std::fs::write(lab.path("snapshots/base.json"), bad).unwrap();
        let told = lab.snapdeck(&["pull", "app", "--json"]).ok().json();
        assert_eq!(bytes(&told, "copiedBytes"), 0);
        assert_eq!(sha256(&lab.snapshot_path("app")), sum);
        std::fs::remove_file(lab.snapshot_path("app")).unwrap();
    }
    assert!(exists(&lab.snapshot_path("base")));
}
