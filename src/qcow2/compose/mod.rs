//! Composes a standalone image from a base and its overlays.
//!
//! ```text
//! TableReader per layer -> Tables -> Composer::new          plans reads, and the bytes that are written and kept
//!   next_read, next_read, ...                               any number ahead
//!   push(read, bytes, tail)                                 in the order of the reads; appends to the tail
//! finish(tail) -> MetadataWriter: write(tail)*, header_cluster()
//! ```
//!
//! The composed file is [`MetadataWriter::header_cluster`], then [`Composer::kept_range`] of the base's bytes at identical
//! offsets, then the tail, from [`Composer::tail_start`] on. Only reading shows which clusters of the overlays are zeros,
//! and how well the others compress: hence tables and header come last. The version stays the base's, but for zstd in a
//! version 2 base, which becomes version 3. The compression type stays the base's too, since all compressed clusters of
//! an image share it; a base without any may become zstd.

mod composed_image;
mod layout;
mod metadata;
mod plan;
mod target;
mod writer;

use std::ops::Range;

use bytes::BytesMut;

use super::chain::Chain;
use super::codec::Decoder;
use super::error::ComposeError;
use super::layer_header::MAX_L1_BYTES;
use super::refcounts::{RefcountSize, Refcounts};
use super::tables::Tables;
use snapdeck_model::{Compression, Digest};

pub use composed_image::ComposedImage;
pub use layout::Layout;
pub use metadata::MetadataWriter;
pub use plan::ReadRequest;

use composed_image::{digest_of_zeros, fingerprint_of};
use plan::{Extent, ReadPlan};
use target::Target;
use writer::Writer;

/// QEMU's own limit of a refcount table, in bytes.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
const FILE_TOO_LARGE: ComposeError =
    ComposeError::TooLarge("its file would exceed the largest offset of the format");

/// Options of composing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Compress new clusters with zstd (QEMU 5.1 and later) if the image can have it: appended to a base with
    /// deflate clusters, new clusters stay uncompressed. [`Composer::compression`] returns the result.
    pub zstd_enabled: bool,
}

/// The cost of composing, before anything is read. "At most": zeros and compression reduce it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes read from the layers.
    pub read_bytes: u64,
    /// Clusters written, at most.
    pub new_clusters: u64,
    /// Bytes of header and tail, at most.
    pub new_bytes: u64,
    /// Bytes of the base at identical offsets.
    pub kept_bytes: u64,
    /// Those of them in clusters that are not referenced any more.
    pub dead_bytes: u64,
    /// Those of `dead_bytes` that may be data of a guest. The others are the L1 table and the refcounts of the base, which
    /// are always replaced.
    pub dead_data_bytes: u64,
    /// Bytes of the composed file, at most.
    pub file_bytes: u64,
}

impl Estimate {
    /// Returns the dead fraction of the kept bytes, from 0 to 1. Past a quarter the compact layout is worth its cost.
    pub fn dead_fraction(&self) -> f64 {
        if self.kept_bytes == 0 {
            return 0.0;
        }
        self.dead_bytes as f64 / self.kept_bytes as f64
    }
}

/// Plans the image and writes its clusters; see the [module](self).
///
/// Memory: the tables of the chain, two bytes for each cluster of the file, eight for each cluster that is read, and
/// a few MiB of buffers. A disk of 40 GiB with clusters of 64 KiB takes less than 24 MiB.
pub struct Composer {
    chain: Chain,
    /// The image whose bytes are kept by [`Layout::Append`]: the base, or one that was composed earlier.
    kept: Tables,
    layout: Layout,
    plan: ReadPlan,
    writer: Writer,
    decoder: Decoder,
    version: u32,
    compression: Compression,
    compression_enabled: bool,
    estimate: Estimate,
    tail_start: u64,
    pushed_reads: u64,
    /// Digest of a cluster of zeros, once it is needed.
    zero_cluster: Option<Digest>,
}

impl Composer {
    /// Plans the image that the topmost of `overlays` shows, given in order, the one right above the base first.
    ///
    /// Without overlays it is the base itself, rewritten. The caller guarantees that each overlay's backing file is the
    /// layer below it.
    ///
    /// # Errors
    /// The reason why these images cannot be composed.
    pub fn new(
        base: Tables,
        overlays: Vec<Tables>,
        layout: Layout,
        options: Options,
    ) -> Result<Self, ComposeError> {
        Self::plan(base, overlays, None, &[], layout, options)
    }

    /// As [`Composer::new`] with [`Layout::Append`], but keeps the bytes of `previous` instead of the base's: an image that
    /// was composed from the same base. Clusters that have the same bytes there keep their place; only others are appended.
    ///
    /// `unchanged` are ranges of the file of the topmost layer, in order, that have the same bytes as when `previous` was
    /// composed: what lies there is not read.
    ///
    /// # Errors
    /// As for [`Composer::new`]; [`ComposeError::OtherBase`] if `previous` cannot be based on `base`.
    pub fn on_previous(
        base: Tables,
        overlays: Vec<Tables>,
        previous: &ComposedImage,
        unchanged: &[Range<u64>],
        options: Options,
    ) -> Result<Self, ComposeError> {
        if previous.tables.geometry != base.geometry {
            return Err(ComposeError::OtherBase);
        }
        let layout = Layout::Append;
        Self::plan(base, overlays, Some(previous), unchanged, layout, options)
    }

    fn plan(
        base: Tables,
        overlays: Vec<Tables>,
        previous: Option<&ComposedImage>,
        unchanged: &[Range<u64>],
        layout: Layout,
        options: Options,
    ) -> Result<Self, ComposeError> {
        let chain = Chain::new(base, overlays)?;
        let kept = previous.map_or_else(|| chain.base().clone(), |image| image.tables.clone());
        let geometry = chain.geometry();
        let (mut plan, target, counts, tail_start) = match layout {
            Layout::Append => {
                let mut target = Target::from_kept(&kept);
                let plan = ReadPlan::for_append(&chain, previous, unchanged, &mut target);
                let counts = target.count_references(&kept)?;
                (plan, target, counts, kept.file_bytes)
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
        let facts = &kept.facts;
        let may_change = layout == Layout::Compact || !target.has_compressed();
        let compression_enabled =
            options.zstd_enabled && (facts.compression == Compression::Zstd || may_change);
        let (version, compression) = match compression_enabled {
            true => (3, Compression::Zstd),
            false => (facts.version, facts.compression),
        };
        let first_cluster = geometry.round_up(tail_start).ok_or(FILE_TOO_LARGE)?;
        let estimate = estimate(
            &chain,
            &kept,
            &plan,
            &target,
            &counts,
            layout,
            first_cluster,
        )?;
        let kept_clusters = std::mem::take(&mut plan.kept_clusters);
        let unchanged_clusters = std::mem::take(&mut plan.unchanged_clusters);
        Ok(Self {
            writer: Writer::new(
                target,
                counts,
                tail_start,
                first_cluster,
                compression_enabled,
                kept_clusters,
                unchanged_clusters,
            ),
            chain,
            kept,
            layout,
            plan,
            decoder: Decoder::default(),
            version,
            compression,
            compression_enabled,
            estimate,
            tail_start,
            pushed_reads: 0,
            zero_cluster: None,
        })
    }

    /// Returns the cost.
    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// Returns how new clusters are compressed; `None` if they are not.
    pub fn compression(&self) -> Option<Compression> {
        self.compression_enabled.then_some(self.compression)
    }

    /// Returns the bytes of the composed file that are those of the kept image (the base, or the previous image) at identical
    /// offsets, so that a store can copy them and their digests hold: all but its first cluster. Empty for
    /// [`Layout::Compact`].
    pub fn kept_range(&self) -> Range<u64> {
        let cluster = self.chain.geometry().cluster_size();
        match self.layout {
            Layout::Append => cluster..self.tail_start,
            Layout::Compact => cluster..cluster,
        }
    }

    /// Returns the offset of the tail: the length of the kept image, or the end of the header cluster for [`Layout::Compact`].
    pub fn tail_start(&self) -> u64 {
        self.tail_start
    }

    /// Returns the next read; `None` after the last. It may be called far ahead of [`push`](Self::push).
    pub fn next_read(&mut self) -> Option<ReadRequest> {
        self.plan.next_read(&self.chain)
    }

    /// Consumes the bytes of [`ReadRequest::host_range`] and appends to `tail` the clusters they complete, if any. Reads are
    /// pushed in the order of [`next_read`](Self::next_read).
    ///
    /// # Errors
    /// [`ComposeError::WrongLength`] and [`ComposeError::OutOfOrder`] for a wrong call,
    /// [`ComposeError::Undecodable`] for a damaged cluster. The composer must be dropped then.
    pub fn push(
        &mut self,
        read: &ReadRequest,
        bytes: &[u8],
        tail: &mut BytesMut,
    ) -> Result<(), ComposeError> {
        self.accept(read, read.host_bytes(), bytes.len() as u64)?;
        let geometry = self.chain.geometry();
        let layer = self.chain.layer(read.layer);
        for extent in &read.extents {
            // Within `bytes`, whose length was checked.
            let at = |offset: u64| (offset - read.host_range.start) as usize;
            let stored = bytes
                .get(at(extent.host.start)..at(extent.host.end))
                .unwrap_or_default();
            let Some(start) = extent.compressed_cluster_start else {
                let is_top = read.layer + 1 == self.chain.layer_count();
                let source = is_top.then_some(extent.host.start);
                self.writer
                    .write(extent.guest.start, stored, source, tail)?;
                continue;
            };
            let kind = layer.facts.compression;
            let damaged = ComposeError::Undecodable(start);
            let decoded = self
                .decoder
                .decode(kind, stored, layer.geometry.cluster_len())
                .ok_or(damaged.clone())?;
            let is_whole = extent.guest.end - extent.guest.start == geometry.cluster_size();
            let is_reusable = layer.geometry == geometry && kind == self.compression;
            if let Some(compressed) = decoded
                .compressed_bytes
                .and_then(|length| stored.get(..length))
                && is_whole
                && is_reusable
            {
                self.writer.write_compressed(
                    extent.guest.start,
                    compressed,
                    decoded.plain,
                    tail,
                )?;
                continue;
            }
            let within = |guest: u64| (guest - start) as usize;
            let plain = decoded
                .plain
                .get(within(extent.guest.start)..within(extent.guest.end))
                .ok_or(damaged)?;
            self.writer.write(extent.guest.start, plain, None, tail)?;
        }
        Ok(())
    }

    /// As [`push`](Self::push), for a caller that reads the disk instead of the layer's file: `bytes` are those of
    /// [`ReadRequest::guest_ranges`], one range after the other.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub fn push_guest(
        &mut self,
        read: &ReadRequest,
        bytes: &[u8],
        tail: &mut BytesMut,
    ) -> Result<(), ComposeError> {
        self.accept(read, read.guest_bytes(), bytes.len() as u64)?;
        let mut rest = bytes;
        for extent in &read.extents {
            // Within `bytes`, whose length was checked.
            let length = (extent.guest.end - extent.guest.start) as usize;
            let (plain, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            self.writer.write(extent.guest.start, plain, None, tail)?;
            rest = after;
        }
        Ok(())
    }

    /// Returns the bytes of a cluster of the image.
    pub fn cluster_bytes(&self) -> u64 {
        self.chain.geometry().cluster_size()
    }

    /// Returns the ranges of the layer's file that a read is about, if they are whole clusters of the image as they are, which
    /// [`push_digests`](Self::push_digests) takes instead of the bytes.
    pub fn whole_clusters(&self, read: &ReadRequest) -> Option<Vec<Range<u64>>> {
        let cluster = self.cluster_bytes();
        let is_whole = |extent: &Extent| {
            let length = extent.guest.end - extent.guest.start;
            extent.compressed_cluster_start.is_none()
                && extent.guest.start.is_multiple_of(cluster)
                && length.is_multiple_of(cluster)
                && extent.host.end - extent.host.start == length
        };
        let is_eligible = !self.compression_enabled && read.extents.iter().all(is_whole);
        let ranges = read.extents.iter().map(|extent| extent.host.clone());
        is_eligible.then(|| ranges.collect())
    }

    /// As [`push`](Self::push) of [`whole_clusters`](Self::whole_clusters), for a caller that has only the digest of each cluster,
    /// in order. Returns the ranges of the layer's file whose bytes follow in the image behind those that are appended to `tail`.
    ///
    /// # Errors
    /// As for [`push`](Self::push); [`ComposeError::WrongLength`] for another read, too.
    pub fn push_digests(
        &mut self,
        read: &ReadRequest,
        digests: &[Digest],
        tail: &mut BytesMut,
    ) -> Result<Vec<Range<u64>>, ComposeError> {
        let cluster = self.cluster_bytes();
        let Some(ranges) = self.whole_clusters(read) else {
            return Err(ComposeError::WrongLength {
                expected_bytes: read.host_bytes(),
                received_bytes: 0,
            });
        };
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        self.accept(read, bytes, digests.len() as u64 * cluster)?;
        let zeros = match &self.zero_cluster {
            Some(zeros) => *zeros,
            None => *self.zero_cluster.insert(digest_of_zeros(cluster)),
        };
        let is_top = read.layer + 1 == self.chain.layer_count();
        let mut digests = digests.iter();
        let mut stored: Vec<Range<u64>> = Vec::new();
        for extent in &read.extents {
            let offsets = (0..extent.host.end - extent.host.start).step_by(cluster as usize);
            for (offset, digest) in offsets.zip(&mut digests) {
                let start = extent.host.start + offset;
                let new = (*digest != zeros).then(|| fingerprint_of(digest));
                let source = is_top.then_some(start);
                let guest = extent.guest.start + offset;
                if !self.writer.store_by_fingerprint(guest, new, source, tail)? {
                    continue;
                }
                match stored.last_mut() {
                    Some(last) if last.end == start => last.end = start + cluster,
                    _ => stored.push(start..start + cluster),
                }
            }
        }
        Ok(stored)
    }

    /// Appends the last clusters to `tail` and lays out the tables.
    ///
    /// # Errors
    /// [`ComposeError::OutOfOrder`] if reads were not pushed.
    pub fn finish(mut self, tail: &mut BytesMut) -> Result<MetadataWriter, ComposeError> {
        let planned = self.plan.issued_reads() + u64::from(self.next_read().is_some());
        if planned != self.pushed_reads {
            return Err(ComposeError::OutOfOrder {
                expected_number: self.pushed_reads,
                received_number: planned,
            });
        }
        let written = self.writer.finish(tail)?;
        let kept = (self.layout == Layout::Append).then_some(&*self.kept.l2);
        MetadataWriter::new(
            self.chain.virtual_size(),
            &self.kept,
            kept,
            std::mem::take(&mut self.plan.base_ranges),
            written,
            self.version,
            self.compression,
        )
    }

    fn accept(
        &mut self,
        read: &ReadRequest,
        expected_bytes: u64,
        received_bytes: u64,
    ) -> Result<(), ComposeError> {
        if read.number != self.pushed_reads {
            return Err(ComposeError::OutOfOrder {
                expected_number: self.pushed_reads,
                received_number: read.number,
            });
        }
        if received_bytes != expected_bytes {
            return Err(ComposeError::WrongLength {
                expected_bytes,
                received_bytes,
            });
        }
        self.pushed_reads += 1;
        Ok(())
    }
}

fn estimate(
    chain: &Chain,
    kept: &Tables,
    plan: &ReadPlan,
    target: &Target,
    counts: &Refcounts,
    layout: Layout,
    first_cluster: u64,
) -> Result<Estimate, ComposeError> {
    let geometry = chain.geometry();
    let cluster = geometry.cluster_size();
    let l1_entries = metadata::l1_entries(geometry, chain.virtual_size());
    if l1_entries * 8 > MAX_L1_BYTES {
        return Err(ComposeError::TooLarge(
            "its L1 table would have more than 32 MiB",
        ));
    }
    let (retained, l2_tables) = target.count_tables(kept, &plan.l2_tables);
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
        .ok_or(FILE_TOO_LARGE)?;
    let file_bytes = metadata::padded_end(file_bytes);
    let (kept_bytes, dead_bytes) = match layout {
        Layout::Append => {
            let kept = kept.file_bytes - cluster;
            let live = (counts.live_clusters() - 1 + retained) * cluster;
            (kept, kept.saturating_sub(live))
        }
        Layout::Compact => (0, 0),
    };
    let base_refcounts = RefcountSize::for_clusters(geometry, kept_bytes / cluster);
    let replaced_tables = (l1 + base_refcounts.clusters()) * cluster;
    Ok(Estimate {
        read_bytes: cost.read_bytes,
        new_clusters: cost.clusters,
        new_bytes: file_bytes - kept_bytes,
        kept_bytes,
        dead_bytes,
        dead_data_bytes: dead_bytes.saturating_sub(replaced_tables),
        file_bytes,
    })
}
