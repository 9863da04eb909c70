//! The HTTP API: a real server in the lab, called with curl.
mod access;
mod annotations;
mod clients;
mod connections;
mod errors;
mod jobs;
mod locks;
mod openapi;
mod restart;
mod runner;
pub(crate) mod server;
mod spec;
mod targets;
mod waiting;

use crate::common::World;

/// Creates an environment with an object `app`.
fn with_object() -> World {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    world
}
