//! UEFI variables of sandboxes, which are part of their snapshots.

use crate::common::{State, World, exists, run, sha256};

/// Creates an environment with UEFI and a snapshot `base` that has variables; also returns their checksum.
fn with_variables(hosts: usize) -> (World, String) {
    let world = World::hosts(hosts);
    world.reconfigure("firmware = \"bios\"", "firmware = \"secure-uefi\"");
    world.snapshot("base", 0);
    let variables = world.path("snapshots/base_VARS.fd");
    write_random(&variables);
    (world, sha256(&variables))
}

/// Writes a file of random bytes, as long as the firmware's variables.
fn write_random(path: &str) {
    let of = format!("of={path}");
    run(
        "dd",
        &[
            "if=/dev/urandom",
            &of,
            "bs=540672",
            "count=1",
            "iflag=fullblock",
            "status=none",
        ],
    );
}

#[test]
fn variables_that_another_program_keeps_for_a_base_are_used() {
    let (world, sum) = with_variables(1);
    let kept = world.path("nvram/base_VARS.fd");
    std::fs::rename(world.path("snapshots/base_VARS.fd"), &kept).unwrap();
    let variables = |id: &str| world.path(&format!("nvram/{id}_VARS.fd"));
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    assert_eq!(sha256(&variables(&id)), sum);
    assert_eq!(sha256(&kept), sum);
    // Those beside the image come first.
    write_random(&world.path("snapshots/base_VARS.fd"));
    let own = sha256(&world.path("snapshots/base_VARS.fd"));
    let other = world.id("b");
    world.snapdeck(&["sandbox", "new", &other, "base"]).ok();
    assert_eq!(sha256(&variables(&other)), own);
    // A sandbox that has the name of a snapshot keeps its variables.
    world.snapshot(&id, 0);
    let third = world.id("c");
    let ran = world.snapdeck(&["-v", "sandbox", "new", &third, &id]).ok();
    assert!(
        ran.stderr
            .contains(&format!("not using {}", variables(&id))),
        "{}",
        ran.stderr
    );
    assert!(!exists(&variables(&third)));
    // And destroying a sandbox leaves those of the base.
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    assert!(exists(&kept) && !exists(&variables(&id)));
}

#[test]
fn variables_that_qemus_user_could_have_written_are_not_those_of_a_base() {
    let (world, _) = with_variables(1);
    let kept = world.path("nvram/base_VARS.fd");
    let beside = world.path("snapshots/base_VARS.fd");
    std::fs::rename(&beside, &kept).unwrap();
    let odd = world.path("scratch/odd");
    std::fs::write(&odd, "QFI\u{fb} no flash").unwrap();
    let bad: [(&str, &dyn Fn()); 4] = [
        ("can be changed by another user", &|| {
            run("chmod", &["666", &kept]);
        }),
        ("other names", &|| {
            run("chmod", &["644", &kept]);
            std::fs::hard_link(&kept, world.path("nvram/other.fd")).unwrap();
        }),
        ("no raw image", &|| {
            std::fs::remove_file(world.path("nvram/other.fd")).unwrap();
            run("truncate", &["-s", "0", &kept]);
        }),
        ("no raw image", &|| {
            run("cp", &[&odd, &kept]);
        }),
    ];
    for (number, (words, change)) in bad.into_iter().enumerate() {
        change();
        let id = world.id(&format!("a{number}"));
        let ran = world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
        assert!(ran.stderr.contains("not using"), "{words}: {ran:?}");
        assert!(
            !exists(&world.path(&format!("nvram/{id}_VARS.fd"))),
            "{words}"
        );
    }
}

#[test]
fn variables_are_pushed_and_pulled_with_the_snapshot() {
    let (world, sum) = with_variables(2);
    let beta = &world.hosts[1];
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--host", "alpha"])
        .ok();
    let variables =
        |host: &crate::common::Host, id: &str| host.path(&format!("nvram/{id}_VARS.fd"));
    assert_eq!(sha256(&variables(&world, &id)), sum);

    // The variables of the sandbox are uploaded, not those of its base.
    write_random(&variables(&world, &id));
    let sum = sha256(&variables(&world, &id));
    world
        .snapdeck(&["push", &id, "app", "--host", "alpha"])
        .ok();
    let listed = world.snapdeck(&["objects", "--json"]).ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");

    let other = world.id("b");
    let new = ["sandbox", "new", &other, "app", "--pull", "--host", "beta"];
    world.snapdeck(&new).ok();
    assert_eq!(sha256(&beta.path("snapshots/app_VARS.fd")), sum);
    assert_eq!(sha256(&variables(beta, &other)), sum);
    assert!(
        !beta
            .names("snapshots")
            .iter()
            .any(|name| name.starts_with('.'))
    );
    let listed = world.snapdeck(&["snapshots", "--host", "beta", "--json"]);
    assert_eq!(listed.ok().json().as_array().unwrap().len(), 1);

    world
        .snapdeck(&["sandbox", "destroy", &other, "--yes", "--host", "beta"])
        .ok();
    assert!(!exists(&variables(beta, &other)));
    let remove = ["remove", "app", "--local", "--bucket", "--host", "beta"];
    world.snapdeck(&remove).ok();
    assert!(!exists(&beta.path("snapshots/app_VARS.fd")));
    let objects = world.s5cmd(&["ls", "{}/*"]);
    assert!(!objects.status.success(), "the bucket has {objects:?}");
}

#[test]
fn a_base_without_variables_uses_those_of_the_firmware() {
    let (world, _) = with_variables(1);
    std::fs::remove_file(world.path("snapshots/base_VARS.fd")).unwrap();
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--memory", "256M", "--start"])
        .ok();
    let variables = world.path(&format!("nvram/{id}_VARS.fd"));
    assert!(exists(&variables));
    // Only a running guest writes them.
    world.snapdeck(&["sandbox", "stop", &id, "--force"]).ok();
    let sum = sha256(&variables);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(sha256(&world.path("snapshots/app_VARS.fd")), sum);
}

#[test]
fn variables_are_replaced_only_with_overwrite() {
    let (world, sum) = with_variables(1);
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();

    // On the host.
    let local = world.path("snapshots/app_VARS.fd");
    write_random(&local);
    let local_sum = sha256(&local);
    world
        .snapdeck(&["pull", "app"])
        .failed(4, &[&local, "differs"]);
    assert_eq!(sha256(&local), local_sum);
    assert!(!exists(&world.snapshot_path("app")));
    world.snapdeck(&["pull", "app", "--overwrite"]).ok();
    assert_eq!(sha256(&local), sum);

    // In the bucket: an image without variables removes those of the replaced one.
    let plain = world.sandbox("plain", "base", State::Off);
    world
        .snapdeck(&["push", &plain, "app"])
        .failed(4, &["already exists"]);
    world.snapdeck(&["push", &plain, "app", "--overwrite"]).ok();
    world.snapdeck(&["remove", "app", "--local"]).ok();
    assert!(!exists(&local));
    world.snapdeck(&["pull", "app"]).ok();
    assert!(
        !exists(&local),
        "the variables of the replaced object were pulled"
    );
}

#[test]
fn leftover_variables_of_another_snapshot_are_not_used() {
    let (world, _) = with_variables(1);
    let leftover = world.path("scratch/leftover");
    write_random(&leftover);
    let put = world.s5cmd(&["cp", &leftover, "{}/app_VARS.fd"]);
    assert!(put.status.success(), "{put:?}");
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world
        .snapdeck(&["push", &id, "app"])
        .failed(4, &["app_VARS.fd already exists", "--overwrite"]);
    assert!(!world.is_in_bucket("app"));
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();
}

/// Defines a domain whose UEFI variables are `variables`, with the disk of a sandbox.
fn define_with_variables(world: &World, id: &str, disk: &str, variables: &str) {
    let xml = format!(
        "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory><os>\
         <type arch='x86_64' machine='q35'>hvm</type>\
         <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>\
         <nvram>{variables}</nvram></os><features><acpi/></features><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
         <source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
    );
    let file = world.path("scratch/domain.xml");
    std::fs::write(&file, xml).unwrap();
    world.virsh(&["define", &file]);
}

/// Removes the definition of a domain, so that nothing removes its variables.
fn undefine(world: &World, id: &str) {
    world.virsh(&["undefine", id, "--keep-nvram"]);
}

#[test]
fn destroy_keeps_the_variables_of_a_renamed_guest() {
    let world = World::new();
    world.snapshot("base", 0);
    let (old, new) = (world.id("old"), world.id("new"));
    let (variables, overlay) = (
        world.path(&format!("nvram/{old}_VARS.fd")),
        world.disk("new"),
    );
    write_random(&variables);
    let sum = sha256(&variables);
    let base = world.snapshot_path("base");
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &overlay,
    ];
    run("qemu-img", &create);
    define_with_variables(&world, &old, &overlay, &variables);
    world.virsh(&["domrename", &old, &new]);
    let ran = world.snapdeck(&["sandbox", "destroy", &old, "--yes"]);
    ran.failed(3, &[&old, "not found", "UEFI variables", &new]);
    assert_eq!(sha256(&variables), sum);
    // Nor does a file with the name of its disk make them leftovers.
    std::fs::copy(&overlay, world.disk("old")).unwrap();
    world
        .snapdeck(&["sandbox", "destroy", &old, "--yes"])
        .failed(3, &["no record of it"]);
    assert!(exists(&world.disk("old")));
    assert_eq!(sha256(&variables), sum);
    // They are its own: they are removed with it.
    world.snapdeck(&["sandbox", "destroy", &new, "--yes"]).ok();
    assert!(!exists(&variables) && !exists(&overlay));
}

#[test]
fn destroy_keeps_variables_outside_the_directories_for_them() {
    let world = World::new();
    world.snapshot("base", 0);
    for place in ["snapshots/base_VARS.fd", "scratch/own.fd"] {
        let variables = world.path(place);
        write_random(&variables);
        let sum = sha256(&variables);
        let id = world.sandbox("a", "base", State::Off);
        undefine(&world, &id);
        define_with_variables(&world, &id, &world.disk("a"), &variables);
        let ran = world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
        assert!(
            ran.stderr.contains(&format!("keeping {variables}")),
            "{ran:?}"
        );
        assert!(!exists(&world.disk("a")));
        assert_eq!(sha256(&variables), sum);
    }
}

#[test]
fn variables_that_another_domain_refers_to_under_another_path_stay() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.id("a");
    world.sandbox("other", "base", State::Off);
    undefine(&world, &world.id("other"));
    for link in ["symbolic", "hard"] {
        let variables = world.path(&format!("nvram/{id}_VARS.fd"));
        let _ = std::fs::remove_file(&variables);
        write_random(&variables);
        let sum = sha256(&variables);
        let alias = world.path(&format!("scratch/{link}.fd"));
        match link {
            "hard" => std::fs::hard_link(&variables, &alias).unwrap(),
            _ => std::os::unix::fs::symlink(&variables, &alias).unwrap(),
        }
        let sandbox = world.sandbox("a", "base", State::Off);
        undefine(&world, &sandbox);
        define_with_variables(&world, &id, &world.disk("a"), &variables);
        let other = world.id("other");
        define_with_variables(&world, &other, &world.disk("other"), &alias);
        let ran = world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
        assert!(
            ran.stderr.contains("keeping") && ran.stderr.contains(&other),
            "{ran:?}"
        );
        assert!(!exists(&world.disk("a")));
        assert_eq!(sha256(&variables), sum, "{link} link");
        undefine(&world, &other);
    }
}

#[test]
fn new_refuses_variables_that_a_domain_refers_to() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = world.id("a");
    world.sandbox("other", "base", State::Off);
    let other = world.id("other");
    undefine(&world, &other);
    // They do not exist yet: the domain was not started.
    let variables = world.path(&format!("nvram/{id}_VARS.fd"));
    define_with_variables(&world, &other, &world.disk("other"), &variables);
    let ran = world.snapdeck(&["sandbox", "new", &id, "base"]);
    ran.failed(4, &[&id, &other, &variables]);
    assert!(!exists(&world.disk("a")) && !exists(&variables));
    undefine(&world, &other);
}

#[test]
fn variables_that_were_not_found_do_not_replace_those_of_an_object() {
    let (world, _) = with_variables(1);
    let id = world.id("a");
    world.snapdeck(&["sandbox", "new", &id, "base"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();
    std::fs::remove_file(world.path(&format!("nvram/{id}_VARS.fd"))).unwrap();
    for verb in ["push", "create"] {
        world
            .snapdeck(&[verb, &id, "app", "--overwrite"])
            .failed(4, &["cannot overwrite", "UEFI variables", "were not found"]);
    }
    world.snapdeck(&["push", &id, "other"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    assert!(exists(&world.path("snapshots/app_VARS.fd")));
}

#[test]
fn variables_are_found_where_libvirt_keeps_them() {
    let world = World::over_ssh(1);
    let base = world.snapshot("base", 1);
    let (id, disk) = (world.id("a"), world.disk("a"));
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &disk,
        ],
    );
    let xml = world.path("scratch/domain.xml");
    let domain = format!(
        "<domain type='qemu'><name>{id}</name><memory unit='MiB'>128</memory>\
         <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>\
         <target dev='vda' bus='virtio'/></disk></devices></domain>"
    );
    std::fs::write(&xml, domain).unwrap();
    world.virsh(&["define", &xml]);
    world.virsh(&["start", &id]);
    world.virsh(&["destroy", &id]);
    assert!(
        !world.virsh(&["dumpxml", &id]).contains("_VARS.fd"),
        "the XML names the file"
    );
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let kept = format!("/var/lib/libvirt/qemu/nvram/{id}_VARS.fd");
    let kept = world.run_on_host(&["sha256sum", &kept]);
    assert!(
        kept.starts_with(&sha256(&world.path("snapshots/app_VARS.fd"))),
        "{kept}"
    );
    world.virsh(&["undefine", "--nvram", &id]);
}
