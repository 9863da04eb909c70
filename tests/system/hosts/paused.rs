//! A sandbox that was paused for its snapshot goes on, whatever becomes of the line, of libvirt, of snapdeck.

use std::time::Duration;

use crate::common::{
    Fault, State, World, same_disk, signal, wait_for_exit, wait_for_exit_within, wait_until,
};
use crate::hosts::assert_nothing_stays;

/// A world with a running sandbox on a host over SSH; its id.
fn with_guest(world: World) -> (World, String) {
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", State::Running);
    (world, id)
}

#[test]
fn cut_off_for_good_the_host_lets_the_guest_go_on_by_itself() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let (world, id) = with_guest(World::over_ssh(1));
        world.configure("reconnect_secs = 3");
        let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
        assert_eq!(world.state(&id), "paused");
        world.link().cut(fault);
        wait_until("the guest goes on, with the line still cut", || {
            world.state(&id) == "running"
        });
        wait_for_exit_within(child, Duration::from_secs(100)).failed(5, &["host alpha"]);
        world.link().heal();
        assert_nothing_stays(&world);
        wait_until("qemu-img is gone", || gate.has_ended());
        assert!(!world.is_in_bucket("app"));
        assert_eq!(world.state(&id), "running");
    }
}

#[test]
fn cut_off_for_a_moment_the_guest_goes_on_whatever_the_job_comes_to() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let (world, id) = with_guest(World::over_ssh(1));
        let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
        world.link().cut(fault);
        gate.open();
        world.link().heal();
        let ran = wait_for_exit(child);
        wait_until("the guest goes on", || world.state(&id) == "running");
        match ran.code {
            Some(0) => assert!(same_disk(&world.get("app"), &world.disk("vm"))),
            // The host let the guest go on before we were back: what was read is no snapshot.
            _ => {
                assert!(matches!(ran.code, Some(4 | 5)), "{ran:?}");
                assert!(!world.is_in_bucket("app"));
            }
        }
        assert_nothing_stays(&world);
    }
}

#[test]
fn killed_together_with_the_line_snapdeck_leaves_no_guest_paused() {
    let (world, id) = with_guest(World::over_ssh(1));
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    world.link().cut(Fault::Frozen);
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("the guest goes on", || world.state(&id) == "running");
    wait_until("qemu-img is gone", || gate.has_ended());
    world.link().heal();
    assert_nothing_stays(&world);
}

#[test]
fn with_libvirtd_killed_in_the_middle_the_guest_goes_on_and_the_snapshot_is_made() {
    let (world, id) = with_guest(World::private());
    let (child, gate) = world.start_to_gate("convert", &["create", &id, "app"]);
    world.kill_libvirtd();
    world.start_libvirtd();
    assert_eq!(world.state(&id), "paused");
    gate.open();
    wait_for_exit(child).ok();
    assert_eq!(world.state(&id), "running");
    assert!(same_disk(&world.get("app"), &world.disk("vm")));
    assert_nothing_stays(&world);
}
