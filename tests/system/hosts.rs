//! Hosts over SSH, and what goes wrong with them and the lines to them: each fault ends in a good result or in one
//! clear error in time, and leaves nothing. `make test` starts what they need.
mod crashed;
mod cut;
mod frozen;
mod login;
mod paused;
mod several;
mod there;

use crate::common::{World, until};

/// What a job had on the way there goes, if late, and no snapshot is half there.
#[track_caller]
fn assert_nothing_stays(world: &World) {
    until("the temporary directory is gone", || {
        world.names("temp").is_empty()
    });
}
