//! The end of the tail (tables and refcounts), and the header.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;

use super::composed_image::{ComposedImage, WrittenCluster};
use super::writer::WriterOutput;
use crate::entry::{COPIED, Geometry};
use crate::error::ComposeError;
use crate::header::{COMPRESSION_TYPE, FEATURE_NAMES, field_u64};
use crate::refcounts::{RefcountSize, Refcounts};
use crate::tables::{L2Table, Tables};
use snapdeck_model::{BLOCK_BYTES, Compression};

/// Bytes appended at a time, or one cluster.
const CHUNK_BYTES: u64 = 1 << 20;
/// Zeros at most at the end of the file, so that it ends with a whole block: the next image composed on it can copy that one,
/// and would send up to a block again else.
const MAX_PADDING_BYTES: u64 = BLOCK_BYTES / 4;
/// "Header", compatible_features.
const LAZY_REFCOUNTS: u64 = 1;
/// A version 3 header with a compression type.
const LONG_HEADER: usize = 112;

/// Returns the entries of the composed image's L1 table: one at least, as in QEMU.
pub(super) fn l1_entries(geometry: Geometry, virtual_size: u64) -> u64 {
    virtual_size.div_ceil(geometry.l2_span()).max(1)
}

/// Returns the length of the file of a composed image whose last table ends at `end`.
pub(super) fn padded_end(end: u64) -> u64 {
    let padded = end.next_multiple_of(BLOCK_BYTES);
    match padded - end <= MAX_PADDING_BYTES {
        true => padded,
        false => end,
    }
}

/// Writes the tables and the header of a composed image.
pub struct MetadataWriter {
    geometry: Geometry,
    l2: Vec<Arc<[u64]>>,
    /// Entries of the L1 table that are not zero.
    l1: BTreeMap<u64, u64>,
    counts: Refcounts,
    /// Clusters of the regions in order: L2 tables, L1 table, refcount table, refcount blocks, free clusters of zeros.
    region_clusters: [u64; 5],
    /// Offset of the first region.
    start: u64,
    written_clusters: u64,
    header_cluster: Vec<u8>,
    tables: BTreeMap<u64, L2Table>,
    base_ranges: Vec<Range<u64>>,
    written: Vec<WrittenCluster>,
}

impl MetadataWriter {
    /// `header_source` has the header; tables that are unchanged stay where `kept` has them.
    pub(super) fn new(
        virtual_size: u64,
        header_source: &Tables,
        kept: Option<&BTreeMap<u64, L2Table>>,
        base_ranges: Vec<Range<u64>>,
        output: WriterOutput,
        version: u32,
        compression: Compression,
    ) -> Result<Self, ComposeError> {
        let geometry = header_source.geometry;
        let cluster = geometry.cluster_size();
        let WriterOutput {
            target,
            mut counts,
            end: start,
            written,
        } = output;
        let mut tables = BTreeMap::new();
        let mut l1 = BTreeMap::new();
        let mut l2 = Vec::new();
        let mut end = start;
        for (index, entries) in target.tables {
            let old = kept.and_then(|kept| kept.get(&index));
            let same = old.filter(|old| old.entries == entries);
            let host = match same {
                Some(old) => old.host,
                None if entries.iter().all(|entry| *entry == 0) => continue,
                None => {
                    l2.push(entries.clone());
                    end += cluster;
                    end - cluster
                }
            };
            counts.reference(host..host + cluster)?;
            l1.insert(index, COPIED | host);
            tables.insert(index, L2Table { host, entries });
        }
        let l1_start = end;
        let l1_clusters = geometry.clusters(l1_entries(geometry, virtual_size) * 8);
        let table_start = l1_start + l1_clusters * cluster;
        let size = RefcountSize::for_clusters(geometry, table_start / cluster);
        let end = table_start + size.clusters() * cluster;
        counts.reference(l1_start..end)?;
        let head = HeaderBuilder {
            source: header_source,
            virtual_size,
            version,
            compression,
            l1_start,
            table_start,
            table_clusters: size.table,
        };
        let padding = geometry.clusters(padded_end(end) - end);
        Ok(Self {
            geometry,
            region_clusters: [
                l2.len() as u64,
                l1_clusters,
                size.table,
                size.blocks,
                padding,
            ],
            l2,
            l1,
            counts,
            start,
            written_clusters: 0,
            header_cluster: head.build(),
            tables,
            base_ranges,
            written,
        })
    }

    /// Returns the state from which the disk's next image can be composed.
    ///
    /// # Errors
    /// None for an image that can be composed on.
    pub fn into_image(self) -> Result<ComposedImage, ComposeError> {
        let file_bytes = self.file_bytes();
        ComposedImage::new(
            &self.header_cluster,
            file_bytes,
            self.tables,
            self.base_ranges,
            self.written,
        )
    }

    /// Appends about a MiB of the tables to `tail`; returns `false` after the last.
    pub fn write(&mut self, tail: &mut BytesMut) -> bool {
        let all: u64 = self.region_clusters.iter().sum();
        let now = (CHUNK_BYTES / self.geometry.cluster_size()).max(1);
        let end = all.min(self.written_clusters + now);
        for number in self.written_clusters..end {
            self.write_cluster(number, tail);
        }
        self.written_clusters = end;
        end < all
    }

    /// Returns the bytes of the composed file.
    pub fn file_bytes(&self) -> u64 {
        self.start + self.region_clusters.iter().sum::<u64>() * self.geometry.cluster_size()
    }

    /// Returns the first cluster of the file.
    pub fn header_cluster(&self) -> &[u8] {
        &self.header_cluster
    }

    fn write_cluster(&self, number: u64, tail: &mut BytesMut) {
        let entries = self.geometry.entries() as u64;
        let [l2, l1, table, blocks, _] = self.region_clusters;
        if let Some(entries) = usize::try_from(number).ok().and_then(|at| self.l2.get(at)) {
            tail.extend(entries.iter().flat_map(|entry| entry.to_be_bytes()));
        } else if number < l2 + l1 {
            let first = (number - l2) * entries;
            let entry = |index| self.l1.get(&index).copied().unwrap_or(0);
            tail.extend((first..first + entries).flat_map(|index| entry(index).to_be_bytes()));
        } else if number < l2 + l1 + table {
            let first = (number - l2 - l1) * entries;
            let start = self.start + (l2 + l1 + table) * self.geometry.cluster_size();
            let entry = |index| match index < blocks {
                true => start + index * self.geometry.cluster_size(),
                false => 0,
            };
            tail.extend((first..first + entries).flat_map(|index| entry(index).to_be_bytes()));
        } else if number < l2 + l1 + table + blocks {
            self.counts.write_block(number - l2 - l1 - table, tail);
        } else {
            tail.resize(tail.len() + self.geometry.cluster_len(), 0);
        }
    }
}

struct HeaderBuilder<'a> {
    source: &'a Tables,
    virtual_size: u64,
    version: u32,
    compression: Compression,
    l1_start: u64,
    table_start: u64,
    table_clusters: u64,
}

impl HeaderBuilder<'_> {
    /// Returns the header of the source with new offsets ("Header"). Of the extensions only the feature name table is kept:
    /// extensions that refer to clusters (bitmaps, and perhaps unknown ones) would refer to free clusters; the autoclear
    /// bits are cleared with them.
    fn build(&self) -> Vec<u8> {
        let source = self.source;
        let zstd = self.compression == Compression::Zstd;
        let mut head = source.header.clone();
        if self.version == 3 && (source.facts.version == 2 || zstd && head.len() < LONG_HEADER) {
            head.resize(LONG_HEADER, 0);
        }
        let length = head.len() as u32;
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(field) = head.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(4, &self.version.to_be_bytes());
        // backing_file_offset and backing_file_size.
        put(8, &[0; 12]);
        put(24, &self.virtual_size.to_be_bytes());
        // 4 Mi entries at most, and a refcount table of 8 MiB: both were checked before.
        let l1_entries = l1_entries(source.geometry, self.virtual_size);
        put(36, &(l1_entries as u32).to_be_bytes());
        put(40, &self.l1_start.to_be_bytes());
        put(48, &self.table_start.to_be_bytes());
        put(56, &(self.table_clusters as u32).to_be_bytes());
        // nb_snapshots and snapshots_offset.
        put(60, &[0; 12]);
        if self.version == 3 {
            let incompatible = if zstd { COMPRESSION_TYPE } else { 0 };
            let compatible = match source.facts.version {
                3 => field_u64(&source.header, 80) & LAZY_REFCOUNTS,
                _ => 0,
            };
            put(72, &incompatible.to_be_bytes());
            put(80, &compatible.to_be_bytes());
            put(88, &0u64.to_be_bytes());
            // Refcounts of 2^4 bits.
            put(96, &4u32.to_be_bytes());
            put(100, &length.to_be_bytes());
            put(104, &[u8::from(zstd)]);
        }
        let cluster = source.geometry.cluster_len();
        if let Some(names) = &source.feature_names
            && head.len() + names.len() + 16 <= cluster
        {
            head.extend(FEATURE_NAMES.to_be_bytes());
            head.extend((names.len() as u32).to_be_bytes());
            head.extend_from_slice(names);
        }
        // Zeros end the extensions.
        head.resize(cluster, 0);
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_ends_with_a_whole_block_if_little_is_missing() {
        const MIB: u64 = 1 << 20;
        let ends = [8, 9, 13, 14, 15, 16].map(|mib| padded_end(mib * MIB) / MIB);
        assert_eq!(ends, [8, 9, 13, 16, 16, 16]);
    }
}
