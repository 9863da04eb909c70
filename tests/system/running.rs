//! Snapshots of running sandboxes: each is of one point in time, with a short pause; after any fault the guest runs and
//! no files remain. `make test` starts the lab.
mod agent;
mod consistency;
mod faults;
mod methods;
mod others;

use crate::common::{Guest, World, output, run, sha256, wait_until};

/// An environment with a running guest that writes to its disk.
struct BusyGuest {
    world: World,
    id: String,
    guest: Guest,
    /// Checksum of the base image.
    base: String,
}

impl BusyGuest {
    fn new() -> Self {
        Self::in_world(World::new())
    }

    fn in_world(world: World) -> Self {
        Self::with_arguments(world, "scatter")
    }

    /// Creates a guest with additional kernel arguments (tests/lab/guest.init).
    fn with_arguments(world: World, arguments: &str) -> Self {
        Self::build(world, arguments, |_| {})
    }

    /// Creates a guest with an overlay in which all clusters that the guest writes are allocated, so that it does not grow.
    fn with_allocated_overlay(world: World) -> Self {
        Self::build(world, "scatter", |world| {
            let overlay = world
                .path_on_host("sandboxes")
                .join(format!("{}.qcow2", world.id("a")));
            for range in ["0 8M", "512M 64M"] {
                let write = format!("write -q -P 0 {range}");
                run(
                    "qemu-io",
                    &["-f", "qcow2", "-c", &write, overlay.to_str().unwrap()],
                );
            }
        })
    }

    fn build(world: World, arguments: &str, prepare: impl FnOnce(&World)) -> Self {
        world.use_guest_with(arguments);
        let base = world.snapshot("base", 3);
        let base = sha256(&base);
        let id = world.id("a");
        world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
        prepare(&world);
        let started = world.snapdeck(&["sandbox", "start", &id]);
        match started
            .stderr
            .contains("the connection to libvirt was lost")
        {
            // Debian 12's libvirtd crashes in a start now and then; the lab starts it again.
            true => wait_until("the guest is started", || {
                let again = world.snapdeck(&["sandbox", "start", &id]);
                again.code == Some(0) || world.state(&id) == "running"
            }),
            false => drop(started.ok()),
        }
        let guest = world.guest(&id);
        guest.wait_for_heartbeat(0);
        Self {
            world,
            id,
            guest,
            base,
        }
    }

    /// Asserts that the guest runs and writes without a reboot, that no files remain, and that its base is unchanged.
    #[track_caller]
    fn assert_intact(&self) {
        let (world, id) = (&self.world, &self.id);
        wait_until("the guest runs", || world.state(id) == "running");
        self.assert_cleaned_up();
        let now = self.guest.heartbeats().pop().unwrap();
        self.guest.wait_for_heartbeat_after(&now);
        assert_eq!(self.guest.boots().len(), 1, "the guest has rebooted");
    }

    /// Waits until backup job and files are removed; asserts that the base is unchanged.
    #[track_caller]
    fn assert_cleaned_up(&self) {
        let world = &self.world;
        wait_until("the backup job has ended", || !has_backup(world, &self.id));
        wait_until("the backup files are removed", || backups(world).is_empty());
        wait_until("the temporary directory is empty", || {
            world.names("temp").is_empty()
        });
        assert_eq!(sha256(&world.snapshot_path("base")), self.base);
    }
}

/// Returns the backup directories beside the overlays.
fn backups(world: &World) -> Vec<String> {
    let names = world.names("sandboxes");
    let is_backup = |name: &String| name.ends_with(".backup");
    names.into_iter().filter(is_backup).collect()
}

fn has_backup(world: &World, id: &str) -> bool {
    let result = output(&mut world.virsh_command(&["backup-dumpxml", id]));
    result.status.success()
}
