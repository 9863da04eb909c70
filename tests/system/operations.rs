//! Operations: the real program, libvirt with QEMU and an S3 server; results are checked with another S3 client and
//! qemu-img. `make test` starts the lab.
mod corrupt;
mod create;
mod errors;
mod events;
mod foreign_files;
mod hostile_store;
mod incomplete;
mod interrupted;
mod invalid_objects;
mod listings;
mod open_files;
mod pull;
mod push;
mod remove;

use crate::common::{World, run, same_disk};
use serde_json::Value;

/// Asserts that an object is an intact standalone image whose contents equal those of `disk`.
#[track_caller]
fn assert_object_is(world: &World, name: &str, disk: &str) {
    let got = world.get(name);
    run("qemu-img", &["check", "-q", "-f", "qcow2", &got]);
    let info = run("qemu-img", &["info", "--output=json", &got]);
    let info: Value = serde_json::from_str(&info).unwrap();
    assert!(info.get("backing-filename").is_none(), "{info}");
    assert!(same_disk(&got, disk), "{name} differs from {disk}");
    std::fs::remove_file(got).unwrap();
}

/// Asserts that there are no temporary files.
#[track_caller]
fn assert_no_temporary_files(world: &World) {
    assert!(world.names("temp").is_empty(), "{:?}", world.names("temp"));
    let snapshots = world.names("snapshots");
    assert!(
        snapshots.iter().all(|name| !name.starts_with('.')),
        "{snapshots:?}"
    );
}
