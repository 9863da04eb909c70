#![allow(clippy::unwrap_used)]

use std::ops::Range;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::BytesMut;
use snapdeck_fuzz::FuzzTarget;
use snapdeck_model::Digest;

use super::*;

const CLUSTER: usize = 512;
const DISK_BYTES: u64 = 8192;
/// A larger disk takes too long to compose for each input.
const MAX_DISK_BYTES: u64 = 1 << 20;

/// An image of [`DISK_BYTES`] with clusters of 512 bytes: one with data, one of zeros, one without, one compressed.
fn image(backing_file: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 6 * CLUSTER];
    let mut put = |offset: usize, bytes: &[u8]| {
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, b"QFI\xfb\0\0\0\x03");
    if !backing_file.is_empty() {
        put(8, &256u64.to_be_bytes());
        put(16, &(backing_file.len() as u32).to_be_bytes());
        put(256, backing_file);
    }
    put(20, &9u32.to_be_bytes());
    put(24, &DISK_BYTES.to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &(CLUSTER as u64).to_be_bytes());
    put(48, &(5 * CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    let (l2, data, compressed) = (2 * CLUSTER, 3 * CLUSTER, 4 * CLUSTER);
    put(CLUSTER, &(1u64 << 63 | l2 as u64).to_be_bytes());
    put(l2, &(1u64 << 63 | data as u64).to_be_bytes());
    put(l2 + 8, &1u64.to_be_bytes());
    // Deflate: one stored block of 512 bytes, of which the file has the start.
    put(
        l2 + 24,
        &(1u64 << 62 | 1 << 61 | compressed as u64).to_be_bytes(),
    );
    put(data, &[7; CLUSTER]);
    put(compressed, b"\x01\0\x02\xff\xfd");
    file
}

fn read_tables(file: &[u8]) -> Option<Tables> {
    read_tables_within(&TableBudget::default(), file)
}

#[test]
fn the_tables_of_a_chain_share_a_limit() {
    let budget = TableBudget::new(2 * CLUSTER as u64);
    assert!(read_tables_within(&budget, &image(b"")).is_some());
    assert!(read_tables_within(&budget.clone(), &image(b"")).is_some());
    assert!(read_tables_within(&budget, &image(b"")).is_none());
}

fn read_tables_within(budget: &TableBudget, file: &[u8]) -> Option<Tables> {
    let mut reader = TableReader::new(file.len() as u64, budget);
    // No byte of the tables is requested twice, but for the start of the file.
    let mut requested = 0;
    while !reader.pending_reads().is_empty() {
        let ranges = reader.pending_reads().iter();
        let chunks: Vec<&[u8]> = ranges
            .map(|range| &file[range.start as usize..range.end as usize])
            .collect();
        requested += chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
        assert!(
            requested <= 4 * file.len().max(64 << 10),
            "{requested} bytes read"
        );
        reader.feed(&chunks).ok()?;
    }
    Some(reader.finish().unwrap())
}

/// Returns the composed file; `None` if it cannot be composed.
fn compose(base: &[u8], overlay: &[u8], layout: Layout, options: Options) -> Option<Vec<u8>> {
    let zeros = base
        .split(|byte| *byte != 0)
        .filter(|zeros| !zeros.is_empty());
    let offset = |zeros: &[u8]| (zeros.as_ptr() as usize - base.as_ptr() as usize) as u64;
    let zeros = zeros.map(|zeros| offset(zeros)..offset(zeros) + zeros.len() as u64);
    let zeros: Vec<_> = zeros.collect();
    let tables = (
        read_tables(base)?.with_zero_ranges(&zeros),
        read_tables(overlay)?,
    );
    if tables.1.facts().virtual_size > MAX_DISK_BYTES {
        return None;
    }
    let new = || Composer::new(tables.0.clone(), vec![tables.1.clone()], layout, options);
    let by_digests = new().ok()?;
    let mut composer = new().ok()?;
    let (kept, estimate) = (composer.kept_range(), composer.estimate());
    assert!(estimate.dead_fraction() <= 1.0);
    let mut tail = BytesMut::new();
    while let Some(read) = composer.next_read() {
        let file = [base, overlay][read.layer()];
        let range = read.host_range();
        let bytes = &file[range.start as usize..range.end as usize];
        composer.push(&read, bytes, &mut tail).ok()?;
    }
    let mut metadata = composer.finish(&mut tail).ok()?;
    while metadata.write(&mut tail) {}
    assert!(compose_tail_by_digests(by_digests, [base, overlay]) == Some(tail.clone()));
    let mut file = metadata.header_cluster().to_vec();
    file.extend_from_slice(&base[kept.start as usize..kept.end as usize]);
    file.extend_from_slice(&tail);
    assert_eq!(file.len() as u64, metadata.file_bytes());
    assert!(metadata.file_bytes() <= estimate.file_bytes);
    Some(file)
}

/// Returns the tail, composed of the digests of clusters where these suffice.
fn compose_tail_by_digests(mut composer: Composer, files: [&[u8]; 2]) -> Option<BytesMut> {
    let mut tail = BytesMut::new();
    while let Some(read) = composer.next_read() {
        let file =
            |range: Range<u64>| &files[read.layer()][range.start as usize..range.end as usize];
        let Some(ranges) = composer.whole_clusters(&read) else {
            let bytes = file(read.host_range());
            composer.push(&read, bytes, &mut tail).ok()?;
            continue;
        };
        let stored: Vec<u8> = ranges.into_iter().flat_map(file).copied().collect();
        let digests: Vec<Digest> = stored
            .chunks(composer.cluster_bytes() as usize)
            .map(|cluster| Digest(digest(&SHA256, cluster).as_ref().try_into().unwrap()))
            .collect();
        assert!(composer.push_digests(&read, &[], &mut tail).is_err());
        for range in composer.push_digests(&read, &digests, &mut tail).ok()? {
            tail.extend_from_slice(file(range));
        }
    }
    let mut metadata = composer.finish(&mut tail).ok()?;
    while metadata.write(&mut tail) {}
    Some(tail)
}

#[test]
fn fuzz_tables() {
    FuzzTarget::new("qcow2 tables")
        .seed(image(b""))
        .seed(image(b"/base.qcow2"))
        .memory(8 << 20, 128)
        .run(|file| {
            read_tables(file);
            let _ = flatten(file, MAX_DISK_BYTES);
        });
}

#[test]
fn fuzz_composing() {
    let overlay = image(b"/base.qcow2");
    FuzzTarget::new("qcow2 composing")
        .seed([image(b""), overlay.clone()].concat())
        .memory(64 << 20, 1024)
        .run(|input| {
            // The overlay's length is about that of the seed.
            let (base, overlay) = input.split_at(input.len().saturating_sub(overlay.len()));
            for layout in [Layout::Append, Layout::Compact] {
                for zstd_enabled in [false, true] {
                    let composed = compose(base, overlay, layout, Options { zstd_enabled });
                    // What is composed can be opened.
                    if let Some(file) = composed {
                        assert!(read_tables(&file).is_some(), "{layout:?} {zstd_enabled}");
                    }
                }
            }
        });
}
