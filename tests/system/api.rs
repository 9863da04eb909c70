//! The HTTP API as its callers meet it: a real server on the lab, and curl.
mod access;
mod described;
mod errors;
mod jobs;
mod locks;
mod restart;
mod server;
mod spec;

use crate::common::World;

/// A world with an object `app` in its bucket.
fn with_object() -> World {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    world
}
