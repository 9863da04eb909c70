//! The life of sandboxes as an operator meets it: the real binary, real libvirt with QEMU, guests that run. `make test`
//! starts what they need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod common;
#[path = "sandboxes/destroy.rs"]
mod destroy;
#[path = "sandboxes/guest.rs"]
mod guest;
#[path = "sandboxes/new.rs"]
mod new;
#[path = "sandboxes/refused.rs"]
mod refused;
#[path = "sandboxes/variables.rs"]
mod variables;
#[path = "sandboxes/verbs.rs"]
mod verbs;

use common::World;

/// Nothing of the sandbox is there: neither a domain, nor a file.
#[track_caller]
fn assert_no_sandbox(world: &World, id: &str) {
    let domains = world.virsh(&["list", "--all", "--name"]);
    assert!(!domains.lines().any(|name| name == id), "{domains}");
    for dir in ["sandboxes", "nvram"] {
        let names = world.names(dir);
        assert!(!names.iter().any(|name| name.contains(id)), "{names:?}");
    }
}
