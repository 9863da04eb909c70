//! What to read, in which order.

use std::collections::BTreeSet;
use std::ops::Range;

use super::target::Target;
use crate::chain::{Chain, Segment, Source};

/// Bytes of one read, and bytes of the disk it stands for, where it is more than one cluster.
const READ_BYTES: u64 = 2 << 20;

/// One read of a layer's file: a run of host bytes, and which bytes of the disk they are.
///
/// At most 2 MiB, or one cluster (a compressed one may claim twice that).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    pub(super) number: u64,
    pub(super) layer: usize,
    pub(super) host_range: Range<u64>,
    guest_bytes: u64,
    pub(super) extents: Vec<Extent>,
}

/// Bytes of a layer's file and of the disk: within one cluster of the layer, or of several that are neighbours in
/// both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes of the layer's file; never past its end.
    pub(super) host: Range<u64>,
    /// Bytes of the disk.
    pub(super) guest: Range<u64>,
    /// For a compressed cluster, the disk offset of its first byte.
    pub(super) compressed_cluster_start: Option<u64>,
}

impl ReadRequest {
    /// Which layer: 0 is the base, 1 the overlay right above it.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// Bytes of that layer's file; they lie within it.
    pub fn host_range(&self) -> Range<u64> {
        self.host_range.clone()
    }

    /// The bytes of the disk these are once decoded, in order, neighbours merged: where to read instead from the
    /// disk itself.
    pub fn guest_ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for piece in &self.extents {
            match ranges.last_mut() {
                Some(last) if last.end == piece.guest.start => last.end = piece.guest.end,
                _ => ranges.push(piece.guest.clone()),
            }
        }
        ranges
    }

    /// Length of [`host`](Self::host).
    pub fn host_bytes(&self) -> u64 {
        self.host_range.end - self.host_range.start
    }

    /// Length of all of [`guest`](Self::guest).
    pub fn guest_bytes(&self) -> u64 {
        self.guest_bytes
    }

    /// Adds a piece that stands within or right behind the run, where it does not make it too long.
    fn add(&mut self, layer: usize, piece: Extent) -> Option<Extent> {
        let end = self.host_range.end.max(piece.host.end);
        let guest_bytes = self.guest_bytes + piece.guest.end - piece.guest.start;
        let joins = layer == self.layer
            && (self.host_range.start..=self.host_range.end).contains(&piece.host.start)
            && end - self.host_range.start <= READ_BYTES
            && guest_bytes <= READ_BYTES;
        if !joins {
            return Some(piece);
        }
        self.host_range.end = end;
        self.guest_bytes = guest_bytes;
        let goes_on = |last: &&mut Extent| {
            last.compressed_cluster_start.is_none()
                && piece.compressed_cluster_start.is_none()
                && last.host.end == piece.host.start
                && last.guest.end == piece.guest.start
        };
        match self.extents.last_mut().filter(goes_on) {
            Some(last) => {
                last.host.end = piece.host.end;
                last.guest.end = piece.guest.end;
            }
            None => self.extents.push(piece),
        }
        None
    }
}

/// What is to be read.
#[derive(Debug, Default)]
pub(super) struct ReadPlan {
    /// Clusters of the image that come from one place, by number, in host order.
    single_source_clusters: std::vec::IntoIter<u64>,
    /// Ranges of the disk to be put together from several places, in order.
    mixed_ranges: std::vec::IntoIter<Range<u64>>,
    /// What is left of the range at hand.
    current_range: Range<u64>,
    /// The piece the last read had no room for.
    deferred_extent: Option<(usize, Extent)>,
    issued_reads: u64,
    /// What all of it costs.
    pub(super) cost: Cost,
    /// L2 tables that get an entry.
    pub(super) l2_tables: BTreeSet<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) read_bytes: u64,
    /// Clusters that are written, at most.
    pub(super) clusters: u64,
}

impl ReadPlan {
    /// Reads what the base does not have as it is to be, and takes that out of `target`, which is the base's mapping.
    pub(super) fn for_append(chain: &Chain, target: &mut Target) -> Self {
        let geometry = chain.geometry();
        let cluster = geometry.cluster_size();
        let size = chain.virtual_size();
        // Shrunk within a cluster: that one is rewritten with a zeroed end.
        let cut_end = !size.is_multiple_of(cluster) && size < chain.base().facts.virtual_size;
        let mut plan = Self::default();
        let mut whole: Vec<u64> = Vec::new();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        while at < size {
            let first = chain.segment(at, size);
            let mut skip = first.guest.end - first.guest.end % cluster;
            if first.guest.end == size && !cut_end {
                skip = size;
            }
            if skip > at && (first.source.is_base() || !first.source.has_data()) {
                if !first.source.is_base() {
                    target.clear(at..skip);
                }
                at = skip;
                continue;
            }
            let end = size.min(at + cluster);
            let segments: Vec<Segment> = chain.segments(at..end).collect();
            let has_data = segments.iter().any(|segment| segment.source.has_data());
            let from_base = segments.iter().all(|segment| segment.source.is_base());
            if !from_base || cut_end && end == size && has_data {
                target.clear(at..end);
                if has_data {
                    match ranges.last_mut() {
                        _ if is_one_cluster(chain, at, &segments) => whole.push(at / cluster),
                        Some(last) if last.end == at => last.end = end,
                        _ => ranges.push(at..end),
                    }
                    plan.cost.clusters += 1;
                    plan.l2_tables.insert(at / geometry.l2_span());
                }
            }
            at = end;
        }
        // Shrunk: what lies past the end would be seen again when the disk grows.
        target.clear(size.next_multiple_of(cluster)..u64::MAX);
        let place = |number: &u64| match chain.segment(number * cluster, size).source {
            Source::Data { layer, host, .. } | Source::Compressed { layer, host, .. } => {
                (layer, host)
            }
            _ => (0, 0),
        };
        whole.sort_unstable_by_key(place);
        plan.single_source_clusters = whole.into_iter();
        plan.mixed_ranges = ranges.into_iter();
        plan.count_bytes(chain);
        plan
    }

    /// Reads everything, in the order of the disk.
    pub(super) fn for_compact(chain: &Chain) -> Self {
        let geometry = chain.geometry();
        let cluster = geometry.cluster_size();
        let mut plan = Self::default();
        let mut counted = None;
        for segment in chain.segments(0..chain.virtual_size()) {
            if !segment.source.has_data() {
                continue;
            }
            let (first, last) = (
                segment.guest.start / cluster,
                (segment.guest.end - 1) / cluster,
            );
            // A segment lies within a cluster of its layer, so it spans few.
            plan.cost.clusters += last - first + 1 - u64::from(counted == Some(first));
            counted = Some(last);
            let span = geometry.l2_span();
            let tables = segment.guest.start / span..=(segment.guest.end - 1) / span;
            plan.l2_tables.extend(tables);
        }
        plan.current_range = 0..chain.virtual_size();
        plan.count_bytes(chain);
        plan
    }

    /// Reads told so far.
    pub(super) fn issued_reads(&self) -> u64 {
        self.issued_reads
    }

    pub(super) fn next_read(&mut self, chain: &Chain) -> Option<ReadRequest> {
        let (layer, piece) = self
            .deferred_extent
            .take()
            .or_else(|| self.next_extent(chain))?;
        let mut read = ReadRequest {
            number: self.issued_reads,
            layer,
            host_range: piece.host.clone(),
            guest_bytes: piece.guest.end - piece.guest.start,
            extents: vec![piece],
        };
        while let Some((layer, piece)) = self.next_extent(chain) {
            if let Some(piece) = read.add(layer, piece) {
                self.deferred_extent = Some((layer, piece));
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
            if let Some(piece) = locate_extent(chain, segment) {
                return Some(piece);
            }
        }
    }

    /// Goes through all pieces once, without using them up.
    fn count_bytes(&mut self, chain: &Chain) {
        let mut dry = Self {
            single_source_clusters: self.single_source_clusters.clone(),
            mixed_ranges: self.mixed_ranges.clone(),
            current_range: self.current_range.clone(),
            ..Self::default()
        };
        while let Some((_, piece)) = dry.next_extent(chain) {
            self.cost.read_bytes += piece.host.end - piece.host.start;
        }
    }
}

/// Does the image's cluster at `at`, which is these segments, come from one place? A compressed cluster of another
/// size does not count: it is taken apart once for all clusters it is spread over.
fn is_one_cluster(chain: &Chain, at: u64, segments: &[Segment]) -> bool {
    match segments {
        [segment] => match segment.source {
            Source::Data { .. } => true,
            Source::Compressed {
                layer,
                cluster_start: start,
                ..
            } => start == at && chain.layer(layer).geometry == chain.geometry(),
            _ => false,
        },
        _ => false,
    }
}

/// The piece that reads a segment; `None` where it is zeros. What lies past the file's end is zeros.
fn locate_extent(chain: &Chain, segment: Segment) -> Option<(usize, Extent)> {
    let Segment { mut guest, source } = segment;
    let (layer, host, packed) = match source {
        Source::Data { layer, host, .. } => {
            let left = chain.layer(layer).file_bytes.saturating_sub(host);
            let length = left.min(guest.end - guest.start);
            guest.end = guest.start + length;
            (layer, host..host + length, None)
        }
        Source::Compressed {
            layer,
            host,
            stored_bytes: stored,
            cluster_start: start,
        } => {
            let end = chain.layer(layer).file_bytes.min(host + stored);
            (layer, host..end, Some(start))
        }
        _ => return None,
    };
    let piece = Extent {
        host,
        guest,
        compressed_cluster_start: packed,
    };
    (!piece.host.is_empty()).then_some((layer, piece))
}
