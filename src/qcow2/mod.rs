//! The qcow2 format alone: bytes in, facts out, no I/O of its own.

mod header;

pub use header::{HEADER_BYTES, HeaderError, read_header};
