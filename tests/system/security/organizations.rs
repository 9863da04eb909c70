//! A link in the place of the directory of an organization, planted before and while snapdeck works in it.

use std::io::Read;
use std::process::{Child, Stdio};

use super::{QEMU_USER, Target, as_qemu_user};
use crate::common::{World, exists, run, sha256};

/// Replaces the directory ORG by a link to OUTSIDE and back, again and again.
const SWAP: &str = r#"
import os, sys, time
org, outside = sys.argv[1:3]
def attempt(call, *args):
    try: call(*args)
    except OSError: pass
print('ready', flush=True)
end = time.time() + 100
while time.time() < end:
    attempt(os.rename, org, org + '-real')
    attempt(os.symlink, outside, org)
    attempt(os.unlink, org)
    attempt(os.rename, org + '-real', org)
"#;

struct Swap(Child);

impl Swap {
    fn start(org: &str, outside: &str) -> Self {
        let mut swap = super::attacker::command("/usr/bin/python3");
        swap.args(["-S", "-c", SWAP, org, outside]);
        let mut swap = swap.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 5];
        swap.stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        Self(swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the directory of root that the links lead to, with files of the names of a snapshot's. No other user may change it.
fn outside(world: &World) -> String {
    let dir = world.path("outside");
    std::fs::create_dir(&dir).unwrap();
    world.image(&format!("{dir}/victim.qcow2"), 1);
    for name in ["victim.json", "victim_VARS.fd"] {
        std::fs::write(
            format!("{dir}/{name}"),
            "SECRET of root, which is longer than a header",
        )
        .unwrap();
    }
    run("chmod", &["-R", "go-rwx", &dir]);
    run("chmod", &["711", &dir]);
    dir
}

/// Describes all files of a directory, with owners, modes, inodes and times.
fn state(dir: &str) -> String {
    let files = run("find", &[dir, "-printf", "%P %i %u:%g %m %s %T@ %C@\n"]);
    format!(
        "{files}{}",
        run("sh", &["-c", "cat \"$1\"/* | sha256sum", "sh", dir])
    )
}

#[test]
fn a_link_in_the_place_of_the_directory_is_refused() {
    let Some(target) = Target::new() else { return };
    target.world.use_organization();
    let world = &target.world;
    let image = world.path("scratch/victim.qcow2");
    world.image(&image, 1);
    world.put(&image, "acme/victim");
    let outside = outside(world);
    let before = state(&outside);
    target.link("snapshots/acme", &outside);
    for args in [
        &["pull", "acme/victim"][..],
        &["pull", "acme/victim", "--overwrite"],
        &["remove", "acme/victim", "--local"],
        &["upload", "acme/victim", "--overwrite"],
        &["adopt", "acme/victim"],
        &["verify", "acme/victim", "--repair"],
        &["note", "acme/victim", "text", "--local"],
        &["pin", "acme/victim", "--local"],
        &["sandbox", "new", &world.id("n"), "acme/victim"],
    ] {
        let ran = world.snapdeck(args);
        assert!(ran.code.is_some_and(|code| code != 0), "{args:?}: {ran:?}");
        assert!(
            !ran.stdout.contains("SECRET") && !ran.stderr.contains("SECRET"),
            "{ran:?}"
        );
        assert_eq!(state(&outside), before, "{args:?}: {ran:?}");
    }
    world
        .snapdeck(&["pull", "acme/victim"])
        .failed(4, &["snapshots/acme is not a directory"]);
    assert_eq!(sha256(&world.get("acme/victim")), sha256(&image));
    std::fs::remove_file(world.path("snapshots/acme")).unwrap();
    world.snapdeck(&["pull", "acme/victim"]).ok();
    assert_eq!(sha256(&world.snapshot_path("acme/victim")), sha256(&image));
}

#[test]
fn a_link_that_takes_its_place_meanwhile_is_not_followed() {
    let Some(target) = Target::new() else { return };
    target.world.use_organization();
    let world = &target.world;
    let image = world.path("scratch/victim.qcow2");
    world.image(&image, 1);
    world.put(&image, "acme/victim");
    let outside = outside(world);
    let before = state(&outside);
    let org = world.path("snapshots/acme");
    for args in [
        &["pull", "acme/victim"][..],
        &["pull", "acme/victim", "--overwrite"],
        &["note", "acme/victim", "text", "--local"],
        &["verify", "acme/victim"],
        &["adopt", "acme/victim"],
        &["upload", "acme/victim", "--overwrite"],
        &["remove", "acme/victim", "--local"],
    ] {
        for _ in 0..2 {
            let swap = Swap::start(&org, &outside);
            // It may fail, or be quicker than the attack.
            let ran = world.snapdeck(args);
            drop(swap);
            assert!(ran.code.is_some(), "{ran:?}");
            assert_eq!(state(&outside), before, "{args:?}: {ran:?}");
            target.assert_untouched();
            let script = "cd \"$1\" || exit; [ ! -L acme ] || rm acme; [ ! -d acme-real ] || mv -T acme-real acme";
            as_qemu_user("sh", &["-c", script, "sh", &world.path("snapshots")]);
        }
    }
    run(
        "find",
        &[&world.path("snapshots"), "-mindepth", "1", "-delete"],
    );
    world.put(&image, "acme/victim");
    world.snapdeck(&["pull", "acme/victim"]).ok();
    assert_eq!(sha256(&world.snapshot_path("acme/victim")), sha256(&image));
    assert!(!exists(&format!("{org}-real")));
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let Some(target) = Target::new() else { return };
    target.world.use_organization();
    let world = &target.world;
    let image = world.path("scratch/victim.qcow2");
    world.image(&image, 1);
    world.put(&image, "acme/victim");
    let org = world.path("snapshots/acme");
    std::fs::create_dir(&org).unwrap();
    run("chown", &["nobody", &org]);
    world
        .snapdeck(&["pull", "acme/victim"])
        .failed(4, &["acme belongs to another user"]);
    // QEMU's user can give that name to a directory of root.
    run("chown", &["root", &org]);
    world
        .snapdeck(&["pull", "acme/victim"])
        .failed(4, &["acme belongs to another user"]);
    run("chown", &[QEMU_USER, &org]);
    world.snapdeck(&["pull", "acme/victim"]).ok();
}
