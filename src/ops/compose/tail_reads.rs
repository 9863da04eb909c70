//! Reads for the tail of a composed image: bytes, or the digests of whole clusters, which the host itself sends later.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Mutex;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc::{Receiver, Sender};

use snapdeck_model::{Digest, Result};
use snapdeck_qcow2::{ComposeError, Composer, ReadRequest};

use super::abort::{ComposeAbort, internal_error};
use super::disk_chain::BASE_LAYER;
use super::layer::ClusterData;
use super::part_writer::PartWriter;
use super::pieces::MAX_RANGES;
use super::upload::{ComposedUpload, lock};
use crate::direct_upload::DirectUpload;

/// Concurrent reads of the overlays, of a few MiB at most each, or commands that hash them.
const MAX_OVERLAY_READS: usize = 6;
/// Reads whose clusters the host hashes by one command: 32 MiB.
const MAX_READS_PER_COMMAND: usize = 16;
/// Smaller clusters are read rather than hashed.
const MIN_HASHED_CLUSTER_BYTES: u64 = 32 << 10;
/// Less is read rather than hashed: a command takes longer.
const MIN_HASHED_BYTES: u64 = 1 << 20;

/// Reads of the overlays in order, and what was read.
pub(super) enum Batch {
    Bytes(Vec<(ReadRequest, ClusterData)>),
    /// Of one layer, with the digests of their clusters.
    Digests(Vec<ReadRequest>, Vec<Digest>),
    /// Whose digests the host could not compute.
    Unread(Vec<ReadRequest>),
}

impl ComposedUpload<'_> {
    /// Reads what the composer requests, or has it hashed, and queues it in order.
    pub(super) async fn read_batches(
        &self,
        composer: &Mutex<Composer>,
        batch_tx: Sender<Batch>,
    ) -> Result<(), ComposeAbort> {
        let cluster_bytes = lock(composer).cluster_bytes();
        let mut next = None;
        let (mut reading, mut done) = (FuturesOrdered::new(), VecDeque::new());
        loop {
            while reading.len() + done.len() < MAX_OVERLAY_READS
                && let Some((reads, ranges)) = self.next_reads(&mut lock(composer), &mut next)
            {
                reading.push_back(self.read_batch(reads, ranges, cluster_bytes));
            }
            if reading.is_empty() && done.is_empty() {
                return Ok(());
            }
            // Also while the queue is full: without heartbeats the host ends its commands.
            tokio::select! {
                Some(batch) = reading.next(), if !reading.is_empty() => done.push_back(batch?),
                permit = batch_tx.reserve(), if !done.is_empty() => {
                    let (Ok(permit), Some(batch)) = (permit, done.pop_front()) else {
                        return Ok(());
                    };
                    permit.send(batch);
                }
            }
        }
    }

    /// Composes what was read, and queues the full parts.
    pub(super) async fn compose_batches(
        &self,
        composer: &Mutex<Composer>,
        mut batch_rx: Receiver<Batch>,
        parts: &mut PartWriter<'_, '_>,
    ) -> Result<(), ComposeAbort> {
        while let Some(batch) = batch_rx.recv().await {
            match batch {
                Batch::Bytes(reads) => {
                    for (read, data) in reads {
                        push(composer, &read, data, &mut parts.buffer)?;
                    }
                }
                Batch::Digests(reads, digests) => {
                    let cluster_bytes = lock(composer).cluster_bytes();
                    let mut digests = &digests[..];
                    for read in reads {
                        let count = read.guest_bytes() / cluster_bytes;
                        let (now, rest) = digests
                            .split_at_checked(count as usize)
                            .ok_or_else(|| internal_error("too few digests"))?;
                        digests = rest;
                        let stored = lock(composer).push_digests(&read, now, &mut parts.buffer)?;
                        for range in stored {
                            parts.add_range(read.layer(), range).await?;
                        }
                    }
                }
                Batch::Unread(reads) => {
                    for read in reads {
                        let data = self.chain.read(&read).await?;
                        push(composer, &read, data, &mut parts.buffer)?;
                        parts.flush_full_parts().await?;
                    }
                }
            }
            parts.flush_full_parts().await?;
        }
        Ok(())
    }

    /// Returns the next reads of the composer: several, with the ranges of the layer's file, if the host hashes their clusters. `next` is
    /// the one behind them.
    fn next_reads(
        &self,
        composer: &mut Composer,
        next: &mut Option<ReadRequest>,
    ) -> Option<(Vec<ReadRequest>, Vec<Range<u64>>)> {
        let first = next.take().or_else(|| composer.next_read())?;
        let is_hashed = self.direct.as_ref().is_some_and(DirectUpload::is_working)
            && composer.cluster_bytes() >= MIN_HASHED_CLUSTER_BYTES;
        let ranges = is_hashed.then(|| composer.whole_clusters(&first)).flatten();
        let mut reads = vec![first];
        let Some(mut ranges) = ranges.filter(|ranges| ranges.len() <= MAX_RANGES) else {
            return Some((reads, Vec::new()));
        };
        let layer = reads.first().map(ReadRequest::layer);
        while reads.len() < MAX_READS_PER_COMMAND
            && let Some(read) = composer.next_read()
        {
            let more = composer.whole_clusters(&read);
            match more.filter(|more| ranges.len() + more.len() <= MAX_RANGES) {
                Some(more) if Some(read.layer()) == layer => {
                    ranges.extend(more);
                    reads.push(read);
                }
                _ => {
                    *next = Some(read);
                    break;
                }
            }
        }
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if bytes < MIN_HASHED_BYTES {
            ranges.clear();
        }
        Some((reads, ranges))
    }

    /// Has the host hash the clusters of the reads, or reads them if there are no `ranges`.
    async fn read_batch(
        &self,
        reads: Vec<ReadRequest>,
        ranges: Vec<Range<u64>>,
        cluster_bytes: u64,
    ) -> Result<Batch> {
        let layer = reads.first().map_or(BASE_LAYER, ReadRequest::layer);
        if let Some(direct) = &self.direct
            && !ranges.is_empty()
        {
            let reader = self.chain.reader(layer)?;
            return Ok(match direct.hash(reader, &ranges, cluster_bytes).await? {
                Some(digests) => Batch::Digests(reads, digests),
                None => Batch::Unread(reads),
            });
        }
        let data = try_join_all(reads.iter().map(|read| self.chain.read(read))).await?;
        Ok(Batch::Bytes(reads.into_iter().zip(data).collect()))
    }
}

/// Pushes what was read.
fn push(
    composer: &Mutex<Composer>,
    read: &ReadRequest,
    data: ClusterData,
    tail: &mut BytesMut,
) -> Result<(), ComposeError> {
    match data {
        ClusterData::Host(bytes) => lock(composer).push(read, &bytes, tail),
        ClusterData::Guest(bytes) => lock(composer).push_guest(read, &bytes, tail),
    }
}
