//! Sizes that follow from the cluster size, and the encoding of L2 entries ("Cluster mapping").

use super::error::ComposeError;

/// "L1 table entry", "L2 table entry", bit 63: the refcount is exactly one.
pub(super) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// "Standard Cluster Descriptor", bit 0.
pub(super) const ZERO: u64 = 1;
/// Bits 9 to 55.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const SECTOR: u64 = 512;

/// Sizes that follow from the size of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    bits: u32,
}

/// Where a guest cluster's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    /// In the backing file, or zeros.
    Unallocated,
    /// Zeros, perhaps with a preallocated host cluster.
    Zero {
        host: Option<u64>,
    },
    Data {
        host: u64,
    },
    Compressed {
        /// Offset of the first byte.
        host: u64,
        /// Bytes up to the end of the last sector, perhaps more than the compressed data.
        stored_bytes: u64,
    },
}

impl Geometry {
    /// Returns the geometry for `cluster_size`: a power of two from 512 bytes to 2 MiB.
    pub(super) fn new(cluster_size: u64) -> Self {
        Self {
            bits: cluster_size.trailing_zeros().clamp(9, 21),
        }
    }

    pub(super) fn cluster_size(self) -> u64 {
        1 << self.bits
    }

    /// Returns the cluster size for lengths in memory.
    pub(super) fn cluster_len(self) -> usize {
        1 << self.bits
    }

    /// Returns the entries of an L2 table, or of a cluster of the L1 or refcount table.
    pub(super) fn entries(self) -> usize {
        1 << (self.bits - 3)
    }

    /// Returns the bytes of the disk that one L2 table maps.
    pub(super) fn l2_span(self) -> u64 {
        1 << (2 * self.bits - 3)
    }

    /// Returns the number of clusters that `bytes` take.
    pub(super) fn clusters(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }

    /// Rounds up to whole clusters; `None` past 64 bits.
    pub(super) fn round_up(self, bytes: u64) -> Option<u64> {
        bytes.checked_next_multiple_of(self.cluster_size())
    }

    /// "Compressed Clusters Descriptor": x.
    fn compressed_offset_bits(self) -> u32 {
        62 - (self.bits - 8)
    }

    /// Returns the offset below which compressed clusters must start.
    pub(super) fn compressed_end(self) -> u64 {
        1 << self.compressed_offset_bits().min(56)
    }

    /// Decodes an entry that [`check`](Self::check) accepted.
    pub(super) fn decode_entry(self, entry: u64) -> Cluster {
        if entry & COMPRESSED != 0 {
            let x = self.compressed_offset_bits();
            let host = entry & ((1 << x) - 1);
            let more_sectors = (entry & !(COMPRESSED | COPIED)) >> x;
            return Cluster::Compressed {
                host,
                stored_bytes: (more_sectors + 1) * SECTOR - host % SECTOR,
            };
        }
        let host = entry & OFFSET;
        match (entry & ZERO != 0, host) {
            (true, 0) => Cluster::Zero { host: None },
            (true, host) => Cluster::Zero { host: Some(host) },
            (false, 0) => Cluster::Unallocated,
            (false, host) => Cluster::Data { host },
        }
    }

    /// Checks that an image of that version and length may have the entry.
    pub(super) fn check(
        self,
        entry: u64,
        version: u32,
        file_bytes: u64,
    ) -> Result<(), ComposeError> {
        let bad = ComposeError::BadEntry { table: "L2", entry };
        let structure = "a data cluster";
        match self.decode_entry(entry) {
            Cluster::Compressed {
                host,
                stored_bytes: stored,
            } => {
                // The header's cluster holds no data.
                if entry & COPIED != 0 || host >> 56 != 0 || host < self.cluster_size() {
                    return Err(bad);
                }
                // The file may end within the last sector, which does not begin another cluster.
                let end = self.clusters(host + stored);
                if host >= file_bytes || end > self.clusters(file_bytes) {
                    return Err(ComposeError::Truncated {
                        structure,
                        offset: host,
                    });
                }
            }
            _ if entry & !(COPIED | OFFSET | ZERO) != 0 => return Err(bad),
            Cluster::Unallocated if entry != 0 => return Err(bad),
            Cluster::Zero { host } => {
                let aligned = host.unwrap_or(0).is_multiple_of(self.cluster_size());
                if version < 3 || !aligned || host.is_none() && entry != ZERO {
                    return Err(bad);
                }
            }
            Cluster::Data { host } => {
                if !host.is_multiple_of(self.cluster_size()) {
                    return Err(bad);
                }
                if host >= file_bytes {
                    return Err(ComposeError::Truncated {
                        structure,
                        offset: host,
                    });
                }
            }
            Cluster::Unallocated => {}
        }
        Ok(())
    }

    /// Returns the entry of a compressed cluster of `length` bytes (at most a cluster) at `host`, which lies below
    /// [`compressed_end`](Self::compressed_end).
    pub(super) fn compressed_entry(self, host: u64, length: u64) -> u64 {
        let sectors = (host % SECTOR + length).div_ceil(SECTOR);
        COMPRESSED | (sectors.saturating_sub(1) << self.compressed_offset_bits()) | host
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_follow_from_the_cluster() {
        let geometry = Geometry::new(65536);
        assert_eq!(geometry.entries(), 8192);
        assert_eq!(geometry.l2_span(), 512 << 20);
        assert_eq!(geometry.clusters(65537), 2);
        assert_eq!(Geometry::new(2 << 20).compressed_end(), 1 << 49);
        assert_eq!(Geometry::new(512).compressed_end(), 1 << 56);
    }

    #[test]
    fn refuses_entries_with_reserved_bits() {
        let geometry = Geometry::new(65536);
        let check = |entry, version| geometry.check(entry, version, 1 << 30);
        assert_eq!(check(COPIED | 0x10000, 2), Ok(()));
        assert_eq!(check(0x20001, 3), Ok(()));
        for (entry, version) in [
            (0x10001, 2),             // Zero clusters are a feature of version 3.
            (0x10002, 3),             // Reserved, bits 1 to 8.
            (0x10000 | (1 << 56), 3), // Reserved, bits 56 to 61.
            (0x8000, 3),              // Not aligned.
            (COPIED, 3),              // Offset 0 is for external data files.
            (COMPRESSED | 0x8000, 3), // In the header's cluster.
            (COMPRESSED | COPIED | 0x10000, 3),
        ] {
            assert!(
                matches!(check(entry, version), Err(ComposeError::BadEntry { .. })),
                "{entry:#x}"
            );
        }
        for entry in [COPIED | (1 << 30), COMPRESSED | (1 << 30)] {
            assert!(matches!(
                check(entry, 3),
                Err(ComposeError::Truncated { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn a_compressed_entry_covers_its_bytes(
            bits in 9u32..=21, at in 1u64..1 << 40, length in 1u64..1 << 21,
        ) {
            let geometry = Geometry::new(1 << bits);
            let length = length.min(geometry.cluster_size());
            let host = geometry.cluster_size() + at;
            let entry = geometry.compressed_entry(host, length);
            prop_assert_eq!(geometry.check(entry, 2, u64::MAX), Ok(()));
            let Cluster::Compressed { host: decoded_host, stored_bytes: stored } = geometry.decode_entry(entry) else {
                return Err(TestCaseError::fail("not compressed"));
            };
            prop_assert_eq!(decoded_host, host);
            prop_assert!(stored >= length && stored < length + 512);
        }
    }
}
