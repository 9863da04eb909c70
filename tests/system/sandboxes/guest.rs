//! Guests that run and write.

use serde_json::json;

use crate::common::{World, exists};

#[test]
fn a_custom_base_image_is_made_and_its_sandboxes_find_what_was_written() {
    let world = World::new();
    world.use_guest();
    world.snapshot("base", 0);
    let (config, next) = (world.id("config"), world.id("next"));

    world.snapdeck(&["sandbox", "new", &config, "base"]).ok();
    world.snapdeck(&["sandbox", "start", &config]).ok();
    let guest = world.guest(&config);
    let alive = guest.wait_for_heartbeat(0);
    let written = guest.wait_for_heartbeat_after(&alive).head;
    let told = world.snapdeck(&["sandbox", "stop", &config, "--json"]).ok();
    assert_eq!(told.json()["state"], "shut-off");
    assert!(guest.was_power_button_pressed(), "it shut itself down");
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
    assert!(found.head >= written, "{found:?}, and {written} were told");
    assert_eq!(found.whole, found.head);
}

#[test]
fn a_saved_one_goes_on_where_it_was() {
    let world = World::new();
    world.use_guest();
    world.snapshot("base", 0);
    let id = world.id("a");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--start"])
        .ok();
    let guest = world.guest(&id);
    guest.wait_for_heartbeat(0);

    let told = world
        .snapdeck(&["sandbox", "save", &id, "--json"])
        .ok()
        .json();
    assert_eq!(told["state"], "saved");
    let saved = guest.heartbeats().pop().unwrap();
    assert_eq!(world.state(&id), "shut off");
    let told = world.snapdeck(&["sandbox", "restore", &id, "--json"]).ok();
    assert_eq!(told.json()["state"], json!("running"));

    let after = guest.wait_for_heartbeat_after(&saved);
    assert_eq!(after.boot, saved.boot, "it was booted anew");
    assert_eq!(guest.boots().len(), 1);
    // Nothing between was lost or done twice.
    let counts: Vec<u64> = guest.heartbeats().iter().map(|alive| alive.count).collect();
    assert!(
        counts.windows(2).all(|pair| pair[1] == pair[0] + 10),
        "{counts:?}"
    );
}
