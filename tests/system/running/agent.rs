//! A guest agent freezes the guest's file systems before the point in time and thaws them after it, also after a fault.
//! The agent is a fake, a shell script in the guest (tests/lab/guest.init); libvirt, QEMU and the channel are real.

use crate::common::{World, consistent_records, signal, wait_for_exit, wait_until};
use crate::running::BusyGuest;

#[test]
fn file_systems_are_frozen_at_the_point_in_time_and_thawed() {
    let busy = BusyGuest::with_arguments(World::new(), "scatter agent");
    let (world, id) = (&busy.world, &busy.id);
    let result = world.snapdeck(&["create", id, "app", "--json"]).ok().json();
    assert_eq!(result["method"], "backup");
    assert_eq!(result["consistency"], "quiesced");
    assert_eq!(world.manifest("app")["consistency"], "quiesced");
    let frozen = busy.guest.freezes();
    assert_eq!(frozen.len(), 1);
    assert_eq!(consistent_records(&world.get("app")), frozen[0]);
    wait_until("the file systems are thawed", || {
        busy.guest.thaw_count() == 1
    });
    busy.assert_intact();
}

#[test]
fn the_watchdog_thaws_the_guest_of_a_killed_snapdeck() {
    let busy = BusyGuest::with_arguments(World::new(), "scatter agent");
    let child = busy.world.start(&["create", &busy.id, "app"]);
    wait_until("the file systems are frozen", || {
        busy.guest.freezes().len() == 1
    });
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("the file systems are thawed", || {
        busy.guest.thaw_count() == 1
    });
    busy.assert_intact();
}
