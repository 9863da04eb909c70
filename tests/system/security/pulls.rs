//! The private directory of a pull, while QEMU's user owns the directory that it is in.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

use super::{Target, as_qemu_user};
use crate::common::{exists, find_program, run, sha256, wait_for_exit, wait_until};

/// A pull of `victim` that waits in `qemu-img check`, with the whole image in its directory.
struct HeldPull<'a> {
    target: &'a Target,
    child: std::process::Child,
    image: String,
    dir: String,
}

impl<'a> HeldPull<'a> {
    fn start(target: &'a Target) -> Self {
        let world = &target.world;
        let image = world.path("scratch/victim.qcow2");
        world.image(&image, 1);
        world.put(&image, "victim");
        let gate = world.path("scratch/gate");
        let _ = std::fs::remove_dir_all(&gate);
        std::fs::create_dir(&gate).unwrap();
        run("chmod", &["777", &gate]);
        let (real, root) = (find_program("qemu-img"), world.dir.display());
        let wait = format!(
            "if [ \"$1\" = check ]; then touch {gate}/reached\n\
             until [ -e {gate}/go ] || [ ! -d {root} ]; do sleep 0.02; done; fi\n\
             exec {real} \"$@\""
        );
        world.fake("qemu-img", &wait);
        let child = world.start(&["pull", "victim"]);
        wait_until("the image is checked", || {
            exists(&format!("{gate}/reached"))
        });
        let dir = world.path("snapshots/.victim.qcow2.pull");
        Self {
            target,
            child,
            image,
            dir,
        }
    }

    /// Lets the pull continue; returns its exit code.
    fn finish(self) -> Option<i32> {
        let gate = self.target.world.path("scratch/gate");
        std::fs::write(format!("{gate}/go"), "").unwrap();
        wait_for_exit(self.child).code
    }
}

/// Runs a shell script as QEMU's user; returns its output.
fn attack(script: &str, dir: &str) -> String {
    let ran = as_qemu_user("sh", &["-c", script, "sh", dir]);
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[test]
fn qemus_user_neither_sees_nor_changes_what_is_in_the_directory_of_a_pull() {
    let Some(target) = Target::new() else { return };
    let pull = HeldPull::start(&target);
    let metadata = std::fs::metadata(&pull.dir).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o700));
    let script = "ls -A \"$1\"; cat \"$1/partial\" \"$1/.snapdeck-owner\"; ln \"$1/partial\" \"${1%/*}/linked\"
        rm -rf \"$1/partial\"; touch \"$1/new\"; rmdir \"$1\"; mv \"$1/partial\" \"${1%/*}/moved\"; chmod 777 \"$1\"
        mkdir \"${1%/*}/sub\" && mv \"$1\" \"${1%/*}/sub/\"; rmdir \"${1%/*}/sub\"";
    assert_eq!(attack(script, &pull.dir), "");
    // Nor by a descriptor of the program that checks the image.
    let partial = std::fs::metadata(format!("{}/partial", pull.dir)).unwrap();
    assert_eq!(partial.uid(), 0);
    let script = format!(
        "for file in /proc/[0-9]*/fd/*; do [ \"$(stat -L -c %i \"$file\")\" = {} ] || continue
            dd if=/dev/zero of=\"$file\" bs=1 seek=150000 count=1 conv=notrunc && echo changed; done 2>/dev/null",
        partial.ino()
    );
    assert_eq!(attack(&script, &pull.dir), "");
    let image = pull.image.clone();
    assert_eq!(pull.finish(), Some(0));
    let snapshot = target.world.snapshot_path("victim");
    let owner = std::fs::metadata(&snapshot).unwrap().uid();
    assert_ne!(owner, 0);
    assert_eq!(sha256(&snapshot), sha256(&image));
    assert_eq!(target.world.names("snapshots"), ["victim.qcow2"]);
    target.assert_untouched();
}

#[test]
fn a_directory_that_takes_the_place_of_a_pulls_is_not_used() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let fake = world.path("sandboxes/fake.qcow2");
    world.image(&fake, 1);
    run("chown", &[super::QEMU_USER, &fake]);
    let secret = &target.secret;
    for plant in [
        format!("mkdir \"$1\" && ln -s {secret} \"$1/partial\""),
        format!("mkdir -m 700 \"$1\" && cp {fake} \"$1/partial\""),
        format!("mkdir -m 777 \"$1\" && ln -s {secret} \"$1/.snapdeck-owner\""),
        format!("ln -s {} \"$1\"", world.path("root-only")),
        // Its own content is a file of the same name.
        format!("cp {fake} \"$1\""),
    ] {
        let pull = HeldPull::start(&target);
        attack(&format!("mv \"$1\" \"$1.away\" && {plant}"), &pull.dir);
        assert!(exists(&format!("{}.away", pull.dir)), "{plant}");
        let before = attack("ls -lAR \"$1\"", &pull.dir);
        let (image, dir) = (pull.image.clone(), pull.dir.clone());
        let code = pull.finish();
        // Locally it is published by the descriptor.
        let snapshot = world.snapshot_path("victim");
        match code {
            Some(0) => assert_eq!(sha256(&snapshot), sha256(&image), "{plant}"),
            _ => assert!(!exists(&snapshot), "{plant}: {code:?}"),
        }
        assert_eq!(attack("ls -lAR \"$1\"", &dir), before, "{plant}");
        target.assert_untouched();
        // What is planted is refused.
        if code != Some(0) {
            world
                .snapdeck(&["pull", "victim"])
                .failed(4, &[".victim.qcow2.pull"]);
            target.assert_untouched();
        }
        let snapshots = world.path("snapshots");
        run("find", &[&snapshots, "-mindepth", "1", "-delete"]);
    }
}

#[test]
fn the_directory_of_a_pull_does_not_become_that_of_another_snapshot() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let other = world.path("scratch/other.qcow2");
    world.image(&other, 1);
    world.put(&other, "other");
    let pull = HeldPull::start(&target);
    let moved = world.path("snapshots/.other.qcow2.pull");
    attack(&format!("mv \"$1\" {moved}"), &pull.dir);
    world
        .snapdeck(&["pull", "other"])
        .failed(4, &[".other.qcow2.pull"]);
    assert!(!exists(&world.snapshot_path("other")));
    attack(&format!("mv {moved} \"$1\""), &pull.dir);
    let image = pull.image.clone();
    assert_eq!(pull.finish(), Some(0));
    assert_eq!(sha256(&world.snapshot_path("victim")), sha256(&image));
    world.snapdeck(&["pull", "other"]).ok();
    assert_eq!(sha256(&world.snapshot_path("other")), sha256(&other));
    target.assert_untouched();
}

/// Changes a byte of the file PATH as soon as it can be opened, and puts its modification time back. Prints when it looks first, and
/// when it is done.
const CHANGE: &str = r#"
import os, sys, time
end = time.time() + 100
print('ready', flush=True)
while time.time() < end:
    try: file = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
    except OSError: continue
    before = os.fstat(file)
    byte = os.pread(file, 1, 150000)
    os.pwrite(file, bytes([byte[0] ^ 1]), 150000)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    print('changed', flush=True)
    break
"#;

#[test]
fn a_snapshot_that_its_owner_changes_at_once_does_not_pass_as_the_image_that_was_pulled() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let pull = HeldPull::start(&target);
    let snapshot = world.snapshot_path("victim");
    let mut attacker = super::attacker::command("/usr/bin/python3");
    attacker.args(["-S", "-c", CHANGE, &snapshot]);
    let mut attacker = attacker
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(attacker.stdout.take().unwrap());
    let mut lines = output.lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let image = pull.image.clone();
    assert_eq!(pull.finish(), Some(0));
    assert_eq!(lines.next().as_deref(), Some("changed"));
    attacker.wait().unwrap();
    assert_ne!(sha256(&snapshot), sha256(&image));
    world
        .snapdeck(&["adopt", "victim"])
        .failed(1, &["victim", "manifest"]);
}

#[test]
fn the_digests_of_a_pulled_snapshot_are_known_without_reading_it() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let image = world.path("scratch/victim.qcow2");
    world.image(&image, 1);
    world.put(&image, "victim");
    world.snapdeck(&["pull", "victim"]).ok();
    let ran = world.snapdeck(&["adopt", "victim", "--json"]).ok();
    let adopted: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(adopted["hashedBytes"], 0, "{ran:?}");
}
