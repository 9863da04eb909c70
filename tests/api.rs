//! The HTTP API as its callers meet it: a real server on the lab, and curl.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

#[path = "api/access.rs"]
mod access;
mod common;
#[path = "api/described.rs"]
mod described;
#[path = "api/errors.rs"]
mod errors;
#[path = "api/jobs.rs"]
mod jobs;
#[path = "api/locks.rs"]
mod locks;
#[path = "api/restart.rs"]
mod restart;
#[path = "api/server.rs"]
mod server;
#[path = "api/spec.rs"]
mod spec;

use common::World;

/// A world with an object `app` in its bucket.
fn with_object() -> World {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    world
}
