//! Parents and children of snapshots, shared blocks, and the cost of a pull.

use crate::common::{State, World};

#[test]
fn info_shows_parents_children_and_the_cost_of_a_pull() {
    let world = World::new();
    let image = world.path("scratch/base.qcow2");
    world.image(&image, 40);
    world.put(&image, "base");
    world.snapdeck(&["pull", "base"]).ok();
    let id = world.sandbox("a", "base", State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();

    let app = world.snapdeck(&["info", "app", "--json"]).ok().json();
    let parents = app["lineage"]["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 1, "{app}");
    assert_eq!(parents[0]["name"], "base");
    assert_eq!(
        (&parents[0]["onHost"], &parents[0]["inBucket"]),
        (&true.into(), &true.into())
    );
    let size = app["object"]["sizeBytes"].as_u64().unwrap();
    let fetch = app["pullWouldFetchBytes"].as_u64().unwrap();
    let copy = app["pullWouldCopyBytes"].as_u64().unwrap();
    assert_eq!(fetch + copy, size, "{app}");
    assert!(copy >= 24 << 20, "blocks of 8 MiB shared with base: {app}");
    assert_eq!(app["lineage"]["sharedWithParentBytes"], copy);
    assert_eq!(app["lineage"]["shares"][0]["name"], "base", "{app}");
    assert_eq!(app["lineage"]["shares"][0]["bytes"], copy);
    let text = world.snapdeck(&["info", "app"]).ok().stdout;
    assert!(text.contains("base (on alpha, in the bucket)"), "{text}");
    assert!(text.contains("downloads"), "{text}");

    world.snapdeck(&["pull", "app"]).ok();
    let base = world.snapdeck(&["info", "base", "--json"]).ok().json();
    assert_eq!(base["lineage"]["children"][0], "app", "{base}");
    assert_eq!(base["pullWouldFetchBytes"], 0, "{base}");
    let shares = &base["lineage"]["shares"][0];
    assert_eq!(
        (&shares["name"], &shares["bytes"]),
        (&"app".into(), &copy.into())
    );

    // An object without a manifest is downloaded whole and has no relatives.
    world.put(&image, "plain");
    let plain = world.snapdeck(&["info", "plain", "--json"]).ok().json();
    assert_eq!(plain["pullWouldFetchBytes"], plain["object"]["sizeBytes"]);
    assert_eq!(plain["lineage"]["shares"], serde_json::json!([]));
}
