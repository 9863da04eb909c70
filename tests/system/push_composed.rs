//! Objects composed of the base image and the changes of the overlay: the real program, libvirt with QEMU and S3
//! servers; results are checked with another S3 client and qemu-img. `make test` starts the lab.

use std::sync::atomic::Ordering::SeqCst;

use crate::common::{
    CommandOutput, State, World, in_background, run, same_disk, signal, stores, wait_for_exit,
    wait_until,
};
use serde_json::{Value, json};
use snapdeck_model::{BLOCK_BYTES, Digest, Manifest};

const MIB: u64 = 1 << 20;
/// Size of the base in MiB: several parts.
const BASE: u32 = 40;
/// Data of the overlay in bytes, as `Host::sandbox` writes it.
const OVERLAY: u64 = 2 * MIB;

/// Creates an environment with a sandbox based on a snapshot that was pulled from the bucket.
fn with_pulled_base(state: State) -> (World, String) {
    let world = World::new();
    let image = world.path("scratch/base.qcow2");
    world.image(&image, BASE);
    world.put(&image, "base");
    world.snapdeck(&["pull", "base"]).ok();
    let id = world.sandbox("a", "base", state);
    (world, id)
}

/// Asserts that an object is an intact image with the contents of `disk`, and that its manifest matches.
#[track_caller]
fn assert_object_is(world: &World, name: &str, disk: &str) -> Manifest {
    let file = world.get(name);
    run("qemu-img", &["check", "-q", "-f", "qcow2", &file]);
    assert!(same_disk(&file, disk), "{name} differs from {disk}");
    let manifest = manifest(world, name).expect("a manifest");
    let bytes = std::fs::read(&file).unwrap();
    let digests: Vec<Digest> = bytes
        .chunks(BLOCK_BYTES as usize)
        .map(snapdeck_host::hash_block)
        .collect();
    assert_eq!(manifest.size_bytes, bytes.len() as u64);
    assert!(manifest.blocks == digests, "{name}");
    assert_eq!(manifest.virtual_size, Some(1 << 30));
    let unquoted = |tag: &str| tag.trim_matches('"').to_owned();
    assert_eq!(
        manifest.etag.as_deref().map(unquoted),
        Some(unquoted(&world.etag(name)))
    );
    std::fs::remove_file(file).unwrap();
    manifest
}

fn manifest(world: &World, name: &str) -> Option<Manifest> {
    let file = world.path("scratch/manifest.json");
    let copied = world.s5cmd(&["cp", &format!("{{}}/{name}.json"), &file]);
    copied
        .status
        .success()
        .then(|| Manifest::read(&std::fs::read(file).unwrap()).unwrap())
}

#[track_caller]
fn assert_no_temporary_files(world: &World) {
    assert!(world.names("temp").is_empty(), "{:?}", world.names("temp"));
    assert_eq!(world.uploads(), "[]");
}

fn number(result: &Value, key: &str) -> u64 {
    result[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {result}"))
}

/// Asserts that only the data of the overlay, tables, and parts with both were uploaded.
#[track_caller]
fn assert_incremental(result: &Value) {
    let (sent, size) = (number(result, "uploadedBytes"), number(result, "sizeBytes"));
    let tables = MIB;
    let max_bytes = OVERLAY * 102 / 100 + 8 * MIB + tables;
    // The part with the header, and the one in which appended data begins.
    assert!(sent <= max_bytes + 8 * MIB, "{result}");
    assert_eq!(sent + number(result, "copiedBytes"), size, "{result}");
    assert!(number(result, "savedBytes") >= number(result, "copiedBytes"));
    assert_eq!(result["method"], "append");
}

#[test]
fn a_push_uploads_only_changes_in_every_generation() {
    let (world, id) = with_pulled_base(State::Off);
    let faults = world.use_proxy();
    let result = world.snapdeck(&["push", &id, "one", "--json"]).ok().json();
    assert_incremental(&result);
    assert!(
        faults.copies.load(SeqCst) >= 3,
        "parts of the base were not copied"
    );
    let sent = faults.sent.load(SeqCst);
    assert!(
        sent < number(&result, "uploadedBytes") + MIB,
        "{sent} in all: {result}"
    );
    let one = assert_object_is(&world, "one", &world.disk("a"));
    assert_eq!(
        one.parent.map(|parent| parent.name.to_string()).as_deref(),
        Some("base")
    );
    let written = json!(one.consistency);
    assert_eq!(written, "crash-consistent", "it has never run");

    world.snapdeck(&["pull", "one"]).ok();
    let id = world.sandbox("b", "one", State::Paused);
    let copies = faults.copies.load(SeqCst);
    let result = world
        .snapdeck(&["create", &id, "two", "--json"])
        .ok()
        .json();
    assert_incremental(&result);
    assert!(faults.copies.load(SeqCst) >= copies + 3);
    let two = assert_object_is(&world, "two", &world.disk("b"));
    assert_eq!(json!(two.consistency), "crash-consistent");
    assert_eq!(world.state(&id), "paused");
    assert_no_temporary_files(&world);
}

#[test]
fn without_the_base_in_the_bucket_its_bytes_are_uploaded() {
    let world = World::new();
    world.snapshot("base", BASE);
    let id = world.sandbox("a", "base", State::Off);
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    let result = ran.json();
    assert_eq!(result["method"], "append");
    assert_eq!(result["copiedBytes"], 0);
    assert_eq!(result["uploadedBytes"], result["sizeBytes"]);
    assert!(ran.stderr.contains("base is not in s3://"), "{ran:?}");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_no_temporary_files(&world);
}

#[test]
fn a_small_base_is_uploaded_in_one_part() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    assert_object_is(&world, "app", &world.disk("a"));
}

#[test]
fn a_store_without_part_copies_gets_all_bytes() {
    let (world, id) = with_pulled_base(State::Off);
    let faults = world.use_proxy();
    faults.refuse_copies.store(true, SeqCst);
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    assert_eq!(ran.json()["copiedBytes"], 0);
    assert!(ran.stderr.contains("did not copy"), "{ran:?}");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_no_temporary_files(&world);
}

/// Pushes and asserts that the store copied no bytes of the base.
#[track_caller]
fn assert_not_copied(world: &World, id: &str) -> CommandOutput {
    let ran = world.snapdeck(&["-v", "push", id, "app", "--json"]).ok();
    assert_eq!(ran.json()["copiedBytes"], 0, "{ran:?}");
    assert_object_is(world, "app", &world.disk("a"));
    ran
}

#[test]
fn a_replaced_base_object_is_not_copied() {
    let (world, id) = with_pulled_base(State::Off);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, BASE);
    world.put(&other, "base");
    let ran = assert_not_copied(&world, &id);
    assert!(ran.stderr.contains("is a different image"), "{ran:?}");
}

#[test]
fn a_base_object_replaced_during_the_push_is_not_copied() {
    let (world, id) = with_pulled_base(State::Off);
    let (child, faults) = world.start_to_parts(&["push", &id, "app", "--json"]);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, BASE);
    world.put(&other, "base");
    faults.hold_parts.store(false, SeqCst);
    let result = wait_for_exit(child).ok().json();
    assert_eq!(result["copiedBytes"], 0);
    assert_object_is(&world, "app", &world.disk("a"));
}

#[test]
fn a_base_written_after_its_manifest_is_not_copied() {
    let (world, id) = with_pulled_base(State::Off);
    world.scribble(&world.snapshot_path("base"), 70, 1);
    assert_not_copied(&world, &id);
}

#[test]
fn wrong_manifests_are_ignored() {
    let (world, id) = with_pulled_base(State::Off);
    let file = world.path("snapshots/base.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let manifest = Manifest::read(good.as_bytes()).unwrap();

    std::fs::write(&file, "not a manifest").unwrap();
    assert_not_copied(&world, &id);

    // The manifest of the object has other digests.
    std::fs::write(&file, &good).unwrap();
    let mut other = manifest.clone();
    other.blocks[1] = Digest([0; 32]);
    let other_file = world.path("scratch/other.json");
    std::fs::write(&other_file, other.write().unwrap()).unwrap();
    let put = world.s5cmd(&["cp", &other_file, "{}/base.json"]);
    assert!(put.status.success(), "{put:?}");
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    assert!(ran.stderr.contains("has other digests"), "{ran:?}");
    // All but the head, the wrong block, and the part in which the tail begins.
    let copied = (u64::from(BASE) * MIB / BLOCK_BYTES - 2) * BLOCK_BYTES;
    assert!(number(&ran.json(), "copiedBytes") <= copied, "{ran:?}");
    assert_object_is(&world, "app", &world.disk("a"));
}

#[test]
fn plan_describes_a_push_without_uploading() {
    let (world, id) = with_pulled_base(State::Off);
    let plan = |more: &[&str]| {
        let args = [&["push", &id, "app", "--plan", "--json"], more].concat();
        world.snapdeck(&args).ok().json()
    };
    let result = plan(&[]);
    assert_eq!(result["method"], "append");
    assert_eq!(
        (&result["base"], &result["baseInBucket"]),
        (&json!("base"), &json!(true))
    );
    assert_eq!(result["exists"], false);
    let compact = plan(&["--compact"]);
    assert_eq!(compact["method"], "compact");
    assert_eq!(compact["copyBytes"], 0);
    assert!(!world.is_in_bucket("app"));
    assert_no_temporary_files(&world);

    let pushed = world.snapdeck(&["push", &id, "app", "--json"]).ok().json();
    assert_eq!(pushed["copiedBytes"], result["copyBytes"]);
    assert!(number(&pushed, "uploadedBytes") <= number(&result, "uploadBytes"));
    assert_eq!(plan(&[])["exists"], true);
    let text = world.snapdeck(&["push", &id, "app", "--plan"]).ok().stdout;
    assert!(text.contains("pass --overwrite"), "{text}");

    world.virsh(&["start", &id]);
    let refused = world.snapdeck(&["push", &id, "app", "--plan"]);
    refused.failed(4, &["must be stopped or paused"]);
}

#[test]
fn compacting_omits_replaced_clusters() {
    let (world, id) = with_pulled_base(State::Off);
    // Half of the data of the base.
    world.scribble(&world.disk("a"), 64, 20);
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    assert_eq!(
        ran.json()["method"],
        "compact",
        "not compacted with a quarter of the base replaced"
    );
    assert!(
        ran.stderr.contains("of the base is deleted data"),
        "{ran:?}"
    );
    assert_object_is(&world, "app", &world.disk("a"));
    let compacted = world
        .snapdeck(&["push", &id, "compacted", "--compact", "--json"])
        .ok()
        .json();
    assert_eq!(compacted["method"], "compact");
    assert!(number(&compacted, "sizeBytes") < 44 * MIB, "{compacted}");
    assert_object_is(&world, "compacted", &world.disk("a"));
    // The next push is composed on it.
    let next = world.snapdeck(&["push", &id, "next", "--json"]).ok().json();
    assert_eq!(next["method"], "append");
    assert!(number(&next, "uploadedBytes") < 20 * MIB, "{next}");
    assert_object_is(&world, "next", &world.disk("a"));
    assert_no_temporary_files(&world);
}

#[test]
fn compression_is_used_when_configured() {
    let (world, id) = with_pulled_base(State::Off);
    let text = world.path("scratch/text");
    std::fs::write(&text, "a line of text\n".repeat(1 << 18)).unwrap();
    let write = format!("write -q -s {text} 200M 3M");
    let other = world.sandbox("b", "base", State::Off);
    for disk in [world.disk("a"), world.disk("b")] {
        run("qemu-io", &["-f", "qcow2", "-c", &write, &disk]);
    }
    let plain = world
        .snapdeck(&["push", &id, "plain", "--json"])
        .ok()
        .json();
    world.reconfigure("[bucket]", "[push]\ncompression = \"zstd\"\n[bucket]");
    let packed = world
        .snapdeck(&["push", &other, "packed", "--json"])
        .ok()
        .json();
    let gain = number(&plain, "sizeBytes") - number(&packed, "sizeBytes");
    assert!(gain > 2 * MIB, "{gain}");
    assert_object_is(&world, "packed", &world.disk("b"));
}

#[test]
fn an_image_that_cannot_be_composed_is_converted_with_a_reason() {
    let world = World::new();
    let base = world.snapshot("base", 2);
    run("qemu-img", &["snapshot", "-c", "inside", &base]);
    let id = world.sandbox("a", "base", State::Off);
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "convert");
    assert!(ran.stderr.contains("internal snapshots"), "{ran:?}");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_no_temporary_files(&world);
}

#[test]
fn a_raw_base_is_not_read_as_qcow2() {
    let world = World::new();
    let base = world.snapshot("base", 2);
    let id = world.id("a");
    let disk = world.disk("a");
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &disk,
        ],
    );
    world.define(&id, &disk);
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "convert");
    assert!(ran.stderr.contains("\"raw\""), "{ran:?}");
    let file = world.get("app");
    assert!(same_disk(&file, &disk));
}

#[test]
fn a_cancelled_or_killed_push_publishes_nothing() {
    let (world, id) = with_pulled_base(State::Paused);
    let (child, _line) = world.start_to_parts(&["push", &id, "app"]);
    signal(&child, "INT");
    wait_for_exit(child).failed(130, &["was cancelled"]);
    assert!(!world.is_in_bucket("app"));
    assert!(manifest(&world, "app").is_none());
    assert_no_temporary_files(&world);

    let child = world.start(&["push", &id, "app"]);
    wait_until("a part is being uploaded", || world.uploads() != "[]");
    signal(&child, "KILL");
    wait_for_exit(child);
    assert!(!world.is_in_bucket("app"));
    assert!(world.names("temp").is_empty());
    assert_eq!(world.state(&id), "paused");
}

#[test]
fn s3s_fs_accepts_composed_objects() {
    let lab = in_background(stores::s3s_fs());
    let world = World::new();
    world.snapshot("base", BASE);
    let id = world.sandbox("a", "base", State::Off);
    let settings = &lab.settings;
    let keys = settings.credentials.as_ref().unwrap();
    for (key, variable, value) in [
        (
            "name",
            "SNAPDECK_LAB_BUCKET",
            settings.name.as_ref().unwrap(),
        ),
        (
            "endpoint",
            "SNAPDECK_LAB_S3",
            settings.endpoint.as_ref().unwrap(),
        ),
        ("access_key_id", "SNAPDECK_LAB_S3_KEY", &keys.access_key_id),
        (
            "secret_access_key",
            "SNAPDECK_LAB_S3_SECRET",
            &keys.secret_access_key,
        ),
    ] {
        let current = format!("{key} = \"{}\"", crate::common::lab(variable));
        world.reconfigure(&current, &format!("{key} = \"{value}\""));
    }
    world.snapdeck(&["push", &id, "one"]).ok();
    world.snapdeck(&["pull", "one"]).ok();
    let id = world.sandbox("b", "one", State::Off);
    let result = world.snapdeck(&["push", &id, "two", "--json"]).ok().json();
    assert_incremental(&result);
    world.snapdeck(&["pull", "two"]).ok();
    assert!(same_disk(&world.snapshot_path("two"), &world.disk("b")));
    let leftovers = in_background(async move { lab.leftovers().await });
    assert_eq!(leftovers, [""; 0]);
}

#[test]
fn memory_is_small_for_a_large_disk() {
    let world = World::new();
    let base = world.snapshot_path("base");
    run("qemu-img", &["create", "-q", "-f", "qcow2", &base, "40G"]);
    let write = |disk: &str, at: u32| {
        // Spread over the disk, so that there are many L2 tables.
        let commands = (0..80).map(|gap| format!("write -q -P 7 {}M 2M", gap * 500 + at));
        let args: Vec<String> = commands
            .flat_map(|write| ["-c".to_owned(), write])
            .collect();
        let mut arguments = vec!["-f", "qcow2"];
        arguments.extend(args.iter().map(String::as_str));
        arguments.push(disk);
        run("qemu-io", &arguments);
    };
    write(&base, 10);
    let id = world.sandbox("a", "base", State::Off);
    write(&world.disk("a"), 20);
    let child = world.start(&["push", &id, "app", "--json"]);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    wait_until("the push has ended", || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        // Without the pages of the program file, which is large in a debug build.
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let now = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        peak = now.unwrap_or(0).max(peak);
        // A process that has ended has no such line.
        now.is_none()
    });
    let result = wait_for_exit(child).ok().json();
    assert!(number(&result, "uploadedBytes") > 300 * MIB, "{result}");
    assert!((1..128 * 1024).contains(&peak), "{peak} KiB");
    assert!(same_disk(&world.get("app"), &world.disk("a")));
}

#[test]
fn a_base_whose_modification_time_was_put_back_is_not_copied() {
    use std::os::unix::fs::FileExt;
    let (world, id) = with_pulled_base(State::Off);
    let path = world.snapshot_path("base");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 20 << 20).unwrap();
    file.write_all_at(&[!byte[0]], 20 << 20).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let ran = world.snapdeck(&["push", &id, "next"]).ok();
    assert!(
        ran.stderr.contains("are not those of its manifest"),
        "{ran:?}"
    );
    assert_object_is(&world, "next", &world.disk("a"));
}

#[test]
fn a_base_of_which_only_the_owner_changed_is_hashed_and_copied() {
    let (world, id) = with_pulled_base(State::Off);
    let path = world.snapshot_path("base");
    run("chmod", &["600", &path]);
    let push = ["push", &id, "next", "--json"];
    let result = world.snapdeck(&push).ok().json();
    assert!(result["copiedBytes"].as_u64().unwrap() > 0, "{result}");
    // It is trusted again.
    let plan = world.snapdeck(&["push", &id, "other", "--plan", "--json"]);
    assert_eq!(plan.ok().json()["baseInBucket"], true);
}
