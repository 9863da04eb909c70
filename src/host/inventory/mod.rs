//! Inventory of a host: its sandboxes, snapshots and images, and the users of files.

pub(crate) mod cache;
mod chain;
pub(crate) mod directory_id;
pub(crate) mod file_source;
mod references;
pub(crate) mod scan;
pub(crate) mod sharing;
pub(crate) mod users;
