//! Refcounts, always computed from the final tables ("Host cluster management").

use std::ops::Range;

use bytes::BytesMut;

use super::entry::Geometry;
use super::error::ComposeError;

/// Bytes of a refcount: only 16 bits are written.
const WIDTH: usize = 2;
/// Clusters a file may have: their refcounts take 256 MiB of memory.
const MAX_CLUSTERS: u64 = 128 << 20;
const TOO_MANY_CLUSTERS: ComposeError = ComposeError::TooLarge("it has more than 128 Mi clusters");

/// The number of references to each host cluster.
#[derive(Debug)]
pub(super) struct Refcounts {
    geometry: Geometry,
    counts: Vec<u16>,
}

/// The size of the refcount table and its blocks, which count themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RefcountSize {
    /// In clusters.
    pub(super) table: u64,
    /// One cluster each.
    pub(super) blocks: u64,
}

impl Refcounts {
    /// Returns zeros for a file of `file_bytes`.
    pub(super) fn new(geometry: Geometry, file_bytes: u64) -> Result<Self, ComposeError> {
        let clusters = geometry.clusters(file_bytes);
        // A sparse file costs no memory: pages of zeros are allocated when they are written.
        let counts = match usize::try_from(clusters) {
            Ok(length) if clusters <= MAX_CLUSTERS => vec![0; length],
            _ => {
                return Err(TOO_MANY_CLUSTERS);
            }
        };
        Ok(Self { geometry, counts })
    }

    /// Adds a reference to every cluster that these bytes touch.
    pub(super) fn reference(&mut self, bytes: Range<u64>) -> Result<(), ComposeError> {
        let first = bytes.start / self.geometry.cluster_size();
        let end = self.geometry.clusters(bytes.end);
        if end > MAX_CLUSTERS {
            return Err(TOO_MANY_CLUSTERS);
        }
        // Both fit: they are below the limit.
        let (first, end) = (first as usize, end as usize);
        if self.counts.len() < end {
            self.counts.resize(end, 0);
        }
        for (index, count) in self.counts[first..end].iter_mut().enumerate() {
            let offset = (first + index) as u64 * self.geometry.cluster_size();
            *count = count
                .checked_add(1)
                .ok_or(ComposeError::RefcountOverflow(offset))?;
        }
        Ok(())
    }

    /// Removes a reference to every cluster that these bytes touch.
    pub(super) fn release(&mut self, bytes: Range<u64>) {
        let first = bytes.start / self.geometry.cluster_size();
        let end = self.geometry.clusters(bytes.end);
        // Both fit: the references were added before.
        let counts = self.counts.get_mut(first as usize..end as usize);
        for count in counts.into_iter().flatten() {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn count_at(&self, offset: u64) -> u16 {
        usize::try_from(offset / self.geometry.cluster_size())
            .ok()
            .and_then(|index| self.counts.get(index).copied())
            .unwrap_or(0)
    }

    pub(super) fn live_clusters(&self) -> u64 {
        self.counts.iter().filter(|count| **count > 0).count() as u64
    }

    /// Appends refcount block `number`, one cluster.
    pub(super) fn write_block(&self, number: u64, out: &mut BytesMut) {
        let length = self.geometry.cluster_len();
        let per_block = length / WIDTH;
        let end = out.len() + length;
        let first = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .saturating_mul(per_block);
        for count in self.counts.iter().skip(first).take(per_block) {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out.resize(end, 0);
    }
}

impl RefcountSize {
    /// Returns the size for a file with `others` clusters beside it. A fixed point, since the new clusters need
    /// refcounts too; each round adds a fraction of the previous one.
    pub(super) fn for_clusters(geometry: Geometry, others: u64) -> Self {
        let per_block = geometry.cluster_size() / WIDTH as u64;
        let mut size = Self {
            table: 0,
            blocks: 0,
        };
        loop {
            let blocks = (others + size.table + size.blocks).div_ceil(per_block);
            let table = blocks.div_ceil(geometry.entries() as u64);
            let next = Self { table, blocks };
            if next == size {
                return size;
            }
            size = next;
        }
    }

    pub(super) fn clusters(self) -> u64 {
        self.table + self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_count_themselves_and_are_no_more_than_needed(
            bits in 9u32..=21, others in 1u64..1 << 32,
        ) {
            let geometry = Geometry::new(1 << bits);
            let size = RefcountSize::for_clusters(geometry, others);
            let per_block = geometry.cluster_size() / 2;
            let all = others + size.clusters();
            prop_assert!(size.blocks * per_block >= all);
            prop_assert!(size.table * geometry.entries() as u64 >= size.blocks);
            prop_assert!((size.blocks - 1) * per_block < all);
        }
    }

    #[test]
    fn counts_every_cluster_that_a_range_touches() {
        let geometry = Geometry::new(4096);
        let mut counts = Refcounts::new(geometry, 8192).unwrap();
        counts.reference(4095..8193).unwrap();
        counts.reference(8192..12288).unwrap();
        assert_eq!(
            [0, 4096, 8192, 12288].map(|offset| counts.count_at(offset)),
            [1, 1, 2, 0]
        );
        let mut block = BytesMut::new();
        counts.write_block(0, &mut block);
        assert_eq!(block.len(), 4096);
        assert_eq!(block[..8], [0, 1, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn refuses_more_references_or_clusters_than_it_can_count() {
        let geometry = Geometry::new(512);
        let mut counts = Refcounts::new(geometry, 512).unwrap();
        for _ in 0..u16::MAX {
            counts.reference(0..1).unwrap();
        }
        assert_eq!(
            counts.reference(0..1),
            Err(ComposeError::RefcountOverflow(0))
        );
        assert!(Refcounts::new(geometry, u64::MAX).is_err());
        assert!(counts.reference(u64::MAX - 1..u64::MAX).is_err());
    }
}
