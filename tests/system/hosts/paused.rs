//! A sandbox paused for its snapshot is resumed, even if the connection, libvirtd or snapdeck fails.

use std::time::Duration;

use crate::common::{
    Fault, State, World, same_disk, signal, wait_for_exit, wait_for_exit_within, wait_until,
};
use crate::hosts::assert_no_temporary_files;

/// Adds a running sandbox; returns its ID.
fn with_guest(world: World) -> (World, String) {
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", State::Running);
    (world, id)
}

#[test]
fn the_host_resumes_the_guest_if_the_connection_stays_lost() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let (world, id) = with_guest(World::over_ssh(1));
        world.configure("reconnect_secs = 3");
        let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
        assert_eq!(world.state(&id), "paused");
        world.link().cut(fault);
        wait_until(
            "the guest is resumed while the connection is still cut",
            || world.state(&id) == "running",
        );
        wait_for_exit_within(child, Duration::from_secs(100)).failed(5, &["host alpha"]);
        world.link().heal();
        assert_no_temporary_files(&world);
        wait_until("qemu-img has ended", || gate.has_ended());
        assert!(!world.is_in_bucket("app"));
        assert_eq!(world.state(&id), "running");
    }
}

#[test]
fn the_guest_is_resumed_after_a_short_fault() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let (world, id) = with_guest(World::over_ssh(1));
        let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
        world.link().cut(fault);
        gate.open();
        world.link().heal();
        let ran = wait_for_exit(child);
        wait_until("the guest is resumed", || world.state(&id) == "running");
        match ran.code {
            Some(0) => assert!(same_disk(&world.get("app"), &world.disk("vm"))),
            // The host resumed the guest before the reconnect: the data read is inconsistent.
            _ => {
                assert!(matches!(ran.code, Some(4 | 5)), "{ran:?}");
                assert!(!world.is_in_bucket("app"));
            }
        }
        assert_no_temporary_files(&world);
    }
}

#[test]
fn the_host_resumes_the_guest_of_a_killed_snapdeck_without_connection() {
    let (world, id) = with_guest(World::over_ssh(1));
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    world.link().cut(Fault::Frozen);
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("the guest is resumed", || world.state(&id) == "running");
    wait_until("qemu-img has ended", || gate.has_ended());
    world.link().heal();
    assert_no_temporary_files(&world);
}

#[test]
fn a_snapshot_succeeds_although_libvirtd_was_restarted() {
    let (world, id) = with_guest(World::private());
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    world.kill_libvirtd();
    world.start_libvirtd();
    assert_eq!(world.state(&id), "paused");
    gate.open();
    wait_for_exit(child).ok();
    assert_eq!(world.state(&id), "running");
    assert!(same_disk(&world.get("app"), &world.disk("vm")));
    assert_no_temporary_files(&world);
}
