//! Leases (fcntl(2)), by which the owner of a file can make everyone wait who opens it, and locks, which everyone can
//! take who can open a file.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::Target;
use super::attacker::command;
use crate::common::{World, run, wait_for_exit, wait_for_exit_within};

/// Longer than a refusal takes on a slow machine, and shorter than the kernel waits for the holder of each lease.
const DEADLINE: Duration = Duration::from_secs(40);
const SCRIPT: &str = r#"
import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
files = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in sys.argv[1:]]
for file in files: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('ready', flush=True)
time.sleep(100)
"#;

/// A process of QEMU's user that has leases on files.
struct Holder(Child);

impl Holder {
    fn start(files: &[&str]) -> Self {
        for file in files {
            run("chown", &["libvirt-qemu:kvm", file]);
        }
        let mut holder = command("/usr/bin/python3");
        holder.args(["-S", "-c", SCRIPT]).args(files);
        let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_leased_file_is_refused_at_once() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let base = world.snapshot("base", 1);
    let lock = world.path("snapshots/.app.qcow2.lock");
    let other = world.snapshot("other", 1);
    world.put(&other, "app");
    std::fs::write(&lock, "").unwrap();
    let holder = Holder::start(&[&base, &lock]);
    for args in [&["verify", "base"][..], &["pull", "app"]] {
        let ran = wait_for_exit_within(world.start(args), DEADLINE);
        assert!(!matches!(ran.code, None | Some(0)), "{args:?}: {ran:?}");
    }
    // Another file is not affected.
    wait_for_exit_within(world.start(&["verify", "other"]), DEADLINE).ok();
    drop(holder);
    world.snapdeck(&["verify", "base"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
}

#[test]
fn leases_on_images_do_not_hold_up_other_commands_for_long() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    world.snapshot("base", 1);
    let in_dir =
        |dir: &'static str| (0..10).map(move |number| format!("{dir}/other{number}.qcow2"));
    let images: Vec<String> = in_dir("sandboxes")
        .chain(in_dir("snapshots"))
        .map(|path| world.path(&path))
        .collect();
    for image in &images {
        world.image(image, 0);
    }
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let holder = Holder::start(&images);
    // They may be based on it.
    let ran = wait_for_exit_within(world.start(&["remove", "base", "--local"]), DEADLINE);
    ran.failed(
        4,
        &["cannot remove base", "sandboxes/other", "snapshots/other"],
    );
    drop(holder);
    world.snapdeck(&["remove", "base", "--local"]).ok();
}

#[test]
fn only_users_who_can_write_to_a_directory_can_open_its_locks() {
    for (dir, lock) in [("755", "600"), ("775", "644")] {
        let world = World::new();
        let image = world.snapshot("other", 1);
        world.put(&image, "app");
        run("chmod", &[dir, &world.path("snapshots")]);
        let (child, gate) = world.start_to_gate("check", &["pull", "app"]);
        let file = world.path("snapshots/.app.qcow2.lock");
        assert_eq!(run("stat", &["-c", "%a", &file]).trim(), lock);
        gate.open();
        wait_for_exit(child).ok();
    }
}
