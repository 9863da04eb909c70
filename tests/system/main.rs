//! Tests on real libvirt, QEMU, sshd and S3 servers, in the lab (`tests/lab/run.sh`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod adopt;
mod api;
mod bucket;
mod common;
mod console;
mod console_hosts;
mod copy;
mod doctor;
mod fanout;
mod first_run;
mod hosts;
mod in_use;
mod monitoring;
mod operations;
mod organizations;
mod pull_delta;
mod push_composed;
mod push_direct;
mod push_previous;
mod retention;
mod running;
mod sandboxes;
mod security;
mod untrusted_text;
mod upload;
