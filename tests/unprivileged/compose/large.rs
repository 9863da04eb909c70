//! Memory for a disk of 40 GiB.

use std::ops::Range;
use std::process::Command;

use snapdeck_qcow2::{Composer, Layout, Options};

use crate::compose::driver::tables;

const CLUSTER: u64 = 65536;
const SIZE: u64 = 40 << 30;
const SPAN: u64 = CLUSTER * CLUSTER / 8;
/// Number of L2 tables.
const TABLES: u64 = SIZE / SPAN;
/// Offset of the data: after header, L1 and L2 tables.
const DATA: u64 = (2 + TABLES) * CLUSTER;

/// Returns a range of a generated image in which every guest cluster that is a multiple of `every` is allocated.
fn image_bytes(range: &Range<u64>, backing: bool, every: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
    for at in (range.start..range.end).step_by(8) {
        let copied = 1u64 << 63;
        let field = match at {
            0 => u64::from_be_bytes([b'Q', b'F', b'I', 0xfb, 0, 0, 0, 3]),
            8 if backing => 200,
            // backing_file_size and cluster_bits.
            16 => {
                if backing {
                    (1 << 32) | 16
                } else {
                    16
                }
            }
            24 => SIZE,
            32 => TABLES,
            40 => CLUSTER,
            96 => (4 << 32) | 104,
            at if (CLUSTER..CLUSTER + TABLES * 8).contains(&at) => {
                copied | (2 * CLUSTER + (at - CLUSTER) / 8 * CLUSTER)
            }
            at if (2 * CLUSTER..DATA).contains(&at) => {
                let number = (at - 2 * CLUSTER) / 8;
                match number.is_multiple_of(every) {
                    true => copied | (DATA + number / every * CLUSTER),
                    false => 0,
                }
            }
            at if at >= DATA => at,
            _ => 0,
        };
        bytes.extend(field.to_be_bytes());
    }
    bytes
}

fn length(every: u64) -> u64 {
    DATA + (SIZE / CLUSTER).div_ceil(every) * CLUSTER
}

/// Returns the peak resident memory of this process, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// Composes 2 GiB of changes, one cluster in twenty, on 40 GiB. Runs in its own process, whose memory is measured.
#[test]
#[ignore = "run by a_large_disk_needs_little_memory"]
fn compose_a_large_disk() {
    let before = peak_memory();
    let base = tables(length(1), |range| image_bytes(range, false, 1)).unwrap();
    let overlay = tables(length(20), |range| image_bytes(range, true, 20)).unwrap();
    let mut composer =
        Composer::new(base, vec![overlay], Layout::Append, Options::default()).unwrap();
    // Any data except zeros.
    let data = vec![1; 2 << 20];
    let mut tail = bytes::BytesMut::new();
    let mut written = 0;
    while let Some(read) = composer.next_read() {
        let length = read.host_bytes() as usize;
        composer.push(&read, &data[..length], &mut tail).unwrap();
        written += tail.len() as u64;
        tail.clear();
    }
    let start = composer.tail_start();
    let mut metadata = composer.finish(&mut tail).unwrap();
    loop {
        let more = metadata.write(&mut tail);
        written += tail.len() as u64;
        tail.clear();
        if !more {
            break;
        }
    }
    assert_eq!(start + written, metadata.file_bytes());
    println!("took {} KiB", (peak_memory() - before) >> 10);
}

#[test]
fn a_large_disk_needs_little_memory() {
    // libtest's name of a test: its path without the crate.
    let path = concat!(module_path!(), "::compose_a_large_disk");
    let (_, name) = path.split_once("::").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", name])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let memory = stdout.lines().find_map(|line| {
        let (_, rest) = line.split_once("took ")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    let memory = memory.expect("compose_a_large_disk prints its memory");
    eprintln!("{} MiB of memory for a disk of 40 GiB", memory >> 10);
    assert!(memory < 26 << 10, "{memory} KiB");
}
