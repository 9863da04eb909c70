//! The files of a disk's chain, open for reading.

use bytes::Bytes;
use futures_util::future::try_join_all;

use snapdeck_host::{FileReader, Host};
use snapdeck_model::{BufferPool, FileStamp, HostName, ImageFacts, Result};
use snapdeck_qcow2::{HEADER_BYTES, ReadRequest, TableReader, Tables, read_backing_format};

use super::ComposeAbort;
use super::point_in_time::{ClusterData, PointInTime};
use crate::sandbox_disk::{ChainStamps, SandboxDisk};

/// A chain, the base first.
pub(super) struct DiskChain {
    host: HostName,
    readers: Vec<FileReader>,
    virtual_size: u64,
    stamps: ChainStamps,
    buffers: BufferPool,
    /// What is read in the place of the topmost file, which a guest writes.
    point_in_time: Option<PointInTime>,
}

impl DiskChain {
    /// Opens the files of the chain of `source`, after looking at them.
    pub(super) async fn open(host: &Host, source: &SandboxDisk) -> Result<Self, ComposeAbort> {
        let refused = |path: &str, why: &str| ComposeAbort::Unsupported(format!("{path} {why}"));
        let mut virtual_size = None;
        for link in &source.chain {
            let facts: &ImageFacts = link
                .facts
                .as_ref()
                .ok_or_else(|| refused(&link.path, "is not a readable qcow2 image"))?;
            // QEMU may make something else of such a name than a file's path.
            if facts
                .backing_file
                .as_ref()
                .is_some_and(|name| name.starts_with("json:"))
            {
                return Err(refused(&link.path, "has a json: backing file"));
            }
            virtual_size.get_or_insert(facts.virtual_size);
        }
        let stamps = source.stamps(host).await?;
        // Each opens on its own: over SSH that takes a moment.
        let open = source.chain.iter().rev();
        let readers = try_join_all(open.map(|link| host.fs().open_reader(&link.path))).await?;
        let layers = Self {
            host: host.name().clone(),
            readers,
            virtual_size: virtual_size.unwrap_or_default(),
            stamps,
            buffers: BufferPool::default(),
            point_in_time: None,
        };
        for (reader, link) in layers.readers.iter().zip(source.chain.iter().rev()) {
            layers.check_format(reader, &link.path).await?;
        }
        Ok(layers)
    }

    /// A backing file that is to be read as something else than qcow2 is the disk byte by byte, whatever it looks like.
    async fn check_format(&self, reader: &FileReader, path: &str) -> Result<(), ComposeAbort> {
        let length = reader.size_bytes().min(HEADER_BYTES as u64);
        let start = reader.read_at(&self.buffers, 0, length as usize).await?;
        match read_backing_format(&start) {
            Some(format) if format != "qcow2" => Err(ComposeAbort::Unsupported(format!(
                "{path} on host {} declares a backing file of format {format:?}",
                self.host
            ))),
            _ => Ok(()),
        }
    }

    /// From here on the topmost file is as it was at that moment.
    pub(super) fn attach(&mut self, moment: PointInTime) {
        self.point_in_time = Some(moment);
    }

    /// The moment that is kept, if any.
    pub(super) fn point_in_time(&self) -> Option<&PointInTime> {
        self.point_in_time.as_ref()
    }

    /// Closes the files; the moment is the caller's.
    pub(super) fn close(self) -> Option<PointInTime> {
        self.point_in_time
    }

    /// The tables of the base, and those of the overlays, the one right above the base first.
    pub(super) async fn read_tables(&self) -> Result<(Tables, Vec<Tables>), ComposeAbort> {
        let (mut files, mut known) = (&self.readers[..], None);
        if let (Some(moment), Some((_, below))) = (&self.point_in_time, files.split_last()) {
            files = below;
            known = Some(match (moment.tables(), moment.copy()) {
                (Some(tables), _) => tables.clone(),
                (None, Some(copy)) => read_tables(&self.buffers, copy).await?,
                (None, None) => return Err(super::broken_plan_error("no overlay").into()),
            });
        }
        let read = |reader| read_tables(&self.buffers, reader);
        let mut tables = try_join_all(files.iter().map(read)).await?;
        tables.extend(known);
        let overlays = tables.split_off(1.min(tables.len()));
        let base = tables
            .pop()
            .ok_or_else(|| super::broken_plan_error("no base"))?;
        Ok((base, overlays))
    }

    /// Reads what the composer wants.
    pub(super) async fn read(&self, read: &ReadRequest) -> Result<ClusterData> {
        let reader = self
            .readers
            .get(read.layer())
            .ok_or_else(|| super::broken_plan_error("no such layer"))?;
        if let Some(moment) = &self.point_in_time
            && read.layer() + 1 == self.readers.len()
        {
            return moment.read(&self.buffers, read).await;
        }
        // Some MiB at most.
        let (offset, length) = (read.host_range().start, read.host_bytes() as usize);
        let bytes = reader.read_at(&self.buffers, offset, length).await?;
        Ok(ClusterData::Host(bytes))
    }

    /// Reads the base's file.
    pub(super) async fn read_base(&self, offset: u64, length: u64) -> Result<Bytes> {
        let base = self
            .readers
            .first()
            .ok_or_else(|| super::broken_plan_error("no base"))?;
        base.read_at(&self.buffers, offset, length as usize).await
    }

    /// The files as they were before anything was read of them.
    pub(super) fn stamps(&self) -> &ChainStamps {
        &self.stamps
    }

    /// The base's file.
    pub(super) fn base_stamp(&self) -> Option<FileStamp> {
        self.stamps.0.last().copied().flatten()
    }

    /// What all is read to.
    pub(super) fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// Size of the disk the guest sees, in bytes.
    pub(super) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }
}

/// Reads the tables of one file.
pub(super) async fn read_tables(
    buffers: &BufferPool,
    reader: &FileReader,
) -> Result<Tables, ComposeAbort> {
    let mut tables = TableReader::new(reader.size_bytes());
    while !tables.pending_reads().is_empty() {
        let reads = tables.pending_reads().iter().map(|range| {
            // A MiB at most.
            reader.read_at(buffers, range.start, (range.end - range.start) as usize)
        });
        let chunks = try_join_all(reads).await?;
        tables.feed(&chunks)?;
    }
    Ok(tables.finish()?)
}
