//! The qcow2 format: bytes in, plan out, no I/O.
//!
//! A [`TableReader`] requests the bytes of an image's tables. From the [`Tables`] of a chain a [`Composer`] makes one
//! standalone image out of the base's bytes and the clusters of the overlays: it requests reads, takes their bytes, and
//! returns what to append, with tables and header at the end.
//!
//! Sections named in comments are those of QEMU's docs/interop/qcow2.

mod chain;
mod codec;
mod compose;
mod entry;
mod error;
mod flatten;
mod header;
mod layer_header;
mod refcounts;
mod tables;

#[cfg(test)]
mod tests;

pub use compose::{
    ComposedImage, Composer, Estimate, Layout, MetadataWriter, Options, ReadRequest,
};
pub use error::ComposeError;
pub use flatten::flatten;
pub use header::{
    HEADER_BYTES, HeaderError, OtherReferences, read_backing_format, read_header,
    read_other_references,
};
pub use tables::{TableBudget, TableReader, Tables};
