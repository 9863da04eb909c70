//! Hosts over SSH, and what goes wrong with them and the lines to them: each fault ends in a good result or in one
//! clear error in time, and leaves nothing. `make test` starts what they need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod common;
#[path = "hosts/cut.rs"]
mod cut;
#[path = "hosts/frozen.rs"]
mod frozen;
#[path = "hosts/login.rs"]
mod login;
#[path = "hosts/paused.rs"]
mod paused;
#[path = "hosts/several.rs"]
mod several;
#[path = "hosts/there.rs"]
mod there;

use common::{World, until};

/// What a job had on the way there goes, if late, and no snapshot is half there.
#[track_caller]
fn assert_nothing_stays(world: &World) {
    until("the temporary directory is gone", || {
        world.names("temp").is_empty()
    });
}
