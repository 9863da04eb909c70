//! Objects composed of the base's bytes and what the overlay changed: the real binary, real libvirt with QEMU, real S3
//! servers, and another S3 client and qemu-img as judges. `make test` starts what they need.
#[allow(dead_code)]
use crate::common::stores;

use std::sync::atomic::Ordering::SeqCst;

use crate::common::{Ran, State, World, ended, in_background, run, same_disk, signal, until};
use serde_json::{Value, json};
use snapdeck_model::{BLOCK_BYTES, Digest, Manifest};

const MIB: u64 = 1 << 20;
/// Of the base: several parts.
const BASE: u32 = 40;
/// Of the overlay's data, as `World::sandbox` makes it.
const OVERLAY: u64 = 2 * MIB;

/// A world with a sandbox on a base that was pulled from the bucket.
fn pulled(state: State) -> (World, String) {
    let world = World::new();
    let image = world.path("scratch/base.qcow2");
    world.image(&image, BASE);
    world.put(&image, "base");
    world.snapdeck(&["pull", "base"]).ok();
    let id = world.sandbox("a", "base", state);
    (world, id)
}

/// The object is a sound image with the disk of `disk`, and its manifest is true.
#[track_caller]
fn assert_object_is(world: &World, name: &str, disk: &str) -> Manifest {
    let got = world.get(name);
    run("qemu-img", &["check", "-q", "-f", "qcow2", &got]);
    assert!(same_disk(&got, disk), "{name} is another disk than {disk}");
    let manifest = manifest(world, name).expect("a manifest");
    let bytes = std::fs::read(&got).unwrap();
    let digests: Vec<Digest> = bytes
        .chunks(BLOCK_BYTES as usize)
        .map(snapdeck_host::hash_block)
        .collect();
    assert_eq!(manifest.size_bytes, bytes.len() as u64);
    assert!(manifest.blocks == digests, "{name}");
    assert_eq!(manifest.virtual_size, Some(1 << 30));
    let bare = |tag: &str| tag.trim_matches('"').to_owned();
    assert_eq!(
        manifest.etag.as_deref().map(bare),
        Some(bare(&world.etag(name)))
    );
    std::fs::remove_file(got).unwrap();
    manifest
}

fn manifest(world: &World, name: &str) -> Option<Manifest> {
    let file = world.path("scratch/manifest.json");
    let got = world.s5cmd(&["cp", &format!("{{}}/{name}.json"), &file]);
    got.status
        .success()
        .then(|| Manifest::read(&std::fs::read(file).unwrap()).unwrap())
}

#[track_caller]
fn assert_nothing_left(world: &World) {
    assert!(world.names("temp").is_empty(), "{:?}", world.names("temp"));
    assert_eq!(world.uploads(), "[]");
}

fn number(told: &Value, key: &str) -> u64 {
    told[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {told}"))
}

/// What was sent is the overlay's data, the tables, and the parts at the seams.
#[track_caller]
fn assert_cheap(told: &Value) {
    let (sent, size) = (number(told, "uploadedBytes"), number(told, "sizeBytes"));
    let tables = MIB;
    let most = OVERLAY * 102 / 100 + 8 * MIB + tables;
    // The head's part, and the one in which the tail begins.
    assert!(sent <= most + 8 * MIB, "{told}");
    assert_eq!(sent + number(told, "copiedBytes"), size, "{told}");
    assert!(number(told, "savedBytes") >= number(told, "copiedBytes"));
    assert_eq!(told["method"], "append");
}

#[test]
fn a_push_costs_what_changed_also_in_the_next_generation() {
    let (world, id) = pulled(State::Off);
    let line = world.detour();
    let told = world.snapdeck(&["push", &id, "one", "--json"]).ok().json();
    assert_cheap(&told);
    assert!(
        line.copies.load(SeqCst) >= 3,
        "parts of the base were copied"
    );
    let sent = line.sent.load(SeqCst);
    assert!(
        sent < number(&told, "uploadedBytes") + MIB,
        "{sent} in all: {told}"
    );
    let one = assert_object_is(&world, "one", &world.disk("a"));
    assert_eq!(
        one.parent.map(|parent| parent.name.to_string()).as_deref(),
        Some("base")
    );
    let written = json!(one.consistency);
    assert_eq!(written, "clean-shutdown");

    world.snapdeck(&["pull", "one"]).ok();
    let id = world.sandbox("b", "one", State::Paused);
    let copies = line.copies.load(SeqCst);
    let told = world
        .snapdeck(&["create", &id, "two", "--json"])
        .ok()
        .json();
    assert_cheap(&told);
    assert!(line.copies.load(SeqCst) >= copies + 3);
    let two = assert_object_is(&world, "two", &world.disk("b"));
    assert_eq!(json!(two.consistency), "crash-consistent");
    assert_eq!(world.state(&id), "paused");
    assert_nothing_left(&world);
}

#[test]
fn without_the_base_in_the_bucket_its_bytes_are_uploaded() {
    let world = World::new();
    world.snapshot("base", BASE);
    let id = world.sandbox("a", "base", State::Off);
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    let told = ran.json();
    assert_eq!(told["method"], "append");
    assert_eq!(told["copiedBytes"], 0);
    assert_eq!(told["uploadedBytes"], told["sizeBytes"]);
    assert!(ran.stderr.contains("base has no manifest"), "{ran:?}");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_nothing_left(&world);
}

#[test]
fn a_small_base_is_one_part_with_all_the_rest() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    assert_object_is(&world, "app", &world.disk("a"));
}

#[test]
fn where_the_store_copies_nothing_it_is_only_slower() {
    let (world, id) = pulled(State::Off);
    let line = world.detour();
    line.refuse_copies.store(true, SeqCst);
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    assert_eq!(ran.json()["copiedBytes"], 0);
    assert!(ran.stderr.contains("did not copy"), "{ran:?}");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_nothing_left(&world);
}

/// A push after which none of the base's bytes in the object are the store's copies.
#[track_caller]
fn assert_not_copied(world: &World, id: &str) -> Ran {
    let ran = world.snapdeck(&["-v", "push", id, "app", "--json"]).ok();
    assert_eq!(ran.json()["copiedBytes"], 0, "{ran:?}");
    assert_object_is(world, "app", &world.disk("a"));
    ran
}

#[test]
fn a_base_object_that_is_another_one_now_is_not_copied() {
    let (world, id) = pulled(State::Off);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, BASE);
    world.put(&other, "base");
    let ran = assert_not_copied(&world, &id);
    assert!(ran.stderr.contains("is another image"), "{ran:?}");
}

#[test]
fn a_base_object_replaced_in_the_middle_is_not_copied() {
    let (world, id) = pulled(State::Off);
    let (child, line) = world.start_to_parts(&["push", &id, "app", "--json"]);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, BASE);
    world.put(&other, "base");
    line.hold_parts.store(false, SeqCst);
    let told = ended(child).ok().json();
    assert_eq!(told["copiedBytes"], 0);
    assert_object_is(&world, "app", &world.disk("a"));
}

#[test]
fn a_base_that_was_written_since_its_manifest_is_not_taken_for_the_object() {
    let (world, id) = pulled(State::Off);
    world.scribble(&world.snapshot_path("base"), 70, 1);
    assert_not_copied(&world, &id);
}

#[test]
fn manifests_that_lie_are_ignored() {
    let (world, id) = pulled(State::Off);
    let file = world.path("snapshots/base.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let manifest = Manifest::read(good.as_bytes()).unwrap();

    std::fs::write(&file, "no manifest").unwrap();
    assert_not_copied(&world, &id);

    // The object's own says that it is something else.
    std::fs::write(&file, &good).unwrap();
    let mut other = manifest.clone();
    other.blocks[1] = Digest([0; 32]);
    let theirs = world.path("scratch/theirs.json");
    std::fs::write(&theirs, other.write().unwrap()).unwrap();
    let put = world.s5cmd(&["cp", &theirs, "{}/base.json"]);
    assert!(put.status.success(), "{put:?}");
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    let ran = assert_not_copied(&world, &id);
    assert!(ran.stderr.contains("has other digests"), "{ran:?}");
}

#[test]
fn the_plan_says_what_a_push_would_do_and_moves_nothing() {
    let (world, id) = pulled(State::Off);
    let plan = |more: &[&str]| {
        let args = [&["push", &id, "app", "--plan", "--json"], more].concat();
        world.snapdeck(&args).ok().json()
    };
    let told = plan(&[]);
    assert_eq!(told["method"], "append");
    assert_eq!(
        (&told["base"], &told["baseInBucket"]),
        (&json!("base"), &json!(true))
    );
    assert_eq!(told["exists"], false);
    let compact = plan(&["--compact"]);
    assert_eq!(compact["method"], "compact");
    assert_eq!(compact["copyBytes"], 0);
    assert!(!world.is_in_bucket("app"));
    assert_nothing_left(&world);

    let pushed = world.snapdeck(&["push", &id, "app", "--json"]).ok().json();
    assert_eq!(pushed["copiedBytes"], told["copyBytes"]);
    assert!(number(&pushed, "uploadedBytes") <= number(&told, "uploadBytes"));
    assert_eq!(plan(&[])["exists"], true);
    let text = world.snapdeck(&["push", &id, "app", "--plan"]).ok().stdout;
    assert!(text.contains("needs --overwrite"), "{text}");

    world.virsh(&["start", &id]);
    let refused = world.snapdeck(&["push", &id, "app", "--plan"]);
    refused.failed(4, &["must be stopped or paused"]);
}

#[test]
fn compacting_leaves_out_what_was_replaced() {
    let (world, id) = pulled(State::Off);
    // Over half of what the base has.
    world.scribble(&world.disk("a"), 64, 20);
    let asked = world
        .snapdeck(&["push", &id, "asked", "--compact", "--json"])
        .ok()
        .json();
    assert_eq!(asked["method"], "compact");
    assert!(number(&asked, "sizeBytes") < 44 * MIB, "{asked}");
    assert_object_is(&world, "asked", &world.disk("a"));
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "compact", "past a quarter by itself");
    assert!(ran.stderr.contains("of the base is dead"), "{ran:?}");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_nothing_left(&world);
}

#[test]
fn compression_is_had_where_it_is_set() {
    let (world, id) = pulled(State::Off);
    let text = world.path("scratch/text");
    std::fs::write(&text, "a line of text\n".repeat(1 << 18)).unwrap();
    let write = format!("write -q -s {text} 200M 3M");
    run("qemu-io", &["-f", "qcow2", "-c", &write, &world.disk("a")]);
    let plain = world
        .snapdeck(&["push", &id, "plain", "--json"])
        .ok()
        .json();
    world.reconfigure("[bucket]", "[push]\ncompression = \"zstd\"\n[bucket]");
    let packed = world
        .snapdeck(&["push", &id, "packed", "--json"])
        .ok()
        .json();
    let gain = number(&plain, "sizeBytes") - number(&packed, "sizeBytes");
    assert!(gain > 2 * MIB, "{gain}");
    assert_object_is(&world, "packed", &world.disk("a"));
}

#[test]
fn what_cannot_be_composed_is_converted_and_why_is_told() {
    let world = World::new();
    let base = world.snapshot("base", 2);
    run("qemu-img", &["snapshot", "-c", "inside", &base]);
    let id = world.sandbox("a", "base", State::Off);
    let ran = world.snapdeck(&["-v", "push", &id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "convert");
    assert!(ran.stderr.contains("internal snapshots"), "{ran:?}");
    assert_object_is(&world, "app", &world.disk("a"));
    assert_nothing_left(&world);
}

#[test]
fn a_base_that_is_to_be_read_byte_by_byte_is_not_taken_for_qcow2() {
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
    let got = world.get("app");
    assert!(same_disk(&got, &disk));
}

#[test]
fn cancelled_or_killed_in_the_middle_nothing_is_published() {
    let (world, id) = pulled(State::Paused);
    let (child, _line) = world.start_to_parts(&["push", &id, "app"]);
    signal(&child, "INT");
    ended(child).failed(130, &["was cancelled"]);
    assert!(!world.is_in_bucket("app"));
    assert!(manifest(&world, "app").is_none());
    assert_nothing_left(&world);

    let child = world.start(&["push", &id, "app"]);
    until("a part is on its way", || world.uploads() != "[]");
    signal(&child, "KILL");
    ended(child);
    assert!(!world.is_in_bucket("app"));
    assert!(world.names("temp").is_empty());
    assert_eq!(world.state(&id), "paused");
}

#[test]
fn a_store_in_one_process_with_files_takes_composed_objects_too() {
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
        let was = format!("{key} = \"{}\"", crate::common::lab(variable));
        world.reconfigure(&was, &format!("{key} = \"{value}\""));
    }
    world.snapdeck(&["push", &id, "one"]).ok();
    world.snapdeck(&["pull", "one"]).ok();
    let id = world.sandbox("b", "one", State::Off);
    let told = world.snapdeck(&["push", &id, "two", "--json"]).ok().json();
    assert_cheap(&told);
    world.snapdeck(&["pull", "two"]).ok();
    assert!(same_disk(&world.snapshot_path("two"), &world.disk("b")));
    let left = in_background(async move { lab.leftovers().await });
    assert_eq!(left, [""; 0]);
}

#[test]
fn memory_stays_small_however_large_the_disk() {
    let world = World::new();
    let base = world.snapshot_path("base");
    run("qemu-img", &["create", "-q", "-f", "qcow2", &base, "40G"]);
    let write = |disk: &str, at: u32| {
        // Something everywhere, so that there are tables everywhere.
        let commands = (0..80).map(|gap| format!("write -q -P 7 {}M 2M", gap * 500 + at));
        let args: Vec<String> = commands
            .flat_map(|write| ["-c".to_owned(), write])
            .collect();
        let mut words = vec!["-f", "qcow2"];
        words.extend(args.iter().map(String::as_str));
        words.push(disk);
        run("qemu-io", &words);
    };
    write(&base, 10);
    let id = world.sandbox("a", "base", State::Off);
    write(&world.disk("a"), 20);
    let child = world.start(&["push", &id, "app", "--json"]);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    until("it is over", || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        // Without the pages of the program itself, which are many in a debug build.
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let now = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        peak = now.unwrap_or(0).max(peak);
        // One that has ended has no memory.
        now.is_none()
    });
    let told = ended(child).ok().json();
    assert!(number(&told, "uploadedBytes") > 300 * MIB, "{told}");
    assert!((1..128 * 1024).contains(&peak), "{peak} KiB");
    assert!(same_disk(&world.get("app"), &world.disk("a")));
}
