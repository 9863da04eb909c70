//! Files that only libvirt knows of: volumes of storage pools, definitions that are not in force, snapshots, drives.

use super::{define, define_with, file_disk, overlay};
use crate::common::{State, World, exists, is_remote};

/// Asserts that a snapshot is not removed, and that its user is named.
#[track_caller]
fn refused(world: &World, name: &str, user: &str) {
    let ran = world.snapdeck(&["remove", name, "--local"]);
    ran.failed(4, &[&format!("cannot remove {name}"), user]);
    assert!(exists(&world.snapshot_path(name)));
}

/// An environment that no other test uses: a domain with an unknown disk blocks all snapshots.
fn private_world() -> World {
    match is_remote() {
        true => World::private(),
        false => World::private_local(),
    }
}

/// A storage pool; undefined on drop.
struct Pool<'a> {
    world: &'a World,
    name: String,
}

impl<'a> Pool<'a> {
    fn start(world: &'a World, dir: &str) -> Self {
        let name = world.id(&format!("pool-{dir}"));
        let target = world.path(dir);
        world.virsh(&["pool-define-as", &name, "dir", "--target", &target]);
        world.virsh(&["pool-start", &name]);
        Self { world, name }
    }

    fn disk(&self, volume: &str) -> String {
        format!(
            "<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/>\
             <source pool='{}' volume='{volume}'/><target dev='vda' bus='virtio'/></disk>",
            self.name
        )
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        for verb in ["pool-destroy", "pool-undefine"] {
            let _ = self.world.virsh_command(&[verb, &self.name]).output();
        }
    }
}

#[test]
fn a_volume_of_a_storage_pool_keeps_its_base() {
    let world = private_world();
    let base = world.snapshot("base", 0);
    world.snapshot("other", 0);
    overlay(&world.path("scratch/v.qcow2"), &base);
    let pool = Pool::start(&world, "scratch");
    let id = define(&world, "guest", &pool.disk("v.qcow2"));
    refused(&world, "base", &id);
    world.virsh(&["start", &id]);
    refused(&world, "base", &id);
    let plan = ["prune", "--unused", "--local", "--dry-run", "--json"];
    let plan = world.snapdeck(&plan).ok().json();
    assert_eq!(plan["toRemove"][0]["name"], "other", "{plan}");
    assert_eq!(plan["toRemove"].as_array().unwrap().len(), 1, "{plan}");
    world.virsh(&["destroy", &id]);

    // The path of a volume is known also while its pool is not active.
    world.virsh(&["pool-destroy", &pool.name]);
    refused(&world, "base", &id);
    world.snapdeck(&["remove", "other", "--local"]).ok();

    // Without the pool, the volume may be any file; but libvirt names the base of a running guest.
    world.snapshot("other", 0);
    world.virsh(&["pool-start", &pool.name]);
    world.virsh(&["start", &id]);
    world.virsh(&["pool-destroy", &pool.name]);
    world.virsh(&["pool-undefine", &pool.name]);
    refused(&world, "base", &id);
    world.snapdeck(&["remove", "other", "--local"]).ok();
    world.virsh(&["destroy", &id]);
    world.snapshot("other", 0);
    refused(&world, "other", &id);
    world.virsh(&["undefine", &id]);
    world.snapdeck(&["remove", "other", "--local"]).ok();
}

#[test]
fn an_overlay_that_is_a_volume_of_another_guest_is_not_destroyed() {
    let world = private_world();
    let base = world.snapshot("base", 0);
    let overlay_path = world.path("sandboxes/vm2.qcow2");
    overlay(&overlay_path, &base);
    let pool = Pool::start(&world, "sandboxes");
    let id = define(&world, "voldom", &pool.disk("vm2.qcow2"));
    let refused = || {
        let ran = world.snapdeck(&["sandbox", "destroy", "vm2", "--yes"]);
        ran.failed(4, &["cannot destroy vm2", &id]);
        assert!(exists(&overlay_path));
    };
    refused();
    world.virsh(&["start", &id]);
    refused();
    world.virsh(&["destroy", &id]);
    world.virsh(&["pool-destroy", &pool.name]);
    refused();
    world.virsh(&["pool-undefine", &pool.name]);
    refused();
    world.virsh(&["undefine", &id]);
    world
        .snapdeck(&["sandbox", "destroy", "vm2", "--yes"])
        .failed(3, &["no record of it"]);
    assert!(exists(&overlay_path));
}

#[test]
fn a_disk_that_is_only_in_the_persistent_definition_keeps_its_base() {
    let (world, id) = World::with_sandbox(State::Running);
    let next = world.snapshot("next", 0);
    let disk = world.path("scratch/next.qcow2");
    overlay(&disk, &next);
    world.virsh(&[
        "attach-disk",
        &id,
        &disk,
        "vdb",
        "--config",
        "--subdriver",
        "qcow2",
    ]);
    refused(&world, "next", &id);
    world.virsh(&["detach-disk", &id, "vdb", "--config"]);
    world.snapdeck(&["remove", "next", "--local"]).ok();
}

/// Starts a guest with a second disk, based on the snapshot `next`, that is no longer in the persistent definition.
fn guest_with_live_disk(world: &World) -> String {
    let (base, next) = (world.snapshot("base", 0), world.snapshot("next", 0));
    let disk = world.path("scratch/next.qcow2");
    overlay(&world.disk("a"), &base);
    overlay(&disk, &next);
    let disks = file_disk(&world.disk("a"), "vda") + &file_disk(&disk, "vdb");
    let id = define(world, "a", &disks);
    world.virsh(&["start", &id]);
    world.virsh(&["detach-disk", &id, "vdb", "--config"]);
    id
}

#[test]
fn a_disk_that_is_only_in_the_live_definition_keeps_its_base() {
    let world = World::new();
    let id = guest_with_live_disk(&world);
    refused(&world, "next", &id);
    world.virsh(&["destroy", &id]);
    world.snapdeck(&["remove", "next", "--local"]).ok();
}

#[test]
fn a_snapshot_in_a_drive_is_kept() {
    let world = World::new();
    for (device, target, bus) in [("cdrom", "hda", "ide"), ("floppy", "fda", "fdc")] {
        let image = world.snapshot(device, 0);
        let disk = format!(
            "<disk type='file' device='{device}'><driver name='qemu' type='qcow2'/><source file='{image}'/>\
             <target dev='{target}' bus='{bus}'/><readonly/></disk>"
        );
        let id = define(&world, device, &disk);
        refused(&world, device, &id);
    }
}

#[test]
fn a_disk_that_only_a_snapshot_of_a_domain_names_keeps_its_base() {
    let (world, id) = World::with_sandbox(State::Off);
    let old = world.snapshot("old", 0);
    let disk = world.path("scratch/old.qcow2");
    overlay(&disk, &old);
    world.virsh(&[
        "attach-disk",
        &id,
        &disk,
        "vdb",
        "--config",
        "--subdriver",
        "qcow2",
    ]);
    world.virsh(&["snapshot-create-as", &id, "before"]);
    world.virsh(&["detach-disk", &id, "vdb", "--config"]);
    refused(&world, "old", &id);
    world.virsh(&["snapshot-delete", &id, "before", "--metadata"]);
    world.snapdeck(&["remove", "old", "--local"]).ok();
}

#[test]
fn a_saved_state_keeps_the_disks_it_was_saved_with() {
    let world = World::new();
    let id = guest_with_live_disk(&world);
    world.virsh(&["managedsave", &id]);
    assert!(!world.virsh(&["dumpxml", &id]).contains("vdb"));
    refused(&world, "next", &id);
    world.virsh(&["managedsave-remove", &id]);
    world.snapdeck(&["remove", "next", "--local"]).ok();
}

#[test]
fn a_transient_domain_and_its_explicit_backing_chain_keep_a_base() {
    let world = World::new();
    let (header, explicit) = (world.snapshot("header", 0), world.snapshot("explicit", 0));
    let disk = world.path("scratch/top.qcow2");
    // The definition names another backing file than the header does.
    overlay(&disk, &header);
    let id = world.id("transient");
    let devices = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>\
         <backingStore type='file'><format type='qcow2'/><source file='{explicit}'/><backingStore/></backingStore>\
         <target dev='vda' bus='virtio'/></disk>"
    );
    let xml = format!(
        "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>{devices}</devices></domain>"
    );
    let file = world.path("scratch/transient.xml");
    std::fs::write(&file, xml).unwrap();
    world.virsh(&["create", &file]);
    refused(&world, "explicit", &id);
    refused(&world, "header", &id);
}

#[test]
fn a_disk_whose_definition_names_another_chain_is_not_published() {
    let world = World::new();
    let (header, other) = (world.snapshot("header", 0), world.snapshot("other", 0));
    let disk = world.disk("a");
    overlay(&disk, &header);
    for (chain, named) in [
        (
            format!(
                "<backingStore type='file'><format type='qcow2'/><source file='{other}'/></backingStore>"
            ),
            &*other,
        ),
        ("<backingStore/>".to_owned(), "no backing file"),
    ] {
        let id = define(
            &world,
            "a",
            &format!(
                "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>{chain}\
                 <target dev='vda' bus='virtio'/></disk>"
            ),
        );
        for verb in ["push", "create"] {
            world
                .snapdeck(&[verb, &id, "app"])
                .failed(4, &[named, &header, "virsh edit"]);
        }
        world.virsh(&["start", &id]);
        world
            .snapdeck(&["create", &id, "app"])
            .failed(4, &[named, &header]);
        world.virsh(&["destroy", &id]);
        assert!(!world.is_in_bucket("app"));
        world.virsh(&["undefine", &id]);
    }
    // The same chain by another path.
    let link = world.path("scratch/link.qcow2");
    std::os::unix::fs::symlink(&header, &link).unwrap();
    let id = define(
        &world,
        "a",
        &format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>\
             <backingStore type='file'><format type='qcow2'/><source file='{link}'/><backingStore/></backingStore>\
             <target dev='vda' bus='virtio'/></disk>"
        ),
    );
    world.snapdeck(&["push", &id, "app"]).ok();
}

#[test]
fn the_target_of_a_running_block_job_is_kept() {
    let (world, id) = World::with_sandbox(State::Running);
    let target = world.snapshot("target", 0);
    world.virsh(&[
        "blockcopy",
        &id,
        "vda",
        &target,
        "--reuse-external",
        "--transient-job",
        "--bandwidth",
        "1",
    ]);
    refused(&world, "target", &id);
    world.virsh(&["blockjob", &id, "vda", "--abort"]);
}

#[test]
fn a_kernel_in_the_directory_and_an_argument_of_qemu_are_uses() {
    let world = World::new();
    let (kernel, argument) = (world.snapshot("kernel", 0), world.snapshot("argument", 0));
    let id = define_with(&world, "direct", &format!("<kernel>{kernel}</kernel>"), "");
    refused(&world, "kernel", &id);
    let id = world.id("args");
    world.define_xml(&format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{id}</name>\
         <memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os><devices/>\
         <qemu:commandline><qemu:arg value='-drive'/>\
         <qemu:arg value='file={argument},if=none,id=x'/></qemu:commandline></domain>"
    ));
    refused(&world, "argument", &id);
}
