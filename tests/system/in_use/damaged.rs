//! Chains that are damaged or lead back into themselves: named, removable, and no obstacle for other files.

use super::{overlay, overlay_unchecked};
use crate::common::{State, World, exists, run};

/// Sets the backing file in a header without a check.
fn rebase(path: &str, backing: &str) {
    run(
        "qemu-img",
        &[
            "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, path,
        ],
    );
}

#[test]
fn a_loop_is_named_and_removable_and_does_not_block_others() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    world.snapshot("free", 0);
    let other = world.sandbox("other", "base", State::Off);
    let (a, b) = (world.disk("a"), world.disk("b"));
    overlay(&a, &base);
    overlay(&b, &a);
    rebase(&a, &b);
    let id = world.id("a");
    world.define(&id, &a);

    // No qemu-img is started on it: it would not end.
    for verb in [["push", &id], ["create", &id]] {
        world
            .snapdeck(&[&verb[..], &["new"]].concat())
            .failed(1, &["does not end", &id]);
    }
    let doctor = world.snapdeck(&["doctor"]);
    assert!(doctor.stdout.contains("does not end"), "{doctor:?}");

    world.snapdeck(&["remove", "free", "--local"]).ok();
    world
        .snapdeck(&["sandbox", "destroy", &other, "--yes"])
        .ok();
    world.snapdeck(&["remove", "base", "--local"]).ok();
    // It has a domain, which uses both files; then neither has a user.
    world
        .snapdeck(&["sandbox", "destroy", &world.id("b"), "--yes"])
        .failed(4, &["in use by", &id]);
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    assert!(!exists(&a) && exists(&b));
    world
        .snapdeck(&["sandbox", "destroy", &world.id("b"), "--yes"])
        .failed(3, &[&b, "no record of it"]);
    assert!(exists(&b));
}

#[test]
fn images_that_are_their_own_base_can_be_removed() {
    let world = World::new();
    let path = world.snapshot("self", 0);
    rebase(&path, &path);
    let (one, two) = (world.snapshot("one", 0), world.snapshot("two", 0));
    rebase(&one, &two);
    rebase(&two, &one);
    let listed = world.snapdeck(&["snapshots", "--json"]).ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
    for name in ["self", "one", "two"] {
        world.snapdeck(&["remove", name, "--local"]).ok();
    }
}

#[test]
fn a_loop_with_a_snapshot_in_it_keeps_that_snapshot_from_a_domain_only() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Off);
    rebase(&base, &world.disk("a"));
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["in use by", &id]);
    world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    world.snapdeck(&["remove", "base", "--local"]).ok();
}

#[test]
fn garbage_with_the_name_of_an_image_has_no_base() {
    let world = World::new();
    world.snapshot("base", 0);
    let other = world.sandbox("other", "base", State::Off);
    world.snapshot("free", 0);
    std::fs::write(world.disk("garbage"), vec![0x5a; 70_000]).unwrap();
    std::fs::write(world.disk("torn"), b"QFI\xfb\0\0\0\x03\0\0").unwrap();
    std::fs::write(world.disk("empty"), b"").unwrap();
    world.snapdeck(&["remove", "free", "--local"]).ok();
    world
        .snapdeck(&["sandbox", "destroy", &other, "--yes"])
        .ok();
    for short in ["garbage", "torn", "empty"] {
        let id = world.id(short);
        world
            .snapdeck(&["sandbox", "destroy", &id, "--yes"])
            .failed(3, &["no record of it"]);
        assert!(exists(&world.disk(short)));
    }
    world.snapdeck(&["remove", "base", "--local"]).ok();
}

#[test]
fn a_header_of_a_newer_version_may_have_any_base() {
    let world = World::new();
    world.snapshot("base", 0);
    let disk = world.disk("newer");
    overlay_unchecked(&disk, "/nonexistent");
    let mut bytes = std::fs::read(&disk).unwrap();
    bytes[77] = 1;
    std::fs::write(&disk, bytes).unwrap();
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["unknown features", &disk]);
    std::fs::remove_file(&disk).unwrap();
    world.snapdeck(&["remove", "base", "--local"]).ok();
}

#[test]
fn a_chain_through_more_files_than_libvirt_follows_blocks_snapshots_only() {
    let world = World::new();
    let base = world.snapshot("base", 0);
    let other = world.sandbox("other", "base", State::Off);
    let template = world.path("scratch/template");
    overlay_unchecked(&template, &world.path("scratch/i-0000"));
    let image = std::fs::read(&template).unwrap();
    let name = world.path("scratch/i-0000").into_bytes();
    let at = image.windows(name.len()).position(|part| part == name);
    let at = at.unwrap() + name.len() - 4;
    for number in 0..210 {
        let mut image = image.clone();
        image[at..at + 4].copy_from_slice(format!("{:04}", number + 1).as_bytes());
        std::fs::write(world.path(&format!("scratch/i-{number:04}")), image).unwrap();
    }
    overlay(&world.path("scratch/i-0210"), &base);
    let long = world.disk("long");
    overlay_unchecked(&long, &world.path("scratch/i-0000"));
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["base"]);
    world
        .snapdeck(&["sandbox", "destroy", &other, "--yes"])
        .ok();
    world
        .snapdeck(&["remove", "base", "--local"])
        .failed(4, &["more than 200 images", &long]);
}
