//! Attacks on the files of a host by QEMU's user, which a guest has that has broken out of QEMU. It owns the snapshots,
//! sandboxes and NVRAM directories, and can create, rename and link there at any moment.
mod attacker;
mod chains;
mod leases;
mod organizations;
mod pulls;
mod races;
mod reading;
mod rights;
mod secrets;
mod state;

use attacker::{Attacker, QEMU_USER, as_qemu_user};

use crate::common::{World, run};

/// Content of a file that only root may read and write, such as /etc/shadow.
const SECRET: &str = "root:$6$SECRETHASH:19000:0:99999:7:::\n";

/// An environment whose directories belong to QEMU's user, and a file of root.
struct Target {
    world: World,
    secret: String,
}

impl Target {
    /// Returns `None` without root or that user.
    fn new() -> Option<Self> {
        Self::with(World::new())
    }

    fn with(world: World) -> Option<Self> {
        if !crate::common::is_root() || !as_qemu_user("true", &[]).status.success() {
            eprintln!("skipped: it needs root and the user libvirt-qemu");
            return None;
        }
        world.reconfigure("owner = \"0:0\"", &format!("owner = \"{QEMU_USER}\""));
        for dir in ["snapshots", "sandboxes", "nvram"] {
            run("chown", &[QEMU_USER, &world.path(dir)]);
        }
        let root_only = world.path("root-only");
        std::fs::create_dir(&root_only).unwrap();
        run("chmod", &["711", &root_only]);
        let secret = format!("{root_only}/shadow");
        std::fs::write(&secret, SECRET).unwrap();
        run("chmod", &["600", &secret]);
        Some(Self { world, secret })
    }

    /// Creates a file or link as QEMU's user.
    #[track_caller]
    fn link(&self, name: &str, to: &str) {
        let made = as_qemu_user("ln", &["-sfn", to, &self.world.path(name)]);
        assert!(made.status.success(), "{made:?}");
    }

    /// Asserts that the file of root is as it was, and the only one in its directory.
    #[track_caller]
    fn assert_untouched(&self) {
        use std::os::unix::fs::MetadataExt;
        let secret = std::fs::metadata(&self.secret).unwrap();
        assert_eq!(std::fs::read_to_string(&self.secret).unwrap(), SECRET);
        assert_eq!((secret.uid(), secret.mode() & 0o7777), (0, 0o600));
        let dir = self.world.path("root-only");
        let names: Vec<_> = std::fs::read_dir(&dir).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let dir = std::fs::metadata(dir).unwrap();
        assert_eq!((dir.uid(), dir.mode() & 0o7777), (0, 0o711));
    }

    /// Asserts that no object of the bucket has a part of the file of root in it.
    #[track_caller]
    fn assert_not_in_bucket(&self, name: &str) {
        if !self.world.is_in_bucket(name) {
            return;
        }
        let got = self.world.get(name);
        let raw = format!("{got}.raw");
        run(
            "qemu-img",
            &["convert", "-f", "qcow2", "-O", "raw", &got, &raw],
        );
        let found = crate::common::output(std::process::Command::new("grep").args([
            "-aqF",
            "SECRETHASH",
            &raw,
        ]));
        assert!(!found.status.success(), "{name} has the file of root in it");
    }

    fn attack(&self, dir: &str, pattern: &str) -> Attacker {
        Attacker::start(&self.world.path(dir), pattern, &self.secret)
    }
}
