//! The sandboxes, snapshots and files of a host: scanned as a whole, or only where something changed.

pub(crate) mod cache;
pub(crate) mod file_source;
pub(crate) mod scan;
