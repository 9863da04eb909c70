//! The disk of a small image in memory.

use super::entry::Cluster;
use super::error::ComposeError;
use super::tables::{TableBudget, TableReader};

/// Returns the bytes that a guest reads from the standalone image in `file`, whose disk has at most `max_bytes`.
///
/// # Errors
/// Why the image cannot be read; also if it has compressed clusters.
pub fn flatten(file: &[u8], max_bytes: u64) -> Result<Vec<u8>, ComposeError> {
    let slice = |start: u64, end: u64| {
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        file.get(range)
    };
    let truncated = |offset| ComposeError::Truncated {
        structure: "a data cluster",
        offset,
    };
    let mut reader = TableReader::new(file.len() as u64, &TableBudget::default());
    while !reader.pending_reads().is_empty() {
        let ranges = reader.pending_reads().iter();
        let chunks: Option<Vec<&[u8]>> =
            ranges.map(|range| slice(range.start, range.end)).collect();
        reader.feed(&chunks.ok_or_else(|| truncated(0))?)?;
    }
    let tables = reader.finish()?;
    if let Some(backing) = &tables.facts().backing_file {
        return Err(ComposeError::BaseHasBackingFile(backing.clone()));
    }
    let size = tables.facts().virtual_size;
    if size > max_bytes {
        return Err(ComposeError::TooLarge(
            "its disk is not that of a small image",
        ));
    }
    let cluster = tables.geometry.cluster_size();
    let mut disk = vec![0; size as usize];
    for (target, guest) in disk
        .chunks_mut(tables.geometry.cluster_len())
        .zip((0..).step_by(tables.geometry.cluster_len()))
    {
        match tables.cluster_at(guest) {
            Cluster::Unallocated | Cluster::Zero { .. } => {}
            Cluster::Data { host } => {
                // The last cluster of a file may be shorter than a cluster.
                let end = (host + cluster).min(file.len() as u64);
                let bytes = slice(host, end).ok_or_else(|| truncated(host))?;
                let length = bytes.len().min(target.len());
                target[..length].copy_from_slice(&bytes[..length]);
            }
            Cluster::Compressed { .. } => return Err(ComposeError::Undecodable(guest)),
        }
    }
    Ok(disk)
}
