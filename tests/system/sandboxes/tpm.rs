//! Sandboxes on a host with a TPM emulator (swtpm) and on one without. In the lab alpha has swtpm and beta does not.

use crate::common::{Host, World};
use crate::sandboxes::assert_no_sandbox;

/// Returns whether the host has the state of a sandbox's TPM.
fn has_tpm_state(host: &Host, uuid: &str) -> bool {
    host.run_on_host(&["find", "/var/lib/libvirt/swtpm", "-name", uuid])
        .contains(uuid)
}

#[test]
fn a_new_sandbox_has_a_tpm_if_the_host_has_swtpm() {
    let world = World::hosts(2);
    for (host, has_tpm) in [(&world.hosts[0], true), (&world.hosts[1], false)] {
        host.snapshot("base", 0);
        let id = host.id("a");
        let new = [
            "sandbox", "new", &id, "base", "--host", &host.name, "--start",
        ];
        world.snapdeck(&new).ok();
        let xml = host.virsh(&["dumpxml", &id]);
        assert_eq!(xml.contains("<tpm model='tpm-crb'>"), has_tpm, "{xml}");
        let uuid = host.virsh(&["domuuid", &id]);
        let uuid = uuid.trim();
        if has_tpm {
            assert!(has_tpm_state(host, uuid));
        }

        // The state of the TPM is kept while the sandbox is off, and removed with it.
        let on_host = ["--host", &host.name];
        world
            .snapdeck(&[&["sandbox", "stop", &id, "--force"], &on_host[..]].concat())
            .ok();
        if has_tpm {
            assert!(has_tpm_state(host, uuid));
        }
        for verb in ["start", "save", "restore"] {
            world
                .snapdeck(&[&["sandbox", verb, &id], &on_host[..]].concat())
                .ok();
        }
        assert_eq!(host.state(&id), "running");
        world
            .snapdeck(&[&["sandbox", "destroy", &id, "--yes"], &on_host[..]].concat())
            .ok();
        assert_no_sandbox(host, &id);
        if has_tpm {
            assert!(!has_tpm_state(host, uuid));
        }
    }
}

#[test]
fn two_sandboxes_with_a_tpm_start_at_the_same_time() {
    let world = World::new();
    world.snapshot("base", 0);
    let ids = [world.id("a"), world.id("b")];
    let start = |id: &String| world.start(&["sandbox", "new", id, "base", "--start"]);
    for child in ids.each_ref().map(start) {
        crate::common::wait_for_exit(child).ok();
    }
    for id in &ids {
        assert_eq!(world.state(id), "running");
    }
}
