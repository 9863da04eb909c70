//! The operations as an operator meets them: the real binary, real libvirt with QEMU, a real S3 server, and
//! another S3 client and qemu-img as judges. `make test` starts what they need.
mod create;
mod followed;
mod interrupted;
mod listings;
mod pull;
mod push;
mod remove;
mod trouble;
mod unfit;

use crate::common::{World, run, same_disk};
use serde_json::Value;

/// The object is a sound image that needs no other file, and its disk equals `disk`.
#[track_caller]
fn assert_object_is(world: &World, name: &str, disk: &str) {
    let got = world.get(name);
    run("qemu-img", &["check", "-q", "-f", "qcow2", &got]);
    let info = run("qemu-img", &["info", "--output=json", &got]);
    let info: Value = serde_json::from_str(&info).unwrap();
    assert!(info.get("backing-filename").is_none(), "{info}");
    assert!(same_disk(&got, disk), "{name} is another disk than {disk}");
    std::fs::remove_file(got).unwrap();
}

/// No operation left anything on the way.
#[track_caller]
fn assert_nothing_left(world: &World) {
    assert!(world.names("temp").is_empty(), "{:?}", world.names("temp"));
    let snapshots = world.names("snapshots");
    assert!(
        snapshots.iter().all(|name| !name.starts_with('.')),
        "{snapshots:?}"
    );
}
