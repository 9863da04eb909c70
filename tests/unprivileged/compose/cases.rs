//! Random chains, as plain data.

use proptest::prelude::*;
use proptest::sample::select;
use snapdeck_qcow2::Layout;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub version: u32,
    pub cluster_bits: u32,
    pub size: u64,
    /// Compression of the base image.
    pub compression: Option<&'static str>,
    pub bitmaps: bool,
    pub writes: Vec<Write>,
    /// Each is based on the composed image of the previous one.
    pub generations: Vec<Generation>,
}

#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub overlays: Vec<Overlay>,
    pub layout: Layout,
    pub zstd: bool,
    /// Read the guest's view of the disk instead of the layers.
    pub reads_guest: bool,
    /// Maximum number of pending reads.
    pub read_ahead: usize,
    /// Writes to the composed image, which must stay intact.
    pub later_writes: Vec<Write>,
    /// Bytes by which the composed disk is enlarged; data past its old end must not appear.
    pub added_bytes: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    pub version: u32,
    pub cluster_bits: u32,
    pub size: u64,
    pub zstd: bool,
    pub bitmaps: bool,
    pub writes: Vec<Write>,
    /// New size by `qemu-img resize` after the writes.
    pub resized: Option<u64>,
}

/// A chain that is composed again after each of several changes.
#[derive(Debug, Clone)]
pub(crate) struct RoundsCase {
    /// The base, and how its chain is composed first.
    pub first: Case,
    pub overlays: Vec<Overlay>,
    pub rounds: Vec<Round>,
}

#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// The topmost overlay becomes a copy made earlier before the writes.
    pub restores_copy: bool,
    pub writes: Vec<Write>,
    pub resized: Option<u64>,
    pub generation: Generation,
}

#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub kind: Kind,
    /// Offset in thousandths of the disk.
    pub permille: u64,
    pub sectors: u64,
    /// Round offset and length to clusters.
    pub aligned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A different content for each sector.
    Noise(u8),
    /// Compressible data.
    Text(u8),
    /// Zeros written as data.
    ZeroBytes,
    /// Zero clusters, with or without the allocation.
    Zeros {
        unmap: bool,
    },
    Discard,
    Packed(u8),
}

fn writes(cluster_bits: u32, max_count: usize) -> impl Strategy<Value = Vec<Write>> {
    let kind = prop_oneof![
        4 => (0..4u8).prop_map(Kind::Noise),
        4 => (0..4u8).prop_map(Kind::Text),
        1 => Just(Kind::ZeroBytes),
        2 => any::<bool>().prop_map(|unmap| Kind::Zeros { unmap }),
        2 => Just(Kind::Discard),
        2 => (0..4u8).prop_map(Kind::Packed),
    ];
    let cluster = (1u64 << cluster_bits) / 512;
    let sectors = prop_oneof![
        3 => 1..=cluster.max(2),
        2 => Just(cluster),
        1 => 1..=(5 * cluster).min(8192),
    ];
    let write = (kind, 0..=1000u64, sectors, any::<bool>());
    let write = write.prop_map(|(kind, permille, sectors, aligned)| Write {
        kind,
        permille,
        sectors,
        aligned,
    });
    proptest::collection::vec(write, 0..=max_count)
}

/// Returns small sizes, for speed, some of which need several L2 tables.
fn size(cluster_bits: u32) -> impl Strategy<Value = u64> {
    let cluster = 1u64 << cluster_bits;
    let span = cluster * cluster / 8;
    let clusters = (1u64..=12).prop_map(move |clusters| clusters * cluster);
    let odd = (1u64..=12 * cluster / 512).prop_map(|sectors| sectors * 512);
    let tables = (1u64..=4, 1u64..=64).prop_map(move |(tables, sectors)| {
        (span.min(96 << 20) * tables).min(256 << 20) + sectors * 512
    });
    prop_oneof![3 => clusters, 4 => odd, 3 => tables]
}

fn overlay(base_bits: u32, base_size: u64) -> impl Strategy<Value = Overlay> {
    let bits = prop_oneof![5 => Just(base_bits), 2 => 9..=21u32];
    bits.prop_flat_map(move |cluster_bits| {
        let similar = (0u64..=40).prop_map(move |sectors| {
            (base_size + (20 * 512))
                .saturating_sub(sectors * 512)
                .max(512)
        });
        let size = prop_oneof![4 => Just(base_size), 2 => similar, 2 => size(base_bits)];
        let resized = prop_oneof![4 => Just(None), 1 => self::size(base_bits).prop_map(Some)];
        (
            prop_oneof![1 => Just(2u32), 4 => Just(3u32)],
            size,
            any::<bool>(),
            prop::bool::weighted(0.2),
            writes(cluster_bits.min(18), 10),
            resized,
        )
            .prop_map(
                move |(version, size, zstd, bitmaps, writes, resized)| Overlay {
                    version,
                    cluster_bits,
                    size,
                    zstd: zstd && version == 3,
                    bitmaps: bitmaps && version == 3,
                    writes,
                    resized,
                },
            )
    })
}

fn generation(base_bits: u32, base_size: u64) -> impl Strategy<Value = Generation> {
    (
        proptest::collection::vec(overlay(base_bits, base_size), 0..=3),
        select(vec![Layout::Append, Layout::Append, Layout::Compact]),
        any::<bool>(),
        prop::bool::weighted(0.2),
        1..=6usize,
        writes(base_bits, 5),
        0..=8192u64,
    )
        .prop_map(
            |(overlays, layout, zstd, reads_guest, read_ahead, later_writes, sectors)| Generation {
                added_bytes: sectors * 512,
                overlays,
                layout,
                zstd,
                reads_guest,
                read_ahead,
                later_writes,
            },
        )
}

pub(crate) fn rounds_case() -> impl Strategy<Value = RoundsCase> {
    case().prop_flat_map(|first| {
        let (bits, size) = (first.cluster_bits, first.size);
        let round = (
            prop::bool::weighted(0.2),
            writes(bits, 4),
            prop_oneof![5 => Just(None), 1 => self::size(bits).prop_map(Some)],
            generation(bits, size),
        );
        let round = round.prop_map(|(restores_copy, writes, resized, generation)| Round {
            restores_copy,
            writes,
            resized,
            generation,
        });
        (
            Just(first),
            proptest::collection::vec(overlay(bits, size), 1..=2),
            proptest::collection::vec(round, 1..=4),
        )
            .prop_map(|(first, overlays, rounds)| RoundsCase {
                first,
                overlays,
                rounds,
            })
    })
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let bits = prop_oneof![1 => 9..=11u32, 4 => 12..=16u32, 2 => 17..=21u32];
    bits.prop_flat_map(|bits| (Just(bits), size(bits)))
        .prop_flat_map(|(cluster_bits, size)| {
            (
                prop_oneof![1 => Just(2u32), 3 => Just(3u32)],
                select(vec![None, None, Some("zlib"), Some("zstd")]),
                prop::bool::weighted(0.2),
                writes(cluster_bits, 12),
                proptest::collection::vec(generation(cluster_bits, size), 1..=3),
            )
                .prop_map(
                    move |(version, compression, bitmaps, writes, generations)| Case {
                        version: if compression == Some("zstd") {
                            3
                        } else {
                            version
                        },
                        cluster_bits,
                        size,
                        compression,
                        bitmaps,
                        writes,
                        generations,
                    },
                )
        })
}
