//! Snapshots of running sandboxes: of one moment each, while the guest hardly notices; and whatever goes wrong in the
//! middle, the guest runs, and nothing stays. `make test` starts what they need.
mod agent;
mod ends;
mod methods;
mod moments;

use crate::common::{Guest, World, output, run, sha256, until};

/// A world with a guest that runs and writes.
struct Busy {
    world: World,
    id: String,
    guest: Guest,
    /// Checksum of its base.
    base: String,
}

impl Busy {
    fn new() -> Self {
        Self::of(World::new())
    }

    fn of(world: World) -> Self {
        Self::with(world, "scatter")
    }

    /// With a guest booted with these words.
    fn with(world: World, words: &str) -> Self {
        Self::made(world, words, |_| {})
    }

    /// With an overlay that has all that the guest will ever write, so that it does not grow.
    fn on_filled(world: World) -> Self {
        Self::made(world, "scatter", |world| {
            let at = world
                .seen("sandboxes")
                .join(format!("{}.qcow2", world.id("a")));
            for place in ["0 8M", "512M 64M"] {
                let write = format!("write -q -P 0 {place}");
                run(
                    "qemu-io",
                    &["-f", "qcow2", "-c", &write, at.to_str().unwrap()],
                );
            }
        })
    }

    fn made(world: World, words: &str, prepare: impl FnOnce(&World)) -> Self {
        world.use_guest_that(words);
        let base = world.snapshot("base", 3);
        let base = sha256(&base);
        let id = world.id("a");
        world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
        prepare(&world);
        world.snapdeck(&["sandbox", "start", &id]).ok();
        let guest = world.guest(&id);
        guest.wait_alive(0);
        Self {
            world,
            id,
            guest,
            base,
        }
    }

    /// The guest runs and writes, nobody has a job on it, nothing of ours is left, and its base is what it was.
    #[track_caller]
    fn assert_well(&self) {
        let (world, id) = (&self.world, &self.id);
        until("the guest runs", || world.state(id) == "running");
        self.assert_nothing_stays();
        let now = self.guest.alive().pop().unwrap();
        self.guest.wait_beyond(&now);
        assert_eq!(self.guest.boots().len(), 1, "it was booted anew");
    }

    /// Nothing of ours is left on the host, be it late, and the base is what it was.
    #[track_caller]
    fn assert_nothing_stays(&self) {
        let world = &self.world;
        until("the backup is over", || !has_backup(world, &self.id));
        until("its files are gone", || backups(world).is_empty());
        until("the temporary directory is gone", || {
            world.names("temp").is_empty()
        });
        assert_eq!(sha256(&world.snapshot_path("base")), self.base);
    }
}

/// Directories of backups beside the overlays.
fn backups(world: &World) -> Vec<String> {
    let names = world.names("sandboxes");
    let of_backups = |name: &String| name.ends_with(".backup");
    names.into_iter().filter(of_backups).collect()
}

fn has_backup(world: &World, id: &str) -> bool {
    let said = output(&mut world.virsh_command(&["backup-dumpxml", id]));
    said.status.success()
}
