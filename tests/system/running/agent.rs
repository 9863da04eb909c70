//! A guest agent brings the guest's writes to rest before the moment, and lets them go on after it, whatever happens.
//! The agent is a fake, a shell script in the guest (tests/lab/guest.init); libvirt, QEMU and the channel are real.

use crate::common::{World, consistent_records, signal, wait_for_exit, wait_until};
use crate::running::Busy;

#[test]
fn the_guest_is_at_rest_at_the_moment_and_writes_again_after_it() {
    let busy = Busy::with_arguments(World::new(), "scatter agent");
    let (world, id) = (&busy.world, &busy.id);
    let told = world.snapdeck(&["create", id, "app", "--json"]).ok().json();
    assert_eq!(told["method"], "backup");
    assert_eq!(told["consistency"], "quiesced");
    assert_eq!(world.manifest("app")["consistency"], "quiesced");
    let frozen = busy.guest.freezes();
    assert_eq!(frozen.len(), 1);
    assert_eq!(consistent_records(&world.get("app")), frozen[0]);
    wait_until("the guest writes again", || busy.guest.thaw_count() == 1);
    busy.assert_intact();
}

#[test]
fn killed_while_the_guest_is_at_rest_its_writes_go_on() {
    let busy = Busy::with_arguments(World::new(), "scatter agent");
    let child = busy.world.start(&["create", &busy.id, "app"]);
    wait_until("the guest is at rest", || busy.guest.freezes().len() == 1);
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("the guest writes again", || busy.guest.thaw_count() == 1);
    busy.assert_intact();
}
