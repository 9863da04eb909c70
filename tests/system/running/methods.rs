//! The methods to read the disk of a running sandbox: which is used, and how it is reported.

use crate::common::{World, consistent_records};
use crate::running::BusyGuest;

impl BusyGuest {
    fn use_methods(&self, methods: &str) {
        let methods = format!("running = \"{methods}\"\nowner = ");
        self.world.reconfigure("owner = ", &methods);
    }

    /// Creates a guest in a directory with a path too long for a backup socket, so that no backup can begin.
    fn without_backups() -> Self {
        let long = "a".repeat(60);
        Self::in_world(World::over_ssh_in(&long))
    }
}

#[test]
fn the_overlay_is_copied_if_no_backup_can_begin() {
    let busy = BusyGuest::without_backups();
    let (world, id) = (&busy.world, &busy.id);
    let ran = world.snapdeck(&["create", id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "copy");
    assert!(
        ran.stderr
            .contains(&format!("cannot read the disk of {id} by backup")),
        "{ran:?}"
    );
    assert_eq!(world.manifest("app")["method"], "copy");
    consistent_records(&world.get("app"));
    busy.assert_intact();
}

#[test]
fn libvirt_creates_the_scratch_file_if_qemu_img_fails() {
    let busy = BusyGuest::new();
    let (world, id) = (&busy.world, &busy.id);
    let real = crate::common::find_program("qemu-img");
    world.fake(
        "qemu-img",
        &format!("[ \"$1\" = create ] || exec {real} \"$@\"\n: >\"$5\"\nexit 1"),
    );
    let ran = world.snapdeck(&["create", id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "backup", "{ran:?}");
    consistent_records(&world.get("app"));
    busy.assert_intact();
}

#[test]
fn the_disk_is_converted_if_backup_and_copy_fail() {
    let busy = BusyGuest::without_backups();
    let (world, id) = (&busy.world, &busy.id);
    world.fake("cp", "echo 'cp: it fails' >&2; exit 1");
    let ran = world.snapdeck(&["create", id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "convert");
    for word in ["by backup: ", "by copy: ", "it fails"] {
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
    }
    let manifest = world.manifest("app");
    assert_eq!(manifest["method"], "convert");
    assert_eq!(manifest["consistency"], "crash-consistent");
    assert!(manifest["pausedMs"].as_u64().unwrap() > 0);
    consistent_records(&world.get("app"));
    busy.assert_intact();
}

#[test]
fn methods_that_are_not_configured_are_not_used() {
    let busy = BusyGuest::without_backups();
    busy.use_methods("backup");
    let ran = busy.world.snapdeck(&["create", &busy.id, "app"]);
    ran.failed(
        1,
        &[
            &busy.id,
            "longer than a socket's may be",
            "`running` of the host",
        ],
    );
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_intact();
}

#[test]
fn a_backup_of_another_program_is_not_touched() {
    let busy = BusyGuest::new();
    let (world, id) = (&busy.world, &busy.id);
    let socket = world.path("scratch/foreign");
    let scratch = world.path("scratch/foreign.scratch");
    let xml = world.path("scratch/foreign.xml");
    let foreign = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{socket}'/><disks>\
         <disk name='vda' type='file'><scratch file='{scratch}'/></disk></disks></domainbackup>"
    );
    std::fs::write(&xml, foreign).unwrap();
    world.virsh(&["backup-begin", id, &xml]);
    let ran = world.snapdeck(&["create", id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "copy");
    assert!(ran.stderr.contains("another job"), "{ran:?}");
    let backup = world.virsh(&["backup-dumpxml", id]);
    assert!(backup.contains(&socket), "{backup}");
    world.virsh(&["domjobabort", id]);
    consistent_records(&world.get("app"));
    busy.assert_intact();
}
