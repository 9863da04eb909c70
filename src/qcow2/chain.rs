//! The guest-visible disk of a chain ("Cluster mapping": unallocated clusters are the backing file's).

use std::ops::Range;

use super::entry::{Cluster, Geometry};
use super::error::ComposeError;
use super::tables::Tables;

/// The layers of a chain, the base first.
#[derive(Debug)]
pub(super) struct Chain {
    layers: Vec<Tables>,
}

/// Bytes of the disk that come from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) guest: Range<u64>,
    pub(super) source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Zeros: no layer has a cluster there.
    Unallocated,
    /// Zeros of the base.
    BaseZeros,
    /// Zeros that hide the base's bytes.
    Zeros,
    Data {
        layer: usize,
        /// Host offset of the segment's first byte.
        host: u64,
    },
    Compressed {
        layer: usize,
        host: u64,
        stored_bytes: u64,
        /// Disk offset of the cluster's first byte.
        cluster_start: u64,
    },
}

impl Source {
    /// Returns whether the base alone has the same data there.
    pub(super) fn is_base(self) -> bool {
        match self {
            Self::Unallocated | Self::BaseZeros => true,
            Self::Zeros => false,
            Self::Data { layer, .. } | Self::Compressed { layer, .. } => layer == 0,
        }
    }

    pub(super) fn has_data(self) -> bool {
        matches!(self, Self::Data { .. } | Self::Compressed { .. })
    }
}

impl Chain {
    /// # Errors
    /// Where the images cannot be a base and its overlays.
    pub(super) fn new(base: Tables, overlays: Vec<Tables>) -> Result<Self, ComposeError> {
        if let Some(file) = &base.facts.backing_file {
            return Err(ComposeError::BaseHasBackingFile(file.clone()));
        }
        if base.facts.refcount_bits != 16 {
            return Err(ComposeError::RefcountWidth(base.facts.refcount_bits));
        }
        let unbacked = |overlay: &Tables| overlay.facts.backing_file.is_none();
        if let Some(index) = overlays.iter().position(unbacked) {
            return Err(ComposeError::OverlayWithoutBackingFile(index + 1));
        }
        let layers = std::iter::once(base).chain(overlays).collect();
        Ok(Self { layers })
    }

    pub(super) fn base(&self) -> &Tables {
        &self.layers[0]
    }

    pub(super) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn layer(&self, layer: usize) -> &Tables {
        &self.layers[layer]
    }

    /// Returns the bytes of the composed disk: the topmost layer's.
    pub(super) fn virtual_size(&self) -> u64 {
        self.layers[self.layers.len() - 1].facts.virtual_size
    }

    /// Returns the longest segment from `offset` to at most `end`, within one cluster of its layer. The topmost layer that
    /// has a cluster there wins; no layer shows data of lower layers past the end of its own disk.
    pub(super) fn segment(&self, offset: u64, mut end: u64) -> Segment {
        for (layer, tables) in self.layers.iter().enumerate().rev() {
            let size = tables.facts.virtual_size;
            if offset >= size {
                return zero_segment(offset..end, Source::Zeros);
            }
            end = end.min(size);
            let geometry = tables.geometry;
            let cluster_end = |size: u64| (offset / size + 1).saturating_mul(size);
            if !tables.l2.contains_key(&(offset / geometry.l2_span())) {
                end = end.min(cluster_end(geometry.l2_span()));
                continue;
            }
            end = end.min(cluster_end(geometry.cluster_size()));
            let within = offset % geometry.cluster_size();
            let source = match tables.cluster_at(offset) {
                Cluster::Unallocated => continue,
                Cluster::Zero { .. } if layer == 0 => Source::BaseZeros,
                Cluster::Zero { .. } => Source::Zeros,
                Cluster::Data { host } => Source::Data {
                    layer,
                    host: host + within,
                },
                Cluster::Compressed { host, stored_bytes } => Source::Compressed {
                    layer,
                    host,
                    stored_bytes,
                    cluster_start: offset - within,
                },
            };
            return Segment {
                guest: offset..end,
                source,
            };
        }
        zero_segment(offset..end, Source::Unallocated)
    }

    /// Iterates over the segments of a range of the disk, in order.
    pub(super) fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let mut offset = range.start;
        std::iter::from_fn(move || {
            (offset < range.end).then(|| {
                let segment = self.segment(offset, range.end);
                offset = segment.guest.end;
                segment
            })
        })
    }

    /// Returns the geometry of the composed image: the base's.
    pub(super) fn geometry(&self) -> Geometry {
        self.base().geometry
    }
}

fn zero_segment(guest: Range<u64>, source: Source) -> Segment {
    Segment { guest, source }
}
