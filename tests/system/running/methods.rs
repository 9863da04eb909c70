//! The ways to read the disk of a running sandbox: which is taken, and how it is told.

use crate::common::{World, consistent_records};
use crate::running::Busy;

impl Busy {
    fn use_methods(&self, methods: &str) {
        let methods = format!("running = \"{methods}\"\nowner = ");
        self.world.reconfigure("owner = ", &methods);
    }

    /// The path of a backup's socket is too long here: libvirt or QEMU refuses to begin.
    fn without_backups() -> Self {
        let long = "a".repeat(60);
        Self::in_world(World::over_ssh_in(&long))
    }
}

#[test]
fn its_overlay_is_copied_where_no_backup_can_begin() {
    let busy = Busy::without_backups();
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

/// As a host whose qemu-img stops in the middle.
#[test]
fn libvirt_makes_the_scratch_file_where_we_cannot() {
    let busy = Busy::new();
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
fn it_is_converted_where_there_is_no_other_way() {
    let busy = Busy::without_backups();
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
fn what_may_not_be_converted_is_not() {
    let busy = Busy::without_backups();
    busy.use_methods("backup");
    let ran = busy.world.snapdeck(&["create", &busy.id, "app"]);
    ran.failed(
        1,
        &[&busy.id, "too long for a socket", "`running` of the host"],
    );
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_intact();
}

#[test]
fn a_backup_of_somebody_else_is_left_alone() {
    let busy = Busy::new();
    let (world, id) = (&busy.world, &busy.id);
    let socket = world.path("scratch/theirs");
    let scratch = world.path("scratch/theirs.scratch");
    let xml = world.path("scratch/theirs.xml");
    let theirs = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{socket}'/><disks>\
         <disk name='vda' type='file'><scratch file='{scratch}'/></disk></disks></domainbackup>"
    );
    std::fs::write(&xml, theirs).unwrap();
    world.virsh(&["backup-begin", id, &xml]);
    let ran = world.snapdeck(&["create", id, "app", "--json"]).ok();
    assert_eq!(ran.json()["method"], "copy");
    assert!(ran.stderr.contains("another job"), "{ran:?}");
    let still = world.virsh(&["backup-dumpxml", id]);
    assert!(still.contains(&socket), "{still}");
    world.virsh(&["domjobabort", id]);
    consistent_records(&world.get("app"));
    busy.assert_intact();
}
