//! Faults of hosts, of libvirt and of SSH connections: each ends in success or in one clear error within its deadline,
//! and leaves no files. `make test` starts the lab.
mod cancelled;
mod crashed;
mod file_system;
mod files;
mod frozen;
mod limits;
mod login;
mod paused;
mod transfers;
mod two_hosts;

use crate::common::{World, wait_until};

/// Waits until the job's temporary files on the host are removed.
#[track_caller]
fn assert_no_temporary_files(world: &World) {
    wait_until("the temporary directory is empty", || {
        world.names("temp").is_empty()
    });
}
