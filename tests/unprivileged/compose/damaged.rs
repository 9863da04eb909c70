//! Damaged and malicious images: reading and composing them ends in time, with success or an error.

use std::ops::Range;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use snapdeck_qcow2::{ComposeError, Composer, Layout, Options, Tables};

use crate::compose::check::{qemu_img, run, temp_dir};
use crate::compose::driver::{finish, tables};
use crate::compose::setting;

/// Returns images of several kinds, so small that a random byte is often in a table.
fn images() -> Vec<Vec<u8>> {
    let dir = temp_dir();
    let mut images = Vec::new();
    for (options, compress, commands) in [
        ("cluster_size=512", false, "write -P 1 1000k 8k"),
        ("cluster_size=4k", false, "write -P 1 0 64k"),
        ("cluster_size=4k,compat=0.10", true, "write -P 1 0 64k"),
        ("cluster_size=64k", false, "write -z 0 1M"),
        (
            "cluster_size=4k,compression_type=zstd",
            true,
            "write -P 1 3M 64k",
        ),
    ] {
        let path = dir.path().join("image").display().to_string();
        qemu_img(&format!("create -q -f qcow2 -o {options} {path} 4000k"));
        run("qemu-io", &["-f", "qcow2", "-c", commands, &path]);
        if compress {
            let source = format!("{path}-source");
            std::fs::rename(&path, &source).unwrap();
            qemu_img(&format!("convert -c -O qcow2 -o {options} {source} {path}"));
        }
        images.push(std::fs::read(&path).unwrap());
        // The same image as an overlay.
        qemu_img(&format!("create -q -f qcow2 -o {options} {path}-base 3M"));
        qemu_img(&format!(
            "rebase -q -u -f qcow2 -b {path}-base -F qcow2 {path}"
        ));
        images.push(std::fs::read(&path).unwrap());
    }
    images
}

/// New bytes at an offset, modulo the length of the image.
#[derive(Debug, Clone)]
struct Change {
    offset: usize,
    bytes: Vec<u8>,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let field = prop_oneof![
        any::<u64>(),
        (0..64u32).prop_map(|bit| 1 << bit),
        (0..64u64).prop_map(|number| number * 512),
        (0..64u64).prop_map(|number| (1 << 63) | (number * 4096)),
        (0..64u64).prop_map(|number| (1 << 62) | (number * 4096) | (1 << 56)),
        Just(u64::MAX),
    ];
    let bytes = prop_oneof![
        3 => field.prop_map(|field: u64| field.to_be_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    // Fields of header and tables are at multiples of 8, mostly in the first clusters.
    let offset = prop_oneof![
        2 => (0..14usize).prop_map(|field| field * 8),
        3 => (0..8192usize).prop_map(|field| field * 8),
        1 => any::<usize>(),
    ];
    let change = (offset, bytes).prop_map(|(offset, bytes)| Change { offset, bytes });
    proptest::collection::vec(change, 1..5)
}

fn apply_changes(image: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut image = image.to_vec();
    for change in changes {
        let offset = change.offset % image.len();
        for (at, byte) in change.bytes.iter().enumerate() {
            if let Some(slot) = image.get_mut(offset + at) {
                *slot = *byte;
            }
        }
    }
    image
}

fn tables_in(image: &[u8]) -> Result<Tables, ComposeError> {
    tables(image.len() as u64, |range: &Range<u64>| {
        image[range.start as usize..range.end as usize].to_vec()
    })
}

/// Composes at most 100 reads.
fn try_image(
    base: &[u8],
    overlay: Option<&[u8]>,
    layout: Layout,
    zstd: bool,
) -> Result<u64, ComposeError> {
    let tables = tables_in(base)?;
    let overlays = match overlay {
        Some(overlay) => vec![tables_in(overlay)?],
        None => Vec::new(),
    };
    let mut composer = Composer::new(tables, overlays, layout, Options { zstd_enabled: zstd })?;
    let mut tail = bytes::BytesMut::new();
    let mut reads = 0;
    while let Some(read) = composer.next_read() {
        let image = if read.layer() == 0 {
            base
        } else {
            overlay.unwrap_or_default()
        };
        let host = read.host_range();
        let bytes = &image[host.start as usize..host.end as usize];
        composer.push(&read, bytes, &mut tail)?;
        // The output is not used.
        tail.clear();
        reads += 1;
        if reads == 100 {
            return Ok(reads);
        }
    }
    finish(composer, &mut tail)?;
    Ok(reads)
}

#[test]
fn damaged_images_are_composed_or_refused() {
    let deadline = Instant::now() + Duration::from_secs(setting("SNAPDECK_FUZZ_SECONDS", 5));
    let images = images();
    let standalone: Vec<&Vec<u8>> = images.iter().step_by(2).collect();
    let overlays: Vec<&Vec<u8>> = images.iter().skip(1).step_by(2).collect();
    for (base, overlay) in standalone.iter().zip(&overlays) {
        try_image(base, Some(overlay), Layout::Append, true).unwrap();
    }
    let mut runner = TestRunner::default();
    let case = (
        changes(),
        0..standalone.len(),
        0..overlays.len(),
        any::<[bool; 3]>(),
    );
    let (mut rounds, mut refused) = (0u64, 0u64);
    while Instant::now() < deadline {
        let (changes, base, overlay, [changes_base, compact, zstd]) =
            case.new_tree(&mut runner).unwrap().current();
        let layout = if compact {
            Layout::Compact
        } else {
            Layout::Append
        };
        let (mut base, mut overlay) = (standalone[base].clone(), overlays[overlay].clone());
        match changes_base {
            true => base = apply_changes(&base, &changes),
            false => overlay = apply_changes(&overlay, &changes),
        }
        let started = Instant::now();
        let outcome = std::panic::catch_unwind(|| try_image(&base, Some(&overlay), layout, zstd));
        let elapsed = started.elapsed();
        let Ok(outcome) = outcome else {
            panic!("{changes:?} of the base: {changes_base}, {layout:?}, zstd: {zstd}");
        };
        assert!(
            elapsed < Duration::from_secs(20),
            "{elapsed:?}: {changes:?} of the base: {changes_base}"
        );
        rounds += 1;
        refused += u64::from(outcome.is_err());
    }
    eprintln!("{rounds} damaged images, {refused} of them refused");
    // If all or none are refused, the changes are of no use.
    assert!(
        refused > rounds / 20 && refused < rounds,
        "{refused} of {rounds} refused"
    );
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let mut bytes = bytes;
        let _ = tables_in(&bytes);
        let header = [b'Q', b'F', b'I', 0xfb, 0, 0, 0, 2];
        if bytes.len() > 24 {
            bytes[..8].copy_from_slice(&header);
            bytes[20..24].copy_from_slice(&[0, 0, 0, 9]);
        }
        let _ = tables_in(&bytes);
    }
}
