//! Tests that need qemu-img, but no root and no libvirt.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod cli_usage;
mod compose;
mod settings;
mod written;
