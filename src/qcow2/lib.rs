//! The qcow2 format alone: bytes in, plan out, no I/O of its own.
//!
//! An image's tables are read by a [`TableReader`], which says which bytes it wants next. From the [`Tables`] of a
//! chain a [`Composer`] makes one standalone image out of the base's bytes and what the overlays changed: it says
//! what to read, takes the bytes, and gives back what to append, with tables and head at the end.
//!
//! Sections named in comments are those of QEMU's docs/interop/qcow2.

mod backing;
mod chain;
mod codec;
mod compose;
mod entry;
mod error;
mod header;
mod layer_header;
mod refcounts;
mod tables;

pub use backing::read_backing_format;
pub use compose::{Composer, Estimate, Layout, MetadataWriter, Options, ReadRequest};
pub use error::ComposeError;
pub use header::{HEADER_BYTES, HeaderError, read_header};
pub use tables::{TableReader, Tables};
