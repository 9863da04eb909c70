//! Pulls that reuse local blocks and verify what they write: real libvirt and S3, with a proxy that counts, holds and
//! corrupts downloads.
pub(crate) mod direct;
mod interrupted;
mod invalid;
mod replaced;
mod resume;
mod unattended;
mod verify;

use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::common::{Faults, Host, SmallDisk, World, sha256, wait_until};
use serde_json::Value;
use snapdeck_model::{Digest, Manifest, Parent};

const MIB: u64 = 1024 * 1024;
/// Block size in bytes.
const BLOCK: u64 = 8 * MIB;

/// A test environment with a proxy to the bucket.
struct ProxiedWorld {
    inner: World,
    faults: Arc<Faults>,
}

impl Deref for ProxiedWorld {
    type Target = World;

    fn deref(&self) -> &World {
        &self.inner
    }
}

impl ProxiedWorld {
    fn new(hosts: usize) -> Self {
        let world = World::hosts(hosts);
        let faults = world.use_proxy();
        Self {
            inner: world,
            faults,
        }
    }

    /// Creates an environment with an object `app` of `megabytes` MiB and its manifest; also returns the uploaded file.
    fn with_object(megabytes: u32) -> (Self, String) {
        let world = Self::new(1);
        let image = world.path("scratch/app.qcow2");
        world.image(&image, megabytes);
        world.put_with_manifest(&image, "app", None);
        (world, image)
    }

    /// Uploads a file and its manifest, as push does.
    fn put_with_manifest(&self, file: &str, name: &str, parent: Option<&str>) {
        self.put(file, name);
        self.put_manifest(&self.manifest(file, name, parent), name);
    }

    fn manifest(&self, file: &str, name: &str, parent: Option<&str>) -> Manifest {
        let size = std::fs::metadata(file).unwrap().len();
        let mut manifest = Manifest::new(name.parse().unwrap(), size, digests(file));
        manifest.etag = Some(self.etag(name));
        manifest.parent = parent.map(|name| Parent {
            name: name.parse().unwrap(),
            etag: None,
        });
        manifest
    }

    fn put_manifest(&self, manifest: &Manifest, name: &str) {
        self.put_json(&manifest.write().unwrap(), name);
    }

    fn put_json(&self, json: &[u8], name: &str) {
        let file = self.path("scratch/manifest.json");
        std::fs::write(&file, json).unwrap();
        let put = self.s5cmd(&["cp", "--raw", &file, &format!("{{}}/{name}.json")]);
        assert!(put.status.success(), "{put:?}");
    }

    /// Returns the bytes received from the bucket since the last call.
    fn received(&self) -> u64 {
        self.faults.received.swap(0, SeqCst)
    }

    /// Asserts that `bytes` were fetched since the last check, with up to 1 % overhead.
    #[track_caller]
    fn assert_fetched(&self, bytes: u64) {
        let received = self.received();
        let range = bytes..bytes + bytes / 100 + MIB / 4;
        assert!(range.contains(&received), "{received} for {bytes}");
    }

    /// Asserts that the host has the complete snapshot and no hidden file.
    #[track_caller]
    fn assert_pulled(&self, host: &Host, name: &str, image: &str) {
        let path = host.snapshot_path(name);
        assert_eq!(sha256(&path), sha256(image), "{}", host.name);
        self.assert_nothing_hidden(host);
    }

    #[track_caller]
    fn assert_nothing_hidden(&self, host: &Host) {
        let names = host.names("snapshots");
        assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    }

    /// Starts a pull of `app` that stops after `bytes`, and waits until these are logged.
    fn start_held(&self, bytes: u64) -> Child {
        self.faults.hold_from.store(bytes, SeqCst);
        let child = self.start(&["pull", "app", "--json"]);
        wait_until("the blocks are logged", || self.logged_bytes() == bytes);
        child
    }

    fn release(&self) {
        self.faults.hold_from.store(0, SeqCst);
    }

    /// Returns the bytes of complete blocks in the log beside the partial file.
    fn logged_bytes(&self) -> u64 {
        let text = self.read_on_host("snapshots/.app.qcow2.pull/partial.mark");
        let entries = text.split(['\t', '\n']);
        let records = entries.filter(|entry| entry.starts_with(|c: char| c.is_ascii_digit()));
        records.count() as u64 * BLOCK
    }

    /// Returns the text of a file as the host sees it, with mounts of its namespace.
    fn read_on_host(&self, path: &str) -> String {
        std::fs::read_to_string(self.path_on_host(path)).unwrap_or_default()
    }
}

fn digests(file: &str) -> Vec<Digest> {
    let bytes = std::fs::read(file).unwrap();
    bytes
        .chunks(BLOCK as usize)
        .map(snapdeck_host::hash_block)
        .collect()
}

/// Returns the total length of the blocks of `child` that `parent` does not have.
fn new_bytes(parent: &str, child: &str) -> u64 {
    let parent_digests = digests(parent);
    let size = std::fs::metadata(child).unwrap().len();
    let blocks = digests(child);
    let new = (0..)
        .zip(&blocks)
        .filter(|(_, digest)| !parent_digests.contains(digest));
    new.map(|(at, _)| BLOCK.min(size - at * BLOCK)).sum()
}

/// Inverts one byte of a file.
fn damage(path: &str, offset: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

/// Uploads a snapshot `base` and one derived from it, `app`, with some clusters overwritten and some new.
fn upload_base_and_child(world: &ProxiedWorld) -> (String, String) {
    let (parent, child) = (
        world.path("scratch/base.qcow2"),
        world.path("scratch/app.qcow2"),
    );
    world.image(&parent, 80);
    std::fs::copy(&parent, &child).unwrap();
    world.scribble(&child, 90, 1);
    world.scribble(&child, 500, 3);
    world.put_with_manifest(&parent, "base", None);
    world.put_with_manifest(&child, "app", Some("base"));
    (parent, child)
}

fn bytes(result: &Value, key: &str) -> u64 {
    result[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {result}"))
}

#[test]
fn hosts_with_and_without_the_parent_get_the_same_file() {
    let world = ProxiedWorld::new(2);
    let (parent, child) = upload_base_and_child(&world);
    let (size, new) = (
        std::fs::metadata(&child).unwrap().len(),
        new_bytes(&parent, &child),
    );
    assert!(new < size / 2, "{new} of {size} are new");
    world.snapdeck(&["pull", "base", "--host", "beta"]).ok();
    world.received();

    // Both hosts: each byte is fetched once, and the host with the parent writes only the other blocks.
    let both = ["pull", "app", "--host", "alpha", "--host", "beta", "--json"];
    let result = world.snapdeck(&both).ok().json();
    let (empty, other) = (&result["results"][0], &result["results"][1]);
    assert_eq!(
        (bytes(empty, "fetchedBytes"), bytes(empty, "copiedBytes")),
        (size, 0)
    );
    assert_eq!(bytes(other, "fetchedBytes"), new);
    assert_eq!(bytes(other, "copiedBytes"), size - new);
    world
        .hosts
        .iter()
        .for_each(|host| world.assert_pulled(host, "app", &child));
    world.assert_fetched(size);

    // One host: only new blocks are downloaded.
    let beta = &world.hosts[1];
    std::fs::remove_file(beta.snapshot_path("app")).unwrap();
    let ran = world.snapdeck(&["pull", "app", "--host", "beta"]).ok();
    assert!(ran.stdout.contains("copied on the host"), "{ran:?}");
    world.assert_pulled(beta, "app", &child);
    world.assert_fetched(new);
    // The parent is rebuilt from the child.
    std::fs::remove_file(beta.snapshot_path("base")).unwrap();
    world.snapdeck(&["pull", "base", "--host", "beta"]).ok();
    world.assert_pulled(beta, "base", &parent);
    assert!(world.received() < size / 2);
}

#[test]
fn a_local_copy_under_another_name_is_reused() {
    let (world, image) = ProxiedWorld::with_object(20);
    world.put_with_manifest(&image, "twin", None);
    world.snapdeck(&["pull", "app"]).ok();
    world.received();
    let result = world.snapdeck(&["pull", "twin", "--json"]).ok().json();
    assert_eq!(bytes(&result, "fetchedBytes"), 0);
    assert_eq!(result["copiedBytes"], result["sizeBytes"]);
    world.assert_pulled(&world, "twin", &image);
    assert!(world.received() < MIB / 4);
}

#[test]
fn damaged_local_blocks_are_fetched() {
    let world = ProxiedWorld::new(1);
    let (parent, child) = upload_base_and_child(&world);
    let new = new_bytes(&parent, &child);
    world.snapdeck(&["pull", "base"]).ok();
    // Block 5 is the same in parent and child.
    damage(&world.snapshot_path("base"), 5 * BLOCK + 5);
    world.received();
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(bytes(&result, "fetchedBytes"), new + BLOCK);
    world.assert_pulled(&world, "app", &child);
    world.assert_fetched(new + BLOCK);
}

#[test]
fn blocks_are_shared_on_a_file_system_with_reflinks() {
    let world = ProxiedWorld::new(1);
    let Some(disk) = world.reflink_disk("snapshots") else {
        return;
    };
    let (parent, child) = upload_base_and_child(&world);
    let new = new_bytes(&parent, &child);
    world.snapdeck(&["pull", "base"]).ok();
    world.received();
    let dir = world.path("snapshots");
    let before = free_bytes(&disk, &dir);
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(bytes(&result, "fetchedBytes"), new);
    world.assert_fetched(new);
    let used = before - free_bytes(&disk, &dir);
    assert!(used < new + 4 * MIB, "{used} for {new}");
    let sum = output_on(&disk, &["sha256sum", &world.snapshot_path("app")]);
    assert!(sum.starts_with(&sha256(&child)), "{sum}");
}

/// Inverts one byte of a file and puts its modification time back.
fn damage_silently(path: &str, offset: u64) {
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    damage(path, offset);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn silently_damaged_local_blocks_are_fetched() {
    let world = ProxiedWorld::new(1);
    let (parent, child) = upload_base_and_child(&world);
    let new = new_bytes(&parent, &child);
    world.snapdeck(&["pull", "base"]).ok();
    damage_silently(&world.snapshot_path("base"), 5 * BLOCK + 5);
    world.received();
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(bytes(&result, "fetchedBytes"), new + BLOCK);
    world.assert_pulled(&world, "app", &child);
}

#[test]
fn silently_damaged_shared_blocks_are_fetched() {
    let world = ProxiedWorld::new(1);
    let Some(disk) = world.reflink_disk("snapshots") else {
        return;
    };
    let (_, child) = upload_base_and_child(&world);
    world.snapdeck(&["pull", "base"]).ok();
    let base = world.snapshot_path("base");
    let script = format!(
        "touch -r {base} {base}.time && printf X | dd of={base} bs=1 seek={} conv=notrunc status=none && \
         touch -r {base}.time {base} && rm {base}.time",
        5 * BLOCK + 5
    );
    output_on(&disk, &["sh", "-c", &script]);
    world.snapdeck(&["pull", "app"]).ok();
    let sum = output_on(&disk, &["sha256sum", &world.snapshot_path("app")]);
    assert!(sum.starts_with(&sha256(&child)), "{sum}");
}

#[test]
fn an_error_of_the_disk_is_not_damage() {
    let (world, image) = ProxiedWorld::with_object(40);
    world.snapdeck(&["pull", "app"]).ok();
    let run = |args: &[&str]| match world.is_over_ssh() {
        true => {
            // Lock files are created, and headers read, by dd, too.
            let real = crate::common::find_program("dd");
            world.fake(
                "dd",
                &format!(
                    "case $* in *skip_bytes*) ;; *) exec {real} \"$@\" ;; esac\n\
                     echo 'dd: error reading: Input/output error' >&2; exit 1"
                ),
            );
            world.snapdeck(args)
        }
        false => {
            let mut command = world.command_with_fault(args, ("FAIL_READ", "/app.qcow2"));
            crate::common::wait_for_exit(command.spawn().unwrap())
        }
    };
    for args in [&["verify", "app"][..], &["verify", "app", "--repair"]] {
        let ran = run(args);
        assert!(!ran.stderr.contains("damaged"), "{ran:?}");
        ran.failed(
            1,
            &["cannot read", "Input/output error", "hint: check the disk"],
        );
    }
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    assert_eq!(listed[0]["problem"], Value::Null);
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_partial_file_that_could_not_be_flushed_is_not_resumed() {
    if crate::common::only_local("faults of system calls are those of the local program") {
        return;
    }
    let (world, image) = ProxiedWorld::with_object(40);
    let mut command =
        world.command_with_fault(&["pull", "app"], ("FAIL_FSYNC", ".qcow2.pull/partial"));
    let ran = crate::common::wait_for_exit(command.spawn().unwrap());
    ran.failed(1, &["cannot write", "Input/output error"]);
    assert!(
        !world
            .names("snapshots")
            .iter()
            .any(|name| name.contains("app.qcow2"))
    );
    world.received();
    world.snapdeck(&["pull", "app"]).ok();
    world.assert_fetched(std::fs::metadata(&image).unwrap().len());
    world.assert_pulled(&world, "app", &image);
}

fn output_on(disk: &SmallDisk, argv: &[&str]) -> String {
    let output = disk.run_on_host(argv);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn free_bytes(disk: &SmallDisk, dir: &str) -> u64 {
    output_on(disk, &["sync", "-f", dir]);
    let space = output_on(disk, &["stat", "-f", "--printf", "%a %S", dir]);
    let (blocks, size) = space.split_once(' ').unwrap();
    blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap()
}
