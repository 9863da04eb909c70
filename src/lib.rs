//! snapdeck: a console, a command line and (around the same engine) other faces for people who keep
//! Windows VM sandboxes on libvirt hosts, cut snapshots from them, and move those snapshots between
//! hosts and an S3-compatible bucket.
//!
//! An import goes down only: faces ([`console`], [`cli`]) → [`engine`] → [`ops`] → [`host`] and
//! [`bucket`] → [`qcow2`] → [`model`]. `tests/floors.rs` reads the sources and holds this.
//! [`settings`] and [`demo`] stand beside the faces.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod api;
pub mod bucket;
pub mod cli;
pub mod console;
pub mod demo;
pub mod engine;
pub mod host;
pub mod model;
pub mod ops;
pub mod qcow2;
pub mod settings;
