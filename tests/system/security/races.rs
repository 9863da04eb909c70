//! Links, FIFOs and other files in the place of what snapdeck writes, planted before and while it runs.

use super::{Target, as_qemu_user};
use crate::common::{State, exists, run, wait_until};

/// Puts an object `victim` into the bucket.
fn put_victim(target: &Target) {
    let image = target.world.path("scratch/victim.qcow2");
    target.world.image(&image, 1);
    target.world.put(&image, "victim");
}

#[test]
fn planted_files_in_the_place_of_a_pulls_are_not_written() {
    let Some(target) = Target::new() else { return };
    put_victim(&target);
    let world = &target.world;
    let planted = [
        "snapshots/.victim.qcow2.pull",
        "snapshots/.victim.qcow2.lock",
        "snapshots/victim.json",
        "snapshots/victim.qcow2",
    ];
    let missing = world.path("root-only/new");
    for name in planted {
        let path = world.path(name);
        let plant: [&dyn Fn(); 4] = [
            &|| target.link(name, &target.secret),
            &|| target.link(name, &missing),
            &|| assert!(as_qemu_user("mkfifo", &[&path]).status.success()),
            &|| std::fs::hard_link(&target.secret, &path).unwrap(),
        ];
        for (index, plant) in plant.iter().enumerate() {
            plant();
            let ran = world.snapdeck(&["pull", "victim"]);
            // Neither read, nor written, nor replaced.
            assert!(
                ran.code.is_some_and(|code| (1..=4).contains(&code)),
                "{name} {index}: {ran:?}"
            );
            std::fs::remove_file(&path).unwrap();
            let _ = std::fs::remove_file(world.path("snapshots/victim.json"));
            target.assert_untouched();
            assert!(!exists(&world.snapshot_path("victim")), "{name} {index}");
        }
    }
    world.snapdeck(&["pull", "victim"]).ok();
    assert_eq!(world.names("snapshots"), ["victim.qcow2"]);
}

#[test]
fn a_lock_that_is_a_link_ends_at_once_and_leaves_no_process() {
    let Some(target) = Target::new() else { return };
    put_victim(&target);
    let world = &target.world;
    let lock = world.path("snapshots/.victim.qcow2.lock");
    target.link("snapshots/.victim.qcow2.lock", &target.secret);
    let since = std::time::Instant::now();
    world
        .snapdeck(&["pull", "victim"])
        .failed(4, &["lock", "is not a regular file"]);
    assert!(since.elapsed().as_secs() < 15, "it waited");
    target.assert_untouched();
    wait_until("no shell on the host works on the lock", || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let names_lock = |process: &std::fs::DirEntry| {
            let read =
                |file| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
            matches!(read("comm").trim(), "sh" | "dash") && read("cmdline").contains(&lock)
        };
        processes.filter(names_lock).count() == 0
    });
}

#[test]
fn a_partial_file_that_is_replaced_by_a_link_meanwhile_is_not_followed() {
    let Some(target) = Target::new() else { return };
    put_victim(&target);
    let world = &target.world;
    for pattern in [r"\.victim\.qcow2\.pull", r"\.victim\.qcow2\.lock", r"\..*"] {
        for _ in 0..2 {
            let attack = target.attack("snapshots", pattern);
            // It may fail or be quicker than the attack.
            let ran = world.snapdeck(&["pull", "victim", "--overwrite"]);
            drop(attack);
            assert!(ran.code.is_some(), "{ran:?}");
            target.assert_untouched();
            run(
                "find",
                &[&world.path("snapshots"), "-mindepth", "1", "-delete"],
            );
        }
    }
    world.snapdeck(&["pull", "victim"]).ok();
}

#[test]
fn doctors_test_files_cannot_be_replaced_by_links() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    for dir in ["snapshots", "sandboxes"] {
        let attack = target.attack(dir, r"\.snapdeck-probe-.*");
        let ran = world.snapdeck(&["doctor"]);
        drop(attack);
        target.assert_untouched();
        assert!(
            ran.code.is_some() && !ran.stdout.contains("SECRET"),
            "{ran:?}"
        );
    }
    let checks = world.snapdeck(&["doctor"]).stdout;
    assert!(checks.contains("belongs to QEMU's user"), "{checks}");
}

#[test]
fn the_files_of_a_new_sandbox_cannot_be_replaced_by_links() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let base = world.snapshot("base", 1);
    let variables = world.path("snapshots/base_VARS.fd");
    std::fs::write(&variables, vec![7; 540_672]).unwrap();
    run("chown", &["libvirt-qemu:kvm", &base, &variables]);
    world.reconfigure("firmware = \"bios\"", "firmware = \"uefi\"");
    let id = world.id("n");
    let (disk, nvram) = (format!(r"{id}\.qcow2"), format!(r"{id}_VARS\.fd"));
    for (dir, pattern) in [
        ("sandboxes", &*disk),
        ("sandboxes", r"\..*\.backup"),
        ("sandboxes", r"\..*"),
        ("nvram", &nvram),
        ("nvram", r".*"),
    ] {
        let attack = target.attack(dir, pattern);
        let ran = world.snapdeck(&["sandbox", "new", &id, "base"]);
        drop(attack);
        assert!(ran.code.is_some(), "{ran:?}");
        target.assert_untouched();
        world.snapdeck(&["sandbox", "destroy", &id, "--yes"]);
        for dir in ["sandboxes", "nvram"] {
            run("find", &[&world.path(dir), "-mindepth", "1", "-delete"]);
        }
        target.assert_untouched();
    }
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
}

#[test]
fn files_of_a_backup_cannot_be_replaced_by_links() {
    for owns_directories in [false, true] {
        let Some(target) = Target::new() else { return };
        let world = &target.world;
        world.snapshot("base", 1);
        let id = world.sandbox("a", "base", State::Running);
        if !owns_directories {
            run(
                "chown",
                &[
                    "root:root",
                    &world.path("sandboxes"),
                    &world.path("snapshots"),
                ],
            );
        }
        let methods = if owns_directories {
            &["backup"][..]
        } else {
            &["backup", "copy"]
        };
        for running in methods {
            let config = std::fs::read_to_string(world.config()).unwrap();
            let method = format!("running = \"{running}\"\nowner = ");
            std::fs::write(world.config(), config.replacen("owner = ", &method, 1)).unwrap();
            let attack = target.attack("sandboxes", r"\..*\.backup");
            let name = format!("app-{running}");
            let ran = world.snapdeck(&["create", &id, &name]);
            drop(attack);
            std::fs::write(world.config(), config).unwrap();
            if !owns_directories {
                ran.ok();
            }
            target.assert_untouched();
            target.assert_not_in_bucket(&name);
            wait_until("the guest runs", || world.state(&id) == "running");
        }
    }
}
