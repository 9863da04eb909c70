//! Transient domains: libvirt forgets them when they end.

use serde_json::json;

use crate::common::{State, World, exists};
use crate::sandboxes::assert_no_sandbox;

/// A sandbox whose running domain has no definition.
fn transient(world: &World) -> String {
    let id = world.sandbox("a", "base", State::Running);
    world.virsh(&["undefine", &id]);
    id
}

#[test]
fn stop_and_force_off_keep_the_disk_of_a_transient_domain() {
    let world = World::new();
    world.snapshot("base", 0);
    for flags in [&["--force"][..], &["--force-after", "1"]] {
        let id = transient(&world);
        let ran = world
            .snapdeck(&[&["sandbox", "stop", &id, "--json"], flags].concat())
            .ok();
        let expected = json!({"host": "alpha", "id": id, "state": "shut-off", "changed": true});
        assert_eq!(ran.json(), expected);
        assert!(ran.stderr.contains("was transient"), "{ran:?}");
        assert!(!world.virsh(&["list", "--all", "--name"]).contains(&id));
        assert!(exists(&world.disk("a")));
        world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    }
}

#[test]
fn destroy_removes_a_transient_domain_with_its_disk() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = transient(&world);
    let ran = world.snapdeck(&["sandbox", "destroy", &id, "--yes"]).ok();
    assert!(ran.stderr.contains("was transient"), "{ran:?}");
    assert!(ran.stderr.contains(&world.disk("a")), "{ran:?}");
    assert_no_sandbox(&world, &id);
}

#[test]
fn a_transient_domain_is_paused_resumed_and_published() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = transient(&world);
    world.snapdeck(&["create", &id, "app"]).ok();
    world.snapdeck(&["sandbox", "pause", &id]).ok();
    world.snapdeck(&["push", &id, "other"]).ok();
    world.snapdeck(&["sandbox", "resume", &id]).ok();
    assert_eq!(world.state(&id), "running");
}

#[test]
fn a_transient_domain_is_reset_but_not_restarted() {
    let world = World::new();
    world.snapshot("base", 0);
    let id = transient(&world);
    world
        .snapdeck(&["sandbox", "restart", &id])
        .failed(4, &[&id, "it is transient", "reset"]);
    assert_eq!(world.state(&id), "running");
    world.snapdeck(&["sandbox", "reset", &id]).ok();
    assert_eq!(world.state(&id), "running");
}
