//! Guests that run and write.

use serde_json::json;

use crate::common::{World, exists};

#[test]
fn a_custom_base_image_has_the_data_written_by_its_guest() {
    let world = World::new();
    world.use_guest();
    world.snapshot("base", 0);
    let (config, next) = (world.id("config"), world.id("next"));

    world.snapdeck(&["sandbox", "new", &config, "base"]).ok();
    world.snapdeck(&["sandbox", "start", &config]).ok();
    let guest = world.guest(&config);
    let alive = guest.wait_for_heartbeat(0);
    let written = guest.wait_for_heartbeat_after(&alive).head;
    let stopped = world.snapdeck(&["sandbox", "stop", &config, "--json"]).ok();
    assert_eq!(stopped.json()["state"], "shut-off");
    assert!(
        guest.was_power_button_pressed(),
        "the guest was not shut down by its power button"
    );
    world.snapdeck(&["push", &config, "myapp"]).ok();
    world
        .snapdeck(&["sandbox", "destroy", &config, "--yes"])
        .ok();
    assert!(!exists(&world.disk("config")));
    world.snapdeck(&["pull", "myapp"]).ok();
    world
        .snapdeck(&["sandbox", "new", &next, "myapp", "--start"])
        .ok();

    let guest = world.guest(&next);
    guest.wait_for_heartbeat(0);
    let found = guest.boots().remove(0);
    assert!(
        found.head >= written,
        "{found:?}, but record {written} was written"
    );
    assert_eq!(found.whole, found.head);
}

#[test]
fn a_restored_sandbox_continues_without_a_reboot() {
    let world = World::new();
    world.use_guest();
    world.snapshot("base", 0);
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--start"])
        .ok();
    let guest = world.guest(&id);
    guest.wait_for_heartbeat(0);

    let saved_sandbox = world
        .snapdeck(&["sandbox", "save", &id, "--json"])
        .ok()
        .json();
    assert_eq!(saved_sandbox["state"], "saved");
    let saved = guest.heartbeats().pop().unwrap();
    assert_eq!(world.state(&id), "shut off");
    let restored = world.snapdeck(&["sandbox", "restore", &id, "--json"]).ok();
    assert_eq!(restored.json()["state"], json!("running"));

    let after = guest.wait_for_heartbeat_after(&saved);
    assert_eq!(after.boot, saved.boot, "the guest was rebooted");
    assert_eq!(guest.boots().len(), 1);
    // No heartbeat was lost or repeated.
    let counts: Vec<u64> = guest.heartbeats().iter().map(|alive| alive.count).collect();
    assert!(
        counts.windows(2).all(|pair| pair[1] == pair[0] + 10),
        "{counts:?}"
    );
}

#[test]
fn a_restart_shuts_the_guest_down_and_a_reset_does_not() {
    let world = World::new();
    world.use_guest();
    world.snapshot("base", 0);
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--start"])
        .ok();
    let guest = world.guest(&id);
    guest.wait_for_heartbeat(0);

    let changed = |verb: &str| {
        let result = world
            .snapdeck(&["sandbox", verb, &id, "--json"])
            .ok()
            .json();
        let expected = json!({"host": "alpha", "id": id, "state": "running", "changed": true});
        assert_eq!(result, expected);
    };
    changed("reset");
    guest.wait_for_heartbeat(1);
    assert!(!guest.was_power_button_pressed());

    changed("restart");
    guest.wait_for_heartbeat(2);
    assert!(guest.was_power_button_pressed());
    assert_eq!(guest.boots().len(), 3);
}
