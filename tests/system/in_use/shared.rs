//! Directories that hosts share: users on one host are users for all.

use crate::common::{Host, State, World, exists};

/// Two hosts; beta uses alpha's snapshots, and with `sandboxes` also its overlays.
fn sharing_world(sandboxes: bool) -> World {
    let world = World::hosts(2);
    share(&world, "snapshots");
    if sandboxes {
        share(&world, "sandboxes");
    }
    world
}

/// Lets beta use a directory of alpha, as if it were mounted there.
fn share(world: &World, dir: &str) {
    let (alpha, beta) = (&world.hosts[0], &world.hosts[1]);
    std::fs::remove_dir(beta.path(dir)).unwrap();
    std::os::unix::fs::symlink(alpha.path(dir), beta.path(dir)).unwrap();
}

/// Lets the settings name a link to the socket of a host's libvirt; returns its path. Without it the host does not answer.
fn removable_socket(world: &World, host: &Host) -> String {
    let link = host.path("scratch/socket");
    std::os::unix::fs::symlink(host.libvirt_socket(), &link).unwrap();
    host.set_socket(&link);
    world.configure("");
    link
}

#[test]
fn a_base_of_another_host_is_kept() {
    for name in ["base", "acme/base"] {
        keeps_the_base_of_another_host(name);
    }
}

fn keeps_the_base_of_another_host(name: &str) {
    let world = sharing_world(false);
    world.use_organization();
    let beta = &world.hosts[1];
    std::fs::create_dir(world.path("snapshots/acme")).unwrap();
    let base = world.snapshot(name, 1);
    world.put(&base, name);
    let id = beta.sandbox("nb", name, State::Running);
    let user = format!("{id} on host beta");
    world
        .snapdeck(&["remove", name, "--local", "--host", "alpha"])
        .failed(4, &[&format!("cannot remove {name} on host alpha"), &user]);
    world
        .snapdeck(&["pull", name, "--overwrite", "--host", "alpha"])
        .failed(4, &[&format!("cannot replace {name} on host alpha"), &user]);
    let dry = ["prune", "--unused", "--local", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(plan["toRemove"].as_array().unwrap().len(), 0, "{plan}");

    let doctor = world.snapdeck(&["doctor"]);
    assert!(
        doctor.stdout.contains("is shared with host beta"),
        "{doctor:?}"
    );
    assert!(
        doctor.stdout.contains("is shared with host alpha"),
        "{doctor:?}"
    );

    world
        .snapdeck(&["sandbox", "destroy", &id, "--yes", "--host", "beta"])
        .ok();
    // Unused, it is listed once: both hosts have the same file.
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(plan["toRemove"].as_array().unwrap().len(), 1, "{plan}");
    world
        .snapdeck(&["remove", name, "--local", "--host", "alpha"])
        .ok();
    assert!(!exists(&base));
}

#[test]
fn an_overlay_of_another_host_is_neither_destroyed_nor_used_again() {
    let world = sharing_world(true);
    world.snapshot("base", 0);
    let id = world.sandbox("run", "base", State::Running);
    let disk = world.disk("run");
    for state in ["running", "shut off"] {
        assert_eq!(world.state(&id), state);
        world
            .snapdeck(&["sandbox", "destroy", &id, "--yes", "--host", "beta"])
            .failed(
                4,
                &[
                    "cannot destroy",
                    "host beta",
                    &format!("{id} on host alpha"),
                ],
            );
        world
            .snapdeck(&["sandbox", "new", &id, "base", "--host", "beta"])
            .failed(4, &["exists"]);
        assert!(exists(&disk));
        if state == "running" {
            world.virsh(&["destroy", &id]);
        }
    }
    // Its own host destroys it: what beta sees of the same file is not another user.
    world
        .snapdeck(&["sandbox", "destroy", &id, "--yes", "--host", "alpha"])
        .ok();
    assert!(!exists(&disk));
    world
        .snapdeck(&["remove", "base", "--local", "--host", "beta"])
        .ok();
}

#[test]
fn a_host_that_shares_a_directory_and_does_not_answer_counts_as_a_user() {
    let world = sharing_world(false);
    let socket = removable_socket(&world, &world.hosts[1]);
    let base = world.snapshot("base", 0);
    world.snapshot("other", 0);
    // Both are known once an operation has looked at them.
    world
        .snapdeck(&["remove", "other", "--local", "--host", "alpha"])
        .ok();
    std::fs::remove_file(&socket).unwrap();
    world
        .snapdeck(&["remove", "base", "--local", "--host", "alpha"])
        .failed(5, &["host beta"]);
    assert!(exists(&base));
}

#[test]
fn a_known_host_without_shared_directories_does_not_block_others() {
    let world = World::hosts(2);
    let socket = removable_socket(&world, &world.hosts[1]);
    for name in ["one", "two", "three"] {
        world.snapshot(name, 0);
    }
    world
        .snapdeck(&["remove", "one", "--local", "--host", "alpha"])
        .ok();
    std::fs::remove_file(&socket).unwrap();
    world
        .snapdeck(&["remove", "two", "--local", "--host", "alpha"])
        .ok();
    // Without that knowledge it may use any file.
    std::fs::remove_dir_all(world.dir.join("home")).unwrap();
    std::fs::create_dir(world.dir.join("home")).unwrap();
    world
        .snapdeck(&["remove", "three", "--local", "--host", "alpha"])
        .failed(5, &["host beta", "may share"]);
}

#[test]
fn a_directory_without_a_valid_id_may_be_shared() {
    let world = sharing_world(false);
    let base = world.snapshot("base", 0);
    world.snapshot("other", 0);
    world.hosts[1].sandbox("b", "base", State::Off);
    let id = world.path("snapshots/.snapdeck-directory-id");
    for text in ["", "\n", "snapdeck-directory-id zz\n"] {
        std::fs::write(&id, text).unwrap();
        world
            .snapdeck(&["remove", "base", "--local", "--host", "alpha"])
            .failed(4, &["which hosts share", ".snapdeck-directory-id"]);
        let prune = ["prune", "--unused", "--local", "--yes", "--json"];
        world.snapdeck(&prune);
        assert!(exists(&base) && exists(&world.snapshot_path("other")));
    }
    std::fs::remove_file(&id).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &id).unwrap();
    world
        .snapdeck(&["remove", "base", "--local", "--host", "alpha"])
        .failed(4, &["which hosts share"]);
    std::fs::remove_file(&id).unwrap();
    world
        .snapdeck(&["remove", "base", "--local", "--host", "alpha"])
        .failed(4, &["on host beta"]);
    world
        .snapdeck(&["remove", "other", "--local", "--host", "alpha"])
        .ok();
    assert!(exists(&base));
}

#[test]
fn a_full_disk_does_not_hide_that_a_directory_is_shared() {
    let world = World::hosts(2);
    let (alpha, beta) = (&world.hosts[0], &world.hosts[1]);
    let Some(_disk) = alpha.small_disk("snapshots", "4M") else {
        return;
    };
    let base = world.snapshot("base", 0);
    std::fs::remove_dir(beta.path("snapshots")).unwrap();
    std::os::unix::fs::symlink(alpha.path_on_host("snapshots"), beta.path("snapshots")).unwrap();
    beta.sandbox("b", "base", State::Off);
    let _ = std::fs::remove_file(alpha.path("snapshots/.snapdeck-directory-id"));
    let rest = format!("{}/rest", alpha.path_on_host("snapshots").display());
    // Fails once the file system is full.
    let _ = std::process::Command::new("dd")
        .args([
            "if=/dev/zero",
            &format!("of={rest}"),
            "bs=4096",
            "status=none",
        ])
        .output();
    world
        .snapdeck(&["remove", "base", "--local", "--host", "alpha"])
        .failed(4, &["which hosts share", "No space left on device"]);
    assert!(exists(&base));
}

#[test]
fn a_copied_directory_is_not_shared() {
    let world = World::hosts(2);
    let beta = &world.hosts[1];
    let base = world.snapshot("base", 0);
    world.snapshot("other", 0);
    world
        .snapdeck(&["remove", "other", "--local", "--host", "alpha"])
        .ok();
    let id = ".snapdeck-directory-id";
    assert!(exists(&world.path(&format!("snapshots/{id}"))));
    std::fs::copy(&base, beta.snapshot_path("base")).unwrap();
    std::fs::remove_file(beta.path(&format!("snapshots/{id}"))).unwrap();
    std::fs::copy(
        world.path(&format!("snapshots/{id}")),
        beta.path(&format!("snapshots/{id}")),
    )
    .unwrap();
    beta.sandbox("b", "base", State::Off);
    let doctor = world.snapdeck(&["doctor"]);
    assert!(
        doctor.stdout.contains("has the id of a directory of host"),
        "{doctor:?}"
    );
    world
        .snapdeck(&["remove", "base", "--local", "--host", "alpha"])
        .ok();
    assert!(!exists(&base) && exists(&beta.snapshot_path("base")));
}

#[test]
fn a_domain_elsewhere_that_uses_the_directory_by_another_path_counts() {
    let world = World::hosts(2);
    let beta = &world.hosts[1];
    let base = world.snapshot("base", 0);
    // beta has directories of its own, but one of its guests is based on alpha's snapshot.
    let disk = beta.path("scratch/foreign.qcow2");
    let mount = beta.path("scratch/mount");
    std::os::unix::fs::symlink(world.path("snapshots"), &mount).unwrap();
    super::overlay(&disk, &format!("{mount}/base.qcow2"));
    let id = beta.id("foreign");
    beta.define(&id, &disk);
    world
        .snapdeck(&["remove", "base", "--local", "--host", "alpha"])
        .failed(4, &[&format!("{id} on host beta")]);
    assert!(exists(&base));
}
