//! What is said of snapshots, where they come from, and what a rule lets go: the real binary, real libvirt, a real S3
//! store. `make test` starts what they need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod common;
#[path = "retention/leftovers.rs"]
mod leftovers;
#[path = "retention/lineage.rs"]
mod lineage;
#[path = "retention/notes.rs"]
mod notes;
#[path = "retention/prune.rs"]
mod prune;
