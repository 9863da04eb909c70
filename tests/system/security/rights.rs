//! Programs that read images, which run with the rights of another user than root.

use std::process::{Command, Stdio};

use super::{SECRET, Target, as_qemu_user};
use crate::common::{State, World, exists, find_program, only_local, output, run, same_disk};

/// Makes a program note the user that runs it before it runs; returns the path of the notes.
fn note_users(world: &World, program: &str) -> String {
    let notes = world.path("scratch/users");
    std::fs::write(&notes, "").unwrap();
    run("chmod", &["666", &notes]);
    let real = find_program(program);
    world.fake(
        program,
        &format!("echo \"$(id -un) $1\" >>{notes}; exec {real} \"$@\""),
    );
    notes
}

/// Makes the disk of a sandbox an overlay on a raw disk beside it, which has to be converted; returns the raw disk.
fn sandbox_on_raw_disk(target: &Target) -> (String, String) {
    let world = &target.world;
    let (id, disk, raw) = (
        world.id("a"),
        world.disk("a"),
        world.path("sandboxes/base.raw"),
    );
    std::fs::write(&raw, vec![5; 1 << 20]).unwrap();
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &raw, &disk,
    ];
    run("qemu-img", &create);
    run("chown", &["libvirt-qemu:kvm", &raw, &disk]);
    world.define(&id, &disk);
    (id, raw)
}

#[test]
fn images_are_not_read_with_the_rights_of_root() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let (id, raw) = sandbox_on_raw_disk(&target);
    let notes = note_users(world, "qemu-img");
    // As libvirt leaves them: not for everyone.
    run("chmod", &["600", &raw]);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["push", &id, "other", "--plan"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    world.snapdeck(&["verify", "app"]).ok();
    world.snapdeck(&["doctor"]);
    let notes = std::fs::read_to_string(notes).unwrap();
    for verb in ["measure", "convert", "check"] {
        let users: Vec<&str> = notes
            .lines()
            .filter_map(|line| line.strip_suffix(verb))
            .collect();
        assert!(!users.is_empty(), "{verb}: {notes}");
        assert!(!users.contains(&"root "), "{verb}: {notes}");
    }
    assert!(notes.contains("nobody check"), "{notes}");
    assert!(same_disk(&world.get("app"), &world.disk("a")));
    assert!(world.names("temp").is_empty());
}

#[test]
fn a_disk_that_is_kept_open_is_not_read_with_the_rights_of_root() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    let notes = note_users(world, "qemu-io");
    for mode in ["600", "644"] {
        run("chown", &["libvirt-qemu:kvm", &world.disk("a")]);
        run("chmod", &[mode, &world.disk("a")]);
        world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
    }
    let notes = std::fs::read_to_string(notes).unwrap();
    let users: Vec<&str> = notes.lines().collect();
    assert_eq!(users, ["libvirt-qemu -r", "nobody -r"]);
}

#[test]
fn without_setpriv_images_are_read_as_before() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let (id, _) = sandbox_on_raw_disk(&target);
    world.hide_programs(&["setpriv"]);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    assert!(same_disk(&world.get("app"), &world.disk("a")));
}

#[test]
fn root_opens_no_disk_that_qemus_user_hides_from_its_own_programs() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let (id, raw) = sandbox_on_raw_disk(&target);
    for hide in [&raw, &world.disk("a")] {
        assert!(as_qemu_user("chmod", &["0", hide]).status.success());
        let ran = world.snapdeck(&["push", &id, "app"]);
        ran.failed(1, &[&id, hide, "Permission denied for libvirt-qemu"]);
        assert!(as_qemu_user("chmod", &["644", hide]).status.success());
    }
    let sandboxes = world.path("sandboxes");
    assert!(as_qemu_user("chmod", &["0", &sandboxes]).status.success());
    world.snapdeck(&["push", &id, "app"]).failed(1, &[&id]);
    assert!(as_qemu_user("chmod", &["755", &sandboxes]).status.success());
    assert!(!world.is_in_bucket("app"));
    world.snapdeck(&["push", &id, "app"]).ok();
    target.assert_untouched();
}

#[test]
fn root_reads_only_those_images_of_a_chain_that_qemus_user_cannot_change() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let base = world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    let disk = world.disk("a");
    for dir in ["snapshots", "sandboxes"] {
        run("chown", &["root:root", &world.path(dir)]);
        run("chmod", &["755", &world.path(dir)]);
    }
    // The first of them may name any other file by now; the second is as libvirt leaves the disk of a guest that has stopped.
    for (changeable, hidden) in [(&disk, &base), (&base, &disk)] {
        run("chown", &["libvirt-qemu:kvm", changeable]);
        run("chmod", &["644", changeable]);
        run("chown", &["root:root", hidden]);
        run("chmod", &["600", hidden]);
        let notes = note_users(world, "qemu-io");
        world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
        let notes = std::fs::read_to_string(notes).unwrap();
        let mut users: Vec<&str> = notes.lines().collect();
        users.sort_unstable();
        assert_eq!(users, ["nobody -r", "root -r"]);
    }
}

/// Replaces FILE by a link to SECRET and back, as fast as it can.
const SWAP: &str = r#"
import os, sys, time
path, secret = sys.argv[1], sys.argv[2]
os.rename(path, path + '.keep')
end = time.time() + 100
while time.time() < end:
    os.symlink(secret, path + '.link'); os.rename(path + '.link', path); time.sleep(0.003)
    os.link(path + '.keep', path + '.file'); os.rename(path + '.file', path); time.sleep(0.003)
"#;

#[test]
fn a_backing_file_that_is_swapped_while_it_is_read_reveals_nothing() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let (id, raw) = sandbox_on_raw_disk(&target);
    let secret = &target.secret;
    run("truncate", &["-s", "1M", secret]);
    let mut swap = Command::new("setpriv");
    swap.args([
        "--reuid",
        "libvirt-qemu",
        "--regid",
        "kvm",
        "--clear-groups",
    ])
    .args(["--", "/usr/bin/python3", "-S", "-c", SWAP, &raw, secret])
    .stderr(Stdio::null());
    let mut swap = swap.spawn().unwrap();
    for attempt in 0..12 {
        let name = format!("app-{attempt}");
        let ran = world.snapdeck(&["push", &id, &name]);
        assert!(ran.code.is_some(), "{ran:?}");
        assert!(!ran.stderr.contains("SECRETHASH"), "{ran:?}");
        target.assert_not_in_bucket(&name);
    }
    swap.kill().unwrap();
    swap.wait().unwrap();
    assert!(std::fs::read_to_string(secret).unwrap().starts_with(SECRET));
}

#[test]
fn the_target_of_a_conversion_cannot_be_replaced_by_a_link() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let (id, _) = sandbox_on_raw_disk(&target);
    run("chown", &[super::QEMU_USER, &world.path("temp")]);
    for pattern in [r"snapdeck-.*", r".*"] {
        let attack = target.attack("temp", pattern);
        let ran = world.snapdeck(&["push", &id, "app", "--overwrite"]);
        drop(attack);
        assert!(ran.code.is_some(), "{ran:?}");
        target.assert_untouched();
        target.assert_not_in_bucket("app");
        run("find", &[&world.path("temp"), "-mindepth", "1", "-delete"]);
    }
}

#[test]
fn special_and_endless_files_in_place_of_others_hold_up_nothing() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    for name in ["app.json", ".app.qcow2.pull", ".app.qcow2.lock"] {
        let path = world.path(&format!("snapshots/{name}"));
        let kept = std::fs::read(&path).ok();
        let plant: [&dyn Fn(); 4] = [
            // Zeros without an end.
            &|| drop(run("mknod", &[&path, "c", "1", "5"])),
            &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            &|| drop(run("truncate", &["-s", "8T", &path])),
            &|| std::fs::create_dir(&path).unwrap(),
        ];
        for (index, plant) in plant.iter().enumerate() {
            let _ = std::fs::remove_file(&path);
            plant();
            for args in [
                &["snapshots", "--json"][..],
                &["pull", "app", "--overwrite"],
            ] {
                let since = std::time::Instant::now();
                let ran = world.snapdeck(args);
                let elapsed = since.elapsed().as_secs();
                assert!(ran.code.is_some(), "{name} {index} {args:?}: {ran:?}");
                assert!(elapsed < 60, "{name} {index} {args:?}: {elapsed} s");
            }
            let _ = output(Command::new("rm").args(["-rf", &path]));
        }
        if let Some(kept) = kept {
            std::fs::write(&path, kept).unwrap();
        }
    }
    assert!(exists(&world.snapshot_path("app")));
    target.assert_untouched();
}

#[test]
fn a_service_with_few_capabilities_reads_images() {
    // The host's commands are children of snapdeck.
    if only_local("sshd starts them with all capabilities") {
        return;
    }
    // Those of the unit; and without those that are needed for another user.
    let own = "-all,+chown,+dac_override,+fowner,+kill";
    for (capabilities, user) in [
        (format!("{own},+setgid,+setuid"), "nobody"),
        (own.to_owned(), "root"),
    ] {
        let Some(target) = Target::new() else { return };
        let world = &target.world;
        let image = world.snapshot("base", 1);
        world.put(&image, "app");
        run("chown", &[super::QEMU_USER, &world.path("snapshots")]);
        let notes = note_users(world, "qemu-img");
        let inner = world.command(&["pull", "app"]);
        let mut command = Command::new("setpriv");
        command.args(["--no-new-privs", "--bounding-set", &capabilities, "--"]);
        command.arg(inner.get_program()).args(inner.get_args());
        let variables = inner
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        command.env_clear().envs(variables);
        let ran = output(&mut command);
        assert!(ran.status.success(), "{capabilities}: {ran:?}");
        let notes = std::fs::read_to_string(notes).unwrap();
        assert!(notes.contains(&format!("{user} check")), "{notes}");
    }
}
