//! Files that root must not read for a user that may not read them itself.

use super::{SECRET, Target, as_qemu_user};
use crate::common::{State, World, exists, run};

fn define_with_variables(world: &World, id: &str, variables: &str) {
    let disk = world.disk("a");
    world.define_xml(&format!(
        "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='q35'>hvm</type>\
         <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram>{variables}</nvram></os>\
         <features><acpi/></features><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
         <source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
    ));
}

#[test]
fn variables_that_are_not_a_file_of_qemus_user_are_not_uploaded() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    world.virsh(&["undefine", &id]);
    let variables = world.path(&format!("nvram/{id}_VARS.fd"));
    define_with_variables(world, &id, &variables);
    let other = world.path("scratch/private.fd");
    std::fs::write(&other, SECRET).unwrap();
    run("chmod", &["600", &other]);
    run("chown", &["nobody", &other]);
    let plant: [&dyn Fn(); 4] = [
        &|| target.link(&format!("nvram/{id}_VARS.fd"), &target.secret),
        &|| std::fs::hard_link(&target.secret, &variables).unwrap(),
        &|| assert!(as_qemu_user("mkfifo", &[&variables]).status.success()),
        &|| std::fs::rename(&other, &variables).unwrap(),
    ];
    for (index, plant) in plant.iter().enumerate() {
        plant();
        for force_convert in [false, true] {
            if force_convert {
                world.force_convert();
            }
            let ran = world.snapdeck(&["push", &id, "app"]);
            assert!(ran.code != Some(0), "{index}: {ran:?}");
            assert!(!ran.stderr.contains("SECRET"), "{ran:?}");
        }
        let objects = world.s5cmd(&["ls", "{}/*"]);
        assert!(!objects.status.success(), "{index}: {objects:?}");
        std::fs::remove_file(&variables).unwrap();
    }
    target.assert_untouched();
    std::fs::write(&variables, vec![1; 540_672]).unwrap();
    run("chmod", &["600", &variables]);
    world.snapdeck(&["push", &id, "app"]).ok();
}

#[test]
fn snapshots_and_what_is_beside_them_are_not_read_through_links() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let id = {
        world.snapshot("base", 1);
        world.sandbox("a", "base", State::Off)
    };
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    for name in ["app.json", "app_VARS.fd", ".app.qcow2.damaged", "app.qcow2"] {
        let path = format!("snapshots/{name}");
        let aside = world.path("scratch/aside");
        let existed = std::fs::rename(world.path(&path), &aside).is_ok();
        for fifo in [false, true] {
            match fifo {
                false => target.link(&path, &target.secret),
                true => {
                    std::fs::remove_file(world.path(&path)).unwrap();
                    assert!(
                        as_qemu_user("mkfifo", &[&world.path(&path)])
                            .status
                            .success()
                    );
                }
            }
            for args in [
                &["verify", "app"][..],
                &["info", "app", "--json"],
                &["snapshots", "--json"],
                &["doctor"],
                &["note", "app", "golden", "--local"],
                &["pull", "app"],
                &["sandbox", "new", &world.id("n"), "app"],
            ] {
                let ran = world.snapdeck(args);
                assert!(ran.code.is_some(), "{name} {args:?}: {ran:?}");
                let text = format!("{}{}", ran.stdout, ran.stderr);
                assert!(!text.contains("SECRETHASH"), "{name} {args:?}: {text}");
                target.assert_untouched();
            }
            world.snapdeck(&["sandbox", "destroy", &world.id("n"), "--yes"]);
        }
        run("rm", &["-f", &world.path(&path)]);
        if existed {
            std::fs::rename(&aside, world.path(&path)).unwrap();
        }
        target.assert_untouched();
    }
}

#[test]
fn a_link_to_an_image_that_only_root_reads_does_not_become_the_disk_of_a_guest() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let (app, id) = (world.snapshot("app", 1), world.id("n"));
    let private = world.path("scratch/private.qcow2");
    std::fs::rename(&app, &private).unwrap();
    run("chmod", &["600", &private]);
    target.link("snapshots/app.qcow2", &private);
    let ran = world.snapdeck(&["sandbox", "new", &id, "app", "--start"]);
    ran.failed(4, &["app.qcow2", "is not a regular file"]);
    assert!(!exists(&world.disk("n")));
    assert!(!world.virsh(&["list", "--all", "--name"]).contains(&id));
}

#[test]
fn a_manifest_that_qemus_user_can_write_vouches_for_nothing() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    world.snapshot("app", 10);
    world.snapdeck(&["upload", "app"]).ok();
    let (path, json) = (world.snapshot_path("app"), world.path("snapshots/app.json"));
    let metadata = std::fs::metadata(&json).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 0);

    // It changes the image, and writes a manifest of its own, which is that of the changed one.
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    std::fs::remove_file(&json).unwrap();
    world.snapdeck(&["adopt", "app"]).ok();
    run("chown", &[super::QEMU_USER, &json]);
    let refused = world.snapdeck(&["verify", "app"]);
    refused.failed(4, &["differs from", "damaged or another image"]);
    // A note does not make it root's with all that is in it.
    world.snapdeck(&["note", "app", "mine"]).ok();
    let refused = world.snapdeck(&["verify", "app"]);
    refused.failed(4, &["differs from", "damaged or another image"]);

    // Nor does the time that it names, by which prune decides.
    let read_manifest =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap() };
    let mut forged = read_manifest();
    forged["created"] = "1990-01-01T00:00:00Z".into();
    std::fs::write(&json, forged.to_string()).unwrap();
    run("chown", &[super::QEMU_USER, &json]);
    world.snapdeck(&["adopt", "app"]).ok();
    let adopted = read_manifest();
    assert!(adopted["blocks"].is_string(), "{adopted}");
    assert_eq!(adopted["created"], serde_json::Value::Null);
    let metadata = std::fs::metadata(&json).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 0);
}
