//! Sizes that follow from the cluster size, and what an L2 entry says ("Cluster mapping").

use super::ComposeError;

/// "L1 table entry", "L2 table entry", bit 63: the refcount is exactly one.
pub(super) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// "Standard Cluster Descriptor", bit 0.
pub(super) const ZERO: u64 = 1;
/// Bits 9 to 55.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const SECTOR: u64 = 512;

/// What follows from the size of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    bits: u32,
}

/// Where a guest cluster's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    /// In the backing file, or zeros.
    Unallocated,
    /// Zeros, with or without a host cluster kept for it.
    Zero {
        /// The host cluster that is kept.
        host: Option<u64>,
    },
    /// A host cluster.
    Data {
        /// Its offset.
        host: u64,
    },
    /// Compressed.
    Compressed {
        /// Offset of the first byte.
        host: u64,
        /// Bytes up to the end of the last sector, more than the compressed data itself may need.
        stored_bytes: u64,
    },
}

impl Geometry {
    /// `cluster_size`: a power of two from 512 bytes to 2 MiB, as a header that was read has it.
    pub(super) fn new(cluster_size: u64) -> Self {
        Self {
            bits: cluster_size.trailing_zeros().clamp(9, 21),
        }
    }

    /// Bytes of a cluster.
    pub(super) fn cluster_size(self) -> u64 {
        1 << self.bits
    }

    /// The same, for lengths in memory.
    pub(super) fn cluster_len(self) -> usize {
        1 << self.bits
    }

    /// Entries of an L2 table, or of a cluster of the L1 or refcount table.
    pub(super) fn entries(self) -> usize {
        1 << (self.bits - 3)
    }

    /// Bytes of the disk that one L2 table describes.
    pub(super) fn l2_span(self) -> u64 {
        1 << (2 * self.bits - 3)
    }

    /// Clusters that so many bytes take.
    pub(super) fn clusters(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }

    /// The bytes rounded up to whole clusters, or `None` past 64 bits.
    pub(super) fn round_up(self, bytes: u64) -> Option<u64> {
        bytes.checked_next_multiple_of(self.cluster_size())
    }

    /// "Compressed Clusters Descriptor": x, the number of bits of the offset.
    fn compressed_offset_bits(self) -> u32 {
        62 - (self.bits - 8)
    }

    /// Compressed clusters must start below this offset.
    pub(super) fn compressed_end(self) -> u64 {
        1 << self.compressed_offset_bits().min(56)
    }

    /// What an entry that [`check`](Self::check) let pass says.
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

    /// Is it an entry that an image of that version and length may have?
    pub(super) fn check(
        self,
        entry: u64,
        version: u32,
        file_bytes: u64,
    ) -> Result<(), ComposeError> {
        let bad = ComposeError::BadEntry { table: "L2", entry };
        let what = "a data cluster";
        match self.decode_entry(entry) {
            Cluster::Compressed {
                host,
                stored_bytes: stored,
            } => {
                // The header's cluster holds no data.
                if entry & COPIED != 0 || host >> 56 != 0 || host < self.cluster_size() {
                    return Err(bad);
                }
                // The last sector may be cut short by the end of the file, but begins no cluster of its own.
                let end = self.clusters(host + stored);
                if host >= file_bytes || end > self.clusters(file_bytes) {
                    return Err(ComposeError::Truncated {
                        structure: what,
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
                        structure: what,
                        offset: host,
                    });
                }
            }
            Cluster::Unallocated => {}
        }
        Ok(())
    }

    /// The entry of a compressed cluster of `length` bytes at `host`, which lies below
    /// [`compressed_end`](Self::compressed_end); `length` is at most a cluster.
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
        let usual = Geometry::new(65536);
        assert_eq!(usual.entries(), 8192);
        assert_eq!(usual.l2_span(), 512 << 20);
        assert_eq!(usual.clusters(65537), 2);
        assert_eq!(Geometry::new(2 << 20).compressed_end(), 1 << 49);
        assert_eq!(Geometry::new(512).compressed_end(), 1 << 56);
    }

    #[test]
    fn an_entry_with_a_bit_too_many_is_refused() {
        let usual = Geometry::new(65536);
        let check = |entry, version| usual.check(entry, version, 1 << 30);
        assert_eq!(check(COPIED | 0x10000, 2), Ok(()));
        assert_eq!(check(0x20001, 3), Ok(()));
        for (entry, version) in [
            (0x10001, 2),             // Zeros are told by version 3 only.
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
            let Cluster::Compressed { host: told, stored_bytes: stored } = geometry.decode_entry(entry) else {
                return Err(TestCaseError::fail("not compressed"));
            };
            prop_assert_eq!(told, host);
            prop_assert!(stored >= length && stored < length + 512);
        }
    }
}
