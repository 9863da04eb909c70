//! The life cycle of sandboxes: the real program, libvirt with QEMU, and running guests. `make test` starts the lab.
mod clone;
mod destroy;
mod guest;
mod new;
mod refused;
mod rename;
mod settings;
mod suspended;
mod tpm;
mod transient;
mod variables;
mod verbs;
mod xml;

use crate::common::Host;

/// Asserts that a sandbox has neither a domain nor a file on the host.
#[track_caller]
fn assert_no_sandbox(host: &Host, id: &str) {
    let domains = host.virsh(&["list", "--all", "--name"]);
    assert!(!domains.lines().any(|name| name == id), "{domains}");
    for dir in ["sandboxes", "nvram"] {
        let names = host.names(dir);
        assert!(!names.iter().any(|name| name.contains(id)), "{names:?}");
    }
}
