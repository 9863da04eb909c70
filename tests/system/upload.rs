//! Uploads of snapshots that a host has: the real program, QEMU and an S3 server. Results are checked with another S3
//! client.

mod continued;
mod direct;

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;

use crate::api::server::Api;
use crate::common::{
    Opener, State, World, exists, run, sha256, signal, stamp, wait_for_exit, wait_until,
};
use serde_json::{Value, json};
use snapdeck_model::BLOCK_BYTES;

const MIB: u64 = 1 << 20;
/// Size of the images in MiB: several parts.
const IMAGE: u32 = 40;

fn number(result: &Value, key: &str) -> u64 {
    result[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {result}"))
}

fn size(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn local_manifest(world: &World, name: &str) -> Value {
    let file = world.path(&format!("snapshots/{name}.json"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Asserts that nothing of a snapshot, and no unfinished upload, is in the bucket.
#[track_caller]
fn assert_not_in_bucket(world: &World, name: &str) {
    assert!(!world.is_in_bucket(name));
    let listed = world.s5cmd(&["ls", &format!("{{}}/{name}*")]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed, "");
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn an_uploaded_snapshot_is_the_same_wherever_it_is_pulled() {
    let world = World::hosts(2);
    let image = world.snapshot("golden", IMAGE);
    let variables = world.path("snapshots/golden_VARS.fd");
    std::fs::write(&variables, b"variables of the golden image").unwrap();
    let alpha = ["--host", "alpha"];
    let note = ["note", "golden", "for the fair", "--label", "os=2022"];
    world.snapdeck(&[&note[..], &alpha].concat()).ok();
    let before = stamp(&image);

    let upload = ["upload", "golden", "--json"];
    let result = world.snapdeck(&[&upload[..], &alpha].concat()).ok().json();
    assert_eq!(number(&result, "uploadedBytes"), size(&image), "{result}");
    assert_eq!(number(&result, "copiedBytes"), 0);
    assert_eq!(
        (&result["snapshotName"], &result["host"]),
        (&json!("golden"), &json!("alpha"))
    );
    assert_eq!(stamp(&image), before, "the file was written");
    assert_eq!(sha256(&world.get("golden")), sha256(&image));
    let unquoted = |tag: &Value| tag.as_str().unwrap().trim_matches('"').to_owned();
    let etag = world.etag("golden");
    for manifest in [world.manifest("golden"), local_manifest(&world, "golden")] {
        assert_eq!(
            unquoted(&manifest["etag"]),
            etag.trim_matches('"'),
            "{manifest}"
        );
        assert_eq!(manifest["notes"], "for the fair");
        assert_eq!(manifest["labels"]["os"], "2022");
        assert_eq!(manifest["virtualSize"], 1 << 30);
    }

    let pull = ["pull", "golden", "--host", "beta"];
    world.snapdeck(&pull).ok();
    let beta = &world.hosts[1];
    assert_eq!(sha256(&beta.snapshot_path("golden")), sha256(&image));
    let pulled = std::fs::read(beta.path("snapshots/golden_VARS.fd")).unwrap();
    assert_eq!(pulled, std::fs::read(&variables).unwrap());
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(beta.path("snapshots/golden.json")).unwrap())
            .unwrap();
    assert_eq!(manifest["notes"], "for the fair");
    for host in ["alpha", "beta"] {
        let kept = world
            .snapdeck(&["pull", "golden", "--json", "--host", host])
            .ok()
            .json();
        assert_eq!(
            (&kept["skipped"], &kept["differs"]),
            (&json!(true), &json!(false))
        );
        world.snapdeck(&["verify", "golden", "--host", host]).ok();
    }
    world.snapdeck(&["verify", "golden", "--bucket"]).ok();
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn an_object_is_replaced_only_if_that_is_wanted_and_it_is_not_pinned() {
    let world = World::new();
    let image = world.snapshot("golden", IMAGE);
    world.snapdeck(&["upload", "golden"]).ok();
    let etag = world.etag("golden");
    let refused = world.snapdeck(&["upload", "golden"]);
    refused.failed(4, &["already exists", "--overwrite"]);
    assert_eq!(world.etag("golden"), etag);

    // The object itself has all parts.
    let again = ["upload", "golden", "--overwrite", "--json"];
    let result = world.snapdeck(&again).ok().json();
    assert_eq!(number(&result, "copiedBytes"), size(&image), "{result}");
    assert_eq!(number(&result, "uploadedBytes"), 0);
    assert_eq!(sha256(&world.get("golden")), sha256(&image));

    world.snapdeck(&["pin", "golden"]).ok();
    world.snapdeck(&again).failed(4, &["pinned"]);
    world.snapdeck(&["verify", "golden", "--bucket"]).ok();
}

#[test]
fn a_new_version_sends_only_what_the_bucket_does_not_have() {
    let world = World::new();
    let old = world.snapshot("golden-v1", IMAGE);
    world.snapdeck(&["upload", "golden-v1"]).ok();
    let new = world.snapshot_path("golden-v2");
    std::fs::copy(&old, &new).unwrap();
    world.scribble(&new, 80, 1);
    let faults = world.use_proxy();
    let uploaded = world
        .snapdeck(&["-v", "upload", "golden-v2", "--json"])
        .ok();
    let result = uploaded.json();
    let sent = number(&result, "uploadedBytes");
    assert!((1..=2 * BLOCK_BYTES).contains(&sent), "{result}");
    assert_eq!(sent + number(&result, "copiedBytes"), size(&new));
    let passed = faults.sent.load(SeqCst);
    assert!(passed < sent + MIB, "{passed} in all: {result}");
    assert!(faults.copies.load(SeqCst) >= 3);
    assert!(
        uploaded.stderr.contains("golden-v1.qcow2 in the store"),
        "{uploaded:?}"
    );
    assert_eq!(sha256(&world.get("golden-v2")), sha256(&new));
    world.snapdeck(&["verify", "golden-v2", "--bucket"]).ok();
}

#[test]
fn a_store_without_part_copies_gets_all_bytes() {
    let world = World::new();
    let old = world.snapshot("golden-v1", IMAGE);
    world.snapdeck(&["upload", "golden-v1"]).ok();
    let new = world.snapshot_path("golden-v2");
    std::fs::copy(&old, &new).unwrap();
    let faults = world.use_proxy();
    faults.refuse_copies.store(true, SeqCst);
    let result = world
        .snapdeck(&["upload", "golden-v2", "--json"])
        .ok()
        .json();
    assert_eq!(number(&result, "copiedBytes"), 0);
    assert_eq!(number(&result, "uploadedBytes"), size(&new));
    assert_eq!(sha256(&world.get("golden-v2")), sha256(&new));
}

#[test]
fn an_object_that_is_replaced_during_the_upload_is_not_copied_from() {
    let world = World::new();
    let old = world.snapshot("golden-v1", IMAGE);
    world.snapdeck(&["upload", "golden-v1"]).ok();
    let new = world.snapshot_path("golden-v2");
    std::fs::copy(&old, &new).unwrap();
    world.scribble(&new, 80, 1);
    let (child, faults) = world.start_to_parts(&["upload", "golden-v2", "--json"]);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, IMAGE);
    world.put(&other, "golden-v1");
    faults.hold_parts.store(false, SeqCst);
    let result = wait_for_exit(child).ok().json();
    assert_eq!(number(&result, "copiedBytes"), 0, "{result}");
    assert_eq!(sha256(&world.get("golden-v2")), sha256(&new));
}

#[test]
fn lineage_is_kept_and_the_parent_is_copied_from() {
    let world = World::new();
    world.snapshot("base", IMAGE);
    world.snapdeck(&["upload", "base"]).ok();
    let id = world.sandbox("a", "base", State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let before = local_manifest(&world, "app");
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    let image = world.snapshot_path("app");
    let result = world.snapdeck(&["upload", "app", "--json"]).ok().json();
    assert!(
        number(&result, "copiedBytes") >= 3 * BLOCK_BYTES,
        "{result}"
    );
    assert_eq!(sha256(&world.get("app")), sha256(&image));
    let after = world.manifest("app");
    for key in [
        "created",
        "host",
        "sandbox",
        "parent",
        "consistency",
        "method",
        "blocks",
    ] {
        assert!(!before[key].is_null(), "{key}: {before}");
        assert_eq!(after[key], before[key], "{key}");
    }
}

#[test]
fn a_file_that_changes_during_the_upload_is_not_published() {
    let world = World::new();
    let image = world.snapshot("golden", IMAGE);
    let (child, faults) = world.start_to_parts(&["upload", "golden"]);
    // Over SSH the reader holds QEMU's lock, which keeps out qemu-io.
    set_byte(&image, 20 * MIB, |byte| !byte);
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(4, &["golden.qcow2 was changed while it was read"]);
    assert_not_in_bucket(&world, "golden");
}

#[test]
fn variables_that_change_during_the_upload_are_not_published() {
    let world = World::new();
    world.snapshot("golden", IMAGE);
    let variables = world.path("snapshots/golden_VARS.fd");
    std::fs::write(&variables, b"old").unwrap();
    let (child, faults) = world.start_to_parts(&["upload", "golden"]);
    std::fs::write(&variables, b"new").unwrap();
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(4, &["golden_VARS.fd was changed while it was read"]);
    assert_not_in_bucket(&world, "golden");
}

#[test]
fn a_file_of_which_only_the_owner_changes_is_published() {
    let world = World::new();
    let image = world.snapshot("golden", IMAGE);
    let (child, faults) = world.start_to_parts(&["upload", "golden", "--json"]);
    // As libvirt does when a sandbox on it starts.
    run("chmod", &["0640", &image]);
    run("chmod", &["0644", &image]);
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).ok();
    assert_eq!(sha256(&world.get("golden")), sha256(&image));
    world.snapdeck(&["verify", "golden"]).ok();
}

#[test]
fn a_killed_upload_publishes_nothing_and_can_be_repeated() {
    let world = World::new();
    let image = world.snapshot("golden", IMAGE);
    let (child, faults) = world.start_to_parts(&["upload", "golden"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    faults.hold_parts.store(false, SeqCst);
    assert!(!world.is_in_bucket("golden"));
    world.snapdeck(&["upload", "golden"]).ok();
    assert_eq!(sha256(&world.get("golden")), sha256(&image));
    world.snapdeck(&["verify", "golden", "--bucket"]).ok();
}

#[test]
fn a_cancelled_upload_leaves_nothing() {
    let world = World::new();
    world.snapshot("golden", IMAGE);
    let (child, faults) = world.start_to_parts(&["upload", "golden"]);
    signal(&child, "INT");
    faults.hold_parts.store(false, SeqCst);
    assert_eq!(wait_for_exit(child).code, Some(130));
    assert_not_in_bucket(&world, "golden");
}

#[test]
fn an_interrupted_upload_is_resumed_by_the_next_server() {
    let world = World::new();
    let image = world.snapshot("golden", IMAGE);
    let gate = world.gate("check");
    let api = Api::start(&world);
    api.begin("/snapshots/upload", &json!({"snapshot": "golden"}));
    gate.wait_reached();
    wait_until("the journal has the job", || {
        let entries = world.journal_entries();
        matches!(&entries[..], [entry] if !entry["target"].is_null())
    });
    api.signal("KILL");
    api.wait_for_exit();
    gate.open();
    let api = Api::start(&world);
    wait_until("the job is finished", || api.state(1) == "finished");
    assert_eq!(sha256(&world.get("golden")), sha256(&image));
}

#[test]
fn the_api_uploads_a_snapshot() {
    let world = World::new();
    let image = world.snapshot("golden", 1);
    let api = Api::start(&world);
    let body = json!({"snapshot": "golden"});
    let result = api.post("/snapshots/upload", &body).expect_status(200);
    assert_eq!(result["snapshotName"], "golden");
    assert!(
        result["snapshotPath"]
            .as_str()
            .unwrap()
            .ends_with("/golden.qcow2")
    );
    assert_eq!(number(&result, "sizeBytes"), size(&image));
    api.post("/snapshots/upload", &body).expect_status(409);
    let unknown = json!({"snapshot": "none"});
    api.post("/snapshots/upload", &unknown).expect_status(404);
}

/// Writes a byte of a file.
fn set_byte(path: &str, offset: u64, change: impl Fn(u8) -> u8) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[change(byte[0])], offset).unwrap();
}

#[test]
fn images_that_are_not_sound_snapshots_are_refused() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let overlay = world.snapshot_path("overlay");
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &overlay,
        ],
    );
    world
        .snapdeck(&["upload", "overlay"])
        .failed(1, &["backing file"]);

    // The incompatible features are the 8 bytes from 72 on, big-endian: bit 0 dirty, bit 1 corrupt.
    for (name, bit, word) in [
        ("dirty", 1, "not closed cleanly"),
        ("corrupt", 2, "marked corrupt"),
    ] {
        let image = world.snapshot(name, 1);
        set_byte(&image, 79, |byte| byte | bit);
        world.snapdeck(&["upload", name]).failed(1, &[word]);
    }

    std::fs::write(world.snapshot_path("text"), "no image").unwrap();
    world
        .snapdeck(&["upload", "text"])
        .failed(1, &["cannot be used as a snapshot"]);
    world
        .snapdeck(&["upload", "missing"])
        .failed(3, &["missing is not on host"]);
    for name in ["overlay", "dirty", "corrupt", "text", "missing"] {
        assert_not_in_bucket(&world, name);
    }

    let image = world.snapshot("used", 1);
    for opener in [Opener::shell(">>", &image), Opener::qemu_io(&[], &image)] {
        let refused = world.snapdeck(&["upload", "used"]);
        refused.failed(4, &["open for writing", opener.name]);
    }
    // The sandboxes on it only read it.
    world.sandbox("a", "used", State::Running);
    world.snapdeck(&["upload", "used"]).ok();
}

#[test]
fn a_snapshot_that_is_not_what_its_manifest_says_is_refused() {
    let world = World::new();
    let image = world.snapshot("golden", IMAGE);
    std::fs::write(world.path("snapshots/golden_VARS.fd"), b"variables").unwrap();
    world.snapdeck(&["upload", "golden"]).ok();
    world.snapdeck(&["remove", "golden", "--bucket"]).ok();

    let moved = world.path("scratch/vars");
    std::fs::rename(world.path("snapshots/golden_VARS.fd"), &moved).unwrap();
    world
        .snapdeck(&["upload", "golden"])
        .failed(1, &["UEFI variables", "missing"]);
    std::fs::rename(&moved, world.path("snapshots/golden_VARS.fd")).unwrap();

    // A block whose file has kept its stamp.
    let modified = std::fs::metadata(&image).unwrap().modified().unwrap();
    set_byte(&image, 20 * MIB, |byte| !byte);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    file.set_times(std::fs::FileTimes::new().set_modified(modified))
        .unwrap();
    drop(file);
    world
        .snapdeck(&["upload", "golden"])
        .failed(1, &["do not match its manifest: 2"]);
    assert_not_in_bucket(&world, "golden");

    set_byte(&image, 20 * MIB, |byte| !byte);
    world.snapdeck(&["upload", "golden"]).ok();
    assert_eq!(sha256(&world.get("golden")), sha256(&image));
}

#[test]
fn blocks_of_zeros_are_uploaded_as_they_are() {
    let world = World::new();
    let image = world.snapshot_path("sparse");
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "preallocation=metadata",
            &image,
            "64M",
        ],
    );
    world.scribble(&image, 40, 1);
    let allocated = {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&image).unwrap().blocks() * 512
    };
    assert!(allocated < 8 * MIB && size(&image) > 64 * MIB);
    world.snapdeck(&["upload", "sparse"]).ok();
    assert_eq!(sha256(&world.get("sparse")), sha256(&image));
    assert!(exists(&world.path("snapshots/sparse.json")));
    world.snapdeck(&["verify", "sparse", "--bucket"]).ok();
}
