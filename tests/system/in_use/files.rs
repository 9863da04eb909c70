//! One file with many names: links, other suffixes, relative names, options of block drivers, data files.

use std::os::unix::fs::symlink;

use super::{overlay, overlay_unchecked};
use crate::common::{State, World, exists, run};

/// Asserts that the snapshot `base` is not removed, and that its user is named.
#[track_caller]
fn refused(world: &World, user: &str) {
    let ran = world.snapdeck(&["remove", "base", "--local"]);
    ran.failed(4, &["cannot remove base", user]);
    assert!(exists(&world.snapshot_path("base")));
}

#[test]
fn a_relative_name_is_resolved_against_the_directory_of_the_link() {
    let world = World::new();
    world.snapshot("base", 0);
    // The overlay was moved to another disk, with a link in its place.
    let (link, target) = (world.disk("rel"), world.path("scratch/rel.qcow2"));
    overlay(&link, "../snapshots/base.qcow2");
    std::fs::rename(&link, &target).unwrap();
    symlink(&target, &link).unwrap();
    refused(&world, &link);
    let id = world.id("rel");
    world.define(&id, &link);
    refused(&world, &id);
    world.virsh(&["start", &id]);
    refused(&world, &id);
}

#[test]
fn an_overlay_is_found_by_its_content_whatever_its_name() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    for name in [
        "disk.img",
        "disk",
        ".hidden",
        "a b.qcow2",
        "disk.qcow2.bak",
        "x.qcow2.qcow2",
    ] {
        for dir in ["sandboxes", "snapshots"] {
            let path = world.path(&format!("{dir}/{name}"));
            overlay(&path, &base);
            refused(&world, &path);
            std::fs::remove_file(path).unwrap();
        }
    }
    // Files without a backing file are not users, nor are those that are not images.
    std::fs::write(
        world.path("sandboxes/readme.txt"),
        "no image, but longer than a header",
    )
    .unwrap();
    world.image(&world.path("sandboxes/alone.img"), 0);
    world.snapdeck(&["remove", "base", "--local"]).ok();
}

#[test]
fn an_overlay_with_a_name_that_is_not_text_is_a_user() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let base = world.snapshot("base", 0);
    let made = world.path("scratch/made");
    overlay(&made, &base);
    let odd = std::path::Path::new(&world.path("sandboxes")).join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::rename(made, &odd).unwrap();
    refused(&world, "caf");
    std::fs::remove_file(odd).unwrap();
}

#[test]
fn hard_links_are_one_file() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let other_name = world.path("scratch/other.qcow2");
    std::fs::hard_link(&base, &other_name).unwrap();
    let disk = world.path("sandboxes/a.qcow2");
    overlay(&disk, &other_name);
    refused(&world, &disk);
}

#[test]
fn an_overlay_with_a_second_name_is_not_destroyed_under_a_guest() {
    let (world, id) = World::with_sandbox(State::Off);
    let disk = world.disk("a");
    let (link, hard) = (world.disk("link"), world.disk("hard"));
    symlink(&disk, &link).unwrap();
    std::fs::hard_link(&disk, &hard).unwrap();
    for short in ["link", "hard"] {
        let other = world.id(short);
        world
            .snapdeck(&["sandbox", "destroy", &other, "--yes"])
            .failed(4, &["is in use by", &id]);
    }
}

#[test]
fn options_of_block_drivers_name_files() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let disk = world.disk("a");
    for backing in [
        format!(
            "json:{{\"driver\":\"qcow2\",\"file\":{{\"driver\":\"file\",\"filename\":\"{base}\"}}}}"
        ),
        format!("json:{{\"file.filename\":\"{base}\"}}"),
        format!("file:{base}"),
    ] {
        overlay_unchecked(&disk, &backing);
        refused(&world, &disk);
    }
    // Not understood: it may be any file. Another sandbox can be destroyed nevertheless.
    for backing in [
        format!(
            "json:{{\"driver\":\"blkdebug\",\"image\":{{\"driver\":\"file\",\"filename\":\"{base}\"}}}}"
        ),
        "json:{\"driver\":\"host_device\"}".to_owned(),
        "blkverify:/a:/b".to_owned(),
    ] {
        overlay_unchecked(&disk, &backing);
        refused(&world, "cannot determine the bases of these");
    }
    let other = world.sandbox("b", "base", State::Off);
    world
        .snapdeck(&["sandbox", "destroy", &other, "--yes"])
        .ok();
    // Not on this host.
    overlay_unchecked(&disk, "nbd://localhost/x");
    world.snapdeck(&["remove", "base", "--local"]).ok();
}

#[test]
fn an_external_data_file_is_used_by_its_image() {
    let world = World::new();
    let data = world.path("snapshots/data.qcow2");
    let disk = world.disk("a");
    let option = format!("data_file={data},data_file_raw=off");
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", &option, &disk, "1G"],
    );
    std::fs::remove_file(&data).unwrap();
    world.snapshot("data", 0);
    world
        .snapdeck(&["remove", "data", "--local"])
        .failed(4, &["cannot remove data", &disk]);
    assert!(exists(&data));
}

#[test]
fn a_name_with_two_endings_is_not_mixed_up_with_the_name_without() {
    let world = World::new();
    let path = world.snapshot("win", 0);
    let double = format!("{path}.qcow2");
    std::fs::copy(&path, &double).unwrap();
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["win"], "{listed}");
    world
        .snapdeck(&["remove", "win.qcow2.qcow2", "--local"])
        .failed(2, &["win.qcow2.qcow2"]);
    assert!(exists(&path) && exists(&double));
    world.snapdeck(&["remove", "win.qcow2", "--local"]).ok();
    assert!(!exists(&path) && exists(&double));
}
