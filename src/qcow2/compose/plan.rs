//! The reads and their order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::composed_image::{ComposedImage, WrittenCluster};
use super::target::Target;
use crate::chain::{Chain, Segment, Source};

/// Bytes of one read of more than one cluster, and the bytes of the disk that it covers.
const READ_BYTES: u64 = 2 << 20;

/// One read of a layer's file: a run of host bytes, and the bytes of the disk that they are.
///
/// At most 2 MiB, or one cluster (a compressed one may span twice that).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    pub(super) number: u64,
    pub(super) layer: usize,
    pub(super) host_range: Range<u64>,
    guest_bytes: u64,
    pub(super) extents: Vec<Extent>,
}

/// Bytes of a layer's file and of the disk, contiguous in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes of the layer's file; never past its end.
    pub(super) host: Range<u64>,
    pub(super) guest: Range<u64>,
    /// Disk offset of a compressed cluster's first byte.
    pub(super) compressed_cluster_start: Option<u64>,
}

impl ReadRequest {
    /// Returns the layer: 0 is the base, 1 the overlay right above it.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// Returns the bytes to read of the layer's file; they lie within it.
    pub fn host_range(&self) -> Range<u64> {
        self.host_range.clone()
    }

    /// Returns the bytes of the disk that these decode to, in order, with neighbours merged: for reading the disk itself
    /// instead.
    pub fn guest_ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for extent in &self.extents {
            match ranges.last_mut() {
                Some(last) if last.end == extent.guest.start => last.end = extent.guest.end,
                _ => ranges.push(extent.guest.clone()),
            }
        }
        ranges
    }

    /// Returns the length of [`host_range`](Self::host_range).
    pub fn host_bytes(&self) -> u64 {
        self.host_range.end - self.host_range.start
    }

    /// Returns the length of all [`guest_ranges`](Self::guest_ranges).
    pub fn guest_bytes(&self) -> u64 {
        self.guest_bytes
    }

    /// Adds an extent within or right behind the run; returns it if it does not fit.
    fn add(&mut self, layer: usize, extent: Extent) -> Option<Extent> {
        let end = self.host_range.end.max(extent.host.end);
        let guest_bytes = self.guest_bytes + extent.guest.end - extent.guest.start;
        let fits = layer == self.layer
            && (self.host_range.start..=self.host_range.end).contains(&extent.host.start)
            && end - self.host_range.start <= READ_BYTES
            && guest_bytes <= READ_BYTES;
        if !fits {
            return Some(extent);
        }
        self.host_range.end = end;
        self.guest_bytes = guest_bytes;
        let is_contiguous = |last: &&mut Extent| {
            last.compressed_cluster_start.is_none()
                && extent.compressed_cluster_start.is_none()
                && last.host.end == extent.host.start
                && last.guest.end == extent.guest.start
        };
        match self.extents.last_mut().filter(is_contiguous) {
            Some(last) => {
                last.host.end = extent.host.end;
                last.guest.end = extent.guest.end;
            }
            None => self.extents.push(extent),
        }
        None
    }
}

#[derive(Debug, Default)]
pub(super) struct ReadPlan {
    /// Numbers of the image's clusters that come from one source, in host order.
    single_source_clusters: std::vec::IntoIter<u64>,
    /// Ranges of the disk that come from several sources, in order.
    mixed_ranges: std::vec::IntoIter<Range<u64>>,
    /// The rest of the current mixed range.
    current_range: Range<u64>,
    /// The extent that did not fit into the last read.
    deferred_extent: Option<(usize, Extent)>,
    /// Whether known zeros of the base are left out.
    omits_zeros: bool,
    issued_reads: u64,
    pub(super) cost: Cost,
    /// L2 tables that get an entry.
    pub(super) l2_tables: BTreeSet<u64>,
    /// Ranges of the disk, in whole clusters, that have the base's data.
    pub(super) base_ranges: Vec<Range<u64>>,
    /// Disk offsets at which the kept image has a cluster that is not the base's, to be compared with what is read.
    pub(super) kept_clusters: BTreeMap<u64, WrittenCluster>,
    /// Clusters of the kept image that need not be read, since their bytes in the topmost layer are unchanged.
    pub(super) unchanged_clusters: Vec<WrittenCluster>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) read_bytes: u64,
    /// Clusters written, at most.
    pub(super) clusters: u64,
}

impl ReadPlan {
    /// Plans the reads of all clusters that may differ from those of the kept image, which is `previous` or else the base.
    /// Those that certainly differ are cleared in `target`, the kept image's mapping.
    pub(super) fn for_append(
        chain: &Chain,
        previous: Option<&ComposedImage>,
        unchanged: &[Range<u64>],
        target: &mut Target,
    ) -> Self {
        let geometry = chain.geometry();
        let cluster = geometry.cluster_size();
        let size = chain.virtual_size();
        // A disk that shrank within a cluster: that cluster is rewritten with a zeroed end.
        let cut_end = !size.is_multiple_of(cluster) && size < chain.base().facts.virtual_size;
        let mut plan = Self::default();
        let mut single_source: Vec<u64> = Vec::new();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let has_base_cluster = |offset| previous.is_none_or(|image| image.is_base(offset));
        let mut offset = 0;
        while offset < size {
            let first = chain.segment(offset, size);
            let mut skip = first.guest.end - first.guest.end % cluster;
            if first.guest.end == size && !cut_end {
                skip = size;
            }
            if skip > offset && !first.source.has_data() {
                if !first.source.is_base() {
                    target.clear(offset..skip);
                } else if previous.is_some() {
                    target.clear_data(offset..skip);
                }
                offset = skip;
                continue;
            }
            // One cluster at most.
            if skip > offset && first.source.is_base() && has_base_cluster(offset) {
                push_range(&mut plan.base_ranges, offset..offset + cluster);
                offset = skip;
                continue;
            }
            let end = size.min(offset + cluster);
            let segments: Vec<Segment> = chain.segments(offset..end).collect();
            let has_data = segments.iter().any(|segment| segment.source.has_data());
            let from_base = segments.iter().all(|segment| segment.source.is_base());
            let is_base = from_base && !(cut_end && end == size) && has_base_cluster(offset);
            if !has_data && from_base {
                if previous.is_some() {
                    target.clear_data(offset..end);
                }
            } else if is_base {
                push_range(&mut plan.base_ranges, offset..offset + cluster);
            } else {
                let kept = previous.and_then(|image| image.written_cluster(offset));
                if let Some(kept) = kept
                    && is_unchanged(chain, kept, &segments, unchanged)
                {
                    plan.unchanged_clusters.push(kept);
                    offset = end;
                    continue;
                }
                match kept.filter(|_| has_data) {
                    Some(kept) => {
                        plan.kept_clusters.insert(offset, kept);
                    }
                    None => target.clear(offset..end),
                }
                if has_data {
                    match ranges.last_mut() {
                        _ if is_single_source(chain, offset, &segments) => {
                            single_source.push(offset / cluster)
                        }
                        Some(last) if last.end == offset => last.end = end,
                        _ => ranges.push(offset..end),
                    }
                    plan.cost.clusters += 1;
                    plan.l2_tables.insert(offset / geometry.l2_span());
                }
            }
            offset = end;
        }
        // A disk that shrank: bytes past its end would reappear when it grows.
        target.clear(size.next_multiple_of(cluster)..u64::MAX);
        let host_order = |number: &u64| match chain.segment(number * cluster, size).source {
            Source::Data { layer, host, .. } | Source::Compressed { layer, host, .. } => {
                (layer, host)
            }
            _ => (0, 0),
        };
        single_source.sort_unstable_by_key(host_order);
        plan.single_source_clusters = single_source.into_iter();
        plan.mixed_ranges = ranges.into_iter();
        plan.count_bytes(chain);
        plan
    }

    /// Plans the reads of everything, in the order of the disk.
    pub(super) fn for_compact(chain: &Chain) -> Self {
        let geometry = chain.geometry();
        let cluster = geometry.cluster_size();
        let mut plan = Self {
            omits_zeros: true,
            ..Self::default()
        };
        let mut last_counted = None;
        // Number of the last cluster with data of overlays, or zeros in it that are.
        let mut last_changed = None;
        for segment in chain.segments(0..chain.virtual_size()) {
            let (first, last) = (
                segment.guest.start / cluster,
                (segment.guest.end - 1) / cluster,
            );
            if !segment.source.is_base() {
                drop_cluster(&mut plan.base_ranges, first * cluster);
                last_changed = Some(last);
            }
            if !segment.source.has_data() {
                continue;
            }
            if segment.source.is_base() {
                let start = first + u64::from(last_changed == Some(first));
                if start <= last {
                    push_range(&mut plan.base_ranges, start * cluster..(last + 1) * cluster);
                }
            }
            if is_known_zero(chain, &segment) {
                continue;
            }
            // A segment lies within a cluster of its layer, so it spans few.
            plan.cost.clusters += last - first + 1 - u64::from(last_counted == Some(first));
            last_counted = Some(last);
            let span = geometry.l2_span();
            let tables = segment.guest.start / span..=(segment.guest.end - 1) / span;
            plan.l2_tables.extend(tables);
        }
        plan.current_range = 0..chain.virtual_size();
        plan.count_bytes(chain);
        plan
    }

    pub(super) fn issued_reads(&self) -> u64 {
        self.issued_reads
    }

    pub(super) fn next_read(&mut self, chain: &Chain) -> Option<ReadRequest> {
        let (layer, extent) = self
            .deferred_extent
            .take()
            .or_else(|| self.next_extent(chain))?;
        let mut read = ReadRequest {
            number: self.issued_reads,
            layer,
            host_range: extent.host.clone(),
            guest_bytes: extent.guest.end - extent.guest.start,
            extents: vec![extent],
        };
        while let Some((layer, extent)) = self.next_extent(chain) {
            if let Some(extent) = read.add(layer, extent) {
                self.deferred_extent = Some((layer, extent));
                break;
            }
        }
        self.issued_reads += 1;
        Some(read)
    }

    fn next_extent(&mut self, chain: &Chain) -> Option<(usize, Extent)> {
        let cluster = chain.geometry().cluster_size();
        loop {
            let segment = if let Some(number) = self.single_source_clusters.next() {
                let start = number * cluster;
                chain.segment(start, chain.virtual_size().min(start + cluster))
            } else {
                if self.current_range.is_empty() {
                    self.current_range = self.mixed_ranges.next()?;
                }
                let segment = chain.segment(self.current_range.start, self.current_range.end);
                self.current_range.start = segment.guest.end;
                segment
            };
            if self.omits_zeros && is_known_zero(chain, &segment) {
                continue;
            }
            if let Some(extent) = locate_extent(chain, segment) {
                return Some(extent);
            }
        }
    }

    /// Adds up the bytes of all extents.
    fn count_bytes(&mut self, chain: &Chain) {
        let mut dry_run = Self {
            single_source_clusters: self.single_source_clusters.clone(),
            mixed_ranges: self.mixed_ranges.clone(),
            current_range: self.current_range.clone(),
            omits_zeros: self.omits_zeros,
            ..Self::default()
        };
        while let Some((_, extent)) = dry_run.next_extent(chain) {
            self.cost.read_bytes += extent.host.end - extent.host.start;
        }
    }
}

/// Returns whether the segment is from a part of the base's file that is known to have only zeros.
fn is_known_zero(chain: &Chain, segment: &Segment) -> bool {
    let length = segment.guest.end - segment.guest.start;
    match segment.source {
        Source::Data { layer: 0, host } => chain.base().is_zero(host..host + length),
        _ => false,
    }
}

/// Adds a range that begins in or right behind the last one, or after it.
fn push_range(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end >= range.start => last.end = range.end.max(last.end),
        _ => ranges.push(range),
    }
}

/// Removes the cluster at `start` if it is the last one of the ranges.
fn drop_cluster(ranges: &mut Vec<Range<u64>>, start: u64) {
    if let Some(last) = ranges.last_mut() {
        last.end = last.end.min(start);
        if last.is_empty() {
            ranges.pop();
        }
    }
}

/// Returns whether a cluster of the previous image, which has these segments now, is still the same bytes of the topmost
/// layer's file, of which the ranges `unchanged` have the bytes of before.
fn is_unchanged(
    chain: &Chain,
    kept: WrittenCluster,
    segments: &[Segment],
    unchanged: &[Range<u64>],
) -> bool {
    let cluster = chain.geometry().cluster_size();
    let [
        Segment {
            guest,
            source: Source::Data { layer, host },
        },
    ] = segments
    else {
        return false;
    };
    let (start, end) = (*host, *host + cluster);
    let after = unchanged.partition_point(|range| range.start <= start);
    let range = after.checked_sub(1).and_then(|at| unchanged.get(at));
    *layer + 1 == chain.layer_count()
        && guest.end - guest.start == cluster
        && kept.source == Some(start)
        && end <= chain.layer(*layer).file_bytes
        && range.is_some_and(|range| end <= range.end)
}

/// Returns whether the image's cluster at `offset`, which has these segments, has a single source. A compressed cluster
/// of another size does not count: it is decoded once for all clusters it covers.
fn is_single_source(chain: &Chain, offset: u64, segments: &[Segment]) -> bool {
    match segments {
        [segment] => match segment.source {
            Source::Data { .. } => true,
            Source::Compressed {
                layer,
                cluster_start: start,
                ..
            } => start == offset && chain.layer(layer).geometry == chain.geometry(),
            _ => false,
        },
        _ => false,
    }
}

/// Returns the layer and the extent that a segment is read from; `None` if it is zeros. Bytes past the end of the
/// file are zeros.
fn locate_extent(chain: &Chain, segment: Segment) -> Option<(usize, Extent)> {
    let Segment { mut guest, source } = segment;
    let (layer, host, compressed_cluster_start) = match source {
        Source::Data { layer, host, .. } => {
            let in_file = chain.layer(layer).file_bytes.saturating_sub(host);
            let length = in_file.min(guest.end - guest.start);
            guest.end = guest.start + length;
            (layer, host..host + length, None)
        }
        Source::Compressed {
            layer,
            host,
            stored_bytes,
            cluster_start,
        } => {
            let end = chain.layer(layer).file_bytes.min(host + stored_bytes);
            (layer, host..end, Some(cluster_start))
        }
        _ => return None,
    };
    let extent = Extent {
        host,
        guest,
        compressed_cluster_start,
    };
    (!extent.host.is_empty()).then_some((layer, extent))
}
