//! `remove` on the host and in the bucket; a snapshot that a chain needs is kept.

use serde_json::json;

use crate::common::{State, World, exists, run};

#[test]
fn refused_if_an_overlay_was_based_on_it_meanwhile() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let overlay = world.path("sandboxes/new.qcow2");
    // When the processes that have the file open are looked for.
    world.fake(
        "find",
        &format!(
            "case \"$*\" in *-samefile*) /usr/bin/qemu-img create -q -f qcow2 -F qcow2 -b {base} {overlay} >&2 ;; esac\n\
             exec /usr/bin/find \"$@\""
        ),
    );
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["in use by", &overlay]);
    assert!(exists(&base));
}

#[test]
fn refused_with_the_names_of_dependent_sandboxes() {
    for state in [State::Running, State::Paused, State::Saved, State::Off] {
        let world = World::new();
        let base = world.snapshot("base", 0);
        world.put(&base, "base");
        let (a, b) = (
            world.sandbox("a", "base", state),
            world.sandbox("b", "base", State::Off),
        );
        for flags in [&["--local"][..], &["--local", "--bucket"]] {
            let ran = world.snapdeck(&[&["remove", "base"], flags].concat());
            ran.failed(4, &["cannot remove base", &a, &b]);
            assert!(exists(&base));
            assert!(
                world.is_in_bucket("base"),
                "an object is removed before all is checked"
            );
        }
        // Objects have no dependents.
        world.snapdeck(&["remove", "base", "--bucket"]).ok();
        assert!(exists(&base) && !world.is_in_bucket("base"));
    }
}

#[test]
fn refused_if_an_overlay_without_a_domain_needs_it() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let overlay = world.path("sandboxes/orphan.qcow2");
    create_overlay(&overlay, &base);
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["cannot remove base", &overlay]);
    assert!(exists(&base));
    std::fs::remove_file(overlay).unwrap();
    world.snapdeck(&["remove", "base", "--local"]).ok();
    assert!(!exists(&base));
}

#[test]
fn refused_if_a_foreign_domain_needs_it() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let (middle, disk) = (
        world.path("scratch/middle.qcow2"),
        world.path("scratch/foreign.qcow2"),
    );
    create_overlay(&middle, &base);
    create_overlay(&disk, &middle);
    let id = world.id("foreign");
    world.define(&id, &disk);
    let sandboxes = world.snapdeck(&["sandboxes", "--json"]).ok().json();
    assert_eq!(
        sandboxes,
        json!([]),
        "a domain outside sandboxes_dir is listed"
    );
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["cannot remove base", &id]);
    assert!(exists(&base));
}

#[test]
fn refused_if_another_snapshot_is_based_on_it() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    create_overlay(&world.snapshot_path("next"), &base);
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["cannot remove base", "next.qcow2"]);
    assert!(exists(&base));
}

#[test]
fn refused_if_it_is_the_disk_of_a_domain() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let id = world.id("direct");
    world.define(&id, &base);
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["cannot remove base", &id]);
    assert!(exists(&base));
}

#[test]
fn refused_if_an_overlay_names_it_by_a_symlink() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let link = world.path("scratch/link");
    std::os::unix::fs::symlink(world.path("snapshots"), &link).unwrap();
    let overlay = world.path("sandboxes/orphan.qcow2");
    create_overlay(&overlay, &format!("{link}/base.qcow2"));
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &[&overlay]);
    assert!(exists(&base));
}

#[test]
fn removed_on_the_host_in_the_bucket_or_both() {
    let world = World::new();
    let path = world.snapshot("app", 0);
    world.put(&path, "app");
    let result = world
        .snapdeck(&["remove", "app", "--local", "--json"])
        .ok()
        .json();
    assert_eq!(
        result,
        json!({"snapshotName": "app", "host": "alpha", "bucket": false})
    );
    assert!(!exists(&path) && world.is_in_bucket("app"));

    let result = world
        .snapdeck(&["remove", "app", "--bucket", "--json"])
        .ok()
        .json();
    assert_eq!(
        result,
        json!({"snapshotName": "app", "host": null, "bucket": true})
    );
    assert!(!world.is_in_bucket("app"));

    let path = world.snapshot("app", 0);
    world.put(&path, "app");
    world
        .snapdeck(&["remove", "app", "--local", "--bucket"])
        .ok();
    assert!(!exists(&path) && !world.is_in_bucket("app"));
}

#[test]
fn missing_in_one_of_two_is_a_warning_and_in_both_an_error() {
    let world = World::new();
    let both = ["remove", "app", "--local", "--bucket"];
    let path = world.snapshot("app", 0);
    let ran = world.snapdeck(&both).ok();
    assert!(
        ran.stderr.contains("warning: app is not in s3://"),
        "{ran:?}"
    );
    assert!(!exists(&path));

    let path = world.snapshot("app", 0);
    world.put(&path, "app");
    std::fs::remove_file(path).unwrap();
    let ran = world.snapdeck(&both).ok();
    assert!(
        ran.stderr.contains("warning: app is not on host alpha"),
        "{ran:?}"
    );
    assert!(!world.is_in_bucket("app"));

    world
        .snapdeck(&both)
        .failed(3, &["app is not on host alpha", "app is not in s3://"]);
    world
        .snapdeck(&["remove", "app", "--local"])
        .failed(3, &["app is not on host alpha"]);
    world
        .snapdeck(&["remove", "app", "--bucket"])
        .failed(3, &["app is not in s3://"]);
    world.snapdeck(&["remove", "app"]).failed(2, &["--local"]);
}

fn create_overlay(overlay: &str, base: &str) {
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay,
    ];
    run("qemu-img", &create);
}

#[test]
fn a_manifest_without_its_image_is_removed_and_another_programs_json_is_not() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    // A kill between the two deletions of a removal.
    assert!(world.s5cmd(&["rm", "{}/app.qcow2"]).status.success());
    world.snapdeck(&["remove", "app", "--bucket"]).ok();
    let left = world.s5cmd(&["ls", "{}/app.json"]);
    assert!(!left.status.success(), "{left:?}");
    let file = world.path("scratch/foreign.json");
    std::fs::write(&file, r#"{"builder":"packer"}"#).unwrap();
    assert!(world.s5cmd(&["cp", &file, "{}/app.json"]).status.success());
    world
        .snapdeck(&["remove", "app", "--bucket"])
        .failed(3, &["app"]);
    assert!(world.s5cmd(&["ls", "{}/app.json"]).status.success());
}

#[test]
fn variables_that_a_domain_refers_to_are_kept() {
    let world = World::new();
    world.snapshot("app", 0);
    let variables = world.path("snapshots/app_VARS.fd");
    std::fs::write(&variables, "variables").unwrap();
    let (id, file) = (world.id("other"), world.path("scratch/domain.xml"));
    let xml = format!(
        "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory><os>\
         <type arch='x86_64' machine='q35'>hvm</type>\
         <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>\
         <nvram>{variables}</nvram></os><features><acpi/></features></domain>"
    );
    std::fs::write(&file, xml).unwrap();
    world.virsh(&["define", &file]);
    let ran = world.snapdeck(&["remove", "app", "--local"]).ok();
    assert!(
        ran.stderr.contains("keeping") && ran.stderr.contains(&id),
        "{ran:?}"
    );
    assert!(!exists(&world.snapshot_path("app")) && exists(&variables));
    world.virsh(&["undefine", &id, "--keep-nvram"]);
}

#[test]
fn a_socket_among_the_overlays_blocks_nothing() {
    let world = World::new();
    world.snapshot("app", 0);
    let socket = world.path("sandboxes/monitor.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket);
    std::os::unix::fs::symlink("/", world.path("sandboxes/latest")).unwrap();
    world.snapdeck(&["remove", "app", "--local"]).ok();
    drop(listener);
}

#[test]
fn a_manifest_whose_image_is_gone_is_removed_unless_it_proves_a_missing_base() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    let (image, manifest) = (world.snapshot_path("app"), world.path("snapshots/app.json"));
    let based = world.sandbox("b", "app", State::Off);
    std::fs::remove_file(&image).unwrap();
    world
        .snapdeck(&["remove", "app", "--local"])
        .failed(4, &["cannot remove app", "is missing", &based]);
    assert!(exists(&manifest));
    world
        .snapdeck(&["sandbox", "destroy", &based, "--yes"])
        .ok();
    world.snapdeck(&["remove", "app", "--local"]).ok();
    assert!(!exists(&manifest));
    world
        .snapdeck(&["remove", "app", "--local"])
        .failed(3, &["app is not on host"]);
}
