//! Composing a standalone image from a base and what its overlays changed.
//!
//! ```text
//! reader per layer -> Tables -> Composer::new      what will be read, written, kept
//!   next_read, next_read, ...                      as far ahead as the caller likes
//!   push(read, bytes, tail)                        in the order of the reads; appends to the tail
//! finish(tail) -> Ending: write(tail)*, head()     tables and refcounts, and the header at last
//! ```
//!
//! The composed file is [`ExitMode::head`], then what [`Composer::kept`] names of the base's bytes at identical offsets,
//! then the tail, from [`Composer::tail_start`] on. Which clusters of the overlays are all zeros, and how small
//! the others get, is learned on the way: hence tables and head come last. The version stays the base's, but for
//! zstd in a version 2 base, which becomes version 3. The compression type stays the base's too, for all compressed
//! clusters of an image share it; a base without any may become zstd.

mod metadata;
mod plan;
mod target;
mod writer;

use std::ops::Range;

use bytes::BytesMut;

use super::ComposeError;
use super::chain::Chain;
use super::codec::Decoder;
use super::layer_header::MAX_L1_BYTES;
use super::refcounts::{RefcountSize, Refcounts};
use super::tables::Tables;
use snapdeck_model::Compression;

pub use metadata::MetadataWriter;
pub use plan::ReadRequest;

use plan::ReadPlan;
use target::Target;
use writer::Writer;

/// QEMU's own limit of a refcount table, in bytes.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;

/// Where the clusters of the composed image stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The base's bytes stay where they are; what the overlays changed is appended. Clusters of the base that nothing
    /// references any more stay in the file, dead, and can be read by whoever has it.
    Append,
    /// Everything is written anew, in the order of the disk. Nothing is dead.
    Compact,
}

/// How to compose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Pack new clusters with zstd (QEMU 5.1 and later reads it) where the image can have it: appended to a base
    /// with clusters of deflate, new clusters stay unpacked. [`Composer::compression`] says what comes out.
    pub zstd_enabled: bool,
}

/// What composing takes, told before anything is read. Bytes; "at most" because zeros and packing are met later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Read from the layers.
    pub read_bytes: u64,
    /// Clusters written, at most.
    pub new_clusters: u64,
    /// Head and tail, at most.
    pub new_bytes: u64,
    /// Taken from the base at identical offsets.
    pub kept_bytes: u64,
    /// Of those, in clusters that nothing references any more.
    pub dead_bytes: u64,
    /// The composed file, at most.
    pub file_bytes: u64,
}

impl Estimate {
    /// The dead part of what is kept, from 0 to 1. Past a quarter the compact layout is worth its price.
    pub fn dead_fraction(&self) -> f64 {
        if self.kept_bytes == 0 {
            return 0.0;
        }
        self.dead_bytes as f64 / self.kept_bytes as f64
    }
}

/// Plans the image and packs its clusters; see the [module](self).
///
/// Memory: the tables of the chain, two bytes for each cluster of the file, eight for each cluster that is read, and
/// a few MiB of buffers. A disk of 40 GiB at 64 KiB a cluster takes less than 24 MiB.
pub struct Composer {
    chain: Chain,
    layout: Layout,
    plan: ReadPlan,
    writer: Writer,
    decoder: Decoder,
    version: u32,
    compression: Compression,
    compression_enabled: bool,
    estimate: Estimate,
    tail_start: u64,
    /// Reads pushed so far.
    pushed_reads: u64,
}

impl Composer {
    /// Plans the image that the topmost of `overlays` shows; they stand in order, the one right above the base first.
    /// Without overlays it is the base itself, rewritten. The caller vouches that each overlay's backing file is the
    /// layer below it.
    ///
    /// # Errors
    /// Why these images cannot be composed.
    pub fn new(
        base: Tables,
        overlays: Vec<Tables>,
        layout: Layout,
        options: Options,
    ) -> Result<Self, ComposeError> {
        let chain = Chain::new(base, overlays)?;
        let geometry = chain.geometry();
        let file_bytes = chain.base().file_bytes;
        let (plan, target, counts, tail_start) = match layout {
            Layout::Append => {
                let mut target = Target::from_base(chain.base());
                let plan = ReadPlan::for_append(&chain, &mut target);
                let counts = target.count_references(chain.base())?;
                (plan, target, counts, file_bytes)
            }
            Layout::Compact => {
                let mut counts = Refcounts::new(geometry, geometry.cluster_size())?;
                counts.reference(0..geometry.cluster_size())?;
                let plan = ReadPlan::for_compact(&chain);
                (
                    plan,
                    Target::empty(geometry),
                    counts,
                    geometry.cluster_size(),
                )
            }
        };
        let base = &chain.base().facts;
        let may_change = layout == Layout::Compact || !target.has_compressed();
        let packs = options.zstd_enabled && (base.compression == Compression::Zstd || may_change);
        let (version, compression) = match packs {
            true => (3, Compression::Zstd),
            false => (base.version, base.compression),
        };
        let first_cluster = geometry
            .round_up(tail_start)
            .ok_or(ComposeError::TooLarge("its file has no end"))?;
        let estimate = estimate(&chain, &plan, &target, &counts, layout, first_cluster)?;
        Ok(Self {
            writer: Writer::new(target, counts, tail_start, first_cluster, packs),
            chain,
            layout,
            plan,
            decoder: Decoder::default(),
            version,
            compression,
            compression_enabled: packs,
            estimate,
            tail_start,
            pushed_reads: 0,
        })
    }

    /// What it takes.
    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// How new clusters are packed; `None` where they are not.
    pub fn compression(&self) -> Option<Compression> {
        self.compression_enabled.then_some(self.compression)
    }

    /// Bytes of the composed file that are the base's at identical offsets, so that a store can copy them and their
    /// digests hold: all but the base's first cluster. Empty for [`Layout::Compact`].
    pub fn kept_range(&self) -> Range<u64> {
        let cluster = self.chain.geometry().cluster_size();
        match self.layout {
            Layout::Append => cluster..self.tail_start,
            Layout::Compact => cluster..cluster,
        }
    }

    /// Offset of the tail's first byte: the base's length, or the end of the head for [`Layout::Compact`].
    pub fn tail_start(&self) -> u64 {
        self.tail_start
    }

    /// What to read next; `None` when all was told. It may be called far ahead of [`push`](Self::push).
    pub fn next_read(&mut self) -> Option<ReadRequest> {
        self.plan.next_read(&self.chain)
    }

    /// Takes the bytes of [`Read::host`] and appends to `tail` what follows from them, perhaps nothing.
    /// Reads are pushed in the order they were told.
    ///
    /// # Errors
    /// [`LockError::WrongLength`] and [`LockError::OutOfOrder`] for a caller that errs, [`LockError::Undecodable`] for a
    /// damaged cluster. The composer is of no use then.
    pub fn push(
        &mut self,
        read: &ReadRequest,
        bytes: &[u8],
        tail: &mut BytesMut,
    ) -> Result<(), ComposeError> {
        self.accept(read, read.host_bytes(), bytes)?;
        let geometry = self.chain.geometry();
        let layer = self.chain.layer(read.layer);
        for piece in &read.extents {
            // Within `bytes`, whose length was looked at.
            let at = |offset: u64| (offset - read.host_range.start) as usize;
            let stored = bytes
                .get(at(piece.host.start)..at(piece.host.end))
                .unwrap_or_default();
            let Some(start) = piece.compressed_cluster_start else {
                self.writer.write(piece.guest.start, stored, tail)?;
                continue;
            };
            let kind = layer.facts.compression;
            let damaged = ComposeError::Undecodable(start);
            let decoded = self
                .decoder
                .decode(kind, stored, layer.geometry.cluster_len())
                .ok_or(damaged.clone())?;
            let whole = piece.guest.end - piece.guest.start == geometry.cluster_size();
            let fits = layer.geometry == geometry && kind == self.compression;
            if let Some(packed) = decoded
                .compressed_bytes
                .and_then(|length| stored.get(..length))
                && whole
                && fits
            {
                self.writer
                    .write_compressed(piece.guest.start, packed, decoded.plain, tail)?;
                continue;
            }
            let within = |guest: u64| (guest - start) as usize;
            let plain = decoded
                .plain
                .get(within(piece.guest.start)..within(piece.guest.end))
                .ok_or(damaged)?;
            self.writer.write(piece.guest.start, plain, tail)?;
        }
        Ok(())
    }

    /// As [`push`](Self::push), for a caller that reads the disk instead of the layer's file: `bytes` are those of
    /// [`Read::guest`], one range after the other.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub fn push_guest(
        &mut self,
        read: &ReadRequest,
        bytes: &[u8],
        tail: &mut BytesMut,
    ) -> Result<(), ComposeError> {
        self.accept(read, read.guest_bytes(), bytes)?;
        let mut rest = bytes;
        for piece in &read.extents {
            // At most one read's; the sum was looked at.
            let length = (piece.guest.end - piece.guest.start) as usize;
            let (plain, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            self.writer.write(piece.guest.start, plain, tail)?;
            rest = after;
        }
        Ok(())
    }

    /// Appends what is held back to `tail` and lays out the tables.
    ///
    /// # Errors
    /// [`LockError::OutOfOrder`] where reads were not pushed.
    pub fn finish(mut self, tail: &mut BytesMut) -> Result<MetadataWriter, ComposeError> {
        let planned = self.plan.issued_reads() + u64::from(self.next_read().is_some());
        if planned != self.pushed_reads {
            return Err(ComposeError::OutOfOrder {
                expected_number: self.pushed_reads,
                received_number: planned,
            });
        }
        let written = self.writer.finish(tail)?;
        MetadataWriter::new(
            &self.chain,
            self.layout,
            written,
            self.version,
            self.compression,
        )
    }

    fn accept(
        &mut self,
        read: &ReadRequest,
        wanted: u64,
        bytes: &[u8],
    ) -> Result<(), ComposeError> {
        if read.number != self.pushed_reads {
            return Err(ComposeError::OutOfOrder {
                expected_number: self.pushed_reads,
                received_number: read.number,
            });
        }
        let got = bytes.len() as u64;
        if got != wanted {
            return Err(ComposeError::WrongLength {
                expected_bytes: wanted,
                received_bytes: got,
            });
        }
        self.pushed_reads += 1;
        Ok(())
    }
}

fn estimate(
    chain: &Chain,
    plan: &ReadPlan,
    target: &Target,
    counts: &Refcounts,
    layout: Layout,
    first_cluster: u64,
) -> Result<Estimate, ComposeError> {
    let geometry = chain.geometry();
    let cluster = geometry.cluster_size();
    let l1_entries = metadata::l1_entries(chain);
    if l1_entries * 8 > MAX_L1_BYTES {
        return Err(ComposeError::TooLarge(
            "its L1 table would have more than 32 MiB",
        ));
    }
    let (retained, l2_tables) = target.count_tables(chain.base(), &plan.l2_tables);
    let cost = plan.cost;
    let l1 = geometry.clusters(l1_entries * 8);
    let others = first_cluster / cluster + cost.clusters + l2_tables + l1;
    let refcounts = RefcountSize::for_clusters(geometry, others);
    if refcounts.table * cluster > MAX_REFCOUNT_TABLE.max(cluster) {
        return Err(ComposeError::TooLarge(
            "its refcount table would have more than 8 MiB",
        ));
    }
    let file_bytes = (others + refcounts.clusters())
        .checked_mul(cluster)
        .filter(|bytes| *bytes <= geometry.compressed_end())
        .ok_or(ComposeError::TooLarge("its file has no end"))?;
    let (kept_bytes, dead_bytes) = match layout {
        Layout::Append => {
            let kept = chain.base().file_bytes - cluster;
            let live = (counts.live_clusters() - 1 + retained) * cluster;
            (kept, kept.saturating_sub(live))
        }
        Layout::Compact => (0, 0),
    };
    Ok(Estimate {
        read_bytes: cost.read_bytes,
        new_clusters: cost.clusters,
        new_bytes: file_bytes - kept_bytes,
        kept_bytes,
        dead_bytes,
        file_bytes,
    })
}
