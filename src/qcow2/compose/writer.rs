//! Assembles clusters, drops zeros, compresses, and allocates host clusters.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::composed_image::{Fingerprint, WrittenCluster, fingerprint};
use super::target::Target;
use crate::codec::Encoder;
use crate::entry::{COPIED, Geometry};
use crate::error::ComposeError;
use crate::refcounts::Refcounts;

/// Compressed clusters are collected in runs of this many bytes, or of four clusters: a run begins at a host cluster, and
/// its last one is padded.
const RUN_BYTES: usize = 2 << 20;

pub(super) struct WriterOutput {
    pub(super) target: Target,
    pub(super) counts: Refcounts,
    /// Offset of the tables.
    pub(super) end: u64,
    /// Each cluster that was written or kept, by disk offset.
    pub(super) written: Vec<WrittenCluster>,
}

pub(super) struct Writer {
    target: Target,
    counts: Refcounts,
    /// Zeros to append up to the first whole cluster.
    padding: usize,
    /// Offset of the next host cluster.
    cursor: u64,
    encoder: Option<Encoder>,
    /// Disk offset and bytes of the cluster that is being assembled.
    open_cluster: Option<(u64, Vec<u8>)>,
    run: Vec<u8>,
    /// Disk offset, offset in the run and length of each compressed cluster in it.
    compressed_clusters: Vec<(u64, u64, u64)>,
    /// Clusters that the kept image has at these disk offsets, mapped until one with other bytes replaces them.
    kept_clusters: BTreeMap<u64, WrittenCluster>,
    written: Vec<WrittenCluster>,
}

impl Writer {
    /// Appends from `tail_start`; the first cluster is at `first_cluster`, less than one cluster further.
    pub(super) fn new(
        target: Target,
        counts: Refcounts,
        tail_start: u64,
        first_cluster: u64,
        compression_enabled: bool,
        kept_clusters: BTreeMap<u64, WrittenCluster>,
        unchanged_clusters: Vec<WrittenCluster>,
    ) -> Self {
        Self {
            kept_clusters,
            written: unchanged_clusters,
            target,
            counts,
            padding: (first_cluster - tail_start) as usize,
            cursor: first_cluster,
            encoder: compression_enabled.then(Encoder::new).flatten(),
            open_cluster: None,
            run: Vec::new(),
            compressed_clusters: Vec::new(),
        }
    }

    /// Writes bytes of the disk. Those of one cluster are consecutive calls; missing bytes are zeros. `source` is their offset
    /// in the file of the topmost layer, if they are from there.
    pub(super) fn write(
        &mut self,
        mut guest: u64,
        mut bytes: &[u8],
        mut source: Option<u64>,
        tail: &mut BytesMut,
    ) -> Result<(), ComposeError> {
        let cluster = self.geometry().cluster_size();
        while !bytes.is_empty() {
            let within = (guest % cluster) as usize;
            let start = guest - guest % cluster;
            let room = self.geometry().cluster_len() - within;
            let (chunk, rest) = bytes.split_at(room.min(bytes.len()));
            if self
                .open_cluster
                .as_ref()
                .is_some_and(|(open, _)| *open != start)
            {
                self.flush_open_cluster(tail)?;
            }
            if chunk.len() as u64 == cluster {
                self.store(start, chunk, source, tail)?;
            } else {
                let (_, open) = self
                    .open_cluster
                    .get_or_insert_with(|| (start, vec![0; cluster as usize]));
                if let Some(slot) = open.get_mut(within..within + chunk.len()) {
                    slot.copy_from_slice(chunk);
                }
            }
            source = source.map(|offset| offset + chunk.len() as u64);
            guest += chunk.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Writes a whole cluster that is compressed with the image's compression type.
    pub(super) fn write_compressed(
        &mut self,
        guest: u64,
        compressed: &[u8],
        plain: &[u8],
        tail: &mut BytesMut,
    ) -> Result<(), ComposeError> {
        self.flush_open_cluster(tail)?;
        if compressed.len() >= plain.len() {
            return self.store(guest, plain, None, tail);
        }
        match self.is_new(guest, content_of(plain), None) {
            true => self.append_compressed(guest, compressed, tail),
            false => Ok(()),
        }
    }

    pub(super) fn finish(mut self, tail: &mut BytesMut) -> Result<WriterOutput, ComposeError> {
        self.flush_open_cluster(tail)?;
        self.end_run(tail)?;
        self.pad(tail);
        // No bytes were written to these.
        while let Some((guest, _)) = self.kept_clusters.pop_first() {
            self.unmap(guest);
        }
        self.written.sort_unstable_by_key(|cluster| cluster.offset);
        Ok(WriterOutput {
            target: self.target,
            counts: self.counts,
            end: self.cursor,
            written: self.written,
        })
    }

    fn geometry(&self) -> Geometry {
        self.target.geometry
    }

    fn pad(&mut self, tail: &mut BytesMut) {
        tail.resize(tail.len() + std::mem::take(&mut self.padding), 0);
    }

    fn flush_open_cluster(&mut self, tail: &mut BytesMut) -> Result<(), ComposeError> {
        match self.open_cluster.take() {
            Some((guest, bytes)) => self.store(guest, &bytes, None, tail),
            None => Ok(()),
        }
    }

    /// Returns whether a whole cluster, of which `new` is `None` if it is zeros, is to be appended: it is not if it is zeros or has
    /// the same bytes as the one of the kept image. Otherwise the disk offset is unmapped.
    fn is_new(&mut self, guest: u64, new: Option<Fingerprint>, source: Option<u64>) -> bool {
        let kept = self.kept_clusters.remove(&guest);
        let kept = kept.map(|cluster| cluster.fingerprint);
        self.written.extend(new.map(|fingerprint| WrittenCluster {
            offset: guest,
            fingerprint,
            source,
        }));
        if kept.is_some() && kept != new {
            self.unmap(guest);
        }
        new.is_some() && kept != new
    }

    fn unmap(&mut self, guest: u64) {
        if let Some(host) = self.target.unmap(guest) {
            self.counts.release(host);
        }
    }

    /// Stores a whole cluster; a cluster of zeros is omitted.
    fn store(
        &mut self,
        guest: u64,
        bytes: &[u8],
        source: Option<u64>,
        tail: &mut BytesMut,
    ) -> Result<(), ComposeError> {
        if !self.is_new(guest, content_of(bytes), source) {
            return Ok(());
        }
        if let Some(mut encoder) = self.encoder.take() {
            let appended = match encoder.encode(bytes) {
                Some(frame) => self.append_compressed(guest, frame, tail).map(|()| true),
                None => Ok(false),
            };
            self.encoder = Some(encoder);
            if appended? {
                return Ok(());
            }
        }
        self.place(guest, tail)?;
        tail.extend_from_slice(bytes);
        Ok(())
    }

    /// Stores a whole cluster that is not compressed, by its fingerprint, `None` if it is zeros; returns whether the caller has to
    /// append its bytes, behind `tail`.
    pub(super) fn store_by_fingerprint(
        &mut self,
        guest: u64,
        new: Option<Fingerprint>,
        source: Option<u64>,
        tail: &mut BytesMut,
    ) -> Result<bool, ComposeError> {
        self.flush_open_cluster(tail)?;
        let is_new = self.is_new(guest, new, source);
        if is_new {
            self.place(guest, tail)?;
        }
        Ok(is_new)
    }

    /// Maps the cluster at a disk offset to the next host cluster, which begins at the end of `tail`.
    fn place(&mut self, guest: u64, tail: &mut BytesMut) -> Result<(), ComposeError> {
        self.pad(tail);
        let host = self.cursor;
        self.cursor += self.geometry().cluster_size();
        self.counts.reference(host..self.cursor)?;
        self.target.set(guest, COPIED | host);
        Ok(())
    }

    fn append_compressed(
        &mut self,
        guest: u64,
        compressed: &[u8],
        tail: &mut BytesMut,
    ) -> Result<(), ComposeError> {
        let room = RUN_BYTES.max(4 * self.geometry().cluster_len());
        if self.run.len() + compressed.len() > room {
            self.end_run(tail)?;
        }
        let length = compressed.len() as u64;
        self.compressed_clusters
            .push((guest, self.run.len() as u64, length));
        self.run.extend_from_slice(compressed);
        Ok(())
    }

    /// Allocates the compressed clusters. Each references all host clusters that its sectors touch.
    fn end_run(&mut self, tail: &mut BytesMut) -> Result<(), ComposeError> {
        if self.run.is_empty() {
            return Ok(());
        }
        self.pad(tail);
        let geometry = self.geometry();
        for (guest, offset, length) in std::mem::take(&mut self.compressed_clusters) {
            let host = self.cursor + offset;
            self.counts
                .reference(host - host % 512..(host + length).next_multiple_of(512))?;
            self.target
                .set(guest, geometry.compressed_entry(host, length));
        }
        let cluster = geometry.cluster_len();
        self.run.resize(self.run.len().next_multiple_of(cluster), 0);
        tail.extend_from_slice(&self.run);
        self.cursor += self.run.len() as u64;
        self.run.clear();
        Ok(())
    }
}

/// Returns the fingerprint of a cluster; `None` if it is zeros.
fn content_of(bytes: &[u8]) -> Option<Fingerprint> {
    (!is_zero(bytes)).then(|| fingerprint(bytes))
}

/// The first bytes decide for most clusters; the rest is one comparison of the memory with itself, shifted by 16 bytes.
fn is_zero(bytes: &[u8]) -> bool {
    let (head, _) = bytes.split_at(bytes.len().min(16));
    head.iter().all(|byte| *byte == 0)
        && bytes.get(head.len()..) == bytes.get(..bytes.len() - head.len())
}
