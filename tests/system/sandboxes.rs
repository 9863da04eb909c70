//! The life of sandboxes as an operator meets it: the real binary, real libvirt with QEMU, guests that run. `make test`
//! starts what they need.
mod destroy;
mod guest;
mod new;
mod refused;
mod variables;
mod verbs;

use crate::common::World;

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
