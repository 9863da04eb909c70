//! Images that snapdeck did not write: their digests are recorded, and pushes copy what the bucket has of them. Real
//! libvirt, sshd and S3; files are uploaded by another S3 client.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::common::hostile::{Answer, Body, HostileStore, page};
use crate::common::{
    CommandOutput, Direction, Opener, State, World, exists, lab, run, same_disk, sha256, signal,
    wait_for_exit_within, wait_until,
};
use serde_json::{Value, json};
use snapdeck_model::{BLOCK_BYTES, Digest, Manifest};

const MIB: u64 = 1 << 20;
/// Size of the base in MiB: several blocks and parts.
const BASE: u32 = 40;
/// Data of the overlay, and the parts of 8 MiB with its beginning and with the header.
const MAX_SENT: u64 = 2 * MIB + 3 * 8 * MIB;

fn digests(file: &str) -> Vec<Digest> {
    let bytes = std::fs::read(file).unwrap();
    let blocks = bytes.chunks(BLOCK_BYTES as usize);
    blocks.map(snapdeck_host::hash_block).collect()
}

fn manifest_path(world: &World, name: &str) -> String {
    world.path(&format!("snapshots/{name}.json"))
}

/// Returns the manifest beside a snapshot, which must be that of the file.
#[track_caller]
fn recorded(world: &World, name: &str) -> Manifest {
    let json = std::fs::read(manifest_path(world, name)).expect("a manifest");
    let manifest = Manifest::read(&json).unwrap();
    let path = world.snapshot_path(name);
    assert!(manifest.blocks == digests(&path), "other digests");
    let file = manifest.file.expect("a stamp");
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (file.inode, file.size_bytes),
        (metadata.ino(), metadata.len())
    );
    manifest
}

fn number(result: &Value, key: &str) -> u64 {
    result[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {result}"))
}

/// Pushes a sandbox and compares the object with the disk. Both object and record of the push are removed: the next one
/// depends on the base alone.
#[track_caller]
fn push(world: &World, id: &str, name: &str) -> (Value, String) {
    let ran = world.snapdeck(&["-v", "push", id, name, "--json"]).ok();
    let object = world.get(name);
    assert!(same_disk(&object, &world.disk("a")), "{name}: {ran:?}");
    std::fs::remove_file(object).unwrap();
    world.snapdeck(&["remove", name, "--bucket"]).ok();
    let records = world.dir.join("home/.local/state/snapdeck/pushes");
    if records.exists() {
        std::fs::remove_dir_all(records).unwrap();
    }
    (ran.json(), ran.stderr)
}

#[track_caller]
fn assert_copied((result, stderr): &(Value, String)) {
    assert!(number(result, "copiedBytes") > 0, "{result} {stderr}");
    assert!(
        number(result, "uploadedBytes") <= MAX_SENT,
        "{result} {stderr}"
    );
}

#[track_caller]
fn assert_all_sent((result, stderr): &(Value, String)) {
    assert_eq!(result["copiedBytes"], 0, "{result} {stderr}");
}

/// Uploads a file in parts of so many MiB.
fn put_in_parts(world: &World, file: &str, name: &str, mib: &str) {
    let key = format!("{{}}/{name}.qcow2");
    let put = world.s5cmd(&["cp", "--raw", "--part-size", mib, file, &key]);
    assert!(put.status.success(), "{put:?}");
}

#[test]
fn the_first_push_records_the_digests_of_a_base_that_was_never_pulled() {
    let world = World::new();
    world.snapshot("base", BASE);
    let id = world.sandbox("a", "base", State::Off);
    let plan = world.snapdeck(&["push", &id, "one", "--plan", "--json"]);
    let plan = plan.ok().json();
    let reason = plan["baseReason"].as_str().unwrap();
    assert!(reason.contains("the push hashes it first"), "{reason}");
    assert!(
        !exists(&manifest_path(&world, "base")),
        "a plan changes nothing"
    );
    let first = push(&world, &id, "one");
    assert_eq!(first.0["uploadedBytes"], first.0["sizeBytes"]);
    assert!(first.1.contains("hashing"), "{}", first.1);
    assert_eq!(json!(recorded(&world, "base").proof), "read");
    let second = push(&world, &id, "two");
    assert!(!second.1.contains("hashing"), "{}", second.1);
}

#[test]
fn a_base_uploaded_by_another_client_is_copied_by_the_first_push() {
    for part_mib in ["8", "5", "16", "50"] {
        let world = World::new();
        let base = world.snapshot("base", BASE);
        put_in_parts(&world, &base, "base", part_mib);
        let id = world.sandbox("a", "base", State::Off);
        let first = push(&world, &id, "one");
        assert_copied(&first);
        let manifest = world.manifest("base");
        let proof = manifest["proof"].as_str().unwrap();
        assert!(["md5", "crc64nvme", "sha256"].contains(&proof), "{proof}");
        let etag = manifest["etag"]
            .as_str()
            .unwrap()
            .trim_matches('"')
            .to_owned();
        assert_eq!(etag, world.etag("base").trim_matches('"'));
        assert_eq!(
            manifest["blocks"],
            json!(recorded(&world, "base"))["blocks"]
        );
        let second = push(&world, &id, "two");
        assert_copied(&second);
        assert!(second.1.contains("same digests"), "{}", second.1);
        // A pull onto another host checks it.
        world.snapdeck(&["verify", "base", "--bucket"]).ok();
    }
}

#[test]
fn an_object_of_the_same_length_with_other_bytes_is_not_copied() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    let other = world.path("scratch/other.qcow2");
    std::fs::copy(&base, &other).unwrap();
    flip(&other, 20 * MIB);
    put_in_parts(&world, &other, "base", "8");
    let id = world.sandbox("a", "base", State::Off);
    let ran = push(&world, &id, "one");
    assert_all_sent(&ran);
    assert!(ran.1.contains("is a different image"), "{}", ran.1);
    assert!(!has_manifest(&world, "base"));
    // They are not compared again, unless the object is another one.
    let ran = push(&world, &id, "two");
    assert_all_sent(&ran);
    assert!(!ran.1.contains("computing the"), "{}", ran.1);
    put_in_parts(&world, &base, "base", "8");
    assert_copied(&push(&world, &id, "three"));
}

#[test]
fn digests_that_only_a_host_claims_do_not_make_a_pull() {
    let world = World::hosts(2);
    let base = world.snapshot("base", BASE);
    put_in_parts(&world, &base, "base", "16");
    let alpha = ["--host", "alpha"];
    world.snapdeck(&["adopt", "base", alpha[0], alpha[1]]).ok();
    // Root on the host says that the second block has only zeros. The checksums of the whole file stay true.
    let mut manifest = recorded(&world, "base");
    manifest.blocks[1] = snapdeck_host::hash_block(&vec![0; 8 << 20]);
    let json = manifest.write().unwrap();
    std::fs::write(manifest_path(&world, "base"), json).unwrap();
    let id = world.sandbox("a", "base", State::Off);
    world
        .snapdeck(&["push", &id, "one", alpha[0], alpha[1]])
        .ok();
    let state = world.dir.join("home/.local/state/snapdeck");
    let installation = std::fs::read_to_string(state.join("installation")).unwrap();
    assert_eq!(
        world.manifest("base")["claimed"],
        format!("alpha {installation}")
    );
    let pulled = world.hosts[1].snapshot_path("base");
    // Nor do they make another image the object.
    let mut other = std::fs::read(&base).unwrap();
    other[8 << 20..16 << 20].fill(0);
    std::fs::write(&pulled, &other).unwrap();
    let beta = ["--host", "beta"];
    world.snapdeck(&["verify", "base", beta[0], beta[1]]).ok();
    let json = std::fs::read(world.hosts[1].path("snapshots/base.json")).unwrap();
    assert_eq!(Manifest::read(&json).unwrap().etag, None);
    std::fs::remove_file(&pulled).unwrap();
    world.snapdeck(&["pull", "base", beta[0], beta[1]]).ok();
    assert_eq!(sha256(&pulled), sha256(&base));
    // What snapdeck has read is known.
    world.snapdeck(&["adopt", "base", "--bucket"]).ok();
    assert_eq!(world.manifest("base")["claimed"], Value::Null);
}

fn has_manifest(world: &World, name: &str) -> bool {
    let listed = world.s5cmd(&["ls", &format!("{{}}/{name}.json")]);
    listed.status.success()
}

/// Changes a byte and puts the modification time back.
fn flip(path: &str, at: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn a_file_changed_after_its_adoption_is_hashed_again() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    put_in_parts(&world, &base, "base", "8");
    let id = world.sandbox("a", "base", State::Off);
    let first = push(&world, &id, "one");
    assert_copied(&first);
    // The other blocks are still those of the object.
    let assert_changed_sent = |(result, _): &(Value, String)| {
        let copied = number(result, "copiedBytes");
        assert!(copied < number(&first.0, "copiedBytes"), "{result}");
    };
    flip(&base, 20 * MIB);
    let ran = push(&world, &id, "two");
    assert_changed_sent(&ran);
    assert!(ran.1.contains("are not those of its manifest"), "{}", ran.1);

    // Written in the usual way, it is another image.
    world.scribble(&base, 70, 1);
    let ran = push(&world, &id, "three");
    assert_changed_sent(&ran);
    assert!(ran.1.contains("hashing"), "{}", ran.1);
    recorded(&world, "base");
}

#[test]
fn a_changed_owner_needs_no_second_upload() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    put_in_parts(&world, &base, "base", "8");
    let id = world.sandbox("a", "base", State::Off);
    assert_copied(&push(&world, &id, "one"));
    run("chmod", &["600", &base]);
    assert_copied(&push(&world, &id, "two"));
}

#[test]
fn files_of_others_in_the_place_of_a_manifest_stay() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    let foreign = manifest_path(&world, "base");
    std::fs::write(&foreign, "{\"mine\": true}").unwrap();
    put_in_parts(&world, &base, "base", "8");
    let id = world.sandbox("a", "base", State::Off);
    let ran = push(&world, &id, "one");
    assert_all_sent(&ran);
    assert!(ran.1.contains("not a manifest of snapdeck"), "{}", ran.1);
    world
        .snapdeck(&["adopt", "base"])
        .failed(4, &["it is not a manifest of snapdeck"]);
    assert_eq!(
        std::fs::read_to_string(&foreign).unwrap(),
        "{\"mine\": true}"
    );

    // In the bucket, too: the base is copied nevertheless.
    std::fs::rename(&foreign, world.path("scratch/mine.json")).unwrap();
    let put = world.s5cmd(&["cp", &world.path("scratch/mine.json"), "{}/base.json"]);
    assert!(put.status.success(), "{put:?}");
    assert_copied(&push(&world, &id, "two"));
    world
        .snapdeck(&["adopt", "base", "--bucket"])
        .failed(4, &["it is not a manifest of snapdeck"]);
    assert_eq!(world.manifest("base"), json!({"mine": true}));
}

#[test]
fn adopt_keeps_annotations_and_records_once() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    world.snapshot("other", 1);
    world
        .snapdeck(&["note", "base", "a golden image", "--local"])
        .ok();
    let before = (sha256(&base), std::fs::metadata(&base).unwrap().mtime());
    let result = world.snapdeck(&["adopt", "base", "--json"]).ok().json();
    assert_eq!(
        (&result["changed"], &result["host"]),
        (&true.into(), &json!(world.name))
    );
    assert!(number(&result, "hashedBytes") >= u64::from(BASE) * MIB);
    let manifest = recorded(&world, "base");
    assert_eq!(manifest.notes.as_deref(), Some("a golden image"));
    assert_eq!(manifest.virtual_size, Some(1 << 30));
    let result = world.snapdeck(&["adopt", "base", "--json"]).ok().json();
    assert_eq!(
        (&result["changed"], &result["hashedBytes"]),
        (&false.into(), &0.into())
    );
    let ran = world.snapdeck(&["verify", "base"]).ok();
    assert!(
        ran.stdout.contains("all blocks match the manifest"),
        "{ran:?}"
    );

    let ran = world.snapdeck(&["adopt", "--all"]).ok();
    assert!(ran.stdout.contains("adopted other"), "{ran:?}");
    assert!(ran.stdout.contains("1 already have a manifest"), "{ran:?}");
    recorded(&world, "other");
    assert_eq!(
        (sha256(&base), std::fs::metadata(&base).unwrap().mtime()),
        before
    );
    world
        .snapdeck(&["adopt", "missing"])
        .failed(3, &["missing is not on host"]);
    world.snapdeck(&["adopt"]).failed(2, &["<NAME>"]);
}

#[test]
fn verify_records_the_digests_of_a_snapshot_without_a_manifest() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    let ran = world.snapdeck(&["verify", "base"]).ok();
    assert!(ran.stdout.contains("no manifest"), "{ran:?}");
    recorded(&world, "base");
    flip(&base, 20 * MIB);
    world
        .snapdeck(&["verify", "base"])
        .failed(1, &["match its manifest: 2"]);
    world
        .snapdeck(&["adopt", "base"])
        .failed(1, &["cannot adopt base"]);
}

#[test]
fn a_file_that_is_open_for_writing_is_not_adopted() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    for opener in [Opener::shell("<>", &base), Opener::qemu_io(&[], &base)] {
        let name = opener.name;
        world
            .snapdeck(&["adopt", "base"])
            .failed(4, &["open for writing by", name]);
        assert!(!exists(&manifest_path(&world, "base")));
    }
    let _reader = Opener::qemu_io(&["-r"], &base);
    world.snapdeck(&["adopt", "base"]).ok();
    recorded(&world, "base");
}

#[test]
fn a_descriptor_that_becomes_that_of_another_file_is_not_a_writer() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let other = world.path("scratch/other");
    std::fs::write(&other, "").unwrap();
    let is_done = AtomicBool::new(false);
    let outputs = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = std::fs::OpenOptions::new();
            writer.write(true);
            while !is_done.load(Relaxed) {
                let opened = std::fs::File::open(&base).unwrap();
                std::thread::sleep(Duration::from_millis(2));
                drop(opened);
                let opened = writer.open(&other).unwrap();
                std::thread::sleep(Duration::from_millis(2));
                drop(opened);
            }
        });
        let adopt = |_| {
            let ran = world.snapdeck(&["adopt", "base"]);
            let _ = std::fs::remove_file(manifest_path(&world, "base"));
            ran
        };
        let outputs: Vec<CommandOutput> = (0..8).map(adopt).collect();
        is_done.store(true, Relaxed);
        outputs
    });
    for output in outputs {
        output.ok();
    }
}

#[test]
fn a_damaged_image_is_not_adopted() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    std::fs::write(&base, "not an image").unwrap();
    world.snapdeck(&["adopt", "base"]).failed(1, &[]);
    assert!(!exists(&manifest_path(&world, "base")));
}

#[test]
fn an_image_that_is_longer_than_any_is_not_adopted() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let file = std::fs::File::options().write(true).open(&base).unwrap();
    file.set_len(6 << 40).unwrap();
    for verb in ["adopt", "upload", "verify"] {
        let ran = world.snapdeck(&[verb, "base"]);
        ran.failed(1, &["it has 6 TiB, an image has 5 TiB at most"]);
    }
    assert!(!exists(&manifest_path(&world, "base")));
}

#[test]
fn an_object_of_more_parts_than_any_is_not_compared() {
    let world = World::new();
    let base = world.snapshot("base", 1);
    let size = std::fs::metadata(&base).unwrap().len();
    let tag = format!("\"{}-{size}\"", "a".repeat(32));
    let store = HostileStore::start(move |request| {
        let head = |bytes| Answer::new(200, Body::Announced(bytes)).header("etag", tag.clone());
        let line = &request.line;
        match line.starts_with("HEAD ") {
            _ if request.is_listing() => page("", None),
            // Each byte is a part.
            true if line.to_lowercase().contains("partnumber=1") => head(1),
            true if line.contains("base.qcow2") => head(size),
            true if line.contains("one") || line.contains("VARS") => Answer::not_found(),
            // The bucket itself.
            true => Answer::ok(""),
            false if line.starts_with("GET ") => Answer::not_found(),
            false => Answer::error(501, "NotImplemented", "no"),
        }
    });
    let id = world.sandbox("a", "base", State::Off);
    world.reconfigure(&lab("SNAPDECK_LAB_S3"), &store.endpoint());
    let ran = world.snapdeck(&["-v", "push", &id, "one"]);
    assert!(ran.stderr.contains("is a different image"), "{ran:?}");
    assert!(!ran.stderr.contains("computing the"), "{ran:?}");
}

#[test]
fn holes_have_the_digest_of_zeros() {
    let world = World::new();
    let base = world.snapshot_path("base");
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "preallocation=metadata",
    ];
    run("qemu-img", &[&create[..], &[&base, "1G"]].concat());
    world.scribble(&base, 300, 20);
    let result = world.snapdeck(&["adopt", "base", "--json"]).ok().json();
    recorded(&world, "base");
    assert!(number(&result, "sizeBytes") > 1000 * MIB, "{result}");
    let magic = run("stat", &["-f", "-c", "%T", &base]);
    if ["ext2/ext3", "xfs", "tmpfs"].contains(&magic.trim()) {
        assert!(number(&result, "hashedBytes") < 200 * MIB, "{result}");
    }
}

#[test]
fn an_object_is_adopted_by_reading_it() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    put_in_parts(&world, &base, "base", "8");
    let adopt = || {
        let ran = world.snapdeck(&["adopt", "base", "--bucket", "--json"]);
        ran.ok().json()
    };
    let result = adopt();
    assert_eq!(
        (&result["changed"], &result["host"]),
        (&true.into(), &Value::Null)
    );
    let manifest = world.manifest("base");
    assert_eq!(manifest["proof"], "read");
    assert_eq!(
        manifest["blocks"],
        json!(Manifest::new("base".parse().unwrap(), 0, digests(&base)))["blocks"]
    );
    assert_eq!(adopt()["changed"], false);
    let id = world.sandbox("a", "base", State::Off);
    let ran = push(&world, &id, "one");
    assert_copied(&ran);
    assert!(ran.1.contains("same digests"), "{}", ran.1);
    let text = world.path("scratch/text");
    std::fs::write(&text, "not an image").unwrap();
    world.put(&text, "text");
    world
        .snapdeck(&["adopt", "text", "--bucket"])
        .failed(1, &["cannot adopt"]);
    assert!(!has_manifest(&world, "text"));
    let ran = world.snapdeck(&["adopt", "--all", "--bucket"]);
    ran.failed(1, &["text"]);
}

#[test]
fn weak_checksums_can_be_refused() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    put_in_parts(&world, &base, "base", "8");
    world.reconfigure("[bucket]", "[bucket]\ntrusted_checksums = \"sha256\"");
    let id = world.sandbox("a", "base", State::Off);
    let ran = push(&world, &id, "one");
    assert_all_sent(&ran);
    assert!(ran.1.contains("adopt base --bucket"), "{}", ran.1);
    assert!(!has_manifest(&world, "base"));

    let strict = "trusted_checksums = \"sha256\"";
    world.reconfigure(strict, "trusted_checksums = \"any\"");
    assert_copied(&push(&world, &id, "two"));
    world.reconfigure("trusted_checksums = \"any\"", strict);
    assert_all_sent(&push(&world, &id, "three"));
    world.snapdeck(&["adopt", "base", "--bucket"]).ok();
    assert_eq!(world.manifest("base")["proof"], "read");
    assert_copied(&push(&world, &id, "four"));
}

#[test]
fn a_create_of_a_running_guest_copies_an_adopted_base() {
    let world = World::new();
    let base = world.snapshot("base", BASE);
    put_in_parts(&world, &base, "base", "8");
    let id = world.sandbox("a", "base", State::Running);
    let ran = world.snapdeck(&["-v", "create", &id, "one", "--json"]).ok();
    assert!(number(&ran.json(), "copiedBytes") > 0, "{ran:?}");
    recorded(&world, "base");
}

#[test]
fn only_digests_pass_the_link() {
    let world = World::over_ssh(1);
    let base = world.snapshot("base", 200);
    put_in_parts(&world, &base, "base", "5");
    let passed = || {
        let link = world.link();
        link.bytes_passed(Direction::FromHost) + link.bytes_passed(Direction::ToHost)
    };
    let before = passed();
    world.snapdeck(&["adopt", "base"]).ok();
    let bytes = passed() - before;
    assert!(bytes < MIB, "{bytes}");
    recorded(&world, "base");
    // The checksums of an upload in other parts, too: the overlay and two parts of the base are read.
    let id = world.sandbox("a", "base", State::Off);
    let before = passed();
    let ran = push(&world, &id, "one");
    assert_copied(&ran);
    let bytes = passed() - before;
    assert!(bytes < 32 * MIB, "{bytes}");
}

#[test]
fn a_cancelled_adoption_ends_on_the_host_and_writes_nothing() {
    let world = World::over_ssh(1);
    world.snapshot("base", BASE);
    let (reached, name) = (world.path("scratch/reached"), "77.123456");
    world.fake(
        "sha256sum",
        &format!("touch '{reached}'; exec sleep {name}"),
    );
    let child = world.start(&["adopt", "base"]);
    wait_until("the file is hashed", || Path::new(&reached).exists());
    signal(&child, "INT");
    let ran = wait_for_exit_within(child, Duration::from_secs(10));
    assert_eq!(ran.code, Some(130), "{ran:?}");
    let is_running = || {
        let script = format!("grep -al '{name}' /proc/[0-9]*/cmdline 2>/dev/null | wc -l");
        // The shell and grep.
        run("sh", &["-c", &script]).trim().parse::<u32>().unwrap() > 2
    };
    wait_until("the programs on the host have ended", || !is_running());
    assert!(!exists(&manifest_path(&world, "base")));
}

#[test]
fn a_process_without_a_descriptor_of_a_file_is_a_writer() {
    const MAP: &str = r#"
import ctypes, os, socket, sys, time
libc = ctypes.CDLL(None)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mmap.restype = ctypes.c_void_p
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
file = os.open(sys.argv[1], os.O_RDWR)
map = libc.mmap(None, 4096, 3, 1, file, 0)
os.close(file)
if sys.argv[2] == 'reads': os.open(sys.argv[1], os.O_RDONLY)
if sys.argv[2] == 'protects': libc.mprotect(map, 4096, 1)
if sys.argv[2] == 'sends':
    # The descriptor is in a message that is not received.
    libc.munmap(ctypes.c_void_p(map), ctypes.c_size_t(4096))
    sockets = socket.socketpair()
    file = os.open(sys.argv[1], os.O_RDWR)
    socket.send_fds(sockets[0], [b'x'], [file])
    os.close(file)
print('ready', flush=True)
time.sleep(100)
"#;
    let world = World::new();
    let base = world.snapshot("base", BASE);
    for (way, user) in [
        ("", "python3"),
        ("reads", "python3"),
        ("protects", "python3"),
        ("sends", "an unknown process"),
    ] {
        let mut python = std::process::Command::new("/usr/bin/python3");
        python.args(["-S", "-c", MAP, &base, way]);
        let mut python = python.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 5];
        std::io::Read::read_exact(python.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let refused = world.snapdeck(&["adopt", "base"]);
        python.kill().unwrap();
        python.wait().unwrap();
        refused.failed(4, &[user, "base"]);
    }
    world.snapdeck(&["adopt", "base"]).ok();
}
