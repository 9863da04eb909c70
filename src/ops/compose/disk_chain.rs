//! The files of a disk's chain, open for reading.

use bytes::Bytes;
use futures_util::future::try_join_all;

use snapdeck_host::{FileReader, Host, ImageFile};
use snapdeck_model::{BufferPool, FileStamp, HostName, Result};
use snapdeck_qcow2::{HEADER_BYTES, ReadRequest, TableBudget, Tables, read_backing_format};

use super::abort::{ComposeAbort, internal_error};
use super::layer::{ClusterData, read_tables};
use super::point_in_time::PointInTime;
use crate::direct_upload::DirectUpload;
use crate::sandbox_disk::{ChainStamps, SandboxDisk};

/// The layer of the base.
pub(super) const BASE_LAYER: usize = 0;

/// A chain, the base first.
pub(super) struct DiskChain {
    host: HostName,
    readers: Vec<FileReader>,
    pub virtual_size: u64,
    base_allocated_bytes: Option<u64>,
    /// Stamps of the files from before any of them was read.
    pub stamps: ChainStamps,
    pub buffers: BufferPool,
    /// Read instead of the topmost file, if a guest writes to that.
    pub point_in_time: Option<PointInTime>,
}

impl DiskChain {
    /// Opens the files of the chain of `source`.
    pub(super) async fn open(host: &Host, source: &SandboxDisk) -> Result<Self, ComposeAbort> {
        let unsupported =
            |path: &str, reason: &str| ComposeAbort::Unsupported(format!("{path} {reason}"));
        let mut virtual_size = None;
        for link in &source.chain {
            let Some(facts) = &link.facts else {
                return Err(unsupported(&link.path, "is not a readable qcow2 image"));
            };
            // QEMU does not read such a name as a path.
            let backing_file = facts.backing_file.as_deref();
            if backing_file.is_some_and(|name| name.starts_with("json:")) {
                return Err(unsupported(&link.path, "has a json: backing file"));
            }
            virtual_size.get_or_insert(facts.virtual_size);
        }
        let stamps = source.stamps(host).await?;
        // All at once: over SSH each open takes a round trip.
        let base_first = || source.chain.iter().rev();
        let readers =
            try_join_all(base_first().map(|link| host.fs().open_reader(&link.path))).await?;
        let chain = Self {
            host: host.name().clone(),
            readers,
            virtual_size: virtual_size.unwrap_or_default(),
            base_allocated_bytes: source.chain.last().and_then(|link| link.size_bytes),
            stamps,
            buffers: BufferPool::default(),
            point_in_time: None,
        };
        for (reader, link) in chain.readers.iter().zip(base_first()) {
            chain.check_format(reader, &link.path).await?;
        }
        Ok(chain)
    }

    /// Fails if the file declares a backing format other than qcow2: QEMU would read a qcow2 base as raw bytes then.
    async fn check_format(&self, reader: &FileReader, path: &str) -> Result<(), ComposeAbort> {
        let length = reader.size_bytes().min(HEADER_BYTES as u64);
        let header = reader.read_at(&self.buffers, 0, length as usize).await?;
        match read_backing_format(&header) {
            Some(format) if format != "qcow2" => Err(ComposeAbort::Unsupported(format!(
                "{path} on host {} declares a backing file of format {format:?}",
                self.host
            ))),
            _ => Ok(()),
        }
    }

    /// Reads the tables of the base and of the overlays, the one right above the base first.
    pub(super) async fn read_tables(&self) -> Result<(Tables, Vec<Tables>), ComposeAbort> {
        let (mut files, mut top_tables) = (&self.readers[..], None);
        if let (Some(point_in_time), Some((_, lower))) = (&self.point_in_time, files.split_last()) {
            files = lower;
            top_tables = Some(point_in_time.read_tables(&self.buffers).await?);
        }
        let budget = TableBudget::default();
        let read = |reader| read_tables(&self.buffers, &budget, reader);
        let mut tables = try_join_all(files.iter().map(read)).await?;
        tables.extend(top_tables);
        let overlays = tables.split_off(1.min(tables.len()));
        let base = tables.pop().ok_or_else(|| internal_error("no base"))?;
        Ok((base, overlays))
    }

    /// Reads what the composer requested.
    pub(super) async fn read(&self, request: &ReadRequest) -> Result<ClusterData> {
        let reader = self.reader(request.layer())?;
        if let Some(point_in_time) = &self.point_in_time
            && request.layer() + 1 == self.readers.len()
        {
            return point_in_time.read(&self.buffers, request).await;
        }
        // A few MiB at most.
        let (offset, length) = (request.host_range().start, request.host_bytes() as usize);
        let bytes = reader.read_at(&self.buffers, offset, length).await?;
        Ok(ClusterData::Host(bytes))
    }

    /// Reads the base's file.
    pub(super) async fn read_base(&self, offset: u64, length: u64) -> Result<Bytes> {
        let base = self.reader(BASE_LAYER)?;
        base.read_at(&self.buffers, offset, length as usize).await
    }

    /// Returns whether the host itself can send ranges of the files: of a disk that is not captured.
    pub(super) fn can_send(&self, host: &Host) -> bool {
        let is_possible = |reader| DirectUpload::is_possible(host, reader);
        self.point_in_time.is_none() && self.readers.iter().all(is_possible)
    }

    /// Returns the open file of a layer.
    pub(super) fn reader(&self, layer: usize) -> Result<&FileReader> {
        let reader = self.readers.get(layer);
        reader.ok_or_else(|| internal_error("no such layer"))
    }

    /// Fails unless the domain still uses the overlay that was opened: its tables would be those of another disk.
    pub(super) async fn check_same_overlay(&self, host: &Host, source: &SandboxDisk) -> Result<()> {
        source.check_same_disk(host).await?;
        let inode = |stamp: Option<FileStamp>| stamp.map(|stamp| stamp.inode);
        let file = host.fs().image_file(&source.disk_path).await?;
        let header = |file: &ImageFile| file.facts.as_ref().ok().cloned();
        let opened = source.chain.first().and_then(|link| link.facts.clone());
        let before = self.stamps.0.first().copied().flatten();
        match inode(file.as_ref().map(|file| file.stamp)) == inode(before)
            && file.as_ref().and_then(header) == opened
        {
            true => Ok(()),
            false => Err(source.other_disk_error(host)),
        }
    }

    /// Returns the part of the base's file that is holes, from 0 to 1; 0 if that is unknown.
    pub(super) fn base_hole_fraction(&self) -> f64 {
        let file_bytes = self.base_stamp().map_or(0, |stamp| stamp.size_bytes);
        match self.base_allocated_bytes {
            Some(allocated) if allocated < file_bytes => {
                (file_bytes - allocated) as f64 / file_bytes as f64
            }
            _ => 0.0,
        }
    }

    /// Returns the length of the topmost file in bytes.
    pub(super) fn overlay_bytes(&self) -> u64 {
        self.readers.last().map_or(0, |reader| reader.size_bytes())
    }

    pub(super) fn base_stamp(&self) -> Option<FileStamp> {
        self.stamps.0.last().copied().flatten()
    }
}
