//! Inventory of a host: its sandboxes, snapshots and images.

pub(crate) mod cache;
pub(crate) mod file_source;
pub(crate) mod scan;
