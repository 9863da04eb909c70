//! Tables and clusters of one layer of a disk's chain.

use bytes::Bytes;
use futures_util::future::try_join_all;

use snapdeck_host::FileReader;
use snapdeck_model::BufferPool;
use snapdeck_qcow2::{TableBudget, TableReader, Tables};

use super::abort::ComposeAbort;

/// Bytes that the composer requested.
pub(super) enum ClusterData {
    /// As stored in the layer's file.
    Host(Bytes),
    /// As the guest reads them from the disk.
    Guest(Bytes),
}

/// Reads the tables of one file.
pub(super) async fn read_tables(
    buffers: &BufferPool,
    budget: &TableBudget,
    reader: &FileReader,
) -> Result<Tables, ComposeAbort> {
    let mut tables = TableReader::new(reader.size_bytes(), budget);
    while !tables.pending_reads().is_empty() {
        let reads = tables.pending_reads().iter().map(|range| {
            // At most 1 MiB.
            reader.read_at(buffers, range.start, (range.end - range.start) as usize)
        });
        let chunks = try_join_all(reads).await?;
        tables.feed(&chunks)?;
    }
    Ok(tables.finish()?)
}
